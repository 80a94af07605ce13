//! The folders of running actions: one for what each sees, one for what it writes, in memory where that is possible, removed behind the
//! back of whoever used them.
//!
//! Removing what an action left takes about as long as making it, and no client need wait for that. The removal is a task of its own with a
//! bounded queue; where that is full, whoever has one more folder to remove does it. Inputs in memory are kept for a while instead, since
//! the next action sees nearly the same ([`Assembled`]). What a crash leaves, the next start removes. Not here: what is put into a folder.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_p2p::tasks::Tasks;
use buildbee_sandbox::cleanup::remove_scratch;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::assembled::Assembled;
use super::memory::MemoryFolder;
use super::tree::Skeleton;

/// Folders that wait to be removed.
const MAX_WAITING: usize = 64;
/// Inputs up to this many bytes are copied into memory; larger ones are linked on the disk.
const MAX_COPIED_BYTES: u64 = 64 << 20;
/// Inputs that are kept: those of the last actions that ran at once, on most machines.
const MAX_KEPT: usize = 32;
/// Bytes of memory for all inputs that are kept, with a page for each entry.
const MAX_KEPT_BYTES: u64 = 128 << 20;
/// Inputs with more files and folders are not kept.
const MAX_KEPT_ENTRIES: u64 = 20_000;
/// Inputs that no action needed for so long are removed.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// Folders of a tree by which the most similar inputs are chosen.
const N_COMPARED: usize = 64;
const PAGE_BYTES: u64 = 4096;

/// Hands out folders, and takes them back.
#[derive(Debug)]
pub struct Folders {
    disk: PathBuf,
    memory: Option<MemoryFolder>,
    next: AtomicU64,
    removals: mpsc::Sender<PathBuf>,
    kept: Arc<Mutex<Kept>>,
}

/// The place of one action.
#[derive(Debug)]
pub struct Folder {
    /// Of what it sees. Nothing is there at first, if nothing is [`Self::assembled`].
    pub inputs: PathBuf,
    /// For what it writes. Nothing is there at first.
    pub scratch: PathBuf,
    /// Not on the store's file system.
    pub in_memory: bool,
    /// Its inputs may serve another action.
    pub stays: bool,
    /// What stands at `inputs`, if it [`stays`](Self::stays).
    pub assembled: Option<Assembled>,
}

impl Folders {
    /// Folders in `disk`, which is empty and on the store's file system, or in `memory`.
    pub fn new(disk: PathBuf, memory: Option<MemoryFolder>, tasks: &Tasks) -> Self {
        let (removals, waiting) = mpsc::channel(MAX_WAITING);
        let kept = Arc::new(Mutex::new(Kept::default()));
        tasks.spawn("remove", remove_task(waiting, Arc::clone(&kept), tasks.token()));
        Self { disk, memory, next: AtomicU64::new(0), removals, kept }
    }

    /// Folders for an action that sees `tree`. Inputs that stand are chosen only if their order does not matter to it.
    pub fn fresh(&self, tree: &Skeleton, any_order: bool) -> Folder {
        let memory = self.memory.as_ref().filter(|memory| tree.n_bytes() <= MAX_COPIED_BYTES && memory.has_room());
        let place = memory.map_or(self.disk.as_path(), MemoryFolder::path);
        let stays = memory.is_some() && any_order;
        let assembled = stays.then(|| lock(&self.kept).take_most_similar(tree)).flatten();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let inputs = match &assembled {
            Some(assembled) => assembled.path().to_owned(),
            None => place.join(format!("{number}-inputs")),
        };
        Folder { inputs, scratch: place.join(number.to_string()), in_memory: memory.is_some(), stays, assembled }
    }

    /// Takes back `folder`: what is not kept is removed, soon. No process may be at work in it any more.
    pub async fn discard(&self, folder: Folder) {
        let mut unwanted = vec![folder.scratch];
        match folder.assembled {
            // Nobody would remove it afterwards.
            Some(assembled) if self.removals.is_closed() => unwanted.push(assembled.path().to_owned()),
            Some(assembled) => unwanted.extend(lock(&self.kept).keep(assembled, Instant::now())),
            None => unwanted.push(folder.inputs),
        }
        for path in unwanted {
            if let Err(refused) = self.removals.try_send(path) {
                remove(refused.into_inner()).await;
            }
        }
    }
}

/// Inputs that stand, the one that was used last at the end.
#[derive(Debug, Default)]
struct Kept {
    inputs: Vec<(Instant, Assembled)>,
}

impl Kept {
    /// The inputs of which the fewest folders have to change, of equal ones those that were used last.
    fn take_most_similar(&mut self, tree: &Skeleton) -> Option<Assembled> {
        let n_shared = |(_, kept): &(Instant, Assembled)| tree.n_shared(kept.skeleton(), N_COMPARED);
        let index = match self.inputs.len() {
            0 => return None,
            1 => 0,
            n => (0..n).max_by_key(|index| n_shared(&self.inputs[*index]))?,
        };
        Some(self.inputs.remove(index).1)
    }

    /// What has to go for it.
    fn keep(&mut self, assembled: Assembled, now: Instant) -> Vec<PathBuf> {
        let mut unwanted = Vec::new();
        if assembled.skeleton().n_entries() > MAX_KEPT_ENTRIES {
            unwanted.push(assembled.path().to_owned());
            return unwanted;
        }
        self.inputs.push((now, assembled));
        while self.inputs.len() > MAX_KEPT || self.n_bytes() > MAX_KEPT_BYTES {
            unwanted.push(self.inputs.remove(0).1.path().to_owned());
        }
        unwanted
    }

    fn n_bytes(&self) -> u64 {
        let bytes = |skeleton: &Skeleton| skeleton.n_bytes() + skeleton.n_entries() * PAGE_BYTES;
        self.inputs.iter().map(|(_, kept)| bytes(kept.skeleton())).sum()
    }

    /// When the next one has been kept for long enough.
    fn next_end(&self) -> Option<Instant> {
        self.inputs.first().map(|(since, _)| *since + KEPT_FOR)
    }

    /// The next one that was kept for long enough.
    fn take_old(&mut self, now: Instant) -> Option<PathBuf> {
        let is_old = self.next_end().is_some_and(|end| end <= now);
        is_old.then(|| self.inputs.remove(0).1.path().to_owned())
    }

    fn take_all(&mut self) -> Vec<PathBuf> {
        self.inputs.drain(..).map(|(_, kept)| kept.path().to_owned()).collect()
    }
}

/// A panic of whoever held the lock leaves a list that is still one.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn remove_task(mut waiting: mpsc::Receiver<PathBuf>, kept: Arc<Mutex<Kept>>, stop: CancellationToken) {
    loop {
        let end = lock(&kept).next_end();
        let folder = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            folder = waiting.recv() => folder,
            () = until(end) => lock(&kept).take_old(Instant::now()),
        };
        // Nothing, where what was old has found use after all.
        if let Some(folder) = folder {
            remove(folder).await;
        } else if waiting.is_closed() {
            break;
        }
    }
    waiting.close();
    while let Some(folder) = waiting.recv().await {
        remove(folder).await;
    }
    let left = lock(&kept).take_all();
    for folder in left {
        remove(folder).await;
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn remove(folder: PathBuf) {
    let removing = tokio::task::spawn_blocking(move || remove_scratch(&folder));
    if let Ok(Err(error)) = removing.await {
        tracing::warn!(%error, "the folder of an action can't be removed");
    }
}

#[cfg(test)]
#[path = "folders_tests.rs"]
mod tests;
