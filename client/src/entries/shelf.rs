//! Gets, puts and removes entries: out of this user's store and what peers have, whichever is newer; into the store at once, and to peers soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buildbee_p2p::identity::{Identity, verify_result};
use buildbee_proto::digest::Digest;
use buildbee_proto::entry::{Entry, EntryName};
use buildbee_proto::limits::MAX_ENTRY_BYTES;
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::PeerId;
use buildbee_store::{PutError, Store};
use serde_json::json;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use super::telling::Queue;
use crate::dispatch::entries;
use crate::dispatch::farm::Farm;

/// How long who puts something waits for peers to store it. After that it is told of in the background.
const PUT_PATIENCE: Duration = Duration::from_millis(500);

/// Memory for values that come or go, for all requests together, in KiB.
const MEMORY_KIB: u32 = 256 << 10;
/// How long a request waits for its part of it.
const TURN_DEADLINE: Duration = Duration::from_secs(10);

/// Why nothing was got or put.
#[derive(Debug, Error)]
pub enum ShelfError {
    /// Others take all the memory that there is for this.
    #[error("too many values come and go at once: try again")]
    Busy,
    /// The user's cache could not be opened.
    #[error("there is no local cache\nhint: `buildbee status` says why")]
    NoStore,
    /// It did not take it.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The daemon is leaving.
    #[error("storing it ended early: {0}")]
    Task(#[from] JoinError),
}

/// What was done, since the daemon started.
#[derive(Debug, Default)]
struct Counts {
    asked: AtomicU64,
    found: AtomicU64,
    found_at_peers: AtomicU64,
    put: AtomicU64,
    removed: AtomicU64,
}

fn count(one: &AtomicU64) {
    one.fetch_add(1, Ordering::Relaxed);
}

/// What was found under a name.
#[derive(Clone, Debug)]
struct Found {
    entry: Entry,
    signed: SignedResult,
    /// Who has it; `None`: this user's own store.
    at: Option<PeerId>,
}

/// What is there under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Of the value.
    pub n_bytes: u64,
    /// In milliseconds since the Unix epoch.
    pub put_at_ms: u64,
}

/// A value, with the room that it takes.
#[derive(Debug)]
pub struct Value {
    content: Vec<u8>,
    _turn: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

/// What putting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// There was nothing.
    Created,
    /// There was another value.
    Replaced,
    /// There was this very value.
    Unchanged,
}

/// Cheap to clone; clones share the counts.
#[derive(Clone, Debug)]
pub struct Shelf {
    store: Option<Store>,
    identity: Identity,
    farm: Option<Farm>,
    queue: Option<Queue>,
    counts: Arc<Counts>,
    memory: Arc<Semaphore>,
}

impl Shelf {
    /// Over this user's store and, where they are in one, the farm, whose peers are told through `queue`.
    pub fn new(store: Option<Store>, identity: Identity, farm: Option<Farm>, queue: Option<Queue>) -> Self {
        let memory = Arc::new(Semaphore::new(MEMORY_KIB as usize));
        Self { store, identity, farm, queue, counts: Arc::default(), memory }
    }

    /// For `status`.
    pub fn status(&self) -> serde_json::Value {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        json!({
            "asked": value(&counts.asked), "found": value(&counts.found), "found_at_peers": value(&counts.found_at_peers),
            "put": value(&counts.put), "removed": value(&counts.removed),
            "untold": self.queue.as_ref().map_or(0, Queue::n_untold),
        })
    }

    /// Whether something is there, and how much.
    pub async fn meta(&self, name: &EntryName) -> Option<Meta> {
        let found = self.look(name).await;
        let newest = &found.first()?.entry;
        Some(Meta { n_bytes: newest.value?.size_bytes, put_at_ms: newest.put_at_ms })
    }

    /// Room in memory for a value of `n_bytes`, until it is dropped.
    pub async fn turn(&self, n_bytes: u64) -> Result<OwnedSemaphorePermit, ShelfError> {
        let n_kib = u32::try_from(n_bytes.div_ceil(1024)).unwrap_or(MEMORY_KIB).min(MEMORY_KIB);
        let turn = timeout(TURN_DEADLINE, Arc::clone(&self.memory).acquire_many_owned(n_kib)).await;
        turn.ok().and_then(Result::ok).ok_or(ShelfError::Busy)
    }

    /// What is there: the newest value that can be had.
    pub async fn get(&self, name: &EntryName) -> Result<Option<(Meta, Value)>, ShelfError> {
        count(&self.counts.asked);
        for found in self.look(name).await {
            // Taken out last: what is older does not count.
            let Some(value) = found.entry.value else { break };
            let turn = self.turn(value.size_bytes).await?;
            let meta = Meta { n_bytes: value.size_bytes, put_at_ms: found.entry.put_at_ms };
            let at = found.at;
            if let Some(content) = self.content(found, value).await {
                count(&self.counts.found);
                if at.is_some() {
                    count(&self.counts.found_at_peers);
                }
                return Ok(Some((meta, Value { content, _turn: turn })));
            }
        }
        Ok(None)
    }

    /// Puts `content` there. Peers have it when this returns, unless they are slow or away.
    pub async fn put(&self, name: &EntryName, content: Vec<u8>) -> Result<Put, ShelfError> {
        let known = self.look(name).await;
        let newest = known.first().map(|found| &found.entry);
        let value = Digest::of(&content);
        let outcome = match newest.map(|entry| entry.value) {
            Some(Some(there)) if there == value => return Ok(Put::Unchanged),
            Some(Some(_)) => Put::Replaced,
            Some(None) | None => Put::Created,
        };
        let entry = self.entry(name, Some(value), newest);
        self.keep(entry, content).await?;
        count(&self.counts.put);
        Ok(outcome)
    }

    /// Takes out what is there. False: nothing was.
    pub async fn remove(&self, name: &EntryName) -> Result<bool, ShelfError> {
        let known = self.look(name).await;
        let Some(newest) = known.first().map(|found| &found.entry).filter(|entry| entry.value.is_some()) else {
            return Ok(false);
        };
        let entry = self.entry(name, None, Some(newest));
        self.keep(entry, Vec::new()).await?;
        count(&self.counts.removed);
        Ok(true)
    }

    /// Newer than what is known, also where another machine's clock is ahead.
    fn entry(&self, name: &EntryName, value: Option<Digest>, newest: Option<&Entry>) -> Entry {
        let at_least = newest.map_or(0, |entry| entry.put_at_ms.saturating_add(1));
        Entry { name: name.clone(), value, put_at_ms: now_ms().max(at_least), by: self.identity.peer() }
    }

    async fn keep(&self, entry: Entry, content: Vec<u8>) -> Result<(), ShelfError> {
        let store = self.store.clone().ok_or(ShelfError::NoStore)?;
        let signed = self.identity.sign_result(entry.result());
        store_entry(store, signed, entry.value, content).await?;
        if let Some(told) = self.queue.as_ref().and_then(|queue| queue.tell(entry.name.key())) {
            // Late is as good as never, for who waits.
            let _ = timeout(PUT_PATIENCE, told).await;
        }
        Ok(())
    }

    /// All that counts, the newest first, one's own before a peer's.
    async fn look(&self, name: &EntryName) -> Vec<Found> {
        let key = name.key();
        let (here, there) = tokio::join!(self.here(key), async {
            match &self.farm {
                Some(farm) => entries::ask(farm, &key).await,
                None => Vec::new(),
            }
        });
        let there = there.into_iter().map(|(peer, signed)| (Some(peer), signed));
        let all = here.map(|signed| (None, signed)).into_iter().chain(there);
        let mut found: Vec<Found> = all.filter_map(|(at, signed)| self.accept(name, at, signed)).collect();
        found.sort_by(|one, other| {
            let newer = |one: &Found, other: &Found| one.entry.is_newer_than(&other.entry);
            newer(other, one).cmp(&newer(one, other)).then(one.at.is_some().cmp(&other.at.is_some()))
        });
        found
    }

    async fn here(&self, key: Digest) -> Option<SignedResult> {
        let store = self.store.clone().filter(|store| store.has_result(&key))?;
        spawn_blocking(move || store.result(&key).ok().flatten()).await.ok().flatten()
    }

    /// What counts is an entry of this name that a member of the farm has signed.
    fn accept(&self, name: &EntryName, at: Option<PeerId>, signed: SignedResult) -> Option<Found> {
        let entry = Entry::of(&signed.result).filter(|entry| entry.name == *name)?;
        let is_member =
            || self.farm.as_ref().and_then(Farm::roster).is_some_and(|roster| roster.value.has_peer(&entry.by));
        let counts = (entry.by == self.identity.peer() || is_member()) && verify_result(&signed);
        if !counts {
            tracing::debug!(key = %name.key().short(), by = %entry.by.short(), "an entry that no member of the farm signed");
        }
        counts.then_some(Found { entry, signed, at })
    }

    async fn content(&self, found: Found, value: Digest) -> Option<Vec<u8>> {
        if value.size_bytes == 0 {
            return Some(Vec::new());
        }
        let store = self.store.clone();
        let here = store.clone().filter(|store| store.contains(&value));
        if let Some(store) = here
            && let Ok(Some(content)) = spawn_blocking(move || store.read(&value, MAX_ENTRY_BYTES).ok().flatten()).await
        {
            return Some(content);
        }
        let (farm, peer) = (self.farm.as_ref()?, found.at?);
        let content = entries::value(farm, peer, found.signed.clone(), &value).await?;
        if let Some(store) = store {
            let kept = store_entry(store, found.signed, Some(value), content.clone()).await;
            if let Err(error) = kept {
                tracing::debug!(%error, "a peer's entry is not kept");
            }
        }
        Some(content)
    }
}

async fn store_entry(
    store: Store,
    signed: SignedResult,
    value: Option<Digest>,
    content: Vec<u8>,
) -> Result<(), ShelfError> {
    let putting = spawn_blocking(move || {
        let _pin = store.pin(value);
        if let Some(value) = value.filter(|value| value.size_bytes > 0) {
            store.put_digested(&value, &content)?;
        }
        store.put_result(&signed)
    });
    Ok(putting.await??)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
