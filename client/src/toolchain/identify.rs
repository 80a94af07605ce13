//! Recognises compilers, once, and notices when one changes.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::Mutex as Turn;

use super::capture::{Capture, CaptureError, capture};
use super::outboard::{OutboardError, Store, Stores, wrapper};
use super::parts::{GatherError, Gathering, Guards, Parts, Watch};
use crate::compiler::request::CompilerFamily;
use crate::inputs::filehash::FileHashes;

/// `PATH` of compilers that are asked something.
const COMMON_SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Compilers remembered; beyond it the memory starts over.
const MAX_COMPILERS: usize = 64;

/// A compiler with its toolchain.
#[derive(Debug)]
pub struct Compiler {
    /// Where it was found, not resolved: the name decides how gcc and clang behave. What lies in a store under the same name is called there, so
    /// that a profile's next generation, or another user's, is the same compiler.
    pub program: PathBuf,
    /// What it is.
    pub family: CompilerFamily,
    /// As content.
    pub parts: Arc<Parts>,
    /// Value of `PATH` under which it finds its assembler.
    pub search: String,
    /// Whether it takes `-ffile-prefix-map`.
    pub takes_prefix_maps: bool,
    /// Whether it comes out of a store, with a C library of its own.
    pub is_stored: bool,
    /// `PATH` under which it is asked something here.
    pub asked_with: String,
    /// How the names of further variables begin that it reads.
    pub variables: Vec<String>,
    guards: Guards,
}

impl Compiler {
    /// Whether everything is as it was. Only `stat`s where nothing changed. Blocks.
    pub fn still_holds(&self) -> bool {
        self.guards.still_hold()
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
    /// They can't be made a tree.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// Its closure, or what its wrapper does, could not be told.
    #[error(transparent)]
    Outboard(#[from] OutboardError),
    /// The task that looked at it was cut off.
    #[error("interrupted")]
    Interrupted,
}

impl IdentifyError {
    /// The reason's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Outboard(OutboardError::Tool { .. } | OutboardError::Unlisted { .. }) => "unknown-closure",
            Self::Capture(CaptureError::Script(_)) | Self::Outboard(_) => "wrapper-script",
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
    stores: Stores,
    known: Arc<Mutex<Known>>,
    /// One capture at a time, so that a build's first hundred compiles wait for one and don't make a hundred.
    capturing: Arc<Turn<()>>,
}

impl Toolchains {
    /// Knows nothing yet.
    pub fn new(hashes: FileHashes) -> Self {
        Self { hashes, stores: Stores::default(), known: Arc::default(), capturing: Arc::default() }
    }

    /// The same, with stores out of which compilers come with their closure.
    #[must_use]
    pub fn with_stores(self, stores: Vec<Store>) -> Self {
        Self { stores: Stores::new(stores), ..self }
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
        let compiler = Arc::new(identify(&self.hashes, &self.stores, program, search)?);
        let mut known = self.known();
        if known.len() >= MAX_COMPILERS {
            known.clear();
        }
        known.insert((program.to_owned(), search.to_owned()), Arc::clone(&compiler));
        Ok(compiler)
    }

    /// Forgets those that are not as they were, and says which. Only `stat`s. Blocks.
    pub fn forget_changed(&self) -> Vec<PathBuf> {
        let stale: Vec<Arc<Compiler>> = self.list().into_iter().filter(|compiler| !compiler.still_holds()).collect();
        self.known().retain(|_, known| !stale.iter().any(|stale| Arc::ptr_eq(stale, known)));
        stale.iter().map(|compiler| compiler.program.clone()).collect()
    }

    /// All that are known, for listings.
    pub fn list(&self) -> Vec<Arc<Compiler>> {
        self.known().values().cloned().collect()
    }
}

fn identify(hashes: &FileHashes, stores: &Stores, program: &Path, search: &OsStr) -> Result<Compiler, IdentifyError> {
    look(hashes, stores, program, search, &|_| true)
}

/// The compiler at `program`, which lies in no store, without its headers, and without what leads it to those of another: what compiles for
/// other machines takes theirs.
pub(super) fn identify_bare(hashes: &FileHashes, program: &Path, search: &OsStr) -> Result<Compiler, IdentifyError> {
    let leads = |path: &Path| path.extension().is_some_and(|ending| ending == "o");
    look(hashes, &Stores::default(), program, search, &|path| !is_header(path) && !leads(path))
}

/// Built-in headers are checked by whoever reads them, like all headers.
fn is_header(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"include"))
}

fn look(
    hashes: &FileHashes,
    stores: &Stores,
    program: &Path,
    search: &OsStr,
    belongs: &dyn Fn(&Path) -> bool,
) -> Result<Compiler, IdentifyError> {
    let real = fs::canonicalize(program).map_err(|error| CaptureError::Io { path: program.to_owned(), error })?;
    let stored = stores.of(&real);
    let same_name = stored.is_some() && real.file_name() == program.file_name();
    let called = if same_name { real.as_path() } else { program };
    let found = capture(called, search, &|path| stores.hold(path))?;
    let family = found.family.ok_or_else(|| IdentifyError::Unknown(program.to_owned()))?;
    let takes_prefix_maps = found.takes_prefix_maps;
    let (on_agents, asked_with) = match (&found.tool_folder, &stored) {
        (Some(folder), None) => (folder.display().to_string(), COMMON_SEARCH.to_owned()),
        (None, None) => ("/usr/bin:/bin".to_owned(), COMMON_SEARCH.to_owned()),
        (folder, Some(_)) => {
            let folder = folder.as_deref().or(real.parent()).unwrap_or(Path::new("/")).display().to_string();
            (folder.clone(), folder)
        }
    };
    let mut label = found.label.clone();
    let mut variables = Vec::new();
    if let Some((store, path)) = &stored {
        if wrapper::is_script(&real) {
            wrapper::check_script(store, path, &real)?;
            variables.clone_from(&store.variables);
        }
        wrapper::check_plan(called, search, OsStr::new(&on_agents))?;
        label = format!("{label}, {}", path.display());
    }
    let mut gathering = gather(stores, found, search, belongs)?;
    if same_name {
        gathering.led_by(program.to_owned());
    }
    let (parts, guards) = gathering.finish(label, hashes)?;
    Ok(Compiler {
        program: called.to_owned(),
        family,
        parts: Arc::new(parts),
        search: on_agents,
        takes_prefix_maps,
        is_stored: stored.is_some(),
        asked_with,
        variables,
        guards,
    })
}

/// The files that were found, and the closures of those that lie in a store.
fn gather(
    stores: &Stores,
    found: Capture,
    search: &OsStr,
    belongs: &dyn Fn(&Path) -> bool,
) -> Result<Gathering, IdentifyError> {
    let mut gathering = Gathering::default();
    let mut whole = BTreeSet::new();
    for path in found.files.into_iter().filter(|path| belongs(path)) {
        if let Some((store, store_path)) = fs::canonicalize(&path).ok().as_deref().and_then(|real| stores.of(real)) {
            if !whole.contains(&store_path) {
                whole.extend(stores.closure(store, &store_path, search)?.iter().cloned());
                gathering.watched(store_path);
            }
            if stores.hold(&path) {
                continue;
            }
        }
        let watch = if is_header(&path) { Watch::No } else { Watch::Yes };
        gathering.at_real_place(path, watch);
    }
    for path in whole {
        gathering.whole(path);
    }
    let mut shadows = found.shadows;
    // Nothing appears in a store path.
    shadows.absent.retain(|path| !stores.hold(path));
    shadows.listed.retain(|path| !stores.hold(path));
    gathering.shadows(shadows);
    Ok(gathering)
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
