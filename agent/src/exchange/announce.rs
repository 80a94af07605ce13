//! Tells the peers responsible for an action of its result, so that they keep it and its blobs too.
//!
//! Fire and forget: a bounded queue and one task. A peer that is away misses the announcement, and the result stays with this agent. Small
//! blobs come along, and the stream to each peer stays open for the next result: otherwise three streams were opened for each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_messages};
use buildbee_p2p::node::{Node, PeerStream};
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::limits::{MAX_ANNOUNCED_BLOBS, MAX_ANNOUNCED_BYTES};
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::keepers;
use buildbee_proto::version::Protocol;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::blobs_of;
use super::small::Small;

/// Results waiting to be announced; further ones are not.
const MAX_WAITING: usize = 256;
/// How long results are gathered, so that one packet and one wake-up at the other end do for several. Nobody waits for it.
const GATHERING: Duration = Duration::from_millis(100);
/// Results announced together: what they bring along stays within a megabyte.
const MAX_GATHERED: usize = 16;
/// How long one peer may take to note them.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(5);

/// Streams that stay open. Most results of a farm go to others than the last one did.
const MAX_OPEN: usize = 16;

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

/// Works the queue off until `stop`. Blobs that come along are taken from `small`.
pub async fn announce_task(
    node: Node,
    small: Small,
    mut waiting: mpsc::Receiver<Arc<SignedResult>>,
    stop: CancellationToken,
) {
    let mut streams = Streams { node: node.clone(), open: HashMap::new() };
    while let Some(Some(first)) = stop.run_until_cancelled(waiting.recv()).await {
        // At the end, what is there goes at once.
        let _ = stop.run_until_cancelled(tokio::time::sleep(GATHERING)).await;
        let mut results = vec![first];
        while results.len() < MAX_GATHERED
            && let Ok(result) = waiting.try_recv()
        {
            results.push(result);
        }
        let Some(roster) = node.roster() else { continue };
        let by_keeper = shares(&results, |action| keepers(action, &roster.value));
        for (peer, results) in by_keeper {
            if peer == node.peer() || !node.peers().borrow().contains(peer) {
                continue;
            }
            let requests: Vec<_> = results.into_iter().map(|result| announcement(result, &small)).collect();
            let told = timeout(ANNOUNCE_DEADLINE, streams.tell(peer, &requests));
            match stop.run_until_cancelled(told).await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => tracing::debug!(peer = %peer.short(), error, "announcement failed"),
                Some(Err(_)) => tracing::debug!(peer = %peer.short(), "announcement took too long"),
                None => return,
            }
        }
    }
}

/// What each keeper is told of.
fn shares<I: IntoIterator<Item = PeerId>>(
    results: &[Arc<SignedResult>],
    keepers: impl Fn(&Digest) -> I,
) -> BTreeMap<PeerId, Vec<&SignedResult>> {
    let mut by_keeper: BTreeMap<PeerId, Vec<&SignedResult>> = BTreeMap::new();
    for result in results {
        for peer in keepers(&result.result.action) {
            by_keeper.entry(peer).or_default().push(result);
        }
    }
    by_keeper
}

fn announcement(result: &SignedResult, small: &Small) -> CacheRequest {
    let blobs = blobs_of(&result.result);
    let n_bytes = blobs.iter().fold(0u64, |sum, digest| sum.saturating_add(digest.size_bytes));
    let few = blobs.len() <= MAX_ANNOUNCED_BLOBS && n_bytes <= MAX_ANNOUNCED_BYTES as u64;
    let contents = if few { small.get_all(&blobs) } else { None };
    let blobs = contents.unwrap_or_default().iter().map(|content| Bytes(content.to_vec())).collect();
    CacheRequest::Announce { result: Bytes(result.to_canonical()), blobs }
}

struct Streams {
    node: Node,
    /// At most [`MAX_OPEN`].
    open: HashMap<PeerId, PeerStream>,
}

impl Streams {
    /// Not cancel-safe, but for a stream that is then opened anew.
    async fn tell(&mut self, peer: PeerId, requests: &[CacheRequest]) -> Result<(), String> {
        // The other side ends a stream that was idle for long.
        if let Some(mut stream) = self.open.remove(&peer)
            && let Ok(replies) = exchange(&mut stream, requests).await
        {
            self.keep(peer, stream);
            return replies.into_iter().try_for_each(noted);
        }
        let mut stream = self.node.open(peer, Protocol::Cache).await.map_err(|error| error.to_string())?;
        let replies = exchange(&mut stream, requests).await?;
        self.keep(peer, stream);
        replies.into_iter().try_for_each(noted)
    }

    fn keep(&mut self, peer: PeerId, stream: PeerStream) {
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        self.open.insert(peer, stream);
    }
}

/// One answer a request.
async fn exchange(stream: &mut PeerStream, requests: &[CacheRequest]) -> Result<Vec<CacheReply>, String> {
    write_messages(stream, requests).await.map_err(|error| error.to_string())?;
    let mut replies = Vec::with_capacity(requests.len());
    for _ in requests {
        let reply = read_message::<CacheReply, _>(stream).await.map_err(|error| error.to_string())?;
        replies.push(reply.ok_or_else(|| "the stream ended early".to_owned())?);
    }
    Ok(replies)
}

fn noted(reply: CacheReply) -> Result<(), String> {
    match reply {
        CacheReply::Noted => Ok(()),
        CacheReply::Refused(error) => Err(error.to_string()),
        CacheReply::Found(_) | CacheReply::Hints(_) | CacheReply::Doubles(_) => {
            Err("an answer to another question".to_owned())
        }
    }
}
