//! The order of use of the index's entries, and which of them are wanted least. Knows their slots by number only.
//!
//! One tree from tick to slot for each rank, which is what an entry is worth and whether it is large.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::slots::Slot;

/// Entries from this size on are large: one that goes makes room for many.
pub(crate) const LARGE_BYTES: u64 = 1 << 20;
/// Kinds of worth, large and small.
const N_RANKS: usize = 6;
/// Those of what a compile made, records among them.
const RECORD_RANKS: std::ops::Range<usize> = 2..4;
/// What the time since an entry's last use is divided by when it is asked which goes first. Inputs can be had again from whoever wants them
/// used; what a compile made has to be made again; a toolchain keeps everybody waiting. Of each, large ones go twice as soon.
const WEIGHTS: [u64; N_RANKS] = [2, 1, 6, 3, 8, 4];

/// See the module. Each tick is there once.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Least recently used first.
    ranks: [BTreeMap<u64, u32>; N_RANKS],
}

/// Which entries are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    All,
    /// Those among which all records are, and few blobs.
    Records,
}

fn rank(slot: &Slot) -> usize {
    2 * usize::from(slot.worth.to_byte()) + usize::from(slot.charge_bytes() >= LARGE_BYTES)
}

impl Order {
    /// From entries in the order of their use.
    pub(crate) fn of<'a>(used: impl Iterator<Item = (&'a Slot, u32)>) -> Self {
        let mut ranks: [Vec<(u64, u32)>; N_RANKS] = Default::default();
        for (slot, at) in used {
            ranks[rank(slot)].push((slot.tick, at));
        }
        // From sorted ones: such a tree is dense.
        Self { ranks: ranks.map(|rank| rank.into_iter().collect()) }
    }

    /// Enters a slot under its tick, if it has one.
    pub(crate) fn insert(&mut self, slot: &Slot, at: u32) {
        if slot.tick > 0 {
            self.ranks[rank(slot)].insert(slot.tick, at);
        }
    }

    /// Takes it out, as it was entered.
    pub(crate) fn remove(&mut self, slot: &Slot) {
        self.ranks[rank(slot)].remove(&slot.tick);
    }

    /// At most `n_most`, beginning at `tick`, with their ticks.
    pub(crate) fn from(&self, tick: u64, n_most: usize) -> Vec<(u64, u32)> {
        let each = self.ranks.iter().flat_map(|rank| rank.range(tick..).take(n_most));
        let mut used: Vec<(u64, u32)> = each.map(|(tick, at)| (*tick, *at)).collect();
        used.sort_unstable();
        used.truncate(n_most);
        used
    }

    /// What `wanted` makes of at most `n_most` that were used before `tick`, the latest first, with their ticks.
    pub(crate) fn before<T>(
        &self,
        tick: u64,
        among: Among,
        n_most: usize,
        wanted: impl Fn(u32) -> Option<T>,
    ) -> Vec<(u64, T)> {
        let ranks = match among {
            Among::All => 0..N_RANKS,
            Among::Records => RECORD_RANKS,
        };
        let wanted = |(tick, at): (&u64, &u32)| wanted(*at).map(|found| (*tick, found));
        let ranks = self.ranks.get(ranks).unwrap_or_default();
        let each = ranks.iter().flat_map(|rank| rank.range(..tick).rev().filter_map(wanted).take(n_most));
        let mut used: Vec<(u64, T)> = each.collect();
        used.sort_unstable_by_key(|(tick, _)| Reverse(*tick));
        used.truncate(n_most);
        used
    }

    /// All slots, first those that were not used for longest, by their weights, at the tick `now`.
    pub(crate) fn least_wanted(&self, now: u64) -> impl Iterator<Item = u32> {
        let mut ranks = self.ranks.each_ref().map(|rank| rank.iter().peekable());
        std::iter::from_fn(move || {
            let mut oldest = None;
            for (at, rank) in ranks.iter_mut().enumerate() {
                if let Some((tick, _)) = rank.peek() {
                    // Weights have few factors: a multiple of all keeps the order exact.
                    let age = (now - **tick).saturating_mul(24) / WEIGHTS[at];
                    oldest = oldest.max(Some((age, at)));
                }
            }
            ranks[oldest?.1].next().map(|(_, slot)| *slot)
        })
    }
}
