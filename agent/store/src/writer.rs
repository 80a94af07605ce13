//! Putting blobs in: whole, as a stream, or from a file. Bytes go to a temporary file, are checked, and get their name by one rename.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use buildbee_proto::digest::Digest;
use nix::libc::O_NONBLOCK;

use crate::copy;
use crate::entry::Key;
use crate::error::PutError;
use crate::inode;
use crate::layout::{Family, charge_bytes};
use crate::store::{Reservation, Store, supported};
use crate::temporary::Temporary;

/// Files up to this size are read into memory, where it shows before any writing that the content is here already.
const SMALL_FILE_BYTES: u64 = 256 << 10;

/// By how much a large file is read: little enough to stay in the processor's cache while it is hashed, looked at and written.
const PIECE_BYTES: usize = 256 << 10;

impl Store {
    /// Stores `content` under its own digest.
    pub fn put_bytes(&self, content: &[u8]) -> Result<Digest, PutError> {
        let digest = Digest::of(content);
        self.put_checked(&digest, content)?;
        Ok(digest)
    }

    /// Stores `content` if it is what `expected` names.
    pub fn put_expected(&self, expected: &Digest, content: &[u8]) -> Result<(), PutError> {
        supported(expected)?;
        let found = Digest::of(content);
        if found != *expected {
            return Err(PutError::Mismatch { expected: *expected, found });
        }
        self.put_checked(expected, content)
    }

    /// Stores `content`, whose digest the caller has just computed, or has compared with this one.
    pub fn put_digested(&self, digest: &Digest, content: &[u8]) -> Result<(), PutError> {
        supported(digest)?;
        self.put_checked(digest, content)
    }

    /// As [`put_expected`](Self::put_expected), for what will be linked: in a file of its own, however small it is.
    pub fn put_linkable(&self, expected: &Digest, content: &[u8]) -> Result<(), PutError> {
        supported(expected)?;
        let found = Digest::of(content);
        if found != *expected {
            return Err(PutError::Mismatch { expected: *expected, found });
        }
        if self.has_good(expected) { Ok(()) } else { self.put_file_of(expected, content) }
    }

    fn put_checked(&self, digest: &Digest, content: &[u8]) -> Result<(), PutError> {
        if self.has_good(digest) {
            return Ok(());
        }
        if self.inner.packs(content.len()) {
            return self.inner.put_packed(&Key::blob(*digest), &[content]);
        }
        self.put_file_of(digest, content)
    }

    /// Stores `content`, which is what `digest` names, as a file of its own.
    pub(crate) fn put_file_of(&self, digest: &Digest, content: &[u8]) -> Result<(), PutError> {
        let mut writer = self.writer(*digest)?;
        writer.write_unhashed(content)?;
        writer.finish()
    }

    /// Whether the blob is there, checked. Counts as use.
    fn has_good(&self, digest: &Digest) -> bool {
        // A system error here shows again, with more to say, when the blob is written.
        match self.inner.place(&Key::blob(*digest)) {
            Some(_) => matches!(self.read(digest, digest.size_bytes), Ok(Some(_))),
            None => self.contains(digest) && matches!(self.open_blob(digest), Ok(Some(_))),
        }
    }

    /// Starts to store a blob whose bytes arrive bit by bit. Room for all of it is reserved here.
    pub fn writer(&self, expected: Digest) -> Result<BlobWriter, PutError> {
        let (temporary, file, reservation) = self.unfinished(&expected)?;
        let hasher = blake3::Hasher::new();
        Ok(BlobWriter { store: self.clone(), expected, hasher, n_written: 0, file, temporary, reservation })
    }

    /// A file in the making, and room for it.
    pub(crate) fn unfinished(&self, expected: &Digest) -> Result<(Temporary, File, Reservation), PutError> {
        supported(expected)?;
        let reservation = self.inner.reserve(charge_bytes(expected.size_bytes))?;
        let temporary = self.inner.temporary();
        let file = temporary.create().map_err(|error| PutError::io(temporary.path(), error))?;
        #[cfg(any(test, debug_assertions))]
        crate::fault::point("created");
        Ok((temporary, file, reservation))
    }

    /// Stores a copy of the regular file at `path` (symlinks are followed), as it is while being read.
    pub fn put_file(&self, path: &Path) -> Result<Digest, PutError> {
        let failed = |error| PutError::io(path, error);
        // Opening a pipe would wait for its other end.
        let source = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(failed)?;
        let metadata = source.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(PutError::NotAFile { path: path.to_owned() });
        }
        // Reading stops at the size seen here. A file that is being changed is stored as whatever was read, under the name of that.
        if metadata.len() > SMALL_FILE_BYTES {
            return self.put_large(&source, path, metadata.len());
        }
        let mut content = Vec::new();
        source.take(metadata.len()).read_to_end(&mut content).map_err(failed)?;
        self.put_bytes(&content)
    }

    /// Copies first and hashes the copy, which nobody else can change.
    fn put_large(&self, source: &File, path: &Path, size_bytes: u64) -> Result<Digest, PutError> {
        let reservation = self.inner.reserve(charge_bytes(size_bytes))?;
        let temporary = self.inner.temporary();
        let file = temporary.create().map_err(|error| PutError::io(temporary.path(), error))?;
        copy::within(source, &file, size_bytes).map_err(|error| PutError::io(path, error))?;
        let digest = inode::digest(&file).map_err(|error| PutError::io(temporary.path(), error))?;
        if digest.size_bytes == size_bytes {
            self.place(&file, temporary, digest, reservation)?;
            return Ok(digest);
        }
        // It became shorter while it was copied: what was reserved is not what it takes.
        drop(reservation);
        let reservation = self.inner.reserve(charge_bytes(digest.size_bytes))?;
        self.place(&file, temporary, digest, reservation)?;
        Ok(digest)
    }

    /// Stores the next `size_bytes` of `source`, which is read from `path`, in a file of their own, and shows each piece to `look` on the way.
    /// Where that says false, nothing is stored, which is `None`.
    pub fn put_pieces(
        &self,
        source: &mut dyn Read,
        path: &Path,
        size_bytes: u64,
        look: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<Digest>, PutError> {
        let reservation = self.inner.reserve(charge_bytes(size_bytes))?;
        let temporary = self.inner.temporary();
        let mut file = temporary.create().map_err(|error| PutError::io(temporary.path(), error))?;
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = size_bytes;
        while left > 0 {
            let n = PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES));
            let piece = &mut piece[..n];
            source.read_exact(piece).map_err(|error| PutError::io(path, error))?;
            if !look(piece) {
                return Ok(None);
            }
            hasher.update(piece);
            file.write_all(piece).map_err(|error| PutError::io(temporary.path(), error))?;
            left -= n as u64;
        }
        let digest = Digest::from_blake3(hasher.finalize(), size_bytes);
        self.place(&file, temporary, digest, reservation)?;
        Ok(Some(digest))
    }

    pub(crate) fn place(
        &self,
        file: &File,
        temporary: Temporary,
        digest: Digest,
        reservation: Reservation,
    ) -> Result<(), PutError> {
        inode::seal(file, Family::Blobs.mode())
            .and_then(|()| self.inner.sync_file(file))
            .map_err(|error| PutError::io(temporary.path(), error))?;
        self.inner.install(temporary, Family::Blobs, &Key::blob(digest), reservation)
    }
}

/// A blob on its way in. Dropped without [`commit`](Self::commit), it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    expected: Digest,
    hasher: blake3::Hasher,
    n_written: u64,
    file: File,
    temporary: Temporary,
    reservation: Reservation,
}

impl BlobWriter {
    /// Appends. After an error the writer is of no use any more.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        self.write_unhashed(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn write_unhashed(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        if bytes.len() as u64 > self.expected.size_bytes - self.n_written {
            return Err(PutError::TooLong { expected: self.expected });
        }
        self.file.write_all(bytes).map_err(|error| PutError::io(self.temporary.path(), error))?;
        self.n_written += bytes.len() as u64;
        #[cfg(any(test, debug_assertions))]
        crate::fault::point("written");
        Ok(())
    }

    /// Bytes still to come.
    pub fn remaining_bytes(&self) -> u64 {
        self.expected.size_bytes - self.n_written
    }

    /// Checks that what was written is what was expected, and puts it in place.
    pub fn commit(self) -> Result<(), PutError> {
        let found = Digest::from_blake3(self.hasher.finalize(), self.n_written);
        if found != self.expected {
            return Err(PutError::Mismatch { expected: self.expected, found });
        }
        self.finish()
    }

    fn finish(self) -> Result<(), PutError> {
        self.store.place(&self.file, self.temporary, self.expected, self.reservation)
    }
}
