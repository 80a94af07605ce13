//! A libp2p behaviour that refuses connections over their limits.
//!
//! libp2p's own behaviour of this kind remembers every peer id that ever connected, so a stranger with ever new keys makes its memory
//! grow; this one forgets a peer with its last connection. Not here: which peers are welcome ([`crate::admission`]).

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::dummy::ConnectionHandler;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use thiserror::Error;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// That have not proven a key yet, inbound.
    pub(crate) pending_inbound: usize,
    /// That are being dialled.
    pub(crate) pending_outbound: usize,
    /// With a proven key.
    pub(crate) established: usize,
    /// The same, to one peer.
    pub(crate) per_peer: usize,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum LimitReached {
    #[error("{0} connections are being set up from outside")]
    PendingInbound(usize),
    #[error("{0} peers are being dialled")]
    PendingOutbound(usize),
    #[error("there are {0} connections")]
    Established(usize),
    #[error("there are {0} connections to that peer")]
    PerPeer(usize),
}

/// The counts.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    limits: Limits,
    pending_inbound: HashSet<ConnectionId>,
    pending_outbound: HashSet<ConnectionId>,
    established: HashSet<ConnectionId>,
    /// Never zero: an entry goes with the peer's last connection.
    per_peer: HashMap<libp2p::PeerId, usize>,
}

fn check(found: usize, limit: usize, reached: fn(usize) -> LimitReached) -> Result<(), ConnectionDenied> {
    if found < limit { Ok(()) } else { Err(ConnectionDenied::new(reached(found))) }
}

impl ConnectionLimits {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            pending_inbound: HashSet::new(),
            pending_outbound: HashSet::new(),
            established: HashSet::new(),
            per_peer: HashMap::new(),
        }
    }

    fn check_established(&self, peer: &libp2p::PeerId) -> Result<ConnectionHandler, ConnectionDenied> {
        check(self.established.len(), self.limits.established, LimitReached::Established)?;
        let with_peer = self.per_peer.get(peer).copied().unwrap_or(0);
        check(with_peer, self.limits.per_peer, LimitReached::PerPeer)?;
        Ok(ConnectionHandler)
    }
}

impl NetworkBehaviour for ConnectionLimits {
    type ConnectionHandler = ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        check(self.pending_inbound.len(), self.limits.pending_inbound, LimitReached::PendingInbound)?;
        self.pending_inbound.insert(id);
        Ok(())
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<libp2p::PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        check(self.pending_outbound.len(), self.limits.pending_outbound, LimitReached::PendingOutbound)?;
        self.pending_outbound.insert(id);
        Ok(Vec::new())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_inbound.remove(&id);
        self.check_established(&peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_outbound.remove(&id);
        self.check_established(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                self.established.insert(event.connection_id);
                *self.per_peer.entry(event.peer_id).or_default() += 1;
            }
            FromSwarm::ConnectionClosed(event) => {
                if self.established.remove(&event.connection_id)
                    && let Some(count) = self.per_peer.get_mut(&event.peer_id)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.per_peer.remove(&event.peer_id);
                    }
                }
            }
            FromSwarm::DialFailure(event) => {
                self.pending_outbound.remove(&event.connection_id);
            }
            FromSwarm::ListenFailure(event) => {
                self.pending_inbound.remove(&event.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: libp2p::PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::ConnectedPoint;
    use libp2p::swarm::ListenError;
    use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};

    use super::*;

    const LIMITS: Limits = Limits { pending_inbound: 2, pending_outbound: 2, established: 3, per_peer: 2 };

    fn endpoint() -> ConnectedPoint {
        ConnectedPoint::Listener { local_addr: Multiaddr::empty(), send_back_addr: Multiaddr::empty() }
    }

    fn arrive(limits: &mut ConnectionLimits, id: usize, peer: libp2p::PeerId) -> Result<(), String> {
        let (id, nowhere, endpoint) = (ConnectionId::new_unchecked(id), Multiaddr::empty(), endpoint());
        let denied = |denied: ConnectionDenied| denied.downcast::<LimitReached>().unwrap().to_string();
        limits.handle_pending_inbound_connection(id, &nowhere, &nowhere).map_err(denied)?;
        let handler = limits.handle_established_inbound_connection(id, peer, &nowhere, &nowhere);
        handler.map_err(denied)?;
        limits.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        Ok(())
    }

    fn leave(limits: &mut ConnectionLimits, id: usize, peer: libp2p::PeerId) {
        let endpoint = endpoint();
        limits.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: ConnectionId::new_unchecked(id),
            endpoint: &endpoint,
            cause: None,
            remaining_established: 0,
        }));
    }

    #[test]
    fn each_limit_holds() {
        let mut limits = ConnectionLimits::new(LIMITS);
        let (one, other) = (libp2p::PeerId::random(), libp2p::PeerId::random());
        assert_eq!(arrive(&mut limits, 1, one), Ok(()));
        assert_eq!(arrive(&mut limits, 2, one), Ok(()));
        assert_eq!(arrive(&mut limits, 3, one), Err(LimitReached::PerPeer(2).to_string()));
        assert_eq!(arrive(&mut limits, 4, other), Ok(()));
        assert_eq!(arrive(&mut limits, 5, other), Err(LimitReached::Established(3).to_string()));
        leave(&mut limits, 1, one);
        assert_eq!(arrive(&mut limits, 6, one), Ok(()));
    }

    #[test]
    fn pending_connections_are_limited_until_they_fail() {
        let mut limits = ConnectionLimits::new(LIMITS);
        let nowhere = Multiaddr::empty();
        let knock = |limits: &mut ConnectionLimits, id| {
            limits.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &nowhere, &nowhere).is_ok()
        };
        assert!(knock(&mut limits, 1) && knock(&mut limits, 2) && !knock(&mut limits, 3));
        limits.on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
            local_addr: &Multiaddr::empty(),
            send_back_addr: &Multiaddr::empty(),
            error: &ListenError::Aborted,
            connection_id: ConnectionId::new_unchecked(1),
            peer_id: None,
        }));
        assert!(knock(&mut limits, 4));
    }

    #[test]
    fn those_who_left_are_forgotten() {
        let mut limits = ConnectionLimits::new(LIMITS);
        for id in 0..1_000 {
            let peer = libp2p::PeerId::random();
            assert_eq!(arrive(&mut limits, id, peer), Ok(()));
            leave(&mut limits, id, peer);
        }
        assert!(limits.per_peer.is_empty() && limits.established.is_empty() && limits.pending_inbound.is_empty());
    }
}
