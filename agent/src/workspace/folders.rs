//! The folders of running actions: one each, in memory where that is possible, removed behind the back of whoever used it.
//!
//! Removing what an action left takes about as long as making it, and no client need wait for that. The removal is a task of its own with a
//! bounded queue; where that is full, whoever has one more folder to remove does it. What a crash leaves, the next start removes. Not here:
//! what is put into a folder.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use buildbee_p2p::tasks::Tasks;
use buildbee_sandbox::cleanup::remove_scratch;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::memory::MemoryFolder;

/// Folders that wait to be removed.
const MAX_WAITING: usize = 64;
/// Inputs up to this many bytes are copied into memory; larger ones are linked on the disk.
const MAX_COPIED_BYTES: u64 = 64 << 20;

/// Hands out names for folders, and takes them back.
#[derive(Debug)]
pub struct Folders {
    disk: PathBuf,
    memory: Option<MemoryFolder>,
    next: AtomicU64,
    removals: mpsc::Sender<PathBuf>,
}

/// The place of one action. Nothing is there at first.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Not on the store's file system.
    pub in_memory: bool,
}

impl Folder {
    /// For its inputs.
    pub fn inputs(&self) -> PathBuf {
        self.path.join("inputs")
    }

    /// For what it writes.
    pub fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }
}

impl Folders {
    /// Folders in `disk`, which is empty and on the store's file system, or in `memory`.
    pub fn new(disk: PathBuf, memory: Option<MemoryFolder>, tasks: &Tasks) -> Self {
        let (removals, waiting) = mpsc::channel(MAX_WAITING);
        tasks.spawn("remove", remove_task(waiting, tasks.token()));
        Self { disk, memory, next: AtomicU64::new(0), removals }
    }

    /// One that no other action has had, for inputs of `n_bytes`.
    pub fn fresh(&self, n_bytes: u64) -> Folder {
        let memory = self.memory.as_ref().filter(|memory| n_bytes <= MAX_COPIED_BYTES && memory.has_room());
        let place = memory.map_or(self.disk.as_path(), MemoryFolder::path);
        let path = place.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        Folder { path, in_memory: memory.is_some() }
    }

    /// Has `folder` removed, soon. No process may be at work in it any more.
    pub async fn discard(&self, folder: Folder) {
        if let Err(refused) = self.removals.try_send(folder.path) {
            remove(refused.into_inner()).await;
        }
    }
}

async fn remove_task(mut waiting: mpsc::Receiver<PathBuf>, stop: CancellationToken) {
    while let Some(Some(folder)) = stop.run_until_cancelled(waiting.recv()).await {
        remove(folder).await;
    }
    waiting.close();
    while let Some(folder) = waiting.recv().await {
        remove(folder).await;
    }
}

async fn remove(folder: PathBuf) {
    let removing = tokio::task::spawn_blocking(move || remove_scratch(&folder));
    if let Ok(Err(error)) = removing.await {
        tracing::warn!(%error, "the folder of an action can't be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn make(folders: &Folders) -> Folder {
        let folder = folders.fresh(0);
        fs::create_dir_all(folder.scratch().join("upper")).unwrap();
        fs::write(folder.scratch().join("upper/t.o"), "object").unwrap();
        folder
    }

    #[tokio::test]
    async fn discarded_folders_go() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::new(dir.path().to_owned(), None, &Tasks::new());
        let (gone, kept) = (make(&folders), make(&folders));
        let place = gone.path.clone();
        folders.discard(gone).await;
        while place.exists() {
            tokio::task::yield_now().await;
        }
        assert!(kept.path.exists());
    }

    #[tokio::test]
    async fn what_waits_at_the_end_goes_too() {
        let dir = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        let folders = Folders::new(dir.path().to_owned(), None, &tasks);
        // More than can wait.
        for _ in 0..2 * MAX_WAITING {
            folders.discard(make(&folders)).await;
        }
        tasks.stop(Duration::from_secs(60)).await;
        folders.discard(make(&folders)).await;
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn large_inputs_stay_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let Ok(Some(memory)) = MemoryFolder::make(std::path::Path::new(super::super::memory::SHARED_MEMORY)) else {
            return eprintln!("skipped: no memory that is shared");
        };
        let folders = Folders::new(dir.path().to_owned(), Some(memory), &Tasks::new());
        assert!(!folders.fresh(MAX_COPIED_BYTES + 1).in_memory);
        assert!(folders.fresh(MAX_COPIED_BYTES + 1).inputs().starts_with(dir.path()));
    }
}
