//! Stops all processes of commands where they are, and lets them go on. Called by [`crate::zygote`] alone.
//!
//! A process that called `setsid` has left its group, but not its ancestors: children are found through their parents, and every
//! process inside has the first one as its ancestor. What is forked while others are being stopped, or was woken by one that was not
//! stopped yet, is found by looking again: so the caller does, for as long as it holds.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Looks in a row; each finds what the processes forked that the one before had not stopped yet.
const MAX_LOOKS: usize = 16;
/// Processes of one command that are looked at: more than any limit on processes lets through.
const MAX_PROCESSES: usize = 65_536;

/// Stops `root` and all its descendants. Whether one of them was still running: then it is worth looking again soon.
pub(crate) fn stop(root: Pid) -> bool {
    let mut was_any_running = false;
    for _ in 0..MAX_LOOKS {
        let running: Vec<Pid> = tree(root).into_iter().filter(|pid| is_running(*pid)).collect();
        if running.is_empty() {
            return was_any_running;
        }
        was_any_running = true;
        for pid in running {
            // It may have ended meanwhile; its number is taken again only after its parent, which is stopped, has waited for it.
            let _ = kill(pid, Signal::SIGSTOP);
        }
    }
    was_any_running
}

/// Lets `root` and all its descendants go on.
pub(crate) fn release(root: Pid) {
    for pid in tree(root) {
        let _ = kill(pid, Signal::SIGCONT);
    }
}

fn tree(root: Pid) -> Vec<Pid> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() && found.len() < MAX_PROCESSES {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

/// A child is listed at the thread that forked it.
fn children(parent: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .map(Pid::from_raw)
        .collect()
}

/// Neither stopped nor dead.
fn is_running(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name before it may hold anything, parentheses too.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('T' | 'Z' | 'X'))
}
