//! Whether the machine runs on battery.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Seen, Signal, entries, read};

const PERIOD: Duration = Duration::from_secs(5);
const MAX_SUPPLIES: usize = 32;

/// The kernel's power supplies.
#[derive(Debug)]
pub struct Power {
    supplies: PathBuf,
}

impl Power {
    /// Those below `root`.
    pub fn new(root: &Path) -> Self {
        Self { supplies: root.join("sys/class/power_supply") }
    }

    /// A battery gives power, and nothing else does. Batteries of mice and headsets are not the machine's.
    fn on_battery(&self) -> bool {
        let mut discharging = false;
        for supply in entries(&self.supplies, MAX_SUPPLIES, |_| true) {
            let says = |name: &str| read(&supply.join(name)).map(|text| text.trim().to_owned()).unwrap_or_default();
            match says("type").as_str() {
                "Battery" if says("scope") != "Device" => discharging |= says("status") == "Discharging",
                "Mains" | "USB" if says("online") == "1" => return false,
                _ => {}
            }
        }
        discharging
    }
}

impl Signal for Power {
    fn period(&self) -> Duration {
        PERIOD
    }

    fn look(&mut self, _now: Duration, seen: &mut Seen) {
        seen.on_battery = self.on_battery();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn laptops_and_desktops() {
        let root = tempfile::tempdir().unwrap();
        let say = |supply: &str, name: &str, text: &str| {
            let folder = root.path().join("sys/class/power_supply").join(supply);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), format!("{text}\n")).unwrap();
        };
        let power = Power::new(root.path());
        assert!(!power.on_battery(), "a desktop has no supplies");
        say("mouse", "type", "Battery");
        say("mouse", "scope", "Device");
        say("mouse", "status", "Discharging");
        assert!(!power.on_battery());
        say("BAT0", "type", "Battery");
        say("BAT0", "status", "Discharging");
        assert!(power.on_battery());
        say("AC", "type", "Mains");
        say("AC", "online", "0");
        assert!(power.on_battery());
        say("AC", "online", "1");
        assert!(!power.on_battery());
    }
}
