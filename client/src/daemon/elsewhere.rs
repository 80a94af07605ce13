//! The same compile in other folders: follows hints to where it was done before, and leaves hints of what was done here.
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
use crate::dispatch::job::Job;
use crate::dispatch::lookup::{News, Wanted};
use crate::portable::carry::{Carried, carry};
use crate::portable::template::There;
use crate::portable::{Obstacle, Template};

/// True hints whose results are fetched for one compile, before it is run after all.
const MAX_FOLLOWED: usize = 2;

/// A result, and the name of the agent that had it if it was none of this user's.
pub type Found = (Option<String>, Arc<Hit>);

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
        if !store.has_hints(&key) {
            return None;
        }
        let hints = tokio::task::spawn_blocking(move || store.hints(&key).ok().flatten()).await.ok()??;
        self.follow(&hints.entries).await
    }

    /// What peers know other folders under.
    pub fn key(&self) -> &Digest {
        &self.key
    }

    /// The result that the first true and useful hint leads to, as it is in this folder, with the peer that had it.
    pub async fn follow(&self, hints: &[Hint]) -> Option<Found> {
        let mut n_followed = 0;
        for hint in hints {
            let Some(there) = self.template.follow(hint) else {
                if hint.roots != self.template.roots() {
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
        let (agent, hit) = peers::ask(self.context, wanted, None, News::Count).await.0?;
        Some((Some(agent), hit))
    }

    /// The result as this compile's own. This client says so itself, and to nobody else.
    fn carried_here(&self, hint: &Hint, found: &Hit) -> Result<Hit, Obstacle> {
        let respelling = self.template.respelling_from(&hint.roots);
        let there = self.template.kind().elsewhere(&hint.roots, self.template.roots())?;
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

    /// What others may be told of a result of this compile, unless it holds the folder: then it says so.
    pub fn hint(&self, hit: &Hit) -> Result<Hint, Obstacle> {
        let away = self.template.respelling_away().ok_or_else(|| Obstacle::Root(String::new()))?;
        carry(&hit.signed.result, &hit.blobs, self.template.kind(), &away)?;
        Ok(self.template.hint())
    }

    /// Leaves that hint in this user's own cache.
    pub async fn note(&self, hit: &Hit) -> Result<(), Obstacle> {
        let (cache, key, hint) = (self.context.cache.clone(), self.key, self.hint(hit)?);
        // A panic in there loses a hint.
        tokio::task::spawn_blocking(move || cache.add_hint(&key, hint)).await.ok();
        Ok(())
    }

    /// Tells peers of a result that they hold, in the background.
    pub fn tell_peers(&self, hint: Hint) {
        if let Some(farm) = &self.context.farm {
            farm.hints().tell(self.key, hint);
        }
    }
}
