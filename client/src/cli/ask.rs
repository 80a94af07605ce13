//! Questions to the daemon, over a blocking socket.

use std::path::Path;
use std::time::{Duration, Instant};

use buildbee_proto::local::{AdminCall, LocalCall, LocalReply};
use thiserror::Error;

use crate::exit::Failure;
use crate::wrapper::link::{Link, LinkError, MAX_SILENCE};
use crate::wrapper::settings::WrapperSettings;
use crate::wrapper::socket::{SocketError, check_folder, connect_to};
use crate::wrapper::start;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long it may take where the whole cache or toolchains are read, removed or sent first.
const CACHE_WORK_TIME: Duration = Duration::from_secs(3600);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// The socket can't be used.
    #[error("{0}\nhint: `buildbee doctor` looks for the cause")]
    Socket(SocketError),
    /// The socket can't be used, and the error says what to do.
    #[error(transparent)]
    Explained(SocketError),
    /// None runs, and none was to be started or could be.
    #[error("no daemon is running\nhint: {0}")]
    Nobody(&'static str),
    /// It broke off.
    #[error("{0}\nhint: `buildbee stop` and try again; its log is in the state folder")]
    Link(#[from] LinkError),
    /// Another version runs.
    #[error(
        "the daemon speaks version {0} of the protocol, which is not this program's\nhint: `buildbee stop` ends it; the next compile starts the right one"
    )]
    Version(u32),
    /// An answer to something else.
    #[error("the daemon's answer makes no sense\nhint: `buildbee stop` ends it; the next compile starts a new one")]
    Nonsense,
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::environment(error)
    }
}

impl From<SocketError> for AskError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Nobody { .. } => Self::Socket(error),
            explained => Self::Explained(explained),
        }
    }
}

/// Whether to start a daemon where none runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As the wrapper does.
    IfNeeded,
    /// No.
    Never,
}

/// The JSON document of the daemon at `socket` in answer to `call`.
pub fn ask(socket: &Path, call: AdminCall, starting: Start) -> Result<String, AskError> {
    trust_folder(socket)?;
    let connected = match starting {
        Start::IfNeeded => start::connect_or_start(socket, false),
        Start::Never => connect_to(socket, MAX_SILENCE),
    };
    let stream = match connected {
        Err(SocketError::Nobody { .. }) => {
            return Err(AskError::Nobody(match starting {
                Start::Never if matches!(call, AdminCall::Explain { .. } | AdminCall::Activity { .. }) => {
                    "compile something first: what became of a compile is known as long as the daemon runs"
                }
                Start::IfNeeded => "it could not be started; `buildbee daemon` in a terminal says why",
                Start::Never => "the next compile starts one",
            }));
        }
        connected => connected?,
    };
    let mut link = Link::new(stream);
    let patience = match call {
        AdminCall::CacheVerify
        | AdminCall::CacheClear
        | AdminCall::CacheGc { .. }
        | AdminCall::ToolchainVerify { .. }
        | AdminCall::ToolchainWarm { .. }
        | AdminCall::ToolchainWarmRust { .. } => CACHE_WORK_TIME,
        _ => ANSWER_TIME,
    };
    link.send(LocalCall::Admin(call))?;
    let deadline = Instant::now() + patience;
    loop {
        match link.receive(deadline)? {
            LocalReply::Working => {}
            LocalReply::Admin { json } => return Ok(json),
            LocalReply::WrongVersion { version } => return Err(AskError::Version(version)),
            _ => return Err(AskError::Nonsense),
        }
    }
}

/// The folder of a socket that the user did not name must be theirs alone.
pub fn trust_folder(path: &Path) -> Result<(), SocketError> {
    match path.parent() {
        Some(folder) if WrapperSettings::from_environment().socket.is_none() => check_folder(folder),
        _ => Ok(()),
    }
}
