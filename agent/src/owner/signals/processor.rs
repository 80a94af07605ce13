//! Processor time that other programs use: all that is used, less what the farm uses itself.
//!
//! The farm's own is that of the agent and all processes below it, of which those that have ended count where they were waited for. A
//! process that ends while the others are counted is in neither place and looks like somebody else's for one look. So what counts is the
//! least of the last looks: others have to go on for a moment.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Seen, Signal, read};

/// From one look to the next; shorter ones would count in ticks of the kernel's clock.
const PERIOD: Duration = Duration::from_secs(1);
/// Looks of which the least counts.
const N_LOOKS: usize = 3;
/// Processes that are counted as the farm's own.
const MAX_PROCESSES: usize = 4096;
/// The kernel's clock ticks, as it tells programs on every architecture of ours.
const TICKS_PER_SECOND: u128 = 100;

/// One count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    at: Duration,
    all_ticks: u64,
    own_ticks: u64,
}

/// The kernel's counts.
#[derive(Debug)]
pub struct Processor {
    proc: PathBuf,
    own: u32,
    last: Option<Count>,
    /// In thousandths of a core, at most [`N_LOOKS`].
    looks: VecDeque<u64>,
}

impl Processor {
    /// Those below `root`; the farm's own is process `own` with all below it.
    pub fn new(root: &Path, own: u32) -> Self {
        Self { proc: root.join("proc"), own, last: None, looks: VecDeque::new() }
    }

    fn count(&self, at: Duration) -> Option<Count> {
        let all_ticks = busy_ticks(&read(&self.proc.join("stat")).ok()?)?;
        Some(Count { at, all_ticks, own_ticks: self.own_ticks() })
    }

    fn own_ticks(&self) -> u64 {
        let mut processes = vec![self.own];
        let (mut at, mut ticks) = (0, 0);
        while at < processes.len() && at < MAX_PROCESSES {
            let folder = self.proc.join(processes[at].to_string());
            at += 1;
            let Ok(stat) = read(&folder.join("stat")) else { continue };
            ticks += process_ticks(&stat).unwrap_or(0);
            let Ok(threads) = fs::read_dir(folder.join("task")) else { continue };
            for children in threads.flatten().filter_map(|thread| read(&thread.path().join("children")).ok()) {
                processes.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
        }
        ticks
    }
}

impl Signal for Processor {
    fn period(&self) -> Duration {
        PERIOD
    }

    fn look(&mut self, now: Duration, seen: &mut Seen) {
        let count = self.count(now);
        if let (Some(before), Some(count)) = (self.last, count) {
            if self.looks.len() == N_LOOKS {
                self.looks.pop_front();
            }
            self.looks.push_back(foreign_millicores(before, count));
        }
        self.last = count;
        seen.foreign_millicores = self.looks.iter().min().copied();
    }
}

fn foreign_millicores(before: Count, now: Count) -> u64 {
    let all = now.all_ticks.saturating_sub(before.all_ticks);
    // May be less than before: a process was counted while it ended, or a helper was replaced.
    let own = now.own_ticks.saturating_sub(before.own_ticks);
    let milliseconds = now.at.saturating_sub(before.at).as_millis().max(1);
    let millicores = u128::from(all.saturating_sub(own)) * 1_000_000 / TICKS_PER_SECOND / milliseconds;
    u64::try_from(millicores).unwrap_or(u64::MAX)
}

/// User, nice, system, interrupts; not idle, not waiting for disks, not what another machine on the same host took.
fn busy_ticks(stat: &str) -> Option<u64> {
    let columns = stat.lines().next()?.strip_prefix("cpu ")?;
    let columns: Vec<u64> = columns.split_ascii_whitespace().map_while(|column| column.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().map(|&column| columns.get(column)).sum::<Option<u64>>()
}

/// Its own, and that of its children that it has waited for.
fn process_ticks(stat: &str) -> Option<u64> {
    // The name before may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let columns: Vec<&str> = rest.split_ascii_whitespace().collect();
    (11..15).map(|column| columns.get(column)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn all(&self, ticks: u64) {
            fs::write(self.0.path().join("proc/stat"), format!("cpu  {ticks} 0 0 999 5 0 0 7 0 0\ncpu0 …\n")).unwrap();
        }

        fn process(&self, pid: u32, ticks: u64, children: &str) {
            let folder = self.0.path().join("proc").join(pid.to_string());
            fs::create_dir_all(folder.join(format!("task/{pid}"))).unwrap();
            fs::write(folder.join("stat"), format!("{pid} (a) b) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 39 19\n"))
                .unwrap();
            fs::write(folder.join(format!("task/{pid}/children")), children).unwrap();
        }
    }

    #[test]
    fn the_farms_own_is_not_foreign() {
        let machine = Machine(tempfile::tempdir().unwrap());
        fs::create_dir(machine.0.path().join("proc")).unwrap();
        let mut processor = Processor::new(machine.0.path(), 10);
        let mut look = |seconds| {
            let mut seen = Seen::default();
            processor.look(Duration::from_secs(seconds), &mut seen);
            seen.foreign_millicores
        };
        assert_eq!(look(0), None);
        machine.all(1000);
        machine.process(10, 50, "11 ");
        machine.process(11, 50, "");
        assert_eq!(look(1), None);
        // Two cores are busy, one of them for the farm.
        machine.all(1200);
        machine.process(11, 150, "");
        assert_eq!(look(2), Some(1000));
        // One look that finds a process in neither place changes nothing.
        machine.all(1400);
        machine.process(10, 50, "");
        assert_eq!(look(3), Some(1000));
        machine.process(10, 350, "");
        machine.all(1500);
        assert_eq!(look(4), Some(0));
    }

    #[test]
    fn this_machine_counts() {
        let mut processor = Processor::new(Path::new("/"), std::process::id());
        let own = processor.own_ticks();
        let mut x = 1_u64;
        while processor.own_ticks() < own + 5 {
            for n in 0..100_000_u64 {
                x = x.wrapping_mul(31).wrapping_add(n);
            }
        }
        assert!(x != 0);
        let mut seen = Seen::default();
        processor.look(Duration::from_secs(1), &mut seen);
        processor.look(Duration::from_secs(2), &mut seen);
        assert!(seen.foreign_millicores.is_some());
    }
}
