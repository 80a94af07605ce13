//! A folder that was another tree before is like one that was made of this tree at once.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::tree::Twin;
use buildbee_store::{Durability, Options};
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::tree::load_present;
use super::*;
use crate::exchange::small::Small;

/// What may stand below one name.
#[derive(Clone, Debug)]
enum Entry {
    File { content: u8, executable: bool, inode: u32 },
    Link(u8),
    Folder(BTreeMap<u8, Entry>),
}

fn entry() -> impl Strategy<Value = Entry> {
    let file = (0..4u8, any::<bool>(), 0..3u32).prop_map(|(content, executable, inode)| Entry::File {
        content,
        executable,
        inode,
    });
    let leaf = prop_oneof![4 => file, 1 => (0..3u8).prop_map(Entry::Link)];
    leaf.prop_recursive(3, 24, 5, |inner| folder(inner).prop_map(Entry::Folder))
}

fn folder(inner: impl Strategy<Value = Entry>) -> impl Strategy<Value = BTreeMap<u8, Entry>> {
    vec((0..6u8, inner), 0..6).prop_map(|entries| entries.into_iter().collect())
}

fn put(store: &Store, entries: &BTreeMap<u8, Entry>) -> Digest {
    let mut directory = Directory::default();
    for (name, entry) in entries {
        let name = format!("n{name}").as_str().try_into().unwrap();
        match entry {
            Entry::File { content, executable, inode } => {
                let digest = store.put_bytes(&[*content; 3]).unwrap();
                // Files that are one inode have one time.
                let twin = Twin { inode: *inode, second: inode + u32::from(*content) };
                directory.files.push(FileNode { name, digest, executable: *executable, twin });
            }
            Entry::Link(target) => directory.symlinks.push(SymlinkNode { name, target: format!("n{target}") }),
            Entry::Folder(entries) => {
                directory.directories.push(DirectoryNode { name, digest: put(store, entries) });
            }
        }
    }
    store.put_bytes(&directory.to_canonical()).unwrap()
}

/// Everything below `path` that a program can tell, and which names are one inode.
fn look(path: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut inodes) = (BTreeMap::new(), BTreeMap::new());
    let mut all: Vec<PathBuf> = walk(path);
    all.sort();
    for each in all {
        let meta = fs::symlink_metadata(&each).unwrap();
        let name = each.strip_prefix(path).unwrap().to_owned();
        let text = if meta.is_dir() {
            format!("folder {:o}", meta.mode())
        } else if meta.is_symlink() {
            format!("link {:?}", fs::read_link(&each).unwrap())
        } else {
            let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone());
            let time = (meta.mtime(), meta.mtime_nsec());
            format!("file {:o} {:?} {time:?} {:?} {first:?}", meta.mode(), fs::read(&each).unwrap(), meta.nlink())
        };
        found.insert(name, text);
    }
    found
}

fn walk(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

fn store(dir: &Path) -> Store {
    let options = Options { max_bytes: 64 << 20, durability: Durability::Lazy };
    Store::open(&dir.join("store"), &options).unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn as_if_made_at_once(trees in vec(folder(entry()), 2..5)) {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let mut assembled: Option<Assembled> = None;
        for (n, entries) in trees.iter().enumerate() {
            let tree = load_present(&store, &Small::default(), put(&store, entries)).unwrap().unwrap();
            let next = match assembled.take() {
                None => Assembled::make(&store, &tree, dir.path().join("assembled")),
                Some(stands) => stands.turn_into(&store, &tree),
            };
            let next = next.unwrap();
            let fresh = dir.path().join(n.to_string());
            materialise(&store, &tree, &|_| true, &fresh).unwrap();
            prop_assert_eq!(look(next.path()), look(&fresh));
            prop_assert_eq!(next.skeleton().root(), tree.root());
            assembled = Some(next);
        }
    }
}

#[test]
fn what_is_equal_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let file = |content| Entry::File { content, executable: false, inode: 0 };
    let tree = |source| {
        let headers = Entry::Folder(BTreeMap::from([(0, file(0)), (1, file(1))]));
        let entries = BTreeMap::from([(0, headers), (source, file(2))]);
        load_present(&store, &Small::default(), put(&store, &entries)).unwrap().unwrap()
    };
    let assembled = Assembled::make(&store, &tree(1), dir.path().join("assembled")).unwrap();
    let header = assembled.path().join("n0/n1");
    let before = fs::metadata(&header).unwrap();
    let assembled = assembled.turn_into(&store, &tree(2)).unwrap();
    let after = fs::metadata(&header).unwrap();
    assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()));
    assert!(assembled.path().join("n2").exists() && !assembled.path().join("n1").exists());
}

#[test]
fn a_folder_that_somebody_changed_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let tree = |name| {
        let entries = BTreeMap::from([(name, Entry::File { content: 1, executable: false, inode: 0 })]);
        load_present(&store, &Small::default(), put(&store, &entries)).unwrap().unwrap()
    };
    let assembled = Assembled::make(&store, &tree(0), dir.path().join("assembled")).unwrap();
    fs::remove_file(assembled.path().join("n0")).unwrap();
    assert!(matches!(assembled.turn_into(&store, &tree(1)), Err(MaterialiseError::Io { .. })));
}
