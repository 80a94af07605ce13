//! Whether packing is worth its while on a connection: where the processor spares bytes faster than the link would carry them. On slower
//! links it is, on faster ones the time that packing takes is lost.
//!
//! A client packs always: what it sends is mostly text, little of it, and its way out is often the slowest in the farm.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::link_speed::{self, Ends};

/// How hard a packer tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// zstd level 1, for programs and libraries.
    Quick,
    /// zstd level 3: in blocks of a megabyte it takes no more time on headers than level 1 and makes 7 % less of them, on programs half as
    /// much again.
    Usual,
}

impl Effort {
    const COUNT: usize = 2;
    /// Bytes that are spared in a second of processor time, until this machine has shown its own figure.
    const FIRST_GUESS: [u64; Self::COUNT] = [200_000_000, 120_000_000];

    /// zstd's name for it.
    pub(crate) const fn level(self) -> i32 {
        match self {
            Self::Quick => 1,
            Self::Usual => 3,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Quick => 0,
            Self::Usual => 1,
        }
    }
}

/// For how long the kernel's word is taken that a link is slow.
const SLOW_INTERVAL: Duration = Duration::from_secs(5);
/// The same for a fast one. Shorter: a burst that fits into a shaper's bucket says nothing of what comes after it.
const FAST_INTERVAL: Duration = Duration::from_millis(250);
/// What a shorter block takes says more of the clock.
const TELLING_BYTES: usize = 64 << 10;
/// One in so many long blocks is packed in any case: content and load change.
const TRY_EVERY: u32 = 64;
/// How much of a figure is the newest block's: one part in so many.
const NEWEST: u64 = 8;

/// What is known of a connection's link and of this machine's pace. One for each connection.
#[derive(Debug)]
pub(crate) struct Worth {
    /// `None`: not asked, and packing is always tried.
    ends: Option<Ends>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// Bytes a second, and when the kernel said so.
    rate: Option<u64>,
    looked: Option<Instant>,
    /// Bytes spared in a second of processor time, by effort.
    spared: [u64; Effort::COUNT],
    n_plain: u32,
}

impl Worth {
    /// Of a link between `ends`; without them, packing is always tried.
    pub(crate) fn new(ends: Option<Ends>) -> Self {
        let known = Known { rate: None, looked: None, spared: Effort::FIRST_GUESS, n_plain: 0 };
        Self { ends, known: Mutex::new(known) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // It has no state that a panic could leave half-made.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to try to make a block of `n_bytes` shorter. Asks the kernel now and then.
    pub(crate) fn tries(&self, effort: Effort, n_bytes: usize) -> bool {
        let Some(ends) = self.ends else { return true };
        let mut known = self.known();
        let interval = if known.is_fast(effort) { FAST_INTERVAL } else { SLOW_INTERVAL };
        if known.looked.is_none_or(|at| at.elapsed() >= interval) {
            known.looked = Some(Instant::now());
            known.rate = link_speed::rate(ends).unwrap_or_else(|error| {
                // Some kernels and containers have no sock_diag.
                tracing::debug!(%error, "the speed of a link is not known");
                None
            });
        }
        known.tries(effort, n_bytes)
    }

    /// `n_content` bytes became `n_packed` (no fewer where that was in vain) in `took` of processor time.
    pub(crate) fn note(&self, effort: Effort, n_content: usize, n_packed: usize, took: Duration) {
        if self.ends.is_some() && n_content >= TELLING_BYTES {
            self.known().note(effort, n_content.saturating_sub(n_packed), took);
        }
    }
}

impl Known {
    /// Whether the link carries bytes faster than they are spared here.
    fn is_fast(&self, effort: Effort) -> bool {
        self.rate.is_some_and(|rate| rate >= self.spared[effort.index()])
    }

    fn tries(&mut self, effort: Effort, n_bytes: usize) -> bool {
        if !self.is_fast(effort) {
            return true;
        }
        if n_bytes < TELLING_BYTES {
            return false;
        }
        self.n_plain = (self.n_plain + 1) % TRY_EVERY;
        self.n_plain == 0
    }

    fn note(&mut self, effort: Effort, n_spared: usize, took: Duration) {
        let nanoseconds = took.as_nanos().max(1);
        let now = n_spared as u128 * 1_000_000_000 / nanoseconds;
        let spared = &mut self.spared[effort.index()];
        *spared = (*spared * (NEWEST - 1) + u64::try_from(now).unwrap_or(u64::MAX / NEWEST)) / NEWEST;
    }
}

/// Processor time of this thread.
pub(crate) fn thread_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn known(rate: Option<u64>) -> Known {
        Known { rate, looked: None, spared: [100 * MB; Effort::COUNT], n_plain: 0 }
    }

    #[test]
    fn slow_and_unknown_links_are_packed_fast_ones_are_not() {
        for (rate, tries) in [(None, true), (Some(12 * MB), true), (Some(99 * MB), true), (Some(110 * MB), false)] {
            let mut known = known(rate);
            assert_eq!([known.tries(Effort::Quick, 100), known.tries(Effort::Usual, 1 << 20)], [tries; 2], "{rate:?}");
        }
    }

    #[test]
    fn a_fast_link_is_given_a_try_now_and_then() {
        let mut known = known(Some(1_000 * MB));
        let n = (0..10 * TRY_EVERY).filter(|_| known.tries(Effort::Quick, 1 << 20)).count();
        assert_eq!(n, 10);
        assert!((0..10 * TRY_EVERY).all(|_| !known.tries(Effort::Quick, 100)));
    }

    #[test]
    fn what_cannot_be_made_shorter_ends_the_trying_and_what_can_brings_it_back() {
        let mut known = known(Some(50 * MB));
        for _ in 0..20 {
            known.note(Effort::Quick, 0, Duration::from_millis(2));
        }
        assert!(!known.tries(Effort::Quick, 1 << 20) && known.tries(Effort::Usual, 1 << 20));
        for _ in 0..20 {
            known.note(Effort::Quick, 700_000, Duration::from_millis(2));
        }
        assert!(known.tries(Effort::Quick, 1 << 20));
        known.note(Effort::Quick, usize::MAX, Duration::ZERO);
        known.note(Effort::Quick, usize::MAX, Duration::ZERO);
    }
}
