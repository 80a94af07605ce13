//! Makes toolchains present: a folder for each, made once, shared by every action that uses it.
//!
//! A folder appears by one rename, complete. After a start of the agent a toolchain is still held while the store has every blob of it, but
//! its folder is made anew before it is first used: the store looks at the content of what it links for the first time since its start, and
//! nothing else would show what a disk or a loss of power has done to it meanwhile. While a toolchain is held its blobs are pinned, so that
//! it can be handed on to other agents.
//! What is being made is made to its end, though the action that asked for it may be done elsewhere by then: the next one needs it too.
//! Not here: where files of Nix store paths are had besides from peers (`nix_sources`); which toolchain an action needs.
//!
//! On disk: `toolchains/<hex>-<size>/{root/, description}`; names that start with a dot are being made or removed.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_p2p::tasks::Tasks;
use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::limits::MAX_COMMAND_BYTES;
use buildbee_proto::toolchain::{Toolchain, ToolchainId};
use buildbee_store::{Store, Worth};
use tokio::sync::Semaphore;

use crate::exchange::fetch::{Fetcher, Sources};
use crate::exchange::small::Small;
use crate::flight::{Flights, Passenger};
use crate::owner::gate::{Gate, handed_back};
use crate::workspace::materialise::materialise;
use crate::workspace::tree::{self, Elsewhere, Tree};

/// Toolchains kept as folders; the least recently used go first.
pub const MAX_TOOLCHAINS: usize = 32;
/// Their files have one of so many bytes of the store at most, where some of them are idle: what is kept can't be evicted. With the second
/// inodes of executables that is half of it.
const STORE_SHARE: u64 = 4;
/// Toolchains that are made to their end though nobody waits for them any more; further ones are given up, and gone on with later.
const MAX_KEPT: usize = 4;
/// Times that a toolchain is asked for again because somebody else's attempt to make it failed.
const MAX_TRIES: usize = 3;

/// What programs run on this machine, as in [`Toolchain::host`].
pub fn host() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// A toolchain that is there, and stays while this is held.
#[derive(Debug)]
pub struct Present {
    root: PathBuf,
    contents: HashSet<Digest>,
    tree: Tree,
}

impl Present {
    /// The folder that an action's inputs are laid over.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The digests of all its files.
    pub fn contents(&self) -> &HashSet<Digest> {
        &self.contents
    }
}

type Made = Result<Arc<Present>, WireError>;

/// All toolchains here. Clones share them.
#[derive(Clone, Debug)]
pub struct Toolchains {
    inner: Arc<Inner>,
    making: Arc<Flights<ToolchainId, Made>>,
    kept: Arc<Semaphore>,
    tasks: Tasks,
    gate: Gate,
}

/// What toolchains are made with.
#[derive(Debug)]
pub struct Making {
    /// Where their content goes.
    pub store: Store,
    /// Where they are made.
    pub tasks: Tasks,
    /// Nothing is made for others while the machine's owner wants it.
    pub gate: Gate,
    /// Told what comes and goes.
    pub changed: Box<dyn Changed>,
    /// Where files are had besides from peers.
    pub elsewhere: Option<Box<dyn Elsewhere>>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    store: Store,
    held: Mutex<HashMap<ToolchainId, Held>>,
    clock: AtomicU64,
    changed: Box<dyn Changed>,
    elsewhere: Option<Box<dyn Elsewhere>>,
}

/// Told when a toolchain came or went.
pub trait Changed: Send + Sync + std::fmt::Debug {
    /// It did.
    fn changed(&self);
}

#[derive(Debug)]
struct Held {
    present: Arc<Present>,
    used: u64,
    /// Made since the start, and not only left by an earlier one.
    is_made: bool,
}

impl Toolchains {
    /// Opens `dir`, making it if need be: takes up what is good there and removes the rest. Touches the disk.
    pub fn open(dir: &Path, making: Making) -> io::Result<Self> {
        let Making { store, tasks, gate, changed, elsewhere } = making;
        fs::create_dir_all(dir)?;
        let held = Mutex::default();
        let inner = Inner { dir: dir.to_owned(), store, held, clock: AtomicU64::new(0), changed, elsewhere };
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match inner.take_up(&path) {
                Some((id, present)) => {
                    tracing::debug!(toolchain = %id, "taken up");
                    inner.hold(id, present, false);
                }
                None => remove(&path),
            }
        }
        let making = Arc::new(Flights::new("toolchain", tasks.clone()));
        Ok(Self { inner: Arc::new(inner), making, kept: Arc::new(Semaphore::new(MAX_KEPT)), tasks, gate })
    }

    /// Those that are wholly present, in order.
    pub fn held(&self) -> Vec<ToolchainId> {
        let mut ids: Vec<ToolchainId> = self.inner.lock().keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Gives up toolchains that hold one of these, which were found bad: the next action that needs one has it made anew. How many. What
    /// runs in one has its folder to its end; that goes with the next start. Touches the disk.
    pub fn discard(&self, bad: &[Digest]) -> usize {
        let doomed: Vec<_> = {
            let mut held = self.inner.lock();
            let has_bad = |held: &Held| bad.iter().any(|digest| held.present.contents.contains(digest));
            let ids: Vec<ToolchainId> = held.iter().filter(|(_, held)| has_bad(held)).map(|(id, _)| *id).collect();
            ids.into_iter().filter_map(|id| self.inner.move_away(&mut held, id)).collect()
        };
        for (folder, present) in &doomed {
            tracing::warn!(folder = %folder.display(), "a toolchain holds bytes that were found bad, and is made anew");
            if Arc::strong_count(present) == 1 {
                remove(folder);
            }
        }
        if !doomed.is_empty() {
            self.inner.changed.changed();
        }
        doomed.len()
    }

    /// `toolchain`, made present from `sources` if it is not. Cancel-safe.
    pub async fn present(&self, toolchain: &Toolchain, fetcher: &Fetcher, sources: &Sources) -> Made {
        let here = host();
        if toolchain.host != here {
            let why = format!("programs of this toolchain run on {:?}, this is {here}", toolchain.host);
            return Err(WireError::new(ErrorCode::Toolchain, Retry::OtherAgent, why));
        }
        let id = toolchain.id();
        let mut n_tries = 0;
        loop {
            if let Some(present) = self.inner.touch(id) {
                return Ok(present);
            }
            let mut passenger = self.making.join(id, |cancel, _progress| {
                let (inner, fetcher, sources) = (Arc::clone(&self.inner), fetcher.clone(), sources.clone());
                let (toolchain, gate) = (toolchain.clone(), self.gate.clone());
                async move {
                    // The run before this one may have ended between the look above and now.
                    if let Some(present) = inner.touch(id) {
                        return Ok(present);
                    }
                    let making = Box::pin(inner.make(id, toolchain, &fetcher, &sources));
                    tokio::select! {
                        made = making => made,
                        () = cancel.cancelled() => Err(cancelled()),
                        // What came stays, and the next time goes on from there.
                        () = gate.closed() => Err(handed_back()),
                    }
                }
            });
            if passenger.pilot {
                self.keep(&passenger);
            }
            n_tries += 1;
            match passenger.landed().await {
                Some(Ok(present)) => return Ok(present),
                // It failed with the sources of another action; ours may do better.
                Some(Err(_)) if !passenger.pilot && n_tries < MAX_TRIES => {}
                Some(Err(error)) => return Err(error),
                None => {
                    return Err(WireError::new(ErrorCode::Internal, Retry::OtherAgent, "making a toolchain failed"));
                }
            }
        }
    }
}

impl Toolchains {
    /// Waits for what is being made as long as it is: it ends by itself when nothing comes any more.
    fn keep(&self, making: &Passenger<ToolchainId, Made>) {
        let Ok(turn) = Arc::clone(&self.kept).try_acquire_owned() else { return };
        let Some(mut keeper) = making.beside() else { return };
        self.tasks.spawn("keep a toolchain", async move {
            drop(keeper.landed().await);
            drop(turn);
        });
    }
}

fn cancelled() -> WireError {
    WireError::new(ErrorCode::Cancelled, Retry::SameAgent, "cancelled")
}

fn failed(error: &io::Error) -> WireError {
    WireError::new(ErrorCode::Storage, Retry::OtherAgent, format!("a toolchain can't be made present: {error}"))
}

impl Inner {
    // Every critical section is one map operation, so a panic elsewhere leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<ToolchainId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// One that can be used as it is.
    fn touch(&self, id: ToolchainId) -> Option<Arc<Present>> {
        let now = self.tick();
        let mut held = self.lock();
        let entry = held.get_mut(&id).filter(|entry| entry.is_made)?;
        entry.used = now;
        Some(Arc::clone(&entry.present))
    }

    fn hold(&self, id: ToolchainId, present: Arc<Present>, is_made: bool) {
        let used = self.tick();
        self.store.use_as(present.contents.iter().copied(), Worth::Toolchain);
        self.lock().insert(id, Held { present, used, is_made });
    }

    /// Takes one out of the way under the lock, so that it can be made anew at once; what is left to be removed takes longer.
    fn move_away(&self, held: &mut HashMap<ToolchainId, Held>, id: ToolchainId) -> Option<(PathBuf, Arc<Present>)> {
        let present = held.remove(&id)?.present;
        let doomed = self.dir.join(format!(".old-{}-{}", id.0.short(), self.tick()));
        match fs::rename(self.dir.join(id.to_string()), &doomed) {
            Ok(()) => Some((doomed, present)),
            Err(error) => {
                tracing::warn!(toolchain = %id, %error, "can't be moved out of the way");
                None
            }
        }
    }

    /// What is too much: more than are kept, or more than the store can spare.
    fn is_too_much(&self, held: &HashMap<ToolchainId, Held>) -> bool {
        let n_bytes = held.values().fold(0u64, |sum, held| sum.saturating_add(held.present.tree.skeleton().n_bytes()));
        held.len() > MAX_TOOLCHAINS || n_bytes > self.store.usage().max_bytes / STORE_SHARE
    }

    /// Holds one more and removes what is too much, but nothing that an action uses.
    fn hold_bounded(&self, id: ToolchainId, present: Arc<Present>) {
        self.hold(id, present, true);
        loop {
            let mut held = self.lock();
            if !self.is_too_much(&held) {
                break;
            }
            let idle = held.iter().filter(|(other, entry)| **other != id && Arc::strong_count(&entry.present) == 1);
            let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id) else { break };
            let moved = self.move_away(&mut held, oldest);
            drop(held);
            if let Some((doomed, present)) = moved {
                // It was wanted until now.
                self.store.use_as(present.contents.iter().copied(), Worth::Toolchain);
                remove(&doomed);
            }
        }
        self.changed.changed();
    }

    fn take_up(&self, path: &Path) -> Option<(ToolchainId, Arc<Present>)> {
        let name = path.file_name()?.to_str()?;
        let description = path.join("description");
        if fs::metadata(&description).ok()?.len() > MAX_COMMAND_BYTES as u64 {
            return None;
        }
        let toolchain = Toolchain::from_canonical(&fs::read(&description).ok()?).ok()?;
        if toolchain.id().to_string() != name {
            return None;
        }
        let tree = tree::load_present(&self.store, &Small::default(), toolchain.root).ok()??;
        Some((toolchain.id(), present(path, tree)))
    }

    async fn make(
        self: &Arc<Self>,
        id: ToolchainId,
        toolchain: Toolchain,
        fetcher: &Fetcher,
        sources: &Sources,
    ) -> Made {
        let mut n_lost = 0;
        let made = loop {
            let (small, root, elsewhere) = (Small::default(), toolchain.root, self.elsewhere.as_deref());
            let tree = Box::pin(tree::load_from(&self.store, &small, fetcher, sources, elsewhere, root)).await?;
            let (inner, toolchain) = (Arc::clone(self), toolchain.clone());
            // Runs to its end even if nobody waits any more: the folder it leaves is a good one.
            let made = tokio::task::spawn_blocking(move || inner.build_and_hold(id, &toolchain, tree));
            match made.await.map_err(|error| WireError::new(ErrorCode::Internal, Retry::OtherAgent, error))? {
                // A blob turned out to be bad when it was linked, and is gone from the store: it comes anew.
                Err(error) if error.retry == Retry::SameAgent && n_lost < tree::MAX_LOST => n_lost += 1,
                made => break made?,
            }
        };
        tracing::info!(toolchain = %id.0.short(), n_files = made.contents.len(), n_lost, "toolchain is present");
        Ok(made)
    }

    fn build_and_hold(&self, id: ToolchainId, toolchain: &Toolchain, tree: Tree) -> Made {
        let place = self.dir.join(id.to_string());
        let fresh = self.dir.join(format!(".new-{}-{}", id.0.short(), self.tick()));
        if let Err(error) = self.build(toolchain, &tree, &fresh, &place) {
            remove(&fresh);
            return Err(error);
        }
        let present = present(&place, tree);
        self.hold_bounded(id, Arc::clone(&present));
        Ok(present)
    }

    fn build(&self, toolchain: &Toolchain, tree: &Tree, fresh: &Path, place: &Path) -> Result<(), WireError> {
        fs::create_dir(fresh).map_err(|error| failed(&error))?;
        materialise(&self.store, tree, &|_| false, &fresh.join("root"))?;
        fs::write(fresh.join("description"), toolchain.to_canonical()).map_err(|error| failed(&error))?;
        // What an earlier start has left, and nothing uses.
        remove(place);
        fs::rename(fresh, place).map_err(|error| failed(&error))
    }
}

fn present(place: &Path, tree: Tree) -> Arc<Present> {
    let contents = tree.files().iter().copied().collect();
    Arc::new(Present { root: place.join("root"), contents, tree })
}

/// Removes a folder of ours; it may not exist. What can't be removed is tried again at the next start.
fn remove(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "can't be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use buildbee_proto::tree::{Directory, FileNode, Twin};
    use buildbee_store::{Durability, Options};

    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl Changed for Nobody {
        fn changed(&self) {}
    }

    struct Bed {
        dir: tempfile::TempDir,
        store: Store,
        tasks: Tasks,
    }

    impl Bed {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = Options { max_bytes: 1 << 20, durability: Durability::Asked };
            let (store, _) = Store::open_packed(&dir.path().join("store"), &options).unwrap();
            Self { dir, store, tasks: Tasks::new() }
        }

        fn open(&self) -> Toolchains {
            let gate = Gate::new().1;
            let making = Making {
                store: self.store.clone(),
                tasks: self.tasks.clone(),
                gate,
                changed: Box::new(Nobody),
                elsewhere: None,
            };
            Toolchains::open(&self.folder(), making).unwrap()
        }

        fn folder(&self) -> PathBuf {
            self.dir.path().join("toolchains")
        }

        fn names(&self) -> Vec<String> {
            fs::read_dir(self.folder())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        }

        /// One of a single program, all of it in the store.
        fn toolchain(&self, program: &[u8]) -> Toolchain {
            let digest = self.store.put_bytes(program).unwrap();
            let file = FileNode { name: "cc".try_into().unwrap(), digest, executable: true, twin: Twin::default() };
            let root = Directory { files: vec![file], ..Directory::default() };
            let root = self.store.put_bytes(&root.to_canonical()).unwrap();
            Toolchain { root, host: host(), label: "test".to_owned() }
        }

        fn make(&self, toolchains: &Toolchains, toolchain: &Toolchain) -> PathBuf {
            let inner = &toolchains.inner;
            let tree = tree::load_present(&self.store, &Small::default(), toolchain.root).unwrap().unwrap();
            let place = inner.dir.join(toolchain.id().to_string());
            inner.build(toolchain, &tree, &inner.dir.join(format!(".new-{}", inner.tick())), &place).unwrap();
            inner.hold_bounded(toolchain.id(), present(&place, tree));
            place
        }
    }

    /// What a process leaves that is killed at each step of making one, and what a loss of power may leave.
    #[tokio::test]
    async fn only_what_is_whole_is_taken_up() {
        let bed = Bed::new();
        let toolchain = bed.toolchain(b"compiler");
        let place = bed.folder().join(toolchain.id().to_string());
        let unfinished = bed.folder().join(".new-1");
        let remove_file = |name: &str| fs::remove_file(place.join(name)).unwrap();
        let damages: [(&str, &dyn Fn()); 3] = [
            ("made, but for its name", &|| fs::rename(&place, &unfinished).unwrap()),
            ("no description", &|| remove_file("description")),
            ("a torn description", &|| fs::write(place.join("description"), b"bbT").unwrap()),
        ];
        for (what, damage) in damages {
            bed.make(&bed.open(), &toolchain);
            assert_eq!(bed.open().held(), [toolchain.id()], "{what}: before");
            damage();
            let toolchains = bed.open();
            assert_eq!(toolchains.held(), [], "{what}");
            assert!(bed.names().is_empty(), "{what}: nothing is left");
            let made = bed.make(&toolchains, &toolchain);
            assert_eq!(fs::read(made.join("root/cc")).unwrap(), b"compiler", "{what}: made anew");
        }
        // What was evicted or found bad meanwhile is not made up for by links.
        bed.store.clear();
        assert_eq!(bed.open().held(), []);
    }

    #[tokio::test]
    async fn one_with_bad_bytes_is_given_up_and_stays_for_who_runs_in_it() {
        let bed = Bed::new();
        let (good, bad) = (bed.toolchain(b"good"), bed.toolchain(b"bad"));
        let toolchains = bed.open();
        let place = bed.make(&toolchains, &bad);
        bed.make(&toolchains, &good);
        let used = toolchains.inner.touch(bad.id()).unwrap();
        let inode = fs::metadata(place.join("root/cc")).unwrap().ino();
        assert_eq!(toolchains.discard(&[Digest::of(b"neither")]), 0);
        assert_eq!(toolchains.discard(&[Digest::of(b"bad")]), 1);
        assert_eq!(toolchains.held(), [good.id()]);
        let left: Vec<_> = bed.names().into_iter().filter(|name| name.starts_with(".old-")).collect();
        assert_eq!(fs::metadata(bed.folder().join(&left[0]).join("root/cc")).unwrap().ino(), inode);
        drop(used);
        assert_eq!(toolchains.discard(&[Digest::of(b"good")]), 1);
        assert_eq!(bed.names(), left);
        drop(toolchains);
        assert_eq!(bed.open().held(), []);
        assert!(bed.names().is_empty());
    }

    #[tokio::test]
    async fn idle_ones_leave_room_in_the_store() {
        let bed = Bed::new();
        let toolchains = bed.open();
        let all: Vec<Toolchain> = (0..6u8).map(|n| bed.toolchain(&vec![n; 60_000])).collect();
        for toolchain in &all {
            bed.make(&toolchains, toolchain);
        }
        let mut last: Vec<ToolchainId> = all[2..].iter().map(Toolchain::id).collect();
        last.sort_unstable();
        assert_eq!(toolchains.held(), last, "four of them have less than a quarter of a MiB");
    }
}
