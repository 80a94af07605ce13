//! Takes a project's folders out of an input tree and hangs them up somewhere else. Only the folders on the way are hashed again.

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::path::{PathComponent, RelPath};
use buildbee_proto::tree::{Directory, DirectoryNode};

use crate::inputs::tree::Tree;

/// Folders that were changed and hashed again.
type Changed = Vec<(Digest, Directory)>;

/// A tree without some of its folders, and those folders.
#[derive(Debug)]
pub(super) struct Detached<'a> {
    tree: &'a Tree,
    changed: Changed,
    around: Directory,
    /// Of each one, in the order asked for. Nothing of one may be in the tree.
    folders: Vec<Option<Digest>>,
}

impl<'a> Detached<'a> {
    /// Without `places`. `None` if none of them has a folder.
    pub(super) fn from(tree: &'a Tree, places: &[RelPath]) -> Option<Self> {
        let mut detached =
            Self { tree, changed: Vec::new(), around: Directory::default(), folders: vec![None; places.len()] };
        let mut around = detached.directory(&tree.root, &[])?;
        for at in inner_last(places).into_iter().rev() {
            detached.folders[at] = detached.take(&mut around, &names(&places[at])?);
        }
        detached.around = around;
        detached.folders.iter().any(Option::is_some).then_some(detached)
    }

    /// The root of the tree with the folders at `places`. `None` if something is there.
    pub(super) fn at(&self, places: &[RelPath]) -> Option<Digest> {
        let mut root = self.around.clone();
        let mut made = Vec::new();
        for at in inner_last(places) {
            if let Some(folder) = self.folders.get(at)? {
                root = self.put(root, &names(&places[at])?, *folder, &mut made)?;
            }
        }
        Some(root.digest())
    }

    fn directory(&self, digest: &Digest, made: &[(Digest, Directory)]) -> Option<Directory> {
        if let Some((_, known)) = self.changed.iter().chain(made).find(|(known, _)| known == digest) {
            return Some(known.clone());
        }
        Directory::from_canonical(self.tree.content(digest)?).ok()
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
        let mut inner = self.directory(&found, &[])?;
        let taken = self.take(&mut inner, rest)?;
        if inner == Directory::default() {
            at.directories.remove(slot);
        } else {
            let digest = inner.digest();
            at.directories[slot].digest = digest;
            self.changed.push((digest, inner));
        }
        Some(taken)
    }

    fn put(&self, mut at: Directory, path: &[PathComponent], folder: Digest, made: &mut Changed) -> Option<Directory> {
        let (name, rest) = path.split_first()?;
        let mut others = at.files.iter().map(|node| &node.name).chain(at.symlinks.iter().map(|node| &node.name));
        if others.any(|known| known == name) {
            return None;
        }
        match at.directories.binary_search_by(|node| node.name.cmp(name)) {
            Ok(_) if rest.is_empty() => return None,
            Ok(slot) => {
                let inner = self.directory(&at.directories[slot].digest, made)?;
                at.directories[slot].digest = self.put_in(inner, rest, folder, made)?;
            }
            Err(slot) => {
                let digest =
                    if rest.is_empty() { folder } else { self.put_in(Directory::default(), rest, folder, made)? };
                at.directories.insert(slot, DirectoryNode { name: name.clone(), digest });
            }
        }
        Some(at)
    }

    fn put_in(&self, at: Directory, path: &[PathComponent], folder: Digest, made: &mut Changed) -> Option<Digest> {
        let at = self.put(at, path, folder, made)?;
        let digest = at.digest();
        made.push((digest, at));
        Some(digest)
    }
}

/// Numbers of `places` in an order in which one that is in another follows it.
fn inner_last(places: &[RelPath]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|at| places[*at].as_str().len());
    order
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
        let moved = Detached::from(&here, &[path("home/a/p")]).unwrap();
        assert_eq!(moved.at(&[path("home/a/p")]), Some(here.root));
        for place in ["home/b", "home/a/p/deeper", "srv/very/deep/q", "tmp/x"] {
            let there = tree(&[&format!("{place}/x.c"), &format!("{place}/sub/y.h"), "usr/include/z.h"]);
            assert_eq!(moved.at(&[path(place)]), Some(there.root), "{place}");
        }
        for place in ["usr", "usr/include", "usr/include/z.h", "usr/include/z.h/x"] {
            assert_eq!(moved.at(&[path(place)]), None, "{place}");
        }
        assert!(Detached::from(&here, &[path("home/a/q")]).is_none());
        assert!(Detached::from(&here, &[path("usr/include/z.h")]).is_none());
    }

    #[test]
    fn what_stands_beside_the_folder_stays() {
        let here = tree(&["data/one/p/x.c", "data/sdk/y.h"]);
        let moved = Detached::from(&here, &[path("data/one/p")]).unwrap();
        let there = tree(&["data/two/p/x.c", "data/sdk/y.h"]);
        assert_eq!(moved.at(&[path("data/two/p")]), Some(there.root));
        assert_eq!(moved.at(&[path("data/sdk")]), None);
    }

    #[test]
    fn several_folders_move_on_their_own_also_out_of_each_other() {
        let layouts = [
            ["home/a/app", "home/a/app/target", "home/a/.cargo"],
            ["srv/x", "tmp/t", "srv/x/deep/cargo"],
            ["srv/x/y", "srv/x/z", "srv/x/c"],
        ];
        let roots = |layout: [&str; 3]| layout.map(path);
        let at = |[app, target, cargo]: [&str; 3]| {
            tree(&[
                &format!("{app}/src/x.c"),
                &format!("{target}/debug/gen.h"),
                &format!("{cargo}/registry/y.h"),
                "usr/include/z.h",
            ])
        };
        for here in layouts {
            let tree = at(here);
            let moved = Detached::from(&tree, &roots(here)).unwrap();
            for there in layouts {
                assert_eq!(moved.at(&roots(there)), Some(at(there).root), "{here:?} {there:?}");
            }
        }
        // A folder of which nothing is there.
        let one = tree(&["home/a/app/target/x.h", "usr/include/z.h"]);
        let moved = Detached::from(&one, &roots(layouts[0])).unwrap();
        assert_eq!(moved.at(&roots(layouts[1])), Some(tree(&["tmp/t/x.h", "usr/include/z.h"]).root));
    }
}
