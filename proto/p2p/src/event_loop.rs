//! The one task that polls the swarm.
//!
//! It routes: commands and desired state in, streams and the peer table out. It hashes nothing, touches no disk and waits for nothing
//! that can fill: inbound streams are offered to a bounded queue and reset if it is full, and every exchange with a peer runs as a step
//! of its own. Life cycle: spawned by [`start`], ends when it is told to stop or when the last handle is gone. The parts:
//!
//! | file | job |
//! |---|---|
//! | `entry.rs` | what is known of one peer and of one connection |
//! | `links.rs` | connections come, go, fall silent |
//! | `admit.rs` | memberships are exchanged |
//! | `dialling.rs` | whom to dial and when |
//! | `routing.rs` | streams both ways |

mod admit;
mod dialling;
mod entry;
mod links;
mod routing;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::Bytes;
use buildbee_proto::membership::{Membership, Roster, Signed, UnixSeconds};
use buildbee_proto::peer::{PeerId, Role};
use buildbee_proto::version::Protocol;
use futures::StreamExt as _;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, mdns, ping};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address;
use crate::admission::Gate;
use crate::behaviour::{Abilities, Behaviour, BehaviourEvent, swarm};
use crate::carrier::Carrier;
use crate::complaints::Complaints;
use crate::inbound::{Inbound, InboundStream, MAX_WAITING_STREAMS};
use crate::node::{ConnectError, MAX_WAITING_COMMANDS, NodeConfig, OpenError, StartError, Wanted, check_roster};
use crate::peer_table::PeerTable;
use crate::streams::Opened;
use crate::tasks::Tasks;
use admit::Step;
use entry::Entry;

/// Stream requests that the swarm may not have taken before commands have to wait.
const MAX_QUEUED_OPENS: usize = 512;
/// For how long `start` waits for the addresses of its listeners.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(2);
/// For how long connections may take to close when the node stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a handle asks of the event loop.
pub(crate) enum Command {
    /// Dial and exchange memberships.
    Connect { peer: PeerId, addresses: Vec<Multiaddr>, reply: oneshot::Sender<Result<(), ConnectError>> },
    /// Open a stream to an admitted peer. The reply says on which connection, and where the stream will come from.
    Open { peer: PeerId, protocol: Protocol, reply: oneshot::Sender<Result<Opening, OpenError>> },
    /// Dial whoever is there and exchange memberships.
    Meet { addresses: Vec<Multiaddr> },
}

/// A stream that is being opened, and the connection that will carry it.
pub(crate) type Opening = (oneshot::Receiver<Opened>, Carrier);

/// The ends of a started event loop that a handle holds.
pub(crate) struct Started {
    pub(crate) peer: PeerId,
    pub(crate) membership: Membership,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) wanted: watch::Sender<Wanted>,
    pub(crate) roster: watch::Sender<Option<Arc<Signed<Roster>>>>,
    pub(crate) papers: watch::Sender<Bytes>,
    pub(crate) peers: watch::Receiver<Arc<PeerTable>>,
    pub(crate) listening: watch::Receiver<Vec<(ListenerId, String)>>,
    pub(crate) n_refused: Arc<AtomicU64>,
    pub(crate) tasks: Tasks,
    pub(crate) inbound: Inbound,
}

/// The state of the task.
struct EventLoop {
    swarm: Swarm<Behaviour>,
    own: PeerId,
    /// Our membership as it is shown to others.
    papers: watch::Receiver<Bytes>,
    gate: Gate,
    accept_joins: bool,
    /// Whether what can be packed is, on the fastest of links too.
    packs_always: bool,
    /// Peers that are connected, being dialled or wanted: bounded by the connection limits and `MAX_KEPT_PEERS`.
    peers: HashMap<PeerId, Entry>,
    commands: mpsc::Receiver<Command>,
    wanted: watch::Receiver<Wanted>,
    roster: watch::Receiver<Option<Arc<Signed<Roster>>>>,
    table: watch::Sender<Arc<PeerTable>>,
    listening: watch::Sender<Vec<(ListenerId, String)>>,
    inbound: mpsc::Sender<InboundStream>,
    n_refused: Arc<AtomicU64>,
    /// Exchanges and look-ups under way: at most one a connection and one a wanted peer.
    steps: JoinSet<Step>,
    complaints: Complaints,
    /// Stays of all peers, those that are over included.
    n_stays: u64,
    stopping: CancellationToken,
    /// When the next deadline of any peer or connection may be due.
    wake_at: Instant,
}

/// Seconds since the epoch, by the system's clock.
pub(crate) fn unix_now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A random number for jitter. Where the kernel has none, jitter is the least of our worries.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// Checks the configuration, listens, and spawns the task.
pub(crate) async fn start(config: NodeConfig) -> Result<Started, StartError> {
    let own = config.identity.peer();
    let farm = config.membership.value.farm;
    if let Some(roster) = &config.roster {
        check_roster(farm, roster)?;
    }
    let (papers_tx, papers) = watch::channel(Bytes(config.membership.to_canonical()));
    let gate = Gate { farm, roster: config.roster.map(Arc::new) };
    let membership = gate.check_signed(config.membership, own, unix_now()).map_err(StartError::Membership)?;

    let tasks = Tasks::new();
    let abilities = Abilities { mdns: config.mdns, accept_joins: config.accept_joins };
    let mut swarm =
        swarm(&config.identity.to_libp2p(), abilities, &tasks).map_err(|reason| StartError::Transport { reason })?;
    let n_listeners = listen(&mut swarm, &config.listen).await?;

    let (command_tx, commands) = mpsc::channel(MAX_WAITING_COMMANDS);
    let (inbound_tx, queue) = mpsc::channel(MAX_WAITING_STREAMS);
    let (wanted_tx, wanted) = watch::channel(Wanted::new());
    let (roster_tx, roster) = watch::channel(gate.roster.clone());
    let (table, peers) = watch::channel(Arc::default());
    let (listening_tx, mut listening) = watch::channel(Vec::new());
    let n_refused = Arc::new(AtomicU64::new(0));
    let now = Instant::now();
    let event_loop = EventLoop {
        swarm,
        own,
        papers,
        gate,
        accept_joins: config.accept_joins,
        packs_always: membership.role == Role::Client,
        peers: HashMap::new(),
        commands,
        wanted,
        roster,
        table,
        listening: listening_tx,
        inbound: inbound_tx,
        n_refused: Arc::clone(&n_refused),
        steps: JoinSet::new(),
        complaints: Complaints::new(now),
        n_stays: 0,
        stopping: tasks.token(),
        wake_at: now,
    };
    tasks.spawn("event loop", Box::pin(event_loop.run()));
    let all_bound = listening.wait_for(|known| {
        let listeners: HashSet<_> = known.iter().map(|(listener, _)| *listener).collect();
        listeners.len() >= n_listeners
    });
    // A wildcard on a machine without that kind of interface is bound but has no address: not an error.
    let _ = tokio::time::timeout(LISTEN_TIMEOUT, all_bound).await;
    Ok(Started {
        peer: own,
        membership,
        commands: command_tx,
        wanted: wanted_tx,
        roster: roster_tx,
        papers: papers_tx,
        peers,
        listening,
        n_refused,
        tasks,
        inbound: Inbound { queue },
    })
}

/// Binds every address; the number of listeners.
async fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[String]) -> Result<usize, StartError> {
    let mut n_listeners = 0;
    for text in addresses {
        for address in address::resolve(text).await? {
            swarm
                .listen_on(address)
                .map_err(|error| StartError::Listen { address: text.clone(), reason: error.to_string() })?;
            n_listeners += 1;
        }
    }
    Ok(n_listeners)
}

impl EventLoop {
    async fn run(mut self) {
        loop {
            let has_room = self.swarm.behaviour().streams.n_queued() < MAX_QUEUED_OPENS;
            tokio::select! {
                () = self.stopping.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                command = self.commands.recv(), if has_room => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                Some(step) = self.steps.join_next() => match step {
                    Ok(step) => self.on_step(step),
                    Err(error) => tracing::error!(%error, "a step panicked: this is a bug"),
                },
                Ok(()) = self.wanted.changed() => self.on_wanted_changed(),
                Ok(()) = self.roster.changed() => self.on_roster_changed(),
                () = tokio::time::sleep_until(self.wake_at) => self.sweep(),
            }
        }
        self.close().await;
    }

    /// Says goodbye to everybody.
    async fn close(mut self) {
        self.steps.abort_all();
        self.inbound = mpsc::channel(1).0;
        self.commands.close();
        let peers = std::mem::take(&mut self.peers);
        for entry in peers.values() {
            for link in &entry.links {
                link.carrier.gone.cancel();
            }
        }
        drop(peers);
        self.table.send_replace(Arc::default());
        let open: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in open {
            // An error means that it is closed already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Streams(incoming)) => self.on_incoming(incoming),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, connection, result: Ok(_) })) => {
                self.on_sign_of_life(&peer, connection);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => self.on_hints(&found),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let reason = cause.map_or_else(|| "the other side closed it".to_owned(), |cause| cause.to_string());
                self.on_closed(&peer_id, connection_id, reason);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id: Some(peer), error } => {
                self.on_dial_error(&peer, connection_id, error);
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                let text = address::to_text(&address);
                tracing::info!(address = %text, "listening");
                self.listening.send_modify(|known| known.push((listener_id, text)));
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                let text = address::to_text(&address);
                self.listening.send_modify(|known| known.retain(|known| *known != (listener_id, text.clone())));
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                tracing::warn!(?reason, "no longer listening");
                self.listening.send_modify(|known| known.retain(|(id, _)| *id != listener_id));
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
            }
            _ => {}
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Connect { peer, addresses, reply } => self.on_connect(peer, addresses, reply),
            // The asker may have given up: then the stream is reset when it comes.
            Command::Open { peer, protocol, reply } => drop(reply.send(self.on_open(peer, protocol))),
            Command::Meet { addresses } => self.on_meet(addresses),
        }
    }

    /// Wakes the task no later than `at`.
    fn wake_by(&mut self, at: Instant) {
        self.wake_at = self.wake_at.min(at);
    }

    /// Shows who is connected and admitted.
    fn publish(&self) {
        let mut connected: Vec<_> = self.peers.iter().filter_map(|(peer, entry)| entry.shown(*peer)).collect();
        connected.sort_unstable_by_key(|entry| entry.peer);
        self.table.send_if_modified(|table| {
            let changed = table.0 != connected;
            if changed {
                *table = Arc::new(PeerTable(connected));
            }
            changed
        });
    }
}
