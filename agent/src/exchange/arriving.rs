//! Which blobs are on their way into the store, so that each comes once however many want it: later ones wait for the first.
//!
//! A blob that comes straight from who has it for sure (the client, an agent that announced it) is *certain*. Other agents are told that
//! it is here, and wait for it when they ask: so a header crosses a client's link once, and the farm's own links as often as it must.
//! Nobody waits for another agent's uncertain blob, hence never in a circle. Not here: bringing anything.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::digest::Digest;
use tokio::sync::watch;

/// Digests that are remembered as being on their way. Beyond that, a blob may come twice at a time.
const MAX_ARRIVING: usize = 1 << 20;

#[derive(Clone, Debug)]
struct Coming {
    /// Fails when the claim is dropped.
    landed: watch::Receiver<()>,
    certain: bool,
}

/// What is on its way. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Arriving {
    by_digest: Arc<Mutex<HashMap<Digest, Coming>>>,
}

/// Blobs that the holder brings. Others wait until this is dropped, and then look again.
#[derive(Debug)]
pub struct Claim {
    digests: Vec<Digest>,
    arriving: Arriving,
    _landed: watch::Sender<()>,
}

/// Somebody else's claim to wait for.
#[derive(Debug)]
pub struct Other(watch::Receiver<()>);

impl Other {
    /// Returns when it has landed or was given up.
    pub async fn landed(mut self) {
        // An error says that the sender is gone, which is what is waited for.
        drop(self.0.changed().await);
    }
}

impl Arriving {
    // Insertions and removals: nothing can be left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Coming>> {
        self.by_digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of `missing` nobody brings yet, to be brought by the caller; and one of those who bring the rest.
    pub fn claim(&self, missing: impl IntoIterator<Item = Digest>) -> (Claim, Option<Other>) {
        let (landed, waiting) = watch::channel(());
        let mut by_digest = self.lock();
        let mut other = None;
        let mut seen = HashSet::new();
        let mut digests: Vec<Digest> = missing.into_iter().collect();
        digests.retain(|digest| match by_digest.get(digest) {
            Some(coming) => {
                other.get_or_insert_with(|| Other(coming.landed.clone()));
                false
            }
            None => seen.insert(*digest),
        });
        let room = MAX_ARRIVING.saturating_sub(by_digest.len());
        let coming = Coming { landed: waiting, certain: false };
        by_digest.extend(digests.iter().take(room).map(|digest| (*digest, coming.clone())));
        drop(by_digest);
        (Claim { digests, arriving: self.clone(), _landed: landed }, other)
    }

    /// Whether `digest` is on its way from who has it for sure.
    pub fn is_certain(&self, digest: &Digest) -> bool {
        self.lock().get(digest).is_some_and(|coming| coming.certain)
    }

    /// Returns when none of `digests` is certain to come any more: they are here, or will not be.
    pub async fn settled(&self, digests: &[Digest]) {
        for digest in digests {
            let coming = self.lock().get(digest).filter(|coming| coming.certain).cloned();
            if let Some(coming) = coming {
                Other(coming.landed).landed().await;
            }
        }
    }
}

impl Claim {
    /// What the holder brings.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// From here on, these come from who has them for sure.
    pub fn make_certain(&self, digests: &[Digest]) {
        let mut by_digest = self.arriving.lock();
        for digest in digests {
            if let Some(coming) = by_digest.get_mut(digest) {
                coming.certain = true;
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut by_digest = self.arriving.lock();
        for digest in &self.digests {
            by_digest.remove(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blob_is_brought_by_one_and_waited_for_by_others() {
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let arriving = Arriving::default();
        let (first, nobody) = arriving.claim([one, one]);
        assert!(first.digests() == [one] && nobody.is_none());
        let (second, other) = arriving.claim([one, two]);
        assert_eq!(second.digests(), [two]);
        let waiting = tokio::spawn(other.unwrap().landed());
        drop(first);
        waiting.await.unwrap();
        assert_eq!(arriving.claim([one, two]).0.digests(), [one]);
    }

    #[tokio::test]
    async fn only_what_is_certain_is_promised_to_others() {
        let digests = [Digest::of(b"one"), Digest::of(b"two")];
        let arriving = Arriving::default();
        let (claim, _) = arriving.claim(digests);
        // Nothing to wait for: the claim may come to nothing.
        arriving.settled(&digests).await;
        claim.make_certain(&digests[..1]);
        assert_eq!(digests.map(|digest| arriving.is_certain(&digest)), [true, false]);
        let waiting = arriving.clone();
        let settled = tokio::spawn(async move { waiting.settled(&digests).await });
        tokio::task::yield_now().await;
        assert!(!settled.is_finished());
        drop(claim);
        settled.await.unwrap();
    }
}
