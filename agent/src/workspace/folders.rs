//! The folders of running actions: one each, removed behind the back of whoever used it.
//!
//! Removing what an action left takes about as long as making it, and no client need wait for that. The removal is a task of its own with a
//! bounded queue; where that is full, whoever has one more folder to remove does it. What a crash leaves, the next start removes. Not here:
//! what is put into a folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use buildbee_p2p::tasks::Tasks;
use buildbee_sandbox::cleanup::remove_scratch;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Folders that wait to be removed.
const MAX_WAITING: usize = 64;

/// Hands out names for folders, and takes them back.
#[derive(Debug)]
pub struct Folders {
    dir: PathBuf,
    next: AtomicU64,
    removals: mpsc::Sender<PathBuf>,
}

impl Folders {
    /// Folders in `dir`, which is empty.
    pub fn new(dir: PathBuf, tasks: &Tasks) -> Self {
        let (removals, waiting) = mpsc::channel(MAX_WAITING);
        tasks.spawn("remove", remove_task(waiting, tasks.token()));
        Self { dir, next: AtomicU64::new(0), removals }
    }

    /// A path that no other action has had. Nothing is there yet.
    pub fn fresh(&self) -> PathBuf {
        self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Has `folder` removed, soon. No process may be at work in it any more.
    pub async fn discard(&self, folder: PathBuf) {
        if let Err(refused) = self.removals.try_send(folder) {
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
    let removing = tokio::task::spawn_blocking(move || remove_scratch(Path::new(&folder)));
    if let Ok(Err(error)) = removing.await {
        tracing::warn!(%error, "the folder of an action can't be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn make(folders: &Folders) -> PathBuf {
        let folder = folders.fresh();
        fs::create_dir_all(folder.join("scratch/upper")).unwrap();
        fs::write(folder.join("scratch/upper/t.o"), "object").unwrap();
        folder
    }

    #[tokio::test]
    async fn discarded_folders_go() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::new(dir.path().to_owned(), &Tasks::new());
        let (gone, kept) = (make(&folders), make(&folders));
        folders.discard(gone.clone()).await;
        while gone.exists() {
            tokio::task::yield_now().await;
        }
        assert!(kept.exists());
    }

    #[tokio::test]
    async fn what_waits_at_the_end_goes_too() {
        let dir = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        let folders = Folders::new(dir.path().to_owned(), &tasks);
        // More than can wait.
        for _ in 0..2 * MAX_WAITING {
            folders.discard(make(&folders)).await;
        }
        tasks.stop(Duration::from_secs(60)).await;
        folders.discard(make(&folders)).await;
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
