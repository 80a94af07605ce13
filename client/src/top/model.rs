//! What was seen of the daemon's doings: pure, bounded, fed with [`Activity`] documents.

use std::collections::{BTreeMap, VecDeque};

use crate::cli::documents::Status;
use crate::journal::Stats;
use crate::journal::activity::{Action, Activity, Ongoing};
use crate::journal::lanes::Lanes;

/// How long something that ended is kept, in microseconds.
const MEMORY_US: u64 = 300_000_000;
/// Things kept at most; the oldest go.
const MAX_SEEN: usize = 20_000;
/// What "now" means for rates, in microseconds.
const RATE_US: u64 = 5_000_000;
/// What "lately" means for counts, in microseconds.
const LATELY_US: u64 = 60_000_000;
/// Looks at the byte counts that are kept.
const MAX_LOOKS: usize = 64;

/// Name of the rows for this machine's own compilers. No agent's: names of members hold no newline.
pub const HERE: &str = "this machine\n";

/// What stands in a row for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The compiler ran.
    Run,
    /// Inputs or outputs were on their way.
    Transfer,
    /// Not ended yet; which of the two is not known.
    Ongoing,
}

/// A piece of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which row of its group.
    pub lane: usize,
    /// From when.
    pub start_us: u64,
    /// To when.
    pub end_us: u64,
    /// What it was.
    pub kind: Kind,
}

/// How many actions ended where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// From a cache.
    pub cached: u64,
    /// On agents.
    pub remote: u64,
    /// Here.
    pub local: u64,
}

/// Bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// To peers.
    pub sent: u64,
    /// From peers.
    pub received: u64,
}

#[derive(Clone, Debug, Default)]
struct Group {
    lanes: Lanes,
    pieces: VecDeque<Piece>,
}

/// Everything that is shown.
#[derive(Clone, Debug, Default)]
pub struct Model {
    now_us: u64,
    last: u64,
    /// The daemon's status.
    pub status: Status,
    /// Counts since the daemon began, or was told to begin anew.
    pub stats: Stats,
    /// Under way, longest first.
    pub running: Vec<Ongoing>,
    groups: BTreeMap<String, Group>,
    /// When, and where, the last actions ended.
    ended: VecDeque<(u64, Ended)>,
    /// Moments with the bytes moved until then.
    looks: VecDeque<(u64, u64, u64)>,
    /// Why nothing new comes, if so.
    pub trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Cached,
    Remote,
    Local,
}

impl Model {
    /// What to ask for next: the actions after this one.
    pub fn after(&self) -> u64 {
        self.last
    }

    /// The moment that is shown, in microseconds after the daemon began.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Takes in an answer. One of a daemon that began anew replaces everything.
    pub fn take_in(&mut self, activity: Activity) {
        if activity.now_us < self.now_us || activity.last < self.last {
            *self = Self::default();
        }
        self.trouble = None;
        self.now_us = activity.now_us;
        self.last = activity.last;
        for action in &activity.actions {
            self.note(action);
        }
        self.running = activity.running;
        self.running.sort_by_key(|ongoing| (ongoing.since_us, ongoing.id));
        // A document of another version may lack something; what is there is shown.
        self.status = serde_json::from_value(activity.status).unwrap_or_default();
        self.stats = activity.stats;
        self.looks.push_back((self.now_us, self.stats.bytes_sent, self.stats.bytes_received));
        self.forget();
    }

    fn note(&mut self, action: &Action) {
        let ended = match action.r#where.as_str() {
            "cached" => Ended::Cached,
            "remote" => Ended::Remote,
            _ => Ended::Local,
        };
        self.ended.push_back((action.ended_us, ended));
        let name = match (ended, &action.agent) {
            (Ended::Remote, Some(agent)) => agent.as_str(),
            (Ended::Local, _) => HERE,
            _ => return,
        };
        let Some((start_us, end_us)) = action.attempt() else { return };
        let group = self.groups.entry(name.to_owned()).or_default();
        let lane = group.lanes.place(start_us, end_us);
        for (name, start_us, end_us) in action.spans().filter(|(_, from, to)| *from >= start_us && *to <= end_us) {
            let kind = if name == "transfer" { Kind::Transfer } else { Kind::Run };
            group.pieces.push_back(Piece { lane, start_us, end_us, kind });
        }
    }

    fn forget(&mut self) {
        let horizon = self.now_us.saturating_sub(MEMORY_US);
        while self.ended.len() > MAX_SEEN || self.ended.front().is_some_and(|(at, _)| *at < horizon) {
            self.ended.pop_front();
        }
        while self.looks.len() > MAX_LOOKS
            || (self.looks.len() > 1 && self.looks[0].0 < self.now_us.saturating_sub(RATE_US))
        {
            self.looks.pop_front();
        }
        let known: Vec<&str> =
            self.status.farm.iter().flat_map(|farm| &farm.agents).map(|agent| &*agent.name).collect();
        self.groups.retain(|name, group| {
            while group.pieces.len() > MAX_SEEN || group.pieces.front().is_some_and(|piece| piece.end_us < horizon) {
                group.pieces.pop_front();
            }
            name == HERE || known.contains(&name.as_str()) || !group.pieces.is_empty()
        });
    }

    /// How many actions ended where in the last minute.
    pub fn lately(&self) -> Counts {
        let since = self.now_us.saturating_sub(LATELY_US);
        let of = |kind| {
            let recent = self.ended.iter().filter(|(at, ended)| *at >= since && *ended == kind);
            recent.count() as u64
        };
        Counts { cached: of(Ended::Cached), remote: of(Ended::Remote), local: of(Ended::Local) }
    }

    /// How fast bytes move now.
    pub fn rates(&self) -> Rates {
        let (Some(first), Some(last)) = (self.looks.front(), self.looks.back()) else { return Rates::default() };
        let rate = |from: u64, to: u64| {
            let moved = u128::from(to.saturating_sub(from)) * 1_000_000;
            let took = u128::from(last.0.saturating_sub(first.0)).max(1);
            u64::try_from(moved / took).unwrap_or(u64::MAX)
        };
        if first.0 == last.0 {
            return Rates::default();
        }
        Rates { sent: rate(first.1, last.1), received: rate(first.2, last.2) }
    }

    /// Answers from a cache in each of `n_cells` stretches of `cell_us` up to now.
    pub fn hits(&self, n_cells: usize, cell_us: u64) -> Vec<u64> {
        let mut cells = vec![0; n_cells];
        for (at, _) in self.ended.iter().filter(|(_, ended)| *ended == Ended::Cached) {
            let ago = usize::try_from(self.now_us.saturating_sub(*at) / cell_us.max(1)).unwrap_or(usize::MAX);
            if let Some(cell) = n_cells.checked_sub(ago.saturating_add(1)).and_then(|cell| cells.get_mut(cell)) {
                *cell += 1;
            }
        }
        cells
    }

    /// What ran at `place`, an agent's name or [`HERE`], with what is under way there.
    pub fn pieces(&self, place: &str) -> Vec<Piece> {
        let group = self.groups.get(place);
        let mut lanes = group.map(|group| group.lanes.clone()).unwrap_or_default();
        let mut pieces: Vec<Piece> = group.into_iter().flat_map(|group| &group.pieces).copied().collect();
        for ongoing in self.ongoing(place) {
            let (start_us, end_us) = (ongoing.moved_us.min(self.now_us), self.now_us);
            let lane = lanes.place(start_us, end_us.max(start_us + 1));
            pieces.push(Piece { lane, start_us, end_us, kind: Kind::Ongoing });
        }
        pieces
    }

    /// How many of our actions are under way at `place`.
    pub fn n_ongoing(&self, place: &str) -> usize {
        self.ongoing(place).count()
    }

    fn ongoing(&self, place: &str) -> impl Iterator<Item = &Ongoing> {
        let word = if place == HERE { "local" } else { place };
        self.running.iter().filter(move |ongoing| ongoing.r#where == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::activity::tests::action;

    const SECOND: u64 = 1_000_000;

    fn at(now: u64, last: u64, actions: Vec<Action>) -> Activity {
        Activity { now_us: now * SECOND, last, actions, ..Activity::default() }
    }

    #[test]
    fn counts_rates_and_hits_are_of_their_time() {
        let mut model = Model::default();
        let hit = |sequence, start| action(sequence, "cached", None, start * SECOND, &[("manifest", 1_000)]);
        model.take_in(at(10, 2, vec![hit(1, 1), hit(2, 9)]));
        assert_eq!(model.rates(), Rates::default(), "one look is no rate");
        let moved = Stats { bytes_sent: 4_000, bytes_received: 200, ..Stats::default() };
        let local = action(3, "local", None, 10 * SECOND, &[("run", SECOND)]);
        model.take_in(Activity { stats: moved, ..at(12, 3, vec![local]) });
        assert_eq!(model.rates(), Rates { sent: 2_000, received: 100 });
        assert_eq!(model.lately(), Counts { cached: 2, remote: 0, local: 1 });
        assert_eq!(model.hits(4, SECOND), [0, 1, 0, 0], "the older one is out of sight");
        model.take_in(at(65, 3, vec![]));
        assert_eq!(model.lately(), Counts { cached: 1, remote: 0, local: 1 });
    }

    #[test]
    fn attempts_share_rows_and_what_runs_has_its_own() {
        let mut model = Model::default();
        let first = action(1, "remote", Some("desk"), 0, &[("wait", 5), ("transfer", 10), ("run", 20)]);
        let second = action(2, "remote", Some("desk"), 40, &[("transfer", 10), ("run", 20)]);
        let running = Ongoing { id: 7, source: "c.c".into(), r#where: "desk".into(), since_us: 50, moved_us: 60 };
        model.take_in(Activity {
            now_us: 100,
            last: 2,
            actions: vec![first, second],
            running: vec![running],
            ..Activity::default()
        });
        let pieces = model.pieces("desk");
        let piece = |lane, start_us, end_us, kind| Piece { lane, start_us, end_us, kind };
        assert_eq!(
            pieces,
            [
                piece(0, 5, 15, Kind::Transfer),
                piece(0, 15, 35, Kind::Run),
                piece(0, 40, 50, Kind::Transfer),
                piece(0, 50, 70, Kind::Run),
                piece(1, 60, 100, Kind::Ongoing),
            ]
        );
        assert_eq!((model.n_ongoing("desk"), model.n_ongoing(HERE)), (1, 0));
    }

    #[test]
    fn it_forgets_in_time_and_begins_anew_with_the_daemon() {
        let mut model = Model::default();
        let old = action(1, "remote", Some("gone"), 0, &[("run", SECOND)]);
        model.take_in(at(5, 1, vec![old]));
        assert_eq!(model.groups.len(), 1);
        model.take_in(at(900, 1, vec![]));
        assert!(model.groups.is_empty() && model.ended.is_empty());
        model.take_in(at(3, 0, vec![]));
        assert_eq!((model.now_us(), model.after()), (3 * SECOND, 0));
    }
}
