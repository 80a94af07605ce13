//! A libp2p behaviour that opens and accepts streams, each on a known connection.
//!
//! Inbound streams reach the event loop in order, with back-pressure on the connection that they come from, so none is lost. An outbound
//! stream is asked for on one connection and answered through a oneshot, so the event loop never waits for it. All state of a connection
//! lives in its handler and goes with it. Not here: who may open what.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::node::OpenError;

/// Inbound streams of one connection that are negotiated and not yet with the event loop. libp2p negotiates no more than this at once.
const MAX_QUEUED_INBOUND: usize = 128;

/// Why a stream could not be opened.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// The other side does not know the protocol.
    Unsupported,
    /// The connection failed, or the other side did not answer in time.
    Lost(String),
}

impl OpenFailure {
    pub(crate) fn into_error(self, peer: PeerId, protocol: Protocol) -> OpenError {
        match self {
            Self::Unsupported => OpenError::Unsupported { peer, protocol },
            Self::Lost(reason) => OpenError::Lost { peer, reason },
        }
    }
}

/// What comes of asking for a stream.
pub(crate) type Opened = Result<Stream, OpenFailure>;

/// The answer's way back, and the permit that bounds how many there are.
pub(crate) struct Asked {
    reply: oneshot::Sender<Opened>,
    _permit: OwnedSemaphorePermit,
}

/// A stream that is wanted on one connection.
pub(crate) struct OpenRequest {
    protocol: Protocol,
    asked: Asked,
}

impl fmt::Debug for OpenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenRequest({})", self.protocol.id())
    }
}

/// A stream that the other side opened.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) peer: libp2p::PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) protocol: Protocol,
    pub(crate) stream: Stream,
}

/// The behaviour.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Protocols that others may open.
    offered: &'static [Protocol],
    /// Bounded by what the swarm has not polled yet: it takes everything before it waits.
    queue: VecDeque<ToSwarm<Incoming, OpenRequest>>,
}

impl Streams {
    pub(crate) fn new(offered: &'static [Protocol]) -> Self {
        Self { offered, queue: VecDeque::new() }
    }

    /// Asks for a stream on a connection. If the connection is gone the answer's sender is dropped. The permit is given back when the
    /// stream is open or has failed.
    pub(crate) fn open(
        &mut self,
        peer: libp2p::PeerId,
        connection: ConnectionId,
        protocol: Protocol,
        permit: OwnedSemaphorePermit,
    ) -> oneshot::Receiver<Opened> {
        let (reply, opened) = oneshot::channel();
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: OpenRequest { protocol, asked: Asked { reply, _permit: permit } },
        });
        opened
    }

    /// Number of requests that the swarm has not taken yet.
    pub(crate) fn n_queued(&self) -> usize {
        self.queue.len()
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = StreamsHandler;
    type ToSwarm = Incoming;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: libp2p::PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(StreamsHandler::new(self.offered))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: libp2p::PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(StreamsHandler::new(self.offered))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        peer: libp2p::PeerId,
        connection: ConnectionId,
        (protocol, stream): THandlerOutEvent<Self>,
    ) {
        self.queue.push_back(ToSwarm::GenerateEvent(Incoming { peer, connection, protocol, stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // No waker is kept: only calls from the task that polls the swarm fill the queue.
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The part of the behaviour that lives with one connection.
pub(crate) struct StreamsHandler {
    offered: &'static [Protocol],
    wanted: VecDeque<OpenRequest>,
    accepted: VecDeque<(Protocol, Stream)>,
}

impl StreamsHandler {
    fn new(offered: &'static [Protocol]) -> Self {
        Self { offered, wanted: VecDeque::new(), accepted: VecDeque::new() }
    }
}

impl ConnectionHandler for StreamsHandler {
    type FromBehaviour = OpenRequest;
    type ToBehaviour = (Protocol, Stream);
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Asked;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer::These(self.offered), ())
    }

    /// The event loop decides which connections end, not idleness.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, Asked, (Protocol, Stream)>> {
        if let Some(OpenRequest { protocol, asked }) = self.wanted.pop_front() {
            let protocol = SubstreamProtocol::new(Offer::This(protocol), asked);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.accepted
            .pop_front()
            .map_or(Poll::Pending, |accepted| Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(accepted)))
    }

    fn on_behaviour_event(&mut self, request: OpenRequest) {
        // Bounded by the permits that the requests hold.
        self.wanted.push_back(request);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Asked>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: accepted, info: () })
                if self.accepted.len() < MAX_QUEUED_INBOUND =>
            {
                self.accepted.push_back(accepted);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (_, stream), info }) => {
                // Whoever asked may have given up: then the stream is reset by being dropped.
                let _ = info.reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let failure = match error {
                    StreamUpgradeError::NegotiationFailed => OpenFailure::Unsupported,
                    StreamUpgradeError::Timeout => OpenFailure::Lost("it does not answer in time".to_owned()),
                    StreamUpgradeError::Io(error) => OpenFailure::Lost(error.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.reply.send(Err(failure));
            }
            _ => {}
        }
    }
}

/// The protocols of one negotiation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Offer {
    /// Any that others may open.
    These(&'static [Protocol]),
    /// The one that we open.
    This(Protocol),
}

/// A protocol by its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named(Protocol);

impl AsRef<str> for Named {
    fn as_ref(&self) -> &str {
        self.0.id()
    }
}

impl UpgradeInfo for Offer {
    type Info = Named;
    type InfoIter = std::vec::IntoIter<Named>;

    fn protocol_info(&self) -> Self::InfoIter {
        let names: Vec<_> = match self {
            Self::These(protocols) => protocols.iter().copied().map(Named).collect(),
            Self::This(protocol) => vec![Named(*protocol)],
        };
        names.into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, Named(protocol): Named) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, Named(protocol): Named) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
