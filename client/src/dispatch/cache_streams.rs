//! Streams to the caches of peers, kept open from one question to the next: to open one costs several times what a question does.
//!
//! A stream that was kept may have been given up at its other end. Questions may be asked twice, so that is found out by asking. Not
//! here: what is asked, and how long an answer may take.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_messages};
use buildbee_p2p::node::{Node, PeerStream};
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use tokio::time::Instant;

use super::attempt::AttemptError;

/// Streams kept for one peer. Few, since they count among those that it serves.
const MAX_KEPT: usize = 2;
/// One that was not used for so long is not used again. Peers end them after a minute.
const KEPT_FOR: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Kept {
    stream: PeerStream,
    since: Instant,
}

/// Asks peers, over streams that are kept. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct CacheStreams {
    node: Node,
    /// Bounded by the peers that there are, and `MAX_KEPT` each. What has failed goes when it is next taken, or tidied away.
    kept: Arc<Mutex<HashMap<PeerId, Vec<Kept>>>>,
}

impl CacheStreams {
    /// Over the connections of `node`.
    pub fn new(node: Node) -> Self {
        Self { node, kept: Arc::default() }
    }

    /// The answers of `peer`, one a request. Requests must be such as may be heard twice. Drop it to give up: the stream goes too.
    pub async fn ask(&self, peer: PeerId, requests: &[CacheRequest]) -> Result<Vec<CacheReply>, AttemptError> {
        if let Some(mut stream) = self.take(&peer) {
            match talk(&mut stream, requests).await {
                Ok(replies) => {
                    self.keep(peer, stream);
                    return Ok(replies);
                }
                Err(error) => tracing::debug!(peer = %peer.short(), %error, "a kept stream was given up"),
            }
        }
        let mut stream = self.node.open(peer, Protocol::Cache).await?;
        let replies = talk(&mut stream, requests).await?;
        self.keep(peer, stream);
        Ok(replies)
    }

    // Insertions and removals: nothing can be left half done under the lock.
    fn kept(&self) -> MutexGuard<'_, HashMap<PeerId, Vec<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, peer: &PeerId) -> Option<PeerStream> {
        let kept = self.kept().get_mut(peer)?.pop()?;
        (kept.since.elapsed() < KEPT_FOR).then_some(kept.stream)
    }

    fn keep(&self, peer: PeerId, stream: PeerStream) {
        let mut kept = self.kept();
        let streams = kept.entry(peer).or_default();
        if streams.len() < MAX_KEPT {
            streams.push(Kept { stream, since: Instant::now() });
        }
    }

    /// Lets go of streams that nobody has used for long, so that peers need not serve them. To be called now and then.
    pub fn tidy(&self) {
        let now = Instant::now();
        self.kept().retain(|_, streams| {
            streams.retain(|kept| now - kept.since < KEPT_FOR);
            !streams.is_empty()
        });
    }
}

async fn talk(stream: &mut PeerStream, requests: &[CacheRequest]) -> Result<Vec<CacheReply>, AttemptError> {
    write_messages(stream, requests).await?;
    let mut replies = Vec::with_capacity(requests.len());
    for _ in requests {
        replies.push(read_message(stream).await?.ok_or(AttemptError::Gone)?);
    }
    Ok(replies)
}
