//! Recognises rustc and clippy-driver, once, and notices when one changes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Turn;

use super::error::RustError;
use super::library::Folders;
use super::linker;
use super::proxy::{self, Found, Question};
use super::sysroot::Sysroot;
use crate::inputs::filehash::FileHashes;
use crate::rust::roots::RootKind;
use crate::toolchain::capture;
use crate::toolchain::parts::{Gathering, Guards, Parts, Watch};

/// Answers about stand-ins that are remembered, one a folder that is compiled in; beyond it the memory starts over.
const MAX_FOUND: usize = 4096;
/// Compilers remembered, one a target; beyond it the memory starts over.
const MAX_COMPILERS: usize = 64;
/// Compilers with linkers remembered; beyond it the memory starts over.
const MAX_LINKERS: usize = 64;

/// Who asks for a compiler.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The program, absolute, not resolved.
    pub program: &'a Path,
    /// Where it is called.
    pub cwd: &'a Path,
    /// `HOME`.
    pub home: Option<&'a OsStr>,
    /// `RUSTUP_HOME`.
    pub rustup_home: Option<&'a OsStr>,
    /// `RUSTUP_TOOLCHAIN`.
    pub rustup_toolchain: Option<&'a OsStr>,
    /// What it compiles for, where `--target` says so: a triple, or the stem of a specification's name.
    pub target: Option<&'a str>,
}

/// Who asks for a linker.
#[derive(Clone, Copy, Debug)]
pub struct LinkQuestion<'a> {
    /// `-C linker=`.
    pub linker: Option<&'a Path>,
    /// Where a relative one is looked for.
    pub cwd: &'a Path,
    /// `-C link-arg`, `-C link-args`, in order. What names files is an input of the action, and not looked at here.
    pub arguments: &'a [String],
    /// `PATH`.
    pub search: &'a OsStr,
}

/// A rustc, or a clippy-driver, with its sysroot.
#[derive(Debug)]
pub struct RustCompiler {
    /// The compiler itself, behind rustup's stand-in, in the real sysroot.
    pub program: PathBuf,
    /// Where it stands in an action.
    pub place: PathBuf,
    /// Its sysroot, as it spells it in its messages.
    pub sysroot: PathBuf,
    /// What it runs on: `x86_64-unknown-linux-gnu`.
    pub host: String,
    /// What it compiles for, if that was asked for.
    pub target: Option<String>,
    /// `1.95.0`, `1.97.0-nightly`.
    pub version: String,
    /// Of its sources, where it says so.
    pub commit: Option<String>,
    /// What an action says in front of its other arguments: where the sysroot is, if the compiler would not find it there.
    pub arguments: Vec<String>,
    /// Enough to compile: everything but linkers.
    pub parts: Arc<Parts>,
    /// Its answer to `-vV`.
    told: String,
    guards: Guards,
}

/// Beginnings of variables that may change what a compiler says of itself, or have it say more.
const CHANGING: [&str; 6] = ["LD_AUDIT", "LD_PRELOAD", "LLVM_", "RUSTC_FORCE_", "RUSTC_LOG", "RUSTC_OVERRIDE_"];

impl RustCompiler {
    /// What it prints to its standard output if it is asked which version it is, and nothing else; `None` for all other questions. Cargo asks
    /// at the beginning of a build from clean, and so do many build scripts.
    pub fn says(&self, arguments: &[String], env: &[(String, String)]) -> Option<&str> {
        if env.iter().any(|(name, _)| CHANGING.iter().any(|start| name.starts_with(start))) {
            return None;
        }
        match arguments {
            [question] if question == "-vV" => Some(&self.told),
            // Clippy's first line is another one.
            [question] if question == "--version" || question == "-V" => {
                let is_rustc = self.program.file_name().is_some_and(|name| name == "rustc");
                self.told.split_inclusive('\n').next().filter(|_| is_rustc)
            }
            _ => None,
        }
    }

    /// Its answer to `-vV`.
    pub fn told(&self) -> &str {
        &self.told
    }

    /// Whether everything is as it was. Only `stat`s where nothing changed. Blocks.
    pub fn still_holds(&self) -> bool {
        self.guards.still_hold()
    }

    /// How many things [`still_holds`](Self::still_holds) looks at.
    pub fn n_looks(&self) -> usize {
        self.guards.n_looks()
    }
}

/// A linker with all that plain links need, and the compiler that starts it.
#[derive(Debug)]
pub struct LinkerParts {
    /// What rustc starts, as found.
    pub program: PathBuf,
    /// Enough to compile and link.
    pub parts: Arc<Parts>,
    /// Value of `PATH` under which rustc finds it, and it what it starts.
    pub search: String,
    /// Where libraries are looked for.
    pub folders: Folders,
    guards: Guards,
}

impl LinkerParts {
    /// Whether everything besides the compiler is as it was. Only `stat`s where nothing changed. Blocks.
    pub fn still_holds(&self) -> bool {
        self.guards.still_hold()
    }

    /// How many things [`still_holds`](Self::still_holds) looks at.
    pub fn n_looks(&self) -> usize {
        self.guards.n_looks()
    }
}

/// Compilers by program and target.
type Compilers = HashMap<(PathBuf, Option<String>), Arc<RustCompiler>>;
/// What a link is made with.
type LinkKey = (buildbee_proto::toolchain::ToolchainId, Option<PathBuf>, PathBuf, Vec<String>, OsString);

#[derive(Debug, Default)]
struct Known {
    found: HashMap<Question, Arc<Found>>,
    compilers: Compilers,
    linkers: HashMap<LinkKey, Arc<LinkerParts>>,
}

/// Knows Rust compilers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RustToolchains {
    hashes: FileHashes,
    known: Arc<Mutex<Known>>,
    /// One capture at a time, so that a build's first hundred compiles wait for one and don't make a hundred.
    capturing: Arc<Turn<()>>,
}

impl RustToolchains {
    /// Knows none yet. Files are hashed through `hashes`.
    pub fn new(hashes: FileHashes) -> Self {
        Self { hashes, known: Arc::default(), capturing: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every critical section is one map operation, so a panic elsewhere leaves the maps whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The compiler if it is known and unchanged: only `stat`s. Blocks for that long.
    pub fn recall(&self, caller: &Caller<'_>) -> Option<Arc<RustCompiler>> {
        let found = |question: &Question| self.known().found.get(question).cloned().filter(|found| found.still_holds());
        let found = found(&Question::of_anybody(caller.program)).or_else(|| found(&Question::of(caller)))?;
        self.recall_found(&found, caller.target)
    }

    fn recall_found(&self, found: &Found, target: Option<&str>) -> Option<Arc<RustCompiler>> {
        let key = (found.program.clone(), target.map(str::to_owned));
        let known = self.known().compilers.get(&key).cloned();
        known.filter(|compiler| compiler.still_holds())
    }

    /// The compiler that `caller` names. The first time it is started some four times and the sysroot is hashed. Cancel-safe: what was begun
    /// is begun again by the next caller.
    pub async fn identify(&self, caller: Caller<'_>) -> Result<Arc<RustCompiler>, RustError> {
        let _turn = self.capturing.lock().await;
        let (this, caller) = (self.clone(), OwnedCaller::of(&caller));
        let look = move || this.look(&caller.borrow());
        tokio::task::spawn_blocking(look).await.unwrap_or(Err(RustError::Interrupted))
    }

    fn look(&self, caller: &Caller<'_>) -> Result<Arc<RustCompiler>, RustError> {
        if let Some(compiler) = self.recall(caller) {
            return Ok(compiler);
        }
        let found = Arc::new(proxy::find(caller)?);
        {
            let mut known = self.known();
            if known.found.len() >= MAX_FOUND {
                known.found.clear();
            }
            let question = if found.stands_in { Question::of(caller) } else { Question::of_anybody(caller.program) };
            known.found.insert(question, Arc::clone(&found));
        }
        if let Some(compiler) = self.recall_found(&found, caller.target) {
            return Ok(compiler);
        }
        let compiler = Arc::new(capture_compiler(&self.hashes, &found, caller.target)?);
        let mut known = self.known();
        if known.compilers.len() >= MAX_COMPILERS {
            known.compilers.clear();
        }
        known.compilers.insert((found.program.clone(), caller.target.map(str::to_owned)), Arc::clone(&compiler));
        Ok(compiler)
    }

    /// The linker if it is known and unchanged: only `stat`s. Blocks for that long. Says nothing of the compiler.
    pub fn recall_linker(&self, compiler: &RustCompiler, question: &LinkQuestion<'_>) -> Option<Arc<LinkerParts>> {
        let known = self.known().linkers.get(&link_key(compiler, question)).cloned();
        known.filter(|parts| parts.still_holds())
    }

    /// What `compiler` links with. The first time the linker is started some ten times. Cancel-safe like [`identify`](Self::identify).
    pub async fn linker(
        &self,
        compiler: &Arc<RustCompiler>,
        question: LinkQuestion<'_>,
    ) -> Result<Arc<LinkerParts>, RustError> {
        let _turn = self.capturing.lock().await;
        if let Some(parts) = self.recall_linker(compiler, &question) {
            return Ok(parts);
        }
        let (this, compiler, key) = (self.clone(), Arc::clone(compiler), link_key(compiler, &question));
        let look = move || {
            let (_, linker, cwd, arguments, search) = &key;
            let question = LinkQuestion { linker: linker.as_deref(), cwd, arguments, search };
            let parts = Arc::new(capture_linker(&this.hashes, &compiler, &question)?);
            let mut known = this.known();
            if known.linkers.len() >= MAX_LINKERS {
                known.linkers.clear();
            }
            known.linkers.insert(key, Arc::clone(&parts));
            Ok(parts)
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(Err(RustError::Interrupted))
    }

    /// Forgets those that are not as they were, and says which. Only `stat`s. Blocks.
    pub fn forget_changed(&self) -> Vec<PathBuf> {
        let stale: Vec<Arc<RustCompiler>> = self.list().into_iter().filter(|known| !known.still_holds()).collect();
        let is_stale = |known: &Arc<RustCompiler>| stale.iter().any(|stale| Arc::ptr_eq(stale, known));
        let mut known = self.known();
        known.compilers.retain(|_, compiler| !is_stale(compiler));
        known.found.retain(|_, found| found.still_holds());
        drop(known);
        stale.iter().map(|compiler| compiler.program.clone()).collect()
    }

    /// All that are known, for listings.
    pub fn list(&self) -> Vec<Arc<RustCompiler>> {
        self.known().compilers.values().cloned().collect()
    }
}

fn link_key(compiler: &RustCompiler, question: &LinkQuestion<'_>) -> LinkKey {
    // A linker that is looked for in PATH is the same from every folder.
    let spelled = question.linker.filter(|linker| linker.is_relative() && linker.components().count() > 1);
    let cwd = spelled.map_or_else(PathBuf::new, |_| question.cwd.to_owned());
    let arguments = question.arguments.iter().filter(|argument| linker::matters(argument)).cloned().collect();
    (compiler.parts.id, question.linker.map(Path::to_owned), cwd, arguments, question.search.to_owned())
}

/// What a compiler says of itself.
struct Told {
    label: String,
    host: String,
    version: String,
    commit: Option<String>,
    /// All of it.
    text: String,
}

fn tell(program: &Path) -> Result<Told, RustError> {
    let told = capture::ask(program, "-vV")?;
    let field = |name: &'static str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.filter(|value| !value.is_empty() && *value != "unknown").map(str::to_owned)
    };
    let wordless = |what| RustError::Wordless { program: program.to_owned(), what };
    Ok(Told {
        label: told.lines().next().unwrap_or_default().trim().to_owned(),
        host: field("host").ok_or_else(|| wordless("host"))?,
        version: field("release").ok_or_else(|| wordless("release"))?,
        commit: field("commit-hash"),
        text: told.clone(),
    })
}

/// `caller`'s compiler with all that it needs for the caller's target, looked at once. Blocks.
pub fn identify_bare(hashes: &FileHashes, caller: &Caller<'_>) -> Result<RustCompiler, RustError> {
    capture_compiler(hashes, &proxy::find(caller)?, caller.target)
}

/// `compiler` with a linker of its host, looked at once. Blocks.
pub fn identify_linker(
    hashes: &FileHashes,
    compiler: &RustCompiler,
    question: &LinkQuestion<'_>,
) -> Result<LinkerParts, RustError> {
    capture_linker(hashes, compiler, question)
}

/// Targets whose libraries `caller`'s compiler has, but for its own host. Blocks.
pub fn targets(caller: &Caller<'_>) -> Result<Vec<String>, RustError> {
    let found = proxy::find(caller)?;
    let host = tell(&found.program)?.host;
    let names = fs::read_dir(found.sysroot.join("lib/rustlib")).into_iter().flatten().flatten();
    let with_library = names.filter(|entry| entry.path().join("lib").is_dir());
    let mut targets: Vec<String> = with_library.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    targets.retain(|target| *target != host);
    targets.sort();
    Ok(targets)
}

/// What `caller`'s compiler and its linker are, for people. Reads no file whole. Blocks.
pub fn describe(caller: &Caller<'_>, question: &LinkQuestion<'_>) -> Result<String, RustError> {
    let found = proxy::find(caller)?;
    let told = tell(&found.program)?;
    let sysroot = Sysroot {
        folder: &found.sysroot,
        program: &found.program,
        host: &told.host,
        target: caller.target.filter(|target| *target != told.host),
        watch: Watch::No,
    };
    sysroot.gather(&mut Gathering::default())?;
    let linker = linker::gather(&sysroot, question, &mut Gathering::default())?;
    Ok(format!("{} in {}, links with {}", told.label, found.sysroot.display(), linker.label))
}

fn capture_compiler(hashes: &FileHashes, found: &Found, target: Option<&str>) -> Result<RustCompiler, RustError> {
    let program = &found.program;
    let Told { label, host, version, commit, text: told } = tell(program)?;
    let host = host.as_str();
    let target = target.filter(|target| *target != host);
    let mut gathering = Gathering::default();
    let sysroot = Sysroot { folder: &found.sysroot, program, host, target, watch: Watch::Yes };
    let finds_itself = sysroot.gather(&mut gathering)?;
    let (parts, guards) = gathering.finish(label, hashes)?;
    Ok(RustCompiler {
        program: program.clone(),
        place: sysroot.place_of_program(),
        sysroot: found.sysroot.clone(),
        host: host.to_owned(),
        target: target.map(str::to_owned),
        version,
        commit,
        arguments: if finds_itself { Vec::new() } else { vec![format!("--sysroot={}", RootKind::Sysroot.place())] },
        parts: Arc::new(parts),
        told,
        guards,
    })
}

fn capture_linker(
    hashes: &FileHashes,
    compiler: &RustCompiler,
    question: &LinkQuestion<'_>,
) -> Result<LinkerParts, RustError> {
    let sysroot = Sysroot {
        folder: &compiler.sysroot,
        program: &compiler.program,
        host: &compiler.host,
        target: compiler.target.as_deref(),
        // Whoever asks for a linker has looked at the compiler.
        watch: Watch::No,
    };
    let mut gathering = Gathering::default();
    sysroot.gather(&mut gathering)?;
    let sysroot = Sysroot { watch: Watch::Yes, ..sysroot };
    sysroot.gather_for_links(&mut gathering)?;
    let linker = linker::gather(&sysroot, question, &mut gathering)?;
    let label = format!("{} with {}", compiler.parts.toolchain.label, linker.label);
    let (parts, guards) = gathering.finish(label, hashes)?;
    if !compiler.still_holds() {
        // The files of this tree are not all the compiler's.
        return Err(RustError::Interrupted);
    }
    Ok(LinkerParts {
        program: linker.program,
        parts: Arc::new(parts),
        search: linker.search,
        folders: linker.folders,
        guards,
    })
}

/// A [`Caller`] for another thread.
struct OwnedCaller {
    program: PathBuf,
    cwd: PathBuf,
    home: Option<OsString>,
    rustup_home: Option<OsString>,
    rustup_toolchain: Option<OsString>,
    target: Option<String>,
}

impl OwnedCaller {
    fn of(caller: &Caller<'_>) -> Self {
        Self {
            program: caller.program.to_owned(),
            cwd: caller.cwd.to_owned(),
            home: caller.home.map(OsStr::to_owned),
            rustup_home: caller.rustup_home.map(OsStr::to_owned),
            rustup_toolchain: caller.rustup_toolchain.map(OsStr::to_owned),
            target: caller.target.map(str::to_owned),
        }
    }

    fn borrow(&self) -> Caller<'_> {
        Caller {
            program: &self.program,
            cwd: &self.cwd,
            home: self.home.as_deref(),
            rustup_home: self.rustup_home.as_deref(),
            rustup_toolchain: self.rustup_toolchain.as_deref(),
            target: self.target.as_deref(),
        }
    }
}

#[cfg(test)]
#[path = "identify_tests.rs"]
mod tests;
