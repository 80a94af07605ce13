//! From memory or the store to a stream: what is small and in memory at once, else a blocking reader that runs a bounded number of pieces
//! ahead of whoever writes them out.

use std::io::Read;
use std::time::Duration;

use buildbee_proto::codec::{CodecError, to_frame};
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::BlobHeader;
use buildbee_store::{ReadError, Store};
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::small::{Content, Small};

/// One write, in bytes; small blobs are gathered up to that.
pub const PIECE_BYTES: usize = 256 << 10;
/// Pieces read ahead.
const PIECES_AHEAD: usize = 4;
/// How long a receiver may take for one piece.
pub(super) const PIECE_DEADLINE: Duration = Duration::from_secs(30);

/// What stands before each blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A [`BlobHeader`]; what is missing is said to be.
    Headers,
    /// Nothing; what is missing is an error.
    Raw,
}

/// Why not everything was written. The stream must be dropped then: the receiver could not tell what follows.
#[derive(Debug, Error)]
pub enum PumpError {
    /// A blob is not here (any more).
    #[error("blob {0} is not here")]
    Missing(Digest),
    /// The store failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A blob's file failed or is shorter than its name says.
    #[error("blob {digest}: {source}")]
    File {
        /// Which.
        digest: Digest,
        /// What the system said.
        source: std::io::Error,
    },
    /// A header could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The stream failed.
    #[error("stream: {0}")]
    Stream(#[from] std::io::Error),
    /// The receiver is too slow.
    #[error("the receiver took nothing for {} s", PIECE_DEADLINE.as_secs())]
    Late,
    /// The receiver went away, as seen by the reader.
    #[error("the receiver went away")]
    Gone,
}

/// Writes `digests` from `small` or `store` to `stream`; the last of it may leave with a [`flush`] only. Not cancel-safe.
pub async fn write_blobs<W: AsyncWrite + Unpin>(
    store: &Store,
    small: &Small,
    digests: Vec<Digest>,
    framing: Framing,
    stream: &mut W,
) -> Result<(), PumpError> {
    let n_bytes = digests.iter().fold(0u64, |sum, digest| sum.saturating_add(digest.size_bytes));
    let contents = if n_bytes <= PIECE_BYTES as u64 { small.get_all(&digests) } else { None };
    if let Some(contents) = contents {
        let piece = gathered(&contents, framing)?;
        tokio::time::timeout(PIECE_DEADLINE, stream.write_all(&piece)).await.map_err(|_| PumpError::Late)??;
    } else {
        let (pieces, mut written) = mpsc::channel::<Vec<u8>>(PIECES_AHEAD);
        let (store, small) = (store.clone(), small.clone());
        let reading = tokio::task::spawn_blocking(move || read_all(&store, &small, &digests, framing, &pieces));
        while let Some(piece) = written.recv().await {
            tokio::time::timeout(PIECE_DEADLINE, stream.write_all(&piece)).await.map_err(|_| PumpError::Late)??;
        }
        reading.await.map_err(std::io::Error::other)??;
    }
    Ok(())
}

/// Has what was written leave, a piece's time at most.
pub async fn flush<W: AsyncWrite + Unpin>(stream: &mut W) -> Result<(), PumpError> {
    Ok(tokio::time::timeout(PIECE_DEADLINE, stream.flush()).await.map_err(|_| PumpError::Late)??)
}

fn gathered(contents: &[Content], framing: Framing) -> Result<Vec<u8>, CodecError> {
    let mut piece = Vec::new();
    for content in contents {
        if framing == Framing::Headers {
            piece.extend(to_frame(&BlobHeader::Found)?);
        }
        piece.extend_from_slice(content);
    }
    Ok(piece)
}

fn read_all(
    store: &Store,
    small: &Small,
    digests: &[Digest],
    framing: Framing,
    pieces: &mpsc::Sender<Vec<u8>>,
) -> Result<(), PumpError> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    for digest in digests {
        let Some(mut source) = open(store, small, digest)? else {
            if framing == Framing::Raw {
                return Err(PumpError::Missing(*digest));
            }
            piece.extend(to_frame(&BlobHeader::Missing)?);
            continue;
        };
        if framing == Framing::Headers {
            piece.extend(to_frame(&BlobHeader::Found)?);
        }
        let failed = |source| PumpError::File { digest: *digest, source };
        let mut left = digest.size_bytes;
        while left > 0 {
            if piece.len() >= PIECE_BYTES {
                send(&mut piece, pieces)?;
            }
            let room = (PIECE_BYTES - piece.len()) as u64;
            let n = (&mut source).take(room.min(left)).read_to_end(&mut piece).map_err(failed)?;
            if n == 0 {
                return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            left -= n as u64;
        }
        // Headers alone must not grow a piece without bound.
        if piece.len() >= PIECE_BYTES {
            send(&mut piece, pieces)?;
        }
    }
    if piece.is_empty() { Ok(()) } else { send(&mut piece, pieces) }
}

fn open(store: &Store, small: &Small, digest: &Digest) -> Result<Option<Box<dyn Read>>, ReadError> {
    if let Some(content) = small.get(digest) {
        return Ok(Some(Box::new(std::io::Cursor::new(content))));
    }
    if digest.size_bytes <= PIECE_BYTES as u64 {
        // It may share its file with others.
        let content = store.read(digest, PIECE_BYTES as u64)?;
        return Ok(content.map(|content| Box::new(std::io::Cursor::new(content)) as Box<dyn Read>));
    }
    Ok(store.open_blob(digest)?.map(|file| Box::new(file) as Box<dyn Read>))
}

fn send(piece: &mut Vec<u8>, pieces: &mpsc::Sender<Vec<u8>>) -> Result<(), PumpError> {
    let full = std::mem::replace(piece, Vec::with_capacity(PIECE_BYTES));
    pieces.blocking_send(full).map_err(|_| PumpError::Gone)
}

#[cfg(test)]
mod tests {
    use buildbee_p2p::frames::read_message;
    use buildbee_store::{Durability, Options};
    use tokio::io::AsyncReadExt;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 64 << 20, durability: Durability::Lazy };
        let (store, _) = Store::open(&dir.path().join("store"), &options).unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn blobs_come_whole_and_in_order() {
        let (_dir, store) = store();
        let contents: Vec<Vec<u8>> =
            [0, 1, 100, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES + 7].iter().map(|&n| vec![7u8; n]).collect();
        let mut digests: Vec<Digest> = contents.iter().map(|content| store.put_bytes(content).unwrap()).collect();
        digests.insert(2, Digest::of(b"absent"));
        let small = Small::default();
        let remembered = b"in memory alone";
        small.keep(Digest::of(remembered), remembered);
        digests.push(Digest::of(remembered));
        let mut out = Vec::new();
        write_blobs(&store, &small, digests.clone(), Framing::Headers, &mut out).await.unwrap();
        let mut input = out.as_slice();
        for digest in digests {
            let header: BlobHeader = read_message(&mut input).await.unwrap().unwrap();
            if digest == Digest::of(b"absent") {
                assert_eq!(header, BlobHeader::Missing);
                continue;
            }
            assert_eq!(header, BlobHeader::Found);
            let mut content = vec![0; usize::try_from(digest.size_bytes).unwrap()];
            AsyncReadExt::read_exact(&mut input, &mut content).await.unwrap();
            assert_eq!(Digest::of(&content), digest);
        }
        assert!(input.is_empty());
    }

    #[tokio::test]
    async fn what_is_small_comes_from_memory() {
        let (_dir, store) = store();
        let small = Small::default();
        let digests = [&b"one"[..], b"", b"two"].map(|content| {
            small.keep(Digest::of(content), content);
            Digest::of(content)
        });
        let mut out = Vec::new();
        write_blobs(&store, &small, digests.to_vec(), Framing::Raw, &mut out).await.unwrap();
        assert_eq!(out, b"onetwo");
        let (mut framed, mut read) = (Vec::new(), Vec::new());
        write_blobs(&store, &small, digests.to_vec(), Framing::Headers, &mut framed).await.unwrap();
        let mut input = framed.as_slice();
        for digest in digests {
            assert_eq!(read_message::<BlobHeader, _>(&mut input).await.unwrap(), Some(BlobHeader::Found));
            let mut content = vec![0; usize::try_from(digest.size_bytes).unwrap()];
            AsyncReadExt::read_exact(&mut input, &mut content).await.unwrap();
            read.extend(content);
        }
        assert!(read == out && input.is_empty());
    }

    #[tokio::test]
    async fn raw_blobs_must_be_there() {
        let (_dir, store) = store();
        let mut out = Vec::new();
        let written = write_blobs(&store, &Small::default(), vec![Digest::of(b"absent")], Framing::Raw, &mut out).await;
        assert!(matches!(written, Err(PumpError::Missing(_))));
    }
}
