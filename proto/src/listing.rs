//! What a peer is told of agents, as what has changed since it was told last.
//!
//! A coordinator numbers its listings and remembers the last one of each peer; the peer says with each call which number it has. If that
//! is the last one, the answer is the difference, and nothing at all where nothing has changed; else it is everything from the start. So
//! a lost, late or repeated message costs bytes and never leaves a wrong picture. [`KnownAgents`] is the peer's half.

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::control::AgentInfo;
use crate::limits::MAX_KNOWN_AGENTS;

/// Agents, or what has changed about them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The listing that this one goes on from; 0: from nothing.
    pub after: u64,
    /// This one's number, never 0. No other listing of the farm has it.
    pub number: u64,
    /// Places in the list so far, ascending, of agents that leave it: they are gone, or stand anew among those added. At most
    /// `MAX_KNOWN_AGENTS`.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_KNOWN_AGENTS>")]
    pub dropped: Vec<u16>,
    /// These come behind those that stay. At most `MAX_KNOWN_AGENTS`.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_KNOWN_AGENTS>")]
    pub added: Vec<AgentInfo>,
}

/// The agents that a peer was told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownAgents {
    number: u64,
    agents: Vec<AgentInfo>,
}

impl KnownAgents {
    /// The last listing taken in, to be told with the next call; 0: none.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// All of them.
    pub fn agents(&self) -> &[AgentInfo] {
        &self.agents
    }

    /// Takes a listing in. One that goes on from another than the last is left alone: the next call says so, and is answered with all.
    /// Whether it was taken.
    pub fn apply(&mut self, listing: Listing) -> bool {
        if listing.after == 0 {
            self.agents.clear();
        } else if listing.after != self.number {
            return false;
        }
        let mut place = 0;
        self.agents.retain(|_| {
            let stays = u16::try_from(place).is_ok_and(|place| listing.dropped.binary_search(&place).is_err());
            place += 1;
            stays
        });
        let room = MAX_KNOWN_AGENTS.saturating_sub(self.agents.len());
        self.agents.extend(listing.added.into_iter().take(room));
        self.number = listing.number;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Offer;
    use crate::peer::PeerId;

    fn info(n: u8) -> AgentInfo {
        AgentInfo { peer: PeerId([n; 32]), offer: Offer::default(), n_slots: 1 }
    }

    fn known(agents: &KnownAgents) -> Vec<u8> {
        agents.agents().iter().map(|info| info.peer.0[0]).collect()
    }

    fn listing(after: u64, number: u64, dropped: &[u16], added: &[u8]) -> Listing {
        Listing { after, number, dropped: dropped.to_vec(), added: added.iter().copied().map(info).collect() }
    }

    #[test]
    fn differences_go_on_from_the_last_listing_alone() {
        let mut agents = KnownAgents::default();
        assert!(agents.apply(listing(0, 7, &[], &[1, 2, 3])));
        assert!(agents.apply(listing(7, 8, &[0, 2], &[4])));
        assert_eq!((known(&agents), agents.number()), (vec![2, 4], 8));
        assert!(!agents.apply(listing(7, 9, &[0], &[5])), "it goes on from one that is over");
        assert_eq!((known(&agents), agents.number()), (vec![2, 4], 8));
        assert!(agents.apply(listing(0, 20, &[], &[])), "another coordinator knows nobody yet");
        assert_eq!((known(&agents), agents.number()), (vec![], 20));
    }

    #[test]
    fn nonsense_harms_nobody() {
        let mut agents = KnownAgents::default();
        agents.apply(listing(0, 1, &[3, 1, 9], &[1, 2]));
        agents.apply(listing(1, 2, &[9, 9, u16::MAX], &[3]));
        assert_eq!(known(&agents), [1, 2, 3]);
        for n in 0..20_u64 {
            let many = Listing { after: 2 + n, number: 3 + n, dropped: vec![], added: vec![info(1); 1000] };
            assert!(agents.apply(many));
        }
        assert_eq!(agents.agents().len(), MAX_KNOWN_AGENTS);
    }
}
