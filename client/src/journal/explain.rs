//! The documents of `explain --json`: records with what explains them. Made when asked for; reads the cache.

use buildbee_proto::digest::Digest;
use buildbee_proto::manifest::Manifest;
use serde::Serialize;
use serde_json::Value;

use super::difference::{self, Difference, MAX_DIFFERENCES};
use super::history::Earlier;
use super::{Journal, Record, hint};

/// Actions for which a comparison is made; further ones are shown without.
const MAX_COMPARED: usize = 100;

/// One action of the document.
#[derive(Debug)]
pub struct Explanation {
    /// What happened.
    pub record: Record,
    /// What a person can do about the reason.
    pub hint: Option<String>,
    /// For what was not known from its command and files alone: why not.
    pub miss: Option<Miss>,
}

impl Explanation {
    /// The record's keys, and `hint` and `miss` beside them.
    pub fn document(&self) -> Value {
        let mut document = serde_json::to_value(&self.record).unwrap_or_default();
        if let Value::Object(keys) = &mut document {
            keys.insert("hint".to_owned(), self.hint.clone().into());
            keys.insert("miss".to_owned(), serde_json::to_value(&self.miss).unwrap_or_default());
        }
        document
    }
}

/// Why a compile was no direct hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Miss {
    /// What kind of miss.
    pub because: Because,
    /// In what it differs from the nearest compile of the same source before it. At most [`MAX_DIFFERENCES`].
    pub differences: Vec<Difference>,
    /// Further differences.
    pub more: usize,
}

/// Kinds of misses. Names are a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// No compile of this source is remembered.
    FirstTime,
    /// The command, its environment, the compiler or the source's text is another one.
    CommandChanged,
    /// The command is the same, but not what it read.
    InputsChanged,
    /// The command was met before, and no result of it is in the cache: it failed, or was dropped to make room.
    NotKept,
    /// What was before is forgotten.
    Forgotten,
}

/// The last actions that are about `filter`, newest first. `manifest` gives what the cache knows under a key.
pub fn explanations(
    journal: &Journal,
    filter: Option<&str>,
    limit: usize,
    manifest: impl Fn(&Digest) -> Option<Manifest>,
) -> Vec<Explanation> {
    let records = journal.last(filter, limit).into_iter().enumerate();
    let explained = records.map(|(at, record)| {
        let compared = at < MAX_COMPARED && record.inputs.is_some();
        let miss = compared.then(|| miss(journal, &record, &manifest)).flatten();
        Explanation { hint: hint(&record), miss, record }
    });
    explained.collect()
}

/// The one that the reason's sentence ends with, or the one for all cases of the reason.
fn hint(record: &Record) -> Option<String> {
    let own = record.text.split_once("\nhint: ").map(|(_, hint)| hint);
    own.or_else(|| hint::for_reason(record.reason.as_deref()?)).map(str::to_owned)
}

fn miss(journal: &Journal, record: &Record, manifest: impl Fn(&Digest) -> Option<Manifest>) -> Option<Miss> {
    let known = manifest(record.question.as_ref()?).unwrap_or_default();
    if let Some(differences) = inputs(record, &known) {
        let because = if differences.is_empty() { Because::NotKept } else { Because::InputsChanged };
        return Some(Miss::new(because, differences));
    }
    Some(match journal.before(record) {
        _ if journal.asked_before(record) => Miss::new(Because::NotKept, Vec::new()),
        Earlier::Nearest(differences) => Miss::new(Because::CommandChanged, differences),
        Earlier::Nothing => Miss::new(Because::FirstTime, Vec::new()),
        Earlier::Forgotten => Miss::new(Because::Forgotten, Vec::new()),
    })
}

/// In what the files of this compile differ from those of the nearest other one with the same command; `None` where there is none, or
/// this one left no list.
fn inputs(record: &Record, known: &Manifest) -> Option<Vec<Difference>> {
    let action = record.action.as_deref()?;
    let place = known.entries.iter().position(|entry| entry.action.to_string() == action)?;
    // Newest first: what stands behind it is older.
    let others = known.entries.iter().skip(place + 1);
    let now = &known.entries[place].read_set;
    others.map(|other| difference::of_read_sets(&other.read_set, now)).min_by_key(Vec::len)
}

impl Miss {
    fn new(because: Because, mut differences: Vec<Difference>) -> Self {
        let more = differences.len().saturating_sub(MAX_DIFFERENCES);
        differences.truncate(MAX_DIFFERENCES);
        Self { because, differences, more }
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::manifest::ManifestEntry;
    use buildbee_proto::outcome::ReadSet;
    use buildbee_proto::path::RelPath;

    use super::super::difference::Kind;
    use super::super::question::Question;
    use super::super::{InputCounts, Where};
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    /// A miss of the question `key`, which became `action`.
    fn missed(journal: &Journal, key: &str, action: &str, arguments: &[&str]) {
        journal.asked(std::path::Path::new("/p/a.c"), digest(key), Question::with(arguments));
        journal.ended(Record {
            cwd: "/p".into(),
            question: Some(digest(key)),
            action: Some(digest(action).to_string()),
            inputs: Some(InputCounts { files: 1, bytes: 1, absent: 0 }),
            ..Record::of("a.c", "a.o", "gcc")
        });
    }

    fn entry(action: &str, header: &str) -> ManifestEntry {
        let files = vec![(RelPath::try_from("p/a.h").unwrap(), digest(header))];
        ManifestEntry { action: digest(action), read_set: ReadSet { files, ..ReadSet::default() } }
    }

    fn last(journal: &Journal, entries: &[ManifestEntry]) -> Miss {
        let known = Manifest { entries: entries.to_vec() };
        let mut found = explanations(journal, None, 1, |_| Some(known.clone()));
        found.remove(0).miss.unwrap()
    }

    #[test]
    fn every_kind_of_miss_is_told_apart() {
        let journal = Journal::new(0);
        missed(&journal, "q1", "x1", &["-O1"]);
        assert_eq!(last(&journal, &[entry("x1", "one")]).because, Because::FirstTime);
        missed(&journal, "q1", "x2", &["-O1"]);
        let found = last(&journal, &[entry("x2", "two"), entry("x1", "one")]);
        assert_eq!((found.because, found.differences[0].kind), (Because::InputsChanged, Kind::Input));
        assert_eq!(found.differences[0].name, "/p/a.h");
        missed(&journal, "q2", "y1", &["-O2"]);
        let found = last(&journal, &[entry("y1", "two")]);
        assert_eq!((found.because, found.differences.len()), (Because::CommandChanged, 2));
        missed(&journal, "q2", "y1", &["-O2"]);
        assert_eq!(last(&journal, &[]).because, Because::NotKept);
    }

    #[test]
    fn long_lists_are_cut() {
        let many: Vec<String> = (0..MAX_DIFFERENCES + 5).map(|number| format!("-D{number}")).collect();
        let journal = Journal::new(0);
        missed(&journal, "q1", "x", &[]);
        missed(&journal, "q2", "y", &many.iter().map(String::as_str).collect::<Vec<_>>());
        let found = last(&journal, &[]);
        assert_eq!((found.differences.len(), found.more), (MAX_DIFFERENCES, 5));
    }

    #[test]
    fn hits_and_local_runs_are_compared_with_nothing() {
        let journal = Journal::new(0);
        journal.ended(Record { r#where: Where::Cached, ..Record::of("a.c", "a.o", "gcc") });
        journal.ended(Record { reason: Some("link".into()), ..Record::of("a.c", "a.o", "gcc") });
        let found = explanations(&journal, None, 9, |_| None);
        assert!(found.iter().all(|action| action.miss.is_none()));
        assert!(found[0].hint.is_some() && found[1].hint.is_none());
    }
}
