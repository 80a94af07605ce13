//! The agent's own folder: what is where in it, and how single files of it are written.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The folder and the names in it.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Opens `dir`, making it, for this user alone, if need be.
    pub fn open(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self(fs::canonicalize(dir)?))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The key.
    pub fn identity(&self) -> PathBuf {
        self.0.join("identity.key")
    }

    /// What joining left.
    pub fn enrolment(&self) -> PathBuf {
        self.0.join("enrolment")
    }

    /// The newest roster.
    pub fn roster(&self) -> PathBuf {
        self.0.join("roster")
    }

    /// Blobs, results.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Toolchains as folders.
    pub fn toolchains(&self) -> PathBuf {
        self.0.join("toolchains")
    }

    /// Folders of running actions.
    pub fn workspaces(&self) -> PathBuf {
        self.0.join("work")
    }
}

/// Replaces `file` in one step: readers see the old content or the new. Touches the disk.
pub fn write_atomically(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(format!(".{}.new", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let written = File::create(&fresh)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, file));
    if written.is_err() {
        // Best effort: what is left is overwritten by the next attempt.
        drop(fs::remove_file(&fresh));
    }
    written
}
