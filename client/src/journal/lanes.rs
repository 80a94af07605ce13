//! Puts what happened at the same time into rows that hold one thing at a time. Pure.

/// Rows at most; what finds no room in them shares the last one.
const MAX_LANES: usize = 4_096;

/// Rows, by when the last thing in each ended.
#[derive(Clone, Debug, Default)]
pub struct Lanes {
    ends: Vec<u64>,
}

impl Lanes {
    /// The row for something from `start` to `end`: of those that are free from `start` on, the one that was so for the shortest time.
    ///
    /// As few rows as possible come of it if things are given in the order of their starts or of their ends.
    pub fn place(&mut self, start: u64, end: u64) -> usize {
        let free = self.ends.iter().enumerate().filter(|(_, free_from)| **free_from <= start);
        // Of equal ones the first, so that rows fill from the top.
        let best = free.max_by_key(|(lane, free_from)| (**free_from, std::cmp::Reverse(*lane))).map(|(lane, _)| lane);
        let lane = best.unwrap_or_else(|| {
            if self.ends.len() < MAX_LANES {
                self.ends.push(0);
            }
            self.ends.len() - 1
        });
        self.ends[lane] = self.ends[lane].max(end);
        lane
    }

    /// How many rows are in use.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether nothing was placed.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_used_again() {
        let mut lanes = Lanes::default();
        let placed: Vec<usize> = [(0, 10), (1, 4), (4, 6), (5, 7), (10, 12)]
            .into_iter()
            .map(|(start, end)| lanes.place(start, end))
            .collect();
        assert_eq!(placed, [0, 1, 1, 2, 0]);
        assert_eq!(lanes.len(), 3);
    }

    fn most_at_once(things: &[(u64, u64)]) -> usize {
        let at = |moment: u64| things.iter().filter(|(start, end)| *start <= moment && moment < *end).count();
        things.iter().map(|(start, _)| at(*start)).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_no_row_is_wasted(
            mut things in proptest::collection::vec((0_u64..100, 1_u64..30), 0..60),
            by_end in any::<bool>(),
        ) {
            for thing in &mut things {
                thing.1 += thing.0;
            }
            things.sort_by_key(|(start, end)| if by_end { *end } else { *start });
            let mut lanes = Lanes::default();
            let mut rows: Vec<Vec<(u64, u64)>> = vec![Vec::new(); things.len()];
            for (start, end) in &things {
                rows[lanes.place(*start, *end)].push((*start, *end));
            }
            for row in &mut rows {
                row.sort_unstable();
                prop_assert!(row.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{row:?}");
            }
            prop_assert_eq!(lanes.len(), most_at_once(&things));
        }
    }
}
