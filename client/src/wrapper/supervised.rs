//! A compiler run beside the farm: its output is passed on and kept, and it ends early when the daemon has a result first.
//!
//! The daemon's death does not touch the compiler: it runs to its end, and its exit status counts. If the daemon had it ended and then says
//! nothing more, the compiler runs once more, and what it said before is not said again.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::time::Instant;

use buildbee_proto::codec::Bytes;
use buildbee_proto::limits::{MAX_LOCAL_FRAME, MAX_RECORD_BYTES};
use buildbee_proto::local::{LocalCall, LocalOutcome, LocalReply};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::become_compiler;
use super::leftovers;
use super::link::{Link, LinkError};
use super::output::{complain, write_all};
use super::program::Compiler;
use super::promise::{Held, Promise, unprinted};
use super::recording::Recording;
use super::session::Ending;
use super::signals::{self, Signals};
use super::terminal;
use super::tree_kill;

/// How much of each stream is kept for the daemon: both and a log fit in one frame.
const MAX_KEPT_BYTES: usize = (MAX_LOCAL_FRAME - MAX_RECORD_BYTES) / 2 - (64 << 10);

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// The exit code of a compile that made other metadata than others have begun with.
const BROKEN_PROMISE: i32 = 1;

/// What the daemon wants besides the user's own command.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// Before the user's arguments.
    pub arguments: Vec<String>,
    /// `NAME=value`, in place of the user's.
    pub env: Vec<Bytes>,
    /// The recorder's library.
    pub recorder: Option<String>,
    /// What the user preloads.
    pub preloaded: Option<OsString>,
    /// Whether temporary files get a folder of their own.
    pub own_temporary_dir: bool,
}

/// Runs the compiler with `extra`, tells the daemon how it ended, if it still counts, and says how this process should end. A compile
/// that does not keep the `promise` fails.
pub fn run(
    link: Option<Link>,
    compiler: &Compiler,
    extra: &Extra,
    promise: Option<Promise>,
    nesting: u32,
    temporary_dir: Option<&Path>,
) -> Ending {
    let Ok(signals) = Signals::take_over() else { return Ending::RunAlone("wrapper-signals") };
    let before = Printed { stdout: Vec::new(), stderr: printed_of(promise.as_ref()) };
    let told = Told { link, promise, before };
    match run_once(told, &signals, compiler, extra, nesting, temporary_dir) {
        Once::Over(ending) => ending,
        Once::Abandoned(told) => match run_once(told, &signals, compiler, extra, nesting, temporary_dir) {
            Once::Over(ending) => ending,
            // Nobody is left who could.
            Once::Abandoned(_) => Ending::RunAlone("daemon-gone"),
        },
    }
}

fn printed_of(promise: Option<&Promise>) -> Vec<u8> {
    promise.map(|promise| promise.printed.clone()).unwrap_or_default()
}

/// What was said before a run, and to whom its end is told.
struct Told {
    /// `None` once the daemon is gone.
    link: Option<Link>,
    promise: Option<Promise>,
    before: Printed,
}

/// What the user has of each stream.
struct Printed {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// What becomes of a run.
enum Once {
    Over(Ending),
    /// The daemon had it ended, and is gone.
    Abandoned(Told),
}

fn run_once(
    told: Told,
    signals: &Signals,
    compiler: &Compiler,
    extra: &Extra,
    nesting: u32,
    temporary_dir: Option<&Path>,
) -> Once {
    let start = Instant::now();
    let scratch = extra.own_temporary_dir.then(|| Scratch::make(temporary_dir.unwrap_or(Path::new("/tmp")))).flatten();
    tree_kill::adopt_orphans();
    let mut command = become_compiler::command(compiler, &extra.arguments, nesting);
    if let Some(scratch) = &scratch {
        command.env("TMPDIR", &scratch.0);
    }
    for entry in &extra.env {
        if let Some((name, value)) = split_variable(&entry.0) {
            command.env(name, value);
        }
    }
    let library = extra.recorder.as_deref();
    let recording = library.and_then(|library| Recording::start(&mut command, library, extra.preloaded.as_deref()));
    let stderr = terminal::stderr_like(&std::io::stderr(), &mut command);
    let child = command.stdout(Stdio::piped()).spawn().ok();
    // It holds the compiler's end of standard error, which would never come to its end.
    drop(command);
    let Some(child) = child else {
        // Becoming the compiler fails in the same way and says so.
        return Once::Over(Ending::RunAlone("wrapper-spawn"));
    };
    let mut run = Run::new(child, stderr, told, signals);
    let end = run.watch();
    drop(scratch);
    let was_cut_short = matches!(end, End::Cancelled | End::Interrupted(_));
    if let Some(log) = recording.as_ref().filter(|_| was_cut_short && tree_kill::are_gone()).and_then(Recording::read) {
        leftovers::remove(&log.0);
    }
    run.finish(&end, start, recording.as_ref())
}

/// `None` for what no environment can hold.
fn split_variable(entry: &[u8]) -> Option<(&OsStr, &OsStr)> {
    let at = entry.iter().position(|byte| *byte == b'=').filter(|at| *at > 0 && !entry.contains(&0))?;
    Some((OsStr::from_bytes(entry.get(..at)?), OsStr::from_bytes(entry.get(at + 1..)?)))
}

/// How watching ended.
enum End {
    Exited(ExitStatus),
    /// The daemon wants it gone; it is gone.
    Cancelled,
    /// This process was told to end by a signal; so was the compiler.
    Interrupted(Signal),
    /// The system lost the child's status (somebody ignores `SIGCHLD`).
    Lost,
}

struct Run<'a> {
    child: Child,
    stdout: Tee<ChildStdout>,
    stderr: Tee<File>,
    /// `None` once the daemon is gone.
    link: Option<Link>,
    signals: &'a Signals,
    promise: Option<Promise>,
}

impl<'a> Run<'a> {
    /// `stderr` is where the compiler's standard error comes out, unless it goes past us.
    fn new(mut child: Child, stderr: Option<File>, told: Told, signals: &'a Signals) -> Self {
        let Told { link, promise, before } = told;
        let stdout = Tee::new(child.stdout.take(), before.stdout);
        Self { child, stdout, stderr: Tee::new(stderr, before.stderr), link, signals, promise }
    }

    fn watch(&mut self) -> End {
        let mut interrupted = None;
        loop {
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    self.drain();
                    return interrupted.map_or(End::Exited(status), End::Interrupted);
                }
                Err(_) => return interrupted.map_or(End::Lost, End::Interrupted),
            }
            let ready = self.wait_for_something();
            self.pass_on(ready);
            if ready[SIGNAL]
                && let Some(signal) = self.signals.take()
            {
                signals::pass_on(signal, &self.child);
                interrupted = Some(signal);
            }
            if ready[LINK] && self.daemon_cancels() {
                // What is in the pipes, or comes, may be about this very end (an assembler whose input has gone). The daemon has all that a whole
                // run prints, and what of it was not printed yet follows.
                tree_kill::end_descendants();
                return End::Cancelled;
            }
        }
    }

    fn wait_for_something(&self) -> Ready {
        let mut waiting = self.pipes();
        waiting[LINK] = self.link.as_ref().map(AsFd::as_fd);
        waiting[SIGNAL] = Some(self.signals.as_fd());
        poll_all(waiting, PollTimeout::NONE)
    }

    fn pipes(&self) -> Waiting<'_> {
        let mut waiting = [None; 4];
        waiting[STDOUT] = self.stdout.open.as_ref().map(AsFd::as_fd);
        waiting[STDERR] = self.stderr.open.as_ref().map(AsFd::as_fd);
        waiting
    }

    fn pass_on(&mut self, ready: Ready) {
        if ready[STDOUT] {
            self.stdout.pass_on(std::io::stdout());
        }
        if ready[STDERR] {
            self.stderr.pass_on(std::io::stderr());
        }
    }

    /// Whether a cancel came. A daemon that goes away or talks nonsense no longer counts.
    fn daemon_cancels(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        let heard = link.read_some().and_then(|()| {
            loop {
                match link.take()? {
                    None => return Ok(false),
                    Some(LocalReply::Working | LocalReply::Waiting { .. }) => {}
                    Some(LocalReply::Cancel) => return Ok(true),
                    Some(_) => return Err(LinkError::Closed),
                }
            }
        });
        heard.unwrap_or_else(|_| {
            self.link = None;
            false
        })
    }

    /// What is in the pipes now. Something that the compiler left running may hold them open for ever.
    fn drain(&mut self) {
        loop {
            let ready = poll_all(self.pipes(), PollTimeout::ZERO);
            if ready == [false; 4] {
                return;
            }
            self.pass_on(ready);
        }
    }

    fn finish(mut self, end: &End, start: Instant, recording: Option<&Recording>) -> Once {
        if matches!(end, End::Exited(_)) {
            write_all(std::io::stdout(), &self.stdout.held.rest());
            write_all(std::io::stderr(), &self.stderr.held.rest());
        }
        let is_whole = matches!(end, End::Exited(status) if status.success());
        let broken = self.promise.as_ref().filter(|promise| is_whole && !promise.is_kept());
        if let Some(promise) = broken {
            complain(&promise.complaint());
        }
        let (ending, exit_code) = match *end {
            End::Interrupted(signal) => return Once::Over(Ending::Signal(signal)),
            End::Lost => return Once::Over(Ending::RunAlone("wrapper-lost-status")),
            End::Cancelled => (None, None),
            End::Exited(_) if broken.is_some() => (Some(Ending::Exit(BROKEN_PROMISE)), Some(BROKEN_PROMISE)),
            End::Exited(status) => {
                let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
                (Some(signal.map_or(Ending::Exit(code), Ending::Signal)), Some(code))
            }
        };
        let printed = Printed { stdout: self.stdout.printed(), stderr: self.stderr.printed() };
        let outcome = LocalOutcome {
            exit_code,
            stdout: Bytes(std::mem::take(&mut self.stdout.kept)),
            stderr: Bytes(std::mem::take(&mut self.stderr.kept)),
            complete: !self.stdout.cut && !self.stderr.cut,
            wall_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            record: recording.filter(|_| exit_code.is_some()).and_then(Recording::read),
        };
        let verdict = self.link.take().and_then(|link| told(link, outcome, exit_code.is_none()));
        match (verdict, ending) {
            (Some(Verdict { exit_code, stdout, stderr }), _) => {
                write_all(std::io::stdout(), unprinted(&stdout.0, &printed.stdout));
                write_all(std::io::stderr(), unprinted(&stderr.0, &printed.stderr));
                Once::Over(Ending::Exit(exit_code))
            }
            (None, Some(ending)) => Once::Over(ending),
            (None, None) => Once::Abandoned(Told { link: None, promise: self.promise, before: printed }),
        }
    }
}

/// What the daemon has instead of the local run's end.
struct Verdict {
    exit_code: i32,
    stdout: Bytes,
    stderr: Bytes,
}

/// Tells the daemon and waits until it has what it wants to keep. Its verdict counts only if it cancelled the run, be it too late.
fn told(mut link: Link, outcome: LocalOutcome, mut cancelled: bool) -> Option<Verdict> {
    link.send(LocalCall::LocalDone(outcome)).ok()?;
    loop {
        match link.receive_result().ok()? {
            LocalReply::Cancel => cancelled = true,
            LocalReply::Done { exit_code, stdout, stderr } => {
                return cancelled.then_some(Verdict { exit_code, stdout, stderr });
            }
            _ => return None,
        }
    }
}

/// What can be waited for, by place: the compiler's streams, the daemon, signals.
type Waiting<'a> = [Option<BorrowedFd<'a>>; 4];

/// Which of them has something.
type Ready = [bool; 4];

const STDOUT: usize = 0;
const STDERR: usize = 1;
const LINK: usize = 2;
const SIGNAL: usize = 3;

fn poll_all(waiting: Waiting<'_>, timeout: PollTimeout) -> Ready {
    let mut which = Vec::with_capacity(waiting.len());
    let mut descriptors = Vec::with_capacity(waiting.len());
    for (at, descriptor) in waiting.into_iter().enumerate() {
        if let Some(descriptor) = descriptor {
            which.push(at);
            descriptors.push(PollFd::new(descriptor, PollFlags::POLLIN));
        }
    }
    let mut ready = [false; 4];
    // A failure looks like nothing being ready: the caller looks at the child and asks again.
    if poll(&mut descriptors, timeout).is_ok() {
        for (at, descriptor) in which.into_iter().zip(&descriptors) {
            ready[at] = descriptor.any().unwrap_or(true);
        }
    }
    ready
}

/// A stream that is passed on and kept.
struct Tee<R> {
    /// `None` at its end.
    open: Option<R>,
    kept: Vec<u8>,
    cut: bool,
    held: Held,
}

impl<R: Read> Tee<R> {
    /// Of the stream `before` was printed. Without a reader nothing is kept.
    fn new(reader: Option<R>, before: Vec<u8>) -> Self {
        Self { cut: reader.is_none(), open: reader, kept: Vec::new(), held: Held::back(before) }
    }

    /// What the user has of the stream.
    fn printed(&self) -> Vec<u8> {
        self.held.more().unwrap_or(&self.kept).to_vec()
    }

    fn pass_on(&mut self, to: impl AsFd) {
        let Some(reader) = &mut self.open else { return };
        let mut bytes = [0; READ_BYTES];
        match reader.read(&mut bytes) {
            Ok(n) if n > 0 => {
                let (before, now) = self.held.pass(&bytes[..n]);
                write_all(&to, &before);
                write_all(&to, now);
                let room = MAX_KEPT_BYTES - self.kept.len();
                self.cut |= n > room;
                self.kept.extend_from_slice(&bytes[..n.min(room)]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => self.open = None,
        }
    }
}

/// A folder for the compiler's temporary files, removed with what a killed compiler left in it.
struct Scratch(PathBuf);

impl Scratch {
    fn make(parent: &Path) -> Option<Self> {
        nix::unistd::mkdtemp(&parent.join(OsStr::new("buildbee-XXXXXX"))).ok().map(Self)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
