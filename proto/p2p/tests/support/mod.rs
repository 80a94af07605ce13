//! What the tests of this crate share: served echoes, waits, captured logs, and a stranger.

#![expect(dead_code, reason = "each test program uses a part of it")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buildbee_p2p::node::{Inbound, Node, OpenError, PeerStream};
use buildbee_p2p::testbed::Member;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use futures::StreamExt as _;
use libp2p::core::Transport as _;
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, noise, yamux};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Nothing here takes longer unless it is broken.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Answers every stream with what it reads.
pub(crate) fn serve_echo(mut inbound: Inbound) {
    tokio::spawn(async move {
        while let Some(mut served) = inbound.next().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                if served.stream.read_to_end(&mut bytes).await.is_ok() {
                    let _ = served.stream.write_all(&bytes).await;
                    let _ = served.stream.shutdown().await;
                }
            });
        }
    });
}

/// Sends `bytes` and reads until the end.
pub(crate) async fn echo(node: &Node, peer: PeerId, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = open(node, peer).await.map_err(io::Error::other)?;
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await?;
    Ok(back)
}

pub(crate) async fn open(node: &Node, peer: PeerId) -> Result<PeerStream, OpenError> {
    tokio::time::timeout(SOON, node.open(peer, Protocol::Action)).await.expect("opening hangs")
}

/// Waits until `peer` is, or is not, in the node's table.
pub(crate) async fn until_connected(node: &Node, peer: PeerId, expected: bool, within: Duration) {
    let mut peers = node.peers();
    let reached = tokio::time::timeout(within, peers.wait_for(|table| table.contains(peer) == expected)).await;
    assert!(reached.is_ok(), "waited {within:?} for connected = {expected}");
}

pub(crate) async fn connect(from: &Member, to: &Member) {
    from.node.connect(to.node.peer(), &to.addresses, SOON).await.unwrap();
}

/// Log lines of this thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Captures warnings of this thread from now on.
    pub(crate) fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn lines_with(&self, text: &str) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

/// Somebody who speaks libp2p and whatever they like on top of it.
pub(crate) struct Stranger {
    pub(crate) control: libp2p_stream::Control,
    pub(crate) closed: tokio::sync::watch::Receiver<bool>,
}

impl Stranger {
    /// Connects to a member over the memory transport.
    pub(crate) async fn connect(key: Keypair, to: &Member) -> Self {
        let network = network_id(to.node.peer());
        let transport = MemoryTransport::default()
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let config =
            libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
        let behaviour = libp2p_stream::Behaviour::new();
        let control = behaviour.new_control();
        let mut swarm = Swarm::new(transport, behaviour, key.public().to_peer_id(), config);
        let number: u64 = to.addresses[0].strip_prefix("memory:").unwrap().parse().unwrap();
        swarm.dial(Multiaddr::from(Part::Memory(number)).with(Part::P2p(network))).unwrap();
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => break,
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
        let (tx, closed) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            loop {
                if let SwarmEvent::ConnectionClosed { .. } = swarm.select_next_some().await {
                    tx.send_replace(true);
                }
            }
        });
        Self { control, closed }
    }

    pub(crate) async fn open(
        &mut self,
        to: &Member,
        protocol: Protocol,
    ) -> Result<tokio_util::compat::Compat<libp2p::Stream>, libp2p_stream::OpenStreamError> {
        use tokio_util::compat::FuturesAsyncReadCompatExt as _;
        let name = libp2p::StreamProtocol::new(protocol.id());
        let opened = self.control.open_stream(network_id(to.node.peer()), name);
        Ok(tokio::time::timeout(SOON, opened).await.expect("opening hangs")?.compat())
    }

    /// Whether a stream of this protocol is reset, or refused, without an answer.
    pub(crate) async fn gets_nothing(&mut self, to: &Member, protocol: Protocol) -> bool {
        let Ok(mut stream) = self.open(to, protocol).await else { return true };
        let _ = stream.write_all(b"hello").await;
        let _ = stream.flush().await;
        let mut byte = [0];
        let read = tokio::time::timeout(SOON, stream.read(&mut byte)).await.expect("reading hangs");
        !matches!(read, Ok(n) if n > 0)
    }

    pub(crate) async fn until_closed(&mut self, within: Duration) {
        let closed = tokio::time::timeout(within, self.closed.wait_for(|closed| *closed)).await;
        assert!(closed.is_ok(), "the connection is still open after {within:?}");
    }
}

/// libp2p's form of an id.
pub(crate) fn network_id(peer: PeerId) -> libp2p::PeerId {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(&peer.0).unwrap();
    libp2p::identity::PublicKey::from(key).to_peer_id()
}

/// Our form of a key.
pub(crate) fn peer_of(key: &Keypair) -> PeerId {
    PeerId(key.public().try_into_ed25519().unwrap().to_bytes())
}
