//! Which open slot a client gets next.
//!
//! Pure. Agents that hold all of the client's toolchains go first, then those that hold most; among equals the one that is least
//! taken, so that work spreads over the farm in proportion to what each agent lends. [`choose`] says it of agents that are given to it,
//! [`OpenAgents`] finds the few of ten thousand that it may come to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};

use buildbee_proto::lease::SlotToken;
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::ToolchainId;

/// Resolution of how much of an agent is taken.
const PARTS: usize = 1_000;
/// Resolution of a machine's load: what changes with each call would move the agent in all indexes.
const LOAD_STEP_PERCENT: u32 = 25;
/// Agents that are looked at of each index, and slots of each, at least. A farm that has no more open ones is looked at whole.
const MIN_CANDIDATES: usize = 64;
/// Toolchains of one client by which agents are looked for.
const MAX_TOOLCHAINS_LOOKED_UP: usize = 8;

/// An agent that has slots to give.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Who.
    pub agent: PeerId,
    /// What it holds.
    pub toolchains: &'a [ToolchainId],
    /// How busy its machine is, in percent.
    pub load_percent: u32,
    /// All its slots.
    pub n_slots: usize,
    /// Slots that are dealt or busy.
    pub n_taken: usize,
    /// Slots that can be given, in the order of their tokens.
    pub open: VecDeque<SlotToken>,
}

/// How many of `wanted` are not among `held`.
pub fn n_missing(wanted: &[ToolchainId], held: &[ToolchainId]) -> usize {
    wanted.iter().filter(|toolchain| !held.contains(toolchain)).count()
}

/// The next at most `n` slots for a client that needs `toolchains`.
pub fn choose(n: usize, toolchains: &[ToolchainId], candidates: Vec<Candidate<'_>>) -> Vec<SlotToken> {
    // Smallest first: (toolchains missing, parts taken once this slot is, load, who).
    let mut queue = BinaryHeap::new();
    let mut rest = BTreeMap::new();
    for candidate in candidates {
        let missing = n_missing(toolchains, candidate.toolchains);
        queue.push(Reverse((missing, parts(&candidate), candidate.load_percent, candidate.agent)));
        rest.insert(candidate.agent, candidate);
    }
    let mut chosen = Vec::new();
    while chosen.len() < n {
        let Some(Reverse((missing, _, load_percent, agent))) = queue.pop() else { break };
        let Some(candidate) = rest.get_mut(&agent) else { continue };
        let Some(token) = candidate.open.pop_front() else { continue };
        candidate.n_taken += 1;
        chosen.push(token);
        queue.push(Reverse((missing, parts(candidate), load_percent, agent)));
    }
    chosen
}

fn parts(candidate: &Candidate<'_>) -> usize {
    parts_of(candidate.n_taken, candidate.n_slots)
}

fn parts_of(n_taken: usize, n_slots: usize) -> usize {
    (n_taken + 1) * PARTS / n_slots.max(1)
}

/// Number of an agent in the scheduler's list.
pub type Place = u32;

/// Where an agent stands among those that have open slots: the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// At most twice [`PARTS`]. Small, since each agent is in many indexes.
    parts: u16,
    load: u16,
}

impl Rank {
    /// Of an agent with so many slots, as many of them taken; `None` if none is open.
    pub fn of(n_slots: usize, n_taken: usize, load_percent: u32) -> Option<Self> {
        let load = load_percent / LOAD_STEP_PERCENT * LOAD_STEP_PERCENT;
        (n_taken < n_slots).then(|| Self {
            parts: u16::try_from(parts_of(n_taken, n_slots)).unwrap_or(u16::MAX),
            load: u16::try_from(load).unwrap_or(u16::MAX),
        })
    }

    /// The load that counts.
    pub fn load_percent(self) -> u32 {
        self.load.into()
    }
}

/// Agents that have open slots, in the order in which they are dealt from, all of them and by toolchain.
#[derive(Debug, Default)]
pub struct OpenAgents {
    all: BTreeSet<(Rank, Place)>,
    by_toolchain: HashMap<ToolchainId, BTreeSet<(Rank, Place)>>,
}

impl OpenAgents {
    /// Number of agents.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Puts an agent in.
    pub fn add(&mut self, place: Place, rank: Rank, toolchains: &[ToolchainId]) {
        self.all.insert((rank, place));
        for toolchain in toolchains {
            self.by_toolchain.entry(*toolchain).or_default().insert((rank, place));
        }
    }

    /// Takes out what was put in.
    pub fn remove(&mut self, place: Place, rank: Rank, toolchains: &[ToolchainId]) {
        self.all.remove(&(rank, place));
        for toolchain in toolchains {
            if let Some(agents) = self.by_toolchain.get_mut(toolchain) {
                agents.remove(&(rank, place));
                if agents.is_empty() {
                    self.by_toolchain.remove(toolchain);
                }
            }
        }
    }

    /// Agents by what they have of `toolchains`, the rarest toolchain first, then all. Who has all of them is in the first, if there are
    /// any toolchains.
    pub fn indexes(&self, toolchains: &[ToolchainId]) -> Vec<&BTreeSet<(Rank, Place)>> {
        let mut indexes: Vec<&BTreeSet<(Rank, Place)>> =
            toolchains.iter().filter_map(|toolchain| self.by_toolchain.get(toolchain)).collect();
        indexes.sort_by_key(|agents| agents.len());
        indexes.truncate(MAX_TOOLCHAINS_LOOKED_UP);
        indexes.push(&self.all);
        indexes
    }

    /// Those from which `n` slots for a client of `toolchains` are to be chosen. `has_all` says who has all toolchains: if `n` such agents
    /// stand in front, it is these. Else the first of each index, as many as could be needed: with one toolchain nobody is missed; with more, in a
    /// large farm, an agent that has them all may be, if it is among the most taken of each.
    pub fn candidates(&self, n: usize, toolchains: &[ToolchainId], has_all: impl Fn(Place) -> bool) -> Vec<Place> {
        let n_each = n.max(MIN_CANDIDATES);
        let indexes = self.indexes(toolchains);
        let places = |agents: &'_ BTreeSet<(Rank, Place)>, n: usize| -> Vec<Place> {
            agents.iter().take(n).map(|(_, place)| *place).collect()
        };
        let mut best = places(indexes[0], 4 * n_each);
        best.retain(|place| has_all(*place));
        best.truncate(n);
        if best.len() == n {
            return best;
        }
        let mut seen = HashSet::new();
        let first = indexes.into_iter().flat_map(|agents| places(agents, n_each));
        best.into_iter().chain(first).filter(|place| seen.insert(*place)).collect()
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::digest::Digest;

    use super::*;

    fn candidate(agent: u8, n_slots: u64, toolchains: &[ToolchainId]) -> Candidate<'_> {
        let agent = PeerId([agent; 32]);
        let open: VecDeque<SlotToken> = (0..n_slots).map(|counter| SlotToken { agent, boot_id: 1, counter }).collect();
        Candidate { agent, toolchains, load_percent: 0, n_slots: open.len(), n_taken: 0, open }
    }

    fn count(chosen: &[SlotToken], agent: u8) -> usize {
        chosen.iter().filter(|token| token.agent == PeerId([agent; 32])).count()
    }

    #[test]
    fn agents_with_the_toolchain_go_first() {
        let gcc = [ToolchainId(Digest::of(b"gcc"))];
        let chosen = choose(3, &gcc, vec![candidate(1, 8, &[]), candidate(2, 2, &gcc)]);
        assert_eq!((count(&chosen, 2), count(&chosen, 1)), (2, 1));
    }

    #[test]
    fn slots_spread_in_proportion() {
        let chosen = choose(6, &[], vec![candidate(1, 4, &[]), candidate(2, 8, &[])]);
        assert_eq!((count(&chosen, 1), count(&chosen, 2)), (2, 4));
    }

    #[test]
    fn no_more_than_there_are_and_none_twice() {
        let mut chosen = choose(100, &[], vec![candidate(1, 4, &[]), candidate(2, 3, &[])]);
        chosen.sort();
        chosen.dedup();
        assert_eq!(chosen.len(), 7);
    }

    #[test]
    fn of_many_agents_those_with_the_toolchain_and_the_least_taken_are_found() {
        let gcc = ToolchainId(Digest::of(b"gcc"));
        let mut open = OpenAgents::default();
        let rank = |place: Place| Rank::of(1_000, place as usize % 1_000, 0).unwrap();
        for place in 0..5_000 {
            open.add(place, rank(place), if place % 100 == 99 { std::slice::from_ref(&gcc) } else { &[] });
        }
        assert_eq!(
            open.candidates(3, &[gcc], |place| place % 100 == 99),
            [99, 1_099, 2_099],
            "no need to look further"
        );
        let found = open.candidates(60, &[gcc], |place| place % 100 == 99);
        assert!(found[..50].iter().all(|place| place % 100 == 99), "all that have it");
        assert!(
            found.len() <= 2 * MIN_CANDIDATES
                && [0, 1_000, 2_000, 3_000, 4_000].iter().all(|place| found.contains(place))
        );
        for place in 0..5_000 {
            open.remove(place, rank(place), &[gcc]);
        }
        assert!(open.all.is_empty() && open.by_toolchain.is_empty());
        assert_eq!(Rank::of(4, 4, 0), None);
    }
}
