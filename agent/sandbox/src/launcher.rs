//! The agent's handle on the sandbox: runs commands, captures their output, enforces time and output limits, kills.
//!
//! Life cycle: [`Launcher::start`] starts the helper; clones share it; when the last clone is dropped the helper kills what is left
//! and ends. A helper that died is started again at the next use, a bounded number of times in a row. The launcher never forks
//! while a helper lives, so files that the agent has open for writing get into no child.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::attempt::{self, Completed, Listener, Prepared, SandboxError};
use crate::descriptors::{Packet, borrow_all, packet_pair, receive, send, watch};
use crate::seccomp;
use crate::spec::{HostParts, SandboxSpec};
use crate::wire::{Hello, Launch, Request};

/// Starts of the helper in a row without a command that ran.
const MAX_STARTS_IN_A_ROW: u32 = 5;
/// How long the helper may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the helper could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The helper program could not be executed.
    #[error("cannot start {helper:?}: {source}\nhint: reinstall buildbee; the program belongs beside buildbee-agent")]
    Spawn {
        /// The helper program.
        helper: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Bubblewrap is not there.
    #[error("cannot find bubblewrap at {bwrap:?}\nhint: install the package `bubblewrap`")]
    NoBubblewrap {
        /// Where it should be.
        bwrap: PathBuf,
    },
    /// It ended or stayed silent instead of saying hello.
    #[error("{helper:?} does not answer\nhint: reinstall buildbee; see the log for what it printed")]
    Silent {
        /// The helper program.
        helper: PathBuf,
    },
    /// It is of another version.
    #[error("{helper:?} is of version {found}, the agent of {wanted}\nhint: install both from the same package")]
    Version {
        /// The helper program.
        helper: PathBuf,
        /// What it says.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// No descriptors or memory.
    #[error("cannot set up the helper: {0}\nhint: raise the limit on open files (`ulimit -n`)")]
    Io(#[from] io::Error),
    /// It has died too often.
    #[error("the sandbox helper died {MAX_STARTS_IN_A_ROW} times in a row\nhint: see the log and `buildbee doctor`")]
    GaveUp,
}

/// A handle on the helper; clones share it.
#[derive(Clone, Debug)]
pub struct Launcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    helper: PathBuf,
    bwrap: PathBuf,
    host: HostParts,
    /// System-call filters, the same for every command.
    filters: Vec<Vec<u8>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    control: Option<Arc<Control>>,
    starts_in_a_row: u32,
    /// Whether commands are stopped where they are; of the next helper, too.
    held: bool,
}

/// One life of the helper.
#[derive(Debug)]
struct Control {
    /// Closing it ends the helper.
    socket: AsyncFd<OwnedFd>,
    /// Reaped by the runtime after it was dropped.
    process: Child,
}

impl Launcher {
    /// Starts the helper program, with `bwrap` as the program bubblewrap (an absolute path). Needs a tokio runtime with I/O and time.
    pub async fn start(helper: &Path, bwrap: &Path) -> Result<Self, StartError> {
        Self::with(helper, bwrap, HostParts::default()).await
    }

    /// The same, and commands have these parts of the host.
    pub async fn with(helper: &Path, bwrap: &Path, host: HostParts) -> Result<Self, StartError> {
        let filters = seccomp::filters();
        let shared = Shared {
            helper: helper.to_owned(),
            bwrap: bwrap.to_owned(),
            host,
            filters,
            state: Mutex::new(State { control: None, starts_in_a_row: 0, held: false }),
        };
        let launcher = Self { shared: Arc::new(shared) };
        launcher.control().await?;
        Ok(launcher)
    }

    /// Runs one command to its end; never leaves a process of it behind.
    ///
    /// The program's own failure is a [`Completed`]; an error means that it did not run to its end for reasons outside it. When
    /// `cancel` fires the command is killed and, once all of it is gone, [`SandboxError::Cancelled`] returned. Cancel-safe: dropping
    /// the future kills the command too, without waiting; so remove the scratch folder only after a while, or cancel instead.
    pub async fn run(&self, spec: SandboxSpec, cancel: CancellationToken) -> Result<Completed, SandboxError> {
        let launcher = self.clone();
        let prepared =
            tokio::task::spawn_blocking(move || launcher.prepare(&spec)).await.map_err(io::Error::other)??;
        self.run_prepared(prepared, cancel, None).await
    }

    /// The first half of [`Self::run`], for whoever has other blocking work to do before. Touches the disk; to be called where a tokio
    /// runtime can be reached.
    pub fn prepare(&self, spec: &SandboxSpec) -> Result<Prepared, SandboxError> {
        attempt::prepare(spec, &self.shared.filters)
    }

    /// The second half of [`Self::run`]; `listener` hears what the command prints on standard error.
    pub async fn run_prepared(
        &self,
        prepared: Prepared,
        cancel: CancellationToken,
        listener: Option<Listener>,
    ) -> Result<Completed, SandboxError> {
        if cancel.is_cancelled() {
            return Err(SandboxError::Cancelled);
        }
        let control = self.submit(&prepared).await?;
        let outcome = prepared.supervise(cancel, listener).await;
        match &outcome {
            // Dead, or deaf: either way the next command needs a new one.
            Err(SandboxError::HelperGone) => self.forget(&control).await,
            _ => self.shared.state.lock().await.starts_in_a_row = 0,
        }
        outcome
    }

    /// Stops all commands where they are, or lets them go on; whatever their processes have done to get away. Returns when the helper has
    /// been told; it acts within milliseconds. What is held can be killed as ever.
    pub async fn hold(&self, held: bool) {
        let mut state = self.shared.state.lock().await;
        state.held = held;
        let Some(control) = &state.control else { return };
        if let Err(error) = control.tell_hold(held).await {
            // It is dead, and its commands with it. The next one is told at its start.
            tracing::debug!(%error, held, "the sandbox helper was not told");
        }
    }

    /// Process id of the helper, while it lives.
    pub async fn helper_id(&self) -> Option<u32> {
        self.shared.state.lock().await.control.as_ref().and_then(|control| control.process.id())
    }

    /// Hands the command to a living helper, starting a new one if need be.
    async fn submit(&self, prepared: &attempt::Prepared) -> Result<Arc<Control>, SandboxError> {
        loop {
            let control = self.control().await.map_err(SandboxError::Helper)?;
            match control.submit(prepared).await {
                Ok(()) => return Ok(control),
                // It died since: nothing was started. Bounded by the starts in a row.
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => self.forget(&control).await,
                Err(error) => return Err(SandboxError::Io(error.into())),
            }
        }
    }

    async fn control(&self) -> Result<Arc<Control>, StartError> {
        let mut state = self.shared.state.lock().await;
        if let Some(control) = &state.control {
            return Ok(Arc::clone(control));
        }
        if state.starts_in_a_row >= MAX_STARTS_IN_A_ROW {
            return Err(StartError::GaveUp);
        }
        state.starts_in_a_row += 1;
        let control = Arc::new(Control::start(&self.shared).await?);
        if state.held {
            control.tell_hold(true).await.map_err(io::Error::from)?;
        }
        state.control = Some(Arc::clone(&control));
        Ok(control)
    }

    async fn forget(&self, dead: &Arc<Control>) {
        let mut state = self.shared.state.lock().await;
        if state.control.as_ref().is_some_and(|control| Arc::ptr_eq(control, dead)) {
            tracing::warn!(
                helper = dead.process.id(),
                "the sandbox helper is gone; a new one is started for the next command"
            );
            state.control = None;
        }
    }
}

impl Control {
    async fn start(shared: &Shared) -> Result<Self, StartError> {
        let Shared { helper, bwrap, host, .. } = shared;
        if !bwrap.is_absolute() || !bwrap.is_file() {
            return Err(StartError::NoBubblewrap { bwrap: bwrap.to_owned() });
        }
        let (ours, theirs) = packet_pair().map_err(io::Error::from)?;
        let process = Command::new(helper)
            .arg(bwrap)
            .arg(host.group.as_deref().unwrap_or(Path::new("")))
            .args(&host.folders)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|source| StartError::Spawn { helper: helper.to_owned(), source })?;
        let socket = watch(ours, Interest::READABLE | Interest::WRITABLE)?;
        let silent = || StartError::Silent { helper: helper.to_owned() };
        let hello = timeout(HELLO_TIMEOUT, socket.async_io(Interest::READABLE, |fd| Ok(receive::<Hello>(fd.as_fd())?)));
        let Ok(Ok(Packet::Message(hello, _))) = hello.await else { return Err(silent()) };
        let wanted = env!("CARGO_PKG_VERSION");
        if hello.version != wanted {
            return Err(StartError::Version { helper: helper.to_owned(), found: hello.version, wanted });
        }
        if let Some(reason) = hello.kept_mounts {
            tracing::info!(reason, "commands start with all of the host's mounts, which takes longer");
        }
        Ok(Self { socket, process })
    }

    async fn submit(&self, prepared: &attempt::Prepared) -> nix::Result<()> {
        let descriptors = borrow_all(prepared.theirs());
        self.send(&Request::Launch(Launch { n_filters: prepared.n_filters() }), &descriptors).await
    }

    async fn tell_hold(&self, held: bool) -> nix::Result<()> {
        self.send(if held { &Request::Hold } else { &Request::Release }, &[]).await
    }

    async fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> nix::Result<()> {
        let sent = self.socket.async_io(Interest::WRITABLE, |fd| Ok(send(fd.as_fd(), request, descriptors)?)).await;
        sent.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}
