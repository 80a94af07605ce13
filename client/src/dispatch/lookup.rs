//! Asks the peers that are responsible for an action whether they hold its result.

use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::identity::verify_result;
use buildbee_p2p::node::Node;
use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{BlobHeader, BlobRequest, CacheReply, CacheRequest};
use buildbee_proto::limits::MAX_BLOBS_PER_REQUEST;
use buildbee_proto::membership::Roster;
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::keepers;
use buildbee_proto::version::Protocol;

use super::attempt::{AttemptError, MAX_RESULT_CONTENT_BYTES, RemoteResult, fits, named, read_blob, transfer_time};
use crate::inputs::discover::OutputPlace;

/// A peer answers within this time, or is passed over.
const DEADLINE: Duration = Duration::from_millis(250);

/// An action whose result is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its digest.
    pub action: &'a Digest,
    /// Its outputs, sorted.
    pub outputs: &'a [OutputPlace],
}

/// The result of an action from a peer that keeps it, with the peer's id. Never an error: what can't be had is a miss.
pub async fn find(
    node: &Node,
    roster: &Roster,
    responsive: &[PeerId],
    wanted: Wanted<'_>,
) -> Option<(PeerId, RemoteResult)> {
    let asked = keepers(wanted.action, roster).into_iter().filter(|peer| responsive.contains(peer));
    let asked =
        asked.map(|peer| async move { (peer, tokio::time::timeout(DEADLINE, ask(node, peer, wanted.action)).await) });
    for (peer, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(Ok(Some(signed))) if acceptable(&signed, roster, wanted) => match fetch(node, peer, signed).await {
                Ok(result) => return Some((peer, result)),
                Err(error) => tracing::debug!(peer = %peer.short(), %error, "a cached result could not be fetched"),
            },
            Ok(Ok(Some(_))) => {
                tracing::warn!(peer = %peer.short(), "refused a cached result that is not properly signed");
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(peer = %peer.short(), %error, "a peer could not be asked for a result"),
            Err(_) => tracing::debug!(peer = %peer.short(), "a peer did not answer in time"),
        }
    }
    None
}

async fn ask(node: &Node, peer: PeerId, action: &Digest) -> Result<Option<SignedResult>, AttemptError> {
    let mut stream = node.open(peer, Protocol::Cache).await?;
    write_message(&mut stream, &CacheRequest::Find { action: *action }).await?;
    match read_message::<CacheReply, _>(&mut stream).await? {
        Some(CacheReply::Found(None) | CacheReply::Noted | CacheReply::Hints(_)) => Ok(None),
        Some(CacheReply::Found(Some(bytes))) => Ok(Some(SignedResult::from_canonical(&bytes.0)?)),
        Some(CacheReply::Refused(error)) => Err(AttemptError::Refused(error)),
        None => Err(AttemptError::Gone),
    }
}

/// Good are results of this very action that succeeded in the sandbox of an agent of this farm.
fn acceptable(signed: &SignedResult, roster: &Roster, wanted: Wanted<'_>) -> bool {
    let result = &signed.result;
    result.exit_code == 0
        && fits(result, wanted.action, wanted.outputs).is_ok()
        && roster.has_agent(&result.provenance.peer)
        && verify_result(signed)
}

async fn fetch(node: &Node, peer: PeerId, signed: SignedResult) -> Result<RemoteResult, AttemptError> {
    let n_bytes = named(&signed).keys().map(|digest| digest.size_bytes).fold(0u64, u64::saturating_add);
    if n_bytes > MAX_RESULT_CONTENT_BYTES {
        return Err(AttemptError::BadResult("it is too large"));
    }
    let reading = Box::pin(fetch_all(node, peer, signed));
    tokio::time::timeout(transfer_time(n_bytes), reading).await.map_err(|_| AttemptError::Silent)?
}

async fn fetch_all(node: &Node, peer: PeerId, signed: SignedResult) -> Result<RemoteResult, AttemptError> {
    let mut blobs = named(&signed);
    let digests: Vec<Digest> = blobs.keys().copied().collect();
    let mut stream = node.open(peer, Protocol::Blob).await?;
    for batch in digests.chunks(MAX_BLOBS_PER_REQUEST) {
        write_message(&mut stream, &BlobRequest::Get(batch.to_vec())).await?;
        for digest in batch {
            match tokio::time::timeout(DEADLINE * 4, read_message::<BlobHeader, _>(&mut stream)).await {
                Ok(Ok(Some(BlobHeader::Found))) => {
                    let content = read_blob(&mut stream, digest).await?;
                    blobs.insert(*digest, content);
                }
                Ok(Ok(Some(BlobHeader::Refused(error)))) => return Err(AttemptError::Refused(error)),
                Ok(Ok(Some(BlobHeader::Missing) | None)) => return Err(AttemptError::Gone),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(AttemptError::Silent),
            }
        }
    }
    Ok(RemoteResult { signed, blobs, sent_bytes: 0 })
}
