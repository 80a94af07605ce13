//! Looks after what this agent keeps: asks the other holders of its results whether they have them too, and has them told of what they lack.
//!
//! Life cycle: one task for the life of the agent. It notes who is there ([`presence`](super::presence)), looks through all results when the pure
//! [`audit`](super::audit) says so, a page at a time while the machine lends nothing, and through those that were just read every few seconds. What is
//! found goes through the [`Announcer`], no faster than `REPAIR_BYTES_PER_SECOND`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use buildbee_p2p::node::Node;
use buildbee_p2p::private_file;
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::limits::{MAX_MEMBERS, MAX_RESULTS_PER_REQUEST};
use buildbee_proto::membership::UnixSeconds;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use buildbee_store::{Store, Walk};
use futures::future::{BoxFuture, join_all};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::announce::{Announcer, exchange};
use super::audit::{Picture, Read, Schedule, questions};
use super::blobs_of;
use super::presence::Presence;
use crate::lease::slots::Slots;

/// How fast lost copies are made again, in each direction of one agent's making.
const REPAIR_BYTES_PER_SECOND: u64 = 4 << 20;
/// How often the task looks around. Less, where agents count as gone soon.
const TICK: Duration = Duration::from_secs(5);
/// How long a page waits for a quiet moment. A machine that is never quiet must not lose copies for that.
const QUIET_PATIENCE: Duration = Duration::from_secs(60);
const QUIET_TICK: Duration = Duration::from_secs(1);
/// Pause between two pages: a million results take an hour and more.
const PAGE_PAUSE: Duration = Duration::from_millis(200);
/// How long a peer may take to answer for a page.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// What the notes on who was seen may take on disk: a line of 90 bytes for each.
const MAX_SEEN_BYTES: u64 = 90 * MAX_MEMBERS as u64;

/// What the task needs.
#[derive(Debug)]
pub struct Repair {
    /// Where peers are asked.
    pub node: Node,
    /// What is here.
    pub store: Store,
    /// Where what others lack is handed in.
    pub announcer: Announcer,
    /// Whether the machine is at work.
    pub slots: Slots,
    /// Where it is noted who was seen.
    pub seen_file: PathBuf,
    /// An agent that was away for as long is stood in for.
    pub gone_after: Duration,
}

/// Looks after results until `stop`. `was_read` says which were read.
pub async fn repair_task(repair: Repair, was_read: mpsc::Receiver<Digest>, stop: CancellationToken) {
    stop.run_until_cancelled(repair.run(was_read)).await;
}

/// Whether all who were asked have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walked {
    All,
    /// It is worth another look soon.
    Unanswered,
}

impl Repair {
    async fn run(self, mut was_read: mpsc::Receiver<Digest>) {
        let started = Instant::now();
        let tick = TICK.min(self.gone_after / 2).max(Duration::from_millis(100));
        let mut presence = Presence::from_text(&self.noted());
        let mut schedule = Schedule::new(Duration::ZERO, self.gone_after);
        let mut read = Read::default();
        // Goes on beside everything else: it may take hours.
        let mut walk: Option<BoxFuture<'_, Walked>> = None;
        loop {
            let walking = async {
                match &mut walk {
                    Some(walk) => walk.await,
                    None => std::future::pending().await,
                }
            };
            // Dropping the wait leaves the walk where it is.
            if let Ok(walked) = timeout(tick, walking).await {
                walk = None;
                if walked == Walked::Unanswered {
                    schedule.hurry(started.elapsed());
                }
            }
            self.look_around(&mut presence, &mut schedule, started.elapsed());
            let mut actions = Vec::new();
            while actions.len() < MAX_RESULTS_PER_REQUEST
                && let Ok(action) = was_read.try_recv()
            {
                if read.is_new(action) {
                    actions.push(action);
                }
            }
            // What is not answered here comes with the next look at all of them.
            let _ = self.check(&actions, &presence).await;
            if walk.is_none() && schedule.begin(started.elapsed()) {
                walk = Some(Box::pin(self.walk(presence.clone())));
            }
        }
    }

    fn noted(&self) -> String {
        let is_sound = fs::metadata(&self.seen_file).is_ok_and(|file| file.len() <= MAX_SEEN_BYTES);
        if is_sound { fs::read_to_string(&self.seen_file).unwrap_or_default() } else { String::new() }
    }

    fn look_around(&self, presence: &mut Presence, schedule: &mut Schedule, now: Duration) {
        let table = self.node.peers().borrow().clone();
        let Some(roster) = self.node.roster() else { return };
        let own = self.node.peer();
        if presence.update(unix_now(), &roster.value, |peer| *peer == own || table.contains(*peer))
            && let Err(error) = private_file::replace(&self.seen_file, presence.to_text().as_bytes())
        {
            tracing::warn!(%error, "who was seen can't be noted for the next start");
        }
        let agents = table.0.iter().filter(|entry| roster.value.has_agent(&entry.peer));
        let here = agents.map(|entry| (entry.peer, entry.stay)).collect();
        let gone = presence.gone(unix_now(), self.gone_after);
        schedule.observe(now, Picture { roster_version: roster.value.version, here, gone });
        if self.announcer.take_left() {
            schedule.hurry(now);
        }
    }

    /// Looks through all results, the latest used first.
    async fn walk(&self, presence: Presence) -> Walked {
        let mut walk = Walk::START;
        let (mut n_results, mut n_lacking, mut walked) = (0, 0, Walked::All);
        while !walk.is_over() {
            self.quiet().await;
            let (actions, next) = self.store.results_from(walk, MAX_RESULTS_PER_REQUEST);
            n_results += actions.len();
            let (n_more, answered) = self.check(&actions, &presence).await;
            n_lacking += n_more;
            if answered == Walked::Unanswered {
                walked = Walked::Unanswered;
            }
            walk = next;
            sleep(PAGE_PAUSE).await;
        }
        let n_gone = presence.gone(unix_now(), self.gone_after).len();
        tracing::info!(n_results, n_lacking, n_gone, "looked for results that other agents lack");
        walked
    }

    async fn quiet(&self) {
        let quiet = async {
            while self.slots.n_busy() > 0 {
                sleep(QUIET_TICK).await;
            }
        };
        // Then it has to go beside the work.
        drop(timeout(QUIET_PATIENCE, quiet).await);
    }

    /// Asks who else should have `actions`, and has them told of what they lack. How many are lacking somewhere.
    async fn check(&self, actions: &[Digest], presence: &Presence) -> (usize, Walked) {
        let Some(roster) = self.node.roster().filter(|_| !actions.is_empty()) else { return (0, Walked::All) };
        let table = self.node.peers().borrow().clone();
        let now = unix_now();
        let is_gone = |peer: &PeerId| presence.is_gone(peer, now, self.gone_after);
        let asked = questions(self.node.peer(), actions, &roster.value, |peer| table.contains(*peer), is_gone);
        let answers = asked.into_iter().map(|(peer, actions)| async move {
            let answer = timeout(ANSWER_DEADLINE, self.ask(peer, &actions)).await;
            let held = answer.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
            let held =
                held.inspect_err(|error| tracing::debug!(peer = %peer.short(), error, "a holder can't be asked"));
            (peer, actions, held.ok())
        });
        let mut walked = Walked::All;
        let mut lacking: BTreeMap<Digest, Vec<PeerId>> = BTreeMap::new();
        for (peer, actions, held) in join_all(answers).await {
            if held.is_none() {
                walked = Walked::Unanswered;
            }
            let held = held.unwrap_or_default();
            for (action, _) in actions.into_iter().zip(held).filter(|(_, held)| !held) {
                lacking.entry(action).or_default().push(peer);
            }
        }
        let n_lacking = lacking.len();
        for (action, at) in lacking {
            self.tell(action, at).await;
        }
        (n_lacking, walked)
    }

    async fn ask(&self, peer: PeerId, actions: &[Digest]) -> Result<Vec<bool>, String> {
        let mut stream = self.node.open(peer, Protocol::Cache).await.map_err(|error| error.to_string())?;
        match exchange(&mut stream, &[CacheRequest::Holds { actions: actions.to_vec() }]).await?.pop() {
            Some(CacheReply::Held(held)) if held.len() == actions.len() => Ok(held),
            _ => Err("an answer to another question".to_owned()),
        }
    }

    async fn tell(&self, action: Digest, at: Vec<PeerId>) {
        let store = self.store.clone();
        let look = tokio::task::spawn_blocking(move || {
            let found = store.peek_result(&action).ok().flatten()?;
            let blobs = blobs_of(&found.result);
            store.missing(&blobs).is_empty().then(|| blobs.iter().map(|digest| digest.size_bytes).sum::<u64>())
        });
        let Some(n_bytes) = look.await.ok().flatten() else { return };
        #[cfg(debug_assertions)]
        buildbee_store::fault::point("lack-found");
        let n_bytes = n_bytes.saturating_mul(at.len() as u64);
        self.announcer.lacking(action, at).await;
        sleep(Duration::from_millis(n_bytes.saturating_mul(1000) / REPAIR_BYTES_PER_SECOND)).await;
    }
}

fn unix_now() -> UnixSeconds {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
