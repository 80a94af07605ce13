//! Why the run of a build script is not kept.

use std::path::PathBuf;

use buildbee_proto::observed::NotKnown;
use thiserror::Error;

use super::super::crates::read_set::Uncertain;

/// The reason, for people.
#[derive(Debug, Error)]
pub enum Unsound {
    /// It failed.
    #[error("it failed")]
    Failed,
    /// It said more than is kept of what programs say, or there is no cache.
    #[error("what it said is not whole, or there is no cache")]
    Incomplete,
    /// Another run wrote into the same folder.
    #[error("another run wrote into the same folder")]
    Contested,
    /// Nobody watched it.
    #[error("nobody watched what it read")]
    Unseen,
    /// The recorder's log does not tell.
    #[error("what it read is not known: {0}")]
    Unknown(NotKnown),
    /// A file that it read is not what it was, or can't be named.
    #[error(transparent)]
    Uncertain(#[from] Uncertain),
    /// A file that it looked at is gone.
    #[error("{path} is gone", path = .0.display())]
    Gone(PathBuf),
    /// It used the network.
    #[error("it used the network")]
    Network,
    /// It asked for the time of day.
    #[error("it asked for the time of day ({0})")]
    Clock(String),
    /// It asked the system for something that changes by itself.
    #[error("it read {path}, which changes by itself", path = .0.display())]
    System(PathBuf),
    /// It wrote, or removed, something that is not in its own folder.
    #[error("it changed {path}, which is not in OUT_DIR", path = .0.display())]
    Wrote(PathBuf),
    /// Cargo runs it each time.
    #[error("cargo runs it each time: it waits for a change of {path}, which is not there", path = .0.display())]
    Always(PathBuf),
    /// It left something that can't be kept.
    #[error("{0} can't be kept")]
    Output(String),
    /// What it left tells how it was run.
    #[error("{0} tells how it was run")]
    Traces(String),
    /// A text that can't be spelled with places.
    #[error("{0} can't be spelled with fixed places")]
    Spelling(&'static str),
}

impl Unsound {
    /// The reason's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Failed => "script-failed",
            Self::Incomplete => "script-incomplete",
            Self::Contested => "output-contested",
            Self::Unseen => "inputs-unseen",
            Self::Unknown(error) => error.code(),
            Self::Uncertain(Uncertain::Changed(_)) => "input-changed-meanwhile",
            Self::Uncertain(_) | Self::Gone(_) => "inputs-uncertain",
            Self::Network => "network",
            Self::Clock(_) => "script-clock",
            Self::System(_) => "script-system",
            Self::Wrote(_) => "script-writes-elsewhere",
            Self::Always(_) => "script-always-runs",
            Self::Output(_) => "output-unusual",
            Self::Traces(_) => "script-traces",
            Self::Spelling(_) => "unusual-text",
        }
    }

    /// Whether the same program will most likely do it again, so that nobody need watch it.
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Unknown(_) | Self::Network | Self::Clock(_) | Self::System(_) | Self::Wrote(_) | Self::Traces(_)
        )
    }
}
