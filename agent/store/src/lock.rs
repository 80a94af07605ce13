//! One process at a time has a store open. The kernel drops the lock with the process, however it ends.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::O_NOFOLLOW;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::error::OpenError;
use crate::layout::Layout;

/// A pid in decimal is never longer.
const MAX_PID_BYTES: usize = 16;
/// How often, and how far apart, a lock is tried whose taker is gone: two seconds in all.
const N_TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: Flock<File>,
}

impl DirLock {
    pub(crate) fn acquire(layout: &Layout) -> Result<Self, OpenError> {
        let path = layout.lock();
        let error = |source| OpenError::io(&layout.dir, &path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(O_NOFOLLOW)
            .open(&path)
            .map_err(error)?;
        let mut file = lock(file).map_err(|refused| match refused {
            Refused::Busy(holder) => OpenError::Busy { dir: layout.dir.clone(), holder },
            Refused::Failed(errno) => error(errno.into()),
        })?;
        // The number is for people. A disk too full for it is no reason not to serve what is there.
        if let Err(error) = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())) {
            tracing::debug!(%error, "could not leave the process number in the lock file");
        }
        Ok(Self { _file: file })
    }
}

enum Refused {
    Busy(Option<u32>),
    Failed(Errno),
}

/// A process killed while it was starting a program leaves its lock with that half-started child for a moment: worth a wait where the
/// process that took the lock is no more.
fn lock(mut file: File) -> Result<Flock<File>, Refused> {
    for _ in 0..N_TRIES {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(Refused::Failed(errno)),
        };
        match holder(&file) {
            Some(pid) if is_gone(pid) => thread::sleep(PAUSE),
            other => return Err(Refused::Busy(other)),
        }
    }
    Err(Refused::Busy(holder(&file)))
}

fn is_gone(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    pid > 0 && kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

fn holder(file: &File) -> Option<u32> {
    let mut text = [0; MAX_PID_BYTES];
    let n = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..n)?).ok()?.trim().parse().ok()
}
