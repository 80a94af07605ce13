//! What a peer may hold, in two bytes an entry: a Bloom filter of the results and hints in its store, so that a sure miss costs no question.
//!
//! A filter never denies what was added to it, and says "perhaps" of about one in four thousand others. Not here: who asks for filters and how old
//! they may be (`dispatch::filters` of the client), how they are kept up (`exchange::filter` of the agent).

use crate::digest::Digest;
use crate::limits::MAX_FILTER_BYTES;

/// Bits for each entry that a filter is made for.
const BITS_PER_ENTRY: usize = 16;
/// Bits set for each entry. With 16 bits an entry, wrong answers are 1 in 4000.
const N_PROBES: u64 = 7;
/// What even an empty filter is made for.
const MIN_ENTRIES: usize = 1024;

/// The filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    bits: Vec<u8>,
}

/// What stands for the result of `action`.
pub fn of_result(action: &Digest) -> u64 {
    part(action, 0)
}

/// What stands for the hints for `key`.
pub fn of_hints(key: &Digest) -> u64 {
    part(key, 8)
}

fn part(digest: &Digest, at: usize) -> u64 {
    digest.hash[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Filter {
    /// An empty filter for `n_entries`. It takes more, and answers "perhaps" more often then.
    pub fn new(n_entries: usize) -> Self {
        let n_bits = n_entries.max(MIN_ENTRIES).saturating_mul(BITS_PER_ENTRY);
        Self { bits: vec![0; n_bits.div_ceil(8).min(MAX_FILTER_BYTES)] }
    }

    /// One that was received; `None` if its size makes no sense.
    pub fn from_bytes(bits: Vec<u8>) -> Option<Self> {
        (1..=MAX_FILTER_BYTES).contains(&bits.len()).then_some(Self { bits })
    }

    /// As it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Adds what `fingerprint` stands for.
    pub fn add(&mut self, fingerprint: u64) {
        for (byte, bit) in places(fingerprint, self.bits.len()) {
            self.bits[byte] |= bit;
        }
    }

    /// Whether that may have been added.
    pub fn may_have(&self, fingerprint: u64) -> bool {
        places(fingerprint, self.bits.len()).all(|(byte, bit)| self.bits[byte] & bit != 0)
    }
}

/// Bytes below `n_bytes`, which is not 0, and the bit in each.
fn places(fingerprint: u64, n_bytes: usize) -> impl Iterator<Item = (usize, u8)> {
    let n_bits = n_bytes as u64 * 8;
    // Two hashes make all others; an odd step never stays where it is.
    let (first, step) = (fingerprint & 0xffff_ffff, fingerprint >> 32 | 1);
    (0..N_PROBES).map(move |n| {
        // Below `n_bits`, which came from a usize.
        let bit = first.wrapping_add(n.wrapping_mul(step)) % n_bits;
        (usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(n: u32) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    proptest! {
        #[test]
        fn what_was_added_is_never_denied(added in proptest::collection::vec(any::<u64>(), 0..300), n_bytes in 1usize..600) {
            let mut filter = Filter::from_bytes(vec![0; n_bytes]).unwrap();
            for fingerprint in &added {
                filter.add(*fingerprint);
            }
            let sent = Filter::from_bytes(filter.as_bytes().to_vec()).unwrap();
            prop_assert!(added.iter().all(|fingerprint| sent.may_have(*fingerprint)));
        }
    }

    #[test]
    fn others_are_seldom_taken_for_it() {
        let mut filter = Filter::new(10_000);
        (0..10_000).for_each(|n| filter.add(of_result(&digest(n))));
        let n_wrong = (10_000..50_000).filter(|n| filter.may_have(of_result(&digest(*n)))).count();
        assert!(n_wrong < 80, "{n_wrong} of 40000");
        let n_hints = (0..10_000).filter(|n| filter.may_have(of_hints(&digest(*n)))).count();
        assert!(n_hints < 20, "a result is no hint: {n_hints}");
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(Filter::from_bytes(Vec::new()), None);
        assert_eq!(Filter::from_bytes(vec![0; MAX_FILTER_BYTES + 1]), None);
        assert_eq!(Filter::new(usize::MAX).as_bytes().len(), MAX_FILTER_BYTES);
        assert_eq!(Filter::new(0).as_bytes().len(), MIN_ENTRIES * BITS_PER_ENTRY / 8);
    }
}
