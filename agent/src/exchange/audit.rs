//! When all results of this agent are looked through, and who is asked about which of them. Pure.
//!
//! Each agent asks the holders of what it has whether they have it too, and gives them what they lack: after a restart, when the roster has
//! changed, when somebody is back or gone for good, and now and then. Who is away for a while counts as having what it should, so that lunches
//! and evenings move nothing. Results that were just read are asked about first. The shell is [`repair`](super::repair).

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::membership::Roster;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::first;

/// How long things must have been as they are: who restarts a farm restarts all of it.
const SETTLE: Duration = Duration::from_secs(10);
/// Looks for what was left over are apart by that many times as long: somebody may be unable to take it for hours.
const HURRY_SETTLES: u32 = 30;
/// The longest time between two looks.
const EVERY: Duration = Duration::from_secs(12 * 60 * 60);
/// Results remembered as looked at after they were read, twice over.
const MAX_READ: usize = 4096;

/// What decides who should have what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Version of the roster.
    pub roster_version: u64,
    /// Agents that are there, and the number of each one's stay.
    pub here: Vec<(PeerId, u64)>,
    /// Agents that are gone for good.
    pub gone: Vec<PeerId>,
}

/// When to look.
#[derive(Debug)]
pub struct Schedule {
    settle: Duration,
    picture: Picture,
    due: Duration,
    /// When the last look began.
    begun: Option<Duration>,
}

impl Schedule {
    /// The first look is due as soon as things have settled. They settle faster where agents count as gone sooner.
    pub fn new(now: Duration, gone_after: Duration) -> Self {
        let settle = SETTLE.min(gone_after);
        Self { settle, picture: Picture::default(), due: now + settle, begun: None }
    }

    /// Takes over how things are. Somebody who is away, and not for long, is no reason to look; somebody who is back is one, however short
    /// it was: it may have lost its store meanwhile.
    pub fn observe(&mut self, now: Duration, picture: Picture) {
        let known = &self.picture;
        let is_news = picture.roster_version != known.roster_version
            || picture.gone != known.gone
            || picture.here.iter().any(|stay| !known.here.contains(stay));
        if is_news {
            self.due = now + self.settle;
        }
        self.picture = picture;
    }

    /// There is something to be found that was not told.
    pub fn hurry(&mut self, now: Duration) {
        let soon = self.begun.map_or(Duration::ZERO, |begun| begun + HURRY_SETTLES * self.settle);
        self.due = self.due.min(soon.max(now + self.settle));
    }

    /// Whether to look now. Then the next look is a long way off.
    pub fn begin(&mut self, now: Duration) -> bool {
        let is_due = now >= self.due;
        if is_due {
            self.begun = Some(now);
            self.due = now + EVERY;
        }
        is_due
    }
}

/// Who is asked which of `actions` it has: of the holders of each those that are there, this agent aside.
pub fn questions(
    own: PeerId,
    actions: &[Digest],
    roster: &Roster,
    is_here: impl Fn(&PeerId) -> bool,
    is_gone: impl Fn(&PeerId) -> bool,
) -> BTreeMap<PeerId, Vec<Digest>> {
    let mut asked: BTreeMap<PeerId, Vec<Digest>> = BTreeMap::new();
    for action in actions {
        let holders = first(action, roster, |peer| *peer == own || is_here(peer) || !is_gone(peer));
        for peer in holders.into_iter().filter(|peer| *peer != own && is_here(peer)) {
            asked.entry(peer).or_default().push(*action);
        }
    }
    asked
}

/// Which results were looked at lately because somebody read them.
#[derive(Debug, Default)]
pub struct Read {
    young: HashSet<Digest>,
    old: HashSet<Digest>,
}

impl Read {
    /// Whether `action` should be looked at. It is not asked for again soon.
    pub fn is_new(&mut self, action: Digest) -> bool {
        if self.old.contains(&action) || !self.young.insert(action) {
            return false;
        }
        if self.young.len() >= MAX_READ {
            self.old = std::mem::take(&mut self.young);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::peer::Role;
    use buildbee_proto::responsible::RESULT_COPIES;
    use proptest::prelude::*;

    use super::*;

    const N_PEERS: u8 = 7;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn roster() -> Roster {
        let members = (0..N_PEERS).map(|n| (peer(n), Role::Agent)).collect();
        Roster { farm: peer(99), version: 1, members, revoked: Vec::new() }
    }

    proptest! {
        /// Whatever is held by whom: when everybody who is there has looked once, whatever somebody who is there holds is held by all that should
        /// and are there, and, where nobody is merely away, by as many as there should be.
        #[test]
        fn one_look_repairs_everything(
            held in proptest::collection::vec(proptest::collection::vec(any::<bool>(), usize::from(N_PEERS)), 1..20),
            here in proptest::collection::vec(any::<bool>(), usize::from(N_PEERS)),
            gone in proptest::collection::vec(any::<bool>(), usize::from(N_PEERS)),
        ) {
            let roster = roster();
            let at = |list: &[bool], peer: &PeerId| list[usize::from(peer.0[0])];
            let is_here = |peer: &PeerId| at(&here, peer);
            let is_gone = |peer: &PeerId| at(&gone, peer) && !at(&here, peer);
            let actions: Vec<Digest> = (0..held.len()).map(|n| Digest::of(&n.to_le_bytes())).collect();
            let mut stores: BTreeMap<PeerId, HashSet<Digest>> = BTreeMap::new();
            for (action, by) in actions.iter().zip(&held) {
                for n in (0..N_PEERS).filter(|n| by[usize::from(*n)]) {
                    stores.entry(peer(n)).or_default().insert(*action);
                }
            }
            let before = stores.clone();
            for own in (0..N_PEERS).map(peer).filter(is_here) {
                let mine: Vec<Digest> = before.get(&own).into_iter().flatten().copied().collect();
                for (to, lacking) in questions(own, &mine, &roster, is_here, is_gone) {
                    prop_assert!(to != own && is_here(&to));
                    stores.entry(to).or_default().extend(lacking);
                }
            }
            let holds = |peer: &PeerId, action: &Digest| stores.get(peer).is_some_and(|held| held.contains(action));
            for action in &actions {
                let had: Vec<PeerId> = (0..N_PEERS).map(peer).filter(|peer| is_here(peer) && before.get(peer).is_some_and(|held| held.contains(action))).collect();
                if had.is_empty() {
                    continue;
                }
                let should = first(action, &roster, |peer| !is_gone(peer));
                prop_assert!(should.iter().filter(|peer| is_here(peer)).all(|peer| holds(peer, action)));
                let n_away = should.iter().filter(|peer| !is_here(peer)).count();
                let n_there = (0..N_PEERS).map(peer).filter(|peer| is_here(peer)).count();
                let n_copies = (0..N_PEERS).map(peer).filter(|peer| is_here(peer) && holds(peer, action)).count();
                prop_assert!(n_copies + n_away >= RESULT_COPIES.min(n_there));
            }
        }
    }

    #[test]
    fn lunches_move_nothing() {
        let roster = roster();
        let actions: Vec<Digest> = (0..50u8).map(|n| Digest::of(&[n])).collect();
        let all = questions(peer(0), &actions, &roster, |_| true, |_| false);
        let lunch = questions(peer(0), &actions, &roster, |known| *known != peer(3), |_| false);
        for (asked, of) in &lunch {
            assert_eq!(all.get(asked), Some(of));
        }
        assert_eq!(lunch.len(), all.len() - 1);
        let gone = questions(peer(0), &actions, &roster, |known| *known != peer(3), |known| *known == peer(3));
        assert!(!gone.contains_key(&peer(3)));
        let n_asked = |asked: &BTreeMap<PeerId, Vec<Digest>>| asked.values().map(Vec::len).sum::<usize>();
        assert!(n_asked(&gone) > n_asked(&lunch), "others take its place");
    }

    #[test]
    fn looks_follow_changes_once_they_are_over() {
        let second = Duration::from_secs(1);
        let mut schedule = Schedule::new(Duration::ZERO, Duration::from_secs(3600));
        assert!(!schedule.begin(second));
        assert!(schedule.begin(SETTLE));
        assert!(!schedule.begin(SETTLE + second));
        let picture = |here: &[u8], gone: &[u8]| Picture {
            roster_version: 1,
            here: here.iter().map(|n| (peer(*n), 1)).collect(),
            gone: gone.iter().copied().map(peer).collect(),
        };
        schedule.observe(20 * second, picture(&[1], &[]));
        schedule.observe(25 * second, picture(&[1, 2], &[]));
        assert!(!schedule.begin(34 * second), "they go on coming");
        schedule.observe(34 * second, picture(&[2], &[]));
        assert!(schedule.begin(35 * second), "that somebody leaves for lunch changes nothing");
        schedule.observe(40 * second, picture(&[2], &[1]));
        assert!(!schedule.begin(40 * second) && schedule.begin(50 * second));
        assert!(!schedule.begin(EVERY) && schedule.begin(EVERY + 50 * second));
        schedule.hurry(EVERY + 60 * second);
        assert!(!schedule.begin(EVERY + 340 * second), "somebody may be unable to take it for hours");
        assert!(schedule.begin(EVERY + 350 * second));
        schedule.hurry(EVERY + 5000 * second);
        assert!(!schedule.begin(EVERY + 5000 * second) && schedule.begin(EVERY + 5010 * second));
    }

    #[test]
    fn who_was_away_between_two_looks_around_is_noticed() {
        let second = Duration::from_secs(1);
        let mut schedule = Schedule::new(Duration::ZERO, Duration::from_secs(3600));
        let picture = |stay| Picture { roster_version: 1, here: vec![(peer(1), stay), (peer(2), 1)], gone: vec![] };
        schedule.observe(second, picture(3));
        assert!(schedule.begin(20 * second));
        schedule.observe(30 * second, picture(3));
        assert!(!schedule.begin(100 * second));
        schedule.observe(100 * second, picture(4));
        assert!(schedule.begin(110 * second));
    }

    #[test]
    fn what_was_read_is_looked_at_once_and_forgotten_in_the_end() {
        let mut read = Read::default();
        let digest = |n: usize| Digest::of(&n.to_le_bytes());
        assert!(read.is_new(digest(0)) && !read.is_new(digest(0)));
        assert!((1..2 * MAX_READ).all(|n| read.is_new(digest(n))));
        assert!(read.young.len() < MAX_READ && read.old.len() <= MAX_READ);
        assert!(read.is_new(digest(0)));
    }
}
