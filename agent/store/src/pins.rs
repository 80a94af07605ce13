//! What protects blobs from eviction: a guard that an action, an upload or a fetch holds for as long as it needs them.

use std::fmt;

use buildbee_proto::digest::Digest;

use crate::store::Store;

/// Blobs that are not evicted while this lives. Digests that are not there yet are protected once they arrive.
///
/// A pinned blob can still be found missing: pin first, then ask.
pub struct Pin {
    store: Store,
    digests: Vec<Digest>,
}

impl Pin {
    pub(crate) fn new(store: Store, digests: Vec<Digest>) -> Self {
        store.inner.index().pin(&digests);
        Self { store, digests }
    }

    /// What is pinned.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.store.inner.index().unpin(&self.digests);
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("n_digests", &self.digests.len()).finish_non_exhaustive()
    }
}
