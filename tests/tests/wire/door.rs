//! Knocks at the door of a running coordinator or agent: whoever speaks libp2p and is no member.

use std::fs;
use std::path::Path;
use std::time::Duration;

use buildbee_p2p::frames::write_message;
use buildbee_proto::codec::Message;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use buildbee_tests::farm::Farm;
use futures::StreamExt as _;
use libp2p::core::Transport as _;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Stream, StreamProtocol, Swarm, noise, tcp, yamux};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

/// Nothing here takes longer unless it is broken.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Where a member of the farm listens.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<String>,
}

impl Door {
    fn read(ready: &Path) -> Self {
        let ready: serde_json::Value = serde_json::from_slice(&fs::read(ready).unwrap()).unwrap();
        let addresses = ready["addresses"].as_array().unwrap();
        Self {
            peer: ready["peer"].as_str().unwrap().parse().unwrap(),
            addresses: addresses.iter().map(|address| address.as_str().unwrap().to_owned()).collect(),
        }
    }

    pub(crate) fn coordinator(farm: &Farm) -> Self {
        Self::read(&farm.path("coordinator.ready"))
    }

    pub(crate) fn agent(farm: &Farm, n: usize) -> Self {
        Self::read(&farm.path(&format!("desk{n}.ready")))
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.addresses[0].parse().unwrap()
    }

    fn network_id(&self) -> libp2p::PeerId {
        let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(&self.peer.0).unwrap();
        libp2p::identity::PublicKey::from(key).to_peer_id()
    }
}

/// Our form of a key.
pub(crate) fn peer_of(key: &Keypair) -> PeerId {
    PeerId(key.public().try_into_ed25519().unwrap().to_bytes())
}

/// Somebody with a key, a connection, and no papers.
pub(crate) struct Stranger {
    control: libp2p_stream::Control,
    closed: watch::Receiver<bool>,
    door: Door,
}

impl Stranger {
    /// Connects: TCP, Noise, Yamux. `None` where the door is shut at once, as it is to a crowd.
    pub(crate) async fn connect(key: &Keypair, door: &Door) -> Option<Self> {
        let transport = tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(SOON * 10);
        let behaviour = libp2p_stream::Behaviour::new();
        let control = behaviour.new_control();
        let mut swarm = Swarm::new(transport, behaviour, key.public().to_peer_id(), config);
        let address = door.address();
        let mut full = Multiaddr::from(address.ip());
        full.push(Part::Tcp(address.port()));
        full.push(Part::P2p(door.network_id()));
        swarm.dial(full).unwrap();
        loop {
            match timeout(SOON, swarm.select_next_some()).await.ok()? {
                SwarmEvent::ConnectionEstablished { .. } => break,
                SwarmEvent::OutgoingConnectionError { .. } => return None,
                _ => {}
            }
        }
        let (tx, closed) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                if let SwarmEvent::ConnectionClosed { .. } = swarm.select_next_some().await {
                    tx.send_replace(true);
                }
            }
        });
        Some(Self { control, closed, door: door.clone() })
    }

    pub(crate) async fn open(&mut self, protocol: Protocol) -> Option<Compat<Stream>> {
        let name = StreamProtocol::new(protocol.id());
        let opened = self.control.open_stream(self.door.network_id(), name);
        Some(timeout(SOON, opened).await.expect("opening hangs").ok()?.compat())
    }

    /// What comes back for a well-formed request: nothing, if all is well.
    pub(crate) async fn ask<M: Message + Sync>(&mut self, protocol: Protocol, message: &M) -> Vec<u8> {
        let mut answer = Vec::new();
        if let Some(mut stream) = self.open(protocol).await {
            // Both fail where the stream was reset, as it should be.
            let _ = write_message(&mut stream, message).await;
            let _ = stream.shutdown().await;
            let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("reading hangs");
        }
        answer
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(crate) async fn until_closed(&mut self, within: Duration) {
        let closed = timeout(within, self.closed.wait_for(|closed| *closed)).await;
        assert!(closed.is_ok(), "the connection is still open after {within:?}");
    }
}
