//! Asks the peers that are responsible for a portable key where the compile was done before, and tells them.
//!
//! Nobody believes a hint, and nobody waits for one to be kept: what fails here is a hint less.

use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::Node;
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::hint::Hint;
use buildbee_proto::membership::Roster;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::keepers;
use buildbee_proto::version::Protocol;

use super::attempt::AttemptError;

/// A peer answers within this time, or is passed over.
const ASK_DEADLINE: Duration = Duration::from_millis(250);
/// The same for one that is told.
const TELL_DEADLINE: Duration = Duration::from_secs(5);

/// What the keepers of `key` among `responsive` know, without repetitions.
pub async fn ask(node: &Node, roster: &Roster, responsive: &[PeerId], key: &Digest) -> Vec<Hint> {
    let asked = keepers(key, roster).into_iter().filter(|peer| responsive.contains(peer));
    let asked =
        asked.map(|peer| tokio::time::timeout(ASK_DEADLINE, exchange(node, peer, CacheRequest::Hints { key: *key })));
    let mut hints: Vec<Hint> = Vec::new();
    for answer in futures::future::join_all(asked).await {
        if let Ok(Ok(CacheReply::Hints(more))) = answer {
            let new = |hint: &Hint| !hints.contains(hint);
            let more: Vec<_> = more.into_iter().filter(new).collect();
            hints.extend(more);
        }
    }
    hints
}

/// Tells the keepers of `key` among `responsive`.
pub async fn tell(node: &Node, roster: &Roster, responsive: &[PeerId], key: Digest, hint: &Hint) {
    for peer in keepers(&key, roster).into_iter().filter(|peer| responsive.contains(peer)) {
        let request = CacheRequest::Hint { key, hint: hint.clone() };
        match tokio::time::timeout(TELL_DEADLINE, exchange(node, peer, request)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(peer = %peer.short(), %error, "a peer could not be told of a result"),
            Err(_) => tracing::debug!(peer = %peer.short(), "a peer took too long to note a result"),
        }
    }
}

async fn exchange(node: &Node, peer: PeerId, request: CacheRequest) -> Result<CacheReply, AttemptError> {
    let mut stream = node.open(peer, Protocol::Cache).await?;
    write_message(&mut stream, &request).await?;
    match read_message::<CacheReply, _>(&mut stream).await? {
        Some(CacheReply::Refused(error)) => Err(AttemptError::Refused(error)),
        Some(reply) => Ok(reply),
        None => Err(AttemptError::Gone),
    }
}
