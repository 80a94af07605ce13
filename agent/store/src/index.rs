//! What the store holds, in memory: presence, order of use, size, pins. Pure: it never touches the disk and knows no time.
//!
//! Order of use is a counter, so a clock that jumps can't reorder it. Room is reserved before bytes are written, so that writers
//! running side by side stay within the size together. Who calls: every module of the store, under one short lock.

use std::collections::{BTreeMap, HashMap};

use buildbee_proto::digest::Digest;

use crate::packs::Place;

/// Entries kept at most, whatever the size in bytes allows: it bounds the memory of this index (about 150 bytes an entry).
pub(crate) const MAX_ENTRIES: usize = 1_000_000;
/// Eviction goes down to this share of the size, so that it runs once for many puts.
const EVICT_TO_PERCENT: u64 = 90;

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

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Room that one inode of it takes.
    pub(crate) charge_bytes: u64,
    /// Content was checked since the start. Records and what is in packs are checked at each read and never set this.
    pub(crate) verified: bool,
    pub(crate) twin: Twin,
    /// Where it is, if it shares a file with others.
    pub(crate) place: Option<Place>,
    tick: u64,
}

impl Entry {
    fn total_bytes(&self) -> u64 {
        match self.twin {
            Twin::Absent => self.charge_bytes,
            Twin::Present { .. } => self.charge_bytes.saturating_mul(2),
        }
    }
}

/// It does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) needed_bytes: u64,
    pub(crate) cap_bytes: u64,
}

/// Changes of order since they were last taken for the journal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recent {
    /// New positions.
    pub(crate) used: Vec<(Key, u64)>,
    /// Entries that are gone. May name one that is back: `used` then has its new position and is applied last.
    pub(crate) removed: Vec<Key>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    entries: HashMap<Key, Entry>,
    /// From tick to entry: least recently used first.
    order: BTreeMap<u64, Key>,
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
    /// Bounded: the caller flushes once `n_unflushed` passes its bound, and entries can't vanish faster than they came.
    removed: Vec<Key>,
    /// Places of entries that are gone or elsewhere now. Bounded: the caller takes them after each change.
    dead: Vec<Place>,
}

impl Index {
    pub(crate) fn new(cap_bytes: u64, max_entries: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            pins: HashMap::new(),
            counts: [0; 4],
            cap_bytes,
            max_entries,
            used_bytes: 0,
            reserved_bytes: 0,
            next_tick: 1,
            journal_tick: 1,
            removed: Vec::new(),
            dead: Vec::new(),
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Entries, in no order.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.entries.keys().copied().collect()
    }

    /// Digests of that kind, in no order.
    pub(crate) fn digests(&self, kind: Kind) -> Vec<Digest> {
        self.entries.keys().filter(|key| key.kind == kind).map(|key| key.digest).collect()
    }

    /// At most `n_most` of that kind that were used before `tick`, the latest first, and the tick to go on from.
    pub(crate) fn used_before(&self, tick: u64, kind: Kind, n_most: usize) -> (Vec<Digest>, u64) {
        let used = self.order.range(..tick).rev().filter(|(_, key)| key.kind == kind).take(n_most);
        let used: Vec<(u64, Digest)> = used.map(|(tick, key)| (*tick, key.digest)).collect();
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
        let tick = self.next_tick;
        let Some(entry) = self.entries.get_mut(key) else { return false };
        self.order.remove(&entry.tick);
        entry.tick = tick;
        self.order.insert(tick, *key);
        self.next_tick += 1;
        true
    }

    /// Adds or replaces an entry as the most recently used. Its room is `charge_bytes`; give a reservation back first.
    pub(crate) fn insert(&mut self, key: Key, charge_bytes: u64, verified: bool) {
        self.enter(key, charge_bytes, verified, None);
    }

    /// The same for one in a pack. True if it was in a file of its own before.
    pub(crate) fn insert_packed(&mut self, key: Key, place: Place) -> bool {
        let had_file = self.get(&key).is_some_and(|old| old.place.is_none());
        self.enter(key, place.charge_bytes(), false, Some(place));
        had_file
    }

    /// Notes that what was at `from` is at `to` now.
    pub(crate) fn moved(&mut self, key: &Key, from: Place, to: Place) {
        if let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.place == Some(from)) {
            entry.place = Some(to);
        }
    }

    /// Takes the places that nothing is at any more.
    pub(crate) fn take_dead(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.dead)
    }

    fn enter(&mut self, key: Key, charge_bytes: u64, verified: bool, place: Option<Place>) {
        let twin = match self.take(&key) {
            Some(old) => old.twin,
            None => Twin::Absent,
        };
        let entry = Entry { charge_bytes, verified, twin, place, tick: self.next_tick };
        self.next_tick += 1;
        self.order.insert(entry.tick, key);
        self.used_bytes = self.used_bytes.saturating_add(entry.total_bytes());
        self.counts[key.kind as usize] += 1;
        self.entries.insert(key, entry);
    }

    /// Notes what is known of the blob's executable inode. Nothing happens if the blob is gone.
    pub(crate) fn set_twin(&mut self, key: &Key, twin: Twin) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.used_bytes = self.used_bytes.saturating_sub(entry.total_bytes());
            entry.twin = twin;
            self.used_bytes = self.used_bytes.saturating_add(entry.total_bytes());
        }
    }

    /// Notes that the executable inode's content was checked, if there still is one.
    pub(crate) fn set_twin_verified(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.twin != Twin::Absent
        {
            entry.twin = Twin::Present { verified: true };
        }
    }

    /// Notes that the content was checked.
    pub(crate) fn set_verified(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.verified = true;
        }
    }

    /// Forgets an entry, pinned or not.
    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        let found = self.take(key).is_some();
        if found {
            self.removed.push(*key);
        }
        found
    }

    fn take(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.dead.extend(entry.place);
        self.order.remove(&entry.tick);
        self.counts[key.kind as usize] -= 1;
        self.used_bytes = self.used_bytes.saturating_sub(entry.total_bytes());
        Some(entry)
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
        let n_taken = self.entries.len() + usize::from(bytes > 0);
        if taken <= self.cap_bytes && n_taken <= self.max_entries {
            return Some(Vec::new());
        }
        let goal_bytes = (self.cap_bytes / 100).saturating_mul(EVICT_TO_PERCENT).max(bytes);
        let n_goal = self.max_entries / 100 * 90;
        let (mut left, mut n_left, mut victims) = (taken, n_taken, Vec::new());
        for key in self.order.values() {
            if left <= goal_bytes && n_left <= n_goal {
                break;
            }
            if self.is_pinned(key) {
                continue;
            }
            if let Some(entry) = self.entries.get(key) {
                left = left.saturating_sub(entry.total_bytes());
                n_left -= 1;
                victims.push(*key);
            }
        }
        (left <= self.cap_bytes && n_left <= self.max_entries).then_some(victims)
    }

    /// The least recently used without which no more than `bytes` are taken, or all that may go.
    pub(crate) fn beyond(&self, bytes: u64) -> Vec<Key> {
        let (mut left, mut victims) = (self.used_bytes, Vec::new());
        for key in self.order.values() {
            if left <= bytes {
                break;
            }
            if let Some(entry) = self.entries.get(key).filter(|_| !self.is_pinned(key)) {
                left = left.saturating_sub(entry.total_bytes());
                victims.push(*key);
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
        (self.next_tick - self.journal_tick).saturating_add(self.removed.len() as u64)
    }

    /// Takes the positions of all entries instead: for a journal that is written anew.
    pub(crate) fn take_all(&mut self) -> Recent {
        self.journal_tick = 0;
        let all = self.take_recent();
        Recent { removed: Vec::new(), ..all }
    }

    /// Takes those changes.
    pub(crate) fn take_recent(&mut self) -> Recent {
        let used = self.order.range(self.journal_tick..).map(|(tick, key)| (*key, *tick)).collect();
        self.journal_tick = self.next_tick;
        Recent { used, removed: std::mem::take(&mut self.removed) }
    }

    /// Enters a file found at the start, unchecked, at the position that the journal has for it. Each position once.
    pub(crate) fn restore(&mut self, key: Key, charge_bytes: u64, place: Option<Place>, tick: u64) {
        self.order.insert(tick, key);
        self.counts[key.kind as usize] += 1;
        self.used_bytes = self.used_bytes.saturating_add(charge_bytes);
        self.entries.insert(key, Entry { charge_bytes, verified: false, twin: Twin::Absent, place, tick });
        self.next_tick = self.next_tick.max(tick.saturating_add(1));
    }

    /// Goes on counting after the last restored position; the journal has all so far.
    pub(crate) fn resume(&mut self) {
        self.journal_tick = self.next_tick;
    }

    /// The journal has these, the store does not.
    pub(crate) fn note_gone(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.removed.extend(keys);
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
        assert_eq!(index.take_recent().used.len(), 2);
        assert_eq!(index.n_unflushed(), 0);
        index.touch(&key(0));
        index.remove(&key(1));
        let recent = index.take_recent();
        assert_eq!((recent.used.len(), recent.removed), (1, vec![key(1)]));
    }
}
