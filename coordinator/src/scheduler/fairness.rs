//! Max-min fair shares by weight: nobody gets more than they want, and nobody gets less for their weight than anybody who wants more.
//!
//! Pure. Does not know of slots or agents, only of counts.

use buildbee_proto::control::Class;

/// Weights divide it.
const PARTS: usize = 4;

/// How many slots a client of that class gets for each of one with weight 1.
pub fn weight(class: Class) -> usize {
    match class {
        Class::Interactive => 4,
        Class::Batch => 1,
    }
}

/// What one client would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Slots it could use.
    pub n_wanted: usize,
    /// Slots it holds now: of two equal clients the one that already holds more keeps the odd slot, so that nothing moves for nothing.
    pub n_held: usize,
    /// Its [`weight`].
    pub weight: usize,
}

impl Demand {
    /// What it gets where each unit of weight gets so many parts of a slot.
    fn at(&self, n_parts: usize) -> usize {
        self.n_wanted.min(n_parts.saturating_mul(self.weight) / PARTS)
    }
}

/// How many of `n_slots` each client may have, in the order of `demands`.
///
/// The sum is the smaller of `n_slots` and all that is wanted. Clients of one weight that want more than they get are within one slot of
/// each other; others have as many times more as their weight is larger.
pub fn shares(n_slots: usize, demands: &[Demand]) -> Vec<usize> {
    let n_parts = parts(n_slots, demands);
    let mut shares: Vec<usize> = demands.iter().map(|demand| demand.at(n_parts)).collect();
    let n_left = n_slots.saturating_sub(shares.iter().sum());
    // With one part more each of these would have one slot more, which is too much in all.
    let mut next: Vec<usize> =
        (0..demands.len()).filter(|&index| demands[index].at(n_parts + 1) > shares[index]).collect();
    next.sort_by_key(|&index| (demands[index].n_held <= shares[index], index));
    for index in next.into_iter().take(n_left) {
        shares[index] += 1;
    }
    shares
}

/// The largest number of parts such that giving each client what it gets then does not exceed `n_slots`.
fn parts(n_slots: usize, demands: &[Demand]) -> usize {
    let fits =
        |n_parts: usize| demands.iter().map(|demand| demand.at(n_parts)).fold(0, usize::saturating_add) <= n_slots;
    let most = demands.iter().map(|demand| demand.n_wanted).max().unwrap_or(0).saturating_mul(PARTS);
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demand(n_wanted: usize, n_held: usize) -> Demand {
        Demand { n_wanted, n_held, weight: 1 }
    }

    fn of(class: Class, n_wanted: usize) -> Demand {
        Demand { weight: weight(class), ..demand(n_wanted, 0) }
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

    #[test]
    fn somebody_who_waits_goes_first_and_nobody_starves() {
        let (me, ci) = (Class::Interactive, Class::Batch);
        assert_eq!(shares(10, &[of(ci, 100), of(me, 100)]), [2, 8]);
        assert_eq!(shares(10, &[of(ci, 100), of(me, 3)]), [7, 3]);
        assert_eq!(shares(10, &[of(ci, 100), of(ci, 100)]), [5, 5]);
        assert_eq!(shares(1, &[of(ci, 100), of(me, 100)]), [0, 1]);
        assert_eq!(shares(9, &[of(me, 100), of(ci, 100), of(me, 100)]), [4, 1, 4]);
    }

    proptest! {
        #[test]
        fn shares_are_max_min_fair(
            n_slots in 0_usize..200,
            wants in proptest::collection::vec((0_usize..60, 0_usize..60, prop::sample::select(&[1_usize, 2, 4][..])), 0..12),
        ) {
            let demands: Vec<Demand> =
                wants.into_iter().map(|(n_wanted, n_held, weight)| Demand { n_wanted, n_held, weight }).collect();
            let got = shares(n_slots, &demands);
            prop_assert!(got.iter().zip(&demands).all(|(share, demand)| *share <= demand.n_wanted));
            let n_wanted: usize = demands.iter().map(|demand| demand.n_wanted).sum();
            prop_assert_eq!(got.iter().sum::<usize>(), n_wanted.min(n_slots));
            // Nobody has a slot that would have been due later than the next one of somebody who wants more.
            let due = |n: usize, demand: &Demand| n * PARTS / demand.weight;
            let all = || got.iter().zip(&demands);
            let last = all().map(|(share, demand)| due(*share, demand)).max();
            let next = all().filter(|(share, demand)| **share < demand.n_wanted).map(|(share, demand)| due(share + 1, demand)).min();
            prop_assert!(last.zip(next).is_none_or(|(last, next)| last <= next), "{got:?}");
        }
    }
}
