//! What the store holds, in memory: presence, order of use, size, pins. Pure: it never touches the disk and knows no time.
//!
//! Order of use is a counter, so a clock that jumps can't reorder it. What goes first is what was not used for longest, weighed by what it
//! is worth ([`Worth`]) and by size. Room is reserved before bytes are written, so that writers running side by side stay within the size
//! together. Who calls: every module of the store, under one short lock.

use std::collections::HashMap;

use buildbee_proto::digest::Digest;

use crate::entry::{Entry, Key, Kind, Promise, Twin, Use, Worth};
use crate::order::{Among, Order};
use crate::packs::Place;
use crate::slots::{Room, Slot, Slots};

/// Entries kept at most, whatever the size in bytes allows: it bounds the memory of this index (about 110 bytes an entry).
pub(crate) const MAX_ENTRIES: usize = 3_000_000;
/// Eviction goes down to this share of the size, so that it runs once for many puts.
const EVICT_TO_PERCENT: u64 = 90;

/// It does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) needed_bytes: u64,
    pub(crate) cap_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    slots: Slots,
    order: Order,
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

impl Index {
    pub(crate) fn new(cap_bytes: u64, max_entries: usize) -> Self {
        Self {
            slots: Slots::default(),
            order: Order::default(),
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
        let of_kind = |at| self.slots.get(at).map(Slot::key).filter(|key| key.kind == kind).map(|key| key.digest);
        // Records are nowhere else, and there may be millions of inputs.
        let among = if kind == Kind::Blob { Among::All } else { Among::Records };
        let used = self.order.before(tick, among, n_most, of_kind);
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
        self.order.remove(slot);
        slot.tick = tick;
        slot.worth = slot.worth.max(worth);
        self.order.insert(slot, at);
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
        self.used_bytes = self.used_bytes.saturating_add(slot.total_bytes());
        self.counts[key.kind as usize] += 1;
        let (at, _) = self.slots.put(slot);
        self.order.insert(&slot, at);
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
        self.forget(&slot);
        Some(slot)
    }

    /// One that has no slot any more.
    fn forget(&mut self, slot: &Slot) {
        self.dead.extend(slot.place());
        self.order.remove(slot);
        self.counts[slot.kind() as usize] -= 1;
        self.used_bytes = self.used_bytes.saturating_sub(slot.total_bytes());
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
    pub(crate) fn least_wanted(&self) -> impl Iterator<Item = &Slot> {
        self.order.least_wanted(self.next_tick).filter_map(|at| self.slots.get(at))
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
        let found = self
            .order
            .from(tick, n_most)
            .into_iter()
            .filter_map(|(tick, at)| self.slots.get(at).map(|slot| (tick, slot)));
        found.map(|(tick, slot)| Use { key: slot.key(), tick, worth: slot.worth }).collect()
    }
}

/// While a store is opened.
impl Index {
    /// Makes room for so many more at once: to grow again and again costs as much as to enter them.
    pub(crate) fn expect(&mut self, n_more: usize) {
        self.slots.reserve(n_more.min(self.max_entries.saturating_sub(self.slots.len())));
    }

    /// Enters what was found, unchecked, at no place in the order yet. An earlier one of the same name gives way; its place is dead.
    /// Where that was.
    pub(crate) fn found(&mut self, key: Key, charge_bytes: u64, place: Option<Place>) -> Option<Room> {
        let mut slot = Slot::new(&key, place.map_or(Room::File { charge_bytes }, Room::Pack));
        slot.promise = Promise::Perhaps;
        let (_, old) = self.slots.put(slot);
        self.used_bytes = self.used_bytes.saturating_add(slot.total_bytes());
        self.counts[key.kind as usize] += 1;
        if let Some(old) = &old {
            self.forget(old);
        }
        old.map(|old| old.room)
    }

    /// What the journal says of an entry, if that is here. It is looked for in the slot `at` first, since most entries are used in the order in
    /// which they came, and to look a million of them up takes longer than to read them. Which slot to try next.
    pub(crate) fn remember(&mut self, used: &Use, at: u32) -> u32 {
        let is_it = |slot: &Slot| slot.room != Room::Free && slot.key() == used.key;
        let found = if self.slots.get(at).is_some_and(is_it) { Some(at) } else { self.slots.find(&used.key) };
        let Some((at, slot)) = found.and_then(|at| Some((at, self.slots.get_mut(at)?))) else { return at };
        slot.tick = used.tick;
        slot.worth = slot.worth.max(used.worth);
        at.saturating_add(1)
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
        self.order = Order::of(known.into_iter().filter_map(|(_, at)| Some((self.slots.get(at)?, at))));
        self.next_tick = last.saturating_add(1);
        self.journal_tick = self.next_tick;
    }

    /// Puts one that was not remembered behind all others.
    pub(crate) fn append(&mut self, key: &Key) {
        self.touch(key);
    }
}
