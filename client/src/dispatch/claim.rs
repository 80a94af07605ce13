//! Says that an action is about to be run, and hears whether somebody else has it run already: what several clients want at once runs once.
//!
//! Asked is the first agent responsible for the action that can be reached; all clients that can reach it ask the same one. Nobody waits for its
//! answer: the action is on its way to an agent meanwhile, and is taken back if it turns out to be somebody else's. A claim that is over is
//! released: at once where nothing came of it, so that others need not wait, and later where the result is on its way to that agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::PeerStream;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{AWAIT_INTERVAL_MS, CacheReply, CacheRequest};
use buildbee_proto::limits::MAX_RESULTS_PER_REQUEST;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::ranked;
use buildbee_proto::version::Protocol;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::attempt::RemoteResult;
use super::cache_streams::CacheStreams;
use super::farm::Farm;
use super::lookup::{Wanted, take};

/// How long the answer to a claim may take. Nobody waits for it.
const CLAIM_DEADLINE: Duration = Duration::from_secs(2);
/// An agent that lets us wait says so within this time, or is waited for no more.
const AWAIT_DEADLINE: Duration = Duration::from_millis(2 * AWAIT_INTERVAL_MS);
/// When a claim is released whose result is on its way to the agent that minds it.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// Releases that may wait; further claims end with our connection, or with age.
const MAX_WAITING: usize = 4096;

/// What is known of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing yet, or nobody minds it.
    Open,
    /// It is ours.
    Ours,
    /// Somebody else is at it.
    Others,
    /// There is a result.
    Found(Bytes),
}

/// A claim of ours that is over.
#[derive(Clone, Copy, Debug)]
struct Release {
    minder: PeerId,
    claim: (Digest, u64),
    due: Instant,
}

/// Where claims that are over are handed in.
#[derive(Clone, Debug)]
pub struct Releases(mpsc::Sender<Release>);

/// The other end of [`Releases`], for [`release_task`].
#[derive(Debug)]
pub struct ToRelease(mpsc::Receiver<Release>);

/// A queue for claims that are over.
pub fn releases() -> (Releases, ToRelease) {
    let (queue, waiting) = mpsc::channel(MAX_WAITING);
    (Releases(queue), ToRelease(waiting))
}

/// One claim; over when dropped, unless it was before.
#[derive(Debug)]
pub struct Claim {
    shared: Arc<Shared>,
    standing: watch::Receiver<Standing>,
}

#[derive(Debug)]
struct Shared {
    minder: PeerId,
    claim: (Digest, u64),
    releases: Releases,
    is_ours: AtomicBool,
    is_over: AtomicBool,
    is_made: AtomicBool,
}

impl Shared {
    /// Called by whoever of the two comes last, or by both: that the claim is ours, and that it is over.
    fn release_if_both(&self) {
        if self.is_ours.load(Ordering::SeqCst) && self.is_over.load(Ordering::SeqCst) {
            let wait = if self.is_made.load(Ordering::SeqCst) { SETTLED_AFTER } else { Duration::ZERO };
            let release = Release { minder: self.minder, claim: self.claim, due: Instant::now() + wait };
            // Too many wait: it ends by itself some time.
            let _ = self.releases.0.try_send(release);
        }
    }
}

impl Claim {
    /// Claims `action`; `None` where nobody minds claims on it.
    pub fn start(farm: &Farm, action: Digest) -> Option<Self> {
        let roster = farm.roster()?;
        let responsive = farm.responsive_agents();
        let minder =
            ranked(&action, responsive.into_iter().filter(|peer| roster.value.has_agent(peer))).into_iter().next()?;
        let nonce = getrandom::u64().ok()?;
        let (said, standing) = watch::channel(Standing::Open);
        let shared = Arc::new(Shared {
            minder,
            claim: (action, nonce),
            releases: farm.releases().clone(),
            is_ours: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_made: AtomicBool::new(false),
        });
        let (streams, asking) = (farm.cache_streams().clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let request = [CacheRequest::Claim { action, nonce }];
            let now = match timeout(CLAIM_DEADLINE, streams.ask(minder, &request)).await {
                Ok(Ok(replies)) => replies.into_iter().next().map_or(Standing::Open, standing_of),
                Ok(Err(_)) | Err(_) => Standing::Open,
            };
            if now == Standing::Ours {
                asking.is_ours.store(true, Ordering::SeqCst);
                asking.release_if_both();
            }
            said.send_replace(now);
        });
        Some(Self { shared, standing })
    }

    /// Whether somebody else is at it, or was.
    pub fn is_beaten(&self) -> bool {
        let is_over = self.shared.is_over.load(Ordering::SeqCst);
        !is_over && matches!(*self.standing.borrow(), Standing::Others | Standing::Found(_))
    }

    /// Returns when it is known whose it is, or that nobody knows. Cancel-safe.
    pub async fn answered(&self) {
        // An error says that nothing more comes.
        drop(self.standing.clone().wait_for(|standing| *standing != Standing::Open).await);
    }

    /// Returns when [`is_beaten`](Self::is_beaten), and never otherwise. Cancel-safe.
    pub async fn beaten(&self) {
        let mut standing = self.standing.clone();
        let is_others = |standing: &Standing| matches!(standing, Standing::Others | Standing::Found(_));
        let beaten = standing.wait_for(is_others).await.is_ok();
        if !beaten || !self.is_beaten() {
            std::future::pending::<()>().await;
        }
    }

    /// What the other one made, and the agent that has it; `None` where nothing comes of it. Waits for as long as that one is at it.
    pub async fn outcome(&self, farm: &Farm, wanted: Wanted<'_>) -> Option<(PeerId, RemoteResult)> {
        let minder = self.shared.minder;
        let found = self.standing.borrow().clone();
        let bytes = match found {
            Standing::Found(bytes) => bytes,
            Standing::Others => self.wait(farm).await?,
            Standing::Open | Standing::Ours => return None,
        };
        let roster = farm.roster()?;
        let result = take(farm.node(), &roster.value, minder, &bytes, wanted).await?;
        Some((minder, result))
    }

    async fn wait(&self, farm: &Farm) -> Option<Bytes> {
        let (minder, action) = (self.shared.minder, self.shared.claim.0);
        // An own stream: it says nothing for long.
        let mut stream = farm.node().open(minder, Protocol::Cache).await.ok()?;
        loop {
            let answer = timeout(AWAIT_DEADLINE, awaited(&mut stream, action)).await;
            match answer.ok().flatten() {
                Some(CacheReply::Found(found)) => return found,
                Some(CacheReply::Coming) => {}
                _ => return None,
            }
        }
    }

    /// An agent has made it, and will tell the one that minds the claim.
    pub fn made(&self) {
        self.shared.is_made.store(true, Ordering::SeqCst);
    }

    /// Nobody else need wait for us any more.
    pub fn end(&self) {
        if !self.shared.is_over.swap(true, Ordering::SeqCst) {
            self.shared.release_if_both();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end();
    }
}

fn standing_of(reply: CacheReply) -> Standing {
    match reply {
        CacheReply::Claimed => Standing::Ours,
        CacheReply::Coming => Standing::Others,
        CacheReply::Found(Some(bytes)) => Standing::Found(bytes),
        _ => Standing::Open,
    }
}

async fn awaited(stream: &mut PeerStream, action: Digest) -> Option<CacheReply> {
    write_message(stream, &CacheRequest::Await { action }).await.ok()?;
    read_message(stream).await.ok().flatten()
}

/// Tells agents of claims that are over. Ends with the farm.
pub async fn release_task(streams: CacheStreams, queue: ToRelease) {
    let ToRelease(mut queue) = queue;
    // At most `MAX_WAITING`: then those that come are told at once with what there is.
    let mut waiting: Vec<Release> = Vec::new();
    loop {
        let next = waiting.iter().map(|release| release.due).min();
        tokio::select! {
            release = queue.recv() => match release {
                None => return,
                Some(release) => waiting.push(release),
            },
            () = async { sleep_until(next.unwrap_or_else(Instant::now)).await }, if next.is_some() => {}
        }
        while waiting.len() < MAX_WAITING
            && let Ok(release) = queue.try_recv()
        {
            waiting.push(release);
        }
        for (minder, claims) in due(&mut waiting, Instant::now()) {
            for some in claims.chunks(MAX_RESULTS_PER_REQUEST) {
                let request = [CacheRequest::Release { claims: some.to_vec() }];
                // Who can't be told finds out by itself.
                drop(timeout(CLAIM_DEADLINE, streams.ask(minder, &request)).await);
            }
        }
    }
}

/// Takes out what is due. Where anything is, or too much waits, what the same agent is to be told soon goes along.
fn due(waiting: &mut Vec<Release>, now: Instant) -> Vec<(PeerId, Vec<(Digest, u64)>)> {
    let mut told: Vec<(PeerId, Vec<(Digest, u64)>)> = Vec::new();
    let is_full = waiting.len() >= MAX_WAITING;
    waiting.retain(|release| {
        let is_due = is_full || release.due <= now;
        if is_due {
            match told.iter_mut().find(|(minder, _)| *minder == release.minder) {
                Some((_, claims)) => claims.push(release.claim),
                None => told.push((release.minder, vec![release.claim])),
            }
        }
        !is_due
    });
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(standing: &Standing) -> (Claim, mpsc::Receiver<Release>, watch::Sender<Standing>) {
        let (releases, ToRelease(queue)) = releases();
        let (said, heard) = watch::channel(standing.clone());
        let shared = Shared {
            minder: PeerId([1; 32]),
            claim: (Digest::of(b"action"), 7),
            releases,
            is_ours: AtomicBool::new(*standing == Standing::Ours),
            is_over: AtomicBool::new(false),
            is_made: AtomicBool::new(false),
        };
        (Claim { shared: Arc::new(shared), standing: heard }, queue, said)
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_of_ours_is_released_once_it_is_over() {
        let (ours, mut queue, _said) = claim(&Standing::Ours);
        ours.end();
        drop(ours);
        let release = queue.try_recv().unwrap();
        assert_eq!((release.claim.1, release.due), (7, Instant::now()));
        assert!(queue.try_recv().is_err(), "once");
        let (ours, mut queue, _said) = claim(&Standing::Ours);
        ours.made();
        drop(ours);
        assert_eq!(queue.try_recv().unwrap().due, Instant::now() + SETTLED_AFTER);
        let (late, mut queue, _said) = claim(&Standing::Open);
        let shared = Arc::clone(&late.shared);
        drop(late);
        assert!(queue.try_recv().is_err());
        shared.is_ours.store(true, Ordering::SeqCst);
        shared.release_if_both();
        assert!(queue.try_recv().is_ok(), "the answer came too late");
        let (theirs, mut queue, _said) = claim(&Standing::Others);
        drop(theirs);
        assert!(queue.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn only_another_ones_claim_takes_an_action_back() {
        let soon = Duration::from_secs(1);
        let (ours, _queue, said) = claim(&Standing::Open);
        assert!(timeout(soon, ours.beaten()).await.is_err());
        said.send_replace(Standing::Ours);
        drop(said);
        assert!(timeout(soon, ours.beaten()).await.is_err());
        let (theirs, _queue, said) = claim(&Standing::Open);
        let (beaten, ()) = tokio::join!(timeout(soon, theirs.beaten()), async {
            said.send_replace(Standing::Others);
        });
        assert!(beaten.is_ok() && theirs.is_beaten());
        theirs.end();
        assert!(!theirs.is_beaten(), "we went on alone");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_told_together() {
        let now = Instant::now();
        let release =
            |minder, nonce, due| Release { minder: PeerId([minder; 32]), claim: (Digest::of(b""), nonce), due };
        let later = now + SETTLED_AFTER;
        let mut waiting = vec![release(1, 1, now), release(2, 2, now), release(1, 3, now), release(1, 4, later)];
        let told = due(&mut waiting, now);
        let nonces: Vec<Vec<u64>> =
            told.iter().map(|(_, claims)| claims.iter().map(|claim| claim.1).collect()).collect();
        assert_eq!(nonces, [vec![1, 3], vec![2]]);
        assert_eq!(waiting.len(), 1);
        waiting.resize(MAX_WAITING, release(3, 5, later));
        due(&mut waiting, now);
        assert!(waiting.is_empty());
    }
}
