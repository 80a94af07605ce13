//! One log line about each peer that misbehaves, and not one more.
//!
//! Pure, and bounded in memory: when many strangers come at once, most of them go unmentioned.

use std::collections::VecDeque;
use std::time::Duration;

use buildbee_proto::peer::PeerId;
use tokio::time::Instant;

/// Peers that are remembered as complained about.
const MAX_REMEMBERED: usize = 256;
/// For how long a peer is not complained about again.
const SILENCE: Duration = Duration::from_secs(10 * 60);
/// Lines that may be written at once.
const BURST: u32 = 16;
/// How often one more line may be written after a burst.
const REFILL: Duration = Duration::from_secs(5);

/// Decides whether a line about a peer is worth writing.
#[derive(Debug)]
pub(crate) struct Complaints {
    /// Oldest first.
    remembered: VecDeque<(PeerId, Instant)>,
    n_left: u32,
    refilled_at: Instant,
}

impl Complaints {
    pub(crate) fn new(now: Instant) -> Self {
        Self { remembered: VecDeque::new(), n_left: BURST, refilled_at: now }
    }

    /// Whether to write a line about `peer` now.
    pub(crate) fn worth_a_line(&mut self, peer: PeerId, now: Instant) -> bool {
        while self.remembered.front().is_some_and(|(_, at)| now.duration_since(*at) >= SILENCE) {
            self.remembered.pop_front();
        }
        if self.remembered.iter().any(|(known, _)| *known == peer) {
            return false;
        }
        while self.n_left < BURST && now.duration_since(self.refilled_at) >= REFILL {
            self.n_left += 1;
            self.refilled_at += REFILL;
        }
        if self.n_left == 0 {
            return false;
        }
        if self.n_left == BURST {
            self.refilled_at = now;
        }
        self.n_left -= 1;
        if self.remembered.len() == MAX_REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back((peer, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_le_bytes());
        PeerId(bytes)
    }

    #[test]
    fn one_line_a_peer() {
        let start = Instant::now();
        let mut complaints = Complaints::new(start);
        assert!(complaints.worth_a_line(peer(1), start));
        assert!(!complaints.worth_a_line(peer(1), start));
        assert!(complaints.worth_a_line(peer(2), start));
        assert!(complaints.worth_a_line(peer(1), start + SILENCE));
    }

    #[test]
    fn a_flood_is_bounded_in_lines_and_memory() {
        let start = Instant::now();
        let mut complaints = Complaints::new(start);
        let lines = (0..10_000).filter(|&number| complaints.worth_a_line(peer(number), start)).count();
        assert_eq!(lines, BURST as usize);
        let mut now = start;
        let mut lines = 0;
        for number in 0..2_000 {
            now += REFILL;
            lines += usize::from(complaints.worth_a_line(peer(number % 1_000 + 10_000), now));
            assert!(complaints.remembered.len() <= MAX_REMEMBERED);
        }
        assert!(lines > 100);
    }
}
