//! The node of one process: started once, held by clone-able handles.
//!
//! A handle sends bounded commands to the one task that polls the swarm (`event_loop.rs`) and changes its desired state (who to
//! stay connected to, who is revoked) through watches, which never fill. Not here: the protocols on the streams.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::Bytes;
use buildbee_proto::error::WireError;
use buildbee_proto::limits::{MAX_ADDRESSES_PER_PEER, MAX_MEMBERS};
use buildbee_proto::membership::{Membership, Roster, Signed, UnixSeconds};
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use libp2p::core::transport::ListenerId;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::address;
pub use crate::address::AddressError;
pub use crate::admission::AdmissionError;
use crate::admission::Gate;
use crate::delegation::{SignatureError, verify_ever, verify_for};
use crate::event_loop::{self, Command};
use crate::identity::Identity;
pub use crate::inbound::{Inbound, InboundStream, Sender};
pub use crate::peer_stream::PeerStream;
pub use crate::peer_table::{ConnectedPeer, PeerTable};
use crate::tasks::Tasks;

/// Commands that may wait for the event loop; callers wait after that.
pub(crate) const MAX_WAITING_COMMANDS: usize = 256;
/// Peers that one node may be asked to stay connected to.
pub const MAX_KEPT_PEERS: usize = MAX_MEMBERS;
/// For how long the event loop may take to close its connections.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// Who is to be kept connected, and where they may be.
pub(crate) type Wanted = BTreeMap<PeerId, Arc<[String]>>;

/// What a node is started with.
#[derive(Debug)]
pub struct NodeConfig {
    /// The key that this node proves itself with.
    pub identity: Identity,
    /// What it shows to others: of this identity, signed by the farm that it names.
    pub membership: Signed<Membership>,
    /// The newest roster known.
    pub roster: Option<Signed<Roster>>,
    /// Where to listen, as `host:port` (port 0: any free one) or `memory:N`; nowhere if empty.
    pub listen: Vec<String>,
    /// Whether to look for kept peers on the local network by multicast.
    pub mdns: bool,
    /// Whether strangers may open `Protocol::Join` streams.
    pub accept_joins: bool,
}

/// Why a node could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The membership does not hold for this identity.
    #[error("this machine's membership is of no use: {0}\nhint: join the farm again with a new ticket")]
    Membership(AdmissionError),
    /// The roster is not the farm's.
    #[error(
        "the stored roster is of no use: {0}\nhint: remove the stored roster; the coordinator sends the current one"
    )]
    Roster(#[from] RosterError),
    /// An address is malformed or unknown.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The port can't be listened on.
    #[error(
        "can't listen on {address}: {reason}\nhint: is another program using the port, and is the address this machine's?"
    )]
    Listen {
        /// As configured.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// The transport could not be set up.
    #[error("the network transport could not be set up: {reason}\nhint: this is a bug; please report it")]
    Transport {
        /// What the library says.
        reason: String,
    },
}

/// Why there is no connection to a peer.
#[derive(Clone, Debug, Error)]
pub enum ConnectError {
    /// No address leads anywhere.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody answers, or it is not a peer of ours.
    #[error("peer {} is out of reach: {reason}\nhint: is it running, and does a firewall let its port through?", peer.short())]
    Unreachable {
        /// Who was dialled.
        peer: PeerId,
        /// What each address said.
        reason: String,
    },
    /// Another peer answers there.
    #[error(
        "peer {} was dialled, but {} answers at that address\nhint: was the machine set up anew? Join again, or correct the address",
        peer.short(),
        found.short()
    )]
    WrongPeer {
        /// Who was dialled.
        peer: PeerId,
        /// Who answered.
        found: PeerId,
    },
    /// It does not take us for a member.
    #[error("peer {} refuses this machine: {error}\nhint: join the farm again with a new ticket", peer.short())]
    Refused {
        /// Who.
        peer: PeerId,
        /// What it says.
        error: WireError,
    },
    /// We don't take it for a member.
    #[error("peer {} is not admitted: {reason}\nhint: it has to join this farm again with a new ticket", peer.short())]
    NotAdmitted {
        /// Who.
        peer: PeerId,
        /// What is wrong with its membership.
        reason: AdmissionError,
    },
    /// It took too long.
    #[error("peer {} did not answer within {within:?}\nhint: is it running, and does a firewall let its port through?", peer.short())]
    TimedOut {
        /// Who.
        peer: PeerId,
        /// The time that was given.
        within: Duration,
    },
    /// The bytes of the id are no key.
    #[error("{peer:?} is not a valid peer id\nhint: copy the whole id")]
    BadPeer {
        /// What was given.
        peer: PeerId,
    },
    /// Too many callers wait for connections.
    #[error("too many connections are being set up\nhint: try again in a moment")]
    Busy,
    /// The node has stopped.
    #[error("the node has stopped\nhint: start the program again")]
    Stopped,
}

/// Why there is no stream.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    /// There is no admitted connection to the peer.
    #[error("peer {} is not connected", peer.short())]
    NotConnected {
        /// Who.
        peer: PeerId,
    },
    /// The peer does not know the protocol.
    #[error("peer {} does not speak {}", peer.short(), protocol.id())]
    Unsupported {
        /// Who.
        peer: PeerId,
        /// What was asked for.
        protocol: Protocol,
    },
    /// Too many streams to that peer are being opened.
    #[error("too many streams to peer {} are being opened", peer.short())]
    Busy {
        /// Who.
        peer: PeerId,
    },
    /// The connection failed meanwhile.
    #[error("connection to peer {} was lost: {reason}", peer.short())]
    Lost {
        /// Who.
        peer: PeerId,
        /// What happened.
        reason: String,
    },
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Why a roster is not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RosterError {
    /// It is of another farm.
    #[error("the roster is of farm {}, this is {}", found.short(), expected.short())]
    OtherFarm {
        /// This node's farm.
        expected: PeerId,
        /// The roster's.
        found: PeerId,
    },
    /// The farm's key did not sign it.
    #[error("the roster's signature does not hold")]
    Forged,
    /// The key that signed it does not sign for the farm now.
    #[error("the roster does not count: {0}")]
    Signer(#[from] SignatureError),
}

struct Shared {
    peer: PeerId,
    membership: Membership,
    commands: mpsc::Sender<Command>,
    wanted: watch::Sender<Wanted>,
    roster: watch::Sender<Option<Arc<Signed<Roster>>>>,
    papers: watch::Sender<Bytes>,
    peers: watch::Receiver<Arc<PeerTable>>,
    listening: watch::Receiver<Vec<(ListenerId, String)>>,
    n_refused: Arc<AtomicU64>,
    tasks: Tasks,
}

/// A handle on this process's node. Clones are the same node; it ends when the last of them is dropped, or by
/// [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Node(Arc<Shared>);

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.0.peer.short())
    }
}

/// Starts the node: checks its papers, listens, and runs its event loop on the current tokio runtime.
pub async fn start(config: NodeConfig) -> Result<(Node, Inbound), StartError> {
    let started = event_loop::start(config).await?;
    let node = Node(Arc::new(Shared {
        peer: started.peer,
        membership: started.membership,
        commands: started.commands,
        wanted: started.wanted,
        roster: started.roster,
        papers: started.papers,
        peers: started.peers,
        listening: started.listening,
        n_refused: started.n_refused,
        tasks: started.tasks,
    }));
    Ok((node, started.inbound))
}

/// Whether the roster is this farm's.
pub(crate) fn check_roster(farm: PeerId, roster: &Signed<Roster>) -> Result<(), RosterError> {
    if roster.value.farm != farm {
        return Err(RosterError::OtherFarm { expected: farm, found: roster.value.farm });
    }
    if verify_ever(farm, roster) && is_within_warrant(roster) { Ok(()) } else { Err(RosterError::Forged) }
}

/// A version of a signer's is a moment of its time at most: else a stolen one could sign the last roster that there will ever be.
fn is_within_warrant(roster: &Signed<Roster>) -> bool {
    roster.warrant.as_ref().is_none_or(|warrant| roster.value.version <= warrant.delegation.expires_at)
}

fn revokes_signer(held: &Roster, roster: &Signed<Roster>) -> bool {
    let signer = roster.warrant.as_ref().map(|warrant| warrant.delegation.signer);
    signer.is_some_and(|signer| held.revoked.binary_search(&signer).is_ok())
}

/// Whether the roster is this farm's, and its signer may sign now, as far as `held` tells.
fn check_news(
    farm: PeerId,
    roster: &Signed<Roster>,
    held: Option<&Roster>,
    now: UnixSeconds,
) -> Result<(), RosterError> {
    check_roster(farm, roster)?;
    Ok(verify_for(farm, roster, held, now)?)
}

impl Node {
    /// This node's id.
    pub fn peer(&self) -> PeerId {
        self.0.peer
    }

    /// The membership that this node was started with.
    pub fn membership(&self) -> &Membership {
        &self.0.membership
    }

    /// Where this node listens, as `host:port` with real ports. A wildcard shows as one address for each network interface.
    pub fn listening(&self) -> Vec<String> {
        self.0.listening.borrow().iter().map(|(_, address)| address.clone()).collect()
    }

    /// Connects to a peer and exchanges memberships. Returns at once if it is connected and admitted already. The connection stays until
    /// either side lets go of it, but it is not made again: see [`keep_connected`](Self::keep_connected). Cancel-safe.
    pub async fn connect(&self, peer: PeerId, addresses: &[String], within: Duration) -> Result<(), ConnectError> {
        if self.0.peers.borrow().contains(peer) {
            return Ok(());
        }
        let attempt = async {
            let addresses = address::resolve_all(addresses).await?;
            let (reply, answer) = oneshot::channel();
            let command = Command::Connect { peer, addresses, reply };
            self.0.commands.send(command).await.map_err(|_| ConnectError::Stopped)?;
            answer.await.map_err(|_| ConnectError::Stopped)?
        };
        tokio::time::timeout(within, attempt).await.unwrap_or(Err(ConnectError::TimedOut { peer, within }))
    }

    /// Dials whoever is at `address`, and exchanges memberships; who was there shows in [`peers`](Self::peers), if anybody. Cancel-safe.
    pub async fn meet(&self, address: &str) -> Result<(), ConnectError> {
        let addresses = address::resolve_all(&[address.to_owned()]).await?;
        self.0.commands.send(Command::Meet { addresses }).await.map_err(|_| ConnectError::Stopped)
    }

    /// Shows another membership from now on, on new connections. It must be this node's and of its farm.
    pub fn set_membership(&self, membership: Signed<Membership>) -> Result<(), AdmissionError> {
        let papers = Bytes(membership.to_canonical());
        let gate = Gate { farm: self.0.membership.farm, roster: None };
        gate.check_signed(membership, self.0.peer, event_loop::unix_now())?;
        self.0.papers.send_replace(papers);
        Ok(())
    }

    /// Stays connected to a peer from now on: dials it, and again with growing waits whenever it is lost. Calling it again replaces the
    /// addresses, which may be empty where multicast or the peer itself is to bring the connection about. At most [`MAX_KEPT_PEERS`];
    /// further ones are logged and left out.
    pub fn keep_connected(&self, peer: PeerId, mut addresses: Vec<String>) {
        addresses.truncate(MAX_ADDRESSES_PER_PEER);
        self.0.wanted.send_if_modified(|wanted| {
            if wanted.len() >= MAX_KEPT_PEERS && !wanted.contains_key(&peer) {
                tracing::warn!(peer = %peer.short(), "too many peers to stay connected to");
                return false;
            }
            let addresses: Arc<[String]> = addresses.into();
            let before = wanted.insert(peer, Arc::clone(&addresses));
            before.as_ref() != Some(&addresses)
        });
    }

    /// No longer dials the peer. A connection that there is stays as long as the other side keeps it.
    pub fn let_go(&self, peer: PeerId) {
        self.0.wanted.send_if_modified(|wanted| wanted.remove(&peer).is_some());
    }

    /// Opens a stream to an admitted peer, on whichever connection there is. Waits for one round trip, 10 s at most; it is the caller's
    /// to retry where the stream ends before the other side's first reply. Cancel-safe.
    pub async fn open(&self, peer: PeerId, protocol: Protocol) -> Result<PeerStream, OpenError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Open { peer, protocol, reply };
        self.0.commands.send(command).await.map_err(|_| OpenError::Stopped)?;
        let (opening, carrier) = answer.await.map_err(|_| OpenError::Stopped)??;
        let opened = tokio::select! {
            opened = opening => opened,
            () = carrier.gone.cancelled() => return Err(OpenError::Lost { peer, reason: "it was given up".to_owned() }),
        };
        match opened {
            Ok(Ok(stream)) => Ok(PeerStream::new(protocol, stream, carrier)),
            Ok(Err(failure)) => Err(failure.into_error(peer, protocol)),
            Err(_) => Err(OpenError::Lost { peer, reason: "it was closed".to_owned() }),
        }
    }

    /// The peers that are connected and admitted, as they come and go.
    pub fn peers(&self) -> watch::Receiver<Arc<PeerTable>> {
        self.0.peers.clone()
    }

    /// Takes a roster if the farm signed it and it is newer than the one held; then disconnects whom it revokes. Whether it was taken.
    pub fn set_roster(&self, roster: Signed<Roster>) -> Result<bool, RosterError> {
        let held = self.roster();
        check_news(self.0.membership.farm, &roster, held.as_deref().map(|held| &held.value), event_loop::unix_now())?;
        Ok(self.0.roster.send_if_modified(|held| {
            // One that came meanwhile may have revoked this one's signer.
            if held.as_ref().is_some_and(|held| revokes_signer(&held.value, &roster)) {
                return false;
            }
            let newer = held.as_ref().is_none_or(|held| roster.value.version > held.value.version);
            if newer {
                *held = Some(Arc::new(roster));
            }
            newer
        }))
    }

    /// As [`set_roster`](Self::set_roster), for a roster that came from another member than the coordinator: it counts only if everybody
    /// stays revoked who is. A coordinator that was made anew has not heard of all revocations at first, and asks before it tells.
    pub fn hear_roster(&self, roster: Signed<Roster>) -> Result<bool, RosterError> {
        let forgets = |held: &Arc<Signed<Roster>>| {
            held.value.revoked.iter().any(|peer| roster.value.revoked.binary_search(peer).is_err())
        };
        if self.0.roster.borrow().as_ref().is_some_and(forgets) {
            return check_roster(self.0.membership.farm, &roster).map(|()| false);
        }
        self.set_roster(roster)
    }

    /// Rosters as they come.
    pub fn rosters(&self) -> watch::Receiver<Option<Arc<Signed<Roster>>>> {
        self.0.roster.subscribe()
    }

    /// The newest roster known.
    pub fn roster(&self) -> Option<Arc<Signed<Roster>>> {
        self.0.roster.borrow().clone()
    }

    /// Number of inbound streams that were reset because nobody took them from [`Inbound`] in time.
    pub fn n_refused_streams(&self) -> u64 {
        self.0.n_refused.load(Ordering::Relaxed)
    }

    /// Closes all connections and ends all tasks of the node. Every other call fails from then on.
    pub async fn shutdown(&self) {
        self.0.tasks.stop(SHUTDOWN_GRACE).await;
    }
}
