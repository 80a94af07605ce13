//! Memory that is left, and how much programs wait for it.
//!
//! What programs wait for the processor is not asked: lent work waits for it all the time, by design.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Seen, Signal, read};

const PERIOD: Duration = Duration::from_secs(2);

/// Two files of the kernel.
#[derive(Debug)]
pub struct Memory {
    sizes: PathBuf,
    pressure: PathBuf,
}

impl Memory {
    /// Those below `root`.
    pub fn new(root: &Path) -> Self {
        Self { sizes: root.join("proc/meminfo"), pressure: root.join("proc/pressure/memory") }
    }
}

impl Signal for Memory {
    fn period(&self) -> Duration {
        PERIOD
    }

    fn look(&mut self, _now: Duration, seen: &mut Seen) {
        seen.memory_available_bytes = read(&self.sizes).ok().and_then(|text| available_bytes(&text));
        seen.memory_pressure = read(&self.pressure).ok().and_then(|text| pressure(&text));
    }
}

fn available_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `some avg10=1.25 avg60=…`, in hundredths of a percent.
fn pressure(text: &str) -> Option<u32> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = some.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    let (whole, hundredths) = average.split_once('.')?;
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths.get(..2)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_the_kernel_says() {
        let root = tempfile::tempdir().unwrap();
        let mut memory = Memory::new(root.path());
        let mut seen = Seen::default();
        memory.look(Duration::ZERO, &mut seen);
        assert_eq!((seen.memory_available_bytes, seen.memory_pressure), (None, None));
        fs::create_dir_all(root.path().join("proc/pressure")).unwrap();
        fs::write(root.path().join("proc/meminfo"), "MemTotal: 9 kB\nMemAvailable:    2048 kB\n").unwrap();
        let text = "some avg10=12.34 avg60=0.10 avg300=0.00 total=5\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=1\n";
        fs::write(root.path().join("proc/pressure/memory"), text).unwrap();
        memory.look(Duration::ZERO, &mut seen);
        assert_eq!((seen.memory_available_bytes, seen.memory_pressure), (Some(2 << 20), Some(12_34)));
        for odd in ["", "some", "some avg10=", "some avg10=1", "some avg10=99999999999.00", "some avg10=1.x"] {
            assert_eq!(pressure(odd), None, "{odd}");
        }
    }

    #[test]
    fn this_machine_says_something() {
        let mut seen = Seen::default();
        Memory::new(Path::new("/")).look(Duration::ZERO, &mut seen);
        assert!(seen.memory_available_bytes.is_some_and(|bytes| bytes > 1 << 20));
    }
}
