//! Reads all that the store holds again and again, slowly, so that what goes bad on the disk is found before it is wanted, and has it
//! brought from another agent.
//!
//! Life cycle: one task for the life of the agent, which rests from one round to the next. It reads while the machine lends nothing, or when it has
//! waited long enough for that, and `BYTES_PER_SECOND` at most, or what it takes for a round not to be longer than the rest after it. What is bad is reported and dropped by the store, once; toolchains of which it
//! is a part are made anew. A lost result is told again by whoever else holds it ([`repair`](super::repair)).

use std::time::Duration;

use buildbee_p2p::node::Node;
use buildbee_proto::digest::Digest;
use buildbee_proto::peer::{PeerId, Role};
use buildbee_store::{Scrub, Store};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::fetch::{Fetcher, Sources};
use crate::lease::slots::Slots;
use crate::toolchain::Toolchains;

/// How fast is read: 20 GiB in an hour and a half.
const BYTES_PER_SECOND: u64 = 4 << 20;
/// Bytes between two pauses.
const STEP_BYTES: u64 = 1 << 20;
/// The first round begins so long after the start, if rounds are not closer together. Starts have enough to read.
const FIRST_AFTER: Duration = Duration::from_secs(20 * 60);
/// How long a step waits for a quiet moment.
const QUIET_PATIENCE: Duration = Duration::from_secs(30);
const QUIET_TICK: Duration = Duration::from_secs(1);

/// What the task needs.
#[derive(Debug)]
pub struct Scrubber {
    /// What is read.
    pub store: Store,
    /// Whom what was bad is had from.
    pub node: Node,
    /// How.
    pub fetcher: Fetcher,
    /// What is made of the store's files.
    pub toolchains: Toolchains,
    /// Whether the machine is at work.
    pub slots: Slots,
    /// From one round's end to the next.
    pub every: Duration,
}

/// Scrubs until `stop`.
pub async fn scrub_task(scrubber: Scrubber, stop: CancellationToken) {
    stop.run_until_cancelled(scrubber.run()).await;
}

impl Scrubber {
    async fn run(self) {
        sleep(FIRST_AFTER.min(self.every)).await;
        loop {
            self.round().await;
            sleep(self.every).await;
        }
    }

    async fn round(&self) {
        let (mut at, mut n_bytes, mut n_bad) = (Scrub::START, 0u64, 0);
        let bytes_per_second = BYTES_PER_SECOND.max(self.store.usage().bytes / self.every.as_secs().max(1));
        while !at.is_over() {
            self.quiet().await;
            let (store, from) = (self.store.clone(), at);
            let Ok((step, next)) = tokio::task::spawn_blocking(move || store.scrub(from, STEP_BYTES)).await else {
                return;
            };
            at = next;
            n_bytes = n_bytes.saturating_add(step.bytes);
            n_bad += step.n_bad;
            if !step.bad_blobs.is_empty() {
                self.heal(&step.bad_blobs).await;
            }
            sleep(Duration::from_millis(step.bytes.saturating_mul(1000) / bytes_per_second)).await;
        }
        tracing::info!(n_bytes, n_bad, "read all that is kept");
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

    async fn heal(&self, bad: &[Digest]) {
        let (toolchains, lost) = (self.toolchains.clone(), bad.to_vec());
        let n_discarded = tokio::task::spawn_blocking(move || toolchains.discard(&lost)).await.unwrap_or(0);
        let table = self.node.peers().borrow().clone();
        let agents: Vec<PeerId> =
            table.0.iter().filter(|entry| entry.role == Role::Agent).map(|entry| entry.peer).collect();
        let mut n_healed = 0;
        if let Some((origin, likely)) = agents.split_first() {
            let sources = Sources { origin: *origin, likely: likely.to_vec() };
            for digest in bad {
                match self.fetcher.fetch(&[*digest], &sources).await {
                    Ok(()) => n_healed += 1,
                    Err(error) => tracing::debug!(digest = %digest.short(), %error, "nobody here has it"),
                }
            }
        }
        tracing::info!(
            n_bad = bad.len(),
            n_healed,
            n_discarded,
            "bad blobs were replaced by other agents' as far as they have them"
        );
    }
}
