//! Small blobs in memory: what came along with an action, directories that were read, outputs just made.
//!
//! A tiny compile brings half a dozen directories that no other action has, and making a file of each costs more than all that is done
//! with them. They are kept here for the actions that follow and for agents that ask, and forgotten when others come. Nothing counts on
//! it: what is forgotten is fetched again from the client, which lends it while its action runs. Not here: what must outlive the agent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::digest::Digest;

/// Larger blobs are the store's alone.
pub const MAX_SMALL_BYTES: usize = 64 << 10;
/// Bytes of one generation. Two are held.
const MAX_GENERATION_BYTES: usize = 16 << 20;
/// What holding one blob takes besides its bytes, roughly.
const OVERHEAD_BYTES: usize = 256;

/// Shared bytes of a blob.
pub type Content = Arc<[u8]>;

/// The blobs. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Small {
    generations: Arc<Mutex<Generations>>,
}

/// What is used moves to the younger generation; when that is full, the older one is dropped.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Digest, Content>,
    young_bytes: usize,
    old: HashMap<Digest, Content>,
}

impl Generations {
    fn put(&mut self, digest: Digest, content: Content) {
        let n_bytes = content.len() + OVERHEAD_BYTES;
        if self.young_bytes + n_bytes > MAX_GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(digest, content).is_none() {
            self.young_bytes += n_bytes;
        }
    }

    fn get(&mut self, digest: &Digest) -> Option<Content> {
        if let Some(content) = self.young.get(digest) {
            return Some(Arc::clone(content));
        }
        let content = self.old.remove(digest)?;
        self.put(*digest, Arc::clone(&content));
        Some(content)
    }
}

impl Small {
    // Insertions and moves of whole entries: nothing can be left half done under the lock.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `content` for a while if it is small. `digest` must be its digest.
    pub fn keep(&self, digest: Digest, content: &[u8]) {
        if content.len() <= MAX_SMALL_BYTES {
            self.lock().put(digest, content.into());
        }
    }

    /// The content of `digest`, if it is still here.
    pub fn get(&self, digest: &Digest) -> Option<Content> {
        self.lock().get(digest)
    }

    /// The contents of all of `digests`, if all are still here.
    pub fn get_all(&self, digests: &[Digest]) -> Option<Vec<Content>> {
        let mut generations = self.lock();
        digests.iter().map(|digest| generations.get(digest)).collect()
    }

    /// Whether `digest` is still here.
    pub fn contains(&self, digest: &Digest) -> bool {
        let generations = self.lock();
        generations.young.contains_key(digest) || generations.old.contains_key(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(small: &Small, n: usize, n_bytes: usize) -> Digest {
        let mut content = n.to_le_bytes().to_vec();
        content.resize(n_bytes, 0);
        let digest = Digest::of(&content);
        small.keep(digest, &content);
        digest
    }

    #[test]
    fn what_is_used_stays_and_all_is_bounded() {
        let small = Small::default();
        let used = keep(&small, 0, 100);
        let unused = keep(&small, 1, 100);
        for n in 2..2000 {
            keep(&small, n, MAX_SMALL_BYTES);
            assert_eq!(small.get(&used).unwrap().len(), 100);
            let generations = small.lock();
            let all = generations.young.values().chain(generations.old.values());
            assert!(all.map(|content| content.len() + OVERHEAD_BYTES).sum::<usize>() <= 2 * MAX_GENERATION_BYTES);
        }
        assert!(!small.contains(&unused));
        assert!(small.get_all(&[used, unused]).is_none());
    }

    #[test]
    fn what_is_large_is_not_kept() {
        let small = Small::default();
        let large = keep(&small, 0, MAX_SMALL_BYTES + 1);
        assert!(!small.contains(&large));
        let again = [keep(&small, 1, 10), keep(&small, 1, 10)];
        assert_eq!(small.lock().young_bytes, 10 + OVERHEAD_BYTES);
        assert_eq!(small.get_all(&again).unwrap().len(), 2);
    }
}
