//! Which actions clients are having run, so that what several of them want at once runs once in the whole farm.
//!
//! A client that is about to have an action run says so to the first peer responsible for it; others that come meanwhile are told that it is
//! coming, and wait for the result without holding a slot. A claim is a courtesy and guards nothing: it ends with the result, with a word, with the
//! connection of its client, or with age, and whoever waited goes on alone. Not here: what is kept of results ([`kept`](super::kept)).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::peer::PeerId;
use tokio::sync::watch;
use tokio::time::Instant;

/// Claims at once; further ones are granted and not noted.
const MAX_CLAIMS: usize = 16_384;
/// The longest that anybody is believed to be at one action.
const MAX_AGE: Duration = Duration::from_secs(900);

/// A run of an action: by whom, and which of its runs.
pub type Run = (PeerId, u64);

#[derive(Debug)]
struct Claim {
    by: Run,
    since: Instant,
    /// Dropped when the claim is over, which wakes whoever waits.
    over: watch::Sender<()>,
}

/// All claims. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Mutex<HashMap<Digest, Claim>>>);

impl Claims {
    // An insertion or removal: nothing can be left half done under the lock.
    fn claims(&self) -> MutexGuard<'_, HashMap<Digest, Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `by` is the one to have `action` run. The same run may ask again.
    pub fn claim(&self, action: Digest, by: Run) -> bool {
        let now = Instant::now();
        let mut claims = self.claims();
        if let Some(claim) = claims.get(&action).filter(|claim| now - claim.since < MAX_AGE) {
            return claim.by == by;
        }
        if claims.len() >= MAX_CLAIMS {
            claims.retain(|_, claim| now - claim.since < MAX_AGE);
        }
        if claims.len() < MAX_CLAIMS {
            claims.insert(action, Claim { by, since: now, over: watch::Sender::new(()) });
        }
        true
    }

    /// That run is over.
    pub fn release(&self, action: &Digest, by: Run) {
        let mut claims = self.claims();
        if claims.get(action).is_some_and(|claim| claim.by == by) {
            claims.remove(action);
        }
    }

    /// There is a result.
    pub fn settle(&self, action: &Digest) {
        self.claims().remove(action);
    }

    /// Only these peers are there.
    pub fn keep_of(&self, is_here: impl Fn(&PeerId) -> bool) {
        self.claims().retain(|_, claim| is_here(&claim.by.0));
    }

    /// Ends when the claim on `action` does; `None`: there is none. It ends with an error, which stands for nothing.
    pub fn waiter(&self, action: &Digest) -> Option<watch::Receiver<()>> {
        self.claims().get(action).map(|claim| claim.over.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: u8) -> Run {
        (PeerId([n; 32]), 7)
    }

    #[tokio::test(start_paused = true)]
    async fn one_runs_and_the_others_wait_until_it_is_over() {
        let claims = Claims::default();
        let action = Digest::of(b"action");
        assert!(claims.waiter(&action).is_none());
        assert!(claims.claim(action, run(1)) && claims.claim(action, run(1)));
        assert!(!claims.claim(action, run(2)));
        assert!(!claims.claim(action, (run(1).0, 8)), "another run of the same client waits, too");
        let mut waiter = claims.waiter(&action).unwrap();
        claims.release(&action, run(2));
        assert!(tokio::time::timeout(Duration::from_secs(1), waiter.changed()).await.is_err());
        claims.release(&action, run(1));
        assert!(waiter.changed().await.is_err());
        assert!(claims.claim(action, run(2)));
        let mut waiter = claims.waiter(&action).unwrap();
        claims.settle(&action);
        assert!(waiter.changed().await.is_err());
        assert!(claims.claim(action, run(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn claims_end_with_their_client_and_with_age() {
        let claims = Claims::default();
        let action = Digest::of(b"action");
        assert!(claims.claim(action, run(1)));
        claims.keep_of(|peer| *peer == run(1).0);
        assert!(!claims.claim(action, run(2)));
        claims.keep_of(|peer| *peer == run(2).0);
        assert!(claims.claim(action, run(2)));
        tokio::time::advance(MAX_AGE).await;
        assert!(claims.claim(action, run(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn their_number_is_bounded() {
        let claims = Claims::default();
        for n in 0..MAX_CLAIMS + 10 {
            assert!(claims.claim(Digest::of(&n.to_le_bytes()), run(1)));
        }
        assert_eq!(claims.claims().len(), MAX_CLAIMS);
        tokio::time::advance(MAX_AGE).await;
        assert!(claims.claim(Digest::of(b"late"), run(1)));
        assert_eq!(claims.claims().len(), 1);
    }
}
