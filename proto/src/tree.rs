//! Merkle trees of directories: what an action sees of the client's files, and what a toolchain is made of.

use crate::canonical::{Canonical, CanonicalError, Reader, Writer, check_ascending};
use crate::digest::Digest;
use crate::limits::MAX_TREE_ENTRIES;
use crate::path::PathComponent;

/// Tells files of equal content in one tree apart as compilers do where a file is to be read once: clang by inode, gcc by the second of
/// the last change (and the content). Content that stands at one place only has the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Twin {
    /// Files of one content with one number here are one inode.
    pub inode: u32,
    /// Files of one content with one number here were last changed in the same second.
    pub second: u32,
}

impl Twin {
    pub(crate) fn encode(self, out: &mut Writer) {
        out.u32(self.inode);
        out.u32(self.second);
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self { inode: input.u32()?, second: input.u32()? })
    }
}

/// A file in a directory. Its mode is 0555 if executable, else 0444; its owner is no part of content, its times only as [`Twin`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNode {
    /// Name in its directory.
    pub name: PathComponent,
    /// Content.
    pub digest: Digest,
    /// Whether it may be executed.
    pub executable: bool,
    /// Which of the files with this content it is.
    pub twin: Twin,
}

impl FileNode {
    /// Few files have twins: for the others a byte must do.
    fn encode(&self, out: &mut Writer) {
        out.text(self.name.as_str());
        out.digest(&self.digest);
        out.bool(self.executable);
        out.option(Some(&self.twin).filter(|twin| **twin != Twin::default()), |out, twin| twin.encode(out));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let (name, digest, executable) = (input.component()?, input.digest()?, input.bool()?);
        match input.option(Twin::decode)? {
            Some(twin) if twin == Twin::default() => Err(CanonicalError::Range("twin")),
            twin => Ok(Self { name, digest, executable, twin: twin.unwrap_or_default() }),
        }
    }
}

/// A directory in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryNode {
    /// Name in its directory.
    pub name: PathComponent,
    /// Digest of the [`Directory`]'s canonical encoding.
    pub digest: Digest,
}

/// A symlink in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymlinkNode {
    /// Name in its directory.
    pub name: PathComponent,
    /// What it points to, as text: resolved inside the action's root only, so it may hold anything but NUL.
    pub target: String,
}

/// One level of a tree. Lists are sorted by name, and no name stands twice, also across the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Files by name.
    pub files: Vec<FileNode>,
    /// Directories by name.
    pub directories: Vec<DirectoryNode>,
    /// Symlinks by name.
    pub symlinks: Vec<SymlinkNode>,
}

impl Directory {
    fn check(&self) -> Result<(), CanonicalError> {
        check_ascending(&self.files, "files", |node| &node.name)?;
        check_ascending(&self.directories, "directories", |node| &node.name)?;
        check_ascending(&self.symlinks, "symlinks", |node| &node.name)?;
        let mut names: Vec<&PathComponent> = (self.files.iter().map(|node| &node.name))
            .chain(self.directories.iter().map(|node| &node.name))
            .chain(self.symlinks.iter().map(|node| &node.name))
            .collect();
        names.sort_unstable();
        check_ascending(&names, "names", |name| *name)?;
        if self.symlinks.iter().any(|link| link.target.is_empty() || link.target.contains('\0')) {
            return Err(CanonicalError::Range("symlink target"));
        }
        Ok(())
    }
}

impl Canonical for Directory {
    const TAG: [u8; 4] = *b"bbD1";

    fn encode(&self, out: &mut Writer) {
        out.list(&self.files, |out, node| node.encode(out));
        out.list(&self.directories, |out, node| {
            out.text(node.name.as_str());
            out.digest(&node.digest);
        });
        out.list(&self.symlinks, |out, node| {
            out.text(node.name.as_str());
            out.text(&node.target);
        });
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let directory = Self {
            files: input.list(MAX_TREE_ENTRIES, FileNode::decode)?,
            directories: input.list(MAX_TREE_ENTRIES, |input| {
                Ok(DirectoryNode { name: input.component()?, digest: input.digest()? })
            })?,
            symlinks: input
                .list(MAX_TREE_ENTRIES, |input| Ok(SymlinkNode { name: input.component()?, target: input.text()? }))?,
        };
        directory.check()?;
        Ok(directory)
    }
}
