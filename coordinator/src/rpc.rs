//! Streams from peers: reads requests, checks that the sender may ask, calls scheduler or farm, writes answers. No decisions of its own.
//!
//! Life: [`serve`] takes streams from the node until its token is cancelled; each stream is a task of the set it is given. A peer has
//! one control stream: a newer one ends the older. When it ends by itself the peer counts as gone; when the peer merely stops calling,
//! the stream is dropped and the scheduler's own clock decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use buildbee_p2p::frames::{FrameError, read_message, write_message};
use buildbee_p2p::node::{Inbound, InboundStream, Node, PeerStream, Sender};
use buildbee_p2p::tasks::Tasks;
use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::Bytes;
use buildbee_proto::control::{
    AgentState, ControlAnswer, ControlCall, ControlReply, ControlRequest, JoinReply, JoinRequest,
};
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::membership::{Signed, Ticket};
use buildbee_proto::peer::{PeerId, Role};
use buildbee_proto::roster_news::RosterNews;
use buildbee_proto::version::Protocol;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::unix_now;
use crate::membership::farm::{Enrolled, Farm, FarmError};
use crate::offer::{ip_of, sanitise};
use crate::papers::Papers;
use crate::roster_log::RosterLog;
use crate::scheduler::core::{MAX_PEERS, SILENCE};
use crate::scheduler::handle::{SchedulerHandle, Stopped};

/// Newcomers served at a time; further ones are turned away and may try again.
const MAX_JOINS: usize = 8;
/// How long a newcomer may take to show its ticket, and to take the answer.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a peer may take to take an answer.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// Shortest time between two requests of one peer: one that calls in a tight loop is slowed down to this.
const MIN_CALL_INTERVAL: Duration = Duration::from_millis(10);

/// What streams are served with.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// Deals slots.
    pub scheduler: SchedulerHandle,
    /// Lets newcomers in.
    pub farm: Arc<Farm>,
    /// Knows peers' addresses and the current roster.
    pub node: Node,
    /// Answers what members ask of rosters and memberships.
    pub papers: Papers,
    /// What members are told of it.
    pub roster_log: Arc<Mutex<RosterLog>>,
    /// Where streams run.
    pub tasks: Tasks,
}

/// The control stream that counts for each peer, by a number that tells it from those before.
#[derive(Clone, Debug, Default)]
struct Sessions(Arc<Mutex<SessionTable>>);

#[derive(Debug, Default)]
struct SessionTable {
    current: HashMap<PeerId, (u64, CancellationToken)>,
    n_opened: u64,
}

impl Sessions {
    fn table(&self) -> std::sync::MutexGuard<'_, SessionTable> {
        // Nothing that holds the lock can leave the table half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a new stream the one that counts; the one before is cancelled. `None` if there are too many.
    fn open(&self, peer: PeerId, token: CancellationToken) -> Option<u64> {
        let mut table = self.table();
        if !table.current.contains_key(&peer) && table.current.len() >= MAX_PEERS {
            return None;
        }
        table.n_opened += 1;
        let number = table.n_opened;
        if let Some((_, before)) = table.current.insert(peer, (number, token)) {
            before.cancel();
        }
        Some(number)
    }

    /// Ends a stream. Whether it was the one that counted.
    fn close(&self, peer: PeerId, number: u64) -> bool {
        let mut table = self.table();
        let counted = table.current.get(&peer).is_some_and(|(current, _)| *current == number);
        if counted {
            table.current.remove(&peer);
        }
        counted
    }
}

/// Why a control stream ended.
#[derive(Debug)]
enum Ending {
    /// The peer closed it, or the connection broke.
    Closed,
    /// It stopped calling.
    Silent,
    /// It sent something that is no request.
    Broken(FrameError),
    /// This program is stopping.
    Stopping,
}

impl From<Stopped> for Ending {
    fn from(_: Stopped) -> Self {
        Self::Stopping
    }
}

/// Serves streams until `token` is cancelled or the node stops.
pub async fn serve(mut inbound: Inbound, rpc: Rpc, token: CancellationToken) {
    let sessions = Sessions::default();
    let joins = Arc::new(Semaphore::new(MAX_JOINS));
    while let Some(Some(stream)) = token.run_until_cancelled(inbound.next()).await {
        let InboundStream { from, protocol, stream } = stream;
        match (protocol, from) {
            (Protocol::Control, Sender::Member { peer, role, .. }) => {
                let session = token.child_token();
                let Some(number) = sessions.open(peer, session.clone()) else { continue };
                let control =
                    control_task(rpc.clone(), sessions.clone(), Caller { peer, role }, number, stream, session);
                rpc.tasks.spawn("control", control);
            }
            (Protocol::Papers, Sender::Member { peer, role, name }) => {
                let papers = rpc.papers.clone();
                rpc.tasks.spawn("papers", async move { papers.answer(peer, role, &name, stream).await });
            }
            (Protocol::Join, from) => {
                let Ok(permit) = Arc::clone(&joins).try_acquire_owned() else { continue };
                let (rpc_clone, peer) = (rpc.clone(), from.peer());
                rpc.tasks.spawn("join", async move {
                    let _permit = permit;
                    if timeout(JOIN_DEADLINE, join(&rpc_clone, peer, stream)).await.is_err() {
                        tracing::debug!(peer = %peer.short(), "a newcomer took too long");
                    }
                });
            }
            // Nothing else is served here: dropping the stream resets it.
            (protocol, from) => {
                tracing::debug!(peer = %from.peer().short(), protocol = protocol.id(), "stream of no use here");
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Caller {
    peer: PeerId,
    role: Role,
}

async fn control_task(
    rpc: Rpc,
    sessions: Sessions,
    caller: Caller,
    number: u64,
    mut stream: PeerStream,
    session: CancellationToken,
) {
    let peer = caller.peer;
    tracing::debug!(peer = %peer.short(), role = %caller.role, "calls");
    let ending = session.run_until_cancelled(control(&rpc, caller, &mut stream)).await.unwrap_or(Ending::Stopping);
    let counted = sessions.close(peer, number);
    tracing::debug!(peer = %peer.short(), ?ending, counted, "calls no more");
    let gone = match &ending {
        Ending::Closed => true,
        Ending::Broken(error) => {
            tracing::warn!(peer = %peer.short(), %error, "sent what is no request");
            true
        }
        Ending::Silent | Ending::Stopping => false,
    };
    if counted && gone {
        // An error means that the program is stopping: then nobody needs to know.
        let _ = rpc.scheduler.gone(peer).await;
    }
}

/// Answers requests one after the other.
async fn control(rpc: &Rpc, caller: Caller, stream: &mut PeerStream) -> Ending {
    loop {
        let request = match timeout(SILENCE, read_message::<ControlRequest, _>(stream)).await {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None) | Err(FrameError::Io(_) | FrameError::Truncated { .. })) => return Ending::Closed,
            Ok(Err(error)) => return Ending::Broken(error),
            Err(_) => return Ending::Silent,
        };
        let body = match answer(rpc, caller, request.body).await {
            Ok(body) => body,
            Err(Stopped) => return Ending::Stopping,
        };
        let reply = ControlReply { id: request.id, body };
        match timeout(WRITE_DEADLINE, write_message(stream, &reply)).await {
            Ok(Ok(())) => {}
            Ok(Err(error @ FrameError::Codec(_))) => {
                tracing::error!(peer = %caller.peer.short(), %error, "an answer can't be sent: this is a bug");
                return Ending::Closed;
            }
            Ok(Err(_)) => return Ending::Closed,
            Err(_) => return Ending::Silent,
        }
        sleep(MIN_CALL_INTERVAL).await;
    }
}

async fn answer(rpc: &Rpc, caller: Caller, call: ControlCall) -> Result<ControlAnswer, Stopped> {
    match (call, caller.role) {
        (ControlCall::Agent(state), Role::Agent) => {
            let roster = newer_roster(rpc, caller.peer, state.roster_version);
            let observed = rpc.node.peers().borrow().get(caller.peer).and_then(|entry| ip_of(&entry.address));
            let state = AgentState { offer: sanitise(state.offer, caller.peer, observed), ..state };
            let mut desired = rpc.scheduler.agent(caller.peer, state).await?;
            desired.roster = roster;
            Ok(ControlAnswer::Agent(desired))
        }
        (ControlCall::Client(state), Role::Client | Role::Agent) => {
            let roster = newer_roster(rpc, caller.peer, state.roster_version);
            let mut desired = rpc.scheduler.client(caller.peer, state).await?;
            desired.roster = roster;
            Ok(ControlAnswer::Client(desired))
        }
        (ControlCall::Agent(_) | ControlCall::Client(_), role) => {
            let message = format!("a {role} may not ask this");
            Ok(ControlAnswer::Error(WireError::new(ErrorCode::Refused, Retry::Never, message)))
        }
    }
}

/// What a peer that holds an older roster is told of ours, once it may hear of it.
fn newer_roster(rpc: &Rpc, peer: PeerId, held_version: u64) -> Option<RosterNews> {
    let roster = rpc.node.roster().filter(|_| rpc.papers.may_be_told(peer))?;
    // Nothing that holds the lock can leave the log half changed.
    rpc.roster_log.lock().unwrap_or_else(PoisonError::into_inner).news(&roster, held_version)
}

/// Serves one newcomer. Bounded in time by the caller.
async fn join(rpc: &Rpc, peer: PeerId, mut stream: PeerStream) {
    let request = match read_message::<JoinRequest, _>(&mut stream).await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(peer = %peer.short(), %error, "no ticket was shown");
            return;
        }
    };
    let reply = match enrol(rpc, peer, request).await {
        Ok(enrolled) => {
            let membership = &enrolled.membership.value;
            tracing::info!(peer = %peer.short(), name = membership.name, role = %membership.role, "joined the farm");
            JoinReply::Welcome { membership: Bytes(enrolled.membership.to_canonical()), role: membership.role }
        }
        Err(error) => {
            tracing::warn!(peer = %peer.short(), reason = error.message, "was not let in");
            JoinReply::Refused(error)
        }
    };
    if let Err(error) = write_message(&mut stream, &reply).await {
        tracing::debug!(peer = %peer.short(), %error, "did not wait for the answer");
        return;
    }
    // The other side has its answer; whether it also hears of the end makes no difference.
    let _ = stream.shutdown().await;
}

async fn enrol(rpc: &Rpc, peer: PeerId, request: JoinRequest) -> Result<Enrolled, WireError> {
    let refused = |message: String| WireError::new(ErrorCode::Refused, Retry::Never, message);
    let ticket = Signed::<Ticket>::from_canonical(&request.ticket.0)
        .map_err(|error| refused(format!("the ticket is damaged: {error}")))?;
    let farm = Arc::clone(&rpc.farm);
    let on_disk = move || farm.enrol(&ticket, peer, &request.name, unix_now());
    let internal = || WireError::new(ErrorCode::Internal, Retry::SameAgent, "the coordinator is stopping");
    let enrolled = match tokio::task::spawn_blocking(on_disk).await.map_err(|_| internal())? {
        Ok(enrolled) => enrolled,
        // One line crosses the wire: the other side has hints of its own.
        Err(FarmError::Enrol(error)) => {
            return Err(refused(error.to_string().lines().next().unwrap_or_default().to_owned()));
        }
        Err(error) => {
            tracing::error!(%error, "a newcomer could not be written down");
            let message = "the coordinator can't write its list of members";
            return Err(WireError::new(ErrorCode::Storage, Retry::SameAgent, message));
        }
    };
    if let Err(error) = rpc.node.set_roster(enrolled.roster.clone()) {
        tracing::error!(%error, "the own roster is not taken: this is a bug");
    }
    Ok(enrolled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stream_counts() {
        let sessions = Sessions::default();
        let (peer, first, second) = (PeerId([1; 32]), CancellationToken::new(), CancellationToken::new());
        let first_number = sessions.open(peer, first.clone()).unwrap();
        let second_number = sessions.open(peer, second.clone()).unwrap();
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert!(!sessions.close(peer, first_number), "the older one's end means nothing");
        assert!(sessions.close(peer, second_number));
        assert!(!sessions.close(peer, second_number));
    }

    #[test]
    fn streams_are_bounded() {
        let sessions = Sessions::default();
        for n in 0..MAX_PEERS {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            assert!(sessions.open(PeerId(id), CancellationToken::new()).is_some());
        }
        assert!(sessions.open(PeerId([255; 32]), CancellationToken::new()).is_none());
        assert!(sessions.open(PeerId([0; 32]), CancellationToken::new()).is_some());
    }
}
