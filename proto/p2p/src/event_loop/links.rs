//! Connections come, go and fall silent.

use buildbee_proto::peer::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::ConnectionId;
use std::time::Duration;
use tokio::time::Instant;

use super::entry::{Effort, Entry, Link};
use super::{EventLoop, unix_now};
use crate::address;
use crate::admission::has_expired;
use crate::carrier::Carrier;
use crate::identity::from_libp2p;
use crate::link_speed::Ends;
use crate::node::ConnectError;

/// Inbound connections that have shown no membership. One more, and the oldest of them is closed: members show theirs in
/// milliseconds, so a crowd of strangers can't keep them out.
const MAX_UNADMITTED: usize = 64;
/// Longest time between two looks at all peers: memberships expire unannounced.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// A wake-up that is later than this was not ours to prevent: the process was stopped or starved.
const LATE: Duration = Duration::from_secs(1);
/// A connection that was admitted for less is a failure like any other for the waits between dials.
const PROVEN: Duration = Duration::from_secs(1);

impl EventLoop {
    pub(super) fn on_established(&mut self, network: libp2p::PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(peer) = from_libp2p(&network) else {
            self.swarm.close_connection(id);
            return;
        };
        let dialled = endpoint.is_dialer();
        let ends = if self.packs_always { None } else { Ends::of(endpoint) };
        let address = address::to_text(endpoint.get_remote_address());
        let link = Link::new(id, dialled, address, Carrier::new(ends), Instant::now());
        self.wake_by(link.deadline());
        let entry = self.peers.entry(peer).or_insert_with(|| Entry::new(network));
        entry.dials.retain(|dial| *dial != id);
        entry.links.push(link);
        if dialled {
            self.start_hello(peer, id);
        } else {
            self.evict_strangers();
        }
    }

    /// Keeps the number of inbound connections without a membership within its bound.
    fn evict_strangers(&mut self) {
        let strange = |link: &&Link| !link.is_admitted() && !link.dialled;
        let unadmitted = self.peers.iter().filter(|(_, entry)| entry.member.is_none());
        let mut strangers: Vec<_> = unadmitted
            .flat_map(|(peer, entry)| entry.links.iter().filter(strange).map(|link| (link.since, *peer, link.id)))
            .collect();
        if strangers.len() > MAX_UNADMITTED {
            strangers.sort_unstable_by_key(|(since, _, _)| *since);
            let (_, peer, id) = strangers[0];
            self.close_link(peer, id, "too many strangers");
        }
    }

    pub(super) fn on_closed(&mut self, network: &libp2p::PeerId, id: ConnectionId, reason: String) {
        if let Some(peer) = from_libp2p(network) {
            self.remove_link(peer, id, &ConnectError::Unreachable { peer, reason });
        }
    }

    pub(super) fn on_sign_of_life(&mut self, network: &libp2p::PeerId, id: ConnectionId) {
        let Some(peer) = from_libp2p(network) else { return };
        if let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link_mut(id)) {
            link.last_sign = Instant::now();
        }
    }

    /// Gives a connection up at once; the network may take longer.
    pub(super) fn close_link(&mut self, peer: PeerId, id: ConnectionId, reason: &str) {
        tracing::debug!(peer = %peer.short(), reason, "closing a connection");
        self.swarm.close_connection(id);
        self.remove_link(peer, id, &ConnectError::Unreachable { peer, reason: reason.to_owned() });
    }

    /// Forgets a connection and what hangs on it. `why` is for those who wait for the peer, if this was their last hope.
    pub(super) fn remove_link(&mut self, peer: PeerId, id: ConnectionId, why: &ConnectError) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let Some(index) = entry.links.iter().position(|link| link.id == id) else { return };
        let link = entry.links.remove(index);
        link.carrier.gone.cancel();
        if entry.links.is_empty() {
            entry.member = None;
            let lasted = entry.admitted_at.take().is_some_and(|at| at.elapsed() >= PROVEN);
            if let Some(kept) = entry.kept.as_mut().filter(|_| lasted) {
                kept.backoff.reset();
            }
        }
        if link.is_admitted() {
            self.publish();
            tracing::debug!(peer = %peer.short(), %why, "a connection ended");
        }
        self.settle(peer, why);
    }

    /// After something failed: if nothing else is under way for the peer, tells those who wait for it and plans the next dial.
    pub(super) fn settle(&mut self, peer: PeerId, why: &ConnectError) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.is_apart() {
            for waiter in entry.waiters.drain(..) {
                // Whoever gave up waiting needs no answer.
                let _ = waiter.send(Err(why.clone()));
            }
            if entry.kept.is_some() {
                self.plan_dial(peer);
            } else if entry.is_forgettable() {
                self.peers.remove(&peer);
            }
        }
    }

    /// Closes what is overdue, dials what is due, and sets the next wake-up.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        let late = now.saturating_duration_since(self.wake_at);
        if late > LATE {
            // While we were not running nobody could answer us.
            for link in self.peers.values_mut().flat_map(|entry| &mut entry.links) {
                link.last_sign += late;
            }
        }
        let unix = unix_now();
        let mut overdue = Vec::new();
        let mut due = Vec::new();
        for (peer, entry) in &self.peers {
            let expired = entry.member.as_ref().is_some_and(|member| has_expired(member, unix));
            for link in &entry.links {
                if expired {
                    overdue.push((*peer, link.id, "its membership has expired"));
                } else if link.deadline() <= now {
                    overdue.push((
                        *peer,
                        link.id,
                        if link.is_admitted() { "it fell silent" } else { "it showed no membership" },
                    ));
                }
            }
            if entry.kept.as_ref().is_some_and(|kept| matches!(kept.effort, Effort::Waiting(at) if at <= now)) {
                due.push(*peer);
            }
        }
        for (peer, id, reason) in overdue {
            self.close_link(peer, id, reason);
        }
        for peer in due {
            self.start_dial(peer);
        }
        let deadlines = self.peers.values().flat_map(|entry| {
            let waiting = entry.kept.as_ref().and_then(|kept| match kept.effort {
                Effort::Waiting(at) => Some(at),
                _ => None,
            });
            entry.links.iter().map(Link::deadline).chain(waiting)
        });
        self.wake_at = deadlines.min().unwrap_or(now + SWEEP_INTERVAL).min(now + SWEEP_INTERVAL);
    }

    /// Disconnects whom a new roster revokes, and looks again at those it may have pardoned.
    pub(super) fn on_roster_changed(&mut self) {
        self.gate.roster.clone_from(&self.roster.borrow_and_update());
        if self.gate.is_revoked(self.own) {
            tracing::warn!("the farm has revoked this machine's membership: others will not talk to it");
        }
        let revoked: Vec<_> = self
            .peers
            .iter()
            .filter(|(peer, _)| self.gate.is_revoked(**peer))
            .flat_map(|(peer, entry)| entry.links.iter().map(|link| (*peer, link.id)))
            .collect();
        for (peer, id) in revoked {
            tracing::info!(peer = %peer.short(), "disconnecting a revoked peer");
            self.close_link(peer, id, "its membership was revoked");
        }
        let now = Instant::now();
        for entry in self.peers.values_mut().filter(|entry| entry.is_apart()) {
            if let Some(kept) = entry.kept.as_mut().filter(|kept| kept.effort == Effort::Resting) {
                kept.effort = Effort::Waiting(now);
            }
        }
        self.wake_by(now);
    }
}
