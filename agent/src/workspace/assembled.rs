//! A folder of inputs that stays when its action is done, and becomes that of the next: the actions of a build see mostly the same, so that
//! nearly everything stands already. Equal directories of two trees are left as they are, without a look into them.
//!
//! Nothing of it can have been changed by the action: it lay below an overlay. Only for folders in memory, where every file is a copy:
//! which files share an inode is then all known here. In which order a folder lists its names depends on what it was before, so it is
//! for programs alone that list none: compilers of C look names up. Not here: which folder becomes which; removing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::digest::Digest;
use buildbee_proto::path::PathComponent;
use buildbee_proto::tree::{Directory, DirectoryNode, FileNode, SymlinkNode};
use buildbee_store::Store;

use super::materialise::{Copies, Making, MaterialiseError, at, materialise};
use super::tree::{Skeleton, Tree};

/// A folder, and what stands in it.
#[derive(Debug)]
pub struct Assembled {
    path: PathBuf,
    skeleton: Arc<Skeleton>,
    copies: Copies,
}

impl Assembled {
    /// Makes `path`, which must not exist, of `tree`, every file a copy. After an error, what stands there is the caller's to remove.
    pub fn make(store: &Store, tree: &Tree, path: PathBuf) -> Result<Self, MaterialiseError> {
        let copies = materialise(store, tree, &|_| true, &path)?;
        Ok(Self { path, skeleton: Arc::clone(tree.skeleton()), copies })
    }

    /// Makes it a folder of `tree`. After an error, what stands there is the caller's to remove.
    pub fn turn_into(self, store: &Store, tree: &Tree) -> Result<Self, MaterialiseError> {
        let Self { path, skeleton: before, copies } = self;
        let mut turning = Turning { before: &before, making: Making::new(store, tree, &|_| true, copies) };
        turning.directory(&before.root(), &tree.root(), &path)?;
        let copies = turning.making.copies;
        Ok(Self { path, skeleton: Arc::clone(tree.skeleton()), copies })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands in it.
    pub fn skeleton(&self) -> &Skeleton {
        &self.skeleton
    }
}

struct Turning<'a> {
    before: &'a Skeleton,
    making: Making<'a>,
}

impl Turning<'_> {
    /// The folder `path`, which is `was`, becomes `is`.
    fn directory(&mut self, was: &Digest, is: &Digest, path: &Path) -> Result<(), MaterialiseError> {
        if was == is {
            return Ok(());
        }
        let (skeleton, tree) = (self.before, self.making.tree);
        let before = skeleton.directory(was).ok_or(MaterialiseError::Lost(*was))?;
        let after = tree.directory(is).ok_or(MaterialiseError::Lost(*is))?;
        // First what goes, for a name may come back as something else.
        self.remove_from(before, Some(after), path)?;
        for file in after.files.iter().filter(|file| named(&before.files, *file) != Some(file)) {
            self.making.file(file, &path.join(file.name.as_str()))?;
        }
        for child in &after.directories {
            let below = path.join(child.name.as_str());
            match named(&before.directories, child) {
                Some(old) => self.directory(&old.digest, &child.digest, &below)?,
                None => self.making.directory(&child.digest, &below)?,
            }
        }
        for link in after.symlinks.iter().filter(|link| named(&before.symlinks, *link) != Some(link)) {
            Making::symlink(link, &path.join(link.name.as_str()))?;
        }
        Ok(())
    }

    /// Removes from the folder `path`, which is `before`, what is not in `after`: without one, everything.
    fn remove_from(
        &mut self,
        before: &Directory,
        after: Option<&Directory>,
        path: &Path,
    ) -> Result<(), MaterialiseError> {
        let nothing = Directory::default();
        let after = after.unwrap_or(&nothing);
        for file in before.files.iter().filter(|file| named(&after.files, *file) != Some(file)) {
            let path = path.join(file.name.as_str());
            fs::remove_file(&path).map_err(at(&path))?;
            self.making.copies.forget(file, &path);
        }
        for link in before.symlinks.iter().filter(|link| named(&after.symlinks, *link) != Some(link)) {
            let path = path.join(link.name.as_str());
            fs::remove_file(&path).map_err(at(&path))?;
        }
        for child in before.directories.iter().filter(|child| named(&after.directories, *child).is_none()) {
            let path = path.join(child.name.as_str());
            let skeleton = self.before;
            let below = skeleton.directory(&child.digest).ok_or(MaterialiseError::Lost(child.digest))?;
            self.remove_from(below, None, &path)?;
            fs::remove_dir(&path).map_err(at(&path))?;
        }
        Ok(())
    }
}

/// The node with the name of `node` among `nodes`, which are sorted by name.
fn named<'a, N: Named>(nodes: &'a [N], node: &N) -> Option<&'a N> {
    nodes.binary_search_by(|each| each.name().cmp(node.name())).ok().map(|index| &nodes[index])
}

trait Named {
    fn name(&self) -> &PathComponent;
}

impl Named for FileNode {
    fn name(&self) -> &PathComponent {
        &self.name
    }
}

impl Named for DirectoryNode {
    fn name(&self) -> &PathComponent {
        &self.name
    }
}

impl Named for SymlinkNode {
    fn name(&self) -> &PathComponent {
        &self.name
    }
}

#[cfg(test)]
#[path = "assembled_tests.rs"]
mod tests;
