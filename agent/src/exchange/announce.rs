//! Tells the peers responsible for an action of its result, until they say that they store it.
//!
//! Life cycle: one task for the life of the agent, with a bounded queue before it ([`Announcer`]); whom to tell when is the pure
//! [`owed`](super::owed)'s to say. New results are gathered for a moment. Small blobs come along, and the stream to each peer stays open for the
//! next result: otherwise three streams were opened for each. Peers are told side by side, and one that does not answer in time counts as away for a
//! while. Nothing is lost with the queue or the agent: what the store holds is audited ([`repair`](super::repair)).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_messages};
use buildbee_p2p::node::{Node, PeerStream};
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::Retry;
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::limits::{MAX_ANNOUNCED_BLOBS, MAX_ANNOUNCED_BYTES};
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use buildbee_store::Store;
use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::blobs_of;
use super::kept::Kept;
use super::owed::Owed;
use super::small::Small;

/// What waits to be taken over; further results are left to the audit.
const MAX_WAITING: usize = 256;
/// How long results are gathered, so that one packet and one wake-up at the other end do for several. Nobody waits for it.
const GATHERING: Duration = Duration::from_millis(100);
/// Results announced together: what they bring along stays within a megabyte.
const MAX_GATHERED: usize = 16;
/// How long one peer may take to store these.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(3);
/// How long a peer that did not answer is stood in for.
const SHUNNED_FOR: Duration = Duration::from_secs(30);
/// Results of which there is no need to read them again.
const MAX_RECENT: usize = 1024;
/// Streams that stay open. Most results of a farm go to others than the last one did.
const MAX_OPEN: usize = 16;
/// Pause between two rounds of the last moment.
const HAND_OFF_PAUSE: Duration = Duration::from_millis(50);

enum Told {
    Made(Arc<SignedResult>),
    Lacking { action: Digest, at: Vec<PeerId> },
    HandOff(oneshot::Sender<usize>),
}

/// Where results to be announced are handed in.
#[derive(Clone, Debug)]
pub struct Announcer {
    queue: mpsc::Sender<Told>,
    left: Arc<AtomicBool>,
}

/// The other end of an [`Announcer`], for [`announce_task`].
#[derive(Debug)]
pub struct ToAnnounce {
    queue: mpsc::Receiver<Told>,
    left: Arc<AtomicBool>,
}

/// An announcer, and the task's end of its queue.
pub fn announcer() -> (Announcer, ToAnnounce) {
    let (queue, waiting) = mpsc::channel(MAX_WAITING);
    let left = Arc::<AtomicBool>::default();
    (Announcer { queue, left: Arc::clone(&left) }, ToAnnounce { queue: waiting, left })
}

impl Announcer {
    /// Announces `result` soon, unless too much waits already: then an audit will.
    pub fn announce(&self, result: Arc<SignedResult>) {
        if self.queue.try_send(Told::Made(result)).is_err() {
            self.left.store(true, Ordering::Relaxed);
        }
    }

    /// Announces the result of `action` to peers that were found to lack it. Waits for room.
    pub async fn lacking(&self, action: Digest, at: Vec<PeerId>) {
        // Without the task there is nobody to tell.
        drop(self.queue.send(Told::Lacking { action, at }).await);
    }

    /// Tells everybody at once, as before an end. Returns how many results are owed still, when nobody is left to be told; give it a deadline.
    pub async fn hand_off(&self) -> usize {
        let (done, owed) = oneshot::channel();
        drop(self.queue.send(Told::HandOff(done)).await);
        owed.await.unwrap_or(0)
    }

    /// Whether results were left to the audit since this was last asked.
    pub fn take_left(&self) -> bool {
        self.left.swap(false, Ordering::Relaxed)
    }
}

/// Announces until `stop`. Results and blobs are taken from `small` and `store`. Since it sees who leaves, it ends their claims in `kept`, too.
pub async fn announce_task(
    node: Node,
    store: Store,
    small: Small,
    kept: Kept,
    told: ToAnnounce,
    stop: CancellationToken,
) {
    let ToAnnounce { queue, left } = told;
    let actor = Actor {
        owed: Owed::new(node.peer()),
        streams: HashMap::new(),
        shunned: HashMap::new(),
        recent: HashMap::new(),
        started: Instant::now(),
        n_settled: 0,
        node,
        store,
        small,
        kept,
        left,
    };
    stop.run_until_cancelled(actor.run(queue)).await;
}

struct Actor {
    node: Node,
    store: Store,
    small: Small,
    kept: Kept,
    left: Arc<AtomicBool>,
    owed: Owed,
    /// At most [`MAX_OPEN`].
    streams: HashMap<PeerId, PeerStream>,
    /// Until when. Bounded by the peers that there are.
    shunned: HashMap<PeerId, Instant>,
    /// At most [`MAX_RECENT`].
    recent: HashMap<Digest, Arc<SignedResult>>,
    started: Instant,
    n_settled: usize,
}

impl Actor {
    async fn run(mut self, mut queue: mpsc::Receiver<Told>) {
        let mut peers = self.node.peers();
        loop {
            // As good as never: something else comes before.
            let due = self.owed.next().map_or(Duration::MAX / 4, |due| due);
            let due = self.started.checked_add(due).unwrap_or_else(|| Instant::now() + SHUNNED_FOR);
            tokio::select! {
                told = queue.recv() => match told {
                    None => return,
                    Some(told) => self.gather(told, &mut queue).await,
                },
                changed = peers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let table = peers.borrow_and_update().clone();
                    self.kept.claims().keep_of(|peer| table.contains(*peer));
                    self.hurry();
                }
                () = sleep_until(due) => {}
            }
            self.round().await;
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn hurry(&mut self) {
        self.owed.hurry(self.now());
    }

    async fn gather(&mut self, first: Told, queue: &mut mpsc::Receiver<Told>) {
        let mut last = None;
        self.take(first, &mut last);
        if last.is_none() {
            sleep(GATHERING).await;
        }
        while let Ok(told) = queue.try_recv() {
            self.take(told, &mut last);
        }
        if let Some(done) = last {
            self.hand_off(done).await;
        }
    }

    fn take(&mut self, told: Told, last: &mut Option<oneshot::Sender<usize>>) {
        let now = self.now();
        match told {
            Told::Made(result) => {
                let action = result.result.action;
                if self.recent.len() >= MAX_RECENT {
                    self.recent.clear();
                }
                self.recent.insert(action, result);
                self.owed.made(now, action);
            }
            Told::Lacking { action, at } => self.owed.repair(now, action, at),
            Told::HandOff(done) => *last = Some(done),
        }
        #[cfg(debug_assertions)]
        buildbee_store::fault::point("queued");
    }

    async fn hand_off(&mut self, done: oneshot::Sender<usize>) {
        loop {
            self.hurry();
            let n_told = self.round().await;
            if self.owed.n_owed() == 0 || n_told == 0 || done.is_closed() {
                break;
            }
            sleep(HAND_OFF_PAUSE).await;
        }
        // Who asked may have given up.
        let _ = done.send(self.owed.n_owed());
    }

    /// Tells everybody who is to be told now, side by side. How many.
    async fn round(&mut self) -> usize {
        let Some(roster) = self.node.roster() else { return 0 };
        let table = self.node.peers().borrow().clone();
        let now = Instant::now();
        self.shunned.retain(|_, until| *until > now);
        let is_here = |peer: &PeerId| table.contains(*peer) && !self.shunned.contains_key(peer);
        let round = self.owed.round(self.started.elapsed(), &roster.value, is_here);
        if self.owed.take_left() > 0 {
            self.left.store(true, Ordering::Relaxed);
        }
        let mut tellings = Vec::with_capacity(round.len());
        for (peer, actions) in round {
            let known = actions.into_iter().map(|action| (action, self.recent.get(&action).cloned())).collect();
            let (store, small) = (self.store.clone(), self.small.clone());
            let telling = Telling { node: self.node.clone(), store, small, peer, stream: self.streams.remove(&peer) };
            tellings.push(telling.tell(known));
        }
        let n_told = tellings.len();
        for told in join_all(tellings).await {
            self.heard(told);
        }
        self.say();
        n_told
    }

    fn heard(&mut self, told: Heard) {
        let Heard { peer, stream, replies, gone, late } = told;
        if let Some(stream) = stream {
            if self.streams.len() >= MAX_OPEN {
                self.streams.clear();
            }
            self.streams.insert(peer, stream);
        }
        if late {
            self.shunned.insert(peer, Instant::now() + SHUNNED_FOR);
            self.hurry();
        }
        for action in gone {
            self.owed.forget(&action);
        }
        for (action, reply) in replies {
            #[cfg(debug_assertions)]
            if reply == CacheReply::Kept {
                buildbee_store::fault::point("kept-heard");
            }
            let is_final = match reply {
                CacheReply::Kept => true,
                CacheReply::Refused(error) => {
                    tracing::debug!(peer = %peer.short(), action = %action.short(), %error, "an announcement is refused");
                    error.retry == Retry::Never
                }
                _ => false,
            };
            if is_final && self.owed.kept(&action, peer) {
                self.recent.remove(&action);
                self.n_settled += 1;
                #[cfg(debug_assertions)]
                buildbee_store::fault::point("forgotten");
            }
        }
    }

    /// For whoever wants to know when this machine may go.
    fn say(&mut self) {
        if self.n_settled > 0 && self.owed.n_owed() == 0 {
            tracing::info!(n_results = self.n_settled, "all results are with the peers responsible for them");
            self.n_settled = 0;
        }
    }
}

/// One peer, told of some results.
struct Telling {
    node: Node,
    store: Store,
    small: Small,
    peer: PeerId,
    stream: Option<PeerStream>,
}

/// What came of it.
struct Heard {
    peer: PeerId,
    stream: Option<PeerStream>,
    replies: Vec<(Digest, CacheReply)>,
    /// Actions whose results are not here any more.
    gone: Vec<Digest>,
    late: bool,
}

/// Results to be announced, those at hand with their content.
type Known = Vec<(Digest, Option<Arc<SignedResult>>)>;

impl Telling {
    async fn tell(mut self, known: Known) -> Heard {
        let mut heard = Heard { peer: self.peer, stream: None, replies: Vec::new(), gone: Vec::new(), late: false };
        for some in known.chunks(MAX_GATHERED) {
            let (mut actions, mut requests) = (Vec::new(), Vec::new());
            for (action, known) in some {
                match announcement(&self.store, &self.small, *action, known.as_ref()).await {
                    Some(request) => {
                        actions.push(*action);
                        requests.push(request);
                    }
                    None => heard.gone.push(*action),
                }
            }
            #[cfg(debug_assertions)]
            buildbee_store::fault::point("telling");
            match timeout(ANNOUNCE_DEADLINE, self.exchange(&requests)).await {
                Ok(Ok(replies)) => heard.replies.extend(actions.into_iter().zip(replies)),
                Ok(Err(error)) => {
                    tracing::debug!(peer = %self.peer.short(), error, "announcement failed");
                    return heard;
                }
                Err(_) => {
                    tracing::debug!(peer = %self.peer.short(), "announcement took too long");
                    heard.late = true;
                    return heard;
                }
            }
        }
        heard.stream = self.stream;
        heard
    }

    /// One answer a request. Not cancel-safe, but for a stream that is then opened anew.
    async fn exchange(&mut self, requests: &[CacheRequest]) -> Result<Vec<CacheReply>, String> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        // The other side ends a stream that was idle for long.
        if let Some(mut stream) = self.stream.take()
            && let Ok(replies) = exchange(&mut stream, requests).await
        {
            self.stream = Some(stream);
            return Ok(replies);
        }
        let mut stream = self.node.open(self.peer, Protocol::Cache).await.map_err(|error| error.to_string())?;
        let replies = exchange(&mut stream, requests).await?;
        self.stream = Some(stream);
        Ok(replies)
    }
}

/// Asks `requests` on `stream`: one answer each.
pub async fn exchange(stream: &mut PeerStream, requests: &[CacheRequest]) -> Result<Vec<CacheReply>, String> {
    write_messages(stream, requests).await.map_err(|error| error.to_string())?;
    #[cfg(debug_assertions)]
    if matches!(requests.first(), Some(CacheRequest::Announce { .. })) {
        buildbee_store::fault::point("told");
    }
    let mut replies = Vec::with_capacity(requests.len());
    for _ in requests {
        let reply = read_message::<CacheReply, _>(stream).await.map_err(|error| error.to_string())?;
        replies.push(reply.ok_or_else(|| "the stream ended early".to_owned())?);
    }
    Ok(replies)
}

/// Whether the blobs of a result come along with it.
fn are_few(blobs: &[Digest]) -> bool {
    let n_bytes = blobs.iter().fold(0u64, |sum, digest| sum.saturating_add(digest.size_bytes));
    blobs.len() <= MAX_ANNOUNCED_BLOBS && n_bytes <= MAX_ANNOUNCED_BYTES as u64
}

/// What is said of a result, with its blobs if they are few and small; `None`: it is not here any more.
async fn announcement(
    store: &Store,
    small: &Small,
    action: Digest,
    known: Option<&Arc<SignedResult>>,
) -> Option<CacheRequest> {
    // What was just made is in memory, and needs no other thread.
    if let Some(result) = known {
        let blobs = blobs_of(&result.result);
        let contents = if are_few(&blobs) { small.get_all(&blobs) } else { Some(Vec::new()) };
        if let Some(contents) = contents {
            let blobs = contents.iter().map(|content| Bytes(content.to_vec())).collect();
            return Some(CacheRequest::Announce { result: Bytes(result.to_canonical()), blobs });
        }
    }
    let store = store.clone();
    tokio::task::spawn_blocking(move || read_announcement(&store, &action)).await.ok().flatten()
}

/// What is said of a result that is not at hand; `None`: it is not here any more.
fn read_announcement(store: &Store, action: &Digest) -> Option<CacheRequest> {
    let result = store.peek_result(action).ok().flatten()?;
    let blobs = blobs_of(&result.result);
    let read = |digest: &Digest| store.read(digest, MAX_ANNOUNCED_BYTES as u64).ok().flatten().map(Bytes);
    let few = are_few(&blobs);
    let blobs = if few { blobs.iter().map(read).collect::<Option<Vec<Bytes>>>()? } else { Vec::new() };
    Some(CacheRequest::Announce { result: Bytes(result.to_canonical()), blobs })
}
