//! A process with all below it: which they are, and what they have used of the processor.

use std::fmt;
use std::fs;
use std::time::Duration;

use nix::unistd::Pid;

/// The kernel's clock ticks, as it tells programs.
const TICK: Duration = Duration::from_millis(10);

/// `root` and all its descendants, by whichever thread they were started.
pub fn tree(root: Pid) -> Vec<Pid> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        at += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for list in threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()) {
            found.extend(list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw));
        }
    }
    found
}

/// Processor time of `root` and all its descendants, those that have ended and were waited for too.
pub fn cpu(root: Pid) -> Duration {
    tree(root).into_iter().filter_map(own_cpu).sum()
}

fn own_cpu(pid: Pid) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let columns: Vec<&str> = rest.split_whitespace().collect();
    let ticks: Option<u32> = (11..15).map(|column| columns.get(column)?.parse::<u32>().ok()).sum();
    Some(TICK * ticks?)
}

/// The program that a process runs, as the kernel names it.
pub fn name(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// One process, which another of the same number later is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pid: Pid,
    name: String,
    started: String,
}

impl Known {
    /// The process that has this number now.
    pub fn of(pid: Pid) -> Option<Self> {
        let (state, started) = state(pid)?;
        (state != "Z").then(|| Self { pid, name: name(pid), started })
    }

    /// Whether it is there, and more than an entry that its parent has not looked at.
    pub fn is_there(&self) -> bool {
        state(self.pid).is_some_and(|(state, started)| started == self.started && state != "Z" && state != "X")
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = state(self.pid).map_or_else(String::new, |(state, _)| state);
        write!(f, "{} ({}, {state})", self.pid, self.name)
    }
}

/// State, and time of start since the boot.
fn state(pid: Pid) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let columns: Vec<&str> = rest.split_whitespace().collect();
    Some(((*columns.first()?).to_owned(), (*columns.get(19)?).to_owned()))
}
