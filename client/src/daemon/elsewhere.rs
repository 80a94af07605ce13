//! The same compile in another folder: follows hints to where it was done before, and leaves hints of what was done here.
//!
//! What may be shared, and how a result is carried from folder to folder, is [`portable`](crate::portable)'s to say.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use buildbee_proto::digest::Digest;
use buildbee_proto::hint::Hint;
use buildbee_proto::outcome::{ActionResult, OutputFile, Provenance};

use super::cache::Hit;
use super::context::Context;
use super::peers;
use crate::compiler::request::CompileRequest;
use crate::dispatch::hints;
use crate::dispatch::job::Job;
use crate::dispatch::lookup::Wanted;
use crate::portable::carry::{Carried, carry};
use crate::portable::template::There;
use crate::portable::{Obstacle, Template};

/// True hints whose results are fetched for one compile, before it is run after all.
const MAX_FOLLOWED: usize = 2;

/// A result, and the name of the agent that had it if it was none of this user's.
pub type Found = (Option<String>, Arc<Hit>);

/// Who has the result of a compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// Peers.
    Farm,
    /// This user alone: no sandbox made it.
    User,
}

/// One compile that may have been done elsewhere.
#[derive(Debug)]
pub struct Elsewhere<'a> {
    context: &'a Arc<Context>,
    job: &'a Job,
    template: Template<'a>,
    key: Digest,
}

impl<'a> Elsewhere<'a> {
    /// Of `job`, which `request` has led to, in `cwd`; or why its folder matters.
    pub fn of(context: &'a Arc<Context>, job: &'a Job, request: &CompileRequest, cwd: &Path) -> Result<Self, Obstacle> {
        let template = Template::of(job, request, cwd, &context.hashes)?;
        let key = template.key().ok_or_else(|| Obstacle::Root(cwd.display().to_string()))?;
        Ok(Self { context, job, template, key })
    }

    /// A result that this user's own cache has for another folder.
    pub async fn in_own_cache(&self) -> Option<Found> {
        let (store, key) = (self.context.cache.store()?.clone(), self.key);
        let hints = tokio::task::spawn_blocking(move || store.hints(&key).ok().flatten()).await.ok()??;
        self.follow(&hints.entries).await
    }

    /// What peers know of other folders.
    pub async fn hints_of_peers(&self) -> Vec<Hint> {
        let Some(farm) = &self.context.farm else { return Vec::new() };
        let Some(roster) = farm.roster() else { return Vec::new() };
        hints::ask(farm.node(), &roster.value, &farm.responsive_agents(), &self.key).await
    }

    /// The result that the first true and useful hint leads to, as it is in this folder, with the peer that had it.
    pub async fn follow(&self, hints: &[Hint]) -> Option<Found> {
        let mut n_followed = 0;
        for hint in hints {
            let Some(there) = self.template.follow(hint) else {
                if hint.root != *self.template.root() {
                    self.context.journal.noted("hint-refused");
                }
                continue;
            };
            if n_followed == MAX_FOLLOWED {
                break;
            }
            n_followed += 1;
            let Some((peer, found)) = self.result(there).await else { continue };
            match self.carried_here(hint, &found) {
                Ok(hit) => return Some((peer, Arc::new(hit))),
                Err(obstacle) => {
                    tracing::debug!(action = %hint.action.short(), %obstacle, "a result made elsewhere is of no use here");
                    self.context.journal.noted("directory-in-result");
                }
            }
        }
        None
    }

    async fn result(&self, there: There) -> Option<Found> {
        let (cache, action) = (self.context.cache.clone(), there.action);
        if let Ok(Some(hit)) = tokio::task::spawn_blocking(move || cache.result(&action)).await {
            return Some((None, hit));
        }
        let wanted = Wanted { action: &there.action, outputs: &there.outputs };
        let (agent, hit) = peers::result(self.context, wanted).await?;
        Some((Some(agent), hit))
    }

    /// The result as this compile's own. This client says so itself, and to nobody else.
    fn carried_here(&self, hint: &Hint, found: &Hit) -> Result<Hit, Obstacle> {
        let respelling = self.template.respelling_from(&hint.root);
        let there = self.template.kind().elsewhere(&hint.root, self.template.root())?;
        let Carried { outputs, stdout, stderr } = carry(&found.signed.result, &found.blobs, &there, &respelling)?;
        let mut blobs = BTreeMap::new();
        let mut keep = |content: Vec<u8>| {
            let digest = Digest::of(&content);
            if !content.is_empty() {
                blobs.insert(digest, content);
            }
            digest
        };
        let outputs =
            outputs.into_iter().map(|(path, content, mode)| OutputFile { path, digest: keep(content), mode }).collect();
        let (stdout, stderr) = (keep(stdout), keep(stderr));
        let made = &found.signed.result.provenance;
        let provenance = Provenance { peer: self.context.identity.peer(), sandboxed: false, ..made.clone() };
        let result =
            ActionResult { action: self.job.action, exit_code: 0, outputs, stdout, stderr, observed: None, provenance };
        Ok(Hit { signed: self.context.identity.sign_result(result), blobs })
    }

    /// Leaves a hint of a result of this compile, unless it holds the folder: then it says so. Peers are told in the background.
    pub async fn publish(&self, hit: &Hit, keeper: Keeper) -> Result<(), Obstacle> {
        let away = self.template.respelling_away().ok_or_else(|| Obstacle::Root(String::new()))?;
        carry(&hit.signed.result, &hit.blobs, self.template.kind(), &away)?;
        let (key, hint) = (self.key, self.template.hint());
        if let Some(store) = self.context.cache.store().cloned() {
            let hint = hint.clone();
            let added = tokio::task::spawn_blocking(move || store.add_hint(&key, hint)).await;
            if let Ok(Err(error)) = added {
                tracing::debug!(%error, "a hint is not kept");
            }
        }
        if keeper == Keeper::Farm {
            self.tell_peers(hint);
        }
        Ok(())
    }

    fn tell_peers(&self, hint: Hint) {
        let Some(farm) = self.context.farm.clone() else { return };
        let Ok(permit) = Arc::clone(&self.context.telling).try_acquire_owned() else {
            tracing::debug!("too many results are being told of; one is not");
            return;
        };
        let key = self.key;
        tokio::spawn(async move {
            if let Some(roster) = farm.roster() {
                hints::tell(farm.node(), &roster.value, &farm.responsive_agents(), key, &hint).await;
            }
            drop(permit);
        });
    }
}
