//! From a stream to the store: the answer to one request for blobs, verified while it arrives.

use std::time::Duration;

use buildbee_p2p::frames::{FrameError, read_message, write_message};
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, WireError};
use buildbee_proto::exchange::{BlobHeader, BlobRequest};
use buildbee_store::{PutError, Store};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Blobs up to this many bytes are held in memory and put into the store several at a time.
const SMALL_BLOB_BYTES: u64 = 256 << 10;
/// Small blobs gathered before they are put.
const MAX_PENDING: usize = 64;
/// Bytes of them.
const MAX_PENDING_BYTES: u64 = 4 << 20;
/// How long one may be held: what is held is lost when nobody waits for the rest any more, and others may be waiting for it.
const MAX_PENDING_TIME: Duration = Duration::from_millis(200);
/// Pieces of a large blob on their way to the disk.
const PIECES_AHEAD: usize = 4;
const PIECE_BYTES: usize = 256 << 10;
/// How long the other side may be silent.
pub(super) const SILENCE: Duration = Duration::from_secs(15);
/// A source slower than this is of no use; others wait for the same blob.
const LEAST_BYTES_PER_SECOND: u64 = 16 << 10;

/// Failures of an origin, one after the other with nothing that came between, after which it is given up.
const MAX_FAULTS: u32 = 5;
/// The pause after the first of them. Doubles with each.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Faults(u32);

impl Faults {
    /// One more, and whether something came since the last one. How long to wait before the next try; `None`: that was enough.
    pub(super) fn one_more(&mut self, something_came: bool) -> Option<Duration> {
        let n_before = if something_came { 0 } else { self.0 };
        self.0 = n_before + 1;
        (self.0 < MAX_FAULTS).then(|| RETRY_PAUSE * (1 << n_before))
    }
}

/// What went wrong with one source.
#[derive(Debug, Error)]
pub(crate) enum SourceFault {
    /// No stream to it.
    #[error("cannot be reached: {0}")]
    Open(String),
    /// The stream failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It said nothing for too long.
    #[error("said nothing for {} s", SILENCE.as_secs())]
    Late,
    /// It keeps everybody waiting.
    #[error("sends less than {LEAST_BYTES_PER_SECOND} bytes a second")]
    Slow,
    /// It closed the stream before it had answered.
    #[error("ended the stream early")]
    Ended,
    /// It said no.
    #[error("refused: {0}")]
    Refused(WireError),
    /// It had it, and has it no more.
    #[error("has {0} no more")]
    Lost(Digest),
    /// Its bytes are not what was asked for.
    #[error("sent bytes that are not {0}")]
    Lied(Digest),
    /// Nothing to do with it: the store here failed.
    #[error(transparent)]
    Store(PutError),
    /// A bug.
    #[error("writing ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl SourceFault {
    /// Whether asking again is of no use.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Refused(error) => error.code != ErrorCode::Busy,
            Self::Lied(_) | Self::Lost(_) | Self::Store(_) | Self::Task(_) => true,
            Self::Open(_) | Self::Frame(_) | Self::Late | Self::Slow | Self::Ended => false,
        }
    }
}

impl From<std::io::Error> for SourceFault {
    fn from(error: std::io::Error) -> Self {
        Self::Frame(error.into())
    }
}

pub(super) fn put_fault(digest: Digest, error: PutError) -> SourceFault {
    match error {
        PutError::Mismatch { .. } | PutError::TooLong { .. } | PutError::NotTheChunk { .. } => {
            SourceFault::Lied(digest)
        }
        error => SourceFault::Store(error),
    }
}

/// Hears of what is stored, and of nothing where some of a blob came.
pub(super) type Landed<'a> = &'a (dyn Fn(&[Digest]) + Sync);

/// Asks for one batch on `stream` and stores what comes. What the other side lacks is simply not stored. Not cancel-safe: drop the
/// stream then.
pub(super) async fn get_batch<S: AsyncRead + AsyncWrite + Unpin>(
    store: &Store,
    stream: &mut BufReader<S>,
    batch: Vec<Digest>,
    landed: Landed<'_>,
) -> Result<(), SourceFault> {
    let request = BlobRequest::Get(batch.clone());
    timeout(SILENCE, write_message(stream.get_mut(), &request)).await.map_err(|_| SourceFault::Late)??;
    let mut pending = Pending::default();
    let received = receive(store, stream, &batch, &mut pending, landed).await;
    // Whatever becomes of the rest, what came is here.
    pending.put(store, landed).await?;
    received
}

async fn receive<S: AsyncRead + Unpin>(
    store: &Store,
    stream: &mut BufReader<S>,
    batch: &[Digest],
    pending: &mut Pending,
    landed: Landed<'_>,
) -> Result<(), SourceFault> {
    for &digest in batch {
        let header = timeout(SILENCE, read_message::<BlobHeader, _>(stream)).await.map_err(|_| SourceFault::Late)??;
        match header.ok_or(SourceFault::Ended)? {
            BlobHeader::Missing => {}
            BlobHeader::Refused(error) => return Err(SourceFault::Refused(error)),
            BlobHeader::Found if digest.size_bytes <= SMALL_BLOB_BYTES => {
                let mut content = vec![0; usize::try_from(digest.size_bytes).unwrap_or(0)];
                timeout(SILENCE, stream.read_exact(&mut content)).await.map_err(|_| SourceFault::Late)??;
                pending.add(store, digest, content, landed).await?;
            }
            BlobHeader::Found => {
                let patience = SILENCE + Duration::from_secs(digest.size_bytes / LEAST_BYTES_PER_SECOND);
                let receiving = receive_large(store, stream, digest, landed);
                timeout(patience, receiving).await.map_err(|_| SourceFault::Slow)??;
                landed(&[digest]);
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct Pending {
    blobs: Vec<(Digest, Vec<u8>)>,
    n_bytes: u64,
    since: Option<Instant>,
}

impl Pending {
    async fn add(
        &mut self,
        store: &Store,
        digest: Digest,
        content: Vec<u8>,
        landed: Landed<'_>,
    ) -> Result<(), SourceFault> {
        self.n_bytes += digest.size_bytes;
        self.blobs.push((digest, content));
        let since = *self.since.get_or_insert_with(Instant::now);
        let is_much = self.blobs.len() >= MAX_PENDING || self.n_bytes >= MAX_PENDING_BYTES;
        if is_much || since.elapsed() >= MAX_PENDING_TIME { self.put(store, landed).await } else { Ok(()) }
    }

    async fn put(&mut self, store: &Store, landed: Landed<'_>) -> Result<(), SourceFault> {
        (self.n_bytes, self.since) = (0, None);
        let blobs = std::mem::take(&mut self.blobs);
        if blobs.is_empty() {
            return Ok(());
        }
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let store = store.clone();
        tokio::task::spawn_blocking(move || {
            let put = |(digest, content): (Digest, Vec<u8>)| {
                store.put_linkable(&digest, &content).map_err(|error| put_fault(digest, error))
            };
            blobs.into_iter().try_for_each(put)
        })
        .await??;
        landed(&digests);
        Ok(())
    }
}

async fn receive_large<R: AsyncRead + Unpin>(
    store: &Store,
    stream: &mut R,
    digest: Digest,
    landed: Landed<'_>,
) -> Result<(), SourceFault> {
    let (pieces, mut received) = mpsc::channel::<Vec<u8>>(PIECES_AHEAD);
    let store = store.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut writer = store.writer(digest)?;
        while let Some(piece) = received.blocking_recv() {
            writer.write(&piece)?;
        }
        // A source that stopped early leaves the writer short: dropped, not committed.
        if writer.remaining_bytes() == 0 { writer.commit() } else { Ok(()) }
    });
    let mut left = digest.size_bytes;
    while left > 0 {
        let mut piece = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES)];
        let n = timeout(SILENCE, stream.read(&mut piece)).await.map_err(|_| SourceFault::Late)??;
        if n == 0 {
            return Err(SourceFault::Ended);
        }
        piece.truncate(n);
        left -= n as u64;
        landed(&[]);
        if pieces.send(piece).await.is_err() {
            // The writer gave up; it says why.
            break;
        }
    }
    drop(pieces);
    writing.await?.map_err(|error| put_fault(digest, error))
}
