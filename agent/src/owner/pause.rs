//! What a person says to a running agent, and asks of it, by files in its state folder: they need no agent that listens, and outlive it.
//!
//! The pause is one number, the end in seconds since 1970. The agent writes how it stands whenever that changes.

use std::fs;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use buildbee_p2p::private_file;
use serde::{Deserialize, Serialize};

/// Largest such file.
const MAX_FILE_BYTES: u64 = 4096;
/// The longest pause ends a thousand years after 1970, so that no sum of times overflows.
const MAX_PAUSE: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// How an agent stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's process.
    pub pid: u32,
    /// When it lends.
    pub mode: String,
    /// Slots that it lends now.
    pub lent: usize,
    /// Slots that it has.
    pub slots: usize,
    /// What becomes of work that runs: "lend", "hold", "hand back".
    pub phase: String,
    /// Why.
    pub why: String,
    /// Seconds since 1970 at which that began.
    pub since: u64,
}

/// When the pause ends that `file` speaks of.
pub fn until(file: &Path) -> Option<SystemTime> {
    let seconds = Duration::from_secs(read(file).ok()?.trim().parse().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(seconds.min(MAX_PAUSE))
}

/// Pauses until `end`, or the next full second.
pub fn begin(file: &Path, end: SystemTime) -> io::Result<()> {
    let end = unix_seconds(end + Duration::from_secs(1) - Duration::from_nanos(1));
    private_file::replace(file, format!("{end}\n").as_bytes())
}

/// Ends the pause, if there is one.
pub fn end(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The end of a pause of `length` that begins at `now`; without a length, of one that somebody has to end.
pub fn end_of(now: SystemTime, length: Option<Duration>) -> SystemTime {
    let farthest = SystemTime::UNIX_EPOCH + MAX_PAUSE;
    length.and_then(|length| now.checked_add(length)).map_or(farthest, |end| end.min(farthest))
}

/// Whether a pause that ends then was meant to last until somebody ends it.
pub fn is_endless(end: SystemTime) -> bool {
    end >= SystemTime::UNIX_EPOCH + MAX_PAUSE
}

impl Status {
    /// Writes it down for [`Status::read`].
    pub fn write(&self, file: &Path) -> io::Result<()> {
        // Not for the next start, so nothing waits for the disk.
        let fresh = file.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(&fresh, file)
    }

    /// What the agent wrote last; `None` if it is no longer there.
    pub fn read(file: &Path) -> io::Result<Option<Self>> {
        let text = match read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let status: Self = serde_json::from_str(&text)?;
        let name = fs::read_to_string(format!("/proc/{}/comm", status.pid)).unwrap_or_default();
        Ok(name.starts_with("buildbee-agent").then_some(status))
    }
}

/// Seconds since 1970.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(file)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_begin_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pause");
        assert_eq!(until(&file), None);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        begin(&file, end_of(now, Some(Duration::from_secs(7200)))).unwrap();
        assert_eq!(until(&file), Some(now + Duration::from_secs(7200)));
        for length in [None, Some(Duration::MAX)] {
            begin(&file, end_of(now, length)).unwrap();
            assert!(until(&file).is_some_and(is_endless));
        }
        end(&file).unwrap();
        end(&file).unwrap();
        assert_eq!(until(&file), None);
        fs::write(&file, u64::MAX.to_string()).unwrap();
        assert!(until(&file).is_some_and(is_endless));
    }

    #[test]
    fn the_status_of_an_agent_that_is_gone_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("status");
        assert_eq!(Status::read(&file).unwrap(), None);
        let text = |text: &str| text.to_owned();
        let status = Status {
            pid: std::process::id(),
            mode: text("idle"),
            lent: 1,
            slots: 2,
            phase: text("lend"),
            why: text("nothing is in the way"),
            since: 3,
        };
        status.write(&file).unwrap();
        // This process is none.
        assert_eq!(
            Status::read(&file).unwrap().is_some(),
            fs::read_to_string("/proc/self/comm").unwrap().starts_with("buildbee-agent")
        );
        fs::write(&file, "{").unwrap();
        assert!(Status::read(&file).is_err());
    }
}
