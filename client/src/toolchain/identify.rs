//! Recognises compilers, once, and notices when one changes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::Mutex as Turn;

use super::capture::{CaptureError, capture};
use super::parts::{GatherError, Gathering, Guards, Parts, Watch};
use crate::compiler::request::CompilerFamily;
use crate::inputs::filehash::FileHashes;

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
    pub parts: Arc<Parts>,
    /// Value of `PATH` under which it finds its assembler.
    pub search: String,
    /// Whether it takes `-ffile-prefix-map`.
    pub takes_prefix_maps: bool,
    guards: Guards,
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
    /// They can't be made a tree.
    #[error(transparent)]
    Gather(#[from] GatherError),
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
        compiler.guards.still_hold().then_some(compiler)
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
    gather(hashes, program, search, &|_| true)
}

/// The compiler at `program` without its headers, and without what leads it to those of another: what compiles for other machines takes
/// theirs.
pub(super) fn identify_bare(hashes: &FileHashes, program: &Path, search: &OsStr) -> Result<Compiler, IdentifyError> {
    let leads = |path: &Path| path.extension().is_some_and(|ending| ending == "o");
    gather(hashes, program, search, &|path| !is_header(path) && !leads(path))
}

/// Built-in headers are checked by whoever reads them, like all headers.
fn is_header(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"include"))
}

fn gather(
    hashes: &FileHashes,
    program: &Path,
    search: &OsStr,
    belongs: &dyn Fn(&Path) -> bool,
) -> Result<Compiler, IdentifyError> {
    let found = capture(program, search)?;
    let family = found.family.ok_or_else(|| IdentifyError::Unknown(program.to_owned()))?;
    let mut gathering = Gathering::default();
    for path in found.files.into_iter().filter(|path| belongs(path)) {
        let watch = if is_header(&path) { Watch::No } else { Watch::Yes };
        gathering.at_real_place(path, watch);
    }
    gathering.shadows(found.shadows);
    let (parts, guards) = gathering.finish(found.label, hashes)?;
    let search = found.tool_folder.map_or_else(|| "/usr/bin:/bin".to_owned(), |folder| folder.display().to_string());
    let takes_prefix_maps = found.takes_prefix_maps;
    Ok(Compiler { program: program.to_owned(), family, parts: Arc::new(parts), search, takes_prefix_maps, guards })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_compiler_is_captured_once_and_named_by_content() {
        let toolchains = Toolchains::new(FileHashes::default());
        let search = OsStr::new("/usr/bin:/bin");
        let first = toolchains.identify(Path::new("/usr/bin/gcc"), search).await.unwrap();
        let second = toolchains.identify(Path::new("/usr/bin/gcc"), search).await.unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let again = Toolchains::new(FileHashes::default()).identify(Path::new("/usr/bin/gcc"), search).await.unwrap();
        assert_eq!(first.parts.id, again.parts.id);
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
        assert_ne!(before.parts.id, after.parts.id);
    }
}
