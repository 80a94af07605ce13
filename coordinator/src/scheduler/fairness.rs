//! Max-min fair shares by weight: nobody gets more than they want, and nobody gets less for their weight than anybody who wants more.
//!
//! Pure. Does not know of slots or agents, only of counts. [`shares`] says what is fair, for all clients at once; [`Levels`] is what the
//! scheduler goes by: the same for one client, in a time that does not grow with their number.

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

/// Classes of weight.
const WEIGHTS: [usize; 2] = [4, 1];

/// How many of a multitude have at most so much of something, and how much that is in all. A tree of partial sums (Fenwick).
#[derive(Clone, Debug)]
struct Histogram {
    counts: Vec<i32>,
    sums: Vec<i64>,
}

impl Histogram {
    /// Of amounts up to `most`.
    fn new(most: usize) -> Self {
        Self { counts: vec![0; most + 2], sums: vec![0; most + 2] }
    }

    fn clamp(&self, amount: usize) -> usize {
        amount.min(self.counts.len() - 2)
    }

    fn change(&mut self, amount: usize, by: i32) {
        let amount = self.clamp(amount);
        let mut at = amount + 1;
        while at < self.counts.len() {
            self.counts[at] += by;
            self.sums[at] += i64::from(by) * i64::try_from(amount).unwrap_or(0);
            at += at & at.wrapping_neg();
        }
    }

    /// Number and sum of those that have at most `amount`.
    fn up_to(&self, amount: usize) -> (usize, usize) {
        let mut at = self.clamp(amount) + 1;
        let (mut count, mut sum) = (0_i64, 0_i64);
        while at > 0 {
            count += i64::from(self.counts[at]);
            sum += self.sums[at];
            at -= at & at.wrapping_neg();
        }
        (usize::try_from(count).unwrap_or(0), usize::try_from(sum).unwrap_or(0))
    }
}

/// All clients' demands, by class, such that one client's share is found without looking at the others.
#[derive(Clone, Debug)]
pub struct Levels {
    most: usize,
    wanted: [Histogram; 2],
    held: [Histogram; 2],
    n_clients: [usize; 2],
}

impl Levels {
    /// Of clients that want at most `most` slots each.
    pub fn new(most: usize) -> Self {
        let empty = || [Histogram::new(most), Histogram::new(most)];
        Self { most, wanted: empty(), held: empty(), n_clients: [0; 2] }
    }

    fn class(demand: &Demand) -> usize {
        usize::from(demand.weight != WEIGHTS[0])
    }

    /// One client more.
    pub fn add(&mut self, demand: &Demand) {
        let class = Self::class(demand);
        self.wanted[class].change(demand.n_wanted, 1);
        self.held[class].change(demand.n_held, 1);
        self.n_clients[class] += 1;
    }

    /// One that was added is gone, or wants something else.
    pub fn remove(&mut self, demand: &Demand) {
        let class = Self::class(demand);
        self.wanted[class].change(demand.n_wanted, -1);
        self.held[class].change(demand.n_held, -1);
        self.n_clients[class] -= 1;
    }

    /// What all clients get where each unit of weight gets so many parts of a slot.
    fn total_at(&self, n_parts: usize) -> usize {
        let of_class = |class: usize| {
            let most = self.most.min(n_parts.saturating_mul(WEIGHTS[class]) / PARTS);
            let (n_content, content) = self.wanted[class].up_to(most);
            content + (self.n_clients[class] - n_content) * most
        };
        of_class(0) + of_class(1)
    }

    fn parts(&self, n_slots: usize) -> usize {
        let (mut low, mut high) = (0, self.most * PARTS);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.total_at(middle) <= n_slots { low = middle } else { high = middle - 1 }
        }
        low
    }

    /// How many of `n_slots` the client with `demand`, which was added, may have now.
    ///
    /// As [`shares`] has it, save that the slots left over, fewer than would give everybody one more, are not dealt out by rank: whoever
    /// holds one keeps it while they are not held by too many, and others get one while some are left. So each share moves for a reason,
    /// and once everybody has what this says, all shares are those of [`shares`] up to who has the odd slots.
    pub fn share(&self, n_slots: usize, demand: &Demand) -> usize {
        let n_parts = self.parts(n_slots);
        let base = demand.at(n_parts);
        if demand.at(n_parts + 1) == base {
            return base;
        }
        let n_left = n_slots.saturating_sub(self.total_at(n_parts));
        let mut n_taken = 0;
        for (class, weight) in WEIGHTS.into_iter().enumerate() {
            let (now, next) = (n_parts * weight / PARTS, (n_parts + 1) * weight / PARTS);
            if now != next {
                n_taken += self.n_clients[class] - self.held[class].up_to(now).0;
            }
        }
        let holds_one = usize::from(demand.n_held > base);
        base + usize::from(n_taken - holds_one.min(n_taken) < n_left)
    }
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

        /// Clients call in turns and take what they may, as far as there is: in the end everybody has a fair share, and on the way nobody
        /// is told of less than the least fair one.
        #[test]
        fn who_goes_by_levels_ends_at_fair_shares(
            n_slots in 0_usize..60,
            wants in proptest::collection::vec((0_usize..30, 0_usize..30, prop::sample::select(&[1_usize, 4][..])), 1..9),
        ) {
            let mut demands: Vec<Demand> =
                wants.into_iter().map(|(n_wanted, n_held, weight)| Demand { n_wanted, n_held, weight }).collect();
            let mut levels = Levels::new(40);
            for demand in &demands {
                levels.add(demand);
            }
            for _ in 0..3 {
                for at in 0..demands.len() {
                    let share = levels.share(n_slots, &demands[at]);
                    let fair = shares(n_slots, &demands)[at];
                    prop_assert!(share.abs_diff(fair) <= 1 && share <= demands[at].n_wanted, "{share} of {fair}");
                    let others: usize = demands.iter().map(|demand| demand.n_held).sum::<usize>() - demands[at].n_held;
                    levels.remove(&demands[at]);
                    demands[at].n_held = share.min(n_slots.saturating_sub(others)).max(share.min(demands[at].n_held));
                    levels.add(&demands[at]);
                }
            }
            let fair = shares(n_slots, &demands);
            prop_assert_eq!(demands.iter().map(|demand| demand.n_held).sum::<usize>(), fair.iter().sum::<usize>());
            prop_assert!(demands.iter().zip(&fair).all(|(demand, fair)| demand.n_held.abs_diff(*fair) <= 1));
            prop_assert!(demands.iter().all(|demand| demand.n_held <= levels.share(n_slots, demand)), "nobody loses any more");
        }
    }
}
