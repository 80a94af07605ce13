//! Which open slot a client gets next.
//!
//! Pure. Agents that hold all of the client's toolchains go first, then those that hold most; among equals the one that is least
//! taken, so that work spreads over the farm in proportion to what each agent lends.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use buildbee_proto::lease::SlotToken;
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::ToolchainId;

/// Resolution of how much of an agent is taken.
const PARTS: usize = 1_000;

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
    (candidate.n_taken + 1) * PARTS / candidate.n_slots.max(1)
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
}
