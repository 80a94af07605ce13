//! Tells the peers responsible for an action of its result, so that they keep it and its blobs too.
//!
//! Fire and forget: a bounded queue and one task. A peer that is away misses the announcement, and the result stays with this agent.

use std::sync::Arc;
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::Node;
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::keepers;
use buildbee_proto::version::Protocol;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Results waiting to be announced; further ones are not.
const MAX_WAITING: usize = 256;
/// How long one peer may take to note one.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(5);

/// Where results to be announced are handed in.
#[derive(Clone, Debug)]
pub struct Announcer {
    queue: mpsc::Sender<Arc<SignedResult>>,
}

/// An announcer, and the task's end of its queue for [`announce_task`].
pub fn announcer() -> (Announcer, mpsc::Receiver<Arc<SignedResult>>) {
    let (queue, waiting) = mpsc::channel(MAX_WAITING);
    (Announcer { queue }, waiting)
}

impl Announcer {
    /// Announces `result` soon, unless too much waits already.
    pub fn announce(&self, result: Arc<SignedResult>) {
        if self.queue.try_send(result).is_err() {
            tracing::debug!("too many results wait to be announced; one is not");
        }
    }
}

/// Works the queue off until `stop`.
pub async fn announce_task(node: Node, mut waiting: mpsc::Receiver<Arc<SignedResult>>, stop: CancellationToken) {
    while let Some(Some(result)) = stop.run_until_cancelled(waiting.recv()).await {
        let Some(roster) = node.roster() else { continue };
        for peer in keepers(&result.result.action, &roster.value) {
            if peer == node.peer() || !node.peers().borrow().contains(peer) {
                continue;
            }
            let told = timeout(ANNOUNCE_DEADLINE, tell(&node, peer, &result));
            match stop.run_until_cancelled(told).await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => tracing::debug!(peer = %peer.short(), error, "announcement failed"),
                Some(Err(_)) => tracing::debug!(peer = %peer.short(), "announcement took too long"),
                None => return,
            }
        }
    }
}

async fn tell(node: &Node, peer: PeerId, result: &SignedResult) -> Result<(), String> {
    let mut stream = node.open(peer, Protocol::Cache).await.map_err(|error| error.to_string())?;
    let request = CacheRequest::Announce { result: Bytes(result.to_canonical()) };
    write_message(&mut stream, &request).await.map_err(|error| error.to_string())?;
    match read_message::<CacheReply, _>(&mut stream).await.map_err(|error| error.to_string())? {
        Some(CacheReply::Noted) => Ok(()),
        Some(CacheReply::Refused(error)) => Err(error.to_string()),
        Some(CacheReply::Found(_) | CacheReply::Hints(_)) => Err("an answer to another question".to_owned()),
        None => Err("the stream ended early".to_owned()),
    }
}
