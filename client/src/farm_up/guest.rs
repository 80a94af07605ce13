//! The command that a farm is made for.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::error::FarmError;
use super::folder::Folder;
use crate::wrapper::signals::{self, Signals};

/// How long the command may go on after it was asked to end.
const GRACE: Duration = Duration::from_secs(5);

/// How often to look whether that time is over, in milliseconds.
const LOOK_MS: u16 = 100;

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Its exit code, or 128 plus the signal that ended it.
    pub(super) code: u8,
    /// Whether it was asked to end; then what it started is to end, too.
    pub(super) interrupted: bool,
}

/// Runs it to its end, in the foreground.
pub(super) fn run(command: &[OsString], folder: &Folder, signals: &Signals) -> Result<Ended, FarmError> {
    let Some((program, arguments)) = command.split_first() else { return Ok(Ended { code: 0, interrupted: false }) };
    let mut guest = Command::new(program);
    folder.client(guest.args(arguments));
    let mut child =
        guest.spawn().map_err(|error| FarmError::Command { command: program.display().to_string(), error })?;
    let mut asked: Option<(Signal, Instant)> = None;
    loop {
        if let Some(status) = child.try_wait().map_err(FarmError::Lost)? {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            return Ok(Ended { code: code.to_le_bytes()[0], interrupted: asked.is_some() });
        }
        if let Some((signal, since)) = asked
            && since.elapsed() > GRACE
        {
            return Ok(Ended { code: code_of_signal(signal), interrupted: true });
        }
        if let Some(signal) = signals.take() {
            signals::pass_on(signal, &child);
            // Asked twice: at once.
            let since = if asked.is_some() { Instant::now().checked_sub(GRACE) } else { None };
            asked = Some((signal, since.unwrap_or_else(Instant::now)));
        }
        let timeout = if asked.is_some() { PollTimeout::from(LOOK_MS) } else { PollTimeout::NONE };
        // Whatever it returns, there is something to look at.
        let _ = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout);
    }
}

/// As shells have it.
pub(super) fn code_of_signal(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}
