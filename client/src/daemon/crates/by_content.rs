//! What the contents of files tell, remembered by digest, so that each content is read for it once.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::digest::Digest;

use super::needs::Needs;

/// Contents remembered; beyond it the memory starts over.
const MAX_CONTENTS: usize = 50_000;
/// Larger files are not read.
const MAX_BYTES: u64 = 1 << 30;

/// What files of crates tell.
#[derive(Clone, Debug, Default)]
pub struct CrateFiles {
    /// Libraries: which others they need.
    pub needs: ByContent<Needs>,
    /// Dependency files: the sources that they name.
    pub sources: ByContent<Arc<[PathBuf]>>,
    /// Sources: the variables that they name.
    pub variables: ByContent<Arc<BTreeSet<String>>>,
    /// Sources: whether they define macros for others.
    pub macros: ByContent<bool>,
    /// Sources: the libraries that they link by attribute.
    pub linked: ByContent<Arc<BTreeSet<String>>>,
    /// Shared libraries: whether they are loaded into the compiler.
    pub have_macros: ByContent<bool>,
    /// Sources: what in them may come out otherwise on another kind of host.
    pub host_words: ByContent<Option<&'static str>>,
}

/// The memory. Cheap to clone; all clones are one.
#[derive(Debug)]
pub struct ByContent<T> {
    known: Arc<Mutex<HashMap<Digest, T>>>,
}

impl<T> Default for ByContent<T> {
    fn default() -> Self {
        Self { known: Arc::default() }
    }
}

impl<T> Clone for ByContent<T> {
    fn clone(&self) -> Self {
        Self { known: Arc::clone(&self.known) }
    }
}

impl<T: Clone> ByContent<T> {
    // Insertions and looks: nothing can be left half done under the lock.
    fn known(&self) -> MutexGuard<'_, HashMap<Digest, T>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `read` makes of the file at `path`, whose content is `digest`. Blocks.
    pub fn of(&self, path: &Path, digest: &Digest, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let known = self.known().get(digest).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        if digest.size_bytes > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut content = Vec::with_capacity(usize::try_from(digest.size_bytes).unwrap_or(0));
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut content)?;
        let told = read(&content);
        // One that was written anew since it was hashed has another content.
        if content.len() as u64 == digest.size_bytes {
            let mut known = self.known();
            if known.len() >= MAX_CONTENTS {
                known.clear();
            }
            known.insert(*digest, told.clone());
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let (memory, digest) = (ByContent::default(), Digest::of(b"one"));
        assert_eq!(memory.of(&path, &digest, <[u8]>::len).unwrap(), 3);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(memory.of(&path, &digest, |_| 0).unwrap(), 3);
        assert!(memory.of(&path, &Digest::of(b"two"), |_| 0).is_err());
    }

    #[test]
    fn what_has_changed_since_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "longer").unwrap();
        let (memory, digest) = (ByContent::default(), Digest::of(b"one"));
        assert_eq!(memory.of(&path, &digest, <[u8]>::len).unwrap(), 6);
        std::fs::write(&path, "one").unwrap();
        assert_eq!(memory.of(&path, &digest, <[u8]>::len).unwrap(), 3);
    }
}
