//! Which of several agents that bring the same at the same time asks the origin for which piece, so that each piece leaves it once.
//!
//! Rendezvous hashing: everybody who knows the same agents comes to the same answer, and nobody says anything for it. An answer is a
//! matter of order and patience, never of right: who waits in vain asks the origin itself. Pure.

use std::cmp::Reverse;

use buildbee_proto::digest::Digest;
use buildbee_proto::peer::PeerId;

/// What is to be brought, as a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece(u64);

impl Piece {
    /// A blob.
    pub(super) fn blob(blob: &Digest) -> Self {
        Self(word(&blob.hash))
    }

    /// One of its chunks.
    pub(super) fn chunk(self, index: u32) -> Self {
        Self(mixed(self.0 ^ mixed(u64::from(index))))
    }

    /// How strongly `peer` is drawn to it.
    pub(super) fn pull(self, peer: &PeerId) -> u64 {
        mixed(self.0 ^ mixed(word(&peer.0)))
    }

    /// Whether `me` is drawn to it more strongly than all of `others`.
    pub(super) fn is_mine<'a>(self, me: &PeerId, others: impl IntoIterator<Item = &'a PeerId>) -> bool {
        let mine = (self.pull(me), me);
        others.into_iter().all(|other| (self.pull(other), other) <= mine)
    }
}

/// The order in which `me` brings `blobs`: first those that are its own among `others`, who may be about to bring the same; everybody's order
/// is another one.
pub(super) fn ordered(mut blobs: Vec<Digest>, me: &PeerId, others: &[PeerId]) -> Vec<Digest> {
    blobs.sort_by_cached_key(|blob| {
        let piece = Piece::blob(blob);
        (!piece.is_mine(me, others), Reverse(piece.pull(me)))
    });
    blobs
}

fn word(bytes: &[u8; 32]) -> u64 {
    bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// The finish of splitmix64: each bit of the argument changes half of the result's.
fn mixed(word: u64) -> u64 {
    let mut word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_one_agents_and_all_have_about_as_many() {
        let peers: Vec<PeerId> = (0..4).map(|n| PeerId([n; 32])).collect();
        let blob = Piece::blob(&Digest::of(b"blob"));
        let mut counts = [0; 4];
        for index in 0..1000 {
            let whose: Vec<usize> = (0..4)
                .filter(|&n| blob.chunk(index).is_mine(&peers[n], peers.iter().filter(|p| **p != peers[n])))
                .collect();
            assert_eq!(whose.len(), 1);
            counts[whose[0]] += 1;
        }
        assert!(counts.iter().all(|n| (180..320).contains(n)), "{counts:?}");
    }

    #[test]
    fn two_that_begin_together_meet_in_the_middle() {
        let (one, other) = (PeerId([1; 32]), PeerId([2; 32]));
        let blobs: Vec<Digest> = (0..100u32).map(|n| Digest::of(&n.to_le_bytes())).collect();
        let (ours, theirs) = (ordered(blobs.clone(), &one, &[other]), ordered(blobs.clone(), &other, &[one]));
        assert!(ours[..40].iter().all(|blob| !theirs[..40].contains(blob)));
        let sorted = |mut blobs: Vec<Digest>| {
            blobs.sort_unstable();
            blobs
        };
        assert_eq!(sorted(ours), sorted(blobs));
    }
}
