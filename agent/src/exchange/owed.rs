//! Results that the peers responsible for them have not said to store: whom to tell of what, and when again. Pure: time, roster and who is
//! there come in as arguments.
//!
//! A result counts as kept once every one of its holders but this agent has said so. Holders are the first agents in the order of
//! [`responsible`](buildbee_proto::responsible) that are there now: whoever is away is stood in for at once, and caught up with when it is back
//! ([`audit`](super::audit)). Until there are enough of them a result stays owed. What does not fit in here is left to the audit as well, and so
//! is everything after a restart: the store is the list that lasts.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::membership::Roster;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::{RESULT_COPIES, first};

/// Results owed at once; the oldest are left to the audit.
pub const MAX_OWED: usize = 8192;
/// Results that are looked at in one round.
const MAX_ROUND: usize = 256;
/// When somebody that was told and has not said that it stores a result is told again; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How often a repair is tried before it is left to the next audit.
const MAX_REPAIR_TRIES: u32 = 4;

#[derive(Debug)]
struct Entry {
    /// Who stores it.
    kept_by: Vec<PeerId>,
    /// Whoever it is known to lack at; `None`: whoever should have it.
    repair: Option<Vec<PeerId>>,
    /// Who was told last, and whether those are all that there should be.
    told: Option<(Vec<PeerId>, bool)>,
    due: Duration,
    pause: Duration,
    n_tries: u32,
}

impl Entry {
    fn new(now: Duration, repair: Option<Vec<PeerId>>) -> Self {
        Self { kept_by: Vec::new(), repair, told: None, due: now, pause: FIRST_PAUSE, n_tries: 0 }
    }

    fn is_settled(&self) -> bool {
        self.told.as_ref().is_some_and(|(told, all)| *all && told.iter().all(|peer| self.kept_by.contains(peer)))
    }
}

/// Who is to be told of which results.
pub type Round = BTreeMap<PeerId, Vec<Digest>>;

/// See the module.
#[derive(Debug)]
pub struct Owed {
    own: PeerId,
    entries: HashMap<Digest, Entry>,
    /// In the order in which they came. Holds some that are settled.
    order: VecDeque<Digest>,
    n_left: u64,
}

impl Owed {
    /// Nothing is owed by `own`.
    pub fn new(own: PeerId) -> Self {
        Self { own, entries: HashMap::new(), order: VecDeque::new(), n_left: 0 }
    }

    /// This agent has a new result.
    pub fn made(&mut self, now: Duration, action: Digest) {
        self.enter(action, Entry::new(now, None));
    }

    /// These peers were found to lack a result that they should hold.
    pub fn repair(&mut self, now: Duration, action: Digest, at: Vec<PeerId>) {
        if !self.entries.contains_key(&action) {
            self.enter(action, Entry::new(now, Some(at)));
        }
    }

    fn enter(&mut self, action: Digest, entry: Entry) {
        if self.entries.insert(action, entry).is_none() {
            self.order.push_back(action);
        }
        while self.entries.len() > MAX_OWED
            && let Some(oldest) = self.order.pop_front()
        {
            self.n_left += u64::from(self.entries.remove(&oldest).is_some());
        }
        if self.order.len() > 2 * MAX_OWED {
            self.order.retain(|action| self.entries.contains_key(action));
        }
    }

    /// Whom to tell now. What comes of it is told to [`kept`](Self::kept); who says nothing is told again.
    pub fn round(&mut self, now: Duration, roster: &Roster, is_here: impl Fn(&PeerId) -> bool) -> Round {
        let n_agents = roster.members.iter().filter(|(peer, _)| roster.has_agent(peer)).count();
        let mut round = Round::new();
        let mut settled = Vec::new();
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.due <= now).take(MAX_ROUND);
        for (action, entry) in due {
            let (told, all) = if let Some(at) = &entry.repair {
                let told: Vec<PeerId> = at.iter().copied().filter(&is_here).collect();
                // Who is away just now, or was late once, may be back for the next try.
                let all = told.len() == at.len();
                (told, all)
            } else {
                let holders = first(action, roster, |peer| *peer == self.own || is_here(peer));
                let all = holders.len() >= RESULT_COPIES.min(n_agents);
                (holders.into_iter().filter(|peer| *peer != self.own).collect::<Vec<_>>(), all)
            };
            for peer in told.iter().filter(|peer| !entry.kept_by.contains(peer)) {
                round.entry(*peer).or_default().push(*action);
            }
            entry.told = Some((told, all));
            entry.due = now + entry.pause;
            entry.pause = (entry.pause * 2).min(MAX_PAUSE);
            entry.n_tries += 1;
            let given_up = entry.repair.is_some() && entry.n_tries > MAX_REPAIR_TRIES && !entry.is_settled();
            self.n_left += u64::from(given_up);
            if given_up || entry.is_settled() {
                settled.push(*action);
            }
        }
        for action in settled {
            self.entries.remove(&action);
        }
        round
    }

    /// `peer` stores the result, or will never. True if nothing more is owed for it.
    pub fn kept(&mut self, action: &Digest, peer: PeerId) -> bool {
        let Some(entry) = self.entries.get_mut(action) else { return false };
        if !entry.kept_by.contains(&peer) {
            entry.kept_by.push(peer);
        }
        let settled = entry.is_settled();
        if settled {
            self.entries.remove(action);
        }
        settled
    }

    /// This agent does not have the result any more.
    pub fn forget(&mut self, action: &Digest) {
        self.entries.remove(action);
    }

    /// Others are there now, or it is the last moment: everybody is told again at once.
    pub fn hurry(&mut self, now: Duration) {
        for entry in self.entries.values_mut() {
            entry.due = entry.due.min(now);
            entry.pause = FIRST_PAUSE;
        }
    }

    /// When the next round is due.
    pub fn next(&self) -> Option<Duration> {
        self.entries.values().map(|entry| entry.due).min()
    }

    /// Results that are owed, repairs left out.
    pub fn n_owed(&self) -> usize {
        self.entries.values().filter(|entry| entry.repair.is_none()).count()
    }

    /// How many were left to the audit since this was last asked.
    pub fn take_left(&mut self) -> u64 {
        std::mem::take(&mut self.n_left)
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::peer::Role;
    use proptest::prelude::*;

    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn roster(n: u8) -> Roster {
        let members = (0..n).map(|n| (peer(n), Role::Agent)).collect();
        Roster { farm: peer(99), version: 1, members, revoked: Vec::new() }
    }

    fn action(n: u8) -> Digest {
        Digest::of(&[n])
    }

    #[derive(Clone, Debug)]
    enum Event {
        Made(u8),
        Came(u8),
        Left(u8),
        /// Time passes, and peers answer as these bits say.
        Round(u16),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..20u8).prop_map(Event::Made),
            (1..6u8).prop_map(Event::Came),
            (1..6u8).prop_map(Event::Left),
            any::<u16>().prop_map(Event::Round),
        ]
    }

    /// Runs one round, in which peer `n` of those told stores what it is told of if bit `n` of `answers` is set.
    fn run(owed: &mut Owed, now: Duration, here: &[PeerId], answers: u16, stores: &mut BTreeMap<Digest, Vec<PeerId>>) {
        let roster = roster(6);
        for (to, actions) in owed.round(now, &roster, |peer| here.contains(peer)) {
            assert!(here.contains(&to) && to != peer(0));
            assert!(actions.len() <= MAX_ROUND);
            for action in actions {
                assert!(!stores.get(&action).is_some_and(|by| by.contains(&to)), "told of what it stores");
                if answers >> to.0[0] & 1 == 1 {
                    stores.entry(action).or_default().push(to);
                    if owed.kept(&action, to) {
                        let mut holders = stores[&action].clone();
                        holders.push(peer(0));
                        let wanted = first(&action, &roster, |peer| here.contains(peer) || *peer == self::peer(0));
                        assert_eq!(wanted.len(), RESULT_COPIES);
                        assert!(wanted.iter().all(|peer| holders.contains(peer)), "settled before all said so");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_owed_is_told_until_all_have_it(events in proptest::collection::vec(event(), 1..60)) {
            let mut owed = Owed::new(peer(0));
            let (mut here, mut made, mut stores) = (Vec::new(), Vec::new(), BTreeMap::new());
            let mut now = Duration::ZERO;
            for event in events {
                match event {
                    Event::Made(n) => {
                        if !made.contains(&n) {
                            made.push(n);
                            owed.made(now, action(n));
                        }
                    }
                    Event::Came(n) => {
                        if !here.contains(&peer(n)) {
                            here.push(peer(n));
                            owed.hurry(now);
                        }
                    }
                    Event::Left(n) => here.retain(|known| *known != peer(n)),
                    Event::Round(answers) => {
                        now += Duration::from_secs(1);
                        run(&mut owed, now, &here, answers, &mut stores);
                    }
                }
            }
            // In the end somebody is there who answers.
            if here.is_empty() {
                here.push(peer(3));
            }
            owed.hurry(now);
            run(&mut owed, now, &here, u16::MAX, &mut stores);
            run(&mut owed, now + MAX_PAUSE, &here, u16::MAX, &mut stores);
            prop_assert_eq!(owed.n_owed(), 0);
            for n in made {
                let n_copies = stores.get(&action(n)).map_or(0, Vec::len) + 1;
                prop_assert!(n_copies >= RESULT_COPIES);
            }
        }
    }

    #[test]
    fn alone_it_owes_until_others_come() {
        let mut owed = Owed::new(peer(0));
        owed.made(Duration::ZERO, action(1));
        let mut now = Duration::ZERO;
        for _ in 0..20 {
            assert!(owed.round(now, &roster(6), |_| false).is_empty());
            let next = owed.next().unwrap();
            assert!((now + FIRST_PAUSE..=now + MAX_PAUSE).contains(&next));
            now = next;
        }
        assert_eq!(owed.n_owed(), 1);
        owed.hurry(now);
        assert_eq!(owed.next(), Some(now));
        let mut farm_of_one = Owed::new(peer(0));
        farm_of_one.made(now, action(1));
        assert!(farm_of_one.round(now, &roster(1), |_| false).is_empty());
        assert_eq!(farm_of_one.n_owed(), 0, "nobody else is enrolled");
    }

    #[test]
    fn it_stays_within_its_bound_and_gives_repairs_up() {
        let mut owed = Owed::new(peer(0));
        for n in 0..MAX_OWED + 100 {
            owed.made(Duration::ZERO, Digest::of(&n.to_le_bytes()));
        }
        assert_eq!((owed.n_owed(), owed.take_left(), owed.take_left()), (MAX_OWED, 100, 0));
        let mut owed = Owed::new(peer(0));
        owed.repair(Duration::ZERO, action(1), vec![peer(2)]);
        let mut n_told = 0;
        while let Some(next) = owed.next() {
            n_told += owed.round(next, &roster(6), |_| true).len();
        }
        assert_eq!((n_told, owed.take_left()), (MAX_REPAIR_TRIES as usize + 1, 1), "left to the audit");
        // Who was late once is not forgotten for it.
        owed.repair(Duration::ZERO, action(1), vec![peer(2)]);
        assert!(owed.round(Duration::ZERO, &roster(6), |_| false).is_empty());
        let next = owed.next().unwrap();
        assert_eq!(owed.round(next, &roster(6), |_| true).len(), 1);
        assert!(owed.kept(&action(1), peer(2)));
        assert_eq!((owed.next(), owed.take_left()), (None, 0));
    }
}
