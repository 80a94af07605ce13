//! A large blob of which some chunks are here: each is checked when it arrives, in any order, and can be read at once.
//!
//! It is a file without its name yet: room for all of it is reserved, and it is gone when dropped before all of it is here. Not here: where
//! chunks come from.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Mutex, MutexGuard, PoisonError};

use buildbee_proto::chunk::{self, ChunkSet, Chunks, is_chunked};
use buildbee_proto::digest::Digest;

use crate::blobs::Check;
use crate::entry::Key;
use crate::error::{PutError, ReadError};
use crate::inode::{Defect, OTHER_CONTENT, why_not_read};
use crate::layout::Family;
use crate::store::{Reservation, Store};
use crate::temporary::Temporary;

/// See the module. Used by many at once.
#[derive(Debug)]
pub struct Partial {
    store: Store,
    chunks: Chunks,
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    present: ChunkSet,
    /// Until it is in place.
    room: Option<(Temporary, Reservation)>,
}

impl Store {
    /// Starts to store a blob whose chunks arrive in any order. Room for all of it is reserved here.
    pub fn partial(&self, chunks: Chunks) -> Result<Partial, PutError> {
        let (temporary, file, reservation) = self.unfinished(chunks.blob())?;
        let state = State { present: ChunkSet::none(chunks.n()), room: Some((temporary, reservation)) };
        Ok(Partial { store: self.clone(), chunks, file, state: Mutex::new(state) })
    }

    /// What its chunks are, if the blob is here and large: reads all of it, once, which is the check of its content, too. `None` also where it
    /// was found bad.
    pub fn chunks(&self, blob: &Digest) -> Result<Option<Chunks>, ReadError> {
        if !is_chunked(blob) {
            return Ok(None);
        }
        self.settle(Family::Blobs, blob, self.read_chunks(blob))
    }

    fn read_chunks(&self, blob: &Digest) -> Result<Option<Chunks>, Defect> {
        let Some(file) = self.inspect(Family::Blobs, blob, Check::Elsewhere)? else { return Ok(None) };
        let inode = Some(file.metadata().map_err(Defect::Io)?.ino());
        let read = Chunks::read(*blob, |at, chunk| file.read_exact_at(chunk, at));
        let chunks = read.map_err(|error| why_not_read(error, inode))?;
        let chunks = chunks.ok_or(Defect::Bad { reason: OTHER_CONTENT, inode })?;
        self.inner.index().set_verified(&Key::blob(*blob));
        Ok(Some(chunks))
    }

    /// One chunk of a blob that is here and large, into `chunk`, whatever was there. Whether there is one.
    pub fn read_chunk(&self, blob: &Digest, index: u32, chunk: &mut Vec<u8>) -> Result<bool, ReadError> {
        chunk.resize(chunk::length(blob, index), 0);
        if chunk.is_empty() {
            return Ok(false);
        }
        let Some(file) = self.open_blob(blob)? else { return Ok(false) };
        file.read_exact_at(chunk, chunk::offset(index)).map_err(|error| unreadable(self, blob, error))?;
        Ok(true)
    }
}

impl Partial {
    // Insertions of whole values: nothing can be left half done under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blob's chunks.
    pub fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// Which of them are here. *In memory.*
    pub fn present(&self) -> ChunkSet {
        self.state().present.clone()
    }

    /// Puts one in, if it is the one. True if it was not here.
    pub fn write(&self, index: u32, content: &[u8]) -> Result<bool, PutError> {
        if !self.chunks.holds(index, content) {
            return Err(PutError::NotTheChunk { blob: *self.chunks.blob(), index });
        }
        if self.state().present.contains(index) {
            return Ok(false);
        }
        // Two that bring the same at the same time write the same bytes.
        self.file.write_all_at(content, chunk::offset(index)).map_err(|error| self.failed(error))?;
        #[cfg(any(test, debug_assertions))]
        crate::fault::point("chunk-written");
        Ok(self.state().present.insert(index))
    }

    /// One that is here, also after the blob is in place, into `chunk`, whatever was there. Whether it is here.
    pub fn read(&self, index: u32, chunk: &mut Vec<u8>) -> io::Result<bool> {
        if !self.state().present.contains(index) {
            return Ok(false);
        }
        chunk.resize(self.chunks.length(index), 0);
        self.file.read_exact_at(chunk, chunk::offset(index))?;
        Ok(true)
    }

    /// Puts the blob in place. False: some of it is not here yet.
    pub fn commit(&self) -> Result<bool, PutError> {
        let room = {
            let mut state = self.state();
            if !state.present.is_all() {
                return Ok(false);
            }
            state.room.take()
        };
        // Nothing: it is in place.
        let Some((temporary, reservation)) = room else { return Ok(true) };
        self.store.place(&self.file, temporary, *self.chunks.blob(), reservation)?;
        Ok(true)
    }

    fn failed(&self, error: io::Error) -> PutError {
        let state = self.state();
        let path = state.room.as_ref().map(|(temporary, _)| temporary.path().to_owned()).unwrap_or_default();
        PutError::io(&path, error)
    }
}

fn unreadable(store: &Store, blob: &Digest, error: io::Error) -> ReadError {
    ReadError::io(&store.inner.layout.file(Family::Blobs, blob), error)
}

#[cfg(test)]
mod tests {
    use buildbee_proto::chunk::value;
    use buildbee_proto::limits::MIN_CHUNKED_BYTES;

    use super::*;
    use crate::store::{Durability, Options};

    const CHUNK: usize = 1 << 20;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 64 << 20, durability: Durability::Lazy };
        let (store, _) = Store::open(dir.path(), &options).unwrap();
        (dir, store)
    }

    fn large() -> (Vec<u8>, Chunks) {
        let content: Vec<u8> = (0..MIN_CHUNKED_BYTES + 77).map(|n| u8::try_from(n * n / 251 % 256).unwrap()).collect();
        let pieces = (0..).zip(content.chunks(CHUNK));
        let values = pieces.map(|(index, chunk)| value(index, chunk).unwrap()).collect();
        let chunks = Chunks::new(Digest::of(&content), values).unwrap();
        (content, chunks)
    }

    #[test]
    fn chunks_in_any_order_become_the_blob() {
        let (dir, store) = store();
        let (content, chunks) = large();
        let blob = *chunks.blob();
        let pieces: Vec<&[u8]> = content.chunks(CHUNK).collect();
        let partial = store.partial(chunks.clone()).unwrap();
        let mut chunk = Vec::new();
        for index in [4, 0, 2, 3] {
            assert!(partial.write(index, pieces[index as usize]).unwrap());
            assert!(!partial.write(index, pieces[index as usize]).unwrap());
            assert!(partial.read(index, &mut chunk).unwrap() && chunk == pieces[index as usize]);
        }
        assert!(!partial.read(1, &mut chunk).unwrap());
        assert!(!partial.commit().unwrap() && !store.contains(&blob));
        for (index, bad) in [(1, pieces[2]), (1, &pieces[1][1..]), (5, pieces[1]), (1, &[][..])] {
            assert!(matches!(partial.write(index, bad), Err(PutError::NotTheChunk { .. })));
        }
        assert!(partial.write(1, pieces[1]).unwrap() && partial.commit().unwrap() && partial.commit().unwrap());
        assert_eq!(store.read(&blob, u64::MAX).unwrap().unwrap(), content);
        assert_eq!(store.chunks(&blob).unwrap().unwrap(), chunks);
        assert!(store.read_chunk(&blob, 4, &mut chunk).unwrap() && chunk == pieces[4]);
        assert!(!store.read_chunk(&blob, 5, &mut chunk).unwrap());
        assert!(partial.read(1, &mut chunk).unwrap() && chunk == pieces[1]);
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn to_read_the_chunks_is_to_check_the_blob() {
        let (dir, store) = store();
        let (content, chunks) = large();
        let blob = store.put_bytes(&content).unwrap();
        let reopened = |store: Store| {
            drop(store);
            Store::open(dir.path(), &Options { max_bytes: 64 << 20, durability: Durability::Lazy }).unwrap().0
        };
        let is_checked = |store: &Store| store.inner.index().get(&Key::blob(blob)).is_some_and(|entry| entry.verified);
        let store = reopened(store);
        assert!(!is_checked(&store));
        assert_eq!(store.chunks(&blob).unwrap(), Some(chunks));
        assert!(is_checked(&store));
        assert_eq!(store.chunks(&Digest::of(b"small")).unwrap(), None);
        // As a disk does it: neither size nor time shows it.
        let store = reopened(store);
        let path = store.inner.layout.file(Family::Blobs, &blob);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        File::options().write(true).open(&path).unwrap().write_all_at(&[!content[77]], 77).unwrap();
        crate::inode::seal(&File::open(&path).unwrap(), 0o444).unwrap();
        assert_eq!(store.chunks(&blob).unwrap(), None);
        assert!(!store.contains(&blob) && store.usage().n_bad == 1);
    }

    #[test]
    fn what_is_dropped_early_takes_no_room() {
        let (dir, store) = store();
        let (content, chunks) = large();
        let partial = store.partial(chunks.clone()).unwrap();
        partial.write(0, &content[..CHUNK]).unwrap();
        let whole: Vec<Partial> = (0..14).map(|_| store.partial(chunks.clone()).unwrap()).collect();
        assert!(matches!(store.partial(chunks.clone()), Err(PutError::Full { .. })));
        drop((whole, partial));
        assert_eq!(store.usage().bytes, 0);
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }
}
