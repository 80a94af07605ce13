//! Takes in the blobs that a client offered along with an action and this agent lacks.
//!
//! Between telling the client what is lacking and its answer, others that want the same blobs wait for them. Not here: what the client
//! does not send, which is fetched like everything else.

use std::collections::HashSet;
use std::time::Duration;

use buildbee_p2p::frames::read_message;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::execute::{ActionUpdate, Supply};
use buildbee_proto::limits::MAX_INLINE_BYTES;
use buildbee_store::{PutError, Store};
use tokio::io::AsyncRead;
use tokio::time::timeout;

use crate::exchange::arriving::{Arriving, Claim};

/// How long a client may take to send what it offered: this, and time for its bytes. Others may be waiting for it too.
const SUPPLY_DEADLINE: Duration = Duration::from_secs(10);
/// The slowest link that a client may be behind.
const LEAST_BYTES_PER_SECOND: u64 = 128 << 10;

/// What of an offer is neither here nor on its way. Nobody else brings it while this lives.
#[derive(Debug)]
pub(crate) struct Lack {
    claim: Claim,
    flags: Vec<bool>,
}

impl Lack {
    /// What `store` lacks of `offered`; `None` if that is nothing.
    pub(crate) fn of(offered: &[Digest], store: &Store, arriving: &Arriving) -> Option<Self> {
        if offered.is_empty() {
            return None;
        }
        let (claim, _) = arriving.claim(store.missing(offered));
        claim.make_certain(claim.digests());
        let mut lacking: HashSet<&Digest> = claim.digests().iter().collect();
        // A digest that is offered twice is lacking once.
        let flags: Vec<bool> = offered.iter().map(|digest| lacking.remove(digest)).collect();
        (!claim.digests().is_empty()).then_some(Self { claim, flags })
    }

    /// What the client is told.
    pub(crate) fn told(&self) -> ActionUpdate {
        ActionUpdate::Lacks(self.flags.clone())
    }

    /// Reads the client's answer from `reader` into `store`. Whether it is one.
    pub(crate) async fn supplied<R: AsyncRead + Unpin>(self, store: Store, reader: &mut R) -> bool {
        let n_wanted = self.claim.digests().iter().fold(0u64, |sum, digest| sum.saturating_add(digest.size_bytes));
        let patience = Duration::from_secs(n_wanted.min(MAX_INLINE_BYTES as u64) / LEAST_BYTES_PER_SECOND);
        let supplied = timeout(SUPPLY_DEADLINE + patience, read_message::<Supply, _>(reader));
        let Ok(Ok(Some(supply))) = supplied.await else {
            return false;
        };
        let n_bytes: usize = supply.blobs.iter().map(|blob| blob.0.len()).sum();
        if supply.blobs.len() != self.claim.digests().len() || n_bytes > MAX_INLINE_BYTES {
            return false;
        }
        let put = tokio::task::spawn_blocking(move || self.put(&store, &supply.blobs)).await;
        match put {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "what a client sent along was not stored");
                false
            }
            Err(_) => false,
        }
    }

    /// The claim's digests stand in the order of the flags.
    fn put(&self, store: &Store, blobs: &[Bytes]) -> Result<(), PutError> {
        let sent = self.claim.digests().iter().zip(blobs).filter(|(_, blob)| !blob.0.is_empty());
        sent.into_iter().try_for_each(|(digest, blob)| store.put_linkable(digest, &blob.0).map(drop))
    }
}
