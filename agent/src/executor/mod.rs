//! Running an action: one narrow trait, and one file for each thing that can be said of a run without knowing the others.
//! [`compose`](crate::compose) stacks them. Not here: who may run something ([`session`](crate::session) admits).

pub mod cached;
pub mod deduplicated;
mod early;
pub mod logged;
mod recorded;
pub mod sandboxed;

use std::fmt;
use std::sync::Arc;

use buildbee_proto::action::{Action, Command};
use buildbee_proto::digest::Digest;
use buildbee_proto::error::WireError;
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::path::RelPath;
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::Toolchain;
use buildbee_store::Pin;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::standing::Progress;

/// What is to be run, checked: the parts are the ones that the action names.
#[derive(Clone, Debug)]
pub struct Job {
    /// Digest of `action`.
    pub digest: Digest,
    /// What decides the result.
    pub action: Action,
    /// What to run.
    pub command: Command,
    /// What to run it on.
    pub toolchain: Toolchain,
    /// Who asks, and has the inputs.
    pub client: PeerId,
    /// An output that is wanted as soon as it is written.
    pub early: Option<RelPath>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Done {
    /// Signed by the agent that ran it.
    pub result: Arc<SignedResult>,
    /// Where from.
    pub origin: Origin,
    /// Keeps the result's blobs in the store.
    pub pins: Arc<Vec<Pin>>,
}

/// Where a result came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program was run for this.
    Ran,
    /// It was in the store.
    Kept,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ran => "ran",
            Self::Kept => "kept",
        })
    }
}

/// How a run is watched and stopped.
#[derive(Debug)]
pub struct Watch {
    /// Where the run says how far it is.
    pub progress: Progress,
    /// Ends the run. It returns soon after, with nothing of it left.
    pub cancel: CancellationToken,
}

/// What [`Executor::run`] returns.
pub type Running<'a> = BoxFuture<'a, Result<Done, WireError>>;

/// Something that gets an action's result. A program that exits non-zero is a result like any other.
pub trait Executor: Send + Sync + fmt::Debug {
    /// Runs `job` to its end. To stop it, cancel and go on waiting; a dropped future leaves its clean-up to the next start.
    fn run<'a>(&'a self, job: &'a Arc<Job>, watch: &'a Watch) -> Running<'a>;
}
