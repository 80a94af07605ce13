//! The coordinator's folder: private files, replaced whole or not at all, under one lock.
//!
//! `invite` and `revoke` run beside a coordinator that serves; the lock is what keeps one's change from undoing the other's. Not here:
//! what is in the files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use buildbee_p2p::owner::act_as_owner_of;
use buildbee_p2p::private_file;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

/// Mode of the files that are locked.
const FILE_MODE: u32 = 0o600;
/// The file that is locked. It holds nothing and stays.
const LOCK_FILE: &str = "lock";
/// Locked by the coordinator that serves this folder's farm. It holds nothing and stays.
const SERVING_FILE: &str = "serving";

/// Why the folder can't be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The folder can't be made or entered.
    #[error("state folder {}: {source}\nhint: name one that you may write to with --state-dir, or run as the user that owns it", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file in it can't be read or written.
    #[error("file {}: {source}\nhint: it must belong to the user that this program runs as, and the disk must have room", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another coordinator serves from it.
    #[error("state folder {} is in use by another coordinator that runs\nhint: stop that one, or name another folder with --state-dir", folder.display())]
    Served {
        /// Which.
        folder: PathBuf,
    },
    /// A file is larger than it can ever be.
    #[error("file {} is larger than {max_bytes} bytes\nhint: it is not one of this program's; move it away", file.display())]
    TooLarge {
        /// Which.
        file: PathBuf,
        /// The bound.
        max_bytes: u64,
    },
}

/// The folder.
#[derive(Clone, Debug)]
pub struct StateDir {
    folder: PathBuf,
}

/// Held while files are read, changed and written back. Released when dropped, also by the end of the process.
#[derive(Debug)]
pub struct StateLock {
    _file: Flock<File>,
}

impl StateDir {
    /// The folder, made (for its owner only) if it is not there. Root becomes the owner of one that is.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError::Folder { folder: folder.to_owned(), source };
        act_as_owner_of(folder).and_then(|_| private_file::make_folder(folder)).map_err(failed)?;
        if !fs::metadata(folder).map_err(failed)?.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Waits for the lock. Blocks the thread: others hold it for as long as writing two small files takes.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.file(LOCK_FILE);
        let failed = |source| StateError::File { file: path.clone(), source };
        let mut file = open_lock(&path).map_err(failed)?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(locked) => return Ok(StateLock { _file: locked }),
                Err((unlocked, Errno::EINTR)) => file = unlocked,
                Err((_, error)) => return Err(failed(error.into())),
            }
        }
    }

    /// The right to serve from this folder, for as long as it is held. Does not wait: two that serve would deal the same slots.
    pub fn serve(&self) -> Result<StateLock, StateError> {
        let path = self.file(SERVING_FILE);
        let failed = |source| StateError::File { file: path.clone(), source };
        let file = open_lock(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => Ok(StateLock { _file: locked }),
            Err((_, Errno::EWOULDBLOCK)) => Err(StateError::Served { folder: self.folder.clone() }),
            Err((_, error)) => Err(failed(error.into())),
        }
    }

    /// The bytes of a file; `None` if there is no such file.
    pub fn read(&self, name: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.file(name);
        let failed = |source| StateError::File { file: path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let mut bytes = Vec::new();
        file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > max_bytes {
            return Err(StateError::TooLarge { file: path, max_bytes });
        }
        Ok(Some(bytes))
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StateError::File { file: path, source }),
            _ => Ok(()),
        }
    }

    /// Replaces a file: after a crash it is the old one or the new one, and once this returns it is the new one.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.file(name);
        private_file::replace(&path, bytes).map_err(|source| StateError::File { file: path, source })
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("a/b")).unwrap();
        assert_eq!(state.read("x", 10).unwrap(), None);
        state.replace("x", b"one").unwrap();
        state.replace("x", b"two").unwrap();
        assert_eq!(state.read("x", 3).unwrap().unwrap(), b"two");
        assert!(matches!(state.read("x", 2), Err(StateError::TooLarge { .. })));
    }

    #[test]
    fn a_file_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("hint: "), "{error}");
    }

    #[test]
    fn one_serves_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let serving = state.serve().unwrap();
        assert!(state.serve().unwrap_err().to_string().contains("\nhint: "));
        drop(serving);
        assert!(state.serve().is_ok());
    }

    #[test]
    fn the_lock_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        state.replace("n", b"0").unwrap();
        let add = || {
            let _lock = state.lock().unwrap();
            let n: u32 = String::from_utf8(state.read("n", 10).unwrap().unwrap()).unwrap().parse().unwrap();
            state.replace("n", (n + 1).to_string().as_bytes()).unwrap();
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| add()));
            }
        });
        assert_eq!(state.read("n", 10).unwrap().unwrap(), b"40");
    }
}
