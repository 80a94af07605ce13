//! Which blobs travel along with an action, and which an agent is left to ask for.
//!
//! A few bytes that the agent was not sent yet go with the request. More than that is offered by digest, and sent if the agent says that it
//! lacks it: a refused request, an agent that knows the blobs from elsewhere or a daemon that started anew cost digests alone. What
//! another agent has been sent is not offered: agents get it from each other, so that it crosses this machine's link once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::execute::Supply;
use buildbee_proto::limits::{MAX_INLINE_BYTES, MAX_OFFERED};
use buildbee_proto::peer::PeerId;

use super::lender::Lender;

/// Blobs that go with a request unasked, in all: less than a round trip is worth.
const UNASKED_BYTES: u64 = 4 << 10;
/// A file above this is asked for by the agent if it lacks it.
const OFFERED_FILE_BYTES: u64 = 2 << 20;
/// Blobs remembered as sent to one agent; beyond it the memory starts over.
const MAX_SENT: usize = 50_000;

/// Which blobs each agent was sent. A wrong guess costs a round trip, no more.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    by_agent: Arc<Mutex<HashMap<PeerId, HashSet<Digest>>>>,
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
    arrived: bool,
}

impl Sent {
    // Insertions and removals: nothing can be left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, HashSet<Digest>>> {
        self.by_agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of an action's blobs is to travel to `agent` along with it. Its directories always do, if they are new to it: they are asked
    /// for level by level.
    pub(super) fn along<'a>(
        &self,
        agent: PeerId,
        directories: impl Iterator<Item = &'a Digest>,
        files: impl Iterator<Item = &'a Digest>,
    ) -> Along {
        let mut by_agent = self.lock();
        let is_new = |digest: &Digest| by_agent.get(&agent).is_none_or(|known| !known.contains(digest));
        let is_elsewhere = |digest: &Digest| by_agent.values().any(|known| known.contains(digest));
        let files = files.filter(|digest| (1..=OFFERED_FILE_BYTES).contains(&digest.size_bytes));
        let files = files.filter(|digest| is_new(digest) && !is_elsewhere(digest));
        let new: Vec<Digest> =
            directories.filter(|digest| is_new(digest)).chain(files).take(MAX_OFFERED).copied().collect();
        let known = by_agent.entry(agent).or_default();
        if known.len() + new.len() > MAX_SENT {
            known.clear();
        }
        known.extend(&new);
        drop(by_agent);
        let n_bytes: u64 = new.iter().map(|digest| digest.size_bytes).sum();
        let (unasked, offered) = if n_bytes <= UNASKED_BYTES { (new, Vec::new()) } else { (Vec::new(), new) };
        Along { unasked, offered, agent, sent: self.clone(), arrived: false }
    }

    /// `agent` has these too: it made them.
    pub fn made<'a>(&self, agent: PeerId, blobs: impl Iterator<Item = &'a Digest>) {
        let mut by_agent = self.lock();
        let known = by_agent.entry(agent).or_default();
        known.extend(blobs.take(MAX_SENT.saturating_sub(known.len())));
    }

    /// How many bytes of `blobs` each agent has.
    pub fn held<'a>(&self, blobs: impl Iterator<Item = &'a Digest>) -> HashMap<PeerId, u64> {
        let by_agent = self.lock();
        let mut held: HashMap<PeerId, u64> = HashMap::new();
        for blob in blobs {
            for (agent, _) in by_agent.iter().filter(|(_, known)| known.contains(blob)) {
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

    fn forget_blobs<'a>(&self, agent: &PeerId, blobs: impl Iterator<Item = &'a Digest>) {
        if let Some(known) = self.lock().get_mut(agent) {
            for blob in blobs {
                known.remove(blob);
            }
        }
    }
}

impl Along {
    /// What goes with the request. Reads files: call off the event loop.
    pub(super) fn contents(unasked: &[Digest], lender: &Lender) -> Vec<Bytes> {
        unasked.iter().filter_map(|digest| lender.content(digest)).map(|content| Bytes(content.to_vec())).collect()
    }

    /// The offered blobs whose flag is set; `None` where the flags are not those of the offer.
    pub(super) fn lacking(&self, flags: &[bool]) -> Option<Vec<Digest>> {
        let lacking = self.offered.iter().zip(flags).filter(|(_, lacks)| **lacks).map(|(digest, _)| *digest);
        (flags.len() == self.offered.len()).then(|| lacking.collect())
    }

    /// The answer to an agent that lacks these. What is too much for one message, or is not lent any more, stays out. Reads files: call
    /// off the event loop.
    pub(super) fn supply(lacking: &[Digest], lender: &Lender) -> Supply {
        let mut room = MAX_INLINE_BYTES as u64;
        let mut blob = |digest: &Digest| {
            if digest.size_bytes > room {
                return Bytes::default();
            }
            room -= digest.size_bytes;
            lender.content(digest).map(|content| Bytes(content.to_vec())).unwrap_or_default()
        };
        Supply { blobs: lacking.iter().map(&mut blob).collect() }
    }

    /// The agent has everything that it was sent or offered, save those of `lacking` that `supply` left out.
    pub(super) fn arrived(mut self, lacking: &[Digest], supply: &Supply) {
        let left_out = lacking.iter().zip(&supply.blobs).filter(|(_, blob)| blob.0.is_empty());
        self.sent.forget_blobs(&self.agent, left_out.map(|(digest, _)| digest));
        self.arrived = true;
    }
}

impl Drop for Along {
    fn drop(&mut self) {
        if !self.arrived {
            self.sent.forget_blobs(&self.agent, self.unasked.iter().chain(&self.offered));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PeerId = PeerId([1; 32]);
    const TWO: PeerId = PeerId([2; 32]);

    fn blob(n: u8, size_bytes: u64) -> Digest {
        Digest { size_bytes, ..Digest::of(&[n]) }
    }

    #[test]
    fn a_file_goes_to_one_agent_and_directories_to_all() {
        let sent = Sent::default();
        let (directory, file) = (blob(1, 10), blob(2, 10));
        let to = |agent| sent.along(agent, [directory].iter(), [file].iter());
        let first = to(ONE);
        assert_eq!((&first.unasked, &first.offered), (&vec![directory, file], &vec![]));
        // Even while it is under way.
        assert_eq!(to(TWO).unasked, [directory]);
        first.arrived(&[], &Supply { blobs: Vec::new() });
        assert!(to(ONE).unasked.is_empty());
        sent.forget(&ONE);
        assert_eq!(to(TWO).unasked, [directory, file]);
    }

    #[test]
    fn what_an_agent_made_is_not_sent_to_others() {
        let sent = Sent::default();
        let library = blob(1, 1 << 20);
        sent.made(ONE, [&library].into_iter());
        assert_eq!(sent.along(TWO, [].iter(), [library].iter()).offered, []);
        assert_eq!(sent.held([library, blob(2, 5)].iter()), HashMap::from([(ONE, 1 << 20)]));
        sent.forget(&ONE);
        assert_eq!(sent.along(TWO, [].iter(), [library].iter()).offered, [library]);
    }

    #[test]
    fn a_request_that_failed_has_sent_nothing() {
        let sent = Sent::default();
        let file = blob(1, 10);
        drop(sent.along(ONE, [].iter(), [file].iter()));
        assert_eq!(sent.along(TWO, [].iter(), [file].iter()).unasked, [file]);
    }

    #[test]
    fn what_was_sent_is_remembered_within_bounds() {
        let sent = Sent::default();
        let file = blob(1, 10);
        let others: Vec<Digest> = (0..MAX_SENT as u64).map(|n| Digest::of(&n.to_le_bytes())).collect();
        for files in std::iter::once(&[file][..]).chain(others.chunks(MAX_OFFERED)) {
            sent.along(ONE, [].iter(), files.iter()).arrived(&[], &Supply { blobs: Vec::new() });
        }
        assert!(sent.lock()[&ONE].len() <= MAX_SENT);
        assert_eq!(sent.along(ONE, [].iter(), [file].iter()).unasked, [file], "the memory started over");
    }

    #[test]
    fn much_is_offered_and_what_does_not_fit_is_not_sent() {
        let sent = Sent::default();
        let files: Vec<Digest> = (0..5).map(|n| blob(n, OFFERED_FILE_BYTES)).collect();
        let along = sent.along(ONE, [].iter(), files.iter());
        assert!(along.unasked.is_empty());
        assert_eq!(along.offered, files);
        assert!(along.lacking(&[true]).is_none());
        let lacking = along.lacking(&[true, false, true, true, true]).unwrap();
        // Nothing is lent: all are left out, and the agent asks for them.
        let supply = Along::supply(&lacking, &Lender::default());
        along.arrived(&lacking, &supply);
        assert_eq!(sent.along(ONE, [].iter(), files.iter()).offered, lacking);
    }
}
