//! Fetches files of store paths out of binary caches.

use std::io::{self, Read};
use std::time::Duration;

use buildbee_store::Store;
use http_body_util::{BodyExt as _, Limited};
use hyper::Uri;
use hyper::body::{Bytes, Incoming};
use lzma_rust2::XzReader;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::timeout;

use super::archive::{Hashed, unpack};
use super::description::{Description, DescriptionError, Packing, TrustedKey, trusted};
use super::folder::keep;
use super::http::{GetError, Web, get, joined};
use super::lacking::Lacking;

/// Bytes of a description; the largest of nixpkgs have some 20 KiB.
const MAX_DESCRIPTION_BYTES: usize = 128 << 10;
/// How long a description may take to come.
const DESCRIPTION_DEADLINE: Duration = Duration::from_secs(5);
/// How long a cache may be silent amid an archive.
const SILENCE: Duration = Duration::from_secs(10);
/// Blocks between the network and the store.
const BLOCKS_AHEAD: usize = 4;
/// Memory for unpacking, as a power of two: what zstd's highest usual level takes, and twice what xz's highest does.
const MAX_WINDOW_LOG: u32 = 27;
const KIB_LOG: u32 = 10;
/// What packing may add to an archive that can't be packed.
const PACKING_BYTES: u64 = 1 << 20;

/// Why a cache is of no use for a path.
#[derive(Debug, Error)]
pub enum CacheError {
    /// No answer.
    #[error(transparent)]
    Get(#[from] GetError),
    /// An answer that says nothing.
    #[error("its description: {0}")]
    Description(#[from] DescriptionError),
    /// Too long, not text, or cut off.
    #[error("its description can't be read")]
    Unreadable,
    /// The archive is not what was described, or can't be stored.
    #[error("its archive: {0}")]
    Archive(#[from] io::Error),
    /// It stops amid an archive.
    #[error("it was silent for {SILENCE:?}")]
    Silent,
    /// A bug.
    #[error("unpacking ended early: {0}")]
    Task(#[from] JoinError),
}

impl CacheError {
    /// Whether it would be as bad for the next path: one that is down must not cost its deadline for each.
    pub fn is_down(&self) -> bool {
        matches!(
            self,
            Self::Get(GetError::Connect(_) | GetError::Late | GetError::Http(_) | GetError::Tls(_)) | Self::Silent
        )
    }
}

/// Brings what `path` lacks out of the cache at `base` into `store`. How many files came; none where the cache does not have it.
pub async fn bring(
    base: &Uri,
    keys: &[TrustedKey],
    path: &Lacking,
    (store, web): (&Store, &Web),
) -> Result<usize, CacheError> {
    let url = joined(base, &format!("{}.narinfo", path.hash()))?;
    let Some(answer) = get(&url, web).await? else { return Ok(0) };
    let limited = Limited::new(answer.into_body(), MAX_DESCRIPTION_BYTES).collect();
    let text = timeout(DESCRIPTION_DEADLINE, limited).await.map_err(|_| GetError::Late)?;
    let text = text.map_err(|_| CacheError::Unreadable)?.to_bytes();
    let text = std::str::from_utf8(&text).map_err(|_| CacheError::Unreadable)?;
    let description = trusted(text, &path.name, keys)?;
    let Some(answer) = get(&joined(base, &description.url)?, web).await? else { return Ok(0) };
    let (blocks, arriving) = mpsc::channel(BLOCKS_AHEAD);
    let max_packed_bytes = description.path.archive_bytes.saturating_add(PACKING_BYTES);
    let (store, path) = (store.clone(), path.clone());
    let unpacking = tokio::task::spawn_blocking(move || {
        let packed = Arriving { blocks: arriving, block: Bytes::new() }.take(max_packed_bytes);
        unpacked(&store, &path, &description, packed)
    });
    let received = receive(answer.into_body(), blocks).await;
    // It ends, since its blocks have.
    let n_files = unpacking.await?;
    received?;
    Ok(n_files?)
}

/// Hands on what arrives, until nobody takes it any more.
async fn receive(mut body: Incoming, blocks: mpsc::Sender<Bytes>) -> Result<(), CacheError> {
    while let Some(frame) = timeout(SILENCE, body.frame()).await.map_err(|_| CacheError::Silent)? {
        let Ok(block) = frame.map_err(GetError::Http)?.into_data() else { continue };
        if blocks.send(block).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Files that are what the action named are stored as they come: each is checked by itself.
fn unpacked(store: &Store, path: &Lacking, description: &Description, packed: impl Read) -> io::Result<usize> {
    let plain: Box<dyn Read + '_> = match description.packing {
        Packing::Plain => Box::new(packed),
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(packed)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
        // Streams one after the other are what several processors pack.
        Packing::Xz => Box::new(XzReader::new_mem_limit(packed, true, 1 << (MAX_WINDOW_LOG - KIB_LOG))),
    };
    let mut hashed = Hashed::new(plain, description.path.archive_bytes);
    let mut n_files = 0;
    unpack(&mut hashed, &mut |name, size, content| {
        let wanted = path.files.get(name).filter(|digest| digest.size_bytes == size && !store.contains(digest));
        n_files += usize::from(wanted.map_or(Ok(false), |digest| keep(store, digest, content))?);
        Ok(())
    })?;
    if hashed.is_whole(&description.path.archive_hash) {
        Ok(n_files)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it has another hash or length than was said"))
    }
}

/// Reads blocks as they arrive.
struct Arriving {
    blocks: mpsc::Receiver<Bytes>,
    block: Bytes,
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.block.is_empty() {
            match self.blocks.blocking_recv() {
                Some(block) => self.block = block,
                None => return Ok(0),
            }
        }
        let n = into.len().min(self.block.len());
        let taken = self.block.split_to(n);
        into[..n].copy_from_slice(&taken);
        Ok(n)
    }
}
