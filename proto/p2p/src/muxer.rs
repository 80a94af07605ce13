//! Yamux, with longer frames than libp2p lets one ask for.
//!
//! A frame is copied, encrypted, sent and woken for by itself, and libp2p's are 16 KiB. Ours fill one message of Noise. Any
//! implementation of Yamux reads them, so the protocol's name is Yamux's. All else is the `yamux` crate's, with its defaults.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use yamux::{Connection, ConnectionError, Mode};

/// Content of one frame, in bytes: with its head of 12, what libp2p's Noise puts into one message.
const FRAME_BYTES: usize = (64 << 10) - 1 - 1024 - 12;
/// Streams that the other side has opened and nobody has taken yet; more are reset. Who has this many without an answer opens no more.
const MAX_WAITING: usize = 256;

/// The upgrade of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Yamux;

impl Yamux {
    fn on<C: AsyncRead + AsyncWrite + Unpin>(connection: C, mode: Mode) -> Muxer<C> {
        let mut config = yamux::Config::default();
        config.set_split_send_size(FRAME_BYTES);
        Muxer { connection: Connection::new(connection, config, mode), waiting: VecDeque::new(), taker: None }
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_inbound(self, connection: C, _: &'static str) -> Self::Future {
        ready(Ok(Self::on(connection, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_outbound(self, connection: C, _: &'static str) -> Self::Future {
        ready(Ok(Self::on(connection, Mode::Client)))
    }
}

/// A connection with many streams.
#[derive(Debug)]
pub(crate) struct Muxer<C> {
    connection: Connection<C>,
    /// The connection moves on only by being asked for its next stream, whoever asks and for whatever reason.
    waiting: VecDeque<yamux::Stream>,
    taker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<yamux::Stream, ConnectionError>> {
        self.connection.poll_next_inbound(cx).map(|next| next.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = yamux::Stream;
    type Error = ConnectionError;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<yamux::Stream, ConnectionError>> {
        let this = self.get_mut();
        if let Some(stream) = this.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = this.poll_next(cx);
        if next.is_pending() {
            this.taker = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<yamux::Stream, ConnectionError>> {
        self.connection.poll_new_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(cx)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let this = self.get_mut();
        let stream = ready!(this.poll_next(cx))?;
        if this.waiting.len() < MAX_WAITING {
            this.waiting.push_back(stream);
            if let Some(taker) = this.taker.take() {
                taker.wake();
            }
        } else {
            tracing::debug!("a stream is dropped: too many wait");
        }
        // There may be more, after everybody else had a turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
