//! A stream of the multiplexer, as bytes both ways.
//!
//! The multiplexer shows a reset to a reader as a clean end. That is put right here, as far as it can be: while our side is open a
//! reader that meets the end asks whether it could still write, which it can't after a reset.

use std::fmt;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A stream over a connection.
///
/// Dropping it resets it, `shutdown()` ends our side cleanly. Reads and writes fail with `ConnectionReset` if the other side dropped the
/// stream, and as soon as the node lets go of the connection (the peer fell silent or was revoked), even where the network has
/// not noticed yet. One gap: after our own `shutdown()` a reset by the other side reads as a clean end, so a protocol in which one side
/// ends first must say in its bytes when the answer is complete.
pub(crate) struct LinkStream {
    inner: Compat<libp2p::Stream>,
    /// Ends when the connection is given up.
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Writing,
    /// Whether the other side was found to have ended cleanly.
    ended: bool,
}

/// State of our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    /// Nobody waits.
    Open,
    /// A writer waits for room; its waker must not be replaced.
    Parked,
    /// Shut down.
    Ended,
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the other side dropped the stream")
}

impl LinkStream {
    pub(crate) fn new(stream: libp2p::Stream, gone: CancellationToken) -> Self {
        Self { inner: stream.compat(), gone: Box::pin(gone.cancelled_owned()), writing: Writing::Open, ended: false }
    }

    /// The result of a poll, or an error if the connection was given up meanwhile.
    fn unless_gone<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the connection was given up")));
        }
        polled
    }

    /// Tells a clean end from a reset.
    fn on_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let may_ask = !self.ended && self.writing == Writing::Open;
        if may_ask && let Poll::Ready(Err(_)) = Pin::new(&mut self.inner).poll_write(cx, &[]) {
            return Err(reset());
        }
        // Writing from now on may bring a reset of its own: the end stays what it was.
        self.ended = true;
        Ok(())
    }
}

impl fmt::Debug for LinkStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkStream")
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        ready!(self.unless_gone(cx, polled))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            return Poll::Ready(self.on_end(cx));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if self.writing != Writing::Ended {
            self.writing = if polled.is_pending() { Writing::Parked } else { Writing::Open };
        }
        self.unless_gone(cx, polled).map_err(|error| match error.kind() {
            // What the multiplexer calls writing to a stream that was reset.
            io::ErrorKind::WriteZero => reset(),
            _ => error,
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.unless_gone(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writing = Writing::Ended;
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.unless_gone(cx, polled)
    }
}
