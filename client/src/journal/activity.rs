//! What happens, for those who draw it: `buildbee top` and `buildbee trace`. The daemon writes these documents and the command line reads
//! them; unknown keys are skipped and missing ones empty.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stages::{Span, Stage};
use super::{Record, Stats, Where};

/// The answer to one question. Times are in microseconds after the daemon began.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Activity {
    /// The moment of the answer.
    pub now_us: u64,
    /// Number of the last action that ended.
    pub last: u64,
    /// Those that ended, in that order.
    pub actions: Vec<Action>,
    /// Those under way.
    pub running: Vec<Ongoing>,
    /// The counts.
    pub stats: Stats,
    /// The document of `status`.
    pub status: Value,
}

/// An action that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Action {
    /// Its place among all.
    pub sequence: u64,
    /// When it began.
    pub started_us: u64,
    /// When it ended.
    pub ended_us: u64,
    /// As spelled; empty where the command is no compile.
    pub source: String,
    /// As spelled.
    pub output: String,
    /// Working directory.
    pub cwd: String,
    /// `cached`, `remote` or `local`.
    pub r#where: String,
    /// Which one.
    pub agent: Option<String>,
    /// Why it was not cached or remote.
    pub reason: Option<String>,
    /// Its parts in their order from its beginning on, without gaps: name and microseconds.
    pub parts: Vec<(String, u64)>,
    /// With the action.
    pub sent_bytes: u64,
    /// Of the result.
    pub received_bytes: u64,
    /// What its compiler took where it ran.
    pub saved_ms: u64,
    /// Which `buildbee run` it belongs to.
    pub run: Option<String>,
}

/// An action under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ongoing {
    /// Tells it from others.
    pub id: u64,
    /// Its source.
    pub source: String,
    /// On which agent, `local`, or what it waits for.
    pub r#where: String,
    /// Since when it is under way.
    pub since_us: u64,
    /// Since when it is there.
    pub moved_us: u64,
}

impl Action {
    /// As the journal has it.
    pub fn of(record: &Record) -> Self {
        let place = match record.r#where {
            Where::Cached => "cached",
            Where::Remote => "remote",
            Where::Local => "local",
        };
        let part = |span: &Span| (span.name().to_owned(), u64::from(span.microseconds));
        Self {
            sequence: record.sequence,
            started_us: record.started_us,
            ended_us: record.ended_us,
            source: record.source.clone(),
            output: record.output.clone(),
            cwd: record.cwd.clone(),
            r#where: place.to_owned(),
            agent: record.agent.clone(),
            reason: record.reason.clone(),
            parts: record.spans.iter().map(part).collect(),
            sent_bytes: record.sent_bytes,
            received_bytes: record.received_bytes,
            saved_ms: record.saved_ms,
            run: record.run.as_deref().map(str::to_owned),
        }
    }

    /// What to call it.
    pub fn name(&self) -> &str {
        [&self.source, &self.output].into_iter().find(|name| !name.is_empty()).map_or("a command", String::as_str)
    }

    /// Its parts with their beginnings and ends. They end when the action does, at the latest.
    pub fn spans(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let mut at = self.started_us;
        self.parts.iter().map(move |(name, microseconds)| {
            let start = at.min(self.ended_us);
            at = at.saturating_add(*microseconds);
            (name.as_str(), start, at.min(self.ended_us))
        })
    }

    /// From when to when a compiler was at work for it, transfers included; `None` where none was, or nobody told.
    pub fn attempt(&self) -> Option<(u64, u64)> {
        let worked = |name: &str| [Stage::Transfer, Stage::Run].iter().any(|stage| is(*stage, name));
        let mut spans = self.spans().filter(|(name, ..)| worked(name));
        let (_, start, end) = spans.next()?;
        Some((start, spans.last().map_or(end, |(_, _, end)| end)))
    }
}

fn is(stage: Stage, name: &str) -> bool {
    Span { stage, microseconds: 0 }.name() == name
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An action of which only place and times are known.
    pub(crate) fn action(sequence: u64, place: &str, agent: Option<&str>, start: u64, parts: &[(&str, u64)]) -> Action {
        let parts: Vec<(String, u64)> = parts.iter().map(|(name, us)| ((*name).to_owned(), *us)).collect();
        let whole: u64 = parts.iter().map(|(_, us)| us).sum();
        Action {
            sequence,
            started_us: start,
            ended_us: start + whole,
            source: format!("src/{sequence}.c"),
            r#where: place.to_owned(),
            agent: agent.map(str::to_owned),
            parts,
            ..Action::default()
        }
    }

    #[test]
    fn parts_follow_each_other() {
        let action =
            action(1, "remote", Some("desk"), 100, &[("wait", 5), ("transfer", 10), ("run", 20), ("place", 1)]);
        let spans: Vec<_> = action.spans().collect();
        assert_eq!(spans, [("wait", 100, 105), ("transfer", 105, 115), ("run", 115, 135), ("place", 135, 136)]);
        assert_eq!(action.attempt(), Some((105, 135)));
        let cut = Action { ended_us: 120, ..action };
        assert_eq!(cut.spans().last(), Some(("place", 120, 120)), "never after the end");
        assert_eq!(Action::default().attempt(), None);
    }

    #[test]
    fn an_answer_of_another_version_can_be_read() {
        let read: Activity =
            serde_json::from_str(r#"{"now_us": 5, "news": [], "actions": [{"source": "a.c"}]}"#).unwrap();
        assert_eq!((read.now_us, read.actions[0].name()), (5, "a.c"));
    }
}
