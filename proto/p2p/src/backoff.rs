//! How long to wait before a peer is dialled again.

use std::time::Duration;

/// Longest wait before the first new attempt.
const FIRST: Duration = Duration::from_millis(250);
/// Longest wait at all.
const CAP: Duration = Duration::from_secs(10);

/// Waits that double up to a cap, each shortened by chance so that a farm does not knock in step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    n_failures: u32,
}

impl Backoff {
    /// The wait after one more failure: between a half and the whole of the current step. `random` is any random number.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let step = FIRST.saturating_mul(1 << self.n_failures.min(16)).min(CAP);
        self.n_failures = self.n_failures.saturating_add(1);
        let half = step / 2;
        let spread_ms = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_millis(random % spread_ms)
    }

    /// After an attempt that lasted.
    pub(crate) fn reset(&mut self) {
        self.n_failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_the_cap(randoms in proptest::collection::vec(any::<u64>(), 1..100)) {
            let mut backoff = Backoff::default();
            for (index, random) in randoms.iter().enumerate() {
                let wait = backoff.next(*random);
                let step = FIRST.saturating_mul(1 << index.min(16)).min(CAP);
                prop_assert!(wait >= step / 2 && wait <= step, "{index}: {wait:?}");
            }
            backoff.reset();
            prop_assert!(backoff.next(randoms[0]) <= FIRST);
        }
    }
}
