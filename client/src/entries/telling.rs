//! Tells the peers responsible for them of entries that were put here, and again later of those that they did not store.
//!
//! Life cycle: one task for the life of the daemon's farm, with a bounded number of conversations at a time. It reads what it tells from the store,
//! so that what waits here is a key each. What a daemon that ends has not told stays with this user alone; nobody waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::entry::Entry;
use buildbee_proto::limits::MAX_ENTRY_BYTES;
use buildbee_proto::outcome::SignedResult;
use buildbee_store::Store;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::dispatch::entries;
use crate::dispatch::farm::Farm;

/// Entries that may wait to be told of.
const MAX_WAITING: usize = 512;
/// Entries being told of at a time; each may hold its value in memory.
const MAX_TELLING: usize = 8;
/// Entries that peers did not store, to be told of again; the oldest are given up.
const MAX_UNTOLD: usize = 4096;
/// How often they are tried again, and how many of them.
const AGAIN_EVERY: Duration = Duration::from_secs(30);
const MAX_AGAIN: usize = 64;

#[derive(Debug)]
struct Telling {
    key: Digest,
    /// Dropped when it is done, however it went.
    done: Option<oneshot::Sender<()>>,
}

/// Where entries are handed in. Clones share it.
#[derive(Clone, Debug)]
pub struct Queue {
    waiting: mpsc::Sender<Telling>,
    n_untold: Arc<AtomicUsize>,
}

/// The other end, for [`tell_task`].
#[derive(Debug)]
pub struct Waiting {
    waiting: mpsc::Receiver<Telling>,
    n_untold: Arc<AtomicUsize>,
}

/// A queue of entries to be told of.
pub fn queue() -> (Queue, Waiting) {
    let (sender, waiting) = mpsc::channel(MAX_WAITING);
    let n_untold = Arc::new(AtomicUsize::new(0));
    (Queue { waiting: sender, n_untold: Arc::clone(&n_untold) }, Waiting { waiting, n_untold })
}

impl Queue {
    /// Has peers told of the entry under `key`. What is returned resolves when they have been, whatever came of it; `None`: too many wait, and
    /// this one stays here.
    pub fn tell(&self, key: Digest) -> Option<oneshot::Receiver<()>> {
        let (done, told) = oneshot::channel();
        match self.waiting.try_send(Telling { key, done: Some(done) }) {
            Ok(()) => Some(told),
            Err(error) => {
                tracing::debug!(key = %key.short(), %error, "peers are not told of an entry");
                None
            }
        }
    }

    /// Entries that peers have not stored, and that are tried again.
    pub fn n_untold(&self) -> usize {
        self.n_untold.load(Ordering::Relaxed)
    }
}

/// Tells peers until `stop`.
pub async fn tell_task(farm: Farm, store: Store, waiting: Waiting, stop: CancellationToken) {
    let Waiting { mut waiting, n_untold } = waiting;
    let mut again = interval(AGAIN_EVERY);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut telling, mut untold) = (JoinSet::new(), VecDeque::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            next = waiting.recv(), if telling.len() < MAX_TELLING => match next {
                Some(next) => drop(telling.spawn(one(farm.clone(), store.clone(), next))),
                None => return,
            },
            Some(lacking) = telling.join_next() => {
                // A panic in there loses what it was at.
                untold.extend(lacking.unwrap_or_default());
                untold.drain(..untold.len().saturating_sub(MAX_UNTOLD));
            },
            _ = again.tick(), if telling.is_empty() && !untold.is_empty() && !farm.responsive_agents().is_empty() => {
                let some = untold.drain(..untold.len().min(MAX_AGAIN)).collect();
                telling.spawn(several(farm.clone(), store.clone(), some));
            }
        }
        n_untold.store(untold.len(), Ordering::Relaxed);
    }
}

/// Keys of entries that peers lack still.
type Lacking = Vec<Digest>;

async fn one(farm: Farm, store: Store, telling: Telling) -> Lacking {
    let Telling { key, done } = telling;
    let reading = spawn_blocking(move || read(&store, &key));
    // What is not here any more needs no telling.
    let Ok(Some((signed, value))) = reading.await else { return Lacking::new() };
    let told = entries::tell(&farm, &signed, value).await;
    drop(done);
    if told { Lacking::new() } else { vec![key] }
}

/// One after the other: there is time. Where one fails the rest waits for the next turn, too.
async fn several(farm: Farm, store: Store, keys: Vec<Digest>) -> Lacking {
    for (at, key) in keys.iter().enumerate() {
        if !one(farm.clone(), store.clone(), Telling { key: *key, done: None }).await.is_empty() {
            return keys[at..].to_vec();
        }
    }
    Lacking::new()
}

type Value = Option<(Digest, Arc<[u8]>)>;

fn read(store: &Store, key: &Digest) -> Option<(SignedResult, Value)> {
    let signed = store.peek_result(key).ok().flatten()?;
    let value = match Entry::of(&signed.result)?.value {
        Some(digest) if digest.size_bytes > 0 => {
            Some((digest, store.read(&digest, MAX_ENTRY_BYTES).ok().flatten()?.into()))
        }
        _ => None,
    };
    Some((signed, value))
}
