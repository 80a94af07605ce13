//! `buildbee trace`: actions of the journal in the trace-event format that Perfetto and Chrome read. Pure.
//!
//! | process | one row for each | what is on it |
//! |---|---|---|
//! | the build | compile under way at a time | compiles, and within them their parts |
//! | an agent | slot that was used at a time | attempts, and within them transfers and the compiler's run |
//! | compilers here | compiler that ran here at a time | what ran here, where its wrapper told how long |
//!
//! What an attempt took beyond the compiler's run stands before it, since nobody tells which part came after. On one row, things follow each
//! other or are within each other.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::journal::activity::Action;
use crate::journal::lanes::Lanes;

/// A pause that parts two builds, in microseconds.
const PAUSE_US: u64 = 30_000_000;
/// The row of compiles.
const BUILD: u32 = 1;
/// The rows of compilers on this machine.
const HERE: u32 = 2;
/// The first agent's.
const FIRST_AGENT: u32 = 3;

/// One line of the file. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Event {
    name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    cat: String,
    /// `X`: something with a beginning and an end; `M`: a name for a row.
    ph: &'static str,
    pid: u32,
    tid: usize,
    ts: u64,
    dur: u64,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: Value,
}

/// The actions of the last build among `actions`, which are in the order of their ends: those of the last `buildbee run`, or all up to a pause.
pub fn last_build(actions: &[Action]) -> Vec<&Action> {
    let Some(last) = actions.last() else { return Vec::new() };
    if last.run.is_some() {
        return actions.iter().filter(|action| action.run == last.run).collect();
    }
    let mut begun = last.started_us;
    let mut of_it: Vec<&Action> = Vec::new();
    for action in actions.iter().rev() {
        if begun > action.ended_us.saturating_add(PAUSE_US) {
            break;
        }
        begun = begun.min(action.started_us);
        of_it.push(action);
    }
    of_it.reverse();
    of_it
}

/// The file's content.
pub fn document(actions: &[&Action]) -> Value {
    let mut rows = Rows::default();
    let mut ordered = actions.to_vec();
    ordered.sort_by_key(|action| (action.started_us, action.sequence));
    for action in &ordered {
        rows.compile(action);
    }
    // Attempts are placed in the order of their own beginnings.
    let mut attempts: Vec<(u64, u64, &Action)> =
        ordered.iter().filter_map(|action| action.attempt().map(|(start, end)| (start, end, *action))).collect();
    attempts.retain(|(start, end, _)| start < end);
    attempts.sort_by_key(|(start, end, action)| (*start, *end, action.sequence));
    for (start, end, action) in attempts {
        rows.attempt(start, end, action);
    }
    json!({
        "traceEvents": rows.events(), "displayTimeUnit": "ms",
        "otherData": { "program": "buildbee", "version": env!("CARGO_PKG_VERSION") },
    })
}

#[derive(Debug, Default)]
struct Rows {
    events: Vec<Event>,
    lanes: BTreeMap<u32, Lanes>,
    agents: BTreeMap<String, u32>,
}

impl Rows {
    fn compile(&mut self, action: &Action) {
        // What has no length would be within whatever begins with it.
        let (start, end) = (action.started_us, action.ended_us.max(action.started_us + 1));
        let row = self.lanes.entry(BUILD).or_default().place(start, end);
        let args = json!({
            "source": action.source, "output": action.output, "folder": action.cwd, "where": action.r#where,
            "agent": action.agent, "reason": action.reason, "sent_bytes": action.sent_bytes,
            "received_bytes": action.received_bytes, "compiler_ms": action.saved_ms,
        });
        self.push(&short(action.name()), &action.r#where, (BUILD, row), (start, end), args);
        for (name, start, end) in action.spans().filter(|(_, start, end)| start < end) {
            self.push(name, "part", (BUILD, row), (start, end), Value::Null);
        }
    }

    fn attempt(&mut self, start: u64, end: u64, action: &Action) {
        let process = match (&action.agent, action.r#where.as_str()) {
            (Some(agent), "remote") => {
                let next = FIRST_AGENT + u32::try_from(self.agents.len()).unwrap_or(u32::MAX - FIRST_AGENT);
                *self.agents.entry(agent.clone()).or_insert(next)
            }
            _ => HERE,
        };
        let row = self.lanes.entry(process).or_default().place(start, end);
        let args = json!({ "source": action.source, "reason": action.reason });
        self.push(&short(action.name()), &action.r#where, (process, row), (start, end), args);
        for (name, from, to) in action.spans().filter(|(_, from, to)| from < to && *from >= start && *to <= end) {
            self.push(name, "part", (process, row), (from, to), Value::Null);
        }
    }

    fn push(&mut self, name: &str, cat: &str, (pid, tid): (u32, usize), (start, end): (u64, u64), args: Value) {
        let (name, cat) = (name.to_owned(), cat.to_owned());
        self.events.push(Event { name, cat, ph: "X", pid, tid, ts: start, dur: end.saturating_sub(start), args });
    }

    /// All of them, names of rows first.
    fn events(self) -> Vec<Event> {
        let names = [("the build".to_owned(), BUILD), ("compilers here".to_owned(), HERE)];
        let agents = self.agents.iter().map(|(name, process)| (format!("agent {name}"), *process));
        let mut named = Vec::new();
        let label = |what: &str, pid, tid, args| Event {
            name: what.to_owned(),
            cat: String::new(),
            ph: "M",
            pid,
            tid,
            ts: 0,
            dur: 0,
            args,
        };
        for (name, process) in names.into_iter().chain(agents) {
            let Some(lanes) = self.lanes.get(&process) else { continue };
            named.push(label("process_name", process, 0, json!({ "name": name })));
            named.push(label("process_sort_index", process, 0, json!({ "sort_index": process })));
            let what = if process == BUILD { "compile" } else { "slot" };
            for row in 0..lanes.len() {
                let name = format!("{what} {}", row + 1);
                named.push(label("thread_name", process, row, json!({ "name": name })));
            }
        }
        named.extend(self.events);
        named
    }
}

/// A file's own name.
fn short(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::activity::tests::action;

    /// Things on one row: each is within another or apart from it.
    fn assert_rows_hold(document: &Value) {
        let text = document.to_string();
        let parsed: Value = serde_json::from_str(&text).unwrap();
        let mut rows: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
        for event in parsed["traceEvents"].as_array().unwrap() {
            let number = |key: &str| event[key].as_u64().unwrap();
            assert!(event["name"].is_string());
            if event["ph"] == "X" {
                let span = (number("ts"), number("ts") + number("dur"));
                rows.entry((number("pid"), number("tid"))).or_default().push(span);
            }
        }
        for (row, mut spans) in rows {
            spans.sort_by_key(|(start, end)| (*start, std::cmp::Reverse(*end)));
            let mut open: Vec<(u64, u64)> = Vec::new();
            for span in spans {
                while open.last().is_some_and(|outer| outer.1 <= span.0) {
                    open.pop();
                }
                assert!(open.last().is_none_or(|outer| span.1 <= outer.1), "{row:?}: {span:?} leaves {open:?}");
                open.push(span);
                assert!(open.len() <= 2, "{row:?}: two compiles at a time");
            }
        }
    }

    #[test]
    fn a_build_becomes_rows() {
        let actions = [
            action(1, "cached", None, 0, &[("manifest", 300)]),
            action(
                2,
                "remote",
                Some("desk"),
                100,
                &[("inputs", 1_000), ("wait", 50), ("transfer", 400), ("run", 9_000), ("place", 30)],
            ),
            action(3, "remote", Some("desk"), 200, &[("wait", 100), ("transfer", 400), ("run", 2_000)]),
            action(4, "local", None, 250, &[("wait", 10), ("run", 3_000)]),
        ];
        let all: Vec<&Action> = actions.iter().collect();
        let document = document(&all);
        assert_rows_hold(&document);
        let events: Vec<String> = document["traceEvents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                let of = |key: &str| &event[key];
                let name = event["args"]["name"].as_str().or(of("name").as_str()).unwrap();
                format!("{} {}.{} {}+{} {name}", of("ph").as_str().unwrap(), of("pid"), of("tid"), of("ts"), of("dur"))
            })
            .collect();
        insta::assert_snapshot!(events.join("\n"));
    }

    #[test]
    fn the_last_build_ends_at_a_pause_or_with_its_run() {
        let second = 1_000_000;
        let build = |sequence, start| action(sequence, "cached", None, start * second, &[("manifest", second)]);
        let mut actions = vec![build(1, 0), build(2, 10), build(3, 100), build(4, 125), build(5, 126)];
        let numbers = |actions: &[Action]| last_build(actions).iter().map(|action| action.sequence).collect::<Vec<_>>();
        assert_eq!(numbers(&actions), [3, 4, 5]);
        // One that took long bridges the pause.
        actions.push(action(6, "local", None, 5 * second, &[("run", 200 * second)]));
        assert_eq!(numbers(&actions), [1, 2, 3, 4, 5, 6]);
        actions[0].run = Some("b".into());
        actions[5].run = Some("b".into());
        assert_eq!(numbers(&actions), [1, 6]);
        assert!(last_build(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_happened_fits_on_rows(
            seen in proptest::collection::vec((0_u8..4, 0_u64..5_000, proptest::collection::vec((0_usize..5, 0_u64..900), 0..6), 0_u64..4_000), 0..40)
        ) {
            const PARTS: [&str; 5] = ["manifest", "wait", "transfer", "run", "place"];
            let actions: Vec<Action> = (0..).zip(seen).map(|(sequence, (place, start, parts, whole))| {
                let parts: Vec<(&str, u64)> = parts.into_iter().map(|(at, us)| (PARTS[at], us)).collect();
                let (place, agent) = [("cached", None), ("local", None), ("remote", Some("a")), ("remote", Some("b"))][usize::from(place)];
                // The end need not be where the parts end.
                Action { ended_us: start + whole, ..action(sequence, place, agent, start, &parts) }
            }).collect();
            assert_rows_hold(&document(&actions.iter().collect::<Vec<_>>()));
        }
    }
}
