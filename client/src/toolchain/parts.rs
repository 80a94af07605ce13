//! A toolchain's files as content: gathers them at the places that they shall have, and notices when one of them changes.
//!
//! Which files those are is [`capture`](super::capture)'s and [`rust`](super::rust)'s to say.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::digest::Digest;
use buildbee_proto::path::{PathError, RelPath};
use buildbee_proto::toolchain::{Toolchain, ToolchainId};
use thiserror::Error;

use super::shadows::{Places, Shadows};
use crate::inputs::filehash::{FileHashes, FileIdentity, Hashed};
use crate::inputs::hash_many::hash_many;
use crate::inputs::resolve::{ResolveError, Resolved, Resolver};
use crate::inputs::tree::{Conflict, TreeBuilder};

/// Tells the loader where libraries are; which they are was read through it.
const LOADER_CACHE: &str = "/etc/ld.so.cache";
/// Files, folders and links below folders that are taken whole.
const MAX_WHOLE: usize = 200_000;
/// Libraries named here are loaded into every program.
const LOADER_PRELOAD: &str = "/etc/ld.so.preload";

/// A toolchain as content.
#[derive(Debug)]
pub struct Parts {
    /// What agents are told.
    pub toolchain: Toolchain,
    /// Its name.
    pub id: ToolchainId,
    /// Files by real place, sorted.
    pub files: Vec<(PathBuf, Digest)>,
    /// Canonical bytes of every directory of the tree.
    pub directories: Vec<(Digest, Arc<[u8]>)>,
}

/// Why files can't be made a tree.
#[derive(Debug, Error)]
pub enum GatherError {
    /// A path can't be followed.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A path that no tree can hold.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Files changed while they were looked at.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// No toolchain has that many.
    #[error("the compiler needs more than {MAX_WHOLE} files")]
    TooMany,
    /// A file can't be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// What the toolchain rests on, as it was when it was gathered.
#[derive(Debug, Default)]
pub struct Guards {
    files: Vec<(PathBuf, FileIdentity)>,
    links: Vec<(PathBuf, PathBuf)>,
    shadows: Shadows,
}

impl Guards {
    /// Whether everything is as it was, and nothing has appeared that would be taken instead. Only `stat`s where nothing changed.
    pub fn still_hold(&self) -> bool {
        let same = |path: &Path, identity: &FileIdentity| {
            fs::metadata(path).is_ok_and(|meta| FileIdentity::of(&meta) == *identity)
        };
        self.files.iter().all(|(path, identity)| same(path, identity))
            && self.links.iter().all(|(path, target)| fs::read_link(path).is_ok_and(|now| now == *target))
            && self.shadows.still_clear()
    }

    /// How many things [`still_hold`](Self::still_hold) looks at.
    pub fn n_looks(&self) -> usize {
        self.files.len() + self.links.len() + self.shadows.n_folders()
    }
}

/// Files being gathered.
#[derive(Debug, Default)]
pub struct Gathering {
    /// As spelled; symlinks among their components become part of the tree.
    real: Vec<(PathBuf, Watch)>,
    /// Files that shall stand elsewhere, by that place: symlinks are followed and not kept.
    placed: BTreeMap<RelPath, (PathBuf, Watch)>,
    /// Files and folders with all that is below them, at the places that they have here.
    whole: Vec<PathBuf>,
    watched: Vec<PathBuf>,
    /// Spelled paths that lead to parts by symlinks, which are no parts themselves.
    led: Vec<PathBuf>,
    shadows: Places,
}

/// Whether a file is looked at for every compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It is.
    Yes,
    /// Somebody else does, or its folder tells.
    No,
}

impl Gathering {
    /// A file that stands where it stands here. Passed over if it is gone.
    pub fn at_real_place(&mut self, path: PathBuf, watch: Watch) {
        self.real.push((path, watch));
    }

    /// A file that stands at `place`.
    pub fn placed(&mut self, path: PathBuf, place: RelPath, watch: Watch) {
        self.placed.insert(place, (path, watch));
    }

    /// A file or folder that stands where it stands here, with all below it as it is: links unread, empty folders kept. It never changes.
    pub fn whole(&mut self, path: PathBuf) {
        self.whole.push(path);
    }

    /// A path whose symlinks lead to a part: which part it is depends on them.
    pub fn led_by(&mut self, path: PathBuf) {
        self.led.push(path);
    }

    /// A file or folder that is no part, but tells when parts change.
    pub fn watched(&mut self, path: PathBuf) {
        self.watched.push(path);
    }

    /// Places where nothing may appear.
    pub fn shadows(&mut self, places: Places) {
        self.shadows.absent.extend(places.absent);
        self.shadows.listed.extend(places.listed);
    }

    /// The content, called `label`. Reads files that `hashes` does not remember. Blocks.
    pub fn finish(mut self, label: String, hashes: &FileHashes) -> Result<(Parts, Guards), GatherError> {
        self.shadows.absent.insert(PathBuf::from(LOADER_PRELOAD));
        let mut guards = Guards { shadows: Shadows::new(&self.shadows), ..Guards::default() };
        // Before the files are read: what changes meanwhile shows at the next look.
        self.watched.push(PathBuf::from(LOADER_CACHE));
        for path in self.watched {
            if let Ok(meta) = fs::metadata(&path) {
                guards.files.push((path, FileIdentity::of(&meta)));
            }
        }
        let (mut resolver, mut tree) = (Resolver::default(), TreeBuilder::default());
        let mut todo: Vec<(PathBuf, RelPath, Watch)> = Vec::with_capacity(self.real.len() + self.placed.len());
        for (path, watch) in self.real {
            if let Resolved::Present(place) = resolver.resolve(Path::new("/"), &path)? {
                todo.push((place.to_absolute(), place, watch));
            } // Else gone since it was listed: the next look at the guards will tell.
        }
        todo.extend(self.placed.into_iter().map(|(place, (path, watch))| (path, place, watch)));
        todo.extend(add_whole(&self.whole, &mut tree)?);
        let hashed = hash_many(hashes, todo.iter().map(|(path, ..)| path.as_path()))
            .map_err(|(path, error)| GatherError::Io { path, error })?;
        hashes.make_last(todo.iter().map(|(path, ..)| path.as_path()));
        let mut files = Vec::with_capacity(todo.len());
        for ((path, place, watch), Hashed { digest, executable, identity }) in todo.into_iter().zip(hashed) {
            tree.file(&place, digest, executable)?;
            if watch == Watch::Yes {
                guards.files.push((path.clone(), identity));
            }
            files.push((path, digest));
        }
        for (place, target) in resolver.symlinks() {
            tree.symlink(place, target)?;
        }
        for place in resolver.directories() {
            tree.directory(place)?;
        }
        // Where compilers keep what one program leaves for the next.
        tree.directory(&RelPath::try_from("tmp")?)?;
        for path in &self.led {
            resolver.resolve(Path::new("/"), path)?;
        }
        guards.links =
            resolver.symlinks().iter().map(|(place, target)| (place.to_absolute(), PathBuf::from(target))).collect();
        guards.files.sort_by(|one, other| one.0.cmp(&other.0));
        guards.files.dedup_by(|one, other| one == other);
        files.sort();
        files.dedup();
        let tree = tree.finish();
        let host = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        let toolchain = Toolchain { root: tree.root, host, label };
        Ok((Parts { id: toolchain.id(), toolchain, files, directories: tree.directories }, guards))
    }
}

/// Puts folders and links of `whole` into `tree` and names the files, which are to be hashed.
fn add_whole(whole: &[PathBuf], tree: &mut TreeBuilder) -> Result<Vec<(PathBuf, RelPath, Watch)>, GatherError> {
    let mut todo = whole.to_vec();
    let (mut files, mut n_seen) = (Vec::new(), 0);
    while let Some(path) = todo.pop() {
        n_seen += 1;
        if n_seen + todo.len() > MAX_WHOLE {
            return Err(GatherError::TooMany);
        }
        let place = RelPath::from_absolute(&path)?;
        let unreadable = |error| GatherError::Io { path: path.clone(), error };
        let kind = fs::symlink_metadata(&path).map_err(unreadable)?.file_type();
        if kind.is_dir() {
            tree.directory(&place)?;
            for entry in fs::read_dir(&path).map_err(unreadable)? {
                todo.push(entry.map_err(unreadable)?.path());
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(unreadable)?;
            let target = target.into_os_string().into_string().map_err(|target| PathError::NotUtf8(target.into()))?;
            tree.symlink(&place, &target)?;
        } else {
            files.push((path, place, Watch::No));
        }
    }
    Ok(files)
}
