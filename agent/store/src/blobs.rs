//! Taking blobs out: as bytes, as an open file, as a link in somebody's folder. Content is checked at its first use after a start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use buildbee_proto::digest::Digest;
use nix::errno::Errno;

use crate::copy;
use crate::entry::{Key, Twin};
use crate::error::{LinkError, PutError, ReadError, is_one_of};
use crate::inode::{self, Defect};
use crate::layout::{Family, charge_bytes, remove_any};
use crate::packed::FromPack;
use crate::store::Store;

/// Whether content is read and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// If it was not since the start.
    Once,
    /// In any case.
    Always,
    /// By whoever asks, who reads all of it anyway.
    Elsewhere,
}

impl Store {
    /// The blob's bytes; `None` if it is not here, or was found bad and dropped. Never takes more memory than `max_bytes`.
    pub fn read(&self, digest: &Digest, max_bytes: u64) -> Result<Option<Vec<u8>>, ReadError> {
        if !self.contains(digest) {
            return Ok(None);
        }
        if digest.size_bytes > max_bytes {
            return Err(ReadError::TooLarge { digest: *digest, max_bytes });
        }
        match self.read_packed(digest)? {
            FromPack::Content(content) => return Ok(Some(content)),
            FromPack::Dropped => return Ok(None),
            FromPack::Elsewhere => {}
        }
        let Some(file) = self.open_blob(digest)? else { return Ok(None) };
        let mut content = Vec::with_capacity(usize::try_from(digest.size_bytes).unwrap_or(0));
        let path = self.inner.layout.file(Family::Blobs, digest);
        file.take(digest.size_bytes).read_to_end(&mut content).map_err(|error| ReadError::io(&path, error))?;
        Ok(Some(content))
    }

    /// The blob, open for reading at its start; `None` if it is not here, or was found bad and dropped. Eviction does not disturb an
    /// open file.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>, ReadError> {
        match self.read_packed(digest)? {
            FromPack::Content(content) => self.inner.nameless(&content).map(Some),
            FromPack::Dropped => Ok(None),
            FromPack::Elsewhere => self.acquire(Family::Blobs, digest),
        }
    }

    /// Puts the blob at `destination`, which must not exist: as a hard link of a read-only inode (mode 0444, or 0555 if `executable`),
    /// or as a copy with the same mode and time where there can't be a link. False: the blob is not here.
    ///
    /// Nobody may change the inode's content, mode or time through the link: the store would drop the blob at its next use.
    pub fn link(&self, digest: &Digest, executable: bool, destination: &Path) -> Result<bool, LinkError> {
        let family = if executable { Family::Executables } else { Family::Blobs };
        if self.inner.place(&Key::blob(*digest)).is_some() {
            self.unpack(digest)?;
        }
        if executable && !self.ensure_twin(digest)? {
            return Ok(false);
        }
        let Some(file) = self.acquire(family, digest)? else { return Ok(false) };
        let source = self.inner.layout.file(family, digest);
        match fs::hard_link(&source, destination) {
            Ok(()) => Ok(true),
            // Too many links, another file system, one without links, or evicted since it was opened.
            Err(error) if is_one_of(&error, &[Errno::EMLINK, Errno::EXDEV, Errno::EPERM, Errno::ENOENT]) => {
                self.copy_out(family, digest, &file, destination).map(|()| true)
            }
            Err(error) => Err(LinkError::io(destination, error)),
        }
    }

    fn copy_out(&self, family: Family, digest: &Digest, file: &File, destination: &Path) -> Result<(), LinkError> {
        let source = self.inner.layout.file(family, digest);
        if fs::symlink_metadata(destination).is_ok() {
            return Err(LinkError::Exists { destination: destination.to_owned() });
        }
        let result = copy_to(&source, file, family, digest, destination);
        result.map_err(|error| {
            // Somebody else's file, made since it was looked for, is left alone.
            if error.kind() != io::ErrorKind::AlreadyExists
                && let Err(error) = remove_any(destination)
            {
                tracing::debug!(destination = %destination.display(), %error, "an unfinished copy stays");
            }
            LinkError::io(destination, error)
        })
    }

    /// Makes the executable inode beside the blob if there is none. False: the blob is not here.
    fn ensure_twin(&self, digest: &Digest) -> Result<bool, LinkError> {
        // Making room for the twin must not take the blob.
        let _pin = self.pin([*digest]);
        let key = Key::blob(*digest);
        match self.inner.index().get(&key) {
            None => return Ok(false),
            Some(entry) if entry.twin != Twin::Absent => return Ok(true),
            Some(_) => {}
        }
        let Some(blob) = self.open_blob(digest)? else { return Ok(false) };
        let reservation = self.inner.reserve(charge_bytes(digest.size_bytes))?;
        let temporary = self.inner.temporary();
        let twin = self.copy_twin(digest, &blob, temporary.path()).map_err(|e| PutError::io(temporary.path(), e))?;
        let found = inode::digest(&twin).map_err(|error| PutError::io(temporary.path(), error))?;
        if found != *digest {
            return Err(PutError::Mismatch { expected: *digest, found }.into());
        }
        inode::seal(&twin, Family::Executables.mode())
            .and_then(|()| self.inner.sync_file(&twin))
            .map_err(|error| PutError::io(temporary.path(), error))?;
        #[cfg(any(test, debug_assertions))]
        crate::fault::point("twin-copied");
        self.inner.install(temporary, Family::Executables, &key, reservation)?;
        Ok(true)
    }

    /// The copy, open for reading only.
    fn copy_twin(&self, digest: &Digest, blob: &File, to: &Path) -> io::Result<File> {
        if !copy::by_child(&self.inner.layout.file(Family::Blobs, digest), to) {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
            copy::within(blob, &file, digest.size_bytes)?;
        }
        File::open(to)
    }

    /// The file, checked, counted as used.
    fn acquire(&self, family: Family, digest: &Digest) -> Result<Option<File>, ReadError> {
        self.settle(family, digest, self.inspect(family, digest, Check::Once))
    }

    /// Counts what was found good as used, and drops what was not.
    pub(crate) fn settle<T>(
        &self,
        family: Family,
        digest: &Digest,
        found: Result<Option<T>, Defect>,
    ) -> Result<Option<T>, ReadError> {
        let key = Key::blob(*digest);
        match found {
            Ok(None) => Ok(None),
            Ok(Some(found)) => {
                self.inner.touch([key]);
                Ok(Some(found))
            }
            Err(Defect::Io(error)) => Err(ReadError::io(&self.inner.layout.file(family, digest), error)),
            Err(defect) => {
                self.inner.drop_bad(family, &key, &defect);
                Ok(None)
            }
        }
    }

    /// Opens a blob's file and says what is wrong with it. `None` if the index does not have it.
    pub(crate) fn inspect(&self, family: Family, digest: &Digest, check: Check) -> Result<Option<File>, Defect> {
        let key = Key::blob(*digest);
        let Some(entry) = self.inner.index().get(&key) else { return Ok(None) };
        let verified = match (family, entry.twin) {
            (Family::Executables, Twin::Absent) => return Ok(None),
            (Family::Executables, Twin::Present { verified }) => verified,
            _ => entry.verified,
        };
        let file = inode::open(&self.inner.layout.file(family, digest), family.mode(), Some(digest.size_bytes))?;
        if check == Check::Elsewhere || verified && check == Check::Once {
            return Ok(Some(file));
        }
        inode::check_content(&file, digest)?;
        let mut index = self.inner.index();
        if family == Family::Executables {
            index.set_twin_verified(&key);
        } else {
            index.set_verified(&key);
        }
        Ok(Some(file))
    }
}

/// A copy outside the store, with the mode and time that a link would have.
fn copy_to(source: &Path, file: &File, family: Family, digest: &Digest, destination: &Path) -> io::Result<()> {
    let by_child = family == Family::Executables && copy::by_child(source, destination);
    if !by_child {
        let copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(destination)?;
        copy::within(file, &copy, digest.size_bytes)?;
    }
    let copy = File::open(destination)?;
    inode::seal(&copy, family.mode())?;
    inode::check_content(&copy, digest).map_err(|defect| match defect {
        Defect::Io(error) => error,
        other => io::Error::other(other),
    })
}
