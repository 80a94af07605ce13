//! What one peer was told of agents, so that it is told again only what has changed.
//!
//! Pure. Agents are told by their place in the scheduler's list and its revision there, two small numbers each: a coordinator remembers
//! some hundred agents for each of ten thousand peers. What a message has no room for comes with the next one.

use buildbee_proto::control::{AgentInfo, Offer};
use buildbee_proto::limits::{MAX_CONTROL_FRAME, MAX_KNOWN_AGENTS, MAX_LEASES_PER_CLIENT, MAX_MEMBERS};
use buildbee_proto::listing::Listing;

use super::matching::Place;

/// Share of a control frame for agents.
pub const MAX_LISTING_BYTES: usize = 96 << 10;
/// An upper bound of a whole roster's size on the wire, and of all leases.
const ROSTER_BYTES: usize = MAX_MEMBERS * (33 + 32) + 1_024;
const LEASE_BYTES: usize = super::core::MAX_LEASES_PER_CLIENT * 56;
const _: () = assert!(MAX_LISTING_BYTES + 3 * MAX_KNOWN_AGENTS + ROSTER_BYTES + LEASE_BYTES <= MAX_CONTROL_FRAME);
const _: () = assert!(super::core::MAX_LEASES_PER_CLIENT <= MAX_LEASES_PER_CLIENT);

/// Upper bound of one toolchain id on the wire: function, hash, size with their length prefixes.
const TOOLCHAIN_BYTES: usize = 48;
/// Upper bound of everything in an [`AgentInfo`] that has a fixed size, and of the lengths of what has not.
const FIXED_BYTES: usize = 128;

/// Counts up with each change of what others are told of the agent at one place, and with each agent that takes the place.
pub type Revision = u32;

/// An upper bound of `info`'s size on the wire.
fn size_bytes(info: &AgentInfo) -> usize {
    let Offer { name, host, toolchains, addresses, .. } = &info.offer;
    let texts: usize = addresses.iter().map(|address| address.len() + 9).sum();
    FIXED_BYTES + name.len() + host.len() + texts + toolchains.len() * TOOLCHAIN_BYTES
}

/// What one peer was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    number: u64,
    /// In the peer's order.
    agents: Vec<(Place, Revision)>,
}

/// What it is told next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// If there is anything to tell.
    pub listing: Option<Listing>,
    /// Whether there is more than had room.
    pub more: bool,
}

impl Told {
    /// What to tell a peer that has taken in listing `held` and is to know of the agents at `wanted`, each there once, the most
    /// important first. `next` is the number that the listing gets, if there is one.
    pub fn news(
        &mut self,
        held: u64,
        next: u64,
        wanted: &[Place],
        revision: impl Fn(Place) -> Option<Revision>,
        info: impl Fn(Place) -> Option<AgentInfo>,
    ) -> News {
        let whole = held == 0 || held != self.number;
        if whole {
            self.agents.clear();
        }
        let mut places: Vec<Place> = wanted.to_vec();
        places.sort_unstable();
        let mut dropped = Vec::new();
        let mut changed = Vec::new();
        let mut stay = Vec::new();
        for (at, (place, told)) in self.agents.iter().enumerate() {
            let is_wanted = places.binary_search(place).is_ok();
            if is_wanted && revision(*place) == Some(*told) {
                stay.push(*place);
                continue;
            }
            if is_wanted {
                changed.push(*place);
            }
            dropped.push(u16::try_from(at).unwrap_or(u16::MAX));
        }
        let n_stay = stay.len();
        self.agents.retain(|(place, told)| places.binary_search(place).is_ok() && revision(*place) == Some(*told));
        stay.sort_unstable();
        let is_new = |place: &&Place| stay.binary_search(place).is_err() && !changed.contains(place);
        let mut added = Vec::new();
        let (mut n_left, mut more) = (MAX_LISTING_BYTES, false);
        let room = MAX_KNOWN_AGENTS.saturating_sub(n_stay);
        for place in changed.iter().chain(wanted.iter().filter(is_new)).take(room) {
            let (Some(revision), Some(info)) = (revision(*place), info(*place)) else { continue };
            let Some(n) = n_left.checked_sub(size_bytes(&info)) else {
                more = true;
                break;
            };
            n_left = n;
            added.push(info);
            self.agents.push((*place, revision));
        }
        let after = if whole { 0 } else { self.number };
        // From nothing even nobody is news: the answer may be one to an older call than the last.
        let is_news = whole || !dropped.is_empty() || !added.is_empty();
        if is_news {
            self.number = next;
        }
        News { listing: is_news.then_some(Listing { after, number: next, dropped, added }), more }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use buildbee_proto::codec::{FRAME_HEADER_BYTES, to_frame};
    use buildbee_proto::control::{AgentDesired, ControlAnswer, ControlReply};
    use buildbee_proto::digest::Digest;
    use buildbee_proto::limits::{MAX_ADDRESSES_PER_PEER, MAX_NAME_BYTES, MAX_TOOLCHAINS_PER_AGENT};
    use buildbee_proto::listing::KnownAgents;
    use buildbee_proto::peer::PeerId;
    use buildbee_proto::toolchain::ToolchainId;
    use proptest::prelude::*;

    use super::*;

    fn largest() -> AgentInfo {
        let mut toolchain = Digest::of(b"x");
        toolchain.size_bytes = u64::MAX;
        let offer = Offer {
            name: "n".repeat(MAX_NAME_BYTES),
            host: "h".repeat(MAX_NAME_BYTES),
            n_cores: u32::MAX,
            memory_bytes: u64::MAX,
            memory_free_bytes: u64::MAX,
            load_percent: u32::MAX,
            toolchains: vec![ToolchainId(toolchain); MAX_TOOLCHAINS_PER_AGENT],
            addresses: vec!["a".repeat(260); MAX_ADDRESSES_PER_PEER],
        };
        AgentInfo { peer: PeerId([255; 32]), offer, n_slots: u32::MAX }
    }

    #[test]
    fn the_largest_offers_stay_within_their_share_and_come_bit_by_bit() {
        let wanted: Vec<Place> = (0..40).collect();
        let (mut told, mut known) = (Told::default(), KnownAgents::default());
        for next in 1.. {
            let News { listing, more } = told.news(known.number(), next, &wanted, |_| Some(1), |_| Some(largest()));
            let listing = listing.unwrap();
            assert!(listing.added.len() > 4, "{}", listing.added.len());
            assert!(known.apply(listing.clone()));
            let desired =
                AgentDesired { dealt: vec![], deal_for_ms: 0, peers: Some(listing), roster: None, next_call_ms: 0 };
            let frame = to_frame(&ControlReply { id: 0, body: ControlAnswer::Agent(desired) }).unwrap();
            assert!(frame.len() - FRAME_HEADER_BYTES - 64 <= MAX_LISTING_BYTES, "{}", frame.len());
            if !more {
                break;
            }
        }
        assert_eq!(known.agents().len(), wanted.len());
        assert_eq!(told.news(known.number(), 100, &wanted, |_| Some(1), |_| Some(largest())), News::default());
    }

    proptest! {
        /// Whatever changes, and whatever gets lost or is said twice: who hears of one answer knows all that it should.
        #[test]
        fn any_answer_that_arrives_makes_it_right(
            steps in proptest::collection::vec((proptest::collection::btree_map(0_u32..12, 0_u32..4, 0..9), 0_u8..4), 1..30),
        ) {
            let (mut told, mut known) = (Told::default(), KnownAgents::default());
            let mut late = Listing::default();
            for (next, (agents, fate)) in (1..).zip(steps) {
                let info = |place: Place| {
                    let n_slots = *agents.get(&place)?;
                    Some(AgentInfo { peer: PeerId([u8::try_from(place).ok()?; 32]), offer: Offer::default(), n_slots })
                };
                let wanted: Vec<Place> = agents.keys().copied().rev().collect();
                let News { listing, more } = told.news(known.number(), next, &wanted, |place| agents.get(&place).copied(), info);
                prop_assert!(!more);
                if fate == 0 {
                    // It is lost; or it comes when it is over.
                    late = listing.unwrap_or_default();
                    continue;
                }
                if fate == 1 && late.after != 0 {
                    prop_assert!(!known.clone().apply(late.clone()) || late.after == known.number());
                }
                if let Some(listing) = listing {
                    prop_assert!(known.apply(listing));
                }
                let found: BTreeMap<PeerId, u32> = known.agents().iter().map(|info| (info.peer, info.n_slots)).collect();
                let expected: BTreeMap<PeerId, u32> = wanted.iter().filter_map(|place| info(*place)).map(|info| (info.peer, info.n_slots)).collect();
                prop_assert_eq!(known.agents().len(), found.len());
                prop_assert_eq!(found, expected);
            }
        }
    }
}
