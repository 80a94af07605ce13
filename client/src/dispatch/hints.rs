//! Tells the peers responsible for a portable key where the compile was done before. ([`lookup`](super::lookup) asks them.)
//!
//! Nobody believes a hint, and nobody waits for one to be kept: what fails here is a hint less.

use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::CacheRequest;
use buildbee_proto::hint::Hint;
use buildbee_proto::membership::Roster;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::keepers;

use super::cache_streams::CacheStreams;

/// A peer notes a hint within this time, or is passed over.
const DEADLINE: Duration = Duration::from_secs(5);

/// Tells the keepers of `key` among `responsive`.
pub async fn tell(streams: &CacheStreams, roster: &Roster, responsive: &[PeerId], key: Digest, hint: &Hint) {
    for peer in keepers(&key, roster).into_iter().filter(|peer| responsive.contains(peer)) {
        let request = CacheRequest::Hint { key, hint: hint.clone() };
        match tokio::time::timeout(DEADLINE, streams.ask(peer, &[request])).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(peer = %peer.short(), %error, "a peer could not be told of a result"),
            Err(_) => tracing::debug!(peer = %peer.short(), "a peer took too long to note a result"),
        }
    }
}
