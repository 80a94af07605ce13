//! Answers for large blobs: what is here of one, also while the rest is on its way, and its chunks.
//!
//! One chunk a stream is in memory at a time.

use std::sync::Arc;
use std::time::Duration;

use buildbee_p2p::frames::write_message;
use buildbee_proto::chunk::{self, ChunkSet, Chunks, n_chunks};
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry};
use buildbee_proto::exchange::{BlobHeader, BlobMap, MAP_INTERVAL_MS};
use buildbee_proto::limits::MAX_CHUNKS_PER_REQUEST;
use buildbee_proto::peer::PeerId;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::partials::Coming;
use super::pump::{PIECE_BYTES, PIECE_DEADLINE};
use super::serve::{BlobServer, TURN_DEADLINE, WRITE_DEADLINE, refuse};

const MAP_INTERVAL: Duration = Duration::from_millis(MAP_INTERVAL_MS);

impl BlobServer {
    /// Says what is here of `blob`. Whether the stream can go on.
    pub(super) async fn map<S: AsyncWrite + Unpin>(&self, blob: Digest, known: Option<u32>, stream: &mut S) -> bool {
        if self.store.contains(&blob) && chunk::is_chunked(&blob) {
            let present = ChunkSet::all(n_chunks(&blob));
            let values = if known.is_some() { Some(Vec::new()) } else { self.values(blob, stream).await };
            let Some(values) = values else { return say(stream, &BlobMap::Missing).await };
            return say(stream, &found(values, &present, false)).await;
        }
        let Some(coming) = self.arriving.partials().find(&blob) else { return say(stream, &BlobMap::Missing).await };
        let (values, present) = match known {
            None => (coming.partial.chunks().values().to_vec(), coming.partial.present()),
            Some(known) => {
                let more = timeout(MAP_INTERVAL, coming.more_than(known)).await;
                (Vec::new(), more.unwrap_or_else(|_| coming.partial.present()))
            }
        };
        say(stream, &found(values, &present, coming.is_certain())).await
    }

    /// The values of a blob's chunks. Reads it, where nobody asked for them before, and says meanwhile that it does.
    async fn values<S: AsyncWrite + Unpin>(&self, blob: Digest, stream: &mut S) -> Option<Vec<chunk::ChunkValue>> {
        let lists = self.arriving.partials().lists.clone();
        if let Some(chunks) = lists.get(&blob) {
            return Some(chunks.values().to_vec());
        }
        let store = self.store.clone();
        let mut reading = tokio::task::spawn_blocking(move || store.chunks(&blob));
        let read = loop {
            match timeout(MAP_INTERVAL, &mut reading).await {
                Ok(read) => break read,
                Err(_) if say(stream, &BlobMap::Working).await => {}
                Err(_) => return None,
            }
        };
        let chunks: Arc<Chunks> = Arc::new(read.ok()?.ok()??);
        lists.keep(Arc::clone(&chunks));
        Some(chunks.values().to_vec())
    }

    /// Sends chunks of `blob`. Whether the stream can go on.
    pub(super) async fn chunks<S: AsyncWrite + Unpin>(
        &self,
        from: PeerId,
        blob: Digest,
        chunks: Vec<u32>,
        stream: &mut S,
    ) -> bool {
        if chunks.len() > MAX_CHUNKS_PER_REQUEST {
            return refuse(stream, ErrorCode::Invalid, Retry::Never, "too many chunks in one request").await;
        }
        // One for all of them: a fresh megabyte costs the kernel more than reading into it.
        let mut content = Vec::new();
        for index in chunks {
            let Ok(Some(_turn)) = timeout(TURN_DEADLINE, self.turns.take(from, 1)).await else {
                return refuse(stream, ErrorCode::Busy, Retry::OtherAgent, "too many blobs are being sent").await;
            };
            let is_here;
            (is_here, content) = self.chunk(blob, index, content).await;
            let sent =
                if is_here { write_chunk(&content, stream).await } else { say(stream, &BlobHeader::Missing).await };
            if !sent {
                tracing::debug!(peer = %from.short(), blob = %blob.short(), index, "a chunk was not sent");
                return false;
            }
        }
        true
    }

    /// Whether that chunk is here, and if so it, in the place of `content`.
    async fn chunk(&self, blob: Digest, index: u32, mut content: Vec<u8>) -> (bool, Vec<u8>) {
        let partial: Option<Arc<Coming>> = self.arriving.partials().find(&blob);
        let store = self.store.clone();
        let read = move || {
            let read = match partial {
                Some(coming) => coming.partial.read(index, &mut content).map_err(|error| error.to_string()),
                None => store.read_chunk(&blob, index, &mut content).map_err(|error| error.to_string()),
            };
            (read, content)
        };
        match tokio::task::spawn_blocking(read).await {
            Ok((Ok(is_here), content)) => (is_here, content),
            Ok((Err(error), content)) => {
                tracing::warn!(blob = %blob.short(), index, error, "a chunk can't be read");
                (false, content)
            }
            Err(_) => (false, Vec::new()),
        }
    }
}

fn found(values: Vec<chunk::ChunkValue>, present: &ChunkSet, coming: bool) -> BlobMap {
    BlobMap::Found { values, present: Bytes(present.bits().to_vec()), coming }
}

async fn say<M: buildbee_proto::codec::Message, S: AsyncWrite + Unpin>(stream: &mut S, message: &M) -> bool {
    matches!(timeout(WRITE_DEADLINE, write_message(stream, message)).await, Ok(Ok(())))
}

async fn write_chunk<S: AsyncWrite + Unpin>(content: &[u8], stream: &mut S) -> bool {
    if !say(stream, &BlobHeader::Found).await {
        return false;
    }
    for piece in content.chunks(PIECE_BYTES) {
        if !matches!(timeout(PIECE_DEADLINE, stream.write_all(piece)).await, Ok(Ok(()))) {
            return false;
        }
    }
    matches!(timeout(PIECE_DEADLINE, stream.flush()).await, Ok(Ok(())))
}
