//! Which blobs travel along with an action, and which an agent is left to ask for.
//!
//! A few bytes that the agent was not sent yet go with the request. More than that is offered by digest, and sent if the agent says that it
//! lacks it: a refused request, an agent that knows the blobs from elsewhere or a daemon that started anew cost digests alone. What
//! another agent has been sent is not offered: agents get it from each other, so that it crosses this machine's link once. Directories
//! go to every agent, said by what differs from those of the action before (`alike`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::execute::Supply;
use buildbee_proto::limits::{MAX_BASES_BYTES, MAX_INLINE_BYTES, MAX_OFFERED};
use buildbee_proto::peer::PeerId;

use super::alike::alike;
use super::lender::Lender;
use crate::inputs::tree::Tree;

/// Blobs that go with a request unasked, in all: less than a round trip is worth.
const UNASKED_BYTES: u64 = 4 << 10;
/// A file above this is asked for by the agent if it lacks it.
const OFFERED_FILE_BYTES: u64 = 2 << 20;
/// Blobs remembered as sent to one agent; beyond it the memory starts over.
const MAX_SENT: usize = 50_000;

/// Which blobs each agent was sent. A wrong guess costs a round trip, no more.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    by_agent: Arc<Mutex<HashMap<PeerId, Known>>>,
}

#[derive(Debug, Default)]
struct Known {
    blobs: HashSet<Digest>,
    /// The last tree whose directories were offered, `MAX_BASES_BYTES` of them at most: the next ones are said by what differs.
    tree: Option<Arc<Tree>>,
}

/// What is to travel along with one request. Counts as sent, unless dropped before [`Along::arrived`].
#[derive(Debug)]
pub(super) struct Along {
    /// Sent with the request.
    pub(super) unasked: Vec<Digest>,
    /// Named in it.
    pub(super) offered: Vec<Digest>,
    agent: PeerId,
    sent: Sent,
    tree: Arc<Tree>,
    base: Option<Arc<Tree>>,
    arrived: bool,
}

/// What is to be read for an agent that lacks it.
#[derive(Debug)]
pub(super) struct Lacking {
    /// In the order offered.
    pub(super) digests: Vec<Digest>,
    offered: Vec<Digest>,
    tree: Arc<Tree>,
    base: Option<Arc<Tree>>,
}

impl Sent {
    // Insertions and removals: nothing can be left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Known>> {
        self.by_agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of an action's blobs is to travel to `agent` along with it. Its directories always do, if they are new to it: they are asked
    /// for level by level.
    pub(super) fn along<'a>(
        &self,
        agent: PeerId,
        tree: &'a Arc<Tree>,
        files: impl Iterator<Item = &'a Digest>,
    ) -> Along {
        let mut by_agent = self.lock();
        let is_new = |digest: &Digest| by_agent.get(&agent).is_none_or(|known| !known.blobs.contains(digest));
        let is_elsewhere = |digest: &Digest| by_agent.values().any(|known| known.blobs.contains(digest));
        let files = files.filter(|digest| (1..=OFFERED_FILE_BYTES).contains(&digest.size_bytes));
        let files = files.filter(|digest| is_new(digest) && !is_elsewhere(digest));
        let directories = tree.directories.iter().map(|(digest, _)| digest);
        let new: Vec<Digest> =
            directories.filter(|digest| is_new(digest)).chain(files).take(MAX_OFFERED).copied().collect();
        let known = by_agent.entry(agent).or_default();
        if known.blobs.len() + new.len() > MAX_SENT {
            known.blobs.clear();
        }
        known.blobs.extend(&new);
        let n_bytes: u64 = new.iter().map(|digest| digest.size_bytes).sum();
        let (unasked, offered) = if n_bytes <= UNASKED_BYTES { (new, Vec::new()) } else { (Vec::new(), new) };
        let mut base = None;
        if !offered.is_empty() && tree.n_bytes() <= MAX_BASES_BYTES as u64 {
            base = known.tree.replace(Arc::clone(tree));
        }
        drop(by_agent);
        Along { unasked, offered, agent, sent: self.clone(), tree: Arc::clone(tree), base, arrived: false }
    }

    /// `agent` has these too: it made them.
    pub fn made<'a>(&self, agent: PeerId, blobs: impl Iterator<Item = &'a Digest>) {
        let mut by_agent = self.lock();
        let known = by_agent.entry(agent).or_default();
        known.blobs.extend(blobs.take(MAX_SENT.saturating_sub(known.blobs.len())));
    }

    /// How many bytes of `blobs` each agent has.
    pub fn held<'a>(&self, blobs: impl Iterator<Item = &'a Digest>) -> HashMap<PeerId, u64> {
        let by_agent = self.lock();
        let mut held: HashMap<PeerId, u64> = HashMap::new();
        for blob in blobs {
            for (agent, _) in by_agent.iter().filter(|(_, known)| known.blobs.contains(blob)) {
                let bytes = held.entry(*agent).or_default();
                *bytes = bytes.saturating_add(blob.size_bytes);
            }
        }
        held
    }

    /// An agent that was away may have lost what it was sent.
    pub fn forget(&self, agent: &PeerId) {
        self.lock().remove(agent);
    }

    /// What follows is not to be said by a tree that did not arrive.
    fn forget_tree(&self, agent: &PeerId, tree: &Arc<Tree>) {
        if let Some(known) = self.lock().get_mut(agent)
            && known.tree.as_ref().is_some_and(|last| Arc::ptr_eq(last, tree))
        {
            known.tree = None;
        }
    }

    fn forget_blobs<'a>(&self, agent: &PeerId, blobs: impl Iterator<Item = &'a Digest>) {
        if let Some(known) = self.lock().get_mut(agent) {
            for blob in blobs {
                known.blobs.remove(blob);
            }
        }
    }
}

impl Along {
    /// What goes with the request. Reads files: call off the event loop.
    pub(super) fn contents(unasked: &[Digest], lender: &Lender) -> Vec<Bytes> {
        unasked.iter().filter_map(|digest| lender.content(digest)).map(Bytes).collect()
    }

    /// The offered blobs whose flag is set; `None` where the flags are not those of the offer.
    pub(super) fn lacking(&self, flags: &[bool]) -> Option<Lacking> {
        let digests = self.offered.iter().zip(flags).filter(|(_, lacks)| **lacks).map(|(digest, _)| *digest).collect();
        let (offered, tree) = (self.offered.clone(), Arc::clone(&self.tree));
        (flags.len() == offered.len()).then(|| Lacking { digests, offered, tree, base: self.base.clone() })
    }

    /// The agent has everything that it was sent or offered, save those of `lacking` that `supply` left out.
    pub(super) fn arrived(mut self, lacking: &[Digest], supply: &Supply) {
        let n_alike = supply.alike.as_ref().map_or(0, |alike| alike.n_blobs as usize);
        let left_out = lacking.iter().zip(&supply.blobs).skip(n_alike).filter(|(_, blob)| blob.0.is_empty());
        self.sent.forget_blobs(&self.agent, left_out.map(|(digest, _)| digest));
        self.arrived = true;
    }
}

impl Drop for Along {
    fn drop(&mut self) {
        if !self.arrived {
            self.sent.forget_blobs(&self.agent, self.unasked.iter().chain(&self.offered));
            if !self.offered.is_empty() {
                self.sent.forget_tree(&self.agent, &self.tree);
            }
        }
    }
}

impl Lacking {
    /// The answer to an agent that lacks these. What is too much for one message, or is not lent any more, stays out. Reads files: call
    /// off the event loop.
    pub(super) fn supply(&self, lender: &Lender) -> Supply {
        let mut room = MAX_INLINE_BYTES as u64;
        let directories = self.digests.iter().map_while(|digest| {
            let content = self.tree.content(digest)?;
            room = room.checked_sub(content.len() as u64)?;
            Some((*digest, content))
        });
        let directories: Vec<_> = directories.collect();
        let alike = alike(&directories, &self.tree, self.base.as_deref(), &self.offered);
        let n_alike = alike.as_ref().map_or(0, |_| directories.len());
        let mut room = MAX_INLINE_BYTES as u64;
        let mut blob = |(at, digest): (usize, &Digest)| {
            if digest.size_bytes > room {
                return Bytes::default();
            }
            room -= digest.size_bytes;
            if at < n_alike {
                return Bytes::default();
            }
            lender.content(digest).map(Bytes).unwrap_or_default()
        };
        Supply { blobs: self.digests.iter().enumerate().map(&mut blob).collect(), alike }
    }
}

#[cfg(test)]
#[path = "along_tests.rs"]
mod tests;
