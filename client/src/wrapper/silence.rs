//! What wrappers tell each other of a daemon that says nothing: a file beside its socket, so that a daemon that hangs costs a build the wait for
//! it now and then, and not with each compile.
//!
//! Who has waited in vain leaves the file. Who finds one that is no older than [`MEMORY`] waits for the daemon's first word no longer than
//! [`FIRST_WORD`]; after that somebody waits in full again, and removes the file if there is a word. Nobody looks for the file who is answered at
//! once.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::start::beside;

/// How long a silence counts.
pub const MEMORY: Duration = Duration::from_secs(5);

/// How long a daemon has for its first word while it counts. Most hits take less.
pub const FIRST_WORD: Duration = Duration::from_millis(50);

const SUFFIX: &str = ".silent";

/// What is known of the daemon at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nothing.
    Unknown,
    /// It did not answer, a moment ago.
    Recent,
    /// It did not answer some time ago.
    Past,
}

/// Looks.
pub fn look(socket: &Path) -> Silence {
    match std::fs::symlink_metadata(beside(socket, SUFFIX)).and_then(|found| found.modified()) {
        Err(_) => Silence::Unknown,
        // A time in the future is a clock that jumped.
        Ok(at) if SystemTime::now().duration_since(at).is_ok_and(|age| age < MEMORY) => Silence::Recent,
        Ok(_) => Silence::Past,
    }
}

/// It did not answer. Best effort, as is [`forget`]: what is not noted costs the next one a wait.
pub fn note(socket: &Path) {
    forget(socket);
    // Never written through a link that somebody else may have put there.
    let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside(socket, SUFFIX));
}

/// It has answered.
pub fn forget(socket: &Path) {
    let _ = std::fs::remove_file(beside(socket, SUFFIX));
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_silence_counts_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        assert_eq!(look(&socket), Silence::Unknown);
        note(&socket);
        assert_eq!(look(&socket), Silence::Recent);
        let noted = File::options().write(true).open(beside(&socket, SUFFIX)).unwrap();
        noted.set_modified(SystemTime::now() - MEMORY).unwrap();
        assert_eq!(look(&socket), Silence::Past);
        noted.set_modified(SystemTime::now() + 2 * MEMORY).unwrap();
        assert_eq!(look(&socket), Silence::Past, "the clock jumped");
        note(&socket);
        assert_eq!(look(&socket), Silence::Recent, "anew");
        forget(&socket);
        assert_eq!(look(&socket), Silence::Unknown);
    }
}
