//! Room for what is scarce, of which no single peer can have all: memory for frames that arrive, turns at the disk.
//!
//! Whoever asks for more than their peer may have at once waits behind that peer's own others, and takes no room from anybody meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use buildbee_proto::peer::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Peers whose own room is remembered although nothing of it is in use.
const MAX_IDLE_PEERS: usize = 64;

/// A number of bytes in units of KiB, one at least.
pub fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(1)
}

/// The room. Clones share it.
#[derive(Clone, Debug)]
pub struct Room {
    all: Arc<Semaphore>,
    each: u32,
    own: Arc<Mutex<HashMap<PeerId, Arc<Semaphore>>>>,
}

/// A piece of it, given back when dropped.
#[derive(Debug)]
pub struct Place {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Room {
    /// `all` units, of which one peer has `each` at most.
    pub fn new(all: u32, each: u32) -> Self {
        let n_all = usize::try_from(all).unwrap_or(Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(n_all)), each: each.min(all), own: Arc::default() }
    }

    /// Waits for `n` units, or for as many as one peer may have. Cancel-safe.
    pub async fn take(&self, peer: PeerId, n: u32) -> Option<Place> {
        let n = n.min(self.each);
        let own = self.own_of(peer).acquire_many_owned(n).await.ok()?;
        let all = Arc::clone(&self.all).acquire_many_owned(n).await.ok()?;
        Some(Place { _all: all, _own: own })
    }

    fn own_of(&self, peer: PeerId) -> Arc<Semaphore> {
        // An insertion or removal: nothing can be left half done under the lock.
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() >= MAX_IDLE_PEERS && !own.contains_key(&peer) {
            // Permits and those who wait hold a reference each.
            own.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        let each = usize::try_from(self.each).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::clone(own.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(each))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    #[tokio::test]
    async fn a_greedy_peer_waits_for_itself_and_others_do_not() {
        let room = Room::new(10, 4);
        let held = [room.take(peer(1), 3).await.unwrap(), room.take(peer(1), 1).await.unwrap()];
        let mut more: Vec<_> = (0..100).map(|_| Box::pin(room.take(peer(1), 1))).collect();
        assert!(more.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        let other = room.take(peer(2), 4).now_or_never();
        assert!(other.is_some(), "those who wait have nothing yet");
        drop(held);
        let got = tokio::time::timeout(Duration::from_secs(20), more.remove(0)).await.unwrap();
        assert!(got.is_some());
    }

    #[tokio::test]
    async fn more_than_there_is_is_all_that_one_may_have() {
        let room = Room::new(10, 4);
        let whole = room.take(peer(1), u32::MAX).await.unwrap();
        assert!(room.take(peer(1), 1).now_or_never().is_none());
        drop(whole);
        assert!(room.take(peer(1), 4).now_or_never().is_some());
    }

    #[tokio::test]
    async fn peers_that_left_are_forgotten() {
        let room = Room::new(1000, 4);
        for n in 0..255 {
            drop(room.take(peer(n), 4).await);
        }
        assert!(room.own.lock().unwrap().len() <= MAX_IDLE_PEERS);
    }
}
