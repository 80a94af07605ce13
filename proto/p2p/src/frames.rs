//! Messages on a stream, one a frame: a length and a body.
//!
//! Not here: the encoding (`buildbee_proto::codec`) and what follows what.

use std::io;

use buildbee_proto::codec::{self, CodecError, FRAME_HEADER_BYTES, Message};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Memory taken on the word of a header alone, in bytes; more is taken as the body arrives.
const TRUSTED_BODY_BYTES: usize = 16 << 10;

/// Why a message could not be sent or received. The stream is of no more use.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("stream: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not the message, or it is too large.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The stream ended inside a frame.
    #[error("stream ended after {found} of {expected} bytes of a frame")]
    Truncated {
        /// Bytes that the header announced (or of the header itself).
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
}

/// Writes one frame and flushes it. Not cancel-safe: a frame may be left half written, so drop the stream then.
pub async fn write_message<M: Message, W: AsyncWrite + Unpin>(stream: &mut W, message: &M) -> Result<(), FrameError> {
    let frame = codec::to_frame(message)?;
    stream.write_all(&frame).await?;
    // Noise gathers small writes: without this the frame may never leave.
    stream.flush().await?;
    Ok(())
}

/// Writes some frames, each its own, and flushes them together. Not cancel-safe, as [`write_message`].
pub async fn write_messages<M: Message, W: AsyncWrite + Unpin>(
    stream: &mut W,
    messages: &[M],
) -> Result<(), FrameError> {
    let mut frames = Vec::new();
    for message in messages {
        frames.extend(codec::to_frame(message)?);
    }
    stream.write_all(&frames).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads one frame. `None` if the stream ended cleanly before one. Memory is bounded by what really arrives, and that by
/// [`Message::MAX_BYTES`]. Not cancel-safe: a frame may be left half read, so drop the stream then.
///
/// A clean end is no promise of success: a peer that dies just after we closed our side can look like this. Where the other side
/// owes an answer, `None` is a failure.
pub async fn read_message<M: Message, R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<M>, FrameError> {
    let Some(expected) = read_header::<M, R>(stream).await? else { return Ok(None) };
    read_body(stream, expected).await.map(Some)
}

/// The first part of [`read_message`]: how many bytes [`read_body`] is to read. In between, whoever serves many peers may wait until it has
/// room for so many.
pub async fn read_header<M: Message, R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<usize>, FrameError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    let mut found = 0;
    while found < header.len() {
        match stream.read(&mut header[found..]).await? {
            0 if found == 0 => return Ok(None),
            0 => return Err(FrameError::Truncated { expected: FRAME_HEADER_BYTES, found }),
            n => found += n,
        }
    }
    Ok(Some(codec::body_length::<M>(header)?))
}

/// The second part.
pub async fn read_body<M: Message, R: AsyncRead + Unpin>(stream: &mut R, expected: usize) -> Result<M, FrameError> {
    let mut body = Vec::with_capacity(expected.min(TRUSTED_BODY_BYTES));
    stream.take(expected as u64).read_to_end(&mut body).await?;
    if body.len() < expected {
        return Err(FrameError::Truncated { expected, found: body.len() });
    }
    Ok(codec::from_body(&body)?)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use buildbee_proto::control::Hello;
    use buildbee_proto::limits::MAX_HELLO_FRAME;
    use tokio::io::ReadBuf;

    use super::*;

    fn hello(n: usize) -> Hello {
        Hello { membership: codec::Bytes(vec![7; n]), features: 3 }
    }

    /// Hands out one byte at a time, and remembers the largest buffer it was offered.
    struct Trickle {
        bytes: Vec<u8>,
        at: usize,
        largest: usize,
    }

    impl AsyncRead for Trickle {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.largest = self.largest.max(buf.remaining());
            if let Some(&byte) = self.bytes.get(self.at) {
                buf.put_slice(&[byte]);
                self.at += 1;
            }
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn messages_cross_in_order_and_end_cleanly() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let sender = tokio::spawn(async move {
            for n in [0, 1, 40_000] {
                write_message(&mut near, &hello(n)).await.unwrap();
            }
        });
        for n in [0, 1, 40_000] {
            assert_eq!(read_message(&mut far).await.unwrap(), Some(hello(n)));
        }
        sender.await.unwrap();
        assert_eq!(read_message::<Hello, _>(&mut far).await.unwrap(), None);
    }

    #[tokio::test]
    async fn too_large_is_refused_on_both_sides() {
        let mut sink = Vec::new();
        assert!(matches!(
            write_message(&mut sink, &hello(MAX_HELLO_FRAME)).await,
            Err(FrameError::Codec(CodecError::TooLarge { .. }))
        ));
        assert!(sink.is_empty());
        let header = u32::MAX.to_le_bytes();
        assert!(matches!(
            read_message::<Hello, _>(&mut &header[..]).await,
            Err(FrameError::Codec(CodecError::TooLarge { .. }))
        ));
    }

    #[tokio::test]
    async fn every_cut_is_noticed() {
        let frame = codec::to_frame(&hello(100)).unwrap();
        for end in 1..frame.len() {
            let mut trickle = Trickle { bytes: frame[..end].to_vec(), at: 0, largest: 0 };
            assert!(matches!(read_message::<Hello, _>(&mut trickle).await, Err(FrameError::Truncated { .. })), "{end}");
        }
        let mut trickle = Trickle { bytes: frame, at: 0, largest: 0 };
        assert_eq!(read_message(&mut trickle).await.unwrap(), Some(hello(100)));
    }

    #[tokio::test]
    async fn a_header_alone_takes_little_memory() {
        /// Allowed to be large.
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Large(u8);
        impl Message for Large {
            const MAX_BYTES: usize = 1 << 30;
        }
        let mut bytes = (1_u32 << 30).to_le_bytes().to_vec();
        bytes.extend([0; 100]);
        let mut trickle = Trickle { bytes, at: 0, largest: 0 };
        assert!(read_message::<Large, _>(&mut trickle).await.is_err());
        assert!(trickle.largest <= TRUSTED_BODY_BYTES, "{} bytes were reserved", trickle.largest);
    }
}
