//! Answers other agents out of this machine's own store.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_proto::peer::PeerId;
use buildbee_proto::store_path::{StorePath, StorePathReply, StorePathRequest};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::database::Database;

/// Archives being packed at once; each takes a blocking thread and about 2 MiB.
const MAX_PACKING: usize = 8;
/// How long a request waits for its turn.
const TURN_DEADLINE: Duration = Duration::from_secs(5);
/// How long a stream may stay without a request.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Of an archive, read and written at once.
const BLOCK_BYTES: u64 = 512 << 10;
/// Blocks between the thread that packs and the stream.
const BLOCKS_AHEAD: usize = 2;

/// Serves one store, or says that there is none. Clones share the bound.
#[derive(Clone, Debug)]
pub struct StorePathServer {
    database: Option<Database>,
    turns: Arc<Semaphore>,
}

impl StorePathServer {
    /// Out of this store.
    pub fn new(database: Option<Database>) -> Self {
        Self { database, turns: Arc::new(Semaphore::new(MAX_PACKING)) }
    }

    /// Serves one stream until its other end is done with it or something fails.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, from: PeerId, mut stream: S) {
        while let Ok(Ok(Some(request))) = timeout(IDLE_DEADLINE, read_message::<StorePathRequest, _>(&mut stream)).await
        {
            let going_on = match request {
                StorePathRequest::Describe(hashes) => self.describe(hashes, &mut stream).await,
                StorePathRequest::Archive { hash } => self.archive(from, hash, &mut stream).await,
            };
            if !going_on {
                return;
            }
        }
        // Its end of the stream may be gone already: nobody is left to tell.
        drop(timeout(WRITE_DEADLINE, stream.shutdown()).await);
    }

    async fn describe<S: AsyncWrite + Unpin>(&self, hashes: Vec<String>, stream: &mut S) -> bool {
        let n = hashes.len();
        let found = match self.database.clone() {
            None => vec![None; n],
            Some(database) => {
                let look = move || hashes.iter().map(|hash| database.describe(hash)).collect();
                tokio::task::spawn_blocking(look).await.unwrap_or_else(|_| vec![None; n])
            }
        };
        for path in found {
            if !say(stream, &StorePathReply::Described(path)).await {
                return false;
            }
        }
        true
    }

    async fn archive<S: AsyncWrite + Unpin>(&self, from: PeerId, hash: String, stream: &mut S) -> bool {
        let Some(database) = self.database.clone() else { return say(stream, &StorePathReply::Missing).await };
        let Ok(Ok(_turn)) = timeout(TURN_DEADLINE, self.turns.acquire()).await else {
            return say(stream, &StorePathReply::Missing).await;
        };
        let look = database.clone();
        let found = tokio::task::spawn_blocking(move || look.describe(&hash)).await;
        let Ok(Some(path)) = found else { return say(stream, &StorePathReply::Missing).await };
        if !say(stream, &StorePathReply::Follows { n_bytes: path.archive_bytes }).await {
            return false;
        }
        let n_bytes = path.archive_bytes;
        let (blocks, mut packed) = mpsc::channel(BLOCKS_AHEAD);
        let packing = tokio::task::spawn_blocking(move || pack(&database, &path, &blocks));
        let mut n_sent = 0;
        while let Some(block) = packed.recv().await {
            n_sent += block.len() as u64;
            // One byte more than there should be is never sent.
            if n_sent > n_bytes || !matches!(timeout(WRITE_DEADLINE, stream.write_all(&block)).await, Ok(Ok(()))) {
                return false;
            }
        }
        if let Ok(Err(error)) = packing.await {
            tracing::warn!(peer = %from.short(), %error, "a store path can't be packed");
        }
        n_sent == n_bytes && matches!(timeout(WRITE_DEADLINE, stream.flush()).await, Ok(Ok(())))
    }
}

/// Packs `path` block by block, until nobody takes them any more.
fn pack(database: &Database, path: &StorePath, blocks: &mpsc::Sender<Vec<u8>>) -> std::io::Result<()> {
    let mut archive = database.archive(path)?;
    loop {
        let mut block = Vec::new();
        if archive.by_ref().take(BLOCK_BYTES).read_to_end(&mut block)? == 0 || blocks.blocking_send(block).is_err() {
            return Ok(());
        }
    }
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, reply: &StorePathReply) -> bool {
    matches!(timeout(WRITE_DEADLINE, write_message(stream, reply)).await, Ok(Ok(())))
}
