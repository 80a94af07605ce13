//! Who used this machine, for what, how much: one line for each action that was run, in two files of bounded size; and what the day's
//! actions have cost so far.
//!
//! Life cycle: [`history_task`] writes what [`History`] is told, in batches, off the paths of actions; what it can't keep up with is
//! left out. Not here: what follows from the day's cost ([`core`](super::core)).

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, ZonedDateTime};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::signals::{Seen, Signal};

/// Lines that wait to be written.
const MAX_WAITING: usize = 1024;
/// Lines written at once.
const MAX_BATCH: usize = 256;
/// A file of this size is put aside, in place of the one before it.
const MAX_FILE_BYTES: u64 = 2 << 20;
/// Characters of a text in a line.
const MAX_TEXT_CHARS: usize = 120;
/// How often the day's cost is looked at.
const PERIOD: Duration = Duration::from_secs(2);

/// One action that ran here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Seconds since 1970 at its end.
    pub at: u64,
    /// The client's name.
    pub client: String,
    /// The client's id.
    pub peer: String,
    /// Program and first output.
    pub what: String,
    /// The action, as logs and results name it. Lines of earlier versions have none.
    #[serde(default)]
    pub action: String,
    /// How it ended; `None` if not by itself.
    pub exit: Option<i32>,
    /// Processor time.
    pub cpu_ms: u64,
    /// Time by the clock.
    pub wall_ms: u64,
}

/// Where runs are told of. Cheap to clone.
#[derive(Clone, Debug)]
pub struct History {
    entries: mpsc::Sender<Entry>,
    today: Arc<Mutex<Today>>,
}

#[derive(Debug, Default)]
struct Today {
    date: Option<Date>,
    cpu: Duration,
}

/// What [`history_task`] writes.
#[derive(Debug)]
pub struct ToWrite(mpsc::Receiver<Entry>);

impl History {
    /// One that knows what `folder` has of today.
    pub fn open(folder: &Path) -> (Self, ToWrite) {
        let (entries, to_write) = mpsc::channel(MAX_WAITING);
        let date = today();
        let of_today = |entry: &Entry| date_of(entry.at) == Some(date);
        let cpu_ms = read(folder).iter().filter(|entry| of_today(entry)).map(|entry| entry.cpu_ms).sum();
        let today = Today { date: Some(date), cpu: Duration::from_millis(cpu_ms) };
        (Self { entries, today: Arc::new(Mutex::new(today)) }, ToWrite(to_write))
    }

    /// Notes one action.
    pub fn note(&self, mut entry: Entry) {
        for text in [&mut entry.client, &mut entry.what] {
            *text = text.chars().filter(|character| !character.is_control()).take(MAX_TEXT_CHARS).collect();
        }
        self.today().add(today(), Duration::from_millis(entry.cpu_ms));
        // A full queue costs a line, never an action.
        drop(self.entries.try_send(entry));
    }

    /// Processor time of today's actions.
    pub fn cpu_today(&self) -> Duration {
        self.today().add(today(), Duration::ZERO)
    }

    // One sum under the lock.
    fn today(&self) -> MutexGuard<'_, Today> {
        self.today.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Today {
    fn add(&mut self, date: Date, cpu: Duration) -> Duration {
        if self.date != Some(date) {
            *self = Self { date: Some(date), cpu: Duration::ZERO };
        }
        self.cpu = self.cpu.saturating_add(cpu);
        self.cpu
    }
}

fn today() -> Date {
    ZonedDateTime::now().date()
}

fn date_of(unix_seconds: u64) -> Option<Date> {
    let at = Timestamp::from_second(i64::try_from(unix_seconds).ok()?).ok()?;
    Some(at.to_zoned_datetime(jiff::tz::TimeZone::system()).date())
}

/// Whether the day's share is used up.
#[derive(Debug)]
pub struct Spent {
    /// What was used.
    pub history: History,
    /// What may be.
    pub most: Duration,
}

impl Signal for Spent {
    fn period(&self) -> Duration {
        PERIOD
    }

    fn look(&mut self, _now: Duration, seen: &mut Seen) {
        seen.spent = self.history.cpu_today() >= self.most;
    }
}

/// Writes to `folder` until nobody is left who could note anything.
pub async fn history_task(mut to_write: ToWrite, folder: PathBuf) {
    let mut batch = Vec::new();
    while to_write.0.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let (entries, folder) = (std::mem::take(&mut batch), folder.clone());
        let written = tokio::task::spawn_blocking(move || append(&folder, &entries)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the history can't be written");
        }
    }
}

fn files(folder: &Path) -> [PathBuf; 2] {
    ["history.1.jsonl", "history.jsonl"].map(|name| folder.join(name))
}

fn append(folder: &Path, entries: &[Entry]) -> io::Result<()> {
    let [old, new] = files(folder);
    if fs::metadata(&new).is_ok_and(|file| file.len() >= MAX_FILE_BYTES) {
        fs::rename(&new, &old)?;
    }
    let mut lines = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut lines, entry)?;
        lines.push(b'\n');
    }
    OpenOptions::new().create(true).append(true).open(&new)?.write_all(&lines)
}

/// All that is kept in `folder`, oldest first. Lines that are none are left out.
pub fn read(folder: &Path) -> Vec<Entry> {
    let text = |file: &PathBuf| {
        let mut text = Vec::new();
        // A batch may have gone over the size.
        let opened = fs::File::open(file).and_then(|file| file.take(2 * MAX_FILE_BYTES).read_to_end(&mut text));
        opened.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    };
    let texts = files(folder).map(|file| text(&file));
    texts.iter().flat_map(|text| text.lines()).filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What one client used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Its name.
    pub client: String,
    /// Actions that ran for it.
    pub n_actions: u64,
    /// Their processor time.
    pub cpu_ms: u64,
    /// Seconds since 1970 at the end of the last one.
    pub last: u64,
}

/// What each client used, the largest first.
pub fn shares(entries: &[Entry]) -> Vec<Share> {
    let mut shares: BTreeMap<&str, Share> = BTreeMap::new();
    for entry in entries {
        let share = shares.entry(&entry.peer).or_default();
        share.client.clone_from(&entry.client);
        share.n_actions += 1;
        share.cpu_ms = share.cpu_ms.saturating_add(entry.cpu_ms);
        share.last = share.last.max(entry.at);
    }
    let mut shares: Vec<Share> = shares.into_values().collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.cpu_ms));
    shares
}

/// A moment as people here write it.
pub fn shown(unix_seconds: u64) -> String {
    let at = i64::try_from(unix_seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.map_or_else(String::new, |at| {
        let at = at.to_zoned_datetime(jiff::tz::TimeZone::system());
        format!("{} {:02}:{:02}", at.date(), at.hour(), at.minute())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(peer: &str, at: u64, cpu_ms: u64) -> Entry {
        let (client, what) = (format!("{peer}'s"), "gcc a\n.o".to_owned());
        let (peer, action) = (peer.to_owned(), "0123456789ab".to_owned());
        Entry { at, client, peer, what, action, exit: Some(0), cpu_ms, wall_ms: 2 * cpu_ms }
    }

    #[tokio::test]
    async fn what_was_noted_is_there_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let now = u64::try_from(Timestamp::now().as_second()).unwrap();
        let (history, to_write) = History::open(folder.path());
        for entry in [entry("alice", now, 1000), entry("bob", now, 500), entry("bob", now, 700)] {
            history.note(entry);
        }
        assert_eq!(history.cpu_today(), Duration::from_millis(2200));
        drop(history);
        history_task(to_write, folder.path().to_owned()).await;
        let (history, _) = History::open(folder.path());
        assert_eq!(history.cpu_today(), Duration::from_millis(2200));
        let entries = read(folder.path());
        assert_eq!((entries.len(), entries[0].what.as_str()), (3, "gcc a.o"));
        let shares = shares(&entries);
        assert_eq!((shares[0].client.as_str(), shares[0].n_actions, shares[0].cpu_ms), ("bob's", 2, 1200));
        let mut seen = Seen::default();
        Spent { history: history.clone(), most: Duration::from_secs(3) }.look(Duration::ZERO, &mut seen);
        assert!(!seen.spent);
        Spent { history, most: Duration::from_secs(2) }.look(Duration::ZERO, &mut seen);
        assert!(seen.spent);
    }

    #[test]
    fn a_day_begins_with_nothing_used() {
        let mut today = Today::default();
        let (monday, tuesday) = (Date::constant(2026, 1, 5), Date::constant(2026, 1, 6));
        today.add(monday, Duration::from_secs(5));
        assert_eq!(today.add(monday, Duration::from_secs(5)), Duration::from_secs(10));
        assert_eq!(today.add(tuesday, Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[test]
    fn files_stay_small_and_odd_lines_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let many: Vec<Entry> = (0..500).map(|n| entry("alice", n, n)).collect();
        for _ in 0..100 {
            append(folder.path(), &many).unwrap();
        }
        for file in files(folder.path()) {
            assert!(fs::metadata(&file).unwrap().len() < MAX_FILE_BYTES + (100 << 10));
        }
        let n_kept = read(folder.path()).len();
        assert!(n_kept > 10_000, "{n_kept}");
        fs::write(folder.path().join("history.jsonl"), b"{}\n\xff\xfe\nnull\n{\"at\":1").unwrap();
        assert!(read(folder.path()).len() < n_kept);
    }
}
