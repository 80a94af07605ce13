//! Keyboards, mice and touch screens, where this user may read them. What is typed is not looked at: only that something was.
//!
//! Mostly only root and the group `input` may. A desktop's own terminals and, where there is one, logind say less and are open to more.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;

use super::{Seen, Signal, entries, read};

/// Devices that are looked at.
const MAX_DEVICES: usize = 64;
/// How often devices are looked for.
const SEARCH_PERIOD: Duration = Duration::from_secs(20);
/// Bytes read at once: some twenty events. What a device has gathered since the last look is read to its end, in this many reads at most.
const READ_BYTES: usize = 512;
const MAX_READS: usize = 64;
/// In a device's bits of kinds: it has keys or buttons.
const EV_KEY: u64 = 1 << 1;

/// All devices with keys or buttons.
#[derive(Debug)]
pub struct Devices {
    folder: PathBuf,
    classes: PathBuf,
    searched: Option<Duration>,
    open: HashMap<PathBuf, File>,
}

impl Devices {
    /// Those below `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            folder: root.join("dev/input"),
            classes: root.join("sys/class/input"),
            searched: None,
            open: HashMap::new(),
        }
    }

    fn search(&mut self) {
        for path in entries(&self.folder, MAX_DEVICES, |name| name.starts_with("event")) {
            if !self.open.contains_key(&path)
                && self.open.len() < MAX_DEVICES
                && self.has_keys(&path)
                && let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path)
            {
                self.open.insert(path, file);
            }
        }
    }

    /// A lid, a jack or a sensor has none. What does not say has some.
    fn has_keys(&self, device: &Path) -> bool {
        let Some(name) = device.file_name() else { return false };
        let Ok(kinds) = read(&self.classes.join(name).join("device/capabilities/ev")) else { return true };
        u64::from_str_radix(kinds.trim(), 16).map_or(true, |kinds| kinds & EV_KEY != 0)
    }
}

/// Whether something came, or `None` if the device is gone.
fn drain(file: &mut File) -> Option<bool> {
    let mut buffer = [0; READ_BYTES];
    for n_read in 0..MAX_READS {
        match file.read(&mut buffer) {
            Ok(0) => return Some(n_read > 0),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(n_read > 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(true)
}

impl Signal for Devices {
    fn period(&self) -> Duration {
        Duration::ZERO
    }

    fn look(&mut self, now: Duration, seen: &mut Seen) {
        if self.searched.is_none_or(|last| now.saturating_sub(last) >= SEARCH_PERIOD) {
            self.searched = Some(now);
            self.search();
        }
        self.open.retain(|_, file| match drain(file) {
            Some(came) => {
                if came {
                    seen.input(now);
                }
                true
            }
            None => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn events_of_devices_with_keys_count() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("dev/input")).unwrap();
        for (name, kinds) in [("event0", "120013"), ("event1", "21")] {
            let capabilities = root.path().join(format!("sys/class/input/{name}/device/capabilities"));
            fs::create_dir_all(&capabilities).unwrap();
            fs::write(capabilities.join("ev"), format!("{kinds}\n")).unwrap();
            mkfifo(&root.path().join("dev/input").join(name), Mode::from_bits_truncate(0o600)).unwrap();
        }
        let mut devices = Devices::new(root.path());
        let mut look = |seconds| {
            let mut seen = Seen::default();
            devices.look(Duration::from_secs(seconds), &mut seen);
            seen.last_input.map(|last| last.as_secs())
        };
        assert_eq!(look(1), None);
        let open = |name: &str| {
            OpenOptions::new().read(true).write(true).open(root.path().join("dev/input").join(name)).unwrap()
        };
        let (mut keyboard, mut lid) = (open("event0"), open("event1"));
        assert_eq!(look(2), None);
        keyboard.write_all(&[1; 2000]).unwrap();
        assert_eq!(look(3), Some(3));
        assert_eq!(look(4), None, "it was read to its end");
        lid.write_all(&[1; 24]).unwrap();
        assert_eq!(look(5), None);
    }
}
