//! Takes in the blobs that a client offered along with an action and this agent lacks.
//!
//! Between telling the client what is lacking and its answer, others that want the same blobs wait for them. Directories may come as what
//! differs from earlier ones, which may be on their way themselves. Not here: what the client does not send, which is fetched like
//! everything else; so is what differs from something that this agent has forgotten.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use buildbee_p2p::difference::restored;
use buildbee_p2p::frames::read_message;
use buildbee_proto::digest::Digest;
use buildbee_proto::execute::{ActionUpdate, Alike, Supply};
use buildbee_proto::limits::{MAX_BASES_BYTES, MAX_INLINE_BYTES};
use buildbee_store::{PutError, Store};
use thiserror::Error;
use tokio::io::AsyncRead;
use tokio::time::timeout;

use crate::exchange::arriving::{Arriving, Claim};
use crate::exchange::small::{Content, Small};

/// How long a client may take to send what it offered: this, and time for its bytes. Others may be waiting for it too.
const SUPPLY_DEADLINE: Duration = Duration::from_secs(10);
/// The slowest link that a client may be behind.
const LEAST_BYTES_PER_SECOND: u64 = 128 << 10;

/// What of an offer is neither here nor on its way. Nobody else brings it while this lives.
#[derive(Debug)]
pub(crate) struct Lack {
    claim: Claim,
    flags: Vec<bool>,
    offered: Vec<Digest>,
    arriving: Arriving,
}

/// Why a supply was not taken in.
#[derive(Debug, Error)]
enum SupplyError {
    #[error(transparent)]
    Put(#[from] PutError),
    #[error("what differs is not said properly: {0}")]
    Alike(#[from] io::Error),
}

impl Lack {
    /// What `store` lacks of `offered`; `None` if that is nothing.
    pub(crate) fn of(offered: Vec<Digest>, store: &Store, arriving: &Arriving) -> Option<Self> {
        if offered.is_empty() {
            return None;
        }
        let (claim, _) = arriving.claim(store.missing(&offered));
        claim.make_certain(claim.digests());
        let mut lacking: HashSet<&Digest> = claim.digests().iter().collect();
        // A digest that is offered twice is lacking once.
        let flags: Vec<bool> = offered.iter().map(|digest| lacking.remove(digest)).collect();
        (!claim.digests().is_empty()).then(|| Self { claim, flags, offered, arriving: arriving.clone() })
    }

    /// What the client is told.
    pub(crate) fn told(&self) -> ActionUpdate {
        ActionUpdate::Lacks(self.flags.clone())
    }

    /// Reads the client's answer from `reader` into `store`. Whether it is one.
    pub(crate) async fn supplied<R: AsyncRead + Unpin>(self, store: Store, small: Small, reader: &mut R) -> bool {
        let n_wanted = sum_bytes(self.claim.digests());
        let patience = Duration::from_secs(n_wanted.min(MAX_INLINE_BYTES as u64) / LEAST_BYTES_PER_SECOND);
        let coming = async {
            let supply = read_message::<Supply, _>(reader).await.ok()??;
            if !self.is_fitting(&supply) {
                return None;
            }
            if let Some(alike) = &supply.alike {
                // With an action before this one. Who lets its own wait for each other waits until the deadline.
                self.arriving.settled(&alike.bases, SUPPLY_DEADLINE).await;
            }
            Some(supply)
        };
        let Ok(Some(supply)) = timeout(SUPPLY_DEADLINE + patience, coming).await else { return false };
        let put = tokio::task::spawn_blocking(move || self.put(&store, &small, &supply)).await;
        match put {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "what a client sent along was not stored");
                false
            }
            Err(_) => false,
        }
    }

    fn is_fitting(&self, supply: &Supply) -> bool {
        let lacking = self.claim.digests();
        let n_bytes: usize = supply.blobs.iter().map(|blob| blob.0.len()).sum();
        let is_alike = |alike: &Alike| {
            let alike_bytes = lacking.get(..alike.n_blobs as usize).map(sum_bytes);
            alike_bytes.is_some_and(|n_bytes| n_bytes <= MAX_INLINE_BYTES as u64)
                && sum_bytes(&alike.bases) <= MAX_BASES_BYTES as u64
                // It would wait for itself.
                && !alike.bases.iter().any(|base| lacking.contains(base))
        };
        supply.blobs.len() == lacking.len() && n_bytes <= MAX_INLINE_BYTES && supply.alike.as_ref().is_none_or(is_alike)
    }

    /// The claim's digests stand in the order of the flags.
    fn put(&self, store: &Store, small: &Small, supply: &Supply) -> Result<(), SupplyError> {
        if let Some(alike) = &supply.alike {
            self.put_alike(store, small, alike)?;
        }
        let sent = self.claim.digests().iter().zip(&supply.blobs).filter(|(_, blob)| !blob.0.is_empty());
        Ok(sent.into_iter().try_for_each(|(digest, blob)| store.put_linkable(digest, &blob.0))?)
    }

    fn put_alike(&self, store: &Store, small: &Small, alike: &Alike) -> Result<(), SupplyError> {
        let base = |digest: &Digest| -> Option<Content> {
            small.get(digest).or_else(|| store.read(digest, MAX_BASES_BYTES as u64).ok()?.map(Into::into))
        };
        let Some(bases) = alike.bases.iter().map(base).collect::<Option<Vec<_>>>() else {
            tracing::debug!("what differs from forgotten directories is left to be fetched");
            return Ok(());
        };
        let wanted = self.claim.digests().get(..alike.n_blobs as usize).unwrap_or_default();
        let prefix = Alike::prefix(bases.iter().map(AsRef::as_ref), &self.offered);
        let n_bytes = usize::try_from(sum_bytes(wanted)).unwrap_or(usize::MAX);
        let contents = restored(&alike.frame.0, &prefix, n_bytes)?;
        let mut left = &contents[..];
        for digest in wanted {
            let length = usize::try_from(digest.size_bytes).unwrap_or(usize::MAX);
            let (content, rest) =
                left.split_at_checked(length).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            store.put_linkable(digest, content)?;
            left = rest;
        }
        Ok(())
    }
}

fn sum_bytes(digests: &[Digest]) -> u64 {
    digests.iter().fold(0, |sum, digest| sum.saturating_add(digest.size_bytes))
}
