//! Brings missing blobs into the store: from other agents where that is likely to be quicker, from the client that wants the action run
//! last, since it always has them.
//!
//! Each blob is fetched once however many ask for it. Every byte is verified before it is stored; a source that sends bad ones is named
//! in the log and not asked again in this fetch. Large blobs go their own way (`large`) beside the others (`many`). Not here: which
//! blobs are needed; keeping them.

use std::sync::Arc;
use std::time::Duration;

use buildbee_p2p::node::Node;
use buildbee_proto::chunk::is_chunked;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::peer::{PeerId, Role};
use buildbee_store::{PutError, Store};
use futures::future::{BoxFuture, try_join};
use futures::stream::{StreamExt, TryStreamExt};
use thiserror::Error;
use tokio::time::timeout;

use super::arriving::{Arriving, Claim};
use super::large::Large;
use super::many::{Many, total_bytes};
use super::pull::ordered;
use super::receive::SourceFault;

/// How long one call may take in all, where everybody trickles: this, and time for its bytes.
const FETCH_DEADLINE: Duration = Duration::from_secs(300);
/// A slot is not kept for sources that are slower than this together.
const LEAST_BYTES_PER_SECOND: u64 = 16 << 10;
/// Below this many missing bytes, asking around costs more than it saves.
const ASK_AROUND_BYTES: u64 = 64 << 10;
/// Agents asked whether they have something.
const MAX_ASKED: usize = 8;
/// The same for each large blob: all who fetch it swap its chunks.
const MAX_ASKED_FOR_LARGE: usize = 16;
/// Large blobs brought at once.
const MAX_LARGE: usize = 2;
/// Times a blob that vanishes from the store again is fetched.
const MAX_ROUNDS: usize = 3;

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

    /// This agent's id.
    pub fn own_peer(&self) -> PeerId {
        self.inner.node.peer()
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
        let blobs = ordered(blobs.to_vec(), &self.node.peer(), &agents);
        let bringing: Vec<_> =
            blobs.into_iter().map(|blob| self.bring_one(claim, blob, sources.origin, &agents)).collect();
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
        let Some(first) = digests.first().copied() else { return Ok(()) };
        let is_little = total_bytes(digests) < ASK_AROUND_BYTES;
        let note = |peer, fault: &SourceFault| self.note(peer, fault);
        let bring = async |agents: Vec<PeerId>, digests: &[Digest]| {
            let digests = ordered(digests.to_vec(), &self.node.peer(), &agents);
            Many::new((&self.node, &self.store), claim, (sources.origin, agents), &note).bring(&digests).await
        };
        let agents = if is_little { Vec::new() } else { self.candidates(sources, MAX_ASKED) };
        let mut brought = bring(agents, digests).await;
        if is_little && matches!(brought, Err(SourceFault::Lost(_))) {
            // A double's: no client has it.
            brought = bring(self.candidates(sources, MAX_ASKED), &self.store.missing(digests)).await;
        }
        brought.map_err(|fault| {
            let digest = self.store.missing(digests).first().copied().unwrap_or(first);
            self.lost(digest, sources.origin, fault)
        })
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
}
