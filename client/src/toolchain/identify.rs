//! Recognises compilers, once, and notices when one changes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::path::RelPath;
use buildbee_proto::toolchain::{Toolchain, ToolchainId};
use thiserror::Error;
use tokio::sync::Mutex as Turn;

use super::capture::{CaptureError, capture};
use super::shadows::Shadows;
use crate::compiler::request::CompilerFamily;
use crate::inputs::filehash::{FileHashes, FileIdentity};
use crate::inputs::resolve::{ResolveError, Resolved, Resolver};
use crate::inputs::tree::{Conflict, TreeBuilder};

/// Compilers remembered; beyond it the memory starts over.
const MAX_COMPILERS: usize = 64;

/// A compiler with its toolchain.
#[derive(Debug)]
pub struct Compiler {
    /// Where it was found, not resolved: the name decides how gcc and clang behave.
    pub program: PathBuf,
    /// What it is.
    pub family: CompilerFamily,
    /// As content.
    pub toolchain: Toolchain,
    /// Its name.
    pub id: ToolchainId,
    /// Files by physical place.
    pub files: Vec<(PathBuf, Digest)>,
    /// Canonical bytes of every directory of the tree.
    pub directories: Vec<(Digest, Arc<[u8]>)>,
    /// Value of `PATH` under which it finds its assembler.
    pub search: String,
    guards: Vec<(PathBuf, FileIdentity)>,
    links: Vec<(PathBuf, PathBuf)>,
    shadows: Shadows,
}

impl Compiler {
    /// Whether every file and symlink is as it was when captured, and nothing has appeared that would be taken instead.
    fn still_holds(&self) -> bool {
        self.guards
            .iter()
            .all(|(path, identity)| fs::metadata(path).is_ok_and(|meta| FileIdentity::of(&meta) == *identity))
            && self.links.iter().all(|(path, target)| fs::read_link(path).is_ok_and(|now| now == *target))
            && self.shadows.still_clear()
    }
}

/// Why a program is no compiler that the farm can use.
#[derive(Debug, Error)]
pub enum IdentifyError {
    /// Its parts could not be told.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Neither gcc nor clang.
    #[error("{program} is neither gcc nor clang", program = .0.display())]
    Unknown(PathBuf),
    /// A part's path can't be followed.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It changed while it was looked at.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A part can't be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The task that looked at it was cut off.
    #[error("interrupted")]
    Interrupted,
}

impl IdentifyError {
    /// The reason's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Capture(CaptureError::Script(_)) => "wrapper-script",
            Self::Capture(CaptureError::Wrapper(_)) => "another-wrapper",
            _ => "unknown-compiler",
        }
    }
}

/// Compilers by path and `PATH`.
type Known = HashMap<(PathBuf, OsString), Arc<Compiler>>;

/// Knows compilers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Toolchains {
    hashes: FileHashes,
    known: Arc<Mutex<Known>>,
    /// One capture at a time, so that a build's first hundred compiles wait for one and don't make a hundred.
    capturing: Arc<Turn<()>>,
}

impl Toolchains {
    /// Knows nothing yet.
    pub fn new(hashes: FileHashes) -> Self {
        Self { hashes, known: Arc::default(), capturing: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // The memory is whole at every point where a panic could strike, so a poisoned lock is as good as any.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The compiler at `program`, with `search` as its `PATH`, if it is known and nothing of it has changed. Costs a `stat` a file.
    pub fn recall(&self, program: &Path, search: &OsStr) -> Option<Arc<Compiler>> {
        let key = (program.to_owned(), search.to_owned());
        let compiler = self.known().get(&key).cloned()?;
        compiler.still_holds().then_some(compiler)
    }

    /// The same; what is not known is looked at, which takes a second or more.
    pub async fn identify(&self, program: &Path, search: &OsStr) -> Result<Arc<Compiler>, IdentifyError> {
        let _turn = self.capturing.lock().await;
        let (toolchains, program, search) = (self.clone(), program.to_owned(), search.to_owned());
        let look = tokio::task::spawn_blocking(move || toolchains.look(&program, &search));
        look.await.map_err(|_| IdentifyError::Interrupted)?
    }

    fn look(&self, program: &Path, search: &OsStr) -> Result<Arc<Compiler>, IdentifyError> {
        if let Some(compiler) = self.recall(program, search) {
            return Ok(compiler);
        }
        let compiler = Arc::new(identify(&self.hashes, program, search)?);
        let mut known = self.known();
        if known.len() >= MAX_COMPILERS {
            known.clear();
        }
        known.insert((program.to_owned(), search.to_owned()), Arc::clone(&compiler));
        Ok(compiler)
    }

    /// All that are known, for listings.
    pub fn list(&self) -> Vec<Arc<Compiler>> {
        self.known().values().cloned().collect()
    }
}

fn identify(hashes: &FileHashes, program: &Path, search: &OsStr) -> Result<Compiler, IdentifyError> {
    let found = capture(program, search)?;
    let shadows = Shadows::new(&found.shadows);
    let family = found.family.ok_or_else(|| IdentifyError::Unknown(program.to_owned()))?;
    let mut resolver = Resolver::default();
    let mut tree = TreeBuilder::default();
    let mut files = Vec::with_capacity(found.files.len());
    let mut guards = Vec::with_capacity(found.files.len());
    for path in &found.files {
        let Resolved::Present(place) = resolver.resolve(Path::new("/"), path)? else {
            continue; // Gone since it was listed: the next check of the guards will tell.
        };
        let real = place.to_absolute();
        let hashed = hashes.hash(&real).map_err(|error| IdentifyError::Io { path: real.clone(), error })?;
        tree.file(&place, hashed.digest, hashed.executable)?;
        // Built-in headers are checked by whoever reads them, like all headers.
        if !place.components().any(|part| part.starts_with("include")) {
            guards.push((real.clone(), hashed.identity));
        }
        files.push((real, hashed.digest));
    }
    // It tells the loader where libraries are; which they are was read through it.
    let loader_cache = PathBuf::from("/etc/ld.so.cache");
    if let Ok(meta) = fs::metadata(&loader_cache) {
        guards.push((loader_cache, FileIdentity::of(&meta)));
    }
    for (place, target) in resolver.symlinks() {
        tree.symlink(place, target)?;
    }
    for place in resolver.directories() {
        tree.directory(place)?;
    }
    // Where gcc keeps its assembler source between two programs.
    tree.directory(&RelPath::try_from("tmp").map_err(ResolveError::from)?)?;
    let tree = tree.finish();
    let links =
        resolver.symlinks().iter().map(|(place, target)| (place.to_absolute(), PathBuf::from(target))).collect();
    let toolchain = Toolchain {
        root: tree.root,
        host: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        label: found.label,
    };
    let id = ToolchainId(toolchain.digest());
    let search = found.tool_folder.map_or_else(|| "/usr/bin:/bin".to_owned(), |folder| folder.display().to_string());
    files.sort();
    files.dedup();
    Ok(Compiler {
        program: program.to_owned(),
        family,
        toolchain,
        id,
        files,
        directories: tree.directories,
        search,
        guards,
        links,
        shadows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_compiler_is_captured_once_and_named_by_content() {
        let toolchains = Toolchains::new(FileHashes::default());
        let search = OsStr::new("/usr/bin:/bin");
        let first = toolchains.identify(Path::new("/usr/bin/gcc"), search).await.unwrap();
        let second = toolchains.identify(Path::new("/usr/bin/gcc"), search).await.unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let again = Toolchains::new(FileHashes::default()).identify(Path::new("/usr/bin/gcc"), search).await.unwrap();
        assert_eq!(first.id, again.id);
    }

    #[tokio::test]
    async fn an_assembler_that_appears_earlier_on_the_path_makes_another_toolchain() {
        let folder = tempfile::tempdir().unwrap();
        let search = format!("{}:/usr/bin:/bin", folder.path().display());
        let toolchains = Toolchains::new(FileHashes::default());
        let identify = || toolchains.identify(Path::new("/usr/bin/gcc"), OsStr::new(&search));
        let before = identify().await.unwrap();
        assert!(Arc::ptr_eq(&before, &identify().await.unwrap()));
        let mut assembler = fs::read("/usr/bin/as").unwrap();
        assembler.extend_from_slice(b"another build of it");
        fs::write(folder.path().join("as"), assembler).unwrap();
        let after = identify().await.unwrap();
        assert_ne!(before.id, after.id);
    }
}
