//! Starting the daemon when none listens, and waiting for it a moment.
//!
//! Of many wrappers that find no daemon at once, one starts it (a lock beside the socket) and the others wait. A start that failed
//! is remembered for [`FAILURE_MEMORY`] by a file beside the socket, so that a broken setting costs a build one moment and not one
//! for each compile.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::link::MAX_SILENCE;
use super::settings::NESTED_VARIABLE;
use super::socket::{self, SocketError};

/// How long to wait for a daemon that was started.
pub const START_PATIENCE: Duration = Duration::from_secs(1);

/// How long a failed start keeps wrappers from trying again.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(10);

/// First and longest pause between two tries to connect.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// Most that is taken of what a starter says, in bytes.
pub const MAX_LAST_WORDS_BYTES: u64 = 4096;

/// The command line's executable, which is also the daemon.
pub const COMMAND_LINE_NAME: &str = "buildbee-cli";

/// Variables that belong to the one build and not to a daemon that outlives it.
const NOT_FOR_THE_DAEMON: [&str; 7] =
    ["BUILDBEE", NESTED_VARIABLE, "LD_PRELOAD", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CARGO_MAKEFLAGS"];

/// `buildbee-cli` beside the running executable, or its bare name for `PATH` to resolve.
pub fn command_line_program() -> PathBuf {
    let beside = std::fs::read_link("/proc/self/exe").ok().and_then(|own| {
        let program = own.parent()?.join(COMMAND_LINE_NAME);
        program.is_file().then_some(program)
    });
    beside.unwrap_or_else(|| COMMAND_LINE_NAME.into())
}

/// Connects to the daemon at `path`; starts it first if there is none. `remember` makes a recent failure count.
pub fn connect_or_start(path: &Path, remember: bool) -> Result<UnixStream, SocketError> {
    match socket::connect_to(path, MAX_SILENCE) {
        Err(SocketError::Nobody { .. }) => {}
        answer => return answer,
    }
    if remember && failed_recently(path) {
        return Err(SocketError::Nobody { path: path.to_owned() });
    }
    let deadline = Instant::now() + START_PATIENCE;
    match lock_starting(path) {
        Ok(_until_it_listens) => {
            let connected = start_and_wait(path, deadline);
            note_outcome(path, connected.is_ok());
            connected.map_err(|(error, said)| match error {
                SocketError::Nobody { path } if !said.is_empty() => SocketError::NotStarted { path, said },
                error => error,
            })
        }
        Err(Errno::EWOULDBLOCK) => wait_for(path, None, deadline),
        Err(errno) => Err(SocketError::Connect { path: path.to_owned(), errno }),
    }
}

/// The connection, or why there is none and what the one that was to start the daemon said.
fn start_and_wait(path: &Path, deadline: Instant) -> Result<UnixStream, (SocketError, String)> {
    let Ok(mut child) = start(path) else {
        return Err((SocketError::Nobody { path: path.to_owned() }, String::new()));
    };
    let connected = wait_for(path, Some(&mut child), deadline);
    // It ends as soon as the daemon listens. Waited for, because this process may become the compiler, which did not start it.
    while child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
        std::thread::sleep(RETRY_PAUSES.0);
    }
    connected.map_err(|error| (error, last_words(&mut child)))
}

/// What a starter that failed wrote on its standard error. Empty while it runs: its end must not be waited for.
fn last_words(child: &mut Child) -> String {
    let mut said = Vec::new();
    if let (Ok(Some(_)), Some(stderr)) = (child.try_wait(), child.stderr.take()) {
        // What can't be read was not said.
        let _ = stderr.take(MAX_LAST_WORDS_BYTES).read_to_end(&mut said);
    }
    let said = String::from_utf8_lossy(&said);
    said.trim().strip_prefix("error: ").unwrap_or(said.trim()).to_owned()
}

/// Starts `buildbee-cli daemon --background`, which ends when the daemon listens or can't.
fn start(path: &Path) -> std::io::Result<Child> {
    let mut command = Command::new(command_line_program());
    for variable in NOT_FOR_THE_DAEMON {
        command.env_remove(variable);
    }
    command
        .args(["daemon", "--background"])
        .env("BUILDBEE_SOCKET", path)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

fn wait_for(path: &Path, mut child: Option<&mut Child>, deadline: Instant) -> Result<UnixStream, SocketError> {
    let (mut pause, longest) = RETRY_PAUSES;
    loop {
        // Asked before connecting: a starter that ended well leaves a daemon that listens.
        let gave_up =
            child.as_deref_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(status)) if !status.success()));
        match socket::connect_to(path, MAX_SILENCE) {
            Err(SocketError::Nobody { .. }) if !gave_up && Instant::now() < deadline => {}
            answer => return answer,
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
}

/// A file of the wrappers' own beside the socket.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Held by the one that starts the daemon.
fn lock_starting(path: &Path) -> Result<Flock<File>, Errno> {
    if let Some(folder) = path.parent() {
        // A failure shows below.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(beside(path, ".starting"))
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)
}

fn failed_recently(path: &Path) -> bool {
    let failed_at = std::fs::symlink_metadata(beside(path, ".failed")).and_then(|found| found.modified());
    // A time in the future is a clock that jumped: try.
    failed_at.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < FAILURE_MEMORY))
}

fn note_outcome(path: &Path, started: bool) {
    let marker = beside(path, ".failed");
    // Best effort: without it the next wrapper tries again. Never written through a link that somebody else may have put there.
    let _ = std::fs::remove_file(&marker);
    if !started {
        let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(marker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_remembered_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert!(!failed_recently(&path));
        note_outcome(&path, false);
        assert!(failed_recently(&path));
        let old = SystemTime::now() - 2 * FAILURE_MEMORY;
        File::options().write(true).open(beside(&path, ".failed")).unwrap().set_modified(old).unwrap();
        assert!(!failed_recently(&path));
        note_outcome(&path, true);
        assert!(!beside(&path, ".failed").exists());
    }

    #[test]
    fn one_starts_and_the_others_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/s");
        let lock = lock_starting(&path).unwrap();
        assert_eq!(lock_starting(&path).map(drop), Err(Errno::EWOULDBLOCK));
        drop(lock);
        assert!(lock_starting(&path).is_ok());
    }
}
