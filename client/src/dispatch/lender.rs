//! What this client lends to the agents that run its actions: files in place and bytes in memory, by digest and only while needed.
//!
//! A path is never served: a peer names a digest, and what it gets is checked against it. Serving is [`serve_task`]'s job.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_p2p::frames::{FrameError, read_message, write_message};
use buildbee_p2p::node::PeerStream;
use buildbee_proto::chunk::{ChunkSet, Chunks, is_chunked, n_chunks, offset};
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::exchange::{BlobHave, BlobHeader, BlobMap, BlobRequest, MAP_INTERVAL_MS};
use buildbee_proto::limits::{MAX_BLOBS_PER_REQUEST, MAX_CHUNKS_PER_REQUEST, MAX_MEMBERS};
use buildbee_proto::peer::PeerId;
use buildbee_store::ChunkLists;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::progress::{OnItsWay, Progress};
use crate::inputs::filehash::FileHashes;
use crate::journal::Journal;
use crate::toolchain::Parts;

/// How long a stream may stay without a request.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// How long an agent may take for one piece.
const PIECE_DEADLINE: Duration = Duration::from_secs(30);
/// One write, in bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Places of the same content that are remembered besides the newest.
const MAX_OLDER_PLACES: usize = 3;
/// Chunks of large blobs in memory at a time, for all agents.
const MAX_CHUNKS_IN_MEMORY: usize = 16;

/// Where lent content is.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file in place, read and checked when asked for.
    File(PathBuf),
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
}

#[derive(Debug)]
struct Lent {
    source: Source,
    /// Earlier ones: the newest may be a file that goes when its action ends, while another action's is there.
    older: Vec<Source>,
    n_loans: usize,
}

/// Everything that is lent now. Cheap to clone. Bounded by the actions that run: each lends its own inputs.
#[derive(Clone, Debug)]
pub struct Lender {
    lent: Arc<Mutex<HashMap<Digest, Lent>>>,
    /// What is known of files in place.
    hashes: FileHashes,
    lists: ChunkLists,
    turns: Arc<Semaphore>,
    /// When something was last sent to each agent.
    moved: Arc<Mutex<HashMap<PeerId, Instant>>>,
    /// How far toolchains are.
    progress: Arc<Mutex<Progress>>,
    since: Instant,
}

impl Default for Lender {
    fn default() -> Self {
        Self {
            lent: Arc::default(),
            hashes: FileHashes::default(),
            lists: ChunkLists::default(),
            turns: Arc::new(Semaphore::new(MAX_CHUNKS_IN_MEMORY)),
            moved: Arc::default(),
            progress: Arc::default(),
            since: Instant::now(),
        }
    }
}

/// Keeps its blobs lent until dropped.
#[derive(Debug)]
pub struct Loan {
    lender: Lender,
    digests: Vec<Digest>,
}

impl Lender {
    /// Nothing is lent yet.
    pub fn new(hashes: FileHashes) -> Self {
        Self { hashes, ..Self::default() }
    }

    fn lent(&self) -> MutexGuard<'_, HashMap<Digest, Lent>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends `blobs` for as long as the loan lives.
    pub fn lend(&self, blobs: impl IntoIterator<Item = (Digest, Source)>) -> Loan {
        let mut lent = self.lent();
        let mut digests = Vec::new();
        for (digest, source) in blobs {
            match lent.entry(digest) {
                Entry::Vacant(entry) => {
                    entry.insert(Lent { source, older: Vec::new(), n_loans: 1 });
                }
                Entry::Occupied(mut entry) => entry.get_mut().again(source),
            }
            digests.push(digest);
        }
        Loan { lender: self.clone(), digests }
    }

    fn is_lent(&self, digest: &Digest) -> bool {
        self.lent().contains_key(digest)
    }

    /// What `read` gets from the first place that still holds `digest`, the newest first.
    fn read<T>(&self, digest: &Digest, read: impl FnMut(Source) -> Option<T>) -> Option<T> {
        let sources: Vec<Source> = {
            let lent = self.lent();
            let lent = lent.get(digest)?;
            std::iter::once(&lent.source).chain(lent.older.iter().rev()).cloned().collect()
        };
        sources.into_iter().find_map(read)
    }

    /// The content of `digest`, if it is lent and a file still holds it. Reads files: call off the event loop.
    pub(crate) fn content(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.read(digest, |source| match source {
            Source::Bytes(bytes) => Some(bytes.to_vec()),
            Source::File(path) => self.hashes.content(&path, digest),
        })
    }
}

impl Lent {
    /// Lent once more, from `source`.
    fn again(&mut self, source: Source) {
        self.n_loans += 1;
        if self.source.is_same(&source) {
            return;
        }
        self.older.retain(|older| !older.is_same(&source));
        if self.older.len() >= MAX_OLDER_PLACES {
            self.older.remove(0);
        }
        // The newest place is the likeliest to hold the content still.
        self.older.push(std::mem::replace(&mut self.source, source));
    }
}

impl Source {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(path), Self::File(other)) => path == other,
            (Self::Bytes(_), Self::Bytes(_)) => true,
            _ => false,
        }
    }
}

impl Lender {
    /// The chunks of a large blob, if it is lent and its file still holds it. Reads all of the file, the first time.
    fn chunks(&self, blob: &Digest) -> Option<Arc<Chunks>> {
        if !self.is_lent(blob) {
            return None;
        }
        if let Some(chunks) = self.lists.get(blob) {
            return Some(chunks);
        }
        let chunks = self.read(blob, |source| match source {
            Source::Bytes(bytes) => Chunks::read(*blob, |at, chunk| part(&bytes, at, chunk).ok_or(())).ok()?,
            Source::File(path) => {
                let file = File::open(path).ok()?;
                Chunks::read(*blob, |at, chunk| file.read_exact_at(chunk, at)).ok()?
            }
        })?;
        let chunks = Arc::new(chunks);
        self.lists.keep(Arc::clone(&chunks));
        Some(chunks)
    }

    /// One of them, if the file still holds it.
    fn chunk(&self, blob: &Digest, index: u32) -> Option<Vec<u8>> {
        let chunks = self.chunks(blob)?;
        self.read(blob, |source| {
            let mut content = vec![0; chunks.length(index)];
            match source {
                Source::Bytes(bytes) => part(&bytes, offset(index), &mut content)?,
                Source::File(path) => File::open(path).ok()?.read_exact_at(&mut content, offset(index)).ok()?,
            }
            chunks.holds(index, &content).then_some(content)
        })
    }

    fn moved_table(&self) -> MutexGuard<'_, HashMap<PeerId, Instant>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self, agent: PeerId) {
        let mut moved = self.moved_table();
        if moved.len() >= MAX_MEMBERS {
            moved.clear();
        }
        moved.insert(agent, Instant::now());
    }

    // Counts alone: a panic would leave some that are a little off.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells from now on how far the toolchain of `parts` is.
    pub fn watch(&self, parts: &Parts) {
        self.progress().watch(self.since.elapsed(), parts);
    }

    /// Toolchains that agents take from here now.
    pub fn on_their_way(&self) -> Vec<OnItsWay> {
        self.progress().now(self.since.elapsed())
    }

    /// When `agent` last took something.
    pub fn last_moved(&self, agent: &PeerId) -> Option<Instant> {
        self.moved_table().get(agent).copied()
    }
}

/// Fills `room` with what stands at `at`.
fn part(bytes: &[u8], at: u64, room: &mut [u8]) -> Option<()> {
    let at = usize::try_from(at).ok()?;
    room.copy_from_slice(bytes.get(at..at.checked_add(room.len())?)?);
    Some(())
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut lent = self.lender.lent();
        for digest in &self.digests {
            if let Some(entry) = lent.get_mut(digest) {
                entry.n_loans -= 1;
                if entry.n_loans == 0 {
                    lent.remove(digest);
                }
            }
        }
    }
}

/// Answers `agent`'s blob stream until it ends.
pub async fn serve_task(lender: Lender, journal: Journal, agent: PeerId, stream: PeerStream) {
    let mut serving = Serving { lender, journal, agent, stream };
    // A broken stream is the agent's to notice and to ask again.
    if let Err(error) = serving.run().await {
        tracing::debug!(%error, "a blob stream ended early");
    }
}

struct Serving<S> {
    lender: Lender,
    journal: Journal,
    agent: PeerId,
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Serving<S> {
    async fn run(&mut self) -> Result<(), FrameError> {
        while let Ok(request) = timeout(IDLE_DEADLINE, read_message::<BlobRequest, _>(&mut self.stream)).await {
            let Some(request) = request? else { break };
            let is_too_much = match &request {
                BlobRequest::Have(digests) | BlobRequest::Get(digests) => digests.len() > MAX_BLOBS_PER_REQUEST,
                BlobRequest::Chunks { chunks, .. } => chunks.len() > MAX_CHUNKS_PER_REQUEST,
                BlobRequest::Map { .. } => false,
            };
            if is_too_much {
                let refusal = WireError::new(ErrorCode::Invalid, Retry::Never, "too much in one request");
                return write_message(&mut self.stream, &BlobHeader::Refused(refusal)).await;
            }
            match request {
                BlobRequest::Have(digests) => {
                    let present = digests.iter().map(|digest| self.lender.is_lent(digest)).collect();
                    write_message(&mut self.stream, &BlobHave { present }).await?;
                }
                BlobRequest::Get(digests) => {
                    for digest in digests {
                        self.get(digest).await?;
                    }
                }
                BlobRequest::Map { blob, known } => self.map(blob, known).await?,
                BlobRequest::Chunks { blob, chunks } => {
                    for index in chunks {
                        self.chunk(blob, index).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn get(&mut self, digest: Digest) -> Result<(), FrameError> {
        if is_chunked(&digest) {
            return self.get_large(digest).await;
        }
        match reading(&self.lender, move |lender| lender.content(&digest)).await {
            Some(content) => {
                write_message(&mut self.stream, &BlobHeader::Found).await?;
                self.write(&digest, &content, true).await
            }
            None => write_message(&mut self.stream, &BlobHeader::Missing).await,
        }
    }

    /// All of a large one, checked before it leaves and never in memory at once.
    async fn get_large(&mut self, blob: Digest) -> Result<(), FrameError> {
        if reading(&self.lender, move |lender| lender.chunks(&blob)).await.is_none() {
            return write_message(&mut self.stream, &BlobHeader::Missing).await;
        }
        write_message(&mut self.stream, &BlobHeader::Found).await?;
        for index in 0..n_chunks(&blob) {
            let (_turn, content) = read_chunk(&self.lender, blob, index).await;
            // It changed while it was sent: the agent must not take what follows for the rest.
            let content = content.ok_or_else(|| io::Error::other("a lent file changed"))?;
            self.write(&blob, &content, index + 1 == n_chunks(&blob)).await?;
        }
        Ok(())
    }

    async fn map(&mut self, blob: Digest, known: Option<u32>) -> Result<(), FrameError> {
        let lender = self.lender.clone();
        let mut reading = tokio::task::spawn_blocking(move || match known {
            Some(_) => (lender.is_lent(&blob) && is_chunked(&blob)).then(Vec::new),
            None => lender.chunks(&blob).map(|chunks| chunks.values().to_vec()),
        });
        let values = loop {
            match timeout(Duration::from_millis(MAP_INTERVAL_MS), &mut reading).await {
                Ok(values) => break values.ok().flatten(),
                Err(_) => write_message(&mut self.stream, &BlobMap::Working).await?,
            }
        };
        let map = match values {
            Some(values) => {
                let present = Bytes(ChunkSet::all(n_chunks(&blob)).bits().to_vec());
                BlobMap::Found { values, present, coming: false }
            }
            None => BlobMap::Missing,
        };
        write_message(&mut self.stream, &map).await
    }

    async fn chunk(&mut self, blob: Digest, index: u32) -> Result<(), FrameError> {
        let (_turn, content) = read_chunk(&self.lender, blob, index).await;
        match content {
            Some(content) => {
                write_message(&mut self.stream, &BlobHeader::Found).await?;
                self.write(&blob, &content, index + 1 == n_chunks(&blob)).await
            }
            None => write_message(&mut self.stream, &BlobHeader::Missing).await,
        }
    }

    /// Sends `content` of the blob `of`, after which nothing of it is left to send if it is the `last`.
    async fn write(&mut self, of: &Digest, content: &[u8], last: bool) -> Result<(), FrameError> {
        for piece in content.chunks(PIECE_BYTES) {
            in_time(self.stream.write_all(piece)).await?;
            self.lender.moved(self.agent);
        }
        in_time(self.stream.flush()).await?;
        self.lender.moved(self.agent);
        self.lender.progress().took(self.lender.since.elapsed(), self.agent, of, content.len() as u64, last);
        self.journal.moved(content.len() as u64, 0);
        Ok(())
    }
}

/// Reads files as `read` says, off the event loop.
async fn reading<T: Send + 'static>(
    lender: &Lender,
    read: impl FnOnce(&Lender) -> Option<T> + Send + 'static,
) -> Option<T> {
    let lender = lender.clone();
    tokio::task::spawn_blocking(move || read(&lender)).await.ok().flatten()
}

/// A chunk, and the turn that bounds how many are in memory.
async fn read_chunk(lender: &Lender, blob: Digest, index: u32) -> (Option<OwnedSemaphorePermit>, Option<Vec<u8>>) {
    // Never closed.
    let turn = Arc::clone(&lender.turns).acquire_owned().await.ok();
    (turn, reading(lender, move |lender| lender.chunk(&blob, index)).await)
}

/// An agent that takes nothing must not keep what others wait for.
async fn in_time(writing: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(PIECE_DEADLINE, writing).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn chunks_are_lent_from_a_file_that_is_still_the_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.so");
        let content: Vec<u8> = (0u32..5 << 20).map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes()[0]).collect();
        fs::write(&path, &content).unwrap();
        let blob = Digest::of(&content);
        let lender = Lender::default();
        assert!(lender.chunks(&blob).is_none() && lender.chunk(&blob, 0).is_none(), "not lent yet");
        let loan = lender.lend([(blob, Source::File(path.clone()))]);
        let memory = Lender::default();
        let _loan = memory.lend([(blob, Source::Bytes(content.clone().into()))]);
        for lender in [&lender, &memory] {
            assert_eq!(lender.chunks(&blob).unwrap().n(), 5);
            for (index, chunk) in (0..).zip(content.chunks(1 << 20)) {
                assert_eq!(lender.chunk(&blob, index).unwrap(), chunk);
            }
            assert_eq!(lender.chunk(&blob, 5), None);
        }
        let mut changed = content;
        changed[1 << 20] ^= 1;
        fs::write(&path, &changed).unwrap();
        assert!(lender.chunk(&blob, 0).is_some() && lender.chunk(&blob, 1).is_none());
        fs::write(&path, &changed[..2 << 20]).unwrap();
        assert!(lender.chunk(&blob, 0).is_some() && lender.chunk(&blob, 4).is_none());
        drop(loan);
        assert!(lender.chunk(&blob, 0).is_none());
    }

    #[test]
    fn what_is_gone_from_one_place_is_lent_from_another() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..6).map(|n| folder.path().join(n.to_string())).collect();
        let digest = Digest::of(b"same");
        let lender = Lender::default();
        let loans: Vec<Loan> = paths.iter().map(|path| lender.lend([(digest, Source::File(path.clone()))])).collect();
        assert!(lender.content(&digest).is_none());
        for (n, path) in paths.iter().enumerate() {
            fs::write(path, b"same").unwrap();
            assert_eq!(lender.content(&digest).is_some(), n + 1 + MAX_OLDER_PLACES >= paths.len(), "{n}");
            fs::remove_file(path).unwrap();
        }
        drop(loans);
        fs::write(&paths[5], b"same").unwrap();
        assert!(lender.content(&digest).is_none());
    }

    async fn answer<M: buildbee_proto::codec::Message>(stream: &mut (impl AsyncRead + Unpin)) -> M {
        read_message(stream).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn large_content_leaves_in_checked_chunks() {
        let content: Vec<u8> = (0u32..(5 << 20) + 9).map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes()[0]).collect();
        let blob = Digest::of(&content);
        let lender = Lender::default();
        let _loan = lender.lend([(blob, Source::Bytes(content.clone().into()))]);
        let (mut near, far) = tokio::io::duplex(64 << 10);
        let agent = PeerId([7; 32]);
        let mut serving = Serving { lender: lender.clone(), journal: Journal::new(0), agent, stream: far };
        let serving = tokio::spawn(async move { serving.run().await });
        assert_eq!(lender.last_moved(&agent), None);
        for known in [None, Some(6)] {
            write_message(&mut near, &BlobRequest::Map { blob, known }).await.unwrap();
            let BlobMap::Found { values, present, coming: false } = answer(&mut near).await else {
                panic!("not there")
            };
            assert!(ChunkSet::from_bits(6, present.0).unwrap().is_all());
            assert_eq!(Chunks::new(blob, values).is_some(), known.is_none());
        }
        write_message(&mut near, &BlobRequest::Chunks { blob, chunks: vec![5, 6, 0] }).await.unwrap();
        for index in [5, 6, 0] {
            let header: BlobHeader = answer(&mut near).await;
            let Some(expected) = content.chunks(1 << 20).nth(index) else {
                assert_eq!(header, BlobHeader::Missing);
                continue;
            };
            assert_eq!(header, BlobHeader::Found);
            let mut chunk = vec![0; expected.len()];
            tokio::io::AsyncReadExt::read_exact(&mut near, &mut chunk).await.unwrap();
            assert_eq!(chunk, expected);
        }
        assert!(lender.last_moved(&agent).is_some());
        write_message(&mut near, &BlobRequest::Get(vec![blob])).await.unwrap();
        assert_eq!(answer::<BlobHeader>(&mut near).await, BlobHeader::Found);
        let mut whole = vec![0; content.len()];
        tokio::io::AsyncReadExt::read_exact(&mut near, &mut whole).await.unwrap();
        assert_eq!(Digest::of(&whole), blob);
        write_message(&mut near, &BlobRequest::Map { blob: Digest { size_bytes: 1 << 40, ..blob }, known: None })
            .await
            .unwrap();
        assert_eq!(answer::<BlobMap>(&mut near).await, BlobMap::Missing);
        drop(near);
        serving.await.unwrap().unwrap();
    }

    #[test]
    fn content_is_lent_while_a_loan_lives_and_only_if_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h");
        fs::write(&path, "one").unwrap();
        let digest = Digest::of(b"one");
        let lender = Lender::default();
        let first = lender.lend([(digest, Source::File(path.clone()))]);
        let second = lender.lend([(digest, Source::File(path.clone()))]);
        drop(first);
        assert_eq!(lender.content(&digest).as_deref(), Some(&b"one"[..]));
        for other in ["two", "", "one and more"] {
            fs::write(&path, other).unwrap();
            assert_eq!(lender.content(&digest), None);
        }
        drop(second);
        assert!(!lender.is_lent(&digest));
    }
}
