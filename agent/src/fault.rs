//! Named points of replication at which a test ends its agent, as abruptly as `kill -9` does. Nothing of it is in programs made for users, which
//! are built without assertions, and nothing happens where nobody has armed a point.
#![cfg(debug_assertions)]

use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

static ARMED: OnceLock<String> = OnceLock::new();

/// From now on, passing the point `name` is this process's last moment. The first call counts.
pub fn arm(name: &str) {
    ARMED.get_or_init(|| name.to_owned());
}

/// Dies here if armed for this point.
pub(crate) fn point(name: &str) {
    if ARMED.get().is_some_and(|armed| armed == name) {
        // Nothing else can be done with a process that does not even die.
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}
