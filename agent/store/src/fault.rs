//! Named points at which a crash test ends its child process, as abruptly as `kill -9` does. Exists in tests only.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

static ARMED: OnceLock<(String, AtomicU32)> = OnceLock::new();

/// From now on, the `n_skip + 1`st time that this process passes the point `name` is its last moment.
pub(crate) fn arm(name: &str, n_skip: u32) {
    ARMED.set((name.to_owned(), AtomicU32::new(n_skip))).expect("armed once");
}

/// Dies here if armed for this point.
pub(crate) fn point(name: &str) {
    let Some((armed, skip)) = ARMED.get() else { return };
    if armed == name && skip.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err() {
        kill(Pid::this(), Signal::SIGKILL).expect("own process");
    }
}
