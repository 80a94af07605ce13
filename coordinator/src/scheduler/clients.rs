//! All clients that call, with what is looked up often kept beside them: who was heard of when, and how demands add up.
//!
//! Pure bookkeeping. How many slots a client holds is told to it by the core.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buildbee_proto::control::Class;
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::ToolchainId;

use super::core::MAX_LEASES_PER_CLIENT;
use super::fairness::{Demand, Levels, weight};
use super::listing::Told;

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) demand: Demand,
    /// Slots that it holds or has yet to let go.
    n_dealt: usize,
    pub(super) toolchains: Vec<ToolchainId>,
    pub(super) last_call: Duration,
    /// What it was told of agents.
    pub(super) told: Told,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    by_peer: BTreeMap<PeerId, Client>,
    by_last_call: BTreeSet<(Duration, PeerId)>,
    levels: Levels,
    n_dealt: usize,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            by_peer: BTreeMap::new(),
            by_last_call: BTreeSet::new(),
            levels: Levels::new(MAX_LEASES_PER_CLIENT),
            n_dealt: 0,
        }
    }
}

impl Clients {
    pub(super) fn len(&self) -> usize {
        self.by_peer.len()
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&Client> {
        self.by_peer.get(peer)
    }

    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Client> {
        self.by_peer.get_mut(peer)
    }

    /// All of them, in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Client)> {
        self.by_peer.iter()
    }

    /// Slots dealt to those that are here.
    pub(super) fn n_dealt(&self) -> usize {
        self.n_dealt
    }

    /// What a client says of itself, at `now`. What it holds is to be told next.
    pub(super) fn put(
        &mut self,
        now: Duration,
        peer: PeerId,
        class: Class,
        n_wanted: usize,
        toolchains: Vec<ToolchainId>,
    ) {
        let before = self.by_peer.remove(&peer);
        let (told, n_held, n_dealt) = match before {
            Some(client) => {
                self.levels.remove(&client.demand);
                self.by_last_call.remove(&(client.last_call, peer));
                (client.told, client.demand.n_held, client.n_dealt)
            }
            None => (Told::default(), 0, 0),
        };
        let demand = Demand { n_wanted, n_held, weight: weight(class) };
        self.levels.add(&demand);
        self.by_last_call.insert((now, peer));
        self.by_peer.insert(peer, Client { demand, n_dealt, toolchains, last_call: now, told });
    }

    /// Forgets a client.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        if let Some(client) = self.by_peer.remove(peer) {
            self.levels.remove(&client.demand);
            self.by_last_call.remove(&(client.last_call, *peer));
            self.n_dealt -= client.n_dealt;
        }
    }

    /// How many slots a client holds, and how many it has yet to let go. Of one that is not here nothing is noted.
    pub(super) fn holds(&mut self, peer: &PeerId, n_held: usize, n_recalled: usize) {
        let Some(client) = self.by_peer.get_mut(peer) else { return };
        if client.demand.n_held != n_held {
            self.levels.remove(&client.demand);
            client.demand.n_held = n_held;
            self.levels.add(&client.demand);
        }
        self.n_dealt = self.n_dealt + n_held + n_recalled - client.n_dealt;
        client.n_dealt = n_held + n_recalled;
    }

    /// Whoever was last heard of at `before` or earlier.
    pub(super) fn silent_since(&self, before: Duration) -> Option<PeerId> {
        self.by_last_call.first().filter(|(last_call, _)| *last_call <= before).map(|(_, peer)| *peer)
    }

    /// A client's fair share of `n_slots`.
    pub(super) fn share(&self, n_slots: usize, peer: &PeerId) -> usize {
        self.by_peer.get(peer).map_or(0, |client| self.levels.share(n_slots, &client.demand))
    }
}
