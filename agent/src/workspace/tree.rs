//! Makes a Merkle tree of directories wholly present in the store: level by level its directories, then all its files.
//!
//! Trees come from peers. They are decoded strictly, and what they would unfold to is bounded before anything is made of it: a few
//! directories that name each other again and again describe more files than any disk holds. Not here: making folders.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use buildbee_proto::canonical::{Canonical, CanonicalError};
use buildbee_proto::digest::{Digest, DigestFunction};
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::limits::{MAX_BLOB_BYTES, MAX_DIRECTORY_BYTES, MAX_PATH_DEPTH, MAX_TREE_ENTRIES};
use buildbee_proto::tree::Directory;
use buildbee_store::{Pin, ReadError, Store};
use futures::future::BoxFuture;
use thiserror::Error;
use tokio::task::JoinError;

use crate::exchange::fetch::{FetchError, Fetcher, Sources};
use crate::exchange::small::{Content, Small};

/// Directory blobs of one tree, in bytes.
const MAX_TREE_DIRECTORY_BYTES: u64 = 256 << 20;
/// All content that one tree unfolds to, in bytes, each file counted as often as it stands there.
const MAX_TREE_BYTES: u64 = 64 << 30;
/// Directories of a tree that are decoded at once on the event loop: a millisecond's work.
const MAX_REMEMBERED_DIRECTORIES: usize = 256;

/// Blobs of one tree that may turn out to be bad while it is made a folder, and are fetched anew.
pub const MAX_LOST: usize = 64;

/// Why a tree is not to be had.
#[derive(Debug, Error)]
pub enum TreeError {
    /// Bytes that are no directory.
    #[error("directory {digest} is malformed: {source}")]
    Malformed {
        /// Which.
        digest: Digest,
        /// What is wrong.
        source: CanonicalError,
    },
    /// Too many entries, too deep, too large, or named by a hash that is not checked here.
    #[error("tree {root} is refused: {why}")]
    Bounds {
        /// The tree.
        root: Digest,
        /// Which bound.
        why: &'static str,
    },
    /// A blob can't be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A blob can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A blob was there and is not any more: it was found bad.
    #[error("blob {0} was lost")]
    Lost(Digest),
    /// A bug.
    #[error("reading a tree ended early: {0}")]
    Task(#[from] JoinError),
}

impl From<TreeError> for WireError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Fetch(error) => error.into(),
            TreeError::Malformed { .. } | TreeError::Bounds { .. } => {
                Self::new(ErrorCode::Invalid, Retry::Never, error)
            }
            TreeError::Read(_) => Self::new(ErrorCode::Storage, Retry::OtherAgent, error),
            TreeError::Lost(_) => Self::new(ErrorCode::Storage, Retry::SameAgent, error),
            TreeError::Task(_) => Self::new(ErrorCode::Internal, Retry::OtherAgent, error),
        }
    }
}

/// Directories by digest.
pub type Directories = HashMap<Digest, Directory>;

/// The directories of a tree. They keep no content.
#[derive(Debug)]
pub struct Skeleton {
    root: Digest,
    directories: Directories,
    /// Files, folders and symlinks, each counted as often as it stands there.
    n_entries: u64,
    n_bytes: u64,
}

impl Skeleton {
    /// Its root directory.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// One of its directories.
    pub fn directory(&self, digest: &Digest) -> Option<&Directory> {
        self.directories.get(digest)
    }

    /// All of them.
    pub fn directories(&self) -> &Directories {
        &self.directories
    }

    /// Of at most `n` of these directories, how many are `other`'s too.
    pub fn n_shared(&self, other: &Self, n: usize) -> usize {
        self.directories.keys().take(n).filter(|digest| other.directories.contains_key(digest)).count()
    }

    /// Files, folders and symlinks, each counted as often as it stands there.
    pub fn n_entries(&self) -> u64 {
        self.n_entries
    }

    /// Bytes of all files, each counted as often as it stands there.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

/// A tree that is wholly in the store or in memory, and stays there while this lives.
#[derive(Debug)]
pub struct Tree {
    skeleton: Arc<Skeleton>,
    files: Vec<Digest>,
    /// Files that may not be in the store.
    contents: HashMap<Digest, Content>,
    pins: Vec<Pin>,
}

impl Tree {
    /// Its directories.
    pub fn skeleton(&self) -> &Arc<Skeleton> {
        &self.skeleton
    }

    /// Its root directory.
    pub fn root(&self) -> Digest {
        self.skeleton.root
    }

    /// One of its directories.
    pub fn directory(&self, digest: &Digest) -> Option<&Directory> {
        self.skeleton.directory(digest)
    }

    /// Its distinct files, in order.
    pub fn files(&self) -> &[Digest] {
        &self.files
    }

    /// The content of a file that may not be in the store.
    pub fn content(&self, digest: &Digest) -> Option<&[u8]> {
        self.contents.get(digest).map(AsRef::as_ref)
    }

    /// The blobs it keeps from being evicted.
    pub fn n_pinned(&self) -> usize {
        self.pins.iter().map(|pin| pin.digests().len()).sum()
    }
}

/// Where files of a tree may be had besides from peers. It stores what it has, checked, and says nothing of what it has not.
pub trait Elsewhere: Send + Sync + std::fmt::Debug {
    /// Asked for the `missing` files of the tree below `root` before peers are.
    fn near<'a>(&'a self, root: Digest, known: &'a Directories, missing: &'a [Digest]) -> BoxFuture<'a, ()>;
    /// Asked for what no peer has.
    fn far<'a>(&'a self, root: Digest, known: &'a Directories, missing: &'a [Digest]) -> BoxFuture<'a, ()>;
}

/// The tree below `root`: what is missing is fetched. Cancel-safe: what came so far stays in the store, unpinned.
pub async fn load(
    store: &Store,
    small: &Small,
    fetcher: &Fetcher,
    sources: &Sources,
    root: Digest,
) -> Result<Tree, TreeError> {
    load_from(store, small, fetcher, sources, None, root).await
}

/// The same, with what is had `elsewhere`.
pub async fn load_from(
    store: &Store,
    small: &Small,
    fetcher: &Fetcher,
    sources: &Sources,
    elsewhere: Option<&dyn Elsewhere>,
    root: Digest,
) -> Result<Tree, TreeError> {
    // Mostly all of it is there, sent along or from the action before: one look, not one for each level.
    if let Some(tree) = load_remembered(store, small, root)? {
        return Ok(tree);
    }
    let (reader, known) = (store.clone(), small.clone());
    if let Some(tree) = tokio::task::spawn_blocking(move || load_present(&reader, &known, root)).await?? {
        return Ok(tree);
    }
    let mut gathering = Gathering::new(root);
    let mut pins = Vec::new();
    while let Some(level) = gathering.next_level()? {
        // Pinned first, so that what is there or arrives can't be evicted by what arrives after it.
        pins.push(store.pin(level.iter().copied()));
        let lacking: Vec<Digest> = level.iter().filter(|digest| !small.contains(digest)).copied().collect();
        fetcher.fetch(&lacking, sources).await?;
        let (reader, known) = (store.clone(), small.clone());
        gathering = tokio::task::spawn_blocking(move || {
            for digest in &level {
                gathering.absorb(*digest, &read(&reader, &known, digest)?)?;
            }
            Ok::<_, TreeError>(gathering)
        })
        .await??;
    }
    let (files, skeleton) = gathering.measured()?;
    pins.push(store.pin(files.iter().copied()));
    let (contents, missing) = contents(store, small, &files);
    if let Some(elsewhere) = elsewhere {
        elsewhere.near(root, skeleton.directories(), &missing).await;
    }
    match (fetcher.fetch(&missing, sources).await, elsewhere) {
        (Err(FetchError::Store(error)), _) => return Err(FetchError::Store(error).into()),
        (Err(_), Some(elsewhere)) => {
            elsewhere.far(root, skeleton.directories(), &store.missing(&missing)).await;
            // It had ended with the first that could not be had: others may still come from peers.
            fetcher.fetch(&missing, sources).await?;
        }
        (fetched, _) => fetched?,
    }
    Ok(Tree { skeleton: Arc::new(skeleton), files, contents, pins })
}

/// The tree below `root` if the store or `small` has all of it. Touches the disk.
pub fn load_present(store: &Store, small: &Small, root: Digest) -> Result<Option<Tree>, TreeError> {
    load_read(store, small, root, |digest| read(store, small, digest).ok())
}

/// The same if `small` has all directories, and they are few. *In memory.*
fn load_remembered(store: &Store, small: &Small, root: Digest) -> Result<Option<Tree>, TreeError> {
    let mut n_left = MAX_REMEMBERED_DIRECTORIES;
    load_read(store, small, root, |digest| {
        n_left = n_left.checked_sub(1)?;
        small.get(digest)
    })
}

fn load_read(
    store: &Store,
    small: &Small,
    root: Digest,
    mut read: impl FnMut(&Digest) -> Option<Content>,
) -> Result<Option<Tree>, TreeError> {
    let mut gathering = Gathering::new(root);
    let mut pins = Vec::new();
    while let Some(level) = gathering.next_level()? {
        pins.push(store.pin(level.iter().copied()));
        for digest in level {
            let Some(bytes) = read(&digest) else { return Ok(None) };
            gathering.absorb(digest, &bytes)?;
        }
    }
    let (files, skeleton) = gathering.measured()?;
    pins.push(store.pin(files.iter().copied()));
    let (contents, missing) = contents(store, small, &files);
    if !missing.is_empty() {
        return Ok(None);
    }
    Ok(Some(Tree { skeleton: Arc::new(skeleton), files, contents, pins }))
}

/// What of `files` is in memory alone, and what is nowhere.
fn contents(store: &Store, small: &Small, files: &[Digest]) -> (HashMap<Digest, Content>, Vec<Digest>) {
    let mut missing = store.missing(files);
    let mut contents = HashMap::new();
    missing.retain(|digest| match small.get(digest) {
        Some(content) => contents.insert(*digest, content).is_some(),
        None => true,
    });
    (contents, missing)
}

fn read(store: &Store, small: &Small, digest: &Digest) -> Result<Content, TreeError> {
    if let Some(content) = small.get(digest) {
        return Ok(content);
    }
    let bytes = store.read(digest, MAX_DIRECTORY_BYTES as u64)?.ok_or(TreeError::Lost(*digest))?;
    small.keep(*digest, &bytes);
    Ok(bytes.into())
}

/// The directories known so far, and those that they name.
#[derive(Debug)]
struct Gathering {
    root: Digest,
    directories: Directories,
    asked: HashSet<Digest>,
    next: Vec<Digest>,
    n_bytes: u64,
    n_levels: usize,
}

impl Gathering {
    fn new(root: Digest) -> Self {
        let asked = HashSet::from([root]);
        Self { root, directories: HashMap::new(), asked, next: vec![root], n_bytes: 0, n_levels: 0 }
    }

    fn refused<T>(&self, why: &'static str) -> Result<T, TreeError> {
        Err(TreeError::Bounds { root: self.root, why })
    }

    /// Directories to read next, each once; `None` when all are known.
    fn next_level(&mut self) -> Result<Option<Vec<Digest>>, TreeError> {
        if self.next.is_empty() {
            return Ok(None);
        }
        self.n_levels += 1;
        if self.n_levels > MAX_PATH_DEPTH {
            return self.refused("too deep");
        }
        let level = std::mem::take(&mut self.next);
        self.n_bytes = level.iter().fold(self.n_bytes, |sum, digest| sum.saturating_add(digest.size_bytes));
        if self.n_bytes > MAX_TREE_DIRECTORY_BYTES
            || level.iter().any(|digest| digest.size_bytes > MAX_DIRECTORY_BYTES as u64)
        {
            return self.refused("its directories are too large");
        }
        if level.iter().any(|digest| digest.function != DigestFunction::Blake3) {
            return self.refused("a directory is not named by BLAKE3");
        }
        Ok(Some(level))
    }

    fn absorb(&mut self, digest: Digest, bytes: &[u8]) -> Result<(), TreeError> {
        let directory = Directory::from_canonical(bytes).map_err(|source| TreeError::Malformed { digest, source })?;
        for child in &directory.directories {
            if self.asked.insert(child.digest) {
                self.next.push(child.digest);
            }
        }
        self.directories.insert(digest, directory);
        if self.asked.len() > MAX_TREE_ENTRIES {
            return self.refused("too many directories");
        }
        Ok(())
    }

    /// The distinct files, and all directories, once the whole tree is known to be of a reasonable size.
    fn measured(self) -> Result<(Vec<Digest>, Skeleton), TreeError> {
        let mut known = HashMap::new();
        let size = self.unfold(&self.root, 0, &mut known)?;
        if size.entries > MAX_TREE_ENTRIES as u64 {
            return self.refused("too many entries");
        }
        if size.bytes > MAX_TREE_BYTES {
            return self.refused("too large");
        }
        let nodes = || self.directories.values().flat_map(|directory| &directory.files);
        if nodes().any(|file| file.digest.function != DigestFunction::Blake3 || file.digest.size_bytes > MAX_BLOB_BYTES)
        {
            return self.refused("a file is too large or not named by BLAKE3");
        }
        let mut files: Vec<Digest> = nodes().map(|file| file.digest).collect();
        files.sort_unstable();
        files.dedup();
        let Self { root, directories, .. } = self;
        Ok((files, Skeleton { root, directories, n_entries: size.entries, n_bytes: size.bytes }))
    }

    /// What `digest` unfolds to. Recursion ends at [`MAX_PATH_DEPTH`], however the directories name each other.
    fn unfold(&self, digest: &Digest, depth: usize, known: &mut HashMap<Digest, Size>) -> Result<Size, TreeError> {
        let too_deep = depth + known.get(digest).map_or(0, |size| size.levels) > MAX_PATH_DEPTH;
        if too_deep {
            return self.refused("too deep");
        }
        if let Some(size) = known.get(digest) {
            return Ok(*size);
        }
        let Some(directory) = self.directories.get(digest) else { return Err(TreeError::Lost(*digest)) };
        let n_own = directory.files.len() + directory.symlinks.len() + directory.directories.len();
        let n_bytes = directory.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.digest.size_bytes));
        let mut size = Size { entries: n_own as u64, bytes: n_bytes, levels: 1 };
        for child in &directory.directories {
            let below = self.unfold(&child.digest, depth + 1, known)?;
            size.entries = size.entries.saturating_add(below.entries);
            size.bytes = size.bytes.saturating_add(below.bytes);
            size.levels = size.levels.max(below.levels + 1);
        }
        known.insert(*digest, size);
        Ok(size)
    }
}

/// Numbers of what a directory unfolds to.
#[derive(Clone, Copy, Debug)]
struct Size {
    entries: u64,
    bytes: u64,
    levels: usize,
}

#[cfg(test)]
mod tests {
    use buildbee_proto::tree::{DirectoryNode, FileNode, Twin};

    use super::*;

    fn name(text: &str) -> buildbee_proto::path::PathComponent {
        text.try_into().unwrap()
    }

    fn gather(directories: &[Directory], root: Digest) -> Result<Vec<Digest>, TreeError> {
        let known: HashMap<Digest, &Directory> = directories.iter().map(|each| (each.digest(), each)).collect();
        let mut gathering = Gathering::new(root);
        while let Some(level) = gathering.next_level()? {
            for digest in level {
                gathering.absorb(digest, &known[&digest].to_canonical())?;
            }
        }
        gathering.measured().map(|(files, _)| files)
    }

    /// `n_levels` directories, each naming the next `n_children` times; one file at the bottom.
    fn chain(n_levels: usize, n_children: usize) -> (Vec<Directory>, Digest) {
        let file = FileNode { name: name("f"), digest: Digest::of(b"x"), executable: false, twin: Twin::default() };
        let mut all = vec![Directory { files: vec![file], ..Directory::default() }];
        for _ in 1..n_levels {
            let digest = all[all.len() - 1].digest();
            let directories = (0..n_children).map(|n| DirectoryNode { name: name(&format!("d{n}")), digest }).collect();
            all.push(Directory { directories, ..Directory::default() });
        }
        let root = all[all.len() - 1].digest();
        (all, root)
    }

    #[test]
    fn a_modest_tree_passes() {
        let (all, root) = chain(5, 3);
        assert_eq!(gather(&all, root).unwrap(), [Digest::of(b"x")]);
    }

    #[test]
    fn a_tree_that_unfolds_without_end_is_refused() {
        let (all, root) = chain(40, 10);
        assert!(matches!(gather(&all, root), Err(TreeError::Bounds { why: "too many entries", .. })));
    }

    #[test]
    fn depth_is_bounded() {
        let (all, root) = chain(MAX_PATH_DEPTH, 1);
        assert!(gather(&all, root).is_ok());
        let (all, root) = chain(MAX_PATH_DEPTH + 1, 1);
        assert!(matches!(gather(&all, root), Err(TreeError::Bounds { why: "too deep", .. })));
    }

    #[test]
    fn depth_is_bounded_where_levels_hide_it() {
        // The root names every directory of the chain, so that level by level there are but two levels.
        let (mut all, _) = chain(MAX_PATH_DEPTH + 5, 1);
        let directories = all
            .iter()
            .enumerate()
            .map(|(n, each)| DirectoryNode { name: name(&format!("d{n:04}")), digest: each.digest() })
            .collect();
        let root = Directory { directories, ..Directory::default() };
        all.push(root.clone());
        assert!(matches!(gather(&all, root.digest()), Err(TreeError::Bounds { why: "too deep", .. })));
    }

    #[test]
    fn foreign_digests_and_giants_are_refused() {
        for digest in [
            Digest { function: DigestFunction::Sha256, ..Digest::of(b"x") },
            Digest { size_bytes: MAX_BLOB_BYTES + 1, ..Digest::of(b"x") },
            Digest { size_bytes: u64::MAX, ..Digest::of(b"x") },
        ] {
            let files = vec![FileNode { name: name("f"), digest, executable: false, twin: Twin::default() }];
            let root = Directory { files, ..Directory::default() };
            assert!(
                matches!(gather(std::slice::from_ref(&root), root.digest()), Err(TreeError::Bounds { .. })),
                "{digest}"
            );
        }
    }

    #[test]
    fn malformed_directories_are_named() {
        let mut gathering = Gathering::new(Digest::of(b"junk"));
        assert!(matches!(
            gathering.absorb(Digest::of(b"junk"), b"junk"),
            Err(TreeError::Malformed { digest, .. }) if digest == Digest::of(b"junk")
        ));
    }
}
