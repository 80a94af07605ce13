//! The agent's own folder: what is where in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use buildbee_p2p::owner::act_as_owner_of;
use buildbee_p2p::private_file::make_folder;
use thiserror::Error;

/// The state folder is of no use.
#[derive(Debug, Error)]
#[error(
    "state folder {}: {source}\nhint: check that it can be made and belongs to this user, or name another with --state-dir",
    dir.display()
)]
pub struct StateError {
    /// Which.
    pub dir: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The folder and the names in it.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Opens `dir`, making it, for this user alone, if need be. Root becomes the owner of one that is there.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let owned = act_as_owner_of(dir).and_then(|_| make_folder(dir));
        owned
            .and_then(|()| fs::canonicalize(dir))
            .map(Self)
            .map_err(|source| StateError { dir: dir.to_owned(), source })
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

    /// Where some other agents were.
    pub fn neighbours(&self) -> PathBuf {
        self.0.join("neighbours")
    }

    /// When the other agents were seen last.
    pub fn seen(&self) -> PathBuf {
        self.0.join("seen")
    }

    /// Blobs, results.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Toolchains as folders.
    pub fn toolchains(&self) -> PathBuf {
        self.0.join("toolchains")
    }

    /// Doubles that the owner added.
    pub fn doubles(&self) -> PathBuf {
        self.0.join("doubles")
    }

    /// What a sandbox gets to note programs' questions.
    pub fn recorder(&self) -> PathBuf {
        self.0.join("recorder")
    }

    /// The end of a pause.
    pub fn pause(&self) -> PathBuf {
        self.0.join("pause")
    }

    /// How the agent stands.
    pub fn status(&self) -> PathBuf {
        self.0.join("status.json")
    }

    /// The file that stands for an owner who is here, unless the settings name another.
    pub fn owner_present(&self) -> PathBuf {
        self.0.join("owner-present")
    }

    /// Folders of running actions.
    pub fn workspaces(&self) -> PathBuf {
        self.0.join("work")
    }
}
