//! What the event loop knows of one peer and of each connection to it. Data and questions about it, no effects.

use std::sync::Arc;
use std::time::Duration;

use buildbee_proto::membership::Membership;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use libp2p::swarm::{ConnectionId, Stream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::carrier::Carrier;
use crate::node::ConnectError;
use crate::peer_table::ConnectedPeer;

/// For how long a connection may stay without a membership.
const UNADMITTED_TIME: Duration = Duration::from_secs(5);
/// The same for a stranger that joins: a person may have to confirm it.
const JOINING_TIME: Duration = Duration::from_secs(30);
/// A peer that answers no ping for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(10);
/// Streams that may be in the making on one connection. The multiplexer has 256 wait for their first byte at most.
const MAX_OPENING_STREAMS: usize = 256;

/// What the far end of a connection has shown on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing yet.
    Unknown,
    /// A stranger that has opened its one join stream.
    Joining,
    /// Memberships were exchanged.
    Admitted,
}

/// One connection.
pub(super) struct Link {
    pub(super) id: ConnectionId,
    /// Whether we dialled it.
    pub(super) dialled: bool,
    /// Its far end.
    pub(super) address: String,
    pub(super) since: Instant,
    pub(super) last_sign: Instant,
    pub(super) standing: Standing,
    /// Whether an exchange is under way.
    pub(super) hello_running: bool,
    pub(super) n_hellos: u8,
    /// What its streams know of it; cancelled when it is given up.
    pub(super) carrier: Carrier,
    /// Streams that came while our own hello was under way: the listener admits us before we can read that it did.
    pub(super) held: Vec<(Protocol, Stream)>,
    pub(super) opens: Arc<Semaphore>,
}

impl Link {
    pub(super) fn new(id: ConnectionId, dialled: bool, address: String, carrier: Carrier, now: Instant) -> Self {
        Self {
            id,
            dialled,
            address,
            since: now,
            last_sign: now,
            standing: Standing::Unknown,
            hello_running: false,
            n_hellos: 0,
            carrier,
            held: Vec::new(),
            opens: Arc::new(Semaphore::new(MAX_OPENING_STREAMS)),
        }
    }

    /// Whether memberships were exchanged on it.
    pub(super) fn is_admitted(&self) -> bool {
        self.standing == Standing::Admitted
    }

    /// When it is to be closed if nothing happens.
    pub(super) fn deadline(&self) -> Instant {
        match self.standing {
            Standing::Admitted => self.last_sign + SILENCE,
            Standing::Joining => self.since + JOINING_TIME,
            Standing::Unknown => self.since + UNADMITTED_TIME,
        }
    }
}

/// What is being done about a peer that is to be kept connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// Nothing: it is connected, being dialled, or there is nowhere to dial.
    Resting,
    /// It is dialled then.
    Waiting(Instant),
    /// Its host names are being looked up.
    Resolving,
}

/// A peer that is to be kept connected.
pub(super) struct Kept {
    pub(super) addresses: Arc<[String]>,
    pub(super) backoff: Backoff,
    pub(super) effort: Effort,
}

/// One peer.
pub(super) struct Entry {
    pub(super) network: libp2p::PeerId,
    /// Oldest first.
    pub(super) links: Vec<Link>,
    /// Set from the first good membership until the last connection is gone.
    pub(super) member: Option<Membership>,
    pub(super) admitted_at: Option<Instant>,
    /// Number of its present, or last, stay.
    pub(super) stay: u64,
    pub(super) waiters: Vec<oneshot::Sender<Result<(), ConnectError>>>,
    /// Dials under way.
    pub(super) dials: Vec<ConnectionId>,
    pub(super) kept: Option<Kept>,
}

impl Entry {
    pub(super) fn new(network: libp2p::PeerId) -> Self {
        Self {
            network,
            links: Vec::new(),
            member: None,
            admitted_at: None,
            stay: 0,
            waiters: Vec::new(),
            dials: Vec::new(),
            kept: None,
        }
    }

    pub(super) fn link_mut(&mut self, id: ConnectionId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    /// The connection to open streams on: of the admitted ones the newest, because an older one may be dead without our knowing.
    pub(super) fn best_link(&self) -> Option<&Link> {
        self.member.as_ref()?;
        self.links.iter().rev().find(|link| link.is_admitted())
    }

    /// Whether no connection exists or is being made.
    pub(super) fn is_apart(&self) -> bool {
        self.links.is_empty() && self.dials.is_empty()
    }

    /// Whether there is no reason to remember this peer.
    pub(super) fn is_forgettable(&self) -> bool {
        self.is_apart() && self.kept.is_none() && self.waiters.is_empty()
    }

    /// The entry's row in the peer table.
    pub(super) fn shown(&self, peer: PeerId) -> Option<ConnectedPeer> {
        let (link, member) = (self.best_link()?, self.member.as_ref()?);
        Some(ConnectedPeer {
            peer,
            role: member.role,
            name: member.name.clone(),
            address: link.address.clone(),
            stay: self.stay,
        })
    }
}
