//! How long each part of a compile took. Cheap: two reads of a clock and no memory for each part.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

/// A part of a compile, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Recognising the compiler and its parts.
    Toolchain,
    /// What the command line means, and the results that are known for it: the whole of a direct hit.
    Manifest,
    /// Finding what the compile reads.
    Inputs,
    /// Looking for the action's result here and at peers.
    Lookup,
    /// Until an agent or this machine took it, failed attempts included.
    Wait,
    /// The compiler itself, as whoever ran it says.
    Run,
    /// What an attempt took beyond that: sending, fetching, queueing there, receiving.
    Transfer,
    /// Putting outputs in place, and keeping them.
    Place,
}

/// All of them, with their names in documents.
pub const STAGES: [(Stage, &str); 8] = [
    (Stage::Toolchain, "toolchain"),
    (Stage::Manifest, "manifest"),
    (Stage::Inputs, "inputs"),
    (Stage::Lookup, "lookup"),
    (Stage::Wait, "wait"),
    (Stage::Run, "run"),
    (Stage::Transfer, "transfer"),
    (Stage::Place, "place"),
];

/// Times by stage. In documents: an object with the stages that took place, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    microseconds: [u32; STAGES.len()],
}

impl Stages {
    /// How long `stage` took.
    pub fn of(&self, stage: Stage) -> Duration {
        Duration::from_micros(self.microseconds[stage as usize].into())
    }
}

impl Serialize for Stages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (stage, name) in STAGES {
            let microseconds = self.microseconds[stage as usize];
            if microseconds > 0 {
                map.serialize_entry(name, &(f64::from(microseconds) / 1000.0))?;
            }
        }
        map.end()
    }
}

/// Measures one compile.
#[derive(Debug)]
pub struct StageClock {
    started: Instant,
    /// When the last stage ended, in microseconds after the start.
    last: AtomicU32,
    taken: [AtomicU32; STAGES.len()],
}

impl StageClock {
    /// Runs since `started`.
    pub fn since(started: Instant) -> Self {
        Self { started, last: AtomicU32::new(0), taken: Default::default() }
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// `stage` has just ended: it took what passed since the stage before it did.
    pub fn ended(&self, stage: Stage) {
        self.ended_at(stage, microseconds(self.elapsed()));
    }

    fn ended_at(&self, stage: Stage, now: u32) {
        let last = self.last.swap(now, Ordering::Relaxed);
        self.add(stage, now.saturating_sub(last));
    }

    /// An attempt has just ended in which the compiler ran for `running`; the rest of it was transfer.
    pub fn ran(&self, running: Duration) {
        self.ran_at(running, microseconds(self.elapsed()));
    }

    fn ran_at(&self, running: Duration, now: u32) {
        let whole = now.saturating_sub(self.last.swap(now, Ordering::Relaxed));
        let running = microseconds(running).min(whole);
        self.add(Stage::Run, running);
        self.add(Stage::Transfer, whole - running);
    }

    fn add(&self, stage: Stage, microseconds: u32) {
        self.taken[stage as usize].fetch_add(microseconds, Ordering::Relaxed);
    }

    /// So far.
    pub fn stages(&self) -> Stages {
        Stages { microseconds: std::array::from_fn(|at| self.taken[at].load(Ordering::Relaxed)) }
    }
}

/// Those of an hour and more are as good as one.
fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_stages() {
        for (at, (stage, _)) in STAGES.into_iter().enumerate() {
            assert_eq!(stage as usize, at);
        }
    }

    #[test]
    fn stages_add_up() {
        let clock = StageClock::since(Instant::now());
        for (stage, now) in [(Stage::Manifest, 2_000), (Stage::Wait, 7_000), (Stage::Wait, 8_000)] {
            clock.ended_at(stage, now);
        }
        clock.ran_at(Duration::from_millis(20), 38_000);
        clock.ran_at(Duration::from_millis(20), 38_000);
        let stages = clock.stages();
        assert_eq!(stages.of(Stage::Wait), Duration::from_millis(6));
        assert_eq!(stages.of(Stage::Run), Duration::from_millis(20), "no longer than the time that passed");
        let document = serde_json::to_value(stages).unwrap();
        assert_eq!(document, serde_json::json!({"manifest": 2.0, "wait": 6.0, "run": 20.0, "transfer": 10.0}));
    }
}
