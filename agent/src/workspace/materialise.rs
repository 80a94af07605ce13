//! A tree that is present becomes a folder: hard links to the store's read-only inodes, small files from memory, folders, symlinks.
//!
//! Names in a tree are single checked components and none stands twice in a directory, and every folder on the way is one that this
//! code has just made, so nothing is ever written through a symlink. Not here: fetching; running.
//!
//! Where the same content stands more than once, compilers tell the files apart when they meet `#pragma once`: clang by inode, gcc by
//! the second of the last change. The tree says which of them were one file for the client, and which were changed in the same second
//! ([`Twin`]); so it is here. One of them has the store's inode, the others are copies or links to copies.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::tree::{FileNode, SymlinkNode, Twin};
use buildbee_store::{LinkError, ReadError, Store};
use nix::errno::Errno;
use thiserror::Error;

use super::tree::Tree;

const DIRECTORY_MODE: u32 = 0o755;
/// Bytes of copies in one folder: they are on top of what the store may take.
const MAX_COPIED_BYTES: u64 = 2 << 30;

/// Why a folder was not made. What was made so far is the caller's to remove.
#[derive(Debug, Error)]
pub enum MaterialiseError {
    /// The store has lost it: it was found bad.
    #[error("blob {0} was lost")]
    Lost(Digest),
    /// The store could not hand it out.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The same content stands at many places.
    #[error("more than {MAX_COPIED_BYTES} bytes stand there more than once")]
    Copies,
    /// A path in the tree is longer than the system takes.
    #[error("path is too long: {}", .0.display())]
    TooLong(PathBuf),
    /// Anything else.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What was to be made.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<MaterialiseError> for WireError {
    fn from(error: MaterialiseError) -> Self {
        let (code, retry) = match error {
            MaterialiseError::TooLong(_) | MaterialiseError::Copies => (ErrorCode::Invalid, Retry::Never),
            MaterialiseError::Lost(_) => (ErrorCode::Storage, Retry::SameAgent),
            _ => (ErrorCode::Storage, Retry::OtherAgent),
        };
        Self::new(code, retry, error)
    }
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> MaterialiseError {
    |source| match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENAMETOOLONG) => MaterialiseError::TooLong(path.to_owned()),
        _ => MaterialiseError::Io { path: path.to_owned(), source },
    }
}

/// Makes `destination`, which must not exist, of `tree`, and tells where it made inodes. Contents that are `apart` get an inode of their
/// own: those that the program also sees in another layer, and all where `destination` is not on the store's file system. Touches the disk.
pub fn materialise(
    store: &Store,
    tree: &Tree,
    apart: &dyn Fn(&Digest) -> bool,
    destination: &Path,
) -> Result<Copies, MaterialiseError> {
    let mut making = Making::new(store, tree, apart, Copies::default());
    making.directory(&tree.root(), destination)?;
    Ok(making.copies)
}

/// Where each inode that is not the store's stands, by content, executability and number. As bounded as the tree is.
#[derive(Debug, Default)]
pub struct Copies(HashMap<(Digest, bool, u32), Vec<PathBuf>>);

impl Copies {
    fn inode(node: &FileNode) -> (Digest, bool, u32) {
        (node.digest, node.executable, node.twin.inode)
    }

    fn place(&self, node: &FileNode) -> Option<&PathBuf> {
        self.0.get(&Self::inode(node)).and_then(|places| places.first())
    }

    fn add(&mut self, node: &FileNode, path: &Path) {
        self.0.entry(Self::inode(node)).or_default().push(path.to_owned());
    }

    /// `path` is not there any more.
    pub(super) fn forget(&mut self, node: &FileNode, path: &Path) {
        let Entry::Occupied(mut places) = self.0.entry(Self::inode(node)) else { return };
        places.get_mut().retain(|place| place != path);
        if places.get().is_empty() {
            places.remove();
        }
    }
}

enum Source<'a> {
    Memory(&'a [u8]),
    Store(File),
}

/// A folder on its way to being a tree.
pub(super) struct Making<'a> {
    store: &'a Store,
    pub(super) tree: &'a Tree,
    apart: &'a dyn Fn(&Digest) -> bool,
    pub(super) copies: Copies,
    copies_left_bytes: u64,
}

impl<'a> Making<'a> {
    pub(super) fn new(store: &'a Store, tree: &'a Tree, apart: &'a dyn Fn(&Digest) -> bool, copies: Copies) -> Self {
        Self { store, tree, apart, copies, copies_left_bytes: MAX_COPIED_BYTES }
    }

    /// Makes `path`, which must not exist, with all that is below it.
    pub(super) fn directory(&mut self, digest: &Digest, path: &Path) -> Result<(), MaterialiseError> {
        let tree = self.tree;
        let directory = tree.directory(digest).ok_or(MaterialiseError::Lost(*digest))?;
        DirBuilder::new().mode(0o700).create(path).map_err(at(path))?;
        for file in &directory.files {
            self.file(file, &path.join(file.name.as_str()))?;
        }
        for child in &directory.directories {
            self.directory(&child.digest, &path.join(child.name.as_str()))?;
        }
        for link in &directory.symlinks {
            Self::symlink(link, &path.join(link.name.as_str()))?;
        }
        // Last, and not by the umask: what the program sees must not depend on who started this process.
        fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE)).map_err(at(path))
    }

    pub(super) fn symlink(node: &SymlinkNode, path: &Path) -> Result<(), MaterialiseError> {
        symlink(&node.target, path).map_err(at(path))
    }

    pub(super) fn file(&mut self, node: &FileNode, path: &Path) -> Result<(), MaterialiseError> {
        if node.twin != Twin::default() || (self.apart)(&node.digest) || self.tree.content(&node.digest).is_some() {
            return self.inode_apart(node, path);
        }
        match self.store.link(&node.digest, node.executable, path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(MaterialiseError::Lost(node.digest)),
            Err(LinkError::Io { destination, source }) => Err(at(&destination)(source)),
            Err(error) => Err(error.into()),
        }
    }

    fn inode_apart(&mut self, node: &FileNode, path: &Path) -> Result<(), MaterialiseError> {
        match self.copies.place(node) {
            Some(made) => fs::hard_link(made, path).map_err(at(path))?,
            None => self.copy(node, path)?,
        }
        self.copies.add(node, path);
        Ok(())
    }

    fn copy(&mut self, node: &FileNode, path: &Path) -> Result<(), MaterialiseError> {
        self.copies_left_bytes =
            self.copies_left_bytes.checked_sub(node.digest.size_bytes).ok_or(MaterialiseError::Copies)?;
        let mut source = match self.tree.content(&node.digest) {
            Some(content) => Source::Memory(content),
            None => Source::Store(self.store.open_blob(&node.digest)?.ok_or(MaterialiseError::Lost(node.digest))?),
        };
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
        // Linked blobs have the store's one time, which is the time of number 0.
        let time = buildbee_store::sealed_time() + Duration::from_secs(node.twin.second.into());
        match &mut source {
            Source::Memory(content) => copy.write_all(content),
            Source::Store(file) => io::copy(file, &mut copy).map(drop),
        }
        .and_then(|()| copy.set_permissions(Permissions::from_mode(if node.executable { 0o555 } else { 0o444 })))
        .and_then(|()| copy.set_times(FileTimes::new().set_modified(time).set_accessed(time)))
        .map_err(at(path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use buildbee_proto::canonical::Canonical;
    use buildbee_proto::tree::{Directory, DirectoryNode};
    use buildbee_store::{Durability, Options};

    use super::super::tree::load_present;
    use super::*;
    use crate::exchange::small::Small;

    fn store(folder: &Path) -> Store {
        let options = Options { max_bytes: 64 << 20, durability: Durability::Lazy };
        Store::open(&folder.join("store"), &options).unwrap().0
    }

    fn file(store: &Store, name: &str, content: &[u8], executable: bool) -> FileNode {
        let digest = store.put_bytes(content).unwrap();
        FileNode { name: name.try_into().unwrap(), digest, executable, twin: Twin::default() }
    }

    fn twin(store: &Store, name: &str, inode: u32, second: u32) -> FileNode {
        FileNode { twin: Twin { inode, second }, ..file(store, name, b"same", false) }
    }

    #[test]
    fn a_folder_is_what_the_tree_says() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let inner = Directory { files: vec![file(&store, "again.h", b"same", false)], ..Directory::default() };
        let inner = store.put_bytes(&inner.to_canonical()).unwrap();
        let root = Directory {
            files: vec![
                file(&store, "same.h", b"same", false),
                file(&store, "shared.h", b"shared", false),
                file(&store, "tool", b"tool", true),
            ],
            directories: vec![DirectoryNode { name: "inner".try_into().unwrap(), digest: inner }],
            symlinks: vec![SymlinkNode { name: "out".try_into().unwrap(), target: "/etc".to_owned() }],
        };
        let root = store.put_bytes(&root.to_canonical()).unwrap();
        let tree = load_present(&store, &Small::default(), root).unwrap().unwrap();
        let made = dir.path().join("made");
        let shared = Digest::of(b"shared");
        materialise(&store, &tree, &|digest| *digest == shared, &made).unwrap();

        let look = |name: &str| fs::symlink_metadata(made.join(name)).unwrap();
        assert_eq!(fs::read(made.join("inner/again.h")).unwrap(), b"same");
        assert_eq!((look("same.h").mode() & 0o7777, look("inner/again.h").mode() & 0o7777), (0o444, 0o444));
        assert_eq!((look("tool").mode() & 0o7777, look("inner").mode() & 0o7777), (0o555, 0o755));
        assert_eq!(fs::read_link(made.join("out")).unwrap(), Path::new("/etc"));
        assert_eq!(look("same.h").nlink(), 3, "the store's own inode, at both places");
        assert_eq!(look("shared.h").nlink(), 1);
        assert!(
            matches!(materialise(&store, &tree, &|_| false, &made), Err(MaterialiseError::Io { .. })),
            "never over something"
        );
    }

    #[test]
    fn twins_share_what_the_tree_says_that_they_share() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let below =
            Directory { files: vec![twin(&store, "e.h", 1, 0), twin(&store, "f.h", 2, 1)], ..Directory::default() };
        let below = store.put_bytes(&below.to_canonical()).unwrap();
        let files = ["a.h", "b.h", "c.h", "d.h"].into_iter().zip([(0, 0), (0, 0), (1, 0), (2, 1)]);
        let root = Directory {
            files: files.map(|(name, (inode, second))| twin(&store, name, inode, second)).collect(),
            directories: vec![DirectoryNode { name: "below".try_into().unwrap(), digest: below }],
            ..Directory::default()
        };
        let tree =
            load_present(&store, &Small::default(), store.put_bytes(&root.to_canonical()).unwrap()).unwrap().unwrap();
        let made = dir.path().join("made");
        materialise(&store, &tree, &|_| false, &made).unwrap();
        let look = |name: &str| fs::metadata(made.join(name)).unwrap();
        let inodes = ["a.h", "b.h", "c.h", "below/e.h", "d.h", "below/f.h"].map(|name| look(name).ino());
        assert!(inodes[0] == inodes[1] && inodes[2] == inodes[3] && inodes[4] == inodes[5], "{inodes:?}");
        assert!(inodes[0] != inodes[2] && inodes[2] != inodes[4] && inodes[0] != inodes[4], "{inodes:?}");
        let seconds = ["a.h", "c.h", "d.h", "below/f.h"].map(|name| look(name).mtime());
        assert!(seconds[0] == seconds[1] && seconds[1] != seconds[2] && seconds[2] == seconds[3], "{seconds:?}");
        // Where another layer has the content too, its inode is not theirs.
        let apart = dir.path().join("apart");
        materialise(&store, &tree, &|_| true, &apart).unwrap();
        let look = |name: &str| fs::metadata(apart.join(name)).unwrap();
        assert_eq!((look("a.h").nlink(), look("a.h").ino(), look("a.h").mtime()), (2, look("b.h").ino(), seconds[0]));

        let short = |copies_left_bytes| {
            let mut making = Making { copies_left_bytes, ..Making::new(&store, &tree, &|_| false, Copies::default()) };
            making.directory(&tree.root(), &dir.path().join(copies_left_bytes.to_string()))
        };
        assert!(short(8).is_ok(), "two copies of four bytes");
        assert!(matches!(short(7), Err(MaterialiseError::Copies)));
    }
}
