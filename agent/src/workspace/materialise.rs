//! A tree that is in the store becomes a folder: hard links to the store's read-only inodes, folders, symlinks.
//!
//! Names in a tree are single checked components and none stands twice in a directory, and every folder on the way is one that this
//! code has just made, so nothing is ever written through a symlink. Not here: fetching; running.
//!
//! Where the same content stands twice, only the first gets the store's inode: compilers tell files apart by inode (clang) or by
//! modification time, size and content (gcc) when they meet `#pragma once`. Copies have modification times of their own, so that
//! both take them for different files. That errs on the safe side: a program that relies on two copies being taken for one fails
//! here, and the failure is confirmed by a local run.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::tree::FileNode;
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

fn at(path: &Path) -> impl FnOnce(io::Error) -> MaterialiseError {
    |source| match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENAMETOOLONG) => MaterialiseError::TooLong(path.to_owned()),
        _ => MaterialiseError::Io { path: path.to_owned(), source },
    }
}

/// Makes `destination`, which must not exist, of `tree`. `elsewhere` says which contents the program also sees in another layer;
/// they are copied like those that stand twice. Touches the disk.
pub fn materialise(
    store: &Store,
    tree: &Tree,
    elsewhere: &dyn Fn(&Digest) -> bool,
    destination: &Path,
) -> Result<(), MaterialiseError> {
    let linked = HashSet::new();
    let mut making = Making { store, tree, elsewhere, linked, n_copies: 0, copies_left_bytes: MAX_COPIED_BYTES };
    making.directory(&tree.root(), destination)
}

struct Making<'a> {
    store: &'a Store,
    tree: &'a Tree,
    elsewhere: &'a dyn Fn(&Digest) -> bool,
    linked: HashSet<Digest>,
    n_copies: u64,
    copies_left_bytes: u64,
}

impl Making<'_> {
    fn directory(&mut self, digest: &Digest, path: &Path) -> Result<(), MaterialiseError> {
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
            let path = path.join(link.name.as_str());
            symlink(&link.target, &path).map_err(at(&path))?;
        }
        // Last, and not by the umask: what the program sees must not depend on who started this process.
        fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE)).map_err(at(path))
    }

    fn file(&mut self, node: &FileNode, path: &Path) -> Result<(), MaterialiseError> {
        if (self.elsewhere)(&node.digest) || !self.linked.insert(node.digest) {
            return self.copy(node, path);
        }
        match self.store.link(&node.digest, node.executable, path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(MaterialiseError::Lost(node.digest)),
            Err(LinkError::Io { destination, source }) => Err(at(&destination)(source)),
            Err(error) => Err(error.into()),
        }
    }

    fn copy(&mut self, node: &FileNode, path: &Path) -> Result<(), MaterialiseError> {
        self.copies_left_bytes =
            self.copies_left_bytes.checked_sub(node.digest.size_bytes).ok_or(MaterialiseError::Copies)?;
        let mut source: File = self.store.open_blob(&node.digest)?.ok_or(MaterialiseError::Lost(node.digest))?;
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
        self.n_copies += 1;
        let sealed = source.metadata().and_then(|metadata| metadata.modified());
        let time = sealed.map_err(at(path))? + Duration::from_secs(self.n_copies);
        io::copy(&mut source, &mut copy)
            .and_then(|_| copy.set_permissions(Permissions::from_mode(if node.executable { 0o555 } else { 0o444 })))
            .and_then(|()| copy.set_times(FileTimes::new().set_modified(time).set_accessed(time)))
            .map_err(at(path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use buildbee_proto::canonical::Canonical;
    use buildbee_proto::tree::{Directory, DirectoryNode, SymlinkNode};
    use buildbee_store::{Durability, Options};

    use super::super::tree::load_present;
    use super::*;

    #[test]
    fn a_folder_is_what_the_tree_says() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 64 << 20, durability: Durability::Lazy };
        let (store, _) = Store::open(&dir.path().join("store"), &options).unwrap();
        let file = |name: &str, content: &[u8], executable| FileNode {
            name: name.try_into().unwrap(),
            digest: store.put_bytes(content).unwrap(),
            executable,
        };
        let inner = Directory { files: vec![file("again.h", b"same", false)], ..Directory::default() };
        let inner = store.put_bytes(&inner.to_canonical()).unwrap();
        let root = Directory {
            files: vec![
                file("other.h", b"other", false),
                file("same.h", b"same", false),
                file("shared.h", b"shared", false),
                file("tool", b"tool", true),
            ],
            directories: vec![DirectoryNode { name: "inner".try_into().unwrap(), digest: inner }],
            symlinks: vec![SymlinkNode { name: "out".try_into().unwrap(), target: "/etc".to_owned() }],
        };
        let root = store.put_bytes(&root.to_canonical()).unwrap();
        let tree = load_present(&store, root).unwrap().unwrap();
        let made = dir.path().join("made");
        let shared = Digest::of(b"shared");
        materialise(&store, &tree, &|digest| *digest == shared, &made).unwrap();

        let look = |name: &str| fs::symlink_metadata(made.join(name)).unwrap();
        assert_eq!(fs::read(made.join("inner/again.h")).unwrap(), b"same");
        assert_eq!((look("same.h").mode() & 0o7777, look("inner/again.h").mode() & 0o7777), (0o444, 0o444));
        assert_eq!((look("tool").mode() & 0o7777, look("inner").mode() & 0o7777), (0o555, 0o755));
        assert_eq!(fs::read_link(made.join("out")).unwrap(), Path::new("/etc"));
        assert!(look("other.h").nlink() > 1, "the store's own inode");
        assert_eq!((look("shared.h").nlink(), look("inner/again.h").nlink().min(look("same.h").nlink())), (1, 1));
        assert_ne!(look("same.h").mtime(), look("inner/again.h").mtime());
        assert!(
            matches!(materialise(&store, &tree, &|_| false, &made), Err(MaterialiseError::Io { .. })),
            "never over something"
        );
        let short = |copies_left_bytes| {
            let elsewhere = &|_: &Digest| false;
            let linked = HashSet::new();
            let mut making = Making { store: &store, tree: &tree, elsewhere, linked, n_copies: 0, copies_left_bytes };
            making.directory(&tree.root(), &dir.path().join(copies_left_bytes.to_string()))
        };
        assert!(short(4).is_ok(), "one copy of four bytes");
        assert!(matches!(short(3), Err(MaterialiseError::Copies)));
    }
}
