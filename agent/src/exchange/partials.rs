//! Large blobs of which some chunks are here: on their way, or left from a transfer that was cut, to be gone on with.
//!
//! What is here of them is handed on before the rest has come. Not here: bringing anything (`large`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::chunk::ChunkSet;
use buildbee_proto::digest::Digest;
use buildbee_store::{ChunkLists, Partial};
use tokio::sync::watch;

/// Blobs that nobody brings at the moment, and whose chunks are kept for who goes on; the oldest go first.
const MAX_IDLE: usize = 4;

/// One of them.
#[derive(Debug)]
pub(crate) struct Coming {
    pub(crate) partial: Partial,
    /// How many chunks are here.
    n_present: watch::Sender<u32>,
    certain: AtomicBool,
}

impl Coming {
    /// The blob's name.
    pub(crate) fn blob(&self) -> &Digest {
        self.partial.chunks().blob()
    }

    /// Whether what is missing comes from who has it for sure.
    pub(crate) fn is_certain(&self) -> bool {
        self.certain.load(Ordering::Relaxed)
    }

    /// From here on it does, or does not.
    pub(crate) fn make_certain(&self, certain: bool) {
        self.certain.store(certain, Ordering::Relaxed);
    }

    /// Another chunk is here.
    pub(crate) fn grew(&self) {
        self.n_present.send_modify(|n| *n += 1);
    }

    /// What is here, once that is more than `known` chunks.
    pub(crate) async fn more_than(&self, known: u32) -> ChunkSet {
        // Never closed: the sender is here.
        drop(self.n_present.subscribe().wait_for(|n| *n > known).await);
        self.partial.present()
    }
}

/// All of them. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Partials {
    coming: Arc<Mutex<Vec<Arc<Coming>>>>,
    /// Of blobs that are here whole.
    pub(crate) lists: ChunkLists,
}

impl Partials {
    // Pushes, removals, looks: nothing can be left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Coming>>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is here of `blob`, if it is not whole.
    pub(crate) fn find(&self, blob: &Digest) -> Option<Arc<Coming>> {
        self.lock().iter().find(|coming| coming.blob() == blob).cloned()
    }

    /// Another one. Who brings it holds it; of those that nobody holds, few stay.
    pub(crate) fn start(&self, partial: Partial) -> Arc<Coming> {
        let n_present = watch::Sender::new(partial.present().n_present());
        let started = Arc::new(Coming { partial, n_present, certain: AtomicBool::new(false) });
        let mut coming = self.lock();
        let is_idle = |coming: &Arc<Coming>| Arc::strong_count(coming) == 1;
        let mut n_gone = (coming.iter().filter(|coming| is_idle(coming)).count() + 1).saturating_sub(MAX_IDLE);
        let mut gone = Vec::new();
        coming.retain(|coming| {
            let goes = n_gone > 0 && is_idle(coming);
            if goes {
                n_gone -= 1;
                gone.push(Arc::clone(coming));
            }
            !goes
        });
        coming.push(Arc::clone(&started));
        drop(coming);
        // Their files are removed out of the lock.
        drop(gone);
        started
    }

    /// It is whole.
    pub(crate) fn done(&self, done: &Coming) {
        self.lists.keep(Arc::new(done.partial.chunks().clone()));
        self.lock().retain(|coming| coming.blob() != done.blob());
    }
}
