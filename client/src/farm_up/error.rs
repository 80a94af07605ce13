//! Why there is no farm.

use std::io;
use std::path::PathBuf;

use buildbee_sandbox::cleanup::CleanupError;
use nix::sys::signal::Signal;
use thiserror::Error;

use crate::exit::{ENVIRONMENT, Failure};
use crate::guest::GuestError;

/// Why there is no farm, or none any more.
#[derive(Debug, Error)]
pub(super) enum FarmError {
    /// One of the executables is not installed.
    #[error("{program} is neither in {folder} nor in PATH\nhint: install all of buildbee: a farm needs a coordinator and agents, too", folder = folder.display())]
    NotInstalled { program: &'static str, folder: PathBuf },
    /// The temporary folder can't be made or used.
    #[error("cannot use {path}: {error}\nhint: TMPDIR names another place", path = path.display())]
    Folder { path: PathBuf, error: io::Error },
    /// The socket would not fit.
    #[error("the folder for temporary files is too deep for a socket: {path}\nhint: set TMPDIR to a shorter path", path = path.display())]
    Deep { path: PathBuf },
    /// A member can't be started at all.
    #[error("cannot start {what}: {error}\nhint: the system may be out of processes or memory")]
    Start { what: String, error: io::Error },
    /// A member ended when it should run, or failed to do something.
    #[error("{what} failed ({status})\nhint: what it said is above; --keep keeps all logs")]
    Failed { what: String, status: String },
    /// A member does not say that it is ready.
    #[error("{what} is not ready after {seconds} s\nhint: the machine may be overloaded; --keep keeps the logs")]
    NotReady { what: String, seconds: u64 },
    /// The client's daemon can't be asked.
    #[error("{0}")]
    Daemon(String),
    /// The agents run, but the client does not see them.
    #[error(
        "only {ready} of {wanted} agents can be reached\nhint: --keep keeps the logs; `buildbee-agent doctor` looks for what keeps this machine from lending"
    )]
    Invisible { ready: usize, wanted: u16 },
    /// The command is not there, or lost.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Signals can't be received.
    #[error("cannot receive signals: {0}\nhint: the system may be out of file descriptors")]
    Signals(io::Error),
    /// The user wants out.
    #[error("interrupted by {0}")]
    Interrupted(Signal),
    /// Something was left.
    #[error("{0}\nhint: remove it by hand")]
    Cleanup(#[from] CleanupError),
}

impl FarmError {
    /// Whether a member's log tells more.
    pub(super) fn is_a_members(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::NotReady { .. } | Self::Invisible { .. } | Self::Daemon(_))
    }
}

impl From<FarmError> for Failure {
    fn from(error: FarmError) -> Self {
        match error {
            FarmError::Guest(error) => error.into(),
            error => Self { code: ENVIRONMENT, text: error.to_string() },
        }
    }
}
