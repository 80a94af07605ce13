//! A file in the making: gone when dropped, unless it was moved to its place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::is_one_of;
use crate::layout::remove_any;

/// A name in `tmp/` that nobody else uses.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    moved: bool,
}

impl Temporary {
    /// `run` is this process's own random number and `name` its count: a copying child that outlives a killed process must never meet
    /// a file of the next one.
    pub(crate) fn new(dir: &Path, run: u64, name: u64) -> Self {
        Self { path: dir.join(format!("{run:016x}-{name}")), moved: false }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file.
    pub(crate) fn create(&self) -> io::Result<File> {
        let make = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path);
        make().or_else(|error| {
            make_parent(&self.path, error)?;
            make()
        })
    }

    /// Moves it to `place`, over whatever is there. True if the folder had to be made for it.
    pub(crate) fn move_to(&mut self, place: &Path) -> io::Result<bool> {
        let mut made = false;
        fs::rename(&self.path, place).or_else(|error| {
            if is_one_of(&error, &[Errno::EISDIR, Errno::ENOTEMPTY, Errno::EEXIST]) {
                remove_any(place)?;
            } else {
                make_parent(place, error)?;
                made = true;
            }
            fs::rename(&self.path, place)
        })?;
        self.moved = true;
        Ok(made)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.moved {
            return;
        }
        if let Err(error) = remove_any(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file stays until the next start");
        }
    }
}

/// Folders are made when first needed, and again if they vanish under a running process (somebody empties `~/.cache`).
fn make_parent(path: &Path, error: io::Error) -> io::Result<()> {
    match path.parent() {
        Some(parent) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)
        }
        _ => Err(error),
    }
}
