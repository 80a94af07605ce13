//! Makes results last before others are told that they are kept here, many at a time.
//!
//! Life cycle: one task for the life of the agent, with a bounded queue before it ([`Lasting`]). The disk is asked at once where it was left in
//! peace for a moment, and else once for all that has come meanwhile: no compile waits for it, and neither does anybody else for what they
//! store. A disk that takes longer than an announcer waits makes the announcer ask again. Not here: what is kept.

use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_store::Store;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Results that may wait; whoever announces further ones asks again.
const MAX_WAITING: usize = 1024;
/// Results that are made to last together.
const MAX_TOGETHER: usize = 256;
/// From one turn of the disk to the next, at least. Less than what an announcer waits, by far.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Asked {
    action: Digest,
    blobs: Vec<Digest>,
    done: oneshot::Sender<bool>,
}

/// Where results that are to last are handed in. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Lasting {
    queue: mpsc::Sender<Asked>,
}

/// The other end of a [`Lasting`], for [`lasting_task`].
#[derive(Debug)]
pub struct ToLast(mpsc::Receiver<Asked>);

/// A handle, and the task's end of its queue.
pub fn lasting() -> (Lasting, ToLast) {
    let (queue, waiting) = mpsc::channel(MAX_WAITING);
    (Lasting { queue }, ToLast(waiting))
}

impl Lasting {
    /// Has the result of `action` and its blobs last. Says whether they do, some time; nothing, where that can't be said.
    pub fn ask(&self, action: Digest, blobs: Vec<Digest>) -> oneshot::Receiver<bool> {
        let (done, answer) = oneshot::channel();
        // Refused, it drops its end.
        drop(self.queue.try_send(Asked { action, blobs, done }));
        answer
    }
}

/// Makes results in `store` last until `stop`.
pub async fn lasting_task(store: Store, waiting: ToLast, stop: CancellationToken) {
    stop.run_until_cancelled(run(store, waiting.0)).await;
}

async fn run(store: Store, mut waiting: mpsc::Receiver<Asked>) {
    let mut next = Instant::now();
    while let Some(first) = waiting.recv().await {
        sleep_until(next).await;
        next = Instant::now() + PAUSE;
        let mut asked = vec![first];
        while asked.len() < MAX_TOGETHER
            && let Ok(another) = waiting.try_recv()
        {
            asked.push(another);
        }
        let (results, done): (Vec<_>, Vec<_>) =
            asked.into_iter().map(|asked| ((asked.action, asked.blobs), asked.done)).unzip();
        let store = store.clone();
        let made = tokio::task::spawn_blocking(move || store.make_last(&results)).await;
        match made {
            Ok(Ok(lasting)) => {
                #[cfg(debug_assertions)]
                if lasting.contains(&true) {
                    buildbee_store::fault::point("adopted-lasts");
                }
                for (done, lasts) in done.into_iter().zip(lasting) {
                    // Who asked may have gone.
                    let _ = done.send(lasts);
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "results may not outlive a loss of power, and are not promised"),
            Err(error) => tracing::error!(%error, "making results last failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use buildbee_store::{Durability, Options};

    use super::*;

    #[tokio::test]
    async fn each_hears_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 64 << 20, durability: Durability::Asked };
        let (store, _) = Store::open_packed(&dir.path().join("store"), &options).unwrap();
        let (lasting, to_last) = lasting();
        let stop = CancellationToken::new();
        let task = tokio::spawn(lasting_task(store.clone(), to_last, stop.clone()));
        let here: Vec<Digest> = (0..3u8).map(|n| store.put_bytes(&[n; 10]).unwrap()).collect();
        let nowhere = Digest::of(b"nowhere");
        // No result of that action is here: its blobs alone are no promise.
        let answers: Vec<_> = here.iter().map(|blob| lasting.ask(nowhere, vec![*blob])).collect();
        for answer in answers {
            assert_eq!(answer.await, Ok(false));
        }
        stop.cancel();
        task.await.unwrap();
        assert!(lasting.ask(nowhere, Vec::new()).await.is_err(), "nobody is left to promise anything");
    }
}
