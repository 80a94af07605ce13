//! Which blobs are on their way into the store, so that each comes once however many want it: later ones wait for the first.
//!
//! A blob that comes straight from who has it for sure (the client, an agent that announced it) is *certain*. Other agents are told that
//! it is here, and wait for it when they ask: so a header crosses a client's link once, and the farm's own links as often as it must.
//! Nobody waits for another agent's uncertain blob, hence never in a circle. Not here: bringing anything.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_proto::digest::Digest;
use tokio::sync::watch;
use tokio::time::timeout;

use super::partials::Partials;

/// Digests that are remembered as being on their way. Beyond that, a blob may come twice at a time.
const MAX_ARRIVING: usize = 1 << 20;

#[derive(Clone, Debug)]
struct Coming {
    /// Changes when something of the claim has landed, fails when it is dropped.
    landed: watch::Receiver<u64>,
    certain: bool,
}

/// What is on its way. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Arriving {
    by_digest: Arc<Mutex<HashMap<Digest, Coming>>>,
    partials: Partials,
}

/// Blobs that the holder brings. Others wait until they have landed or this is dropped, and then look again.
#[derive(Debug)]
pub struct Claim {
    digests: Vec<Digest>,
    arriving: Arriving,
    landed: watch::Sender<u64>,
}

/// Somebody else's claim to wait for.
#[derive(Debug)]
pub struct Other {
    digest: Digest,
    arriving: Arriving,
}

impl Other {
    /// Returns when the blob has landed or was given up.
    pub async fn landed(self) {
        while let Some(mut landed) = self.arriving.coming(&self.digest, |_| true) {
            // An error says that the claim is gone, and so is its entry.
            drop(landed.changed().await);
        }
    }
}

impl Arriving {
    // Insertions and removals: nothing can be left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Coming>> {
        self.by_digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where somebody brings `digest`, as `wanted` says, what tells of the next that lands there.
    fn coming(&self, digest: &Digest, wanted: impl Fn(&Coming) -> bool) -> Option<watch::Receiver<u64>> {
        let by_digest = self.lock();
        let mut landed = by_digest.get(digest).filter(|coming| wanted(coming))?.landed.clone();
        // Under the lock, under which everything lands: what lands from here on is new.
        landed.mark_unchanged();
        Some(landed)
    }

    /// Large blobs of which some is here.
    pub fn partials(&self) -> &Partials {
        &self.partials
    }

    /// What of `missing` nobody brings yet, to be brought by the caller; and one of those who bring the rest.
    pub fn claim(&self, missing: impl IntoIterator<Item = Digest>) -> (Claim, Option<Other>) {
        let (landed, waiting) = watch::channel(0);
        let mut by_digest = self.lock();
        let mut other = None;
        let mut seen = HashSet::new();
        let mut digests: Vec<Digest> = missing.into_iter().collect();
        digests.retain(|digest| match by_digest.get(digest) {
            // The last one: blobs come in order, and who waits looks at all of them again.
            Some(_) => {
                other = Some(Other { digest: *digest, arriving: self.clone() });
                false
            }
            None => seen.insert(*digest),
        });
        let room = MAX_ARRIVING.saturating_sub(by_digest.len());
        let coming = Coming { landed: waiting, certain: false };
        by_digest.extend(digests.iter().take(room).map(|digest| (*digest, coming.clone())));
        drop(by_digest);
        (Claim { digests, arriving: self.clone(), landed }, other)
    }

    /// Whether `digest` is on its way from who has it for sure.
    pub fn is_certain(&self, digest: &Digest) -> bool {
        self.lock().get(digest).is_some_and(|coming| coming.certain)
    }

    /// Returns when none of `digests` is certain to come any more: they are here, or will not be; or when nothing of what they come with
    /// has landed for `silence`.
    pub async fn settled(&self, digests: &[Digest], silence: Duration) {
        for digest in digests {
            while let Some(mut landed) = self.coming(digest, |coming| coming.certain) {
                if timeout(silence, landed.changed()).await.is_err() {
                    return;
                }
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

impl Claim {
    /// These are here, or will not be: nobody waits for them any more.
    pub fn landed(&self, digests: &[Digest]) {
        let ours = self.landed.subscribe();
        let mut by_digest = self.arriving.lock();
        for digest in digests {
            // What is another claim's by now stays.
            if by_digest.get(digest).is_some_and(|coming| coming.landed.same_channel(&ours)) {
                by_digest.remove(digest);
            }
        }
        self.landed.send_modify(|n| *n += 1);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.landed(&self.digests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn a_wait_lasts_while_something_lands() {
        let digests = [Digest::of(b"one"), Digest::of(b"two"), Digest::of(b"three")];
        let arriving = Arriving::default();
        let (claim, _) = arriving.claim(digests);
        claim.make_certain(&digests);
        let begun = tokio::time::Instant::now();
        arriving.settled(&digests[2..], PATIENCE).await;
        assert_eq!(begun.elapsed(), PATIENCE);
        let (waiting, others) = (arriving.clone(), arriving.clone());
        let settled = tokio::spawn(async move { waiting.settled(&digests[2..], PATIENCE).await });
        let (_, other) = others.claim([digests[2]]);
        let landed = tokio::spawn(other.unwrap().landed());
        for digest in &digests[..2] {
            tokio::time::sleep(PATIENCE / 2).await;
            claim.landed(&[*digest]);
        }
        tokio::time::sleep(PATIENCE / 2).await;
        assert!(!settled.is_finished() && !landed.is_finished());
        claim.landed(&digests[2..]);
        settled.await.unwrap();
        landed.await.unwrap();
        // A claim that comes after it is its own.
        let (again, _) = arriving.claim([digests[0]]);
        drop(claim);
        assert!(arriving.claim([digests[0]]).1.is_some());
        drop(again);
    }

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
        arriving.settled(&digests, PATIENCE).await;
        claim.make_certain(&digests[..1]);
        assert_eq!(digests.map(|digest| arriving.is_certain(&digest)), [true, false]);
        let waiting = arriving.clone();
        let settled = tokio::spawn(async move { waiting.settled(&digests, PATIENCE).await });
        tokio::task::yield_now().await;
        assert!(!settled.is_finished());
        drop(claim);
        settled.await.unwrap();
    }
}
