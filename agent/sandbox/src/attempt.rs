//! One command on the agent's side: its descriptors, its supervision, its outcome.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::descriptors::{self, Packet, memory_file, packet_pair, receive};
use crate::directories::{self, DirectoryError};
use crate::launcher::StartError;
use crate::plan::{PlanError, plan};
use crate::spec::{Limits, SandboxSpec};
use crate::terminal::Stream;
use crate::wire::{Ended, Event, N_FIXED_DESCRIPTORS, Refusal, Step, StepFailure};

/// How long a killed command may take to be gone before the helper counts as dead. The kernel needs milliseconds, unless a
/// process hangs in a dead file system.
const GONE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes kept of bubblewrap's message.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Exit statuses above this are signals: status minus this.
const SIGNAL_BASE: i32 = 128;
/// Highest signal.
const MAX_SIGNAL: i32 = 64;

/// Why a command did not run to its end, for reasons that are not its own.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The specification can't be run anywhere.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its folders can't be made.
    #[error(transparent)]
    Directories(#[from] DirectoryError),
    /// The helper could not prepare the process.
    #[error("cannot prepare the sandbox ({step:?}): {source}")]
    Step {
        /// Where it failed.
        step: Step,
        /// Why.
        source: io::Error,
    },
    /// Bubblewrap could not set up the sandbox or start the program in it (which may be missing).
    #[error("the sandbox was not set up: {message}")]
    Setup {
        /// What bubblewrap said.
        message: String,
    },
    /// Too many commands at once.
    #[error("the sandbox helper runs as many commands as it can")]
    Full,
    /// The helper can't be started.
    #[error(transparent)]
    Helper(StartError),
    /// The helper died or hangs; the command was killed with it.
    #[error("the sandbox helper is gone")]
    HelperGone,
    /// The caller wanted it to end.
    #[error("cancelled")]
    Cancelled,
    /// No descriptors or memory.
    #[error("cannot talk to the sandbox: {0}")]
    Io(#[from] io::Error),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it (or it exited with 128 and the signal's number, as shells do: bubblewrap reports both alike).
    Signal(i32),
    /// It reached [`Limits::wall`] and was killed.
    TimedOut,
    /// It reached [`Limits::stream_bytes`] and was killed.
    OutputTooLarge,
}

/// What a command used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// By the clock, with the set-up of the sandbox.
    pub wall: Duration,
    /// Processor time of all its processes, with bubblewrap's own few milliseconds. Of a killed command, only what was waited for.
    pub cpu: Duration,
    /// Largest resident set of one of its processes.
    pub peak_memory_bytes: u64,
}

/// Hears all that a command has printed on standard error so far, each time that there is more of it. Must not block.
pub type Listener = Box<dyn FnMut(&[u8]) + Send>;

/// A command that ran.
#[derive(Clone, Debug)]
pub struct Completed {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, at most [`Limits::stream_bytes`].
    pub stdout: Vec<u8>,
    /// Its standard error, at most [`Limits::stream_bytes`].
    pub stderr: Vec<u8>,
    /// What it used.
    pub usage: Usage,
    /// The folder with everything that it wrote. Beside it: folders `tmp`, `dev`, `proc`, which are the sandbox's.
    pub upper: PathBuf,
}

/// A command ready to be handed to the helper.
#[derive(Debug)]
pub struct Prepared {
    limits: Limits,
    upper: PathBuf,
    /// Our end; closing it kills the command.
    channel: AsyncFd<OwnedFd>,
    stdout: Stream,
    stderr: Stream,
    /// What the helper gets, in the order of the protocol.
    theirs: Vec<OwnedFd>,
}

/// Checks `spec`, makes its folders and opens what the command needs. Touches the disk; needs a tokio runtime with I/O all the same.
pub(crate) fn prepare(spec: &SandboxSpec, filters: &[Vec<u8>]) -> Result<Prepared, SandboxError> {
    let plan = plan(spec)?;
    directories::prepare(spec)?;
    let (ours, channel) = packet_pair().map_err(io::Error::from)?;
    let (their_stdout, stdout) = Stream::pipe()?;
    let (their_stderr, stderr) = if spec.stderr_is_terminal { Stream::terminal()? } else { Stream::pipe()? };
    let options: Vec<u8> = plan.options.iter().flat_map(|option| option.bytes().chain([0])).collect();
    let mut theirs = vec![
        channel,
        memory_file("plan", &serde_json::to_vec(&plan).map_err(io::Error::from)?)?,
        memory_file("options", &options)?,
        their_stdout,
        their_stderr,
    ];
    for filter in filters {
        // One each: bubblewrap reads it from the descriptor's position, which duplicates share.
        theirs.push(memory_file("filter", filter)?);
    }
    let channel = descriptors::watch(ours, Interest::READABLE)?;
    Ok(Prepared { limits: spec.limits, upper: spec.upper(), channel, stdout, stderr, theirs })
}

/// Why we killed a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    Cancelled,
    TimedOut,
    OutputTooLarge,
}

impl Prepared {
    pub(crate) fn theirs(&self) -> &[OwnedFd] {
        &self.theirs
    }

    pub(crate) fn n_filters(&self) -> u8 {
        u8::try_from(self.theirs.len().saturating_sub(N_FIXED_DESCRIPTORS)).unwrap_or(0)
    }

    /// Follows a command that was handed over until all of it is gone.
    pub(crate) async fn supervise(
        self,
        cancel: CancellationToken,
        listener: Option<Listener>,
    ) -> Result<Completed, SandboxError> {
        let Self { limits, upper, channel, stdout, stderr, theirs } = self;
        // The helper has its copies; ours would keep the streams and the channel open for ever.
        drop(theirs);
        let started = Instant::now();
        // A limit beyond what the clock can count is none.
        let deadline = started.checked_add(limits.wall);
        let overflow = watch::Sender::new(false);
        let mut overflowed = overflow.subscribe();
        let streams = async {
            let stdout = capture(stdout, limits, &overflow, None);
            let stderr = capture(stderr, limits, &overflow, listener);
            tokio::join!(stdout, stderr)
        };
        let ending = async {
            let mut ended = pin!(wait_for_end(&channel));
            let killed = tokio::select! {
                biased;
                ended = &mut ended => return ended.map(|ended| (ended, None)),
                () = cancel.cancelled() => Killed::Cancelled,
                // The sender lives as long as this future: only a change gets here.
                _ = overflowed.changed() => Killed::OutputTooLarge,
                () = at(deadline) => Killed::TimedOut,
            };
            // The helper may be dead already; then the wait below ends at once.
            let _ = shutdown(channel.as_raw_fd(), Shutdown::Write);
            let ended = timeout(GONE_TIMEOUT, ended).await.unwrap_or(Err(SandboxError::HelperGone))?;
            Ok((ended, Some(killed)))
        };
        let (streams, ending) = finish(streams, ending).await;
        let ((ended, killed), (stdout, stderr)) = (ending?, streams);
        let exit = classify(&ended, killed, *overflow.borrow(), &stderr)?;
        let usage = Usage { wall: started.elapsed(), cpu: ended.cpu, peak_memory_bytes: ended.peak_memory_bytes };
        Ok(Completed { exit, stdout, stderr, usage, upper })
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

type Streams = (Vec<u8>, Vec<u8>);
type Ending = Result<(Ended, Option<Killed>), SandboxError>;

/// Waits for both, but for the streams only if the command ended as it should: with the helper dead, something may hold them.
async fn finish(streams: impl Future<Output = Streams>, ending: impl Future<Output = Ending>) -> (Streams, Ending) {
    let (mut streams, mut ending) = (pin!(streams), pin!(ending));
    tokio::select! {
        done = &mut streams => (done, ending.await),
        done = &mut ending => match done {
            Ok(ended) => (streams.await, Ok(ended)),
            Err(error) => (Streams::default(), Err(error)),
        },
    }
}

/// Reads `stream` to its end; says so on `overflow` if there is too much, and keeps the first part. `listener` is dropped at the end.
async fn capture(
    mut stream: Stream,
    limits: Limits,
    overflow: &watch::Sender<bool>,
    mut listener: Option<Listener>,
) -> Vec<u8> {
    let limit = usize::try_from(limits.stream_bytes).unwrap_or(usize::MAX);
    let mut captured = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match stream.read(&mut buffer).await {
            // An error of a pipe is its end as far as we can tell.
            Ok(0) | Err(_) => return captured,
            Ok(n) => {
                let room = limit - captured.len();
                captured.extend_from_slice(&buffer[..n.min(room)]);
                if let Some(listener) = &mut listener {
                    listener(&captured);
                }
                if n > room {
                    overflow.send_replace(true);
                    // Nobody reads what else comes; the command is killed.
                    return captured;
                }
            }
        }
    }
}

async fn wait_for_end(channel: &AsyncFd<OwnedFd>) -> Result<Ended, SandboxError> {
    loop {
        match channel.async_io(Interest::READABLE, |fd| Ok(receive::<Event>(fd.as_fd())?)).await? {
            Packet::Message(Event::Started, _) => {}
            Packet::Message(Event::Ended(ended), _) => return Ok(ended),
            Packet::Message(Event::Refused(Refusal::Full), _) => return Err(SandboxError::Full),
            Packet::Message(Event::Refused(Refusal::Kernel(errno)), _) => {
                return Err(io::Error::from_raw_os_error(errno).into());
            }
            Packet::Closed | Packet::Malformed => return Err(SandboxError::HelperGone),
        }
    }
}

/// Tells the program's own end from everything else.
fn classify(ended: &Ended, killed: Option<Killed>, overflowed: bool, stderr: &[u8]) -> Result<Exit, SandboxError> {
    match killed {
        Some(Killed::Cancelled) => return Err(SandboxError::Cancelled),
        Some(Killed::TimedOut) => return Ok(Exit::TimedOut),
        Some(Killed::OutputTooLarge) => return Ok(Exit::OutputTooLarge),
        // It ended by itself while its last output was read.
        None if overflowed => return Ok(Exit::OutputTooLarge),
        None => {}
    }
    if let Some(StepFailure { step, errno }) = ended.failure {
        return Err(SandboxError::Step { step, source: io::Error::from_raw_os_error(errno) });
    }
    match ended.code {
        Some(code) if code > SIGNAL_BASE && code <= SIGNAL_BASE + MAX_SIGNAL => Ok(Exit::Signal(code - SIGNAL_BASE)),
        Some(code) => Ok(Exit::Code(code)),
        None => Err(SandboxError::Setup { message: message(ended, stderr) }),
    }
}

fn message(ended: &Ended, stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(&stderr[..stderr.len().min(MAX_MESSAGE_BYTES)]);
    match (ended.wrapper_signal, text.trim()) {
        (Some(signal), _) => format!("bubblewrap was killed by signal {signal}"),
        (None, "") => "bubblewrap gave no reason".to_owned(),
        (None, text) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended() -> Ended {
        Ended { failure: None, code: Some(0), wrapper_signal: None, cpu: Duration::ZERO, peak_memory_bytes: 0 }
    }

    #[test]
    fn ends_are_told_apart() {
        let exit = |code| classify(&Ended { code: Some(code), ..ended() }, None, false, b"").unwrap();
        assert_eq!(exit(0), Exit::Code(0));
        assert_eq!(exit(128), Exit::Code(128));
        assert_eq!(exit(137), Exit::Signal(9));
        assert_eq!(exit(255), Exit::Code(255));
        assert_eq!(classify(&ended(), Some(Killed::TimedOut), false, b"").unwrap(), Exit::TimedOut);
        assert_eq!(classify(&ended(), None, true, b"").unwrap(), Exit::OutputTooLarge);
        assert!(matches!(classify(&ended(), Some(Killed::Cancelled), true, b""), Err(SandboxError::Cancelled)));
    }

    #[test]
    fn a_failed_set_up_is_not_the_programs_failure() {
        let no_code = Ended { code: None, ..ended() };
        let error = classify(&no_code, None, false, b"bwrap: execvp cc1: No such file or directory\n").unwrap_err();
        assert_eq!(error.to_string(), "the sandbox was not set up: bwrap: execvp cc1: No such file or directory");
        let killed = Ended { wrapper_signal: Some(9), ..no_code.clone() };
        let error = classify(&killed, None, false, b"t.c:1: error").unwrap_err();
        assert_eq!(error.to_string(), "the sandbox was not set up: bubblewrap was killed by signal 9");
        let step = Ended { failure: Some(StepFailure { step: Step::Overlay, errno: 1 }), ..no_code };
        assert!(matches!(classify(&step, None, false, b""), Err(SandboxError::Step { step: Step::Overlay, .. })));
    }
}
