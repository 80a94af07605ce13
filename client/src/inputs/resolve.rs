//! Follows spelled paths component by component, as the kernel does, and notes every symlink and folder on the way, so that the same
//! spelling reaches the same file in the tree that an agent sees.
//!
//! Does not read files. One resolver serves one action: what it saw is that action's read set of symlinks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use buildbee_proto::path::{PathError, RelPath};
use thiserror::Error;

/// Symlinks followed in one path; the kernel's own limit.
const MAX_SYMLINKS: usize = 40;

/// Why a path can't be part of an action.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// The system said no.
    #[error("cannot look at {path}: {error}", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// Not UTF-8, or too long.
    #[error(transparent)]
    Path(#[from] PathError),
    /// They go round in a circle, or nearly.
    #[error("too many symlinks in {path}", path = .0.display())]
    Loop(PathBuf),
}

/// What stands at the end of a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A file or folder, at its physical place.
    Present(RelPath),
    /// Nothing: the first physical place on the way where nothing is.
    Absent(RelPath),
}

#[derive(Clone, Debug)]
enum Kind {
    Directory,
    Symlink(PathBuf),
    Other,
    Missing,
}

/// Resolves paths and collects what it passed.
#[derive(Debug, Default)]
pub struct Resolver {
    seen: BTreeMap<PathBuf, Kind>,
    symlinks: BTreeMap<RelPath, String>,
    directories: BTreeSet<RelPath>,
}

impl Resolver {
    /// Resolves `path` against `cwd` (absolute, physical).
    pub fn resolve(&mut self, cwd: &Path, path: &Path) -> Result<Resolved, ResolveError> {
        let mut at = PathBuf::from("/");
        // Components still to walk, last first.
        let mut todo: Vec<PathBuf> = Vec::new();
        push_components(&mut todo, path);
        if path.is_relative() {
            push_components(&mut todo, cwd);
        }
        let mut n_symlinks = 0;
        while let Some(part) = todo.pop() {
            if part.as_os_str() == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            match self.kind(&next)? {
                Kind::Directory => {
                    self.directories.insert(RelPath::from_absolute(&next)?);
                    at = next;
                }
                Kind::Symlink(target) => {
                    n_symlinks += 1;
                    if n_symlinks > MAX_SYMLINKS {
                        return Err(ResolveError::Loop(path.to_owned()));
                    }
                    let text = target.to_str().ok_or_else(|| PathError::NotUtf8(target.clone()))?.to_owned();
                    self.symlinks.insert(RelPath::from_absolute(&next)?, text);
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    push_components(&mut todo, &target);
                }
                Kind::Other if todo.is_empty() => at = next,
                // A file where a folder should be: what is looked for below it is absent (ENOTDIR), it itself is not.
                Kind::Other => {
                    let below =
                        todo.pop().filter(|part| part.as_os_str() != "..").unwrap_or_else(|| PathBuf::from("x"));
                    return Ok(Resolved::Absent(RelPath::from_absolute(&next.join(below))?));
                }
                Kind::Missing => return Ok(Resolved::Absent(RelPath::from_absolute(&next)?)),
            }
        }
        Ok(Resolved::Present(RelPath::from_absolute(&at)?))
    }

    /// Like [`resolve`](Self::resolve), for a file that is about to be written: its folder must exist, it need not.
    pub fn resolve_output(&mut self, cwd: &Path, path: &Path) -> Result<Option<RelPath>, ResolveError> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Ok(None);
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Resolved::Present(folder) = self.resolve(cwd, parent)? else {
            return Ok(None);
        };
        if !folder.is_root() && !self.directories.contains(&folder) {
            return Ok(None);
        }
        Ok(Some(folder.join(&name.try_into()?)?))
    }

    /// Symlinks passed, by physical place.
    pub fn symlinks(&self) -> &BTreeMap<RelPath, String> {
        &self.symlinks
    }

    /// Folders passed, by physical place.
    pub fn directories(&self) -> &BTreeSet<RelPath> {
        &self.directories
    }

    fn kind(&mut self, path: &Path) -> Result<Kind, ResolveError> {
        if let Some(kind) = self.seen.get(path) {
            return Ok(kind.clone());
        }
        let kind = match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Kind::Directory,
            Ok(meta) if meta.is_symlink() => {
                let target = fs::read_link(path).map_err(|error| ResolveError::Io { path: path.to_owned(), error })?;
                Kind::Symlink(target)
            }
            Ok(_) => Kind::Other,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Kind::Missing
            }
            Err(error) => return Err(ResolveError::Io { path: path.to_owned(), error }),
        };
        self.seen.insert(path.to_owned(), kind.clone());
        Ok(kind)
    }
}

fn push_components(todo: &mut Vec<PathBuf>, path: &Path) {
    todo.extend(path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn symlinks_are_followed_and_noted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/inner")).unwrap();
        fs::write(root.join("real/a.h"), "").unwrap();
        symlink("real/inner", root.join("link")).unwrap();
        let mut resolver = Resolver::default();
        // `link/..` is `real`, not the folder that holds the link.
        let found = resolver.resolve(&root, Path::new("link/../a.h")).unwrap();
        assert_eq!(found, Resolved::Present(RelPath::from_absolute(&root.join("real/a.h")).unwrap()));
        let link = RelPath::from_absolute(&root.join("link")).unwrap();
        assert_eq!(resolver.symlinks().get(&link).map(String::as_str), Some("real/inner"));
        assert!(resolver.directories().contains(&RelPath::from_absolute(&root.join("real/inner")).unwrap()));
    }

    #[test]
    fn the_first_missing_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let mut resolver = Resolver::default();
        let found = resolver.resolve(&root, Path::new("no/such/a.h")).unwrap();
        assert_eq!(found, Resolved::Absent(RelPath::from_absolute(&root.join("no")).unwrap()));
    }

    #[test]
    fn loops_end() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert!(matches!(Resolver::default().resolve(&root, Path::new("a")), Err(ResolveError::Loop(_))));
    }
}
