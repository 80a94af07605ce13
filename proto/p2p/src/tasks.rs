//! Named tasks of a daemon, and their ordered end.
//!
//! Ask first (the token), wait a little, then drop what is left. Not here: how many tasks there may be. Whoever spawns one for each
//! stream or request holds a permit for it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// For how long a dropped task may take to reach an await point before it is given up.
const DROP_TIME: Duration = Duration::from_secs(1);

/// A set of tasks that end together. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    dropping: CancellationToken,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` until it ends or the set is stopped. A panic in it is logged with its name and ends that task alone.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let dropping = self.dropping.clone();
        self.tracker.spawn(async move {
            match dropping.run_until_cancelled(AssertUnwindSafe(future).catch_unwind()).await {
                Some(Ok(())) => tracing::trace!(task = name, "ended"),
                Some(Err(_)) => tracing::error!(task = name, "panicked: this is a bug"),
                None => tracing::debug!(task = name, "did not end in time and was dropped"),
            }
        });
    }

    /// Cancelled when the set is stopped: long-running tasks end then.
    pub fn token(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Number of tasks that have not ended.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task runs.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Cancels the token, waits for `grace` and drops the tasks that have not ended by then. Cancel-safe: call it again.
    pub async fn stop(&self, grace: Duration) {
        self.stopping.cancel();
        self.tracker.close();
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            tracing::debug!(n_tasks = self.tracker.len(), "tasks did not end when asked");
            self.dropping.cancel();
            if tokio::time::timeout(DROP_TIME, self.tracker.wait()).await.is_err() {
                tracing::warn!(
                    n_tasks = self.tracker.len(),
                    "tasks are stuck between await points and are left behind"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn asked_tasks_end_themselves() {
        let tasks = Tasks::new();
        let cleaned = Arc::new(AtomicBool::new(false));
        let (token, flag) = (tasks.token(), Arc::clone(&cleaned));
        tasks.spawn("polite", async move {
            token.cancelled().await;
            flag.store(true, Ordering::SeqCst);
        });
        tasks.stop(Duration::from_secs(30)).await;
        assert!(cleaned.load(Ordering::SeqCst));
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn deaf_tasks_are_dropped() {
        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        tasks.stop(Duration::from_millis(50)).await;
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_ends_one_task() {
        let tasks = Tasks::new();
        tasks.spawn("broken", async { panic!("on purpose") });
        let (tx, rx) = tokio::sync::oneshot::channel();
        tasks.spawn("sound", async move { tx.send(5).unwrap() });
        assert_eq!(rx.await, Ok(5));
        tasks.stop(Duration::from_secs(30)).await;
    }
}
