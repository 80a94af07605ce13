//! Which libp2p behaviours and transports a node is made of.
//!
//! Not here: what is done with their events.

use std::time::Duration;

use buildbee_proto::version::Protocol;
use libp2p::core::Transport as _;
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Swarm, mdns, noise, ping, tcp};

use crate::connection_limits::{ConnectionLimits, Limits};
use crate::muxer::Yamux;
use crate::read_ahead::ReadAhead;
use crate::streams::Streams;
use crate::tasks::Tasks;

/// Connections. Two to a peer, because both sides may dial at once.
const LIMITS: Limits = Limits { pending_inbound: 64, pending_outbound: 256, established: 512, per_peer: 2 };
/// For how long a connection may take to prove its key.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often each side asks whether the other one lives.
const PING_INTERVAL: Duration = Duration::from_secs(4);
/// For how long a ping may be under way.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the local network is asked for peers.
const MDNS_QUERY_INTERVAL: Duration = Duration::from_secs(30);
/// For how long an announcement counts.
const MDNS_TTL: Duration = Duration::from_secs(90);

/// What others may open to an ordinary node.
const OFFERED: [Protocol; 7] = [
    Protocol::Hello,
    Protocol::Control,
    Protocol::Action,
    Protocol::Blob,
    Protocol::Cache,
    Protocol::StorePath,
    Protocol::Papers,
];

/// The behaviours of a node. The limits come first, so that what they refuse costs the others nothing.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: ConnectionLimits,
    pub(crate) streams: Streams,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    /// Whether multicast has an address of the peer.
    pub(crate) fn mdns_knows(&self, peer: &libp2p::PeerId) -> bool {
        self.mdns.as_ref().is_some_and(|mdns| mdns.discovered_nodes().any(|known| known == peer))
    }
}

/// What a swarm is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    pub(crate) mdns: bool,
    pub(crate) accept_joins: bool,
}

/// A swarm whose connection tasks run in `tasks`. The error is the library's text.
pub(crate) fn swarm(key: &Keypair, abilities: Abilities, tasks: &Tasks) -> Result<Swarm<Behaviour>, String> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let transport = tcp
        .or_transport(MemoryTransport::default())
        .map(|connection, _| ReadAhead::new(connection))
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(key).map_err(|error| error.to_string())?)
        .multiplex(Yamux)
        .timeout(HANDSHAKE_TIMEOUT)
        .boxed();
    let own = key.public().to_peer_id();
    let behaviour = Behaviour {
        limits: ConnectionLimits::new(LIMITS),
        streams: Streams::new(if abilities.accept_joins { &Protocol::ALL } else { &OFFERED }),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT)),
        mdns: Toggle::from(if abilities.mdns { start_mdns(own) } else { None }),
    };
    let tasks = tasks.clone();
    let config = libp2p::swarm::Config::with_executor(move |future| tasks.spawn("connection", future));
    Ok(Swarm::new(transport, behaviour, own, config))
}

/// Many networks have no multicast: then static addresses have to do.
fn start_mdns(own: libp2p::PeerId) -> Option<mdns::tokio::Behaviour> {
    let config = mdns::Config { ttl: MDNS_TTL, query_interval: MDNS_QUERY_INTERVAL, enable_ipv6: false };
    mdns::tokio::Behaviour::new(config, own)
        .inspect_err(|error| tracing::warn!(%error, "peers can't be looked for by multicast; configured addresses are used alone"))
        .ok()
}
