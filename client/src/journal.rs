//! What became of every action: counts for `stats`, and the last ones in full for `explain`.
//!
//! Owned by the daemon; written once an action, read by the command line. Bounded. What a miss is compared with is found when somebody
//! asks ([`explain`]), from the questions met before ([`history`]) and the read sets in the cache: a compile pays for none of it.

pub mod activity;
pub mod difference;
pub mod explain;
pub mod hint;
pub mod history;
pub mod lanes;
pub mod question;
pub mod stages;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::compiler::places::absolute;
use history::{Earlier, History};
use question::Question;
use stages::{Span, Stages};

/// Actions kept for `explain`.
const MAX_RECORDS: usize = 10_000;
/// Different reasons and agents counted; further ones are counted as `other`.
const MAX_NAMES: usize = 1_000;
/// Runs of `buildbee run` that are counted by themselves; the one that began longest ago makes way.
const MAX_RUNS: usize = 16;

/// Where an action's result came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    /// A cache: the local one or a peer's.
    Cached,
    /// An agent ran it.
    Remote,
    /// The wrapper ran it.
    Local,
}

/// One action, for people.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// When it ended, in seconds since the Unix epoch.
    pub at_unix: u64,
    /// Working directory.
    pub cwd: String,
    /// The source as spelled; empty where the command is no compile.
    pub source: String,
    /// The main output as spelled.
    pub output: String,
    /// The compiler's path.
    pub compiler: String,
    /// Where the result came from.
    pub r#where: Where,
    /// The agent's name, for remote and peer-cached ones.
    pub agent: Option<String>,
    /// Why it was not cached or remote.
    pub reason: Option<String>,
    /// A sentence for people.
    pub text: String,
    /// From the wrapper's call to the answer, in milliseconds.
    pub wall_ms: u64,
    /// How long each part of it took.
    #[serde(rename = "stages_ms")]
    pub stages: Stages,
    /// The action's digest, where it got that far.
    pub action: Option<String>,
    /// Why its result, made now, is of no use in another folder; absent where it is, and where none was made.
    pub directory: Option<String>,
    /// Arguments that were added to the user's.
    pub added_arguments: Vec<String>,
    /// What it reads, where that had to be found: on every miss.
    pub inputs: Option<InputCounts>,
    /// Bytes sent along with the action; what an agent asked for afterwards, it may have asked for others too.
    pub sent_bytes: u64,
    /// Bytes of the result that came from a peer.
    pub received_bytes: u64,
    /// What its compiler took where it ran, for what did not run here: processor time where that is known, else wall time.
    #[serde(skip)]
    pub saved_ms: u64,
    /// When it began, in microseconds after the daemon did.
    #[serde(skip)]
    pub started_us: u64,
    /// When it ended, likewise.
    #[serde(skip)]
    pub ended_us: u64,
    /// Its parts in their order, from its beginning on.
    #[serde(skip)]
    pub spans: Box<[Span]>,
    /// Which `buildbee run` it belongs to.
    #[serde(skip)]
    pub run: Option<Arc<str>>,
    /// What was asked, by its key.
    #[serde(skip)]
    pub question: Option<Digest>,
    /// Its place among all records, given by the journal.
    #[serde(skip)]
    pub sequence: u64,
}

/// How much a compile reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InputCounts {
    /// Different files.
    pub files: usize,
    /// In all.
    pub bytes: u64,
    /// Names that were looked for in vain.
    pub absent: usize,
}

/// A reason to run an action here: its stable code, and a sentence for people.
pub type Why = (String, String);

impl Record {
    /// For an action of which nothing more is known yet.
    pub fn of(source: &str, output: &str, compiler: &str) -> Self {
        Self {
            at_unix: 0,
            cwd: String::new(),
            source: source.to_owned(),
            output: output.to_owned(),
            compiler: compiler.to_owned(),
            r#where: Where::Local,
            agent: None,
            reason: None,
            text: String::new(),
            wall_ms: 0,
            stages: Stages::default(),
            action: None,
            directory: None,
            added_arguments: Vec::new(),
            inputs: None,
            sent_bytes: 0,
            received_bytes: 0,
            saved_ms: 0,
            started_us: 0,
            ended_us: 0,
            spans: Box::default(),
            run: None,
            question: None,
            sequence: 0,
        }
    }

    /// The source's place by its spelling.
    pub fn source_path(&self) -> PathBuf {
        absolute(Path::new(&self.cwd), Path::new(&self.source))
    }

    /// Whether it is about `filter`: the source or the output itself where that is an absolute path, else any part of their names.
    fn is_about(&self, filter: &str) -> bool {
        let names = || [&self.source, &self.output].into_iter().filter(|name| !name.is_empty());
        if filter.starts_with('/') {
            names().any(|name| absolute(Path::new(&self.cwd), Path::new(name)) == Path::new(filter))
        } else {
            names().any(|name| name.contains(filter))
        }
    }
}

/// The contract of `buildbee stats --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Actions answered from a cache.
    pub cached: u64,
    /// Actions that an agent ran.
    pub remote: u64,
    /// Actions that the wrapper ran.
    pub local: u64,
    /// For every action that was not cached or remote, why; and what was raced, confirmed or bounced on the way.
    pub reasons: BTreeMap<String, u64>,
    /// Actions run by each agent.
    pub agents: BTreeMap<String, u64>,
    /// Bytes sent to peers: sources, headers, toolchains.
    pub bytes_sent: u64,
    /// Bytes received from peers: results.
    pub bytes_received: u64,
    /// What the compilers of cached and remote actions took where they ran, in milliseconds.
    pub saved_ms: u64,
    /// Since when, in seconds since the Unix epoch.
    pub since_unix: u64,
}

#[derive(Debug, Default)]
struct Book {
    stats: Stats,
    records: VecDeque<Record>,
    history: History,
    n_records: u64,
    /// Newest last.
    runs: VecDeque<(Arc<str>, Stats)>,
}

impl Book {
    /// The counts of a run, which may be a new one.
    fn run(&mut self, id: &Arc<str>) -> Option<&mut Stats> {
        let at = self.runs.iter().rposition(|(known, _)| known == id).unwrap_or_else(|| {
            if self.runs.len() >= MAX_RUNS {
                self.runs.pop_front();
            }
            self.runs.push_back((Arc::clone(id), Stats::default()));
            self.runs.len() - 1
        });
        self.runs.get_mut(at).map(|(_, stats)| stats)
    }
}

impl Stats {
    fn add(&mut self, record: &Record) {
        match record.r#where {
            Where::Cached => self.cached += 1,
            Where::Remote => self.remote += 1,
            Where::Local => self.local += 1,
        }
        self.saved_ms = self.saved_ms.saturating_add(record.saved_ms);
        if let (Where::Remote, Some(agent)) = (record.r#where, &record.agent) {
            count(&mut self.agents, agent);
        }
        if let Some(reason) = &record.reason {
            count(&mut self.reasons, reason);
        }
    }
}

/// The journal. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Journal {
    book: Arc<Mutex<Book>>,
}

impl Journal {
    /// Empty, counting from `now` (seconds since the Unix epoch).
    pub fn new(now: u64) -> Self {
        let book = Book { stats: Stats { since_unix: now, ..Stats::default() }, ..Book::default() };
        Self { book: Arc::new(Mutex::new(book)) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an action that has ended.
    pub fn ended(&self, record: Record) {
        let mut book = self.book();
        book.stats.add(&record);
        if let Some(stats) = record.run.as_ref().and_then(|run| book.run(run)) {
            stats.add(&record);
        }
        if book.records.len() >= MAX_RECORDS {
            book.records.pop_front();
        }
        book.n_records += 1;
        let sequence = book.n_records;
        book.records.push_back(Record { sequence, ..record });
    }

    /// Counts something that happened on the way, such as an agent that was busy.
    pub fn noted(&self, reason: &str) {
        count(&mut self.book().stats.reasons, reason);
    }

    /// Counts bytes over the network.
    pub fn moved(&self, sent: u64, received: u64) {
        let mut book = self.book();
        book.stats.bytes_sent += sent;
        book.stats.bytes_received += received;
    }

    /// The counts; with `zero`, counting starts anew at `now`.
    pub fn stats(&self, zero: bool, now: u64) -> Stats {
        let mut book = self.book();
        let stats = book.stats.clone();
        if zero {
            book.stats = Stats { since_unix: now, ..Stats::default() };
        }
        stats
    }

    /// The counts of one run; none where it had no action, or was forgotten.
    pub fn run_stats(&self, id: &str) -> Stats {
        let book = self.book();
        book.runs.iter().rfind(|(known, _)| **known == *id).map(|(_, stats)| stats.clone()).unwrap_or_default()
    }

    /// The last actions after the one with the number `after`, at most `limit`, oldest first, each through `see`; and the number of the last.
    pub fn since<T>(&self, after: u64, limit: usize, see: impl Fn(&Record) -> T) -> (Vec<T>, u64) {
        let book = self.book();
        let newer = book.records.iter().rev().take_while(|record| record.sequence > after).count().min(limit);
        let first = book.records.len() - newer;
        (book.records.range(first..).map(see).collect(), book.n_records)
    }

    /// Remembers what was asked about `source` (absolute), under the question's `key`.
    pub fn asked(&self, source: &Path, key: Digest, question: Question) {
        self.book().history.met(source, key, question);
    }

    /// What was asked about the same source before `record` was.
    fn before(&self, record: &Record) -> Earlier {
        let Some(key) = &record.question else { return Earlier::Forgotten };
        self.book().history.before(&record.source_path(), key)
    }

    /// Whether the same question had been asked before `record` was.
    fn asked_before(&self, record: &Record) -> bool {
        let book = self.book();
        let same = |other: &&Record| other.question.is_some() && other.question == record.question;
        book.records.iter().filter(same).any(|other| other.sequence < record.sequence)
    }

    /// The last actions that are about `filter`, newest first: a file where it is an absolute path, else a part of a name.
    pub fn last(&self, filter: Option<&str>, limit: usize) -> Vec<Record> {
        let wanted = |record: &&Record| filter.is_none_or(|filter| record.is_about(filter));
        self.book().records.iter().rev().filter(wanted).take(limit).cloned().collect()
    }
}

fn count(names: &mut BTreeMap<String, u64>, name: &str) {
    let name = if names.len() >= MAX_NAMES && !names.contains_key(name) { "other" } else { name };
    *names.entry(name.to_owned()).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(place: Where, reason: Option<&str>) -> Record {
        Record {
            r#where: place,
            agent: Some("desk".into()),
            reason: reason.map(str::to_owned),
            ..Record::of("a.c", "a.o", "gcc")
        }
    }

    #[test]
    fn each_action_counts_once() {
        let journal = Journal::new(5);
        journal.ended(record(Where::Cached, None));
        journal.ended(record(Where::Remote, None));
        journal.ended(record(Where::Local, Some("link")));
        journal.noted("agent-busy");
        let stats = journal.stats(true, 9);
        assert_eq!((stats.cached, stats.remote, stats.local), (1, 1, 1));
        assert_eq!(stats.reasons, [("agent-busy".into(), 1), ("link".into(), 1)].into());
        assert_eq!(stats.agents, [("desk".into(), 1)].into());
        assert_eq!(journal.stats(false, 9).local, 0);
        assert_eq!(journal.last(Some("a.c"), 2).len(), 2);
        assert!(journal.last(Some("b.c"), 2).is_empty());
    }

    #[test]
    fn runs_are_counted_by_themselves() {
        let journal = Journal::new(0);
        for n in 0..MAX_RUNS + 3 {
            let run: Option<Arc<str>> = Some(n.to_string().into());
            journal.ended(Record { run: run.clone(), saved_ms: 7, ..record(Where::Cached, None) });
            journal.ended(Record { run, ..record(Where::Local, Some("link")) });
        }
        assert_eq!(journal.run_stats("0"), Stats::default(), "forgotten");
        let stats = journal.run_stats("18");
        assert_eq!(
            (stats.cached, stats.local, stats.saved_ms, &stats.reasons),
            (1, 1, 7, &[("link".into(), 1)].into())
        );
        assert_eq!(journal.book().runs.len(), MAX_RUNS);
    }

    #[test]
    fn what_is_new_is_told_once() {
        let journal = Journal::new(0);
        for n in 0..5 {
            journal.ended(Record { wall_ms: n, ..record(Where::Cached, None) });
        }
        let since = |after, limit| journal.since(after, limit, |record| record.wall_ms);
        assert_eq!(since(0, 9), (vec![0, 1, 2, 3, 4], 5));
        assert_eq!(since(3, 9), (vec![3, 4], 5));
        assert_eq!(since(0, 2), (vec![3, 4], 5), "the latest ones");
        assert_eq!(since(5, 9), (vec![], 5));
    }

    #[test]
    fn files_are_found_by_their_place_and_by_parts_of_their_names() {
        let journal = Journal::new(0);
        journal.ended(Record { cwd: "/p/build".into(), ..Record::of("../src/a.c", "a.o", "gcc") });
        let found = |filter| journal.last(Some(filter), 9).len();
        assert_eq!((found("/p/src/a.c"), found("/p/build/a.o"), found("src/a")), (1, 1, 1));
        assert_eq!((found("/src/a.c"), found("/p/build"), found("b.c")), (0, 0, 0));
    }
}
