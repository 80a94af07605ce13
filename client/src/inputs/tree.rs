//! Makes the Merkle tree of what an action sees from a flat list of places.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::path::{PathComponent, RelPath};
use buildbee_proto::tree::{Directory, DirectoryNode, FileNode, SymlinkNode, Twin};
use thiserror::Error;

/// One place in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory(BTreeMap<PathComponent, Node>),
    File { digest: Digest, executable: bool, twin: Twin },
    Symlink(String),
}

/// Two things stand at one place.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0} is both a file and a folder")]
pub struct Conflict(pub RelPath);

/// A tree being put together.
#[derive(Debug, Default)]
pub struct TreeBuilder {
    root: BTreeMap<PathComponent, Node>,
}

/// A finished tree.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Digest of the root directory.
    pub root: Digest,
    /// Canonical bytes of every directory in it, without repetitions, sorted by digest.
    pub directories: Vec<(Digest, Arc<[u8]>)>,
}

impl Tree {
    /// Canonical bytes of one of its directories.
    pub fn content(&self, directory: &Digest) -> Option<&[u8]> {
        let at = self.directories.binary_search_by(|(digest, _)| digest.cmp(directory)).ok()?;
        self.directories.get(at).map(|(_, bytes)| bytes.as_ref())
    }

    /// Bytes of all its directories.
    pub fn n_bytes(&self) -> u64 {
        self.directories.iter().map(|(digest, _)| digest.size_bytes).sum()
    }
}

impl TreeBuilder {
    /// A file with this content.
    pub fn file(&mut self, path: &RelPath, digest: Digest, executable: bool) -> Result<(), Conflict> {
        self.twin(path, digest, executable, Twin::default())
    }

    /// One of several files with this content.
    pub fn twin(&mut self, path: &RelPath, digest: Digest, executable: bool, twin: Twin) -> Result<(), Conflict> {
        self.put(path, Node::File { digest, executable, twin })
    }

    /// A symlink with this target.
    pub fn symlink(&mut self, path: &RelPath, target: &str) -> Result<(), Conflict> {
        self.put(path, Node::Symlink(target.to_owned()))
    }

    /// A folder, perhaps an empty one.
    pub fn directory(&mut self, path: &RelPath) -> Result<(), Conflict> {
        self.folder(path.as_str(), path).map(|_| ())
    }

    fn put(&mut self, path: &RelPath, node: Node) -> Result<(), Conflict> {
        let conflict = || Conflict(path.clone());
        let (parent, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
        let name = PathComponent::try_from(name).map_err(|_| conflict())?;
        match self.folder(parent, path)?.entry(name) {
            Entry::Occupied(there) if *there.get() != node => Err(conflict()),
            Entry::Occupied(_) => Ok(()),
            Entry::Vacant(place) => {
                place.insert(node);
                Ok(())
            }
        }
    }

    /// The folder at `path`, on the way to what is `wanted`.
    fn folder(&mut self, path: &str, wanted: &RelPath) -> Result<&mut BTreeMap<PathComponent, Node>, Conflict> {
        let mut at = &mut self.root;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            // Most are there: a compile's headers are in few folders.
            if !at.contains_key(part) {
                // Components of a checked path are checked names.
                let name = PathComponent::try_from(part).map_err(|_| Conflict(wanted.clone()))?;
                at.insert(name, Node::Directory(BTreeMap::new()));
            }
            match at.get_mut(part) {
                Some(Node::Directory(inner)) => at = inner,
                Some(Node::File { .. } | Node::Symlink(_)) | None => return Err(Conflict(wanted.clone())),
            }
        }
        Ok(at)
    }

    /// The tree.
    pub fn finish(self) -> Tree {
        let mut directories = BTreeMap::new();
        let root = encode(self.root, &mut directories);
        Tree { root, directories: directories.into_iter().collect() }
    }
}

/// Depth is bounded by the depth of a `RelPath`.
fn encode(nodes: BTreeMap<PathComponent, Node>, directories: &mut BTreeMap<Digest, Arc<[u8]>>) -> Digest {
    let mut directory = Directory::default();
    for (name, node) in nodes {
        match node {
            Node::Directory(inner) => {
                let digest = encode(inner, directories);
                directory.directories.push(DirectoryNode { name, digest });
            }
            Node::File { digest, executable, twin } => {
                directory.files.push(FileNode { name, digest, executable, twin });
            }
            Node::Symlink(target) => directory.symlinks.push(SymlinkNode { name, target }),
        }
    }
    let bytes = directory.to_canonical();
    let digest = Digest::of(&bytes);
    directories.insert(digest, bytes.into());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::try_from(text).unwrap()
    }

    #[test]
    fn the_order_of_building_does_not_matter() {
        let file = Digest::of(b"x");
        let mut one = TreeBuilder::default();
        one.file(&path("a/b/x"), file, false).unwrap();
        one.symlink(&path("l"), "a").unwrap();
        one.directory(&path("a/e")).unwrap();
        let mut two = TreeBuilder::default();
        two.directory(&path("a/e")).unwrap();
        two.directory(&path("a/b")).unwrap();
        two.symlink(&path("l"), "a").unwrap();
        two.file(&path("a/b/x"), file, false).unwrap();
        let (one, two) = (one.finish(), two.finish());
        assert_eq!(one.root, two.root);
        assert_eq!(one.directories.len(), 4);
        for (digest, bytes) in &one.directories {
            assert_eq!(Digest::of(bytes), *digest);
            assert!(Directory::from_canonical(bytes).is_ok());
        }
    }

    #[test]
    fn a_place_is_one_thing() {
        let mut tree = TreeBuilder::default();
        tree.file(&path("a"), Digest::of(b"x"), false).unwrap();
        assert_eq!(tree.directory(&path("a/b")), Err(Conflict(path("a/b"))));
        assert_eq!(tree.file(&path("a"), Digest::of(b"y"), false), Err(Conflict(path("a"))));
    }
}
