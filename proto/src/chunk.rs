//! Large blobs in chunks of 1 MiB, each of which can be checked against the blob's digest without the others.
//!
//! BLAKE3 is a tree: a chunk is one of its subtrees, the chunk's *value* is that subtree's chaining value, and a list of values belongs to a
//! blob if it merges to the blob's hash. So a list may come from anybody, and chunks from several peers, none of whom is believed. Digests are
//! the ordinary ones, and a list is remembered for a digest once and for all. Not here: moving chunks, keeping them.

use std::fmt;

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::digest::{Digest, DigestFunction};
use crate::limits::{CHUNK_BYTES, MAX_BLOB_BYTES, MIN_CHUNKED_BYTES};

/// What a chunk hashes to at its place.
pub type ChunkValue = ChainingValue;

/// Whether `blob` travels in chunks: smaller ones travel whole.
pub fn is_chunked(blob: &Digest) -> bool {
    blob.function == DigestFunction::Blake3 && (MIN_CHUNKED_BYTES..=MAX_BLOB_BYTES).contains(&blob.size_bytes)
}

/// How many chunks `blob` has: some thousands at most, and none if it travels whole.
pub fn n_chunks(blob: &Digest) -> u32 {
    if is_chunked(blob) { u32::try_from(blob.size_bytes.div_ceil(CHUNK_BYTES)).unwrap_or(0) } else { 0 }
}

/// Where the chunk at `index` begins, in bytes.
pub fn offset(index: u32) -> u64 {
    u64::from(index) * CHUNK_BYTES
}

/// Its length in bytes; 0 where `blob` has no such chunk.
pub fn length(blob: &Digest, index: u32) -> usize {
    if index >= n_chunks(blob) {
        return 0;
    }
    usize::try_from(blob.size_bytes.saturating_sub(offset(index)).min(CHUNK_BYTES)).unwrap_or(0)
}

/// The value of the chunk at `index`; `None` where `content` is empty or longer than a chunk.
pub fn value(index: u32, content: &[u8]) -> Option<ChunkValue> {
    if content.is_empty() || content.len() as u64 > CHUNK_BYTES {
        return None;
    }
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset(index));
    hasher.update(content);
    Some(hasher.finalize_non_root())
}

/// A blob's chunks, by values that were found to be the blob's.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunks {
    blob: Digest,
    values: Vec<ChunkValue>,
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunks({} of {})", self.values.len(), self.blob)
    }
}

impl Chunks {
    /// `values` if they are those of `blob`, which [`is_chunked`].
    pub fn new(blob: Digest, values: Vec<ChunkValue>) -> Option<Self> {
        let fits = is_chunked(&blob) && values.len() == n_chunks(&blob) as usize;
        (fits && root(&values)? == blob.hash).then_some(Self { blob, values })
    }

    /// Those of `blob`, whose content `read` puts into the buffer, from an offset in bytes on. Each chunk is read once, in order. `None` where
    /// it is no large blob, or the content is another one.
    pub fn read<E>(blob: Digest, mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>) -> Result<Option<Self>, E> {
        if !is_chunked(&blob) {
            return Ok(None);
        }
        let mut values = Vec::new();
        let mut content = Vec::new();
        for index in 0..n_chunks(&blob) {
            content.resize(length(&blob, index), 0);
            read(offset(index), &mut content)?;
            values.extend(value(index, &content));
        }
        Ok(Self::new(blob, values))
    }

    /// Whose they are.
    pub fn blob(&self) -> &Digest {
        &self.blob
    }

    /// One for each chunk.
    pub fn values(&self) -> &[ChunkValue] {
        &self.values
    }

    /// How many there are.
    pub fn n(&self) -> u32 {
        n_chunks(&self.blob)
    }

    /// The length of the chunk at `index` in bytes; 0 where there is none.
    pub fn length(&self, index: u32) -> usize {
        length(&self.blob, index)
    }

    /// Whether `content` is that of the chunk at `index`.
    pub fn holds(&self, index: u32, content: &[u8]) -> bool {
        let expected = self.values.get(index as usize);
        content.len() == self.length(index) && expected.is_some() && value(index, content).as_ref() == expected
    }
}

/// What two values or more merge to.
fn root(values: &[ChunkValue]) -> Option<[u8; 32]> {
    let (left, right) = halves(values)?;
    Some(*merge_subtrees_root(&merged(left)?, &merged(right)?, Mode::Hash).as_bytes())
}

/// Depth is the logarithm of their number.
fn merged(values: &[ChunkValue]) -> Option<ChunkValue> {
    if let [value] = values {
        return Some(*value);
    }
    let (left, right) = halves(values)?;
    Some(merge_subtrees_non_root(&merged(left)?, &merged(right)?, Mode::Hash))
}

/// To the left stands the largest power of two that leaves something to the right.
fn halves(values: &[ChunkValue]) -> Option<(&[ChunkValue], &[ChunkValue])> {
    let last = values.len().checked_sub(1).filter(|last| *last > 0)?;
    values.split_at_checked(1 << last.ilog2())
}

/// Some of a blob's chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSet {
    n: u32,
    n_present: u32,
    bits: Vec<u8>,
}

impl ChunkSet {
    /// None of `n`.
    pub fn none(n: u32) -> Self {
        Self { n, n_present: 0, bits: vec![0; n.div_ceil(8) as usize] }
    }

    /// All of `n`.
    pub fn all(n: u32) -> Self {
        let mut set = Self::none(n);
        for index in 0..n {
            set.insert(index);
        }
        set
    }

    /// From [`bits`](Self::bits); `None` where they are not `n`.
    pub fn from_bits(n: u32, bits: Vec<u8>) -> Option<Self> {
        let set = Self { n, n_present: bits.iter().map(|byte| byte.count_ones()).sum(), bits };
        let spare = (n..n.next_multiple_of(8)).any(|index| set.bit(index));
        (set.bits.len() == n.div_ceil(8) as usize && !spare).then_some(set)
    }

    /// One bit a chunk, the lowest of each byte first.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    fn bit(&self, index: u32) -> bool {
        self.bits.get((index / 8) as usize).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// Whether the chunk at `index` is one of them.
    pub fn contains(&self, index: u32) -> bool {
        index < self.n && self.bit(index)
    }

    /// Adds it. True if it was none of them, and there is such a chunk.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.n || self.bit(index) {
            return false;
        }
        let Some(byte) = self.bits.get_mut((index / 8) as usize) else { return false };
        *byte |= 1 << (index % 8);
        self.n_present += 1;
        true
    }

    /// Takes it out.
    pub fn remove(&mut self, index: u32) {
        if self.contains(index)
            && let Some(byte) = self.bits.get_mut((index / 8) as usize)
        {
            *byte &= !(1 << (index % 8));
            self.n_present -= 1;
        }
    }

    /// Of how many.
    pub fn n(&self) -> u32 {
        self.n
    }

    /// How many these are.
    pub fn n_present(&self) -> u32 {
        self.n_present
    }

    /// Whether all are.
    pub fn is_all(&self) -> bool {
        self.n_present == self.n
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNK: usize = 1 << 20;

    fn content(n_bytes: usize) -> Vec<u8> {
        let mut content = vec![0; n_bytes];
        Hasher::new().update(&n_bytes.to_le_bytes()).finalize_xof().fill(&mut content);
        content
    }

    fn values(content: &[u8]) -> Vec<ChunkValue> {
        let chunks = (0..).zip(content.chunks(CHUNK));
        chunks.map(|(index, chunk)| value(index, chunk).unwrap()).collect()
    }

    #[test]
    fn values_merge_to_the_ordinary_digest() {
        for n_bytes in [4 * CHUNK, 4 * CHUNK + 1, 5 * CHUNK - 1, 5 * CHUNK, 6 * CHUNK + 1024, 7 * CHUNK, 9 * CHUNK + 1]
        {
            let content = content(n_bytes);
            let blob = Digest::of(&content);
            let chunks = Chunks::new(blob, values(&content)).unwrap();
            assert_eq!(chunks.n() as usize, n_bytes.div_ceil(CHUNK));
            for (index, chunk) in (0..).zip(content.chunks(CHUNK)) {
                assert!(chunks.holds(index, chunk));
                assert!(!chunks.holds(index + 1, chunk), "at another place");
                assert!(!chunks.holds(index, &chunk[1..]) && !chunks.holds(index, &[]));
                let mut flipped = chunk.to_vec();
                flipped[chunk.len() / 2] ^= 1;
                assert!(!chunks.holds(index, &flipped));
            }
        }
    }

    #[test]
    fn other_lists_are_none_of_the_blob() {
        let content = content(5 * CHUNK + 7);
        let blob = Digest::of(&content);
        let good = values(&content);
        let mut swapped = good.clone();
        swapped.swap(0, 1);
        let mut flipped = good.clone();
        flipped[5][31] ^= 1;
        for bad in [swapped, flipped, good[1..].to_vec(), [good.clone(), good.clone()].concat(), Vec::new()] {
            assert_eq!(Chunks::new(blob, bad), None);
        }
        for size_bytes in [0, 1, CHUNK_BYTES, blob.size_bytes + CHUNK_BYTES, MAX_BLOB_BYTES + 1, u64::MAX] {
            assert_eq!(Chunks::new(Digest { size_bytes, ..blob }, good.clone()), None);
        }
        let foreign = Digest { function: DigestFunction::Sha256, ..blob };
        assert_eq!(Chunks::new(foreign, good), None);
    }

    #[test]
    fn sets_refuse_what_is_no_set_of_that_many() {
        assert_eq!(ChunkSet::from_bits(9, vec![0xff, 1]), Some(ChunkSet::all(9)));
        for (n, bits) in [(9, vec![0xff]), (9, vec![0, 0, 0]), (9, vec![0, 2]), (0, vec![0])] {
            assert_eq!(ChunkSet::from_bits(n, bits), None);
        }
    }

    proptest! {
        #[test]
        fn a_set_holds_what_was_put_in(n in 0u32..70, put in proptest::collection::vec((0u32..80, any::<bool>()), 0..99)) {
            let mut set = ChunkSet::none(n);
            let mut model = std::collections::BTreeSet::new();
            for (index, insert) in put {
                if insert {
                    prop_assert_eq!(set.insert(index), index < n && model.insert(index));
                } else {
                    set.remove(index);
                    model.remove(&index);
                }
            }
            prop_assert_eq!((0..99).filter(|&index| set.contains(index)).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.n_present() as usize, model.len());
            prop_assert_eq!(set.is_all(), model.len() == n as usize);
            prop_assert_eq!(ChunkSet::from_bits(n, set.bits().to_vec()), Some(set));
        }
    }
}
