//! Takes a project's folder out of an input tree and hangs it up somewhere else. Only the folders on the way are hashed again.

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::path::{PathComponent, RelPath};
use buildbee_proto::tree::{Directory, DirectoryNode};

use crate::inputs::tree::Tree;

/// A tree without one of its folders, and that folder.
#[derive(Debug)]
pub(super) struct Detached<'a> {
    tree: &'a Tree,
    /// The folders above it that hold something else too, the uppermost last.
    above: Vec<(Digest, Directory)>,
    around: Directory,
    folder: Digest,
}

impl<'a> Detached<'a> {
    /// Without `place`. `None` if no folder is there.
    pub(super) fn from(tree: &'a Tree, place: &RelPath) -> Option<Self> {
        let mut detached = Self { tree, above: Vec::new(), around: Directory::default(), folder: tree.root };
        let mut around = detached.directory(&tree.root)?;
        detached.folder = detached.take(&mut around, &names(place)?)?;
        detached.around = around;
        Some(detached)
    }

    /// The root of the tree with the folder at `place`. `None` if something is there.
    pub(super) fn at(&self, place: &RelPath) -> Option<Digest> {
        self.put(self.around.clone(), &names(place)?)
    }

    fn directory(&self, digest: &Digest) -> Option<Directory> {
        if let Some((_, known)) = self.above.iter().find(|(known, _)| known == digest) {
            return Some(known.clone());
        }
        let (_, bytes) = self.tree.directories.iter().find(|(known, _)| known == digest)?;
        Directory::from_canonical(bytes).ok()
    }

    /// Takes the folder out, and those above it that held nothing else.
    fn take(&mut self, at: &mut Directory, path: &[PathComponent]) -> Option<Digest> {
        let (name, rest) = path.split_first()?;
        let slot = at.directories.iter().position(|node| node.name == *name)?;
        let found = at.directories[slot].digest;
        if rest.is_empty() {
            at.directories.remove(slot);
            return Some(found);
        }
        let mut inner = self.directory(&found)?;
        let taken = self.take(&mut inner, rest)?;
        if inner == Directory::default() {
            at.directories.remove(slot);
        } else {
            let digest = inner.digest();
            at.directories[slot].digest = digest;
            self.above.push((digest, inner));
        }
        Some(taken)
    }

    fn put(&self, mut at: Directory, path: &[PathComponent]) -> Option<Digest> {
        let (name, rest) = path.split_first()?;
        let mut others = at.files.iter().map(|node| &node.name).chain(at.symlinks.iter().map(|node| &node.name));
        if others.any(|known| known == name) {
            return None;
        }
        match at.directories.binary_search_by(|node| node.name.cmp(name)) {
            Ok(_) if rest.is_empty() => return None,
            Ok(slot) => {
                let inner = self.directory(&at.directories[slot].digest)?;
                at.directories[slot].digest = self.put(inner, rest)?;
            }
            Err(slot) => {
                let digest = if rest.is_empty() { self.folder } else { self.put(Directory::default(), rest)? };
                at.directories.insert(slot, DirectoryNode { name: name.clone(), digest });
            }
        }
        Some(at.digest())
    }
}

fn names(place: &RelPath) -> Option<Vec<PathComponent>> {
    place.components().map(|name| PathComponent::try_from(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::tree::TreeBuilder;

    fn path(text: &str) -> RelPath {
        RelPath::try_from(text).unwrap()
    }

    fn tree(files: &[&str]) -> Tree {
        let mut builder = TreeBuilder::default();
        for file in files {
            builder.file(&path(file), Digest::of(file.rsplit('/').next().unwrap().as_bytes()), false).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn a_moved_folder_makes_the_tree_that_is_built_there() {
        let here = tree(&["home/a/p/x.c", "home/a/p/sub/y.h", "usr/include/z.h"]);
        let moved = Detached::from(&here, &path("home/a/p")).unwrap();
        assert_eq!(moved.at(&path("home/a/p")), Some(here.root));
        for place in ["home/b", "home/a/p/deeper", "srv/very/deep/q", "tmp/x"] {
            let there = tree(&[&format!("{place}/x.c"), &format!("{place}/sub/y.h"), "usr/include/z.h"]);
            assert_eq!(moved.at(&path(place)), Some(there.root), "{place}");
        }
        for place in ["usr", "usr/include", "usr/include/z.h", "usr/include/z.h/x"] {
            assert_eq!(moved.at(&path(place)), None, "{place}");
        }
        assert!(Detached::from(&here, &path("home/a/q")).is_none());
        assert!(Detached::from(&here, &path("usr/include/z.h")).is_none());
    }

    #[test]
    fn what_stands_beside_the_folder_stays() {
        let here = tree(&["data/one/p/x.c", "data/sdk/y.h"]);
        let moved = Detached::from(&here, &path("data/one/p")).unwrap();
        let there = tree(&["data/two/p/x.c", "data/sdk/y.h"]);
        assert_eq!(moved.at(&path("data/two/p")), Some(there.root));
        assert_eq!(moved.at(&path("data/sdk")), None);
    }
}
