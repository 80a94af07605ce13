//! Answers blob streams: a member that names a blob by its digest may read it.
//!
//! One stream carries requests one after the other. Reading and writing are bounded in memory, in time and in how many are served at
//! once. Not here: who is a member (the node admits nobody else), and what is worth having.

use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::exchange::{BlobHave, BlobHeader, BlobRequest};
use buildbee_proto::limits::MAX_BLOBS_PER_REQUEST;
use buildbee_proto::peer::PeerId;
use buildbee_store::Store;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::arriving::Arriving;
use super::pump::{Framing, flush, write_blobs};
use super::small::Small;
use crate::room::Room;

/// Answers being written at once; each takes a blocking thread and about 2 MiB.
const MAX_SERVING: u32 = 16;
/// Those for one peer, which may read slowly on purpose.
const MAX_SERVING_EACH: u32 = 8;
/// How long a request waits for its turn.
pub(super) const TURN_DEADLINE: Duration = Duration::from_secs(5);
/// How long a stream may stay without a request.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
pub(super) const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a request waits for blobs that are on their way here while nothing lands. Who asked can ask their source then.
const ARRIVAL_SILENCE: Duration = Duration::from_secs(3);
/// How long in all for some of them: who asked must hear something.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(10);
/// Blobs that are waited for together.
const ARRIVING_TOGETHER: usize = 32;

/// Serves from one store and what is in memory. Clones share the bound.
#[derive(Clone, Debug)]
pub struct BlobServer {
    pub(super) store: Store,
    small: Small,
    pub(super) arriving: Arriving,
    pub(super) turns: Room,
}

impl BlobServer {
    /// Serves `store` and `small`, and what is on its way.
    pub fn new(store: Store, small: Small, arriving: Arriving) -> Self {
        Self { store, small, arriving, turns: Room::new(MAX_SERVING, MAX_SERVING_EACH) }
    }

    /// Serves one stream until its other end is done with it or something fails.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, from: PeerId, mut stream: S) {
        loop {
            let request = match timeout(IDLE_DEADLINE, read_message::<BlobRequest, _>(&mut stream)).await {
                Ok(Ok(Some(request))) => request,
                Ok(Ok(None)) | Err(_) => break,
                Ok(Err(error)) => {
                    tracing::debug!(peer = %from.short(), %error, "blob stream failed");
                    return;
                }
            };
            let going_on = match request {
                BlobRequest::Have(digests) => self.have(&digests, &mut stream).await,
                BlobRequest::Get(digests) => self.get(from, digests, &mut stream).await,
                BlobRequest::Map { blob, known } => self.map(blob, known, &mut stream).await,
                BlobRequest::Chunks { blob, chunks } => self.chunks(from, blob, chunks, &mut stream).await,
            };
            if !going_on {
                return;
            }
        }
        // Its end of the stream may be gone already: nobody is left to tell.
        drop(timeout(WRITE_DEADLINE, stream.shutdown()).await);
    }

    async fn have<S: AsyncWrite + Unpin>(&self, digests: &[Digest], stream: &mut S) -> bool {
        if digests.len() > MAX_BLOBS_PER_REQUEST {
            return false;
        }
        let has = |digest: &Digest| {
            self.store.contains(digest) || self.small.contains(digest) || self.arriving.is_certain(digest)
        };
        let answer = BlobHave { present: digests.iter().map(has).collect() };
        matches!(timeout(WRITE_DEADLINE, write_message(stream, &answer)).await, Ok(Ok(())))
    }

    async fn get<S: AsyncWrite + Unpin>(&self, from: PeerId, digests: Vec<Digest>, stream: &mut S) -> bool {
        if digests.len() > MAX_BLOBS_PER_REQUEST {
            return refuse(stream, ErrorCode::Invalid, Retry::Never, "too many blobs in one request").await;
        }
        let is_here = |digest: &Digest| self.store.contains(digest) || self.small.contains(digest);
        let n_together = if digests.iter().all(is_here) { MAX_BLOBS_PER_REQUEST } else { ARRIVING_TOGETHER };
        for some in digests.chunks(n_together) {
            let absent: Vec<Digest> = some.iter().filter(|digest| !is_here(digest)).copied().collect();
            // Whatever comes of the wait, what is here is sent.
            drop(timeout(ARRIVAL_DEADLINE, self.arriving.settled(&absent, ARRIVAL_SILENCE)).await);
            let Ok(Some(_turn)) = timeout(TURN_DEADLINE, self.turns.take(from, 1)).await else {
                return refuse(stream, ErrorCode::Busy, Retry::OtherAgent, "too many blobs are being sent").await;
            };
            let written = async {
                write_blobs(&self.store, &self.small, some.to_vec(), Framing::Headers, stream).await?;
                flush(stream).await
            };
            if let Err(error) = written.await {
                tracing::debug!(peer = %from.short(), %error, "blobs were not sent");
                return false;
            }
        }
        true
    }
}

pub(super) async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, code: ErrorCode, retry: Retry, why: &str) -> bool {
    let header = BlobHeader::Refused(WireError::new(code, retry, why));
    matches!(timeout(WRITE_DEADLINE, write_message(stream, &header)).await, Ok(Ok(())))
}
