//! Chunk lists of large blobs that somebody asked for: to make one, the whole blob is read. Right for ever, since a list belongs to a digest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use buildbee_proto::chunk::Chunks;
use buildbee_proto::digest::Digest;

/// Lists remembered; beyond that, the memory starts over. 32 bytes a MiB of each blob, 256 KiB at most.
const MAX_LISTS: usize = 64;

/// The lists. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ChunkLists(Arc<Mutex<HashMap<Digest, Arc<Chunks>>>>);

impl ChunkLists {
    /// That of `blob`, if it is known.
    pub fn get(&self, blob: &Digest) -> Option<Arc<Chunks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(blob).cloned()
    }

    /// Remembers `chunks`.
    pub fn keep(&self, chunks: Arc<Chunks>) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.len() >= MAX_LISTS {
            lists.clear();
        }
        lists.insert(*chunks.blob(), chunks);
    }
}
