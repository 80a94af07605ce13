//! A command in the foreground, for `farm up` and `run`: signals are passed on, and it gets the time to end by itself.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use thiserror::Error;

use crate::exit::{ENVIRONMENT, Failure};
use crate::wrapper::become_compiler::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND};
use crate::wrapper::signals::{self, Signals};

/// How long the command may go on after it was asked to end.
const GRACE: Duration = Duration::from_secs(5);

/// How often to look whether that time is over, in milliseconds.
const LOOK_MS: u16 = 100;

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its exit code, or 128 plus the signal that ended it.
    pub code: u8,
    /// Whether it was asked to end; then what it started is to end, too.
    pub interrupted: bool,
}

/// Why it is not known how it ended.
#[derive(Debug, Error)]
pub enum GuestError {
    /// It did not start.
    #[error("{command}: {error}\nhint: the command stands after `--`")]
    Start {
        /// Its name.
        command: String,
        /// What the system says.
        error: io::Error,
    },
    /// It can't be waited for.
    #[error("lost the command: {0}\nhint: something above ignores SIGCHLD")]
    Lost(io::Error),
}

impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Self {
        let code = match &error {
            GuestError::Start { error, .. } if error.kind() == io::ErrorKind::NotFound => EXIT_NOT_FOUND,
            GuestError::Start { .. } => EXIT_NOT_EXECUTABLE,
            GuestError::Lost(_) => ENVIRONMENT,
        };
        Self { code, text: error.to_string() }
    }
}

/// Runs it to its end, in the foreground.
pub fn run(guest: &mut Command, signals: &Signals) -> Result<Ended, GuestError> {
    let mut child = guest.spawn().map_err(|error| {
        let command = guest.get_program().to_string_lossy().into_owned();
        GuestError::Start { command, error }
    })?;
    let mut asked: Option<(Signal, Instant)> = None;
    loop {
        if let Some(status) = child.try_wait().map_err(GuestError::Lost)? {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            return Ok(Ended { code: code.to_le_bytes()[0], interrupted: asked.is_some() });
        }
        if let Some((signal, since)) = asked
            && since.elapsed() > GRACE
        {
            // It may have ended this moment.
            let _ = child.kill();
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
pub fn code_of_signal(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}
