//! How a machine becomes a member: shows a ticket to the farm's coordinator and gets a signed membership.
//!
//! A short-lived swarm of its own: the machine has no membership to start a node with yet. Not here: who issues tickets and
//! memberships (the coordinator).

use std::time::Duration;

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::Bytes;
use buildbee_proto::control::{JoinReply, JoinRequest};
use buildbee_proto::error::WireError;
use buildbee_proto::limits::MAX_NAME_BYTES;
use buildbee_proto::membership::{Membership, Signed, Ticket, UnixSeconds};
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use futures::StreamExt as _;
use libp2p::Swarm;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::address::{self, AddressError};
use crate::admission::{AdmissionError, Gate};
use crate::behaviour::{Abilities, Behaviour, swarm};
use crate::carrier::Carrier;
use crate::delegation::verify_for;
use crate::enrolment::Enrolment;
use crate::frames::{FrameError, read_message, write_message};
use crate::identity::{Identity, from_libp2p, to_libp2p};
use crate::peer_stream::PeerStream;
use crate::tasks::Tasks;

/// For how long the swarm may take to go away afterwards.
const CLEANUP: Duration = Duration::from_secs(1);

/// Why a machine could not join.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The ticket's time is over.
    #[error(
        "the ticket has expired\nhint: ask for a new one (buildbee-coordinator invite), and check this machine's clock"
    )]
    Expired,
    /// The ticket was altered.
    #[error(
        "the ticket's signature does not hold\nhint: copy the whole ticket again, or ask for a new one (buildbee-coordinator invite)"
    )]
    BadSignature,
    /// The name can't be used.
    #[error(
        "the name {name:?} is empty, longer than {MAX_NAME_BYTES} bytes or has control characters\nhint: give this machine another name"
    )]
    BadName {
        /// What was given, cut.
        name: String,
    },
    /// No address in the ticket leads anywhere.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody answers.
    #[error(
        "the coordinator is out of reach at {}: {reason}\nhint: is it running, and does a firewall let its port through?",
        addresses.join(", ")
    )]
    Unreachable {
        /// Where it was looked for.
        addresses: Vec<String>,
        /// What happened.
        reason: String,
    },
    /// Somebody else answers.
    #[error(
        "peer {} answers where the ticket expects coordinator {}\nhint: was the coordinator set up anew? Ask for a new ticket",
        found.short(),
        expected.short()
    )]
    WrongPeer {
        /// The ticket's coordinator.
        expected: PeerId,
        /// Who answered.
        found: PeerId,
    },
    /// The coordinator does not want us.
    #[error(
        "the coordinator refuses: {0}\nhint: a ticket is good for as long and for as many machines as it says; ask for a new one (buildbee-coordinator invite)"
    )]
    Refused(WireError),
    /// The answer is not one.
    #[error("the coordinator's answer is of no use: {reason}\nhint: are both programs of the same version?")]
    BadAnswer {
        /// What is wrong.
        reason: String,
    },
    /// The transport could not be set up.
    #[error("the network transport could not be set up: {reason}\nhint: this is a bug; please report it")]
    Transport {
        /// What the library says.
        reason: String,
    },
}

/// Shows `ticket` to its coordinator and returns what to keep. Takes `within` at most. Dropping the future gives up, after which the
/// ticket may be used or not.
pub async fn join(
    identity: &Identity,
    ticket: &Signed<Ticket>,
    name: &str,
    within: Duration,
    now: UnixSeconds,
) -> Result<Enrolment, JoinError> {
    let value = &ticket.value;
    if verify_for(value.farm, ticket, None, now).is_err() {
        return Err(JoinError::BadSignature);
    }
    if now > value.expires_at {
        return Err(JoinError::Expired);
    }
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(JoinError::BadName { name: name.chars().take(MAX_NAME_BYTES).collect() });
    }
    let coordinator = to_libp2p(value.coordinator).ok_or(JoinError::BadSignature)?;
    let tasks = Tasks::new();
    let joining = Joining { identity, ticket, name, coordinator, now, tasks: &tasks };
    let result = tokio::time::timeout(within, Box::pin(joining.run())).await;
    tasks.stop(CLEANUP).await;
    result.unwrap_or_else(|_| Err(unreachable(value, format!("no answer within {within:?}"))))
}

fn unreachable(ticket: &Ticket, reason: String) -> JoinError {
    JoinError::Unreachable { addresses: ticket.addresses.clone(), reason }
}

struct Joining<'a> {
    identity: &'a Identity,
    ticket: &'a Signed<Ticket>,
    name: &'a str,
    coordinator: libp2p::PeerId,
    now: UnixSeconds,
    tasks: &'a Tasks,
}

impl Joining<'_> {
    async fn run(self) -> Result<Enrolment, JoinError> {
        let addresses = address::resolve_all(&self.ticket.value.addresses).await?;
        let abilities = Abilities { mdns: false, accept_joins: false };
        let mut swarm = swarm(&self.identity.to_libp2p(), abilities, self.tasks)
            .map_err(|reason| JoinError::Transport { reason })?;
        let options = DialOpts::peer_id(self.coordinator)
            .addresses(addresses)
            .condition(PeerCondition::Always)
            .allocate_new_port()
            .build();
        swarm.dial(options).map_err(|error| self.explain(error))?;
        let connection = self.connected(&mut swarm).await?;
        // One stream, one permit.
        let Ok(permit) = Arc::new(Semaphore::new(1)).try_acquire_owned() else {
            return Err(unreachable(&self.ticket.value, "no permit".to_owned()));
        };
        let opening = swarm.behaviour_mut().streams.open(self.coordinator, connection, Protocol::Join, permit);
        let exchange = async {
            let lost = |reason: String| unreachable(&self.ticket.value, reason);
            match opening.await {
                Ok(Ok(stream)) => self.ask(PeerStream::new(Protocol::Join, stream, Carrier::new(None))).await,
                Ok(Err(failure)) => {
                    Err(lost(failure.into_error(self.ticket.value.coordinator, Protocol::Join).to_string()))
                }
                Err(_) => Err(lost("the connection was closed".to_owned())),
            }
        };
        tokio::pin!(exchange);
        loop {
            tokio::select! {
                result = &mut exchange => return result,
                _ = swarm.select_next_some() => {}
            }
        }
    }

    async fn connected(&self, swarm: &mut Swarm<Behaviour>) -> Result<ConnectionId, JoinError> {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { connection_id, .. } => return Ok(connection_id),
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(self.explain(error)),
                _ => {}
            }
        }
    }

    fn explain(&self, error: DialError) -> JoinError {
        let ticket = &self.ticket.value;
        match error {
            DialError::WrongPeerId { obtained, .. } if from_libp2p(&obtained).is_some() => {
                let found = from_libp2p(&obtained).unwrap_or(ticket.coordinator);
                JoinError::WrongPeer { expected: ticket.coordinator, found }
            }
            other => unreachable(ticket, address::explain_dial(&other)),
        }
    }

    async fn ask(&self, mut stream: PeerStream) -> Result<Enrolment, JoinError> {
        let ticket = &self.ticket.value;
        let request = JoinRequest { ticket: Bytes(self.ticket.to_canonical()), name: self.name.to_owned() };
        let lost = |error: FrameError| unreachable(ticket, error.to_string());
        write_message(&mut stream, &request).await.map_err(lost)?;
        let reply = read_message::<JoinReply, _>(&mut stream).await.map_err(lost)?;
        let membership = match reply {
            None => return Err(unreachable(ticket, "it ended the stream without an answer".to_owned())),
            Some(JoinReply::Refused(error)) => return Err(JoinError::Refused(error)),
            Some(JoinReply::Welcome { membership, role: _ }) => self.check(&membership.0),
        };
        let membership = membership.map_err(|error| JoinError::BadAnswer { reason: error.to_string() })?;
        Ok(Enrolment { membership, coordinator: ticket.coordinator, addresses: ticket.addresses.clone() })
    }

    /// The membership, if it is ours and of the ticket's farm.
    fn check(&self, bytes: &[u8]) -> Result<Signed<Membership>, AdmissionError> {
        let signed = Signed::<Membership>::from_canonical(bytes).map_err(|_| AdmissionError::Damaged)?;
        let gate = Gate { farm: self.ticket.value.farm, roster: None };
        gate.check_signed(signed.clone(), self.identity.peer(), self.now)?;
        Ok(signed)
    }
}
