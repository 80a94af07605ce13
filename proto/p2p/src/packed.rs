//! Packs what crosses a stream: what is written between two flushes is gathered into blocks, and a block travels compressed where that
//! makes it smaller and is worth its while ([`crate::worth`]). Small files that follow each other share a block, which is where most of the gain is.
//!
//! ```text
//! block    u32 little-endian: bytes of the body; its highest bit says that the body is compressed
//!          u32 little-endian: bytes of the content            (compressed blocks only)
//!          the body: one zstd frame, or the content itself
//! the end  a block of no bytes
//! ```
//!
//! A block's content is bounded, and so is what a reader holds, whatever the other side claims. Each block stands alone, so that a stream
//! that waits keeps no compressor. Not here: which streams are packed (`peer_stream`), and what the bytes mean.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zstd::zstd_safe::{CParameter, ResetDirective};

use crate::worth::{Effort, Worth, thread_time};

/// Content of one block, in bytes. Measured on 700 C++ headers at the default level: blocks of 256 KiB take 5 % more, unbounded ones 2 % less.
const BLOCK_BYTES: usize = 1 << 20;
/// Shorter blocks gain nothing.
const LEAST_BYTES: usize = 128;
/// Marks a compressed block in its length.
const COMPRESSED: u32 = 1 << 31;
const WORD_BYTES: usize = 4;
/// Room for the longest head.
const HEAD_BYTES: usize = 2 * WORD_BYTES;
/// A write of so many bytes is one of many: room for a whole block is made at once.
const MUCH_BYTES: usize = 64 << 10;

thread_local! {
    // One each a thread: their tables are larger than most of what they are given.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A stream whose bytes travel packed. Both ends must be.
#[derive(Debug)]
pub(crate) struct Packed<S> {
    inner: S,
    effort: Effort,
    worth: Arc<Worth>,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// What is read next.
#[derive(Debug)]
enum Incoming {
    /// A block's head.
    Head { head: [u8; HEAD_BYTES], found: usize },
    /// The rest of a block that travels as it is.
    Plain { left: usize },
    /// A compressed block.
    Body { body: Vec<u8>, found: usize, n_content: usize },
    /// Content that nobody has taken yet.
    Content { content: Vec<u8>, taken: usize },
    /// The other side has ended.
    End,
}

#[derive(Debug, Default)]
struct Outgoing {
    /// Room for a head, and the content of the block being gathered; or nothing.
    gathered: Vec<u8>,
    /// A finished block on its way out, and how much of it has left or need not.
    block: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl Incoming {
    const START: Self = Self::Head { head: [0; HEAD_BYTES], found: 0 };
}

impl<S> Packed<S> {
    pub(crate) fn new(effort: Effort, worth: Arc<Worth>, inner: S) -> Self {
        Self { inner, effort, worth, incoming: Incoming::START, outgoing: Outgoing::default() }
    }
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// Reads into `room`; `None` at the end of the inner stream.
fn poll_some<S: AsyncRead + Unpin>(
    inner: &mut S,
    cx: &mut Context<'_>,
    room: &mut [u8],
) -> Poll<io::Result<Option<usize>>> {
    let mut buf = ReadBuf::new(room);
    ready!(Pin::new(inner).poll_read(cx, &mut buf))?;
    let n = buf.filled().len();
    Poll::Ready(Ok((n > 0).then_some(n)))
}

impl<S: AsyncRead + Unpin> Packed<S> {
    /// Moves on until there is content, or a plain block to read from, or the end.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let next = match &mut self.incoming {
                Incoming::Content { content, taken } if *taken < content.len() => return Poll::Ready(Ok(())),
                Incoming::Plain { left } if *left > 0 => return Poll::Ready(Ok(())),
                Incoming::End => return Poll::Ready(Ok(())),
                Incoming::Content { .. } | Incoming::Plain { .. } => Incoming::START,
                Incoming::Head { head, found } => {
                    let wanted = if *found < WORD_BYTES || word(&head[..WORD_BYTES]) & COMPRESSED == 0 {
                        WORD_BYTES
                    } else {
                        2 * WORD_BYTES
                    };
                    if *found < wanted {
                        // The other side says when it ends; without that word it was cut off.
                        let n = ready!(poll_some(&mut self.inner, cx, &mut head[*found..wanted]))?
                            .ok_or(io::ErrorKind::ConnectionReset)?;
                        *found += n;
                        continue;
                    }
                    announced(*head)?
                }
                Incoming::Body { body, found, n_content } => {
                    if *found < body.len() {
                        let n = ready!(poll_some(&mut self.inner, cx, &mut body[*found..]))?
                            .ok_or(io::ErrorKind::ConnectionReset)?;
                        *found += n;
                        continue;
                    }
                    Incoming::Content { content: unpack(body, *n_content)?, taken: 0 }
                }
            };
            self.incoming = next;
        }
    }
}

/// What a block's head announces.
fn announced(head: [u8; HEAD_BYTES]) -> io::Result<Incoming> {
    let length = word(&head[..WORD_BYTES]);
    let n_bytes = (length & !COMPRESSED) as usize;
    if n_bytes > BLOCK_BYTES {
        return Err(malformed("a block is too large"));
    }
    if length & COMPRESSED == 0 {
        return Ok(if n_bytes == 0 { Incoming::End } else { Incoming::Plain { left: n_bytes } });
    }
    let n_content = word(&head[WORD_BYTES..]) as usize;
    if n_content > BLOCK_BYTES || n_content <= n_bytes {
        return Err(malformed("a block's content has an impossible length"));
    }
    Ok(Incoming::Body { body: vec![0; n_bytes], found: 0, n_content })
}

fn unpack(body: &[u8], n_content: usize) -> io::Result<Vec<u8>> {
    let mut content = vec![0; n_content];
    let n = DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            None => decompressor.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(body, &mut content[..])
    })?;
    if n == n_content { Ok(content) } else { Err(malformed("a block's content is shorter than it says")) }
}

/// What was gathered as a block, compressed if that is shorter and worth its while; and where it begins. What is not compressed stays where it
/// is.
fn pack(effort: Effort, worth: &Worth, mut gathered: Vec<u8>) -> (Vec<u8>, usize) {
    // Bounded by `BLOCK_BYTES`.
    let length = |n_bytes: usize| u32::try_from(n_bytes).unwrap_or(0);
    let content = &gathered[HEAD_BYTES..];
    let n_content = content.len();
    if worth.tries(effort, n_content) {
        let began = thread_time();
        let block = compressed(effort, content);
        if let (Ok(began), Ok(ended)) = (began, thread_time()) {
            let n_packed = block.as_ref().map_or(n_content, Vec::len);
            worth.note(effort, n_content, n_packed, ended.saturating_sub(began));
        }
        if let Some(mut block) = block {
            let n_bytes = block.len() - HEAD_BYTES;
            block[..WORD_BYTES].copy_from_slice(&(length(n_bytes) | COMPRESSED).to_le_bytes());
            block[WORD_BYTES..HEAD_BYTES].copy_from_slice(&length(n_content).to_le_bytes());
            return (block, 0);
        }
    }
    gathered[HEAD_BYTES - WORD_BYTES..HEAD_BYTES].copy_from_slice(&length(n_content).to_le_bytes());
    (gathered, HEAD_BYTES - WORD_BYTES)
}

/// Room for a head, then a frame with `content`; `None` where that is no gain.
fn compressed(effort: Effort, content: &[u8]) -> Option<Vec<u8>> {
    if content.len() < LEAST_BYTES {
        return None;
    }
    let mut block = vec![0; HEAD_BYTES + content.len() - WORD_BYTES - 1];
    let n_bytes = COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = zstd::bulk::Compressor::new(effort.level()).ok();
        }
        let compressor = compressor.as_mut()?;
        // A block that did not fit has left it in the middle of a frame, where nothing can be set.
        compressor.context_mut().reset(ResetDirective::SessionOnly).ok()?;
        compressor.context_mut().set_parameter(CParameter::CompressionLevel(effort.level())).ok()?;
        // Its only other failure is that the frame does not fit, which is what the room is for.
        compressor.compress_to_buffer(content, &mut block[HEAD_BYTES..]).ok()
    })?;
    block.truncate(HEAD_BYTES + n_bytes);
    Some(block)
}

impl<S: AsyncRead + Unpin> AsyncRead for Packed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_incoming(cx))?;
        let Self { inner, incoming, .. } = &mut *self;
        match incoming {
            Incoming::Content { content, taken } => {
                let n = buf.remaining().min(content.len() - *taken);
                buf.put_slice(&content[*taken..*taken + n]);
                *taken += n;
            }
            Incoming::Plain { left } => {
                let room = buf.remaining().min(*left);
                let n = ready!(poll_some(inner, cx, buf.initialize_unfilled_to(room)))?
                    .ok_or(io::ErrorKind::ConnectionReset)?;
                buf.advance(n);
                *left -= n;
            }
            Incoming::Head { .. } | Incoming::Body { .. } | Incoming::End => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Packed<S> {
    /// Sends the finished block.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, outgoing, .. } = self;
        while outgoing.sent < outgoing.block.len() {
            match ready!(Pin::new(&mut *inner).poll_write(cx, &outgoing.block[outgoing.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => outgoing.sent += n,
            }
        }
        outgoing.block = Vec::new();
        outgoing.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Sends all that was written.
    fn poll_emptied(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_sent(cx))?;
            if self.outgoing.gathered.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let gathered = std::mem::take(&mut self.outgoing.gathered);
            (self.outgoing.block, self.outgoing.sent) = pack(self.effort, &self.worth, gathered);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Packed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.outgoing.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.outgoing.gathered.len() == HEAD_BYTES + BLOCK_BYTES {
            ready!(self.poll_emptied(cx))?;
        }
        let gathered = &mut self.outgoing.gathered;
        if gathered.is_empty() && !bytes.is_empty() {
            gathered.reserve_exact(HEAD_BYTES + if bytes.len() < MUCH_BYTES { bytes.len() } else { BLOCK_BYTES });
            gathered.extend([0; HEAD_BYTES]);
        }
        let n = bytes.len().min((HEAD_BYTES + BLOCK_BYTES).saturating_sub(gathered.len()));
        gathered.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_emptied(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        if !self.outgoing.ended {
            self.outgoing.ended = true;
            let gathered = std::mem::take(&mut self.outgoing.gathered);
            if !gathered.is_empty() {
                (self.outgoing.block, self.outgoing.sent) = pack(self.effort, &self.worth, gathered);
            }
            // With the last block: a write of its own would be a packet of its own.
            self.outgoing.block.extend([0; WORD_BYTES]);
            ready!(self.poll_sent(cx))?;
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
