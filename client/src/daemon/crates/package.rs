//! The files of a folder that belong to a package. Blocks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Files of one package, and of what its build script made.
const MAX_FILES: usize = 20_000;
/// Bytes of them.
const MAX_BYTES: u64 = 256 << 20;
/// Folders in folders.
const MAX_DEPTH: usize = 64;

/// Which files of a folder belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent<'a> {
    /// All of them.
    Whole,
    /// What a person edits: not the target folder, hidden folders, nor packages that stand within.
    Member {
        /// The target folder.
        target: Option<&'a Path>,
    },
}

/// Why a folder is not taken.
#[derive(Debug, Error)]
pub enum PackageError {
    /// It can't be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It holds more than an action should.
    #[error("{path} holds more than {MAX_FILES} files or {max} MiB", path = .0.display(), max = MAX_BYTES >> 20)]
    TooMuch(PathBuf),
}

/// A walk through folders.
#[derive(Debug, Default)]
pub struct Walk {
    /// Regular files; those that a symlink leads to stand here by the link's name.
    pub files: Vec<PathBuf>,
    /// Folders, outer ones first.
    pub folders: Vec<PathBuf>,
    n_bytes: u64,
}

impl Walk {
    /// Goes through `folder` too.
    pub fn add(&mut self, folder: &Path, extent: Extent<'_>) -> Result<(), PackageError> {
        self.enter(folder, folder, extent, 0)
    }

    fn enter(&mut self, top: &Path, folder: &Path, extent: Extent<'_>, depth: usize) -> Result<(), PackageError> {
        let failed = |error| PackageError::Io { path: folder.to_owned(), error };
        if depth > MAX_DEPTH {
            return Err(PackageError::TooMuch(top.to_owned()));
        }
        self.folders.push(folder.to_owned());
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                if extent.enters(&path) {
                    self.enter(top, &path, extent, depth + 1)?;
                }
                continue;
            }
            // A link to nowhere, a pipe, a folder by another name: no compiler is known to need them. One that does fails elsewhere.
            let Ok(meta) = fs::metadata(&path) else { continue };
            if !meta.is_file() {
                continue;
            }
            self.n_bytes += meta.len();
            self.files.push(path);
            if self.files.len() > MAX_FILES || self.n_bytes > MAX_BYTES {
                return Err(PackageError::TooMuch(top.to_owned()));
            }
        }
        Ok(())
    }
}

impl Extent<'_> {
    fn enters(self, folder: &Path) -> bool {
        let Self::Member { target } = self else { return true };
        let is_hidden = folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !is_hidden && target != Some(folder) && !folder.join("Cargo.toml").exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path, extent: Extent<'_>) -> Vec<String> {
        let mut walk = Walk::default();
        walk.add(folder, extent).unwrap();
        let mut names: Vec<_> =
            (walk.files.iter()).map(|path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_member_is_what_people_edit() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for file in ["Cargo.toml", "src/lib.rs", ".git/HEAD", "target/x.rs", "inner/Cargo.toml", "inner/src/lib.rs"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
        std::os::unix::fs::symlink("src/lib.rs", root.join("link.rs")).unwrap();
        let target = root.join("target");
        assert_eq!(names(root, Extent::Member { target: Some(&target) }), ["Cargo.toml", "link.rs", "src/lib.rs"]);
        assert_eq!(names(root, Extent::Whole).len(), 7);
    }
}
