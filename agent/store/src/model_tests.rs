//! Any sequence of operations, against what a map says must be so.

use std::collections::{HashMap, HashSet};

use buildbee_proto::digest::Digest;
use proptest::prelude::*;

use crate::store_tests::{open_packed_with, open_with, result};
use crate::{Pin, PutError, Store};

const CAP_BYTES: u64 = 16 * 4096;
const N_CONTENTS: u8 = 24;
/// The same of a store with packs: 2 KiB each.
const PACKED_CAP_BYTES: u64 = 32 << 10;
const N_PACKED: u8 = 120;
/// Pins held at a time.
const MAX_PINS: usize = 4;

#[derive(Clone, Debug)]
enum Operation {
    Put(u8),
    Stream(u8),
    Read(u8),
    Link(u8, bool),
    Pin(Vec<u8>),
    Unpin,
    PutResult(u8),
    Result(u8),
    Clear,
    Reopen,
}

fn operation(n_contents: u8) -> impl Strategy<Value = Operation> {
    let name = 0..n_contents;
    prop_oneof![
        6 => name.clone().prop_map(Operation::Put),
        2 => name.clone().prop_map(Operation::Stream),
        4 => name.clone().prop_map(Operation::Read),
        2 => (name.clone(), any::<bool>()).prop_map(|(name, executable)| Operation::Link(name, executable)),
        2 => prop::collection::vec(name.clone(), 1..4).prop_map(Operation::Pin),
        2 => Just(Operation::Unpin),
        2 => name.clone().prop_map(Operation::PutResult),
        2 => name.prop_map(Operation::Result),
        1 => Just(Operation::Clear),
        1 => Just(Operation::Reopen),
    ]
}

struct Model {
    packed: bool,
    dir: tempfile::TempDir,
    store: Option<Store>,
    pins: Vec<Pin>,
    links: u32,
}

impl Model {
    /// Different sizes: one to three blocks; in packs, up to what is too large for them.
    fn content(&self, name: u8) -> Vec<u8> {
        vec![name; 1 + usize::from(name % 3) * if self.packed { 250 } else { 4096 }]
    }

    fn cap_bytes(&self) -> u64 {
        if self.packed { PACKED_CAP_BYTES } else { CAP_BYTES }
    }

    fn open(dir: &std::path::Path, packed: bool) -> Store {
        let dir = dir.join("store");
        if packed { open_packed_with(&dir, PACKED_CAP_BYTES) } else { open_with(&dir, CAP_BYTES) }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open")
    }

    fn pinned(&self) -> HashSet<Digest> {
        self.pins.iter().flat_map(|pin| pin.digests().iter().copied()).collect()
    }

    fn present(&self) -> HashSet<Digest> {
        (0..N_PACKED)
            .map(|name| Digest::of(&self.content(name)))
            .filter(|digest| self.store().contains(digest))
            .collect()
    }

    fn apply(&mut self, operation: &Operation) {
        let store = self.store().clone();
        match operation {
            Operation::Put(name) => self.check_put(&store, *name, store.put_bytes(&self.content(*name)).map(|_| ())),
            Operation::Stream(name) => {
                let streamed = store.writer(Digest::of(&self.content(*name))).and_then(|mut writer| {
                    for part in self.content(*name).chunks(1000) {
                        writer.write(part)?;
                    }
                    writer.commit()
                });
                self.check_put(&store, *name, streamed);
            }
            Operation::Read(name) => {
                let digest = Digest::of(&self.content(*name));
                let expected = store.contains(&digest).then(|| self.content(*name));
                assert_eq!(store.read(&digest, self.cap_bytes()).unwrap(), expected);
            }
            Operation::Link(name, executable) => {
                self.links += 1;
                let path = self.dir.path().join(format!("link-{}", self.links));
                let digest = Digest::of(&self.content(*name));
                let was_there = store.contains(&digest);
                match store.link(&digest, *executable, &path) {
                    Ok(found) => {
                        assert_eq!(found, was_there);
                        assert_eq!(std::fs::read(&path).ok(), found.then(|| self.content(*name)));
                    }
                    Err(crate::LinkError::Put(PutError::Full { .. })) => {
                        assert!((*executable || self.packed) && was_there);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Operation::Pin(names) => {
                if self.pins.len() < MAX_PINS {
                    self.pins.push(store.pin(names.iter().map(|name| Digest::of(&self.content(*name)))));
                }
            }
            Operation::Unpin => drop(self.pins.pop()),
            Operation::PutResult(name) => {
                let blob = Digest::of(&self.content(*name));
                match store.put_result(&result(&[*name], blob, blob)) {
                    Ok(()) => assert!(store.result(&Digest::of(&[*name])).unwrap().is_some()),
                    Err(error) => assert!(matches!(error, PutError::Full { .. }), "{error}"),
                }
            }
            Operation::Result(name) => {
                if let Some(found) = store.result(&Digest::of(&[*name])).unwrap() {
                    assert_eq!(found.result.stdout, Digest::of(&self.content(*name)));
                }
            }
            Operation::Clear => drop(store.clear()),
            Operation::Reopen => {
                drop(store);
                self.reopen();
            }
        }
    }

    fn check_put(&self, store: &Store, name: u8, put: Result<(), PutError>) {
        match put {
            Ok(()) => assert!(store.contains(&Digest::of(&self.content(name)))),
            Err(error) => assert!(matches!(error, PutError::Full { .. }), "{error}"),
        }
    }

    fn reopen(&mut self) {
        let (present, usage) = (self.present(), self.store().usage());
        self.pins.clear();
        self.store = None;
        self.store = Some(Self::open(self.dir.path(), self.packed));
        assert_eq!(self.present(), present);
        let now = self.store().usage();
        assert_eq!((now.bytes, now.results), (usage.bytes, usage.results));
    }
}

/// Room that packs take on the disk.
fn packs_bytes(dir: &std::path::Path) -> u64 {
    std::fs::read_dir(dir.join("store/packs")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn check(operations: &[Operation], packed: bool) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let store = Some(Model::open(dir.path(), packed));
    let mut model = Model { packed, dir, store, pins: Vec::new(), links: 0 };
    for operation in operations {
        let protected: HashSet<Digest> = &model.present() & &model.pinned();
        model.apply(operation);
        if !matches!(operation, Operation::Unpin | Operation::Reopen) {
            prop_assert!(protected.is_subset(&model.present()), "{operation:?} took a pinned blob");
        }
        let used_bytes = model.store().usage().bytes;
        prop_assert!(used_bytes <= model.cap_bytes());
        prop_assert!(packs_bytes(model.dir.path()) <= used_bytes + 2 * PACKED_CAP_BYTES / 16);
    }
    let report = model.store().verify();
    prop_assert_eq!((report.n_bad, report.n_unread, report.blobs), (0, 0, model.store().usage().blobs));
    prop_assert_eq!(model.store().usage().n_bad, 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence(operations in prop::collection::vec(operation(N_CONTENTS), 1..120)) {
        check(&operations, false)?;
    }

    #[test]
    fn any_sequence_in_packs(operations in prop::collection::vec(operation(N_PACKED), 1..600)) {
        check(&operations, true)?;
    }

    /// The order in which the pure index evicts is that of a plain list.
    #[test]
    fn index_evicts_like_a_list(uses in prop::collection::vec((0u8..20, any::<bool>()), 1..200)) {
        use crate::entry::Key;
        use crate::index::Index;
        let mut index = Index::new(1000, 1000);
        let mut list: Vec<Key> = Vec::new();
        let names: HashMap<u8, Key> = (0..20).map(|name| (name, Key::blob(Digest::of(&[name])))).collect();
        for (name, put) in uses {
            let key = names[&name];
            let known = list.iter().position(|old| *old == key);
            if let Some(at) = known {
                list.remove(at);
                list.push(key);
                index.touch(&key);
            } else if put {
                let victims = index.reserve(100).unwrap();
                index.release(100);
                prop_assert_eq!(&victims[..], &list[..victims.len()]);
                list.drain(..victims.len());
                list.push(key);
                index.insert(key, 100, true);
                prop_assert!(list.len() <= 10);
            }
            prop_assert_eq!(index.used_bytes(), list.len() as u64 * 100);
        }
    }
}
