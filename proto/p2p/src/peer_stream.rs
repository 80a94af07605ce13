//! A stream between two peers: over a connection, packed where what it carries gains by it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use buildbee_proto::version::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::carrier::Carrier;
use crate::link_stream::LinkStream;
use crate::packed::Packed;
use crate::worth::Effort;

/// A stream to a peer.
///
/// Dropping it resets it, `shutdown()` ends our side cleanly; what was written leaves with `flush()` at the latest. Reads and writes fail
/// with `ConnectionReset` if the other side dropped the stream, and as soon as the node lets go of the connection (the peer fell silent
/// or was revoked), even where the network has not noticed yet. One gap, on streams that are not packed: after our own `shutdown()` a
/// reset by the other side reads as a clean end, so a protocol in which one side ends first must say in its bytes when the answer is
/// complete.
pub struct PeerStream(Kind);

enum Kind {
    Plain(LinkStream),
    Packed(Box<Packed<LinkStream>>),
}

impl PeerStream {
    /// Over `stream`, which `protocol` was negotiated for.
    pub(crate) fn new(protocol: Protocol, stream: libp2p::Stream, carrier: Carrier) -> Self {
        let link = LinkStream::new(stream, carrier.gone);
        // Inputs and results are mostly text, what is fetched mostly toolchains.
        let effort = if protocol == Protocol::Action { Effort::Usual } else { Effort::Quick };
        Self(if protocol.is_packed() {
            Kind::Packed(Box::new(Packed::new(effort, carrier.worth, link)))
        } else {
            Kind::Plain(link)
        })
    }
}

impl fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerStream")
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Packed(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Packed(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Packed(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Packed(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
