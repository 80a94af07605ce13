//! Somebody types into a terminal, or into a shell over the network.
//!
//! The kernel notes at a terminal when a program last read from it, to eight seconds: the first key after a while shows at once. What
//! programs print shows elsewhere, and does not count. Nor does a terminal that nobody has typed into since it was made: the agent itself
//! makes some, for compilers.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Seen, Signal, entries};

/// Terminals that are looked at.
const MAX_TERMINALS: usize = 512;
/// How often consoles are looked for; those of terminal windows come and go, and are looked for each time.
const CONSOLES_PERIOD: Duration = Duration::from_secs(60);

/// All terminals of the machine.
#[derive(Debug)]
pub struct Terminals {
    pseudo: PathBuf,
    devices: PathBuf,
    consoles: Vec<PathBuf>,
    looked_for_consoles: Option<Duration>,
    /// When each was last read from, as it says.
    read: HashMap<PathBuf, SystemTime>,
}

impl Terminals {
    /// Those below `root`.
    pub fn new(root: &Path) -> Self {
        let devices = root.join("dev");
        let pseudo = devices.join("pts");
        Self { pseudo, devices, consoles: Vec::new(), looked_for_consoles: None, read: HashMap::new() }
    }

    fn look_for_consoles(&mut self, now: Duration) {
        if self.looked_for_consoles.is_some_and(|last| now.saturating_sub(last) < CONSOLES_PERIOD) {
            return;
        }
        self.looked_for_consoles = Some(now);
        // The current one is all the time in use by programs.
        let is_console = |name: &str| name.strip_prefix("tty").is_some_and(|number| is_number(number) && number != "0");
        self.consoles = entries(&self.devices, MAX_TERMINALS, is_console);
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// When it was read from, if it was since it was made.
fn last_read(metadata: &Metadata) -> Option<SystemTime> {
    let (read, made) = ((metadata.atime(), metadata.atime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
    metadata.accessed().ok().filter(|_| read > made)
}

impl Signal for Terminals {
    fn period(&self) -> Duration {
        Duration::ZERO
    }

    fn look(&mut self, now: Duration, seen: &mut Seen) {
        self.look_for_consoles(now);
        let wall = SystemTime::now();
        let before = std::mem::take(&mut self.read);
        let mut terminals = entries(&self.pseudo, MAX_TERMINALS, is_number);
        terminals.extend(self.consoles.iter().cloned());
        for terminal in terminals {
            let Some(read) = fs::metadata(&terminal).ok().as_ref().and_then(last_read) else { continue };
            if before.get(&terminal) != Some(&read) {
                let age = wall.duration_since(read).unwrap_or_default();
                seen.input(now.saturating_sub(age));
            }
            self.read.insert(terminal, read);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use nix::pty::openpty;
    use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

    use super::*;

    const NOW: Duration = Duration::from_secs(2_000_000_000);

    fn look(terminals: &mut Terminals) -> Option<Duration> {
        let mut seen = Seen::default();
        terminals.look(NOW, &mut seen);
        seen.last_input
    }

    #[test]
    fn a_key_in_a_real_terminal_shows_and_output_does_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("dev/pts")).unwrap();
        let pty = openpty(None, None).unwrap();
        let name = fs::read_link(format!("/proc/self/fd/{}", pty.slave.as_raw_fd())).unwrap();
        symlink(&name, root.path().join("dev/pts").join(name.file_name().unwrap())).unwrap();
        let mut settings = tcgetattr(&pty.slave).unwrap();
        cfmakeraw(&mut settings);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).unwrap();
        let (mut keyboard, mut program) = (File::from(pty.master), File::from(pty.slave));
        let mut terminals = Terminals::new(root.path());
        assert_eq!(look(&mut terminals), None, "just made");
        program.write_all(b"$ ").unwrap();
        assert_eq!(look(&mut terminals), None, "output");
        // Until the kernel's clock has gone on by eight seconds at most.
        let mut byte = [0];
        let seen = (0..200).find_map(|_| {
            keyboard.write_all(b"x").unwrap();
            program.read_exact(&mut byte).unwrap();
            let seen = look(&mut terminals);
            if seen.is_none() {
                std::thread::sleep(Duration::from_millis(50));
            }
            seen
        });
        assert!(seen.is_some_and(|last| last + Duration::from_secs(10) > NOW), "{seen:?}");
        assert_eq!(look(&mut terminals), None, "nothing since");
    }

    #[test]
    fn what_was_typed_before_the_start_counts_by_its_age() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("dev/pts")).unwrap();
        let console = root.path().join("dev/tty3");
        let file = File::create(&console).unwrap();
        // Times can only be set to what lies behind the file's own change, but for the future.
        let ahead = SystemTime::now() + Duration::from_secs(600);
        file.set_times(fs::FileTimes::new().set_accessed(ahead)).unwrap();
        let mut terminals = Terminals::new(root.path());
        assert_eq!(look(&mut terminals), Some(NOW), "a time to come is now");
        assert_eq!(look(&mut terminals), None);
    }
}
