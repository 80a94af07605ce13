//! What comes out of a decision about a rustc command. Plain data.

use std::path::PathBuf;

use super::reason::RustReason;
use super::roots::Roots;

/// Where a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RustDecision {
    /// It can run elsewhere and be cached.
    Compile(Box<RustRequest>),
    /// It runs here, and why.
    Local(RustReason),
}

/// Which program reads the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RustDriver {
    /// `rustc`.
    Rustc,
    /// `clippy-driver`.
    Clippy,
}

/// What is made of a crate. More than one may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CrateType {
    /// `bin`.
    Bin,
    /// `lib`, which is `rlib` now.
    Lib,
    /// `rlib`.
    Rlib,
    /// `dylib`.
    Dylib,
    /// `cdylib`.
    Cdylib,
    /// `staticlib`.
    Staticlib,
    /// `proc-macro`.
    ProcMacro,
}

impl CrateType {
    /// Whether a linker is started for it.
    pub fn links(self) -> bool {
        match self {
            Self::Bin | Self::Dylib | Self::Cdylib | Self::ProcMacro => true,
            Self::Lib | Self::Rlib | Self::Staticlib => false,
        }
    }
}

/// What `--emit` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EmitKind {
    /// `asm`.
    Assembly,
    /// `llvm-bc`.
    Bitcode,
    /// `dep-info`.
    DepInfo,
    /// `link`.
    Link,
    /// `llvm-ir`.
    LlvmIr,
    /// `metadata`.
    Metadata,
    /// `mir`.
    Mir,
    /// `obj`.
    Object,
    /// `thin-link-bitcode`.
    ThinLinkBitcode,
}

/// One kind of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// What.
    pub kind: EmitKind,
    /// Where, if the command says so (`--emit=link=PATH`).
    pub path: Option<PathBuf>,
}

/// `--extern`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extern {
    /// The name that the source uses.
    pub name: String,
    /// What stands before the name: `priv`, `noprelude`, `nounused`, `force`.
    pub options: Vec<String>,
    /// As spelled. `None`: it is found on the search path.
    pub path: Option<PathBuf>,
}

/// What a folder of `-L` is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SearchPathKind {
    /// `dependency`: crates that crates need.
    Dependency,
    /// `crate`: crates that this one names.
    Crate,
    /// `native`.
    Native,
    /// `framework`.
    Framework,
    /// `all`, and no kind.
    All,
}

/// `-L`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath {
    /// What is looked for there.
    pub kind: SearchPathKind,
    /// As spelled.
    pub path: PathBuf,
}

/// `-l`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeLibrary {
    /// `static`, `dylib`, `framework`, or none.
    pub kind: Option<String>,
    /// `+bundle`, `-whole-archive` and so on.
    pub modifiers: Vec<String>,
    /// Name without prefix and suffix; with `+verbatim` the file's name.
    pub name: String,
    /// Whether the compiler or its linker opens the file for this crate's outputs: `static` kinds are bundled into libraries, all kinds
    /// count where a linker runs.
    pub is_opened: bool,
}

impl NativeLibrary {
    /// Whether it is opened when a dependant is linked: what is not in this crate's own library.
    pub fn is_for_dependants(&self) -> bool {
        self.kind.as_deref() != Some("static") || self.modifiers.iter().any(|modifier| modifier == "-bundle")
    }

    /// What follows a linker's `-l`.
    pub fn linker_name(&self) -> String {
        let is_verbatim = self.modifiers.iter().any(|modifier| modifier == "+verbatim");
        if is_verbatim { format!(":{}", self.name) } else { self.name.clone() }
    }
}

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RustOutputKind {
    /// `.d`.
    DepInfo,
    /// `.rmeta`.
    Metadata,
    /// `.rlib`, `.so`, `.a`.
    Library,
    /// A program; written with the executable bit.
    Executable,
    /// `.o`, `.s`, `.ll`, `.dwp` and so on.
    Other,
}

/// A file that the compile writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RustOutput {
    /// As spelled, relative ones to the working directory.
    pub path: PathBuf,
    /// What it is.
    pub what: RustOutputKind,
    /// Whether a compile that succeeds always writes it.
    pub always: bool,
}

/// `--target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name that the compiler knows.
    Triple(String),
    /// A JSON file, as spelled; it is a named input too.
    Specification(PathBuf),
}

/// A compile that can run elsewhere and be cached. Paths are in real spelling, except where it says placed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a command, not states")]
pub struct RustRequest {
    /// Which program.
    pub driver: RustDriver,
    /// `--crate-name`, or what the source's name gives.
    pub crate_name: String,
    /// In the order given; `bin` if none is. Empty never.
    pub crate_types: Vec<CrateType>,
    /// In the order given; `link` if none is.
    pub emits: Vec<Emit>,
    /// `--test`.
    pub is_test: bool,
    /// Entry file as spelled.
    pub source: PathBuf,
    /// `CARGO_MANIFEST_DIR`, if set and absolute.
    pub package: Option<PathBuf>,
    /// The real roots found, and where they stand in the action.
    pub roots: Roots,
    /// The whole argument list as the user gave it, response files expanded, real spelling.
    pub argv: Vec<String>,
    /// Flags for a local run, to be put before the user's arguments (a leading rustc path of clippy aside).
    pub added_arguments: Vec<String>,
    /// What the question asks: placed spelling, without what can't change results, order kept.
    pub key_arguments: Vec<String>,
    /// What the sandbox runs: placed spelling, with the flags for the sandbox. Not the program's name.
    pub action_arguments: Vec<String>,
    /// `--extern`, in order.
    pub externs: Vec<Extern>,
    /// `-L`, in order.
    pub search: Vec<SearchPath>,
    /// `-l`, in order.
    pub native_libraries: Vec<NativeLibrary>,
    /// `--out-dir`, or where the outputs go without it.
    pub out_dir: PathBuf,
    /// Every file that may be written.
    pub outputs: Vec<RustOutput>,
    /// Whether a linker is started.
    pub links: bool,
    /// `-C linker`.
    pub linker: Option<PathBuf>,
    /// `-C link-arg` and `-C link-args`, word by word, real spelling.
    pub link_arguments: Vec<String>,
    /// `-C incremental`. In `action_arguments` it stands at [`SESSION_PLACE`](super::decide::SESSION_PLACE).
    pub incremental: Option<PathBuf>,
    /// `--target`.
    pub target: Option<Target>,
    /// Files that the command names: target specifications, profiles, linker scripts.
    pub named_inputs: Vec<PathBuf>,
    /// Declared variables, real spelling, sorted by name.
    pub env: Vec<(String, String)>,
    /// Metadata and link are emitted, and artifact notifications asked for: cargo goes on after the metadata.
    pub pipelined: bool,
    /// Standard error holds JSON lines (`--error-format=json`).
    pub json_messages: bool,
    /// Why it can be cached, but must be made on this machine.
    pub here_only: Option<RustReason>,
}

impl RustRequest {
    /// The declared variables in placed spelling.
    pub fn placed_env(&self) -> Vec<(String, String)> {
        let places = self.roots.places();
        self.env.iter().map(|(name, value)| (name.clone(), places.text(value))).collect()
    }
}
