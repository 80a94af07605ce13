//! Reads more from a socket at once than was asked for, while there is much to read.
//!
//! Noise asks for 8 KiB at a time (`asynchronous-codec` does), which makes 131,072 system calls of a GiB. Who has little to say costs no
//! memory: there is a buffer only from a read that was filled on until one that is not. Not here: writing, which goes through as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};

/// What is read at once, in bytes.
const AHEAD_BYTES: usize = 128 << 10;
/// A read of at least so much says that there is more.
const MUCH_BYTES: usize = 8 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct ReadAhead<T> {
    inner: T,
    /// Empty, or `AHEAD_BYTES` long.
    buffer: Vec<u8>,
    /// What of it is still to be taken: from, to.
    taken: usize,
    filled: usize,
    is_much: bool,
}

impl<T> ReadAhead<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, buffer: Vec::new(), taken: 0, filled: 0, is_much: false }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, wanted: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.taken == this.filled {
            if !this.is_much {
                this.buffer = Vec::new();
            }
            if !this.is_much || wanted.len() >= AHEAD_BYTES {
                let n = ready!(Pin::new(&mut this.inner).poll_read(cx, wanted))?;
                this.is_much = n >= MUCH_BYTES;
                return Poll::Ready(Ok(n));
            }
            this.buffer.resize(AHEAD_BYTES, 0);
            let n = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut this.buffer))?;
            (this.taken, this.filled, this.is_much) = (0, n, n >= MUCH_BYTES);
        }
        let n = wanted.len().min(this.filled - this.taken);
        wanted[..n].copy_from_slice(&this.buffer[this.taken..this.taken + n]);
        this.taken += n;
        Poll::Ready(Ok(n))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::AsyncReadExt as _;

    use super::*;

    /// Gives what it has in these pieces, and says how much it was asked for.
    struct Pieces {
        pieces: VecDeque<Vec<u8>>,
        asked: Vec<usize>,
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, wanted: &mut [u8]) -> Poll<io::Result<usize>> {
            self.asked.push(wanted.len());
            let Some(mut piece) = self.pieces.pop_front() else { return Poll::Ready(Ok(0)) };
            let n = piece.len().min(wanted.len());
            wanted[..n].copy_from_slice(&piece[..n]);
            if n < piece.len() {
                let rest = piece.split_off(n);
                self.pieces.push_front(rest);
            }
            Poll::Ready(Ok(n))
        }
    }

    #[tokio::test]
    async fn much_is_read_at_once_and_little_without_a_buffer() {
        let content: Vec<u8> = (0..1_000_003u64).map(|n| u8::try_from(n * n / 251 % 256).unwrap()).collect();
        let (head, tail) = content.split_at(1_000_000);
        let pieces = [vec![1; 100], head.to_vec(), tail.to_vec()].into();
        let mut reader = ReadAhead::new(Pieces { pieces, asked: Vec::new() });
        let mut read = vec![0; 100];
        reader.read_exact(&mut read).await.unwrap();
        assert!(reader.buffer.is_empty() && read == [1; 100]);
        let mut read = Vec::new();
        let mut some = vec![0; MUCH_BYTES];
        loop {
            match reader.read(&mut some).await.unwrap() {
                0 => break,
                n => read.extend_from_slice(&some[..n]),
            }
        }
        assert!(read == content);
        // The first read of much is not known to be one, and the last says that it is over.
        let n_large = reader.inner.asked.iter().filter(|n| **n == AHEAD_BYTES).count();
        assert_eq!((n_large, reader.inner.asked.len()), (1_000_000usize.div_ceil(AHEAD_BYTES) + 1, n_large + 3));
        assert!(reader.buffer.is_empty());
    }
}
