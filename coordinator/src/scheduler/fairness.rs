//! Max-min fair shares: nobody gets more than they want, and nobody gets less than anybody who wants more.
//!
//! Pure. Does not know of slots or agents, only of counts.

/// What one client would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Slots it could use.
    pub n_wanted: usize,
    /// Slots it holds now: of two equal clients the one that already holds more keeps the odd slot, so that nothing moves for nothing.
    pub n_held: usize,
}

/// How many of `n_slots` each client may have, in the order of `demands`.
///
/// The sum is the smaller of `n_slots` and all that is wanted. Clients that want more than they get are within one slot of each other.
pub fn shares(n_slots: usize, demands: &[Demand]) -> Vec<usize> {
    let level = level(n_slots, demands);
    let mut shares: Vec<usize> = demands.iter().map(|demand| demand.n_wanted.min(level)).collect();
    let n_left = n_slots.saturating_sub(shares.iter().sum());
    let mut unsatisfied: Vec<usize> =
        demands.iter().enumerate().filter(|(_, demand)| demand.n_wanted > level).map(|(index, _)| index).collect();
    unsatisfied.sort_by_key(|&index| (demands[index].n_held <= level, index));
    for index in unsatisfied.into_iter().take(n_left) {
        shares[index] += 1;
    }
    shares
}

/// The largest number such that giving each client that much, or what it wants if that is less, does not exceed `n_slots`.
fn level(n_slots: usize, demands: &[Demand]) -> usize {
    let mut wanted: Vec<usize> = demands.iter().map(|demand| demand.n_wanted).collect();
    wanted.sort_unstable();
    let mut n_left = n_slots;
    let mut level = 0;
    for (index, &n_wanted) in wanted.iter().enumerate() {
        let n_clients = wanted.len() - index;
        if (n_wanted - level) > n_left / n_clients {
            return level + n_left / n_clients;
        }
        n_left -= (n_wanted - level) * n_clients;
        level = n_wanted;
    }
    level
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demand(n_wanted: usize, n_held: usize) -> Demand {
        Demand { n_wanted, n_held }
    }

    /// One slot at a time to whoever has least: the definition, too slow for use.
    fn one_by_one(n_slots: usize, demands: &[Demand]) -> Vec<usize> {
        let mut shares = vec![0; demands.len()];
        for _ in 0..n_slots {
            let next = (0..demands.len()).filter(|&i| shares[i] < demands[i].n_wanted).min_by_key(|&i| shares[i]);
            let Some(next) = next else { break };
            shares[next] += 1;
        }
        shares
    }

    #[test]
    fn the_odd_slot_stays_where_it_is() {
        assert_eq!(shares(5, &[demand(8, 2), demand(8, 3)]), [2, 3]);
        assert_eq!(shares(5, &[demand(8, 3), demand(8, 2)]), [3, 2]);
        assert_eq!(shares(5, &[demand(8, 0), demand(8, 0)]), [3, 2]);
    }

    #[test]
    fn who_wants_little_gets_it_all() {
        assert_eq!(shares(10, &[demand(1, 0), demand(100, 10), demand(4, 0)]), [1, 5, 4]);
        assert_eq!(shares(0, &[demand(1, 0)]), [0]);
        assert_eq!(shares(3, &[]), [0; 0]);
    }

    proptest! {
        #[test]
        fn shares_are_max_min_fair(
            n_slots in 0_usize..200,
            wants in proptest::collection::vec((0_usize..60, 0_usize..60), 0..12),
        ) {
            let demands: Vec<Demand> = wants.into_iter().map(|(n_wanted, n_held)| demand(n_wanted, n_held)).collect();
            let mut got = shares(n_slots, &demands);
            prop_assert!(got.iter().zip(&demands).all(|(share, demand)| *share <= demand.n_wanted));
            let mut expected = one_by_one(n_slots, &demands);
            got.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(got, expected);
        }
    }
}
