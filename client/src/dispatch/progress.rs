//! How far toolchains are on their way from here to agents, for whoever waits for a first use. Pure: time comes in as an argument.
//!
//! What counts is what agents take from this client. Several of them take parts from each other, and some have parts already, so that mostly
//! less than all has to leave: what is said to be left is the most that it can be. What agents fetch from agents alone is not seen here.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::ToolchainId;
use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::toolchain::Parts;

/// Who has taken nothing for so long has what it needs, or has given up.
const OVER_AFTER: Duration = Duration::from_secs(3);
/// Toolchains that are watched; the one that was watched for longest goes. As many as are lent.
const MAX_WATCHED: usize = 16;
/// Agents whose part is told apart for each.
const MAX_AGENTS: usize = 256;

/// Of a terminal that does not say how wide it is.
const DEFAULT_COLUMNS: usize = 80;

/// What one agent has taken of one toolchain since it last began.
#[derive(Clone, Copy, Debug)]
struct Taken {
    n_bytes: u64,
    n_files: usize,
    began: Duration,
    last: Duration,
}

#[derive(Debug)]
struct Watched {
    label: String,
    n_files: usize,
    n_bytes: u64,
    contents: HashSet<Digest>,
    taken: BTreeMap<PeerId, Taken>,
    since: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Progress {
    watched: BTreeMap<ToolchainId, Watched>,
}

/// One toolchain on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnItsWay {
    /// What the compiler says it is.
    pub label: String,
    /// Who takes it now.
    pub agents: BTreeSet<PeerId>,
    /// Files that the one that is farthest behind has taken, and all.
    pub n_files: (usize, usize),
    /// The same in bytes.
    pub n_bytes: (u64, u64),
    /// At most, at the speed so far; `None`: that is not known yet.
    pub left: Option<Duration>,
}

impl OnItsWay {
    /// For whoever waits, in `columns` at most.
    pub fn line(&self, columns: Option<usize>, name: impl Fn(&PeerId) -> String) -> String {
        let size = |n_bytes| ByteSize::b(n_bytes).display().iec().to_string();
        let percent = self.n_bytes.0 * 100 / self.n_bytes.1.max(1);
        let agents = match self.agents.iter().next() {
            Some(agent) if self.agents.len() == 1 => name(agent),
            _ => format!("{} agents", self.agents.len()),
        };
        let left = self.left.map_or_else(String::new, |left| format!(", {} s left at most", left.as_secs()));
        let line = format!(
            "buildbee: the compiler goes to {agents}: {percent} %, {} of {}, {} of {} files{left}",
            size(self.n_bytes.0),
            size(self.n_bytes.1),
            self.n_files.0,
            self.n_files.1
        );
        // In the last column the cursor of some terminals is on the next line.
        line.chars().take(columns.unwrap_or(DEFAULT_COLUMNS).saturating_sub(1)).collect()
    }

    /// For `status`, with the agents' names.
    pub fn document(&self, name: impl Fn(&PeerId) -> String) -> Value {
        json!({
            "toolchain": self.label, "agents": self.agents.iter().map(name).collect::<Vec<_>>(),
            "files": self.n_files.0, "files_total": self.n_files.1, "bytes": self.n_bytes.0, "bytes_total": self.n_bytes.1,
            "left_s": self.left.map(|left| left.as_secs()),
        })
    }
}

impl Progress {
    /// `parts` are lent from now on.
    pub fn watch(&mut self, now: Duration, parts: &Parts) {
        if self.watched.contains_key(&parts.id) {
            return;
        }
        let contents: HashSet<Digest> = parts.files.iter().map(|(_, digest)| *digest).collect();
        self.begin(now, parts.id, parts.toolchain.label.clone(), contents);
    }

    fn begin(&mut self, now: Duration, id: ToolchainId, label: String, contents: HashSet<Digest>) {
        while self.watched.len() >= MAX_WATCHED
            && let Some(oldest) = self.watched.iter().min_by_key(|(_, watched)| watched.since).map(|(id, _)| *id)
        {
            self.watched.remove(&oldest);
        }
        let n_bytes = contents.iter().map(|digest| digest.size_bytes).sum();
        let (n_files, taken) = (contents.len(), BTreeMap::new());
        self.watched.insert(id, Watched { label, n_files, n_bytes, contents, taken, since: now });
    }

    /// `agent` has taken `n_bytes` of `digest`, the last of them if `whole`.
    pub fn took(&mut self, now: Duration, agent: PeerId, digest: &Digest, n_bytes: u64, whole: bool) {
        for watched in self.watched.values_mut().filter(|watched| watched.contents.contains(digest)) {
            if watched.taken.len() >= MAX_AGENTS {
                watched.taken.retain(|_, taken| now.saturating_sub(taken.last) < OVER_AFTER);
            }
            let fresh = Taken { n_bytes: 0, n_files: 0, began: now, last: now };
            let taken = watched.taken.entry(agent).or_insert(fresh);
            if now.saturating_sub(taken.last) >= OVER_AFTER {
                // Another time: the store may have lost some of it.
                *taken = fresh;
            }
            taken.n_bytes = (taken.n_bytes + n_bytes).min(watched.n_bytes);
            taken.n_files = (taken.n_files + usize::from(whole)).min(watched.n_files);
            taken.last = now;
        }
    }

    /// Those that somebody takes now.
    pub fn now(&self, now: Duration) -> Vec<OnItsWay> {
        let is_at_it = |taken: &&Taken| now.saturating_sub(taken.last) < OVER_AFTER && !taken.began.is_zero();
        let on_its_way = self.watched.values().filter_map(|watched| {
            let takers = || watched.taken.iter().filter(|(_, taken)| is_at_it(taken));
            let (_, behind) = takers().min_by_key(|(_, taken)| taken.n_bytes)?;
            let took = now.saturating_sub(behind.began);
            let left_bytes = watched.n_bytes - behind.n_bytes;
            let left = (behind.n_bytes > 0 && !took.is_zero())
                .then(|| took.as_millis().saturating_mul(u128::from(left_bytes)) / u128::from(behind.n_bytes))
                .map(|left_ms| Duration::from_millis(u64::try_from(left_ms).unwrap_or(u64::MAX)));
            Some(OnItsWay {
                label: watched.label.clone(),
                agents: takers().map(|(agent, _)| *agent).collect(),
                n_files: (behind.n_files, watched.n_files),
                n_bytes: (behind.n_bytes, watched.n_bytes),
                left,
            })
        });
        on_its_way.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(n: u8) -> Digest {
        Digest { size_bytes: 1000, ..Digest::of(&[n]) }
    }

    fn watching(n_files: u8) -> Progress {
        let mut progress = Progress::default();
        let contents = (0..n_files).map(digest).collect();
        progress.begin(Duration::ZERO, ToolchainId(digest(99)), "gcc".to_owned(), contents);
        progress
    }

    const AGENT: PeerId = PeerId([1; 32]);

    #[test]
    fn what_is_taken_is_shown_until_it_is_over() {
        let mut progress = watching(10);
        let at = Duration::from_millis;
        assert!(progress.now(at(1)).is_empty());
        progress.took(at(1000), AGENT, &digest(0), 1000, true);
        progress.took(at(2000), AGENT, &digest(1), 500, false);
        progress.took(at(2000), AGENT, &digest(50), 1000, true);
        let shown = &progress.now(at(2500))[0];
        assert_eq!((shown.n_files, shown.n_bytes), ((1, 10), (1500, 10_000)));
        assert_eq!(shown.left, Some(at(8500)));
        let line = |columns| shown.line(columns, |_| "desk".to_owned());
        let expected = "buildbee: the compiler goes to desk: 15 %, 1.5 KiB of 9.8 KiB, 1 of 10 files, 8 s left at most";
        assert_eq!((line(Some(200)).as_str(), line(Some(20)).as_str()), (expected, "buildbee: the compi"));
        progress.took(at(2500), PeerId([2; 32]), &digest(0), 100, false);
        let shown = &progress.now(at(2600))[0];
        assert_eq!((shown.n_bytes.0, shown.agents.len()), (100, 2), "the last one counts");
        assert!(progress.now(at(9000)).is_empty());
        progress.took(at(9000), AGENT, &digest(0), 10, false);
        assert_eq!(progress.now(at(9000))[0].n_bytes.0, 10, "it begins anew");
    }

    #[test]
    fn few_are_watched() {
        let mut progress = watching(1);
        for n in 0..40 {
            let contents = HashSet::from([digest(n)]);
            progress.begin(Duration::from_secs(1 + u64::from(n)), ToolchainId(digest(n)), String::new(), contents);
        }
        assert_eq!(progress.watched.len(), MAX_WATCHED);
        assert!(progress.watched.contains_key(&ToolchainId(digest(39))));
    }

    proptest! {
        #[test]
        fn no_more_is_taken_than_there_is(steps in prop::collection::vec((0..3u8, 0..12u8, 0..3000u64, any::<bool>()), 0..60)) {
            let mut progress = watching(10);
            let mut now = Duration::from_secs(1);
            for (agent, file, n_bytes, whole) in steps {
                now += Duration::from_millis(100);
                progress.took(now, PeerId([agent; 32]), &digest(file), n_bytes, whole);
                for shown in progress.now(now) {
                    prop_assert!(shown.n_bytes.0 <= shown.n_bytes.1 && shown.n_files.0 <= shown.n_files.1);
                }
            }
        }
    }
}
