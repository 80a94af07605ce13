//! Brings missing blobs into the store: from other agents where that is likely to be quicker, from the client that wants the action run
//! last, since it always has them.
//!
//! Each blob is fetched once however many ask for it. Every byte is verified before it is stored; a source that sends bad ones is named
//! in the log and not asked again in this fetch. Large blobs go their own way (`large`) beside the others. Not here: which
//! blobs are needed; keeping them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::{Node, PeerStream};
use buildbee_proto::chunk::is_chunked;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::exchange::{BlobHave, BlobRequest};
use buildbee_proto::limits::MAX_BLOBS_PER_REQUEST;
use buildbee_proto::peer::{PeerId, Role};
use buildbee_proto::version::Protocol;
use buildbee_store::{PutError, Store};
use futures::future::{BoxFuture, join_all, try_join};
use futures::stream::{StreamExt, TryStreamExt};
use thiserror::Error;
use tokio::io::BufReader;
use tokio::time::timeout;

use super::arriving::{Arriving, Claim};
use super::large::Large;
use super::receive::{Landed, SourceFault, get_batch};

/// How long one call may take in all, where everybody trickles: this, and time for its bytes.
const FETCH_DEADLINE: Duration = Duration::from_secs(300);
/// A slot is not kept for sources that are slower than this together.
const LEAST_BYTES_PER_SECOND: u64 = 16 << 10;
/// Below this many missing bytes, asking around costs more than it saves.
const ASK_AROUND_BYTES: u64 = 64 << 10;
/// Agents asked whether they have something.
const MAX_ASKED: usize = 3;
/// The same for each large blob: all who fetch it swap its chunks.
const MAX_ASKED_FOR_LARGE: usize = 16;
/// Large blobs brought at once.
const MAX_LARGE: usize = 2;
/// How long they may think about one batch.
const HAVE_DEADLINE: Duration = Duration::from_millis(200);
/// How long opening a stream may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// Streams at once to one source.
const STREAMS_PER_SOURCE: usize = 3;
/// Bytes of one batch, unless a single blob has more.
const BATCH_BYTES: u64 = 32 << 20;
/// Times a blob that vanishes from the store again is fetched.
const MAX_ROUNDS: usize = 3;
const READ_BUFFER_BYTES: usize = 64 << 10;

/// Who to fetch from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Who always has everything, and is asked last.
    pub origin: PeerId,
    /// Agents that are likely to have it, best first. Others that are connected are asked after them.
    pub likely: Vec<PeerId>,
}

/// Why something could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Nobody has it.
    #[error("blob {0} can be had from nobody")]
    Missing(Digest),
    /// The one that must have it could not be asked, or answered with something else.
    #[error("blob {digest} can't be had: peer {} {fault}", .peer.short())]
    Source {
        /// The first of what is still missing.
        digest: Digest,
        /// Who was asked.
        peer: PeerId,
        /// What came of it.
        fault: String,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] PutError),
    /// It took too long.
    #[error("fetching took too long")]
    Late,
}

impl From<FetchError> for WireError {
    fn from(error: FetchError) -> Self {
        let (code, retry) = match &error {
            FetchError::Missing(_) => (ErrorCode::MissingBlob, Retry::Never),
            FetchError::Source { .. } | FetchError::Late => (ErrorCode::MissingBlob, Retry::OtherAgent),
            FetchError::Store(PutError::Unsupported { .. }) => (ErrorCode::Invalid, Retry::Never),
            FetchError::Store(_) => (ErrorCode::Storage, Retry::OtherAgent),
        };
        Self::new(code, retry, error)
    }
}

/// Cheap to clone; clones share what is on its way.
#[derive(Clone, Debug)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: Node,
    store: Store,
    arriving: Arriving,
}

impl Fetcher {
    /// Fetches over `node` into `store`.
    pub fn new(node: Node, store: Store) -> Self {
        Self { inner: Arc::new(Inner { node, store, arriving: Arriving::default() }) }
    }

    /// What is on its way.
    pub fn arriving(&self) -> &Arriving {
        &self.inner.arriving
    }

    /// Returns when all of `wanted` is in the store. Cancel-safe: what came so far stays. Pin what must not be evicted meanwhile.
    pub async fn fetch(&self, wanted: &[Digest], sources: &Sources) -> Result<(), FetchError> {
        if self.inner.store.missing(wanted).is_empty() {
            return Ok(());
        }
        let seconds = total_bytes(wanted) / LEAST_BYTES_PER_SECOND;
        let patience = FETCH_DEADLINE.saturating_add(Duration::from_secs(seconds));
        timeout(patience, Box::pin(self.inner.fetch(wanted, sources))).await.map_err(|_| FetchError::Late)?
    }
}

impl Inner {
    async fn fetch(&self, wanted: &[Digest], sources: &Sources) -> Result<(), FetchError> {
        let empty = Digest::of(b"");
        let mut n_rounds = 0;
        loop {
            let mut missing = self.store.missing(wanted);
            if let Some(at) = missing.iter().position(|digest| *digest == empty) {
                self.store.put_bytes(b"")?;
                missing.retain(|digest| *digest != empty);
                tracing::trace!(at, "the empty blob needs no source");
            }
            let Some(first) = missing.first().copied() else { return Ok(()) };
            let (claim, other) = self.arriving.claim(missing);
            match other {
                Some(other) if claim.digests().is_empty() => other.landed().await,
                _ if n_rounds == MAX_ROUNDS => return Err(FetchError::Missing(first)),
                _ => {
                    n_rounds += 1;
                    self.bring(&claim, sources).await?;
                }
            }
        }
    }

    async fn bring(&self, claim: &Claim, sources: &Sources) -> Result<(), FetchError> {
        let (large, small): (Vec<Digest>, Vec<Digest>) = claim.digests().iter().partition(|digest| is_chunked(digest));
        try_join(self.bring_small(claim, &small, sources), self.bring_large(claim, &large, sources)).await.map(drop)
    }

    async fn bring_large(&self, claim: &Claim, blobs: &[Digest], sources: &Sources) -> Result<(), FetchError> {
        if blobs.is_empty() {
            return Ok(());
        }
        let agents = self.candidates(sources, MAX_ASKED_FOR_LARGE);
        let bringing: Vec<_> = blobs.iter().map(|blob| self.bring_one(claim, *blob, sources.origin, &agents)).collect();
        futures::stream::iter(bringing).buffer_unordered(MAX_LARGE).try_collect().await
    }

    fn bring_one<'a>(
        &'a self,
        claim: &'a Claim,
        blob: Digest,
        origin: PeerId,
        agents: &'a [PeerId],
    ) -> BoxFuture<'a, Result<(), FetchError>> {
        Box::pin(async move {
            let large = Large { node: &self.node, store: &self.store, partials: self.arriving.partials() };
            let note = |peer, fault: &SourceFault| self.note(peer, fault);
            large.bring(blob, origin, agents, &note).await.map_err(|fault| self.lost(blob, origin, fault))?;
            claim.landed(&[blob]);
            Ok(())
        })
    }

    /// Why the origin was of no use.
    fn lost(&self, digest: Digest, origin: PeerId, fault: SourceFault) -> FetchError {
        match fault {
            SourceFault::Store(error) => error.into(),
            SourceFault::Lost(digest) => FetchError::Missing(digest),
            fault => {
                self.note(origin, &fault);
                FetchError::Source { digest, peer: origin, fault: fault.to_string() }
            }
        }
    }

    async fn bring_small(&self, claim: &Claim, digests: &[Digest], sources: &Sources) -> Result<(), FetchError> {
        let landed = |digests: &[Digest]| claim.landed(digests);
        if total_bytes(digests) >= ASK_AROUND_BYTES {
            self.bring_from_agents(digests, sources, &landed).await?;
        }
        let left = self.store.missing(digests);
        let Some(first) = left.first().copied() else { return Ok(()) };
        claim.make_certain(&left);
        if let Err(fault) = self.get(sources.origin, &left, &landed).await {
            let digest = self.store.missing(&left).first().copied().unwrap_or(first);
            return Err(self.lost(digest, sources.origin, fault));
        }
        match self.store.missing(&left).first() {
            Some(digest) => Err(FetchError::Missing(*digest)),
            None => Ok(()),
        }
    }

    /// What some agents have comes from them; whatever fails is left to the origin. Only an error of the store here is an error.
    async fn bring_from_agents(
        &self,
        digests: &[Digest],
        sources: &Sources,
        landed: Landed<'_>,
    ) -> Result<(), FetchError> {
        let candidates = self.candidates(sources, MAX_ASKED);
        let answers = join_all(candidates.iter().map(|peer| self.ask(*peer, digests))).await;
        let mut shares: Vec<(PeerId, Vec<Digest>)> = candidates.iter().map(|peer| (*peer, Vec::new())).collect();
        for digest in digests {
            // The one with the smallest share so far, so that several carry what several have.
            let having = answers.iter().enumerate().filter(|(_, answer)| answer.contains(digest));
            let least = having.map(|(at, _)| at).min_by_key(|&at| total_bytes(&shares[at].1));
            if let Some(at) = least {
                shares[at].1.push(*digest);
            }
        }
        shares.retain(|(_, share)| !share.is_empty());
        let results = join_all(shares.iter().map(|(peer, share)| self.get(*peer, share, landed))).await;
        for ((peer, _), result) in shares.iter().zip(results) {
            match result {
                Ok(()) => {}
                Err(SourceFault::Store(error)) => return Err(error.into()),
                Err(fault) => self.note(*peer, &fault),
            }
        }
        Ok(())
    }

    fn candidates(&self, sources: &Sources, n_most: usize) -> Vec<PeerId> {
        let table = self.node.peers().borrow().clone();
        let is_agent = |peer: &PeerId| table.0.iter().any(|entry| entry.peer == *peer && entry.role == Role::Agent);
        let others = table.0.iter().map(|entry| entry.peer).filter(|peer| !sources.likely.contains(peer));
        let mut candidates: Vec<PeerId> = sources.likely.iter().copied().chain(others).collect();
        candidates.retain(|peer| is_agent(peer) && *peer != sources.origin);
        candidates.truncate(n_most);
        candidates
    }

    fn note(&self, peer: PeerId, fault: &SourceFault) {
        let name = self.node.peers().borrow().0.iter().find(|entry| entry.peer == peer).map(|entry| entry.name.clone());
        let name = name.unwrap_or_default();
        if matches!(fault, SourceFault::Lied(_)) {
            tracing::warn!(peer = %peer.short(), name, %fault, "a peer sent bad bytes");
        } else {
            tracing::debug!(peer = %peer.short(), name, %fault, "a source failed");
        }
    }

    /// Which of `digests` `peer` has, as far as it says so in time.
    async fn ask(&self, peer: PeerId, digests: &[Digest]) -> HashSet<Digest> {
        let mut having = HashSet::new();
        let Ok(Ok(mut stream)) = timeout(HAVE_DEADLINE, self.node.open(peer, Protocol::Blob)).await else {
            return having;
        };
        for batch in digests.chunks(MAX_BLOBS_PER_REQUEST) {
            let Ok(Some(present)) = timeout(HAVE_DEADLINE, ask_batch(&mut stream, batch)).await else { break };
            having.extend(batch.iter().zip(present).filter(|(_, present)| *present).map(|(digest, _)| *digest));
        }
        having
    }

    /// Gets what `peer` has of `digests`, over a few streams at once.
    async fn get(&self, peer: PeerId, digests: &[Digest], landed: Landed<'_>) -> Result<(), SourceFault> {
        let queue = Mutex::new(batches(digests));
        let n_streams = queue.lock().unwrap_or_else(PoisonError::into_inner).len().min(STREAMS_PER_SOURCE);
        let workers = (0..n_streams).map(|_| self.get_batches(peer, &queue, landed));
        futures::future::try_join_all(workers).await.map(drop)
    }

    async fn get_batches(
        &self,
        peer: PeerId,
        queue: &Mutex<VecDeque<Vec<Digest>>>,
        landed: Landed<'_>,
    ) -> Result<(), SourceFault> {
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(mut batch) = next() else { return Ok(()) };
        let opened = timeout(OPEN_DEADLINE, self.node.open(peer, Protocol::Blob)).await;
        let stream = opened.map_err(|_| SourceFault::Late)?.map_err(|error| SourceFault::Open(error.to_string()))?;
        let mut stream = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
        loop {
            get_batch(&self.store, &mut stream, batch, landed).await?;
            match next() {
                Some(more) => batch = more,
                None => return Ok(()),
            }
        }
    }
}

async fn ask_batch(stream: &mut PeerStream, batch: &[Digest]) -> Option<Vec<bool>> {
    write_message(stream, &BlobRequest::Have(batch.to_vec())).await.ok()?;
    let answer: BlobHave = read_message(stream).await.ok()??;
    Some(answer.present)
}

fn total_bytes(digests: &[Digest]) -> u64 {
    digests.iter().fold(0, |sum, digest| sum.saturating_add(digest.size_bytes))
}

/// `digests` in requests of a reasonable size.
fn batches(digests: &[Digest]) -> VecDeque<Vec<Digest>> {
    let mut batches = VecDeque::new();
    let mut batch = Vec::new();
    let mut n_bytes = 0u64;
    for digest in digests {
        let sum = n_bytes.saturating_add(digest.size_bytes);
        if batch.len() == MAX_BLOBS_PER_REQUEST || (sum > BATCH_BYTES && !batch.is_empty()) {
            batches.push_back(std::mem::take(&mut batch));
            n_bytes = 0;
        }
        n_bytes = n_bytes.saturating_add(digest.size_bytes);
        batch.push(*digest);
    }
    if !batch.is_empty() {
        batches.push_back(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_in_number_and_bytes() {
        let small: Vec<Digest> = (0..1000u32).map(|n| Digest::of(&n.to_le_bytes())).collect();
        let cut = batches(&small);
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 256, 232]);
        let giant = Digest { size_bytes: u64::MAX, ..small[0] };
        assert_eq!(batches(&[giant, giant, small[0]]).len(), 3);
        assert!(batches(&[]).is_empty());
    }
}
