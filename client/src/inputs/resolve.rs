//! Follows spelled paths component by component, as the kernel does, and notes every symlink and folder on the way, so that the same
//! spelling reaches the same file in the tree that an agent sees.
//!
//! Does not read files. One resolver serves one action: what it saw is that action's read set of symlinks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use buildbee_proto::path::{PathError, RelPath};
use thiserror::Error;

use super::filehash::FileIdentity;

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

/// What stands under one name of a folder.
#[derive(Debug, PartialEq, Eq)]
pub struct Spot {
    /// Where the name leads.
    pub resolved: Resolved,
    /// Whether a folder is there.
    pub is_folder: bool,
    /// Whether the name itself is no symlink, so that what is there stands in the folder.
    pub is_plain: bool,
}

/// What a folder's name leads to, by which a later look can tell whether it still does, and whether something was made or removed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// A folder.
    At {
        /// Its physical place.
        place: RelPath,
        /// What the kernel said of it, before any name in it was looked at.
        identity: FileIdentity,
    },
    /// Nothing: the first physical place on the way where nothing is.
    Absent(RelPath),
}

#[derive(Clone, Debug)]
enum Kind {
    /// With what the kernel said of it; the root is not asked about.
    Directory(Option<FileIdentity>),
    Symlink(PathBuf),
    Other,
    Missing,
}

/// A place that was looked at, once.
#[derive(Debug)]
struct Node {
    kind: Kind,
    place: RelPath,
    parent: usize,
    children: HashMap<OsString, usize>,
}

/// The root's place among the nodes; its own parent.
const ROOT: usize = 0;

/// Where a walk ends.
#[derive(Clone, Debug)]
enum End {
    At(usize),
    Absent(RelPath),
}

/// A folder that names are looked up in.
#[derive(Debug)]
pub struct Entered(End);

/// Resolves paths and collects what it passed. Looks at each place once.
#[derive(Debug)]
pub struct Resolver {
    nodes: Vec<Node>,
    /// Folders by absolute spelling: most paths lead into few.
    folders: HashMap<OsString, End>,
    symlinks: BTreeMap<RelPath, String>,
    directories: BTreeSet<RelPath>,
    /// Before it looked at anything.
    began: SystemTime,
}

impl Default for Resolver {
    fn default() -> Self {
        let root = Node { kind: Kind::Directory(None), place: RelPath::root(), parent: ROOT, children: HashMap::new() };
        Self {
            nodes: vec![root],
            folders: HashMap::new(),
            symlinks: BTreeMap::new(),
            directories: BTreeSet::new(),
            began: SystemTime::now(),
        }
    }
}

impl Resolver {
    /// Resolves `path` against `cwd` (absolute, physical).
    pub fn resolve(&mut self, cwd: &Path, path: &Path) -> Result<Resolved, ResolveError> {
        let end = match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) => match self.folder(&cwd.join(folder))? {
                End::At(folder) => self.walk(folder, Path::new(name), &mut 0)?,
                absent @ End::Absent(_) => absent,
            },
            _ => self.walk(ROOT, &cwd.join(path), &mut 0)?,
        };
        Ok(match end {
            End::At(node) => Resolved::Present(self.nodes[node].place.clone()),
            End::Absent(place) => Resolved::Absent(place),
        })
    }

    /// The folder `spelled` (absolute), to look up names in it.
    pub fn enter(&mut self, spelled: &Path) -> Result<Entered, ResolveError> {
        self.folder(spelled).map(Entered)
    }

    /// What stands under `name` (a single one, not `..`) in a folder.
    pub fn spot(&mut self, Entered(folder): &Entered, name: &OsStr) -> Result<Spot, ResolveError> {
        let absent = |place| Spot { resolved: Resolved::Absent(place), is_folder: false, is_plain: true };
        let folder = match folder {
            End::At(folder) => *folder,
            End::Absent(place) => return Ok(absent(place.clone())),
        };
        if matches!(self.nodes[folder].kind, Kind::Other) {
            return Ok(absent(below(&self.nodes[folder].place, name)?));
        }
        let node = self.child(folder, name)?;
        let (end, is_plain) = match &self.nodes[node].kind {
            Kind::Missing => return Ok(absent(self.nodes[node].place.clone())),
            Kind::Directory(_) | Kind::Other => (End::At(node), true),
            Kind::Symlink(_) => (self.walk(folder, Path::new(name), &mut 0)?, false),
        };
        Ok(match end {
            End::Absent(place) => Spot { resolved: Resolved::Absent(place), is_folder: false, is_plain },
            End::At(node) => Spot {
                resolved: Resolved::Present(self.nodes[node].place.clone()),
                is_folder: matches!(self.nodes[node].kind, Kind::Directory(_)),
                is_plain,
            },
        })
    }

    /// Folders passed, with what the kernel said of each before a name in it was looked at: those of which a later look can tell whether
    /// a name has come or gone, if their file systems' times can be believed.
    pub fn settled_folders(&self) -> impl Iterator<Item = (&RelPath, &FileIdentity)> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            Kind::Directory(Some(identity)) if identity.settled_before(self.began) => Some((&node.place, identity)),
            _ => None,
        })
    }

    /// What the folder `spelled` (absolute) is; `None` where it can't be told later whether it has changed.
    pub fn look_at_folder(&mut self, spelled: &Path) -> Result<Option<Folder>, ResolveError> {
        Ok(match self.folder(spelled)? {
            End::Absent(place) => Some(Folder::Absent(place)),
            End::At(node) => match &self.nodes[node] {
                Node { kind: Kind::Directory(Some(identity)), place, .. } if identity.settled_before(self.began) => {
                    Some(Folder::At { place: place.clone(), identity: *identity })
                }
                _ => None,
            },
        })
    }

    fn folder(&mut self, spelled: &Path) -> Result<End, ResolveError> {
        if let Some(known) = self.folders.get(spelled.as_os_str()) {
            return Ok(known.clone());
        }
        let end = self.walk(ROOT, spelled, &mut 0)?;
        self.folders.insert(spelled.as_os_str().to_owned(), end.clone());
        Ok(end)
    }

    fn walk(&mut self, from: usize, path: &Path, n_symlinks: &mut usize) -> Result<End, ResolveError> {
        let mut at = from;
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => Some(name),
                Component::ParentDir => None,
                Component::RootDir => {
                    at = ROOT;
                    continue;
                }
                Component::CurDir | Component::Prefix(_) => continue,
            };
            // A file where a folder should be: what is looked for below it is absent (ENOTDIR), it itself is not.
            if matches!(self.nodes[at].kind, Kind::Other) {
                return Ok(End::Absent(below(&self.nodes[at].place, name.unwrap_or(OsStr::new("x")))?));
            }
            let Some(name) = name else {
                at = self.nodes[at].parent;
                continue;
            };
            let next = self.child(at, name)?;
            at = match &self.nodes[next].kind {
                Kind::Directory(_) | Kind::Other => next,
                Kind::Missing => return Ok(End::Absent(self.nodes[next].place.clone())),
                Kind::Symlink(target) => {
                    let target = target.clone();
                    *n_symlinks += 1;
                    if *n_symlinks > MAX_SYMLINKS {
                        return Err(ResolveError::Loop(path.to_owned()));
                    }
                    match self.walk(at, &target, n_symlinks)? {
                        End::At(node) => node,
                        absent @ End::Absent(_) => return Ok(absent),
                    }
                }
            };
        }
        Ok(End::At(at))
    }

    /// What stands under `name` in the folder `parent`.
    fn child(&mut self, parent: usize, name: &OsStr) -> Result<usize, ResolveError> {
        if let Some(&known) = self.nodes[parent].children.get(name) {
            return Ok(known);
        }
        let place = below(&self.nodes[parent].place, name)?;
        let kind = kind(&place.to_absolute())?;
        match &kind {
            Kind::Directory(_) => {
                self.directories.insert(place.clone());
            }
            Kind::Symlink(target) => {
                let text = target.to_str().ok_or_else(|| PathError::NotUtf8(target.clone()))?;
                self.symlinks.insert(place.clone(), text.to_owned());
            }
            Kind::Other | Kind::Missing => {}
        }
        let node = self.nodes.len();
        self.nodes.push(Node { kind, place, parent, children: HashMap::new() });
        self.nodes[parent].children.insert(name.to_owned(), node);
        Ok(node)
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
}

fn below(folder: &RelPath, name: &OsStr) -> Result<RelPath, PathError> {
    let name = name.to_str().ok_or_else(|| PathError::NotUtf8(name.into()))?;
    folder.join(&name.try_into()?)
}

fn kind(path: &Path) -> Result<Kind, ResolveError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(Kind::Directory(Some(FileIdentity::of(&meta)))),
        Ok(meta) if meta.is_symlink() => {
            fs::read_link(path).map(Kind::Symlink).map_err(|error| ResolveError::Io { path: path.to_owned(), error })
        }
        Ok(_) => Ok(Kind::Other),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Kind::Missing)
        }
        Err(error) => Err(ResolveError::Io { path: path.to_owned(), error }),
    }
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
    fn a_spot_is_what_a_path_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/inner")).unwrap();
        fs::write(root.join("real/a.h"), "").unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink("a.h", root.join("real/b.h")).unwrap();
        symlink("gone", root.join("real/c.h")).unwrap();
        for (path, is_folder, is_plain) in [
            ("real/a.h", false, true),
            ("link/a.h", false, true),
            ("real/b.h", false, false),
            ("real/c.h", false, false),
            ("link/inner", true, true),
            ("real/no.h", false, true),
            ("no/a.h", false, true),
            ("real/a.h/x", false, true),
            ("link", true, false),
        ] {
            let (mut one, mut two) = (Resolver::default(), Resolver::default());
            let path = root.join(path);
            let entered = one.enter(path.parent().unwrap()).unwrap();
            let spot = one.spot(&entered, path.file_name().unwrap()).unwrap();
            let resolved = two.resolve(&root, &path).unwrap();
            assert_eq!(spot, Spot { resolved, is_folder, is_plain }, "{}", path.display());
            assert_eq!((one.symlinks(), one.directories()), (two.symlinks(), two.directories()), "{}", path.display());
        }
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
    fn nothing_stands_below_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::write(root.join("a"), "").unwrap();
        symlink("a", root.join("l")).unwrap();
        let mut resolver = Resolver::default();
        for (path, absent) in
            [("a/b", "a/b"), ("a/b/c", "a/b"), ("a/../b", "a/x"), ("l/b", "a/b"), ("a/..", "a/x"), ("b/..", "b")]
        {
            let found = resolver.resolve(&root, Path::new(path)).unwrap();
            assert_eq!(found, Resolved::Absent(RelPath::from_absolute(&root.join(absent)).unwrap()), "{path}");
        }
        assert!(resolver.symlinks().contains_key(&RelPath::from_absolute(&root.join("l")).unwrap()));
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
