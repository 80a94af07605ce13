//! What the store holds, in memory: presence, order of use, size, pins. Pure: it never touches the disk and knows no time.
//!
//! Order of use is a counter, so a clock that jumps can't reorder it. What goes first is what was not used for longest, weighed by what it
//! is worth ([`Worth`]) and by size. Room is reserved before bytes are written, so that writers running side by side stay within the size
//! together. Who calls: every module of the store, under one short lock.

use std::collections::{BTreeMap, HashMap};

use buildbee_proto::digest::Digest;

use crate::packs::Place;
use crate::slots::{Room, Slot, Slots};

/// Entries kept at most, whatever the size in bytes allows: it bounds the memory of this index (about 110 bytes an entry).
pub(crate) const MAX_ENTRIES: usize = 3_000_000;
/// Eviction goes down to this share of the size, so that it runs once for many puts.
const EVICT_TO_PERCENT: u64 = 90;
/// Entries from this size on are large: one that goes makes room for many.
const LARGE_BYTES: u64 = 1 << 20;
/// Kinds of worth, large and small.
const N_RANKS: usize = 6;
/// Those of what a compile made, records among them.
const RECORD_RANKS: std::ops::Range<usize> = 2..4;
/// What the time since an entry's last use is divided by when it is asked which goes first. Inputs can be had again from whoever wants them
/// used; what a compile made has to be made again; a toolchain keeps everybody waiting. Of each, large ones go twice as soon.
const WEIGHTS: [u64; N_RANKS] = [2, 1, 6, 3, 8, 4];

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Blob,
    Result,
    Manifest,
    Hints,
}

impl Kind {
    /// As it is written down.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Blob => 0,
            Self::Result => 1,
            Self::Manifest => 2,
            Self::Hints => 3,
        }
    }

    /// What was written down so.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Blob),
            1 => Some(Self::Result),
            2 => Some(Self::Manifest),
            3 => Some(Self::Hints),
            _ => None,
        }
    }
}

/// What it costs when an entry is not here any more, as far as its use has shown. It only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worth {
    /// Its client has it: what nobody has said anything of.
    Input,
    /// It was made by a compile.
    Output,
    /// It is part of a compiler.
    Toolchain,
}

impl Worth {
    pub(crate) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Blob => Self::Input,
            Kind::Result | Kind::Manifest | Kind::Hints => Self::Output,
        }
    }

    /// As it is written down.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Input => 0,
            Self::Output => 1,
            Self::Toolchain => 2,
        }
    }

    /// What was written down so.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Input),
            1 => Some(Self::Output),
            2 => Some(Self::Toolchain),
            _ => None,
        }
    }
}

/// Names an entry: a blob by its digest, a record by the digest of what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) digest: Digest,
}

impl Key {
    pub(crate) fn blob(digest: Digest) -> Self {
        Self { kind: Kind::Blob, digest }
    }
}

/// Whether a blob has an executable inode beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twin {
    Absent,
    Present { verified: bool },
}

/// Whether somebody was told that an entry survives a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    None,
    /// By an earlier process, perhaps.
    Perhaps,
    Given,
}

/// What is known of one entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) verified: bool,
    pub(crate) twin: Twin,
    /// Where it is, if it shares a file with others.
    pub(crate) place: Option<Place>,
    pub(crate) promise: Promise,
}

/// It does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) needed_bytes: u64,
    pub(crate) cap_bytes: u64,
}

/// A place in the order of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) key: Key,
    /// Zero: none any more.
    pub(crate) tick: u64,
    pub(crate) worth: Worth,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    slots: Slots,
    /// From tick to slot, for each rank: least recently used first.
    order: [BTreeMap<u64, u32>; N_RANKS],
    /// How many live pins name each digest. Bounded by its holders: it never has more digests than the lists in live `Pin`s.
    pins: HashMap<Digest, usize>,
    /// Entries by kind.
    counts: [usize; 4],
    cap_bytes: u64,
    max_entries: usize,
    used_bytes: u64,
    /// Room promised to writers that are not done.
    reserved_bytes: u64,
    next_tick: u64,
    /// Ticks below this are in the journal.
    journal_tick: u64,
    /// Places of entries that are gone or elsewhere now. Bounded: the caller takes them after each change.
    dead: Vec<Place>,
    /// Places of entries that are elsewhere now, and were perhaps promised to last. Bounded: the caller takes them after each change.
    superseded: Vec<(Key, Place)>,
}

fn rank(slot: &Slot) -> usize {
    2 * usize::from(slot.worth.to_byte()) + usize::from(slot.charge_bytes() >= LARGE_BYTES)
}

impl Index {
    pub(crate) fn new(cap_bytes: u64, max_entries: usize) -> Self {
        Self {
            slots: Slots::default(),
            order: std::array::from_fn(|_| BTreeMap::new()),
            pins: HashMap::new(),
            counts: [0; 4],
            cap_bytes,
            max_entries,
            used_bytes: 0,
            reserved_bytes: 0,
            next_tick: 1,
            journal_tick: 1,
            dead: Vec::new(),
            superseded: Vec::new(),
        }
    }

    fn slot(&self, key: &Key) -> Option<&Slot> {
        self.slots.get(self.slots.find(key)?)
    }

    fn slot_mut(&mut self, key: &Key) -> Option<&mut Slot> {
        self.slots.get_mut(self.slots.find(key)?)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        let slot = self.slot(key)?;
        Some(Entry { verified: slot.verified, twin: slot.twin, place: slot.place(), promise: slot.promise })
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.slots.find(key).is_some()
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// At most `n_most` entries from the slot `at` on, in no order, and where to go on, if there are more. An entry that comes or goes
    /// meanwhile may be left out.
    pub(crate) fn keys_from(&self, at: u32, n_most: usize) -> (Vec<Key>, Option<u32>) {
        let found: Vec<(u32, Key)> = self.slots.from(at).take(n_most).map(|(at, slot)| (at, slot.key())).collect();
        let next = found.last().filter(|_| found.len() == n_most).map(|(at, _)| at + 1);
        (found.into_iter().map(|(_, key)| key).collect(), next)
    }

    /// Digests of that kind, in no order.
    pub(crate) fn digests(&self, kind: Kind) -> Vec<Digest> {
        self.slots.iter().map(|(_, slot)| slot.key()).filter(|key| key.kind == kind).map(|key| key.digest).collect()
    }

    /// At most `n_most` of that kind that were used before `tick`, the latest first, and the tick to go on from.
    pub(crate) fn used_before(&self, tick: u64, kind: Kind, n_most: usize) -> (Vec<Digest>, u64) {
        let of_kind = |(tick, at): (&u64, &u32)| {
            let key = self.slots.get(*at)?.key();
            (key.kind == kind).then_some((*tick, key.digest))
        };
        // Records are nowhere else, and there may be millions of inputs.
        let ranks = if kind == Kind::Blob { 0..N_RANKS } else { RECORD_RANKS };
        let orders = self.order.get(ranks).unwrap_or_default();
        let each = orders.iter().flat_map(|order| order.range(..tick).rev().filter_map(of_kind).take(n_most));
        let mut used: Vec<(u64, Digest)> = each.collect();
        used.sort_unstable_by_key(|(tick, _)| std::cmp::Reverse(*tick));
        used.truncate(n_most);
        let next = if used.len() < n_most { 0 } else { used.last().map_or(0, |(tick, _)| *tick) };
        (used.into_iter().map(|(_, digest)| digest).collect(), next)
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.counts[kind as usize]
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(crate) fn cap_bytes(&self) -> u64 {
        self.cap_bytes
    }

    /// Makes `key` the most recently used. False if it is not there.
    pub(crate) fn touch(&mut self, key: &Key) -> bool {
        self.touch_as(key, Worth::Input)
    }

    /// The same for one that has shown to be worth as much.
    pub(crate) fn touch_as(&mut self, key: &Key, worth: Worth) -> bool {
        let Some(at) = self.slots.find(key) else { return false };
        let tick = self.next_tick;
        self.next_tick += 1;
        self.reorder(at, tick, worth);
        true
    }

    /// Notes that an entry is worth as much, which is no use.
    pub(crate) fn raise(&mut self, key: &Key, worth: Worth) {
        if let Some(at) = self.slots.find(key)
            && let Some(slot) = self.slots.get(at).filter(|slot| slot.worth < worth)
        {
            self.reorder(at, slot.tick, worth);
        }
    }

    fn reorder(&mut self, at: u32, tick: u64, worth: Worth) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        self.order[rank(slot)].remove(&slot.tick);
        slot.tick = tick;
        slot.worth = slot.worth.max(worth);
        self.order[rank(slot)].insert(tick, at);
    }

    /// Adds or replaces an entry as the most recently used. Its room is `charge_bytes`; give a reservation back first.
    pub(crate) fn insert(&mut self, key: Key, charge_bytes: u64, verified: bool) {
        self.enter(key, Room::File { charge_bytes }, verified);
    }

    /// The same for one in a pack. True if it was in a file of its own before.
    pub(crate) fn insert_packed(&mut self, key: Key, place: Place) -> bool {
        let had_file = self.get(&key).is_some_and(|old| old.place.is_none());
        self.enter(key, Room::Pack(place), false);
        had_file
    }

    /// Notes that what was at `from` is at `to` now.
    pub(crate) fn moved(&mut self, key: &Key, from: Place, to: Place) {
        if let Some(slot) = self.slot_mut(key).filter(|slot| slot.room == Room::Pack(from)) {
            slot.room = Room::Pack(to);
        }
    }

    /// Takes the places that nothing is at any more.
    pub(crate) fn take_dead(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.dead)
    }

    /// Takes the places that are not to be given up before what stands elsewhere now will last.
    pub(crate) fn take_superseded(&mut self) -> Vec<(Key, Place)> {
        std::mem::take(&mut self.superseded)
    }

    fn enter(&mut self, key: Key, room: Room, verified: bool) {
        let mut slot = Slot::new(&key, room);
        slot.verified = verified;
        if let Some(old) = self.take(&key) {
            slot.twin = old.twin;
            slot.worth = old.worth;
            if old.promise != Promise::None
                && let Some(place) = old.place()
            {
                self.dead.retain(|dead| *dead != place);
                self.superseded.push((key, place));
            }
        }
        slot.tick = self.next_tick;
        self.next_tick += 1;
        self.place(slot);
    }

    fn place(&mut self, slot: Slot) -> u32 {
        self.used_bytes = self.used_bytes.saturating_add(slot.total_bytes());
        self.counts[slot.key().kind as usize] += 1;
        let at = self.slots.insert(slot);
        if slot.tick > 0 {
            self.order[rank(&slot)].insert(slot.tick, at);
        }
        at
    }

    /// Notes what is known of the blob's executable inode. Nothing happens if the blob is gone.
    pub(crate) fn set_twin(&mut self, key: &Key, twin: Twin) {
        let Some(at) = self.slots.find(key) else { return };
        if let Some(slot) = self.slots.get_mut(at) {
            self.used_bytes = self.used_bytes.saturating_sub(slot.total_bytes());
            slot.twin = twin;
            self.used_bytes = self.used_bytes.saturating_add(slot.total_bytes());
        }
    }

    /// Notes that the executable inode's content was checked, if there still is one.
    pub(crate) fn set_twin_verified(&mut self, key: &Key) {
        if let Some(slot) = self.slot_mut(key)
            && slot.twin != Twin::Absent
        {
            slot.twin = Twin::Present { verified: true };
        }
    }

    /// Notes that the content was checked.
    pub(crate) fn set_verified(&mut self, key: &Key) {
        if let Some(slot) = self.slot_mut(key) {
            slot.verified = true;
        }
    }

    /// Notes that somebody may be told that the entry lasts.
    pub(crate) fn set_promised(&mut self, key: &Key) {
        if let Some(slot) = self.slot_mut(key) {
            slot.promise = Promise::Given;
        }
    }

    /// Forgets an entry, pinned or not.
    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        self.take(key).is_some()
    }

    fn take(&mut self, key: &Key) -> Option<Slot> {
        let at = self.slots.find(key)?;
        let slot = self.slots.remove(at)?;
        self.dead.extend(slot.place());
        self.order[rank(&slot)].remove(&slot.tick);
        self.counts[key.kind as usize] -= 1;
        self.used_bytes = self.used_bytes.saturating_sub(slot.total_bytes());
        Some(slot)
    }

    /// Promises `bytes` to a writer. Returns the entries that had to go, already forgotten here; the caller deletes their files.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<Vec<Key>, Full> {
        let victims = self.victims(bytes).ok_or(Full { needed_bytes: bytes, cap_bytes: self.cap_bytes })?;
        for key in &victims {
            self.remove(key);
        }
        self.reserved_bytes += bytes;
        Ok(victims)
    }

    /// Takes a promise back: the writer gave up, or its entry is about to be inserted.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.reserved_bytes = self.reserved_bytes.saturating_sub(bytes);
    }

    /// What has to go for `bytes` more to fit; `None` if nothing that may go makes enough room.
    fn victims(&self, bytes: u64) -> Option<Vec<Key>> {
        let taken = self.used_bytes.checked_add(self.reserved_bytes)?.checked_add(bytes)?;
        let n_taken = self.slots.len() + usize::from(bytes > 0);
        if taken <= self.cap_bytes && n_taken <= self.max_entries {
            return Some(Vec::new());
        }
        let goal_bytes = (self.cap_bytes / 100).saturating_mul(EVICT_TO_PERCENT).max(bytes);
        let n_goal = self.max_entries / 100 * 90;
        let (mut left, mut n_left, mut victims) = (taken, n_taken, Vec::new());
        for slot in self.least_wanted() {
            if left <= goal_bytes && n_left <= n_goal {
                break;
            }
            let key = slot.key();
            if !self.is_pinned(&key) {
                left = left.saturating_sub(slot.total_bytes());
                n_left -= 1;
                victims.push(key);
            }
        }
        (left <= self.cap_bytes && n_left <= self.max_entries).then_some(victims)
    }

    /// All entries, first those that were not used for longest, by their weights.
    fn least_wanted(&self) -> impl Iterator<Item = &Slot> {
        let now = self.next_tick;
        let mut ranks = self.order.each_ref().map(|order| order.iter().peekable());
        std::iter::from_fn(move || {
            let mut oldest = None;
            for (at, rank) in ranks.iter_mut().enumerate() {
                if let Some((tick, _)) = rank.peek() {
                    // Weights have few factors: a multiple of all keeps the order exact.
                    let age = (now - **tick).saturating_mul(24) / WEIGHTS[at];
                    oldest = oldest.max(Some((age, at)));
                }
            }
            let (_, slot) = ranks[oldest?.1].next()?;
            self.slots.get(*slot)
        })
    }

    /// The least wanted without which no more than `bytes` are taken, or all that may go.
    pub(crate) fn beyond(&self, bytes: u64) -> Vec<Key> {
        let (mut left, mut victims) = (self.used_bytes, Vec::new());
        for slot in self.least_wanted() {
            if left <= bytes {
                break;
            }
            let key = slot.key();
            if !self.is_pinned(&key) {
                left = left.saturating_sub(slot.total_bytes());
                victims.push(key);
            }
        }
        victims
    }

    pub(crate) fn is_pinned(&self, key: &Key) -> bool {
        key.kind == Kind::Blob && self.pins.contains_key(&key.digest)
    }

    pub(crate) fn pin(&mut self, digests: &[Digest]) {
        for digest in digests {
            *self.pins.entry(*digest).or_insert(0) += 1;
        }
    }

    pub(crate) fn unpin(&mut self, digests: &[Digest]) {
        for digest in digests {
            if let Some(count) = self.pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    self.pins.remove(digest);
                }
            }
        }
    }

    /// Changes of order that the journal does not have.
    pub(crate) fn n_unflushed(&self) -> u64 {
        self.next_tick - self.journal_tick
    }

    /// Takes those changes.
    pub(crate) fn take_recent(&mut self) -> Vec<Use> {
        let recent = self.used_from(self.journal_tick, usize::MAX);
        self.journal_tick = self.next_tick;
        recent
    }

    /// The journal is written anew from [`used_from`](Self::used_from): what is used from now on is not in it.
    pub(crate) fn begin_all(&mut self) {
        self.journal_tick = self.next_tick;
    }

    /// At most `n_most` entries by order of use, beginning at `tick`.
    pub(crate) fn used_from(&self, tick: u64, n_most: usize) -> Vec<Use> {
        let each = self.order.iter().flat_map(|order| order.range(tick..).take(n_most));
        let mut used: Vec<(u64, u32)> = each.map(|(tick, at)| (*tick, *at)).collect();
        used.sort_unstable();
        used.truncate(n_most);
        let found = used.into_iter().filter_map(|(tick, at)| self.slots.get(at).map(|slot| (tick, slot)));
        found.map(|(tick, slot)| Use { key: slot.key(), tick, worth: slot.worth }).collect()
    }
}

/// While a store is opened.
impl Index {
    /// Enters what was found, unchecked, at no place in the order yet. An earlier one of the same name gives way; its place is dead, and
    /// true is returned if it had a file of its own.
    pub(crate) fn found(&mut self, key: Key, charge_bytes: u64, place: Option<Place>) -> bool {
        let room = place.map_or(Room::File { charge_bytes }, Room::Pack);
        let had_file = self.take(&key).is_some_and(|old| old.place().is_none());
        let mut slot = Slot::new(&key, room);
        slot.promise = Promise::Perhaps;
        self.place(slot);
        had_file
    }

    /// What the journal says of an entry, if that is here.
    pub(crate) fn remember(&mut self, used: &Use) {
        if let Some(slot) = self.slot_mut(&used.key) {
            slot.tick = used.tick;
            slot.worth = slot.worth.max(used.worth);
        }
    }

    /// Entries of which the journal said nothing.
    pub(crate) fn not_remembered(&self) -> Vec<(Key, Option<Place>)> {
        let unknown = self.slots.iter().filter(|(_, slot)| slot.tick == 0);
        unknown.map(|(_, slot)| (slot.key(), slot.place())).collect()
    }

    /// Orders what was remembered, and goes on counting from there. A place that was given twice is not one: those that have none come back
    /// as if they had not been remembered.
    pub(crate) fn arrange(&mut self) {
        let mut known: Vec<(u64, u32)> =
            self.slots.iter().filter(|(_, slot)| slot.tick > 0).map(|(at, slot)| (slot.tick, at)).collect();
        known.sort_unstable();
        let mut last = 0;
        for (tick, at) in &mut known {
            if *tick == last {
                if let Some(slot) = self.slots.get_mut(*at) {
                    slot.tick = 0;
                }
                *tick = 0;
            } else {
                last = *tick;
            }
        }
        known.retain(|(tick, _)| *tick > 0);
        let ranked = |wanted: usize| {
            let slots = &self.slots;
            known
                .iter()
                .copied()
                .filter(move |(_, at)| slots.get(*at).is_some_and(|slot| rank(slot) == wanted))
                .collect()
        };
        // From sorted ones: such a tree is dense.
        self.order = std::array::from_fn(ranked);
        self.next_tick = last.saturating_add(1);
        self.journal_tick = self.next_tick;
    }

    /// Puts one that was not remembered behind all others.
    pub(crate) fn append(&mut self, key: &Key) {
        self.touch(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (name, tick) in [(0, 7), (1, 3), (2, 3), (3, 9), (9, 4), (0, 8)] {
            index.remember(&Use { key: key(name), tick, worth: Worth::Output });
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
}
