//! Runs shared by everybody who asks for the same thing at the same time: one runs, all get the result, and the run is cancelled when
//! the last who waited for it has left.
//!
//! Used for attempts that are sent twice, for the same action asked for by two clients, and for toolchains being made present.
//!
//! Life cycle: [`Flights::join`] starts a task under `Tasks` unless one flies under that key, and returns a [`Passenger`]. The task is
//! told to stop by its token when the last passenger is dropped; its key is free again from that moment, so a newcomer never boards a
//! run that is being cancelled.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_p2p::tasks::Tasks;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::standing::{Progress, Standing};

/// All runs of one kind. `T` is what comes out, handed to each passenger.
pub struct Flights<K: Eq + Hash + Clone, T: Clone> {
    name: &'static str,
    tasks: Tasks,
    flying: Arc<Mutex<HashMap<K, Flight<T>>>>,
}

struct Flight<T> {
    id: u64,
    landed: watch::Receiver<Option<T>>,
    standing: watch::Receiver<Standing>,
    cancel: CancellationToken,
    n_passengers: usize,
}

/// One who waits for a run.
pub struct Passenger<K: Eq + Hash + Clone, T: Clone> {
    key: K,
    id: u64,
    landed: watch::Receiver<Option<T>>,
    standing: watch::Receiver<Standing>,
    flying: Arc<Mutex<HashMap<K, Flight<T>>>>,
    left: bool,
    /// Whether this call started the run.
    pub pilot: bool,
}

impl<K: Eq + Hash + Clone, T: Clone> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Clone, T: Clone> fmt::Debug for Passenger<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passenger").field("id", &self.id).finish_non_exhaustive()
    }
}

// A panic under the lock can't leave the map half changed: each critical section is one insertion, removal or count.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, T> Flights<K, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// No runs yet. `name` is what their tasks are called. The number of runs is bounded by what its callers admit.
    pub fn new(name: &'static str, tasks: Tasks) -> Self {
        Self { name, tasks, flying: Arc::default() }
    }

    /// Boards the run under `key`, or starts one by `start`. The run may be cancelled at any time after its token says so, and must
    /// itself end soon then.
    pub fn join<F>(&self, key: K, start: impl FnOnce(CancellationToken, Progress) -> F) -> Passenger<K, T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flying = lock(&self.flying);
        if let Some(flight) = flying.get_mut(&key) {
            flight.n_passengers += 1;
            return self.passenger(key, flight, false);
        }
        let (land, landed) = watch::channel(None);
        let (progress, standing) = Progress::new();
        let cancel = self.tasks.token().child_token();
        let id = next_id();
        let flight = Flight { id, landed, standing, cancel: cancel.clone(), n_passengers: 1 };
        let passenger = self.passenger(key.clone(), &flight, true);
        flying.insert(key.clone(), flight);
        let run = start(cancel, progress);
        let flying = Arc::clone(&self.flying);
        self.tasks.spawn(self.name, async move {
            let leave = Landing { key, id, flying };
            let result = run.await;
            // Free the key first: who comes after this must start anew, not board a run that has ended.
            drop(leave);
            land.send_replace(Some(result));
        });
        passenger
    }

    fn passenger(&self, key: K, flight: &Flight<T>, pilot: bool) -> Passenger<K, T> {
        let (landed, standing) = (flight.landed.clone(), flight.standing.clone());
        Passenger { key, id: flight.id, landed, standing, flying: Arc::clone(&self.flying), left: false, pilot }
    }
}

fn next_id() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Frees the key also when the run panics.
struct Landing<K: Eq + Hash + Clone, T: Clone> {
    key: K,
    id: u64,
    flying: Arc<Mutex<HashMap<K, Flight<T>>>>,
}

impl<K: Eq + Hash + Clone, T: Clone> Drop for Landing<K, T> {
    fn drop(&mut self) {
        let mut flying = lock(&self.flying);
        if flying.get(&self.key).is_some_and(|flight| flight.id == self.id) {
            flying.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash + Clone, T: Clone> Passenger<K, T> {
    /// What came out; `None` if the run died. Cancel-safe.
    pub async fn landed(&mut self) -> Option<T> {
        let landed = self.landed.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }

    /// Leaves; who is the last waits until the cancelled run has ended.
    pub async fn leave(mut self) {
        if self.disembark() {
            self.landed().await;
        }
    }

    /// Gives the seat up, once. True if it was the last one.
    fn disembark(&mut self) -> bool {
        if std::mem::replace(&mut self.left, true) {
            return false;
        }
        let mut flying = lock(&self.flying);
        let Some(flight) = flying.get_mut(&self.key).filter(|flight| flight.id == self.id) else { return false };
        flight.n_passengers -= 1;
        if flight.n_passengers > 0 {
            return false;
        }
        flight.cancel.cancel();
        flying.remove(&self.key);
        true
    }

    /// Another one who waits for the same run, if it still flies.
    pub fn beside(&self) -> Option<Self> {
        let mut flying = lock(&self.flying);
        let flight = flying.get_mut(&self.key).filter(|flight| flight.id == self.id)?;
        flight.n_passengers += 1;
        let (key, landed, standing) = (self.key.clone(), flight.landed.clone(), flight.standing.clone());
        Some(Self { key, id: self.id, landed, standing, flying: Arc::clone(&self.flying), left: false, pilot: false })
    }

    /// How far the run is, and when that changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }
}

impl<K: Eq + Hash + Clone, T: Clone> Drop for Passenger<K, T> {
    fn drop(&mut self) {
        self.disembark();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_run_serves_all_who_ask_meanwhile() {
        let flights: Flights<u8, u32> = Flights::new("test", Tasks::new());
        let runs = Arc::new(AtomicUsize::new(0));
        let start = || {
            let runs = Arc::clone(&runs);
            move |_cancel, _progress| async move {
                runs.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                42
            }
        };
        let (mut first, mut second) = (flights.join(1, start()), flights.join(1, start()));
        assert!(first.pilot && !second.pilot);
        assert_eq!((first.landed().await, second.landed().await), (Some(42), Some(42)));
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert!(flights.join(1, start()).pilot, "a landed run is not boarded");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_to_leave_cancels() {
        let flights: Flights<u8, bool> = Flights::new("test", Tasks::new());
        let seen = Arc::new(AtomicUsize::new(0));
        let start = || {
            let seen = Arc::clone(&seen);
            move |cancel: CancellationToken, _progress| async move {
                cancel.cancelled().await;
                seen.fetch_add(1, Ordering::Relaxed);
                false
            }
        };
        let (first, second) = (flights.join(1, start()), flights.join(1, start()));
        drop(first);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.load(Ordering::Relaxed), 0);
        drop(second);
        assert!(flights.join(1, start()).pilot, "a cancelled run is not boarded");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stays_keeps_the_run() {
        let flights: Flights<u8, u32> = Flights::new("test", Tasks::new());
        let first = flights.join(1, |cancel, _progress| async move {
            let slept = cancel.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
            slept.map_or(0, |()| 42)
        });
        let mut second = first.beside().unwrap();
        drop(first);
        assert_eq!(second.landed().await, Some(42));
        assert!(second.beside().is_none(), "it has landed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_dies_is_seen_to() {
        let flights: Flights<u8, bool> = Flights::new("test", Tasks::new());
        let mut passenger = flights.join(1, |_cancel, _progress| async { panic!("on purpose") });
        assert_eq!(passenger.landed().await, None);
    }
}
