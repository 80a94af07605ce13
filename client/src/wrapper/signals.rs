//! The signals that end a process, received as data, so that it can leave nothing behind; and `SIGCHLD`, which tells of children.
//!
//! Handlers, not a mask: a mask would be inherited by the compiler, which could then not be interrupted.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};
use signal_hook::{flag, low_level};

/// Those that ask for the end.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Installed for the rest of this process's life. What it starts or becomes has the system's defaults.
#[derive(Debug)]
pub struct Signals {
    /// Readable when a signal came.
    wake: UnixStream,
    /// Number of the last one that asks for the end, or 0.
    ending: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on signals no longer end this process.
    pub fn take_over() -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let ending = Arc::new(AtomicUsize::new(0));
        for signal in ENDING {
            let number = usize::try_from(signal as i32).unwrap_or_default();
            // In this order: whoever wakes up finds the number.
            flag::register_usize(signal as i32, Arc::clone(&ending), number)?;
            low_level::pipe::register(signal as i32, waker.try_clone()?)?;
        }
        low_level::pipe::register(Signal::SIGCHLD as i32, waker)?;
        Ok(Self { wake, ending })
    }

    /// The signal that asked for the end since the last call, if any.
    pub fn take(&self) -> Option<Signal> {
        let mut bytes = [0; 64];
        while matches!((&self.wake).read(&mut bytes), Ok(n) if n > 0) {}
        let number = self.ending.swap(0, Ordering::SeqCst);
        i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Passes `signal` on to a child, unless the terminal sent it to both.
pub fn pass_on(signal: Signal, child: &Child) {
    if matches!(signal, Signal::SIGINT | Signal::SIGQUIT) && in_foreground() {
        return;
    }
    if let Ok(pid) = i32::try_from(child.id()) {
        // It has not been waited for, so the number is still its own.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn in_foreground() -> bool {
    File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}

/// Ends this process by `signal`, whatever handlers there are. Returns only where the system does not let it.
pub fn die_by(signal: Signal) {
    let _ = low_level::emulate_default_handler(signal as i32);
}
