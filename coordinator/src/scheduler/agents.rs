//! All agents that call, each at a place of its own, with what is looked up often kept beside them: who has open slots, who was heard of
//! when, who is near whom.
//!
//! Pure bookkeeping. Each change goes through here, so that the indexes agree with the agents (`Agents::is_sound` says so in tests). Which
//! slots are dealt is told to it by the core; what that means is decided there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use buildbee_proto::control::{AgentInfo, Offer};
use buildbee_proto::lease::SlotToken;
use buildbee_proto::limits::MAX_TOOLCHAINS_PER_AGENT;
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::ToolchainId;

use super::listing::{Revision, Told};
use super::matching::{Candidate, OpenAgents, Place, Rank, n_missing};

/// One slot. The agent is known where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) boot_id: u64,
    pub(super) counter: u64,
    pub(super) busy: bool,
    pub(super) dealt: bool,
    /// Who lost it by leaving: if that client comes back before anybody else got it, it may go on.
    pub(super) left_by: Option<PeerId>,
}

impl Slot {
    /// A slot that nobody holds.
    pub(super) fn new(token: &SlotToken, busy: bool) -> Self {
        Self { boot_id: token.boot_id, counter: token.counter, busy, dealt: false, left_by: None }
    }

    pub(super) fn key(&self) -> (u64, u64) {
        (self.boot_id, self.counter)
    }

    fn is_open(&self) -> bool {
        !self.busy && !self.dealt
    }
}

/// One agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) peer: PeerId,
    pub(super) offer: Offer,
    /// Sorted by boot id and counter.
    slots: Vec<Slot>,
    n_open: usize,
    pub(super) last_call: Duration,
    rank: Option<Rank>,
    /// What it was told of others.
    pub(super) told: Told,
}

impl Agent {
    /// Its slots with their tokens, in the order in which they were minted.
    pub(super) fn slots(&self) -> impl Iterator<Item = (SlotToken, &Slot)> {
        let token = |slot: &Slot| SlotToken { agent: self.peer, boot_id: slot.boot_id, counter: slot.counter };
        self.slots.iter().map(move |slot| (token(slot), slot))
    }

    pub(super) fn slot(&self, token: &SlotToken) -> Option<&Slot> {
        self.slots.binary_search_by_key(&(token.boot_id, token.counter), Slot::key).ok().map(|at| &self.slots[at])
    }

    pub(super) fn n_slots(&self) -> usize {
        self.slots.len()
    }

    fn info(&self) -> AgentInfo {
        let mut offer = self.offer.clone();
        offer.toolchains.truncate(MAX_TOOLCHAINS_PER_AGENT);
        AgentInfo { peer: self.peer, offer, n_slots: u32::try_from(self.slots.len()).unwrap_or(u32::MAX) }
    }
}

/// All agents.
#[derive(Debug, Default)]
pub(super) struct Agents {
    places: Vec<Option<Agent>>,
    revisions: Vec<Revision>,
    free: Vec<Place>,
    by_peer: BTreeMap<PeerId, Place>,
    by_last_call: BTreeSet<(Duration, Place)>,
    open: OpenAgents,
    n_slots: usize,
    n_open: usize,
}

impl Agents {
    pub(super) fn len(&self) -> usize {
        self.by_peer.len()
    }

    /// Slots of all agents.
    pub(super) fn n_slots(&self) -> usize {
        self.n_slots
    }

    /// Those that can be dealt: nobody holds them and nothing runs in them.
    pub(super) fn n_open(&self) -> usize {
        self.n_open
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.by_peer.contains_key(peer)
    }

    /// All of them, in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Agent> {
        self.by_peer.values().filter_map(|place| self.at(*place))
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&Agent> {
        self.at(*self.by_peer.get(peer)?)
    }

    pub(super) fn place(&self, peer: &PeerId) -> Option<Place> {
        self.by_peer.get(peer).copied()
    }

    fn at(&self, place: Place) -> Option<&Agent> {
        self.places.get(place as usize)?.as_ref()
    }

    fn at_mut(&mut self, place: Place) -> Option<&mut Agent> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn info(&self, place: Place) -> Option<AgentInfo> {
        self.at(place).map(Agent::info)
    }

    pub(super) fn revision(&self, place: Place) -> Option<Revision> {
        self.at(place)?;
        self.revisions.get(place as usize).copied()
    }

    pub(super) fn slot(&self, token: &SlotToken) -> Option<&Slot> {
        self.get(&token.agent)?.slot(token)
    }

    /// What an agent says of itself, at `now`. Its slots are sorted here; of two that share a token the later counts. Agents that are new
    /// get a place.
    pub(super) fn put(&mut self, now: Duration, peer: PeerId, offer: Offer, mut slots: Vec<Slot>) {
        slots.reverse();
        slots.sort_by_key(Slot::key);
        slots.dedup_by_key(|slot| slot.key());
        let place = self.place(&peer).unwrap_or_else(|| self.take_place(now, peer));
        self.unlist(place);
        let Some(agent) = self.at_mut(place) else { return };
        let before = std::mem::replace(&mut agent.last_call, now);
        let n_slots_before = agent.slots.len();
        let is_news = n_slots_before != slots.len() || differs(&agent.offer, &offer);
        let Offer { load_percent, memory_free_bytes, .. } = offer;
        if is_news {
            agent.offer = offer;
        } else {
            // Its texts and lists stay where they are.
            (agent.offer.load_percent, agent.offer.memory_free_bytes) = (load_percent, memory_free_bytes);
        }
        let n_slots = slots.len();
        if n_slots == n_slots_before {
            agent.slots.copy_from_slice(&slots);
        } else {
            agent.slots = slots;
        }
        self.n_slots = self.n_slots + n_slots - n_slots_before;
        self.by_last_call.remove(&(before, place));
        self.by_last_call.insert((now, place));
        if is_news {
            self.revisions[place as usize] = self.revisions[place as usize].wrapping_add(1);
        }
        self.list(place);
    }

    fn take_place(&mut self, now: Duration, peer: PeerId) -> Place {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.revisions.push(0);
            Place::try_from(self.places.len() - 1).unwrap_or(Place::MAX)
        });
        self.places[place as usize] = Some(Agent {
            peer,
            offer: Offer::default(),
            slots: Vec::new(),
            n_open: 0,
            last_call: now,
            rank: None,
            told: Told::default(),
        });
        self.revisions[place as usize] = self.revisions[place as usize].wrapping_add(1);
        self.by_peer.insert(peer, place);
        place
    }

    /// Forgets an agent. Whether it was there.
    pub(super) fn remove(&mut self, peer: &PeerId) -> bool {
        let Some(place) = self.by_peer.remove(peer) else { return false };
        self.unlist(place);
        if let Some(agent) = self.places[place as usize].take() {
            self.by_last_call.remove(&(agent.last_call, place));
            self.n_slots -= agent.slots.len();
        }
        self.free.push(place);
        true
    }

    /// Whoever was last heard of at `before` or earlier.
    pub(super) fn silent_since(&self, before: Duration) -> Option<PeerId> {
        let (last_call, place) = self.by_last_call.first()?;
        (*last_call <= before).then(|| self.at(*place).map(|agent| agent.peer))?
    }

    /// Changes a slot that there is.
    pub(super) fn change_slot(&mut self, token: &SlotToken, change: impl FnOnce(&mut Slot)) {
        let Some(place) = self.place(&token.agent) else { return };
        let Some(agent) = self.at_mut(place) else { return };
        let Ok(at) = agent.slots.binary_search_by_key(&(token.boot_id, token.counter), Slot::key) else { return };
        let was_open = agent.slots[at].is_open();
        change(&mut agent.slots[at]);
        if agent.slots[at].is_open() != was_open {
            self.unlist(place);
            self.list(place);
        }
    }

    /// What the agent was told of others.
    pub(super) fn told_mut(&mut self, place: Place) -> Option<&mut Told> {
        self.at_mut(place).map(|agent| &mut agent.told)
    }

    fn unlist(&mut self, place: Place) {
        let Some(agent) = self.places.get_mut(place as usize).and_then(Option::as_mut) else { return };
        self.n_open -= std::mem::take(&mut agent.n_open);
        if let Some(rank) = agent.rank.take() {
            self.open.remove(place, rank, &agent.offer.toolchains);
        }
    }

    fn list(&mut self, place: Place) {
        let Some(agent) = self.places.get_mut(place as usize).and_then(Option::as_mut) else { return };
        agent.n_open = agent.slots.iter().filter(|slot| slot.is_open()).count();
        self.n_open += agent.n_open;
        agent.rank = Rank::of(agent.slots.len(), agent.slots.len() - agent.n_open, agent.offer.load_percent);
        if let Some(rank) = agent.rank {
            self.open.add(place, rank, &agent.offer.toolchains);
        }
    }

    /// Agents from which `n` slots for a client of `toolchains` can be chosen.
    pub(super) fn candidates(&self, n: usize, toolchains: &[ToolchainId]) -> Vec<Candidate<'_>> {
        let has_all =
            |place: Place| self.at(place).is_some_and(|agent| n_missing(toolchains, &agent.offer.toolchains) == 0);
        let places = self.open.candidates(n, toolchains, has_all).into_iter().filter_map(|place| self.at(place));
        places
            .filter_map(|agent| {
                Some(Candidate {
                    agent: agent.peer,
                    toolchains: &agent.offer.toolchains,
                    load_percent: agent.rank?.load_percent(),
                    n_slots: agent.slots.len(),
                    n_taken: agent.slots.len() - agent.n_open,
                    open: agent.slots().filter(|(_, slot)| slot.is_open()).map(|(token, _)| token).take(n).collect(),
                })
            })
            .collect()
    }

    /// The `n` agents whose ids are nearest to `peer`'s on the ring of all ids, half of them on each side, `peer` aside; all, where there
    /// are no more. Near is mutual, and who comes or goes changes it for its neighbours alone.
    pub(super) fn around(&self, peer: &PeerId, n: usize) -> Vec<Place> {
        let behind = || self.by_peer.range((Bound::Excluded(*peer), Bound::Unbounded));
        let before = || self.by_peer.range(..*peer);
        if self.by_peer.len() <= n {
            return behind().chain(before()).map(|(_, place)| *place).collect();
        }
        let n_behind = n.div_ceil(2);
        let next = behind().chain(before()).take(n_behind);
        let previous = before().rev().chain(behind().rev()).take(n - n_behind);
        // With more agents than `n` beside `peer` the two meet nowhere.
        next.chain(previous).map(|(_, place)| *place).collect()
    }

    /// Whether all indexes say what the agents say.
    #[cfg(test)]
    pub(super) fn is_sound(&self) -> bool {
        let there = || self.places.iter().flatten();
        let n_open: usize = there().map(|agent| agent.slots.iter().filter(|slot| slot.is_open()).count()).sum();
        there().count() == self.by_peer.len()
            && self.by_last_call.len() == self.by_peer.len()
            && self.free.len() + self.by_peer.len() == self.places.len()
            && n_open == self.n_open
            && there().map(|agent| agent.slots.len()).sum::<usize>() == self.n_slots
            && there().all(|agent| agent.slots.windows(2).all(|pair| pair[0].key() < pair[1].key()))
            && self.open.len() == there().filter(|agent| agent.n_open > 0).count()
    }
}

/// Whether others have to be told.
fn differs(one: &Offer, other: &Offer) -> bool {
    let Offer { name, host, n_cores, memory_bytes, memory_free_bytes: _, load_percent: _, toolchains, addresses } = one;
    (name, host, n_cores, memory_bytes, toolchains, addresses)
        != (&other.name, &other.host, &other.n_cores, &other.memory_bytes, &other.toolchains, &other.addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(ids: &[u8]) -> Agents {
        let mut agents = Agents::default();
        for id in ids {
            agents.put(Duration::ZERO, PeerId([*id; 32]), Offer::default(), vec![]);
        }
        agents
    }

    fn around(agents: &Agents, peer: u8, n: usize) -> Vec<u8> {
        let ids = agents.around(&PeerId([peer; 32]), n).into_iter();
        let mut ids: Vec<u8> = ids.map(|place| agents.at(place).unwrap().peer.0[0]).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn neighbours_are_those_next_to_one_on_the_ring() {
        let agents = agents(&[10, 20, 30, 40, 50, 60]);
        assert_eq!(around(&agents, 10, 5), [20, 30, 40, 50, 60]);
        assert_eq!(around(&agents, 10, 4), [20, 30, 50, 60]);
        assert_eq!(around(&agents, 30, 2), [20, 40]);
        assert_eq!(around(&agents, 35, 2), [30, 40], "a client is near agents, too");
        assert_eq!(around(&agents, 35, 9), [10, 20, 30, 40, 50, 60]);
        for (one, other) in [(10, 50), (20, 60), (30, 50)] {
            assert_eq!(around(&agents, one, 4).contains(&other), around(&agents, other, 4).contains(&one));
        }
    }

    #[test]
    fn what_nobody_is_told_of_is_no_news() {
        let peer = PeerId([1; 32]);
        let mut agents = agents(&[1]);
        let place = agents.place(&peer).unwrap();
        let first = agents.revision(place);
        let token = SlotToken { agent: peer, boot_id: 1, counter: 1 };
        agents.put(Duration::ZERO, peer, Offer { load_percent: 60, ..Offer::default() }, vec![]);
        assert_eq!(agents.revision(place), first);
        agents.put(Duration::ZERO, peer, Offer::default(), vec![Slot::new(&token, false)]);
        assert_ne!(agents.revision(place), first);
        let second = agents.revision(place);
        agents.put(Duration::ZERO, peer, Offer::default(), vec![Slot::new(&token, true)]);
        assert_eq!(agents.revision(place), second);
        assert!(agents.remove(&peer) && !agents.remove(&peer) && agents.is_sound());
        agents.put(Duration::ZERO, PeerId([2; 32]), Offer::default(), vec![]);
        assert!(agents.revision(place).is_some_and(|third| Some(third) != second), "another agent at the same place");
    }
}
