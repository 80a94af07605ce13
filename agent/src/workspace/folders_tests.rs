//! What is kept, what is removed, and when.

use std::fs;
use std::time::Duration;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::tree::{Directory, FileNode, Twin};
use buildbee_store::{Durability, Options, Store};

use super::super::memory::SHARED_MEMORY;
use super::super::tree::{Tree, load_present};
use super::*;
use crate::exchange::small::Small;

struct Place {
    dir: tempfile::TempDir,
    store: Store,
    tasks: Tasks,
    folders: Folders,
}

fn place(in_memory: bool) -> Option<Place> {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { max_bytes: 1 << 30, durability: Durability::Lazy };
    let store = Store::open(&dir.path().join("store"), &options).unwrap().0;
    let memory = if in_memory { MemoryFolder::make(std::path::Path::new(SHARED_MEMORY)).unwrap() } else { None };
    if in_memory && memory.is_none() {
        eprintln!("skipped: no memory that is shared");
        return None;
    }
    let (tasks, disk) = (Tasks::new(), dir.path().join("disk"));
    fs::create_dir(&disk).unwrap();
    let folders = Folders::new(disk, memory, &tasks);
    Some(Place { dir, store, tasks, folders })
}

impl Place {
    fn tree(&self, name: &str, content: &[u8]) -> Tree {
        let digest = self.store.put_bytes(content).unwrap();
        let file = FileNode { name: name.try_into().unwrap(), digest, executable: false, twin: Twin::default() };
        let root = Directory { files: vec![file], ..Directory::default() };
        let root = self.store.put_bytes(&root.to_canonical()).unwrap();
        load_present(&self.store, &Small::default(), root).unwrap().unwrap()
    }

    /// An action that sees `tree`, up to where its folder is given back.
    fn used(&self, tree: &Tree) -> Folder {
        let mut folder = self.folders.fresh(tree.skeleton(), true);
        fs::create_dir_all(folder.scratch.join("upper")).unwrap();
        fs::write(folder.scratch.join("upper/t.o"), "object").unwrap();
        if folder.in_memory {
            let assembled = match folder.assembled.take() {
                Some(stands) => stands.turn_into(&self.store, tree),
                None => Assembled::make(&self.store, tree, folder.inputs.clone()),
            };
            folder.assembled = Some(assembled.unwrap());
        } else {
            fs::create_dir(&folder.inputs).unwrap();
        }
        folder
    }

    fn left(&self) -> usize {
        let place =
            self.folders.memory.as_ref().map_or(self.dir.path().join("disk"), |memory| memory.path().to_owned());
        // In memory there is the lock, too.
        fs::read_dir(place).unwrap().count() - usize::from(self.folders.memory.is_some())
    }

    async fn leaves(&self, n: usize) {
        for _ in 0..1000 {
            if self.left() == n {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} folders are left, not {n}", self.left());
    }
}

#[tokio::test]
async fn discarded_folders_go() {
    let place = place(false).unwrap();
    let tree = place.tree("a.c", b"a");
    let (gone, kept) = (place.used(&tree), place.used(&tree));
    let (inputs, scratch) = (gone.inputs.clone(), gone.scratch.clone());
    place.folders.discard(gone).await;
    place.leaves(2).await;
    assert!(!inputs.exists() && !scratch.exists() && kept.inputs.exists() && kept.scratch.exists());
}

#[tokio::test]
async fn what_waits_at_the_end_goes_too() {
    for in_memory in [false, true] {
        let Some(place) = place(in_memory) else { continue };
        let trees = ["a.c", "b.c"].map(|name| place.tree(name, b"text"));
        let folders: Vec<Folder> = (0..MAX_WAITING).map(|n| place.used(&trees[n % 2])).collect();
        // More than can wait.
        for folder in folders {
            place.folders.discard(folder).await;
        }
        place.tasks.stop(Duration::from_secs(60)).await;
        let last = place.used(&trees[0]);
        place.folders.discard(last).await;
        assert_eq!(place.left(), 0);
    }
}

#[tokio::test]
async fn large_inputs_stay_on_the_disk() {
    let Some(place) = place(true) else { return };
    let tree = place.tree("large", &vec![0; usize::try_from(MAX_COPIED_BYTES).unwrap() + 1]);
    let folder = place.folders.fresh(tree.skeleton(), true);
    assert!(!folder.in_memory && folder.inputs.starts_with(place.dir.path()));
}

#[tokio::test]
async fn inputs_stand_until_the_next_action() {
    let Some(place) = place(true) else { return };
    let [first, second] = ["a.c", "b.c"].map(|name| place.tree(name, b"text"));
    let folder = place.used(&first);
    let (inputs, scratch) = (folder.inputs.clone(), folder.scratch.clone());
    place.folders.discard(folder).await;
    place.leaves(1).await;
    assert!(inputs.join("a.c").exists() && !scratch.exists());
    // Not for a program that may list its folders.
    assert!(place.folders.fresh(second.skeleton(), false).assembled.is_none());
    let folder = place.used(&second);
    assert_eq!(folder.inputs, inputs);
    assert!(inputs.join("b.c").exists() && !inputs.join("a.c").exists());
    // Meanwhile another action has its own.
    let other = place.used(&second);
    assert_ne!(other.inputs, inputs);
    for folder in [folder, other] {
        place.folders.discard(folder).await;
    }
    place.leaves(2).await;
}

#[tokio::test]
async fn the_most_similar_inputs_are_chosen() {
    let Some(place) = place(true) else { return };
    let trees = ["a.c", "b.c", "c.c"].map(|name| place.tree(name, b"text"));
    let folders: Vec<Folder> = trees.iter().map(|tree| place.used(tree)).collect();
    let paths: Vec<PathBuf> = folders.iter().map(|folder| folder.inputs.clone()).collect();
    for folder in folders {
        place.folders.discard(folder).await;
    }
    assert_eq!(place.folders.fresh(trees[1].skeleton(), true).inputs, paths[1]);
    // None is like the other: what was used last is most likely to be in the processor's cache.
    assert_eq!(place.folders.fresh(place.tree("d.c", b"text").skeleton(), true).inputs, paths[2]);
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let Some(place) = place(true) else { return };
    let tree = place.tree("a.c", b"text");
    let folders: Vec<Folder> = (0..MAX_KEPT + 3).map(|_| place.used(&tree)).collect();
    for folder in folders {
        place.folders.discard(folder).await;
    }
    place.leaves(MAX_KEPT).await;
    let large = place.tree("large", &vec![1; usize::try_from(MAX_COPIED_BYTES).unwrap()]);
    let folders: Vec<Folder> = (0..3).map(|_| place.used(&large)).collect();
    for folder in folders {
        place.folders.discard(folder).await;
    }
    assert!(lock(&place.folders.kept).n_bytes() <= MAX_KEPT_BYTES);
}

#[test]
fn old_inputs_go() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    let Some(place) = place(true) else { return };
    let trees = ["a.c", "b.c"].map(|name| place.tree(name, b"text"));
    let (start, mut kept) = (Instant::now(), Kept::default());
    for (seconds, tree) in trees.iter().enumerate() {
        let path = place.dir.path().join(seconds.to_string());
        let assembled = Assembled::make(&place.store, tree, path).unwrap();
        assert_eq!(kept.keep(assembled, start + Duration::from_secs(seconds as u64)), Vec::<PathBuf>::new());
    }
    assert_eq!(kept.next_end(), Some(start + KEPT_FOR));
    assert_eq!(kept.take_old(start + KEPT_FOR - Duration::from_millis(1)), None);
    assert_eq!(kept.take_old(start + KEPT_FOR), Some(place.dir.path().join("0")));
    assert_eq!(kept.take_old(start + KEPT_FOR), None);
    assert_eq!(kept.take_all(), [place.dir.path().join("1")]);
    assert_eq!(kept.next_end(), None);
}
