//! The entries of the index, packed: one slot of 80 bytes each and a table of their numbers, so that millions fit. Knows no order of use.

use std::hash::{BuildHasher, RandomState};

use buildbee_proto::digest::{Digest, DigestFunction};
use hashbrown::HashTable;
use hashbrown::hash_table;

use crate::entry::{Key, Kind, Promise, Twin, Worth};
use crate::packs::Place;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// In a file of its own, for which it counts so much.
    File {
        /// Room that one inode of it takes.
        charge_bytes: u64,
    },
    /// With others.
    Pack(Place),
    /// Nowhere: the slot is free.
    Free,
}

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    hash: [u8; 32],
    size_bytes: u64,
    /// Its place in the order of use; zero while that is not known.
    pub(crate) tick: u64,
    pub(crate) room: Room,
    kind: Kind,
    function: DigestFunction,
    /// Content was checked since the start. Records and what is in packs are checked at each read and never set this.
    pub(crate) verified: bool,
    pub(crate) twin: Twin,
    pub(crate) promise: Promise,
    pub(crate) worth: Worth,
}

impl Slot {
    pub(crate) fn new(key: &Key, room: Room) -> Self {
        Self {
            hash: key.digest.hash,
            size_bytes: key.digest.size_bytes,
            tick: 0,
            room,
            kind: key.kind,
            function: key.digest.function,
            verified: false,
            twin: Twin::Absent,
            promise: Promise::None,
            worth: Worth::of(key.kind),
        }
    }

    pub(crate) fn key(&self) -> Key {
        let digest = Digest { function: self.function, hash: self.hash, size_bytes: self.size_bytes };
        Key { kind: self.kind, digest }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Room that one inode of it takes, or what is counted for its part of a pack.
    pub(crate) fn charge_bytes(&self) -> u64 {
        match self.room {
            Room::File { charge_bytes } => charge_bytes,
            Room::Pack(place) => place.charge_bytes(),
            Room::Free => 0,
        }
    }

    /// The same with its twin.
    pub(crate) fn total_bytes(&self) -> u64 {
        match self.twin {
            Twin::Absent => self.charge_bytes(),
            Twin::Present { .. } => self.charge_bytes().saturating_mul(2),
        }
    }

    pub(crate) fn place(&self) -> Option<Place> {
        match self.room {
            Room::Pack(place) => Some(place),
            Room::File { .. } | Room::Free => None,
        }
    }
}

/// All of them. A number names a slot as long as its entry is there, and may name another one's later.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
    table: HashTable<u32>,
    /// Seeded, so that nobody can choose digests that all fall together.
    hasher: RandomState,
}

impl Slots {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn find(&self, key: &Key) -> Option<u32> {
        let is_it = |at: &u32| self.get(*at).is_some_and(|slot| slot.key() == *key);
        self.table.find(self.hasher.hash_one(key), is_it).copied()
    }

    pub(crate) fn get(&self, at: u32) -> Option<&Slot> {
        self.all.get(at as usize)
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut Slot> {
        self.all.get_mut(at as usize)
    }

    /// Makes room for so many more.
    pub(crate) fn reserve(&mut self, n_more: usize) {
        self.all.reserve_exact(n_more);
        let (slots, hasher) = (&self.all, &self.hasher);
        self.table.reserve(n_more, |at| slots.get(*at as usize).map_or(0, |slot| hasher.hash_one(slot.key())));
    }

    /// Adds an entry, or puts it in the slot of the one of the same name, which is returned.
    pub(crate) fn put(&mut self, slot: Slot) -> (u32, Option<Slot>) {
        let key = slot.key();
        let (slots, hasher) = (&mut self.all, &self.hasher);
        let found = self.table.entry(
            hasher.hash_one(key),
            |at| slots.get(*at as usize).is_some_and(|other| other.key() == key),
            |at| slots.get(*at as usize).map_or(0, |other| hasher.hash_one(other.key())),
        );
        match found {
            hash_table::Entry::Occupied(at) => {
                let at = *at.get();
                (at, slots.get_mut(at as usize).map(|old| std::mem::replace(old, slot)))
            }
            hash_table::Entry::Vacant(room) => {
                let at = if let Some(at) = self.free.pop()
                    && let Some(free) = slots.get_mut(at as usize)
                {
                    *free = slot;
                    at
                } else {
                    slots.push(slot);
                    // Bounded by `MAX_ENTRIES`.
                    u32::try_from(slots.len() - 1).unwrap_or(u32::MAX)
                };
                room.insert(at);
                (at, None)
            }
        }
    }

    pub(crate) fn remove(&mut self, at: u32) -> Option<Slot> {
        let slot = *self.get(at)?;
        let found = self.table.find_entry(self.hasher.hash_one(slot.key()), |other| *other == at).ok()?;
        found.remove();
        if let Some(free) = self.all.get_mut(at as usize) {
            free.room = Room::Free;
        }
        self.free.push(at);
        Some(slot)
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.from(0)
    }

    /// Those in slots from `at` on.
    pub(crate) fn from(&self, at: u32) -> impl Iterator<Item = (u32, &Slot)> {
        let slots = (at..).zip(self.all.get(at as usize..).unwrap_or_default());
        slots.filter(|(_, slot)| slot.room != Room::Free)
    }
}
