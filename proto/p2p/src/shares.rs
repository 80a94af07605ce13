//! How much of something scarce each peer has at the moment, so that no single one can have all of it.
//!
//! Not here: the bound on what all peers have together (a semaphore, where it is needed).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::peer::PeerId;

/// Counts for each peer. Clones count together. Holds an entry only for peers that have something.
#[derive(Clone, Debug)]
pub struct Shares {
    most: usize,
    taken: Arc<Mutex<HashMap<PeerId, usize>>>,
}

/// One piece of a peer's share, given back when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    peer: PeerId,
}

impl Shares {
    /// At most `most` at once for each peer.
    pub fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    // A count up or down: nothing can be left half done under the lock.
    fn taken(&self) -> MutexGuard<'_, HashMap<PeerId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more for `peer`, unless it has all that it may.
    pub fn take(&self, peer: PeerId) -> Option<Share> {
        let mut taken = self.taken();
        let n_taken = taken.entry(peer).or_default();
        if *n_taken >= self.most {
            return None;
        }
        *n_taken += 1;
        Some(Share { shares: self.clone(), peer })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        if let Some(n_taken) = taken.get_mut(&self.peer) {
            *n_taken -= 1;
            if *n_taken == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_cannot_have_all_and_nothing_is_remembered() {
        let shares = Shares::new(2);
        let (greedy, other) = (PeerId([1; 32]), PeerId([2; 32]));
        let held = [shares.take(greedy).unwrap(), shares.take(greedy).unwrap()];
        assert!(shares.take(greedy).is_none());
        assert!(shares.take(other).is_some(), "the other's share is untouched");
        let [first, second] = held;
        drop(first);
        let third = shares.take(greedy).unwrap();
        assert!(shares.take(greedy).is_none());
        drop((second, third));
        assert!(shares.taken().is_empty());
    }
}
