//! Whom to dial, where and when.

use buildbee_proto::peer::PeerId;
use libp2p::Multiaddr;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::admit::Step;
use super::entry::{Effort, Entry, Kept};
use super::{EventLoop, random};
use crate::address::{self, AddressError};
use crate::backoff::Backoff;
use crate::identity::{from_libp2p, to_libp2p};
use crate::node::ConnectError;

/// Callers that may wait for one peer.
const MAX_WAITERS: usize = 64;
/// Dials to one peer under way.
const MAX_DIALS: usize = 4;
/// Peers that callers wait for without having asked to keep them, or that are connected.
const MAX_PASSING_PEERS: usize = 1_024;

impl EventLoop {
    pub(super) fn on_connect(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<(), ConnectError>>,
    ) {
        let n_passing = self.peers.values().filter(|entry| entry.kept.is_none()).count();
        let Some(network) = to_libp2p(peer).filter(|_| peer != self.own) else {
            let _ = reply.send(Err(ConnectError::BadPeer { peer }));
            return;
        };
        if self.gate.is_revoked(peer) {
            let reason = crate::admission::AdmissionError::Revoked;
            let _ = reply.send(Err(ConnectError::NotAdmitted { peer, reason }));
            return;
        }
        if n_passing >= MAX_PASSING_PEERS && !self.peers.contains_key(&peer) {
            let _ = reply.send(Err(ConnectError::Busy));
            return;
        }
        let entry = self.peers.entry(peer).or_insert_with(|| Entry::new(network));
        if entry.best_link().is_some() {
            let _ = reply.send(Ok(()));
            return;
        }
        entry.waiters.retain(|waiter| !waiter.is_closed());
        if entry.waiters.len() >= MAX_WAITERS {
            let _ = reply.send(Err(ConnectError::Busy));
            return;
        }
        entry.waiters.push(reply);
        if entry.links.is_empty() && entry.dials.len() < MAX_DIALS {
            self.dial(peer, addresses);
        }
    }

    /// Dials all addresses at once, and those that multicast knows; the first that proves the peer's key wins.
    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        // An own port for each dial: reusing the listener's makes quick redials fail.
        let options = DialOpts::peer_id(entry.network)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .condition(PeerCondition::Always)
            .allocate_new_port()
            .build();
        let id = options.connection_id();
        entry.dials.push(id);
        let network = entry.network;
        if let Err(error) = self.swarm.dial(options) {
            self.on_dial_error(&network, id, error);
        }
    }

    /// Dials addresses of which nobody knows whose they are. Whoever answers has to show a membership like anybody else.
    pub(super) fn on_meet(&mut self, addresses: Vec<Multiaddr>) {
        for address in addresses {
            let options = DialOpts::unknown_peer_id().address(address).allocate_new_port().build();
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(%error, "can't dial");
            }
        }
    }

    pub(super) fn on_dial_error(&mut self, network: &libp2p::PeerId, id: ConnectionId, error: DialError) {
        let Some(peer) = from_libp2p(network) else { return };
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.dials.retain(|dial| *dial != id);
        let why = explain(peer, error);
        tracing::debug!(peer = %peer.short(), %why, "dial failed");
        self.settle(peer, &why);
    }

    /// Takes over what the handles want.
    pub(super) fn on_wanted_changed(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let let_go: Vec<_> =
            self.peers.iter().filter(|(peer, _)| !wanted.contains_key(peer)).map(|(peer, _)| *peer).collect();
        for peer in let_go {
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.kept = None;
                if entry.is_forgettable() {
                    self.peers.remove(&peer);
                }
            }
        }
        let now = Instant::now();
        for (peer, addresses) in wanted {
            let Some(network) = to_libp2p(peer).filter(|_| peer != self.own) else { continue };
            let entry = self.peers.entry(peer).or_insert_with(|| Entry::new(network));
            let known = entry.kept.take();
            if known.as_ref().is_some_and(|kept| kept.addresses == addresses) {
                entry.kept = known;
                continue;
            }
            let busy = known.is_some_and(|kept| kept.effort == Effort::Resolving);
            let effort = if busy { Effort::Resolving } else { Effort::Resting };
            entry.kept = Some(Kept { addresses, backoff: Backoff::default(), effort });
            if entry.is_apart() && !busy {
                self.dial_at(peer, now);
            }
        }
    }

    fn dial_at(&mut self, peer: PeerId, at: Instant) {
        if let Some(kept) = self.peers.get_mut(&peer).and_then(|entry| entry.kept.as_mut()) {
            kept.effort = Effort::Waiting(at);
            self.wake_by(at);
        }
    }

    /// Plans the next attempt after a failure.
    pub(super) fn plan_dial(&mut self, peer: PeerId) {
        let Some(kept) = self.peers.get_mut(&peer).and_then(|entry| entry.kept.as_mut()) else { return };
        if kept.effort != Effort::Resolving {
            let wait = kept.backoff.next(random());
            self.dial_at(peer, Instant::now() + wait);
        }
    }

    /// Looks up where a wanted peer may be, unless it is connected meanwhile or was sent away.
    pub(super) fn start_dial(&mut self, peer: PeerId) {
        let revoked = self.gate.is_revoked(peer);
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let apart = entry.is_apart();
        let is_near = self.swarm.behaviour().mdns_knows(&entry.network);
        let Some(kept) = &mut entry.kept else { return };
        if !apart || revoked || (kept.addresses.is_empty() && !is_near) {
            kept.effort = Effort::Resting;
            return;
        }
        kept.effort = Effort::Resolving;
        let texts = kept.addresses.clone();
        self.steps.spawn(async move {
            let addresses = address::resolve_all(&texts).await;
            Step::Resolved { peer, addresses }
        });
    }

    pub(super) fn on_resolved(&mut self, peer: PeerId, addresses: Result<Vec<Multiaddr>, AddressError>) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let apart = entry.is_apart();
        let Some(kept) = &mut entry.kept else { return };
        kept.effort = Effort::Resting;
        if !apart {
            return;
        }
        let addresses = addresses.unwrap_or_else(|error| {
            tracing::debug!(peer = %peer.short(), %error, "no static address");
            Vec::new()
        });
        self.dial(peer, addresses);
    }

    /// Multicast says where peers are. Dials those that we want and lack; all others are ignored, since anybody can say anything.
    pub(super) fn on_hints(&mut self, found: &[(libp2p::PeerId, Multiaddr)]) {
        for (network, _) in found {
            let Some(peer) = from_libp2p(network) else { continue };
            let Some(entry) = self.peers.get(&peer).filter(|entry| entry.is_apart()) else { continue };
            if entry.kept.as_ref().is_some_and(|kept| kept.effort != Effort::Resolving) {
                self.dial_at(peer, Instant::now());
            }
        }
    }
}

/// libp2p's error in our words.
fn explain(peer: PeerId, error: DialError) -> ConnectError {
    let reason = match error {
        DialError::WrongPeerId { obtained, .. } => match from_libp2p(&obtained) {
            Some(found) => return ConnectError::WrongPeer { peer, found },
            None => "another kind of peer answers there".to_owned(),
        },
        other => address::explain_dial(&other),
    };
    ConnectError::Unreachable { peer, reason }
}
