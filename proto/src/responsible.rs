//! Who keeps what: rendezvous hashing of a key over the enrolled agents, so that every member names the same peers without asking.
//!
//! A pure function of key and roster: who happens to be awake does not reshuffle anything. Where somebody is away, the next in the same order
//! stands in ([`first`]). Not here: announcing, asking, repairing.

use crate::digest::Digest;
use crate::membership::Roster;
use crate::peer::PeerId;

/// How many peers keep each action result, its producer aside.
pub const RESULT_COPIES: usize = 2;

/// Separates these hashes from every other use of the hash function.
const CONTEXT: &[u8] = b"buildbee responsible 1";

/// `peers` in the order in which they are responsible for `key`: the first [`RESULT_COPIES`] keep it. A peer that leaves moves only
/// what it kept.
pub fn ranked(key: &Digest, peers: impl IntoIterator<Item = PeerId>) -> Vec<PeerId> {
    let mut scored: Vec<([u8; 32], PeerId)> = peers.into_iter().map(|peer| (score(key, peer), peer)).collect();
    scored.sort_unstable_by(|left, right| right.cmp(left));
    scored.dedup();
    scored.into_iter().map(|(_, peer)| peer).collect()
}

/// All agents of `roster` in the order in which they are responsible for `key`.
pub fn in_order(key: &Digest, roster: &Roster) -> Vec<PeerId> {
    among(key, roster, |_| true)
}

/// Those agents of `roster` that count, in that order. Only they are hashed: of ten thousand a peer knows some hundreds.
fn among(key: &Digest, roster: &Roster, counts: impl Fn(&PeerId) -> bool) -> Vec<PeerId> {
    let counting = roster.members.iter().map(|(peer, _)| *peer).filter(counts);
    ranked(key, counting.filter(|peer| roster.has_agent(peer)))
}

/// The agents of `roster` that keep results for `key`, at most [`RESULT_COPIES`], the first the most responsible.
pub fn keepers(key: &Digest, roster: &Roster) -> Vec<PeerId> {
    first(key, roster, |_| true)
}

/// The first [`RESULT_COPIES`] agents for `key` among those that count: who does not is stood in for by the next.
pub fn first(key: &Digest, roster: &Roster, counts: impl Fn(&PeerId) -> bool) -> Vec<PeerId> {
    among(key, roster, counts).into_iter().take(RESULT_COPIES).collect()
}

fn score(key: &Digest, peer: PeerId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(CONTEXT).update(&key.hash).update(&peer.0);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Role;

    fn peers(n: u8) -> Vec<PeerId> {
        (0..n).map(|byte| PeerId([byte; 32])).collect()
    }

    #[test]
    fn order_does_not_depend_on_the_order_given() {
        let key = Digest::of(b"key");
        let mut reversed = peers(9);
        reversed.reverse();
        assert_eq!(ranked(&key, peers(9)), ranked(&key, reversed));
    }

    #[test]
    fn one_leaver_moves_only_what_it_kept() {
        for byte in 0..50u8 {
            let key = Digest::of(&[byte]);
            let before = ranked(&key, peers(9));
            let after = ranked(&key, peers(9).into_iter().filter(|peer| peer.0[0] != 4));
            let without: Vec<_> = before.into_iter().filter(|peer| peer.0[0] != 4).collect();
            assert_eq!(after, without);
        }
    }

    #[test]
    fn keys_spread_over_peers() {
        let mut first = [0u32; 4];
        for n in 0..400u32 {
            first[usize::from(ranked(&Digest::of(&n.to_le_bytes()), peers(4))[0].0[0])] += 1;
        }
        assert!(first.iter().all(|&n| (60..140).contains(&n)), "{first:?}");
    }

    #[test]
    fn the_next_in_order_stands_in() {
        let members = peers(6).into_iter().map(|peer| (peer, Role::Agent)).collect();
        let roster = Roster { farm: PeerId([99; 32]), version: 1, members, revoked: Vec::new() };
        for byte in 0..50u8 {
            let key = Digest::of(&[byte]);
            let order = in_order(&key, &roster);
            assert_eq!(keepers(&key, &roster), order[..2]);
            assert_eq!(first(&key, &roster, |peer| *peer != order[0]), order[1..3]);
            assert_eq!(first(&key, &roster, |peer| *peer == order[5]), order[5..]);
        }
    }

    #[test]
    fn only_agents_in_good_standing_keep_results() {
        let peer = |byte| PeerId([byte; 32]);
        let roster = Roster {
            farm: peer(99),
            version: 1,
            members: vec![
                (peer(1), Role::Agent),
                (peer(2), Role::Client),
                (peer(3), Role::Agent),
                (peer(4), Role::Agent),
            ],
            revoked: vec![peer(3)],
        };
        let mut keepers = keepers(&Digest::of(b"key"), &roster);
        keepers.sort_unstable();
        assert_eq!(keepers, [peer(1), peer(4)]);
    }
}
