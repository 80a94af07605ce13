//! Ending a compiler with everything it started: drivers run the real compiler and the assembler as children of their own.
//!
//! The compiler stays in the terminal's foreground process group (Ctrl-C must reach it), so there is no group to kill. Instead this
//! process is made the reaper of its orphans before the compiler starts, and ends children until it has none left.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

/// How long compilers may take to remove their unfinished files before they are killed: milliseconds, but on a machine that has much else to do.
const TIDY_TIME: Duration = Duration::from_secs(1);

/// How long those that a signal ended together with this process are waited for.
const LAST_BREATH: Duration = Duration::from_millis(100);

/// Pause between two looks at whether they are gone.
const PAUSE: Duration = Duration::from_millis(2);

/// After so long without an end they are left to the system: the kernel is stuck, and the build must not be.
const LAST_RESORT: Duration = Duration::from_secs(2);

/// Makes orphaned descendants this process's children. Without it (very old kernels) only direct children are ended.
pub fn adopt_orphans() {
    let _ = set_child_subreaper(true);
}

/// Ends all descendants of this process and waits until they are gone.
///
/// They are asked first: compilers remove their temporary files on `SIGTERM`.
pub fn end_descendants() {
    let start = Instant::now();
    signal_descendants(Signal::SIGTERM);
    while start.elapsed() < LAST_RESORT {
        match reap() {
            Reaped::NoneLeft => return,
            Reaped::SomeRun if start.elapsed() > TIDY_TIME => signal_descendants(Signal::SIGKILL),
            Reaped::SomeRun => {}
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether no descendant is left, or none after a moment.
pub fn are_gone() -> bool {
    let start = Instant::now();
    loop {
        match reap() {
            Reaped::NoneLeft => return true,
            Reaped::SomeRun if start.elapsed() > LAST_BREATH => return false,
            Reaped::SomeRun => std::thread::sleep(PAUSE),
        }
    }
}

enum Reaped {
    NoneLeft,
    SomeRun,
}

fn reap() -> Reaped {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return Reaped::SomeRun,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return Reaped::NoneLeft,
        }
    }
}

/// Sends `signal` to every process below this one. None of their numbers can be another's yet: a child's stays taken until its parent
/// waited for it, and a grandchild whose number was reused at this very moment would have to be another process of this user.
fn signal_descendants(signal: Signal) {
    for pid in descendants(getpid().as_raw()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        if let Some(parent) = std::fs::read(format!("/proc/{pid}/stat")).ok().and_then(|stat| parent_of(&stat)) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        // Removed, so that a table read while processes came and went can't lead in a circle.
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    found
}

/// The fourth field. The second is the program's name, which may hold anything.
fn parent_of(stat: &[u8]) -> Option<i32> {
    let after_name = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
    std::str::from_utf8(after_name).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn names_do_not_confuse() {
        assert_eq!(parent_of(b"12 (a) b) 7 (c) S 34 12 0"), Some(34));
        assert_eq!(parent_of(b"12 (a S 34"), None);
        assert_eq!(parent_of(b""), None);
    }

    #[test]
    fn grandchildren_are_found() {
        let mut child = Command::new("sh").args(["-c", "sleep 600 & wait"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let grandchild = (0..500)
            .find_map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                descendants(pid).first().copied()
            })
            .unwrap();
        assert!(descendants(std::process::id().try_into().unwrap()).contains(&grandchild));
        kill(Pid::from_raw(grandchild), Signal::SIGKILL).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
