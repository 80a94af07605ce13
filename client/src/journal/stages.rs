//! How long each part of a compile took, and in which order. Cheap: two reads of a clock and no memory for each part.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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

/// Parts that are told apart in one compile; what comes later counts as more of the last one.
const MAX_SPANS: usize = 12;

/// One part of a compile. They follow each other without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// What was done.
    pub stage: Stage,
    /// For how long.
    pub microseconds: u32,
}

impl Span {
    /// In one word, which is never 0.
    fn pack(self) -> u64 {
        (self.stage as u64 + 1) << 32 | u64::from(self.microseconds)
    }

    fn unpack(word: u64) -> Option<Self> {
        let at = usize::try_from(word >> 32).ok()?.checked_sub(1)?;
        let microseconds = u32::try_from(word & u64::from(u32::MAX)).ok()?;
        Some(Self { stage: STAGES.get(at)?.0, microseconds })
    }

    /// Its name in documents.
    pub fn name(self) -> &'static str {
        STAGES[self.stage as usize].1
    }
}

/// Measures one compile.
#[derive(Debug)]
pub struct StageClock {
    started: Instant,
    /// When the last stage ended, in microseconds after the start.
    last: AtomicU32,
    taken: [AtomicU32; STAGES.len()],
    /// Packed, in their order; 0 where none is yet.
    spans: [AtomicU64; MAX_SPANS],
}

impl StageClock {
    /// Runs since `started`.
    pub fn since(started: Instant) -> Self {
        Self { started, last: AtomicU32::new(0), taken: Default::default(), spans: Default::default() }
    }

    /// When it began.
    pub fn started(&self) -> Instant {
        self.started
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
        // Which part of the rest came before and which after is not known.
        self.add(Stage::Transfer, whole - running);
        self.add(Stage::Run, running);
    }

    fn add(&self, stage: Stage, microseconds: u32) {
        self.taken[stage as usize].fetch_add(microseconds, Ordering::Relaxed);
        if microseconds == 0 {
            return;
        }
        // Only one of a compile's tasks measures at a time.
        let n_spans = self.spans.iter().take_while(|word| word.load(Ordering::Relaxed) != 0).count();
        let before =
            n_spans.checked_sub(1).and_then(|at| Some((at, Span::unpack(self.spans[at].load(Ordering::Relaxed))?)));
        let (at, span) = match before {
            Some((at, last)) if last.stage == stage || n_spans == MAX_SPANS => {
                (at, Span { microseconds: last.microseconds.saturating_add(microseconds), ..last })
            }
            _ => (n_spans, Span { stage, microseconds }),
        };
        self.spans[at].store(span.pack(), Ordering::Relaxed);
    }

    /// So far, in their order.
    pub fn spans(&self) -> Box<[Span]> {
        self.spans.iter().map_while(|word| Span::unpack(word.load(Ordering::Relaxed))).collect()
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
        let words = |clock: &StageClock| -> Vec<_> {
            clock.spans().iter().map(|span| (span.name(), span.microseconds)).collect()
        };
        assert_eq!(
            words(&clock),
            [("manifest", 2_000), ("wait", 6_000), ("transfer", 10_000), ("run", 20_000)],
            "in their order, those of one kind as one"
        );
        for n in 0..100 {
            clock.ended_at(STAGES[n % STAGES.len()].0, 38_000 + 10 * u32::try_from(n + 1).unwrap());
        }
        let sum: u32 = clock.spans().iter().map(|span| span.microseconds).sum();
        assert_eq!((clock.spans().len(), sum), (MAX_SPANS, 39_000), "bounded, and nothing is lost");
        let document = serde_json::to_value(stages).unwrap();
        assert_eq!(document, serde_json::json!({"manifest": 2.0, "wait": 6.0, "run": 20.0, "transfer": 10.0}));
    }
}
