//! Memberships are exchanged, checked off the loop, and acted on here.

use std::time::Duration;

use buildbee_proto::error::WireError;
use buildbee_proto::membership::Membership;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use libp2p::Multiaddr;
use libp2p::swarm::{ConnectionId, Stream};
use tokio::time::Instant;

use super::entry::{Effort, Standing};
use super::{EventLoop, random, unix_now};
use crate::address::AddressError;
use crate::admission::AdmissionError;
use crate::hello::{self, Greeting};
use crate::node::ConnectError;
use crate::peer_stream::PeerStream;

/// Attempts of the dialler on one connection.
const MAX_GREETINGS: u8 = 3;
/// Exchanges that a listener takes part in on one connection.
const MAX_HEARINGS: u8 = 8;
/// Longest wait between two attempts.
const GREETING_PAUSE_MS: u64 = 250;

/// What a step, run outside the loop, brings back.
pub(super) enum Step {
    /// The dialler's exchange is over.
    Greeted { peer: PeerId, id: ConnectionId, outcome: Greeted },
    /// The dialler may try again.
    HelloDue { peer: PeerId, id: ConnectionId },
    /// A dialler has shown what it has.
    Heard { peer: PeerId, id: ConnectionId, stream: PeerStream, shown: Option<Result<Membership, AdmissionError>> },
    /// The listener's answer is out.
    Answered { peer: PeerId, id: ConnectionId },
    /// Where a wanted peer may be.
    Resolved { peer: PeerId, addresses: Result<Vec<Multiaddr>, AddressError> },
}

/// The dialler's result.
pub(super) enum Greeted {
    Admitted(Membership),
    NotAdmitted(AdmissionError),
    Refused(WireError),
    Unsupported,
    Lost(String),
}

impl EventLoop {
    pub(super) fn on_step(&mut self, step: Step) {
        match step {
            Step::Greeted { peer, id, outcome } => self.on_greeted(peer, id, outcome),
            Step::HelloDue { peer, id } => self.start_hello(peer, id),
            Step::Heard { peer, id, stream, shown } => self.on_heard(peer, id, stream, shown),
            Step::Answered { peer, id } => self.end_hello(peer, id),
            Step::Resolved { peer, addresses } => self.on_resolved(peer, addresses),
        }
    }

    /// The dialler's part, on one connection.
    pub(super) fn start_hello(&mut self, peer: PeerId, id: ConnectionId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let network = entry.network;
        let Some(link) = entry.link_mut(id) else { return };
        // A fresh connection has all its permits.
        let Ok(permit) = link.opens.clone().try_acquire_owned() else { return };
        link.hello_running = true;
        link.n_hellos += 1;
        let carrier = link.carrier.clone();
        let opening = self.swarm.behaviour_mut().streams.open(network, id, Protocol::Hello, permit);
        let (papers, gate) = (self.papers.borrow().clone(), self.gate.clone());
        self.steps.spawn(async move {
            let outcome = match hello::greet(opening, papers, carrier).await {
                Greeting::Welcome(theirs) => match gate.check(&theirs.0, peer, unix_now()) {
                    Ok(membership) => Greeted::Admitted(membership),
                    Err(error) => Greeted::NotAdmitted(error),
                },
                Greeting::Refused(error) => Greeted::Refused(error),
                Greeting::Unsupported => Greeted::Unsupported,
                Greeting::Lost(reason) => Greeted::Lost(reason),
            };
            Step::Greeted { peer, id, outcome }
        });
    }

    fn on_greeted(&mut self, peer: PeerId, id: ConnectionId, outcome: Greeted) {
        let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link_mut(id)) else { return };
        link.hello_running = false;
        let why = match outcome {
            Greeted::Admitted(_) if self.gate.is_revoked(peer) => {
                ConnectError::NotAdmitted { peer, reason: AdmissionError::Revoked }
            }
            Greeted::Admitted(membership) => return self.admit(peer, id, membership),
            Greeted::Lost(reason) if link.n_hellos < MAX_GREETINGS => {
                tracing::debug!(peer = %peer.short(), reason, "hello again");
                // Streams that came meanwhile stay held.
                link.hello_running = true;
                let pause = Duration::from_millis(random() % GREETING_PAUSE_MS);
                self.steps.spawn(async move {
                    tokio::time::sleep(pause).await;
                    Step::HelloDue { peer, id }
                });
                return;
            }
            Greeted::Lost(reason) => ConnectError::Unreachable { peer, reason },
            Greeted::Unsupported => {
                let reason = "it does not speak this version's protocol".to_owned();
                ConnectError::Unreachable { peer, reason }
            }
            Greeted::Refused(error) => ConnectError::Refused { peer, error },
            Greeted::NotAdmitted(reason) => ConnectError::NotAdmitted { peer, reason },
        };
        if self.complaints.worth_a_line(peer, Instant::now()) {
            tracing::warn!(peer = %peer.short(), "dialled in vain: {why}");
        }
        self.swarm.close_connection(id);
        self.remove_link(peer, id, &why);
    }

    /// The listener's part: reads and checks what a dialler shows.
    pub(super) fn hear(&mut self, peer: PeerId, id: ConnectionId, stream: Stream) {
        let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link_mut(id)) else { return };
        if link.dialled || link.hello_running || link.n_hellos >= MAX_HEARINGS {
            return;
        }
        link.hello_running = true;
        link.n_hellos += 1;
        let mut stream = PeerStream::new(Protocol::Hello, stream, link.carrier.clone());
        let gate = self.gate.clone();
        self.steps.spawn(async move {
            let shown = hello::listen(&mut stream).await.map(|bytes| gate.check(&bytes.0, peer, unix_now()));
            Step::Heard { peer, id, stream, shown }
        });
    }

    fn on_heard(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        stream: PeerStream,
        shown: Option<Result<Membership, AdmissionError>>,
    ) {
        let shown = match shown {
            // The roster may have changed since.
            Some(Ok(_)) if self.gate.is_revoked(peer) => Some(Err(AdmissionError::Revoked)),
            other => other,
        };
        match shown {
            None => self.end_hello(peer, id),
            Some(Ok(membership)) => {
                self.admit(peer, id, membership);
                let papers = self.papers.borrow().clone();
                self.steps.spawn(async move {
                    hello::welcome(stream, papers).await;
                    Step::Answered { peer, id }
                });
            }
            Some(Err(reason)) => {
                if self.complaints.worth_a_line(peer, Instant::now()) {
                    tracing::warn!(peer = %peer.short(), "refused a connection: {reason}");
                }
                // The connection is closed by its deadline: the answer has to get out first.
                self.steps.spawn(async move {
                    hello::refuse(stream, &reason).await;
                    Step::Answered { peer, id }
                });
            }
        }
    }

    fn end_hello(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link_mut(id)) {
            link.hello_running = false;
        }
    }

    /// Both memberships are good, or the dialler's is and it is about to get ours.
    fn admit(&mut self, peer: PeerId, id: ConnectionId, membership: Membership) {
        let now = Instant::now();
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let comes = entry.best_link().is_none();
        let Some(link) = entry.link_mut(id) else { return };
        link.standing = Standing::Admitted;
        link.last_sign = now;
        let (deadline, held) = (link.deadline(), std::mem::take(&mut link.held));
        entry.admitted_at.get_or_insert(now);
        if comes {
            self.n_stays += 1;
            entry.stay = self.n_stays;
        }
        entry.member = Some(membership);
        if let Some(kept) = &mut entry.kept {
            kept.effort = Effort::Resting;
        }
        for waiter in entry.waiters.drain(..) {
            let _ = waiter.send(Ok(()));
        }
        self.wake_by(deadline);
        self.publish();
        for (protocol, stream) in held {
            self.route(peer, id, protocol, stream);
        }
    }
}
