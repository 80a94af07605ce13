//! What goes first, what stays, and what the journal is told.

use buildbee_proto::digest::Digest;

use crate::entry::{Key, Kind, Twin, Use, Worth};
use crate::index::{Full, Index};
use crate::order::LARGE_BYTES;
use crate::slots::Slot;

fn key(name: u8) -> Key {
    Key::blob(Digest::of(&[name]))
}

fn filled(n: u8) -> Index {
    let mut index = Index::new(1000, 100);
    for name in 0..n {
        index.insert(key(name), 100, true);
    }
    index
}

#[test]
fn least_recently_used_goes_first_and_in_batches() {
    let mut index = filled(10);
    index.touch(&key(0));
    assert_eq!(index.reserve(100), Ok(vec![key(1), key(2)]));
    assert_eq!(index.used_bytes(), 800);
    assert_eq!(index.reserve(100), Ok(vec![]), "the batch made room for the next one too");
}

#[test]
fn pinned_stays_and_too_much_is_refused_without_loss() {
    let mut index = filled(10);
    index.pin(&[key(0).digest, key(1).digest, key(0).digest]);
    index.unpin(&[key(0).digest]);
    assert_eq!(index.reserve(900), Err(Full { needed_bytes: 900, cap_bytes: 1000 }));
    assert_eq!(index.used_bytes(), 1000, "a refusal evicts nothing");
    assert_eq!(index.reserve(800).map(|victims| victims.len()), Ok(8));
    assert!(index.contains(&key(0)) && index.contains(&key(1)));
}

#[test]
fn reservations_count() {
    let mut index = filled(0);
    assert_eq!(index.reserve(600), Ok(vec![]));
    assert!(index.reserve(600).is_err());
    index.release(600);
    assert_eq!(index.reserve(1000), Ok(vec![]));
    assert!(index.reserve(u64::MAX).is_err());
}

#[test]
fn twins_count_and_survive_replacement() {
    let mut index = filled(1);
    index.set_twin(&key(0), Twin::Present { verified: true });
    assert_eq!(index.used_bytes(), 200);
    index.insert(key(0), 100, true);
    assert_eq!(index.used_bytes(), 200);
    index.remove(&key(0));
    assert_eq!(index.used_bytes(), 0);
}

#[test]
fn the_number_of_entries_is_bounded() {
    let mut index = Index::new(u64::MAX, 100);
    for name in 0..200 {
        assert!(index.reserve(1).is_ok());
        index.release(1);
        index.insert(key(name), 1, true);
    }
    assert!(index.count(Kind::Blob) <= 100);
    assert!(index.contains(&key(199)));
}

#[test]
fn the_journal_gets_each_change_once() {
    let mut index = filled(2);
    assert_eq!(index.take_recent().len(), 2);
    assert_eq!(index.n_unflushed(), 0);
    index.touch(&key(0));
    index.remove(&key(1));
    let recent = index.take_recent();
    assert_eq!(recent, [Use { key: key(0), tick: 3, worth: Worth::Input }]);
}

#[test]
fn what_is_worth_more_may_be_older() {
    let mut index = Index::new(10_000_000, 1000);
    let large = |name: u8| Key::blob(Digest { size_bytes: LARGE_BYTES, ..Digest::of(&[name]) });
    // Ages 80 to 1 at the end, the first being the oldest.
    for name in 0..80 {
        index.insert(key(name), 100, true);
    }
    for (name, worth) in [(0, Worth::Toolchain), (1, Worth::Output), (2, Worth::Input)] {
        index.raise(&key(name), worth);
    }
    index.insert(large(100), LARGE_BYTES, true);
    for name in 200..=239 {
        index.insert(key(name), 100, true);
    }
    let order: Vec<Key> = index.least_wanted().map(Slot::key).collect();
    let at = |key: Key| order.iter().position(|other| *other == key).unwrap();
    assert_eq!(order[0], key(2), "the oldest of what is worth least");
    assert!(at(large(100)) < at(key(79)), "large and a little younger");
    assert!(at(key(1)) > at(key(70)), "a third of its age counts");
    assert!(at(key(0)) > at(key(1)));
    assert!(at(key(239)) > at(key(0)), "old enough, everything goes");
    assert_eq!(order.len(), 121);
}

#[test]
fn records_are_walked_over_all_pages() {
    let mut index = Index::new(u64::MAX, 1000);
    let result = |name: u8| Key { kind: Kind::Result, digest: Digest::of(&[name]) };
    for name in 0..50 {
        index.insert(key(name), 100, true);
        index.insert(result(name), if name % 3 == 0 { LARGE_BYTES } else { 100 }, true);
    }
    let (mut tick, mut seen) = (u64::MAX, Vec::new());
    while tick > 0 {
        let (digests, next) = index.used_before(tick, Kind::Result, 7);
        seen.extend(digests);
        tick = next;
    }
    let wanted: Vec<Digest> = (0..50).rev().map(|name| result(name).digest).collect();
    assert_eq!(seen, wanted);
}

#[test]
fn what_was_remembered_comes_back_in_order() {
    let mut index = Index::new(u64::MAX, 1000);
    for name in 0..5 {
        index.found(key(name), 100, None);
    }
    let mut at = 0;
    for (name, tick) in [(0, 7), (1, 3), (2, 3), (3, 9), (9, 4), (0, 8)] {
        at = index.remember(&Use { key: key(name), tick, worth: Worth::Output }, at);
    }
    index.arrange();
    let unknown: Vec<Key> = index.not_remembered().into_iter().map(|(key, _)| key).collect();
    assert_eq!(unknown.len(), 2, "4 was not, and of 1 and 2 one is not believed");
    for key in &unknown {
        index.append(key);
    }
    let uses = index.used_from(0, 100);
    assert_eq!(uses.iter().map(|used| used.tick).collect::<Vec<_>>(), [3, 8, 9, 10, 11]);
    assert_eq!((uses[1].key, uses[1].worth, uses[2].key), (key(0), Worth::Output, key(3)));
    assert_eq!((index.n_unflushed(), index.len(), index.used_bytes()), (2, 5, 500));
}
