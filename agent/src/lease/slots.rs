//! The handle on this agent's slots: the pure core behind a lock, with the clock and a bell for the one who reports to the
//! coordinator. It rings for what the coordinator goes by: not for what runs under a lease, which two calls for each action told it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_proto::control::AgentDesired;
use buildbee_proto::error::WireError;
use buildbee_proto::lease::{SlotReport, SlotToken};
use buildbee_proto::peer::PeerId;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::core::{AttemptId, Core, SlotGrant};

/// Cheap to clone; all clones see the same slots.
#[derive(Clone, Debug)]
pub struct Slots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    started: Instant,
    changed: Notify,
    freed: Notify,
    taken: Notify,
}

/// A slot that is taken. Dropping it gives the slot back.
#[derive(Debug)]
pub struct SlotGuard {
    slots: Slots,
    grant: SlotGrant,
}

impl Slots {
    /// Slots on a clock that starts now.
    pub fn new(core: Core) -> Self {
        let shared = Shared {
            core: Mutex::new(core),
            started: Instant::now(),
            changed: Notify::new(),
            freed: Notify::new(),
            taken: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    // The core is a plain value whose methods leave it whole, so a panic elsewhere under the lock spoils nothing.
    fn core(&self) -> MutexGuard<'_, Core> {
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Takes a slot; see [`Core::admit`].
    pub fn admit(&self, peer: PeerId, token: Option<SlotToken>, attempt: AttemptId) -> Result<SlotGuard, WireError> {
        let mut core = self.core();
        let grant = core.admit(self.now(), peer, token, attempt)?;
        let is_open = core.is_open(grant);
        drop(core);
        self.ring_if(is_open);
        self.shared.taken.notify_one();
        Ok(SlotGuard { slots: self.clone(), grant })
    }

    fn ring_if(&self, is_news: bool) {
        if is_news {
            self.ring();
        }
    }

    /// Lends this many from now on; see [`Core::lend`].
    pub fn lend(&self, n_slots: usize) {
        self.core().lend(self.now(), n_slots);
        self.ring();
    }

    /// Waits until a slot is taken, if none was since the last wait. For one waiter only. Cancel-safe.
    pub async fn taken(&self) {
        self.shared.taken.notified().await;
    }

    /// Holds slots as the coordinator wants.
    pub fn apply(&self, desired: &AgentDesired) {
        self.core().apply(self.now(), desired);
    }

    /// What the coordinator is told.
    pub fn report(&self) -> Vec<SlotReport> {
        self.core().report(self.now())
    }

    /// Admits nothing more.
    pub fn drain(&self) {
        self.core().drain();
        self.shared.changed.notify_one();
    }

    /// Slots that run an action.
    pub fn n_busy(&self) -> usize {
        self.core().n_busy()
    }

    /// Slots that are lent now.
    pub fn n_lent(&self) -> usize {
        self.core().n_lent()
    }

    /// All slots.
    pub fn n_slots(&self) -> usize {
        self.core().n_slots()
    }

    /// Slots that run nothing just now.
    pub fn n_idle(&self) -> u16 {
        let core = self.core();
        u16::try_from(core.n_slots().saturating_sub(core.n_busy())).unwrap_or(u16::MAX)
    }

    /// Says that something the coordinator wants to know has changed.
    pub fn ring(&self) {
        self.shared.changed.notify_one();
    }

    /// Waits for a change since the last wait. For one waiter only. Cancel-safe.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Waits until nothing runs. Cancel-safe.
    pub async fn idle(&self) {
        loop {
            let freed = self.shared.freed.notified();
            if self.n_busy() == 0 {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let mut core = self.slots.core();
        core.release(self.grant);
        let is_open = core.is_open(self.grant);
        drop(core);
        self.slots.ring_if(is_open);
        self.slots.shared.freed.notify_waiters();
    }
}
