//! What goes into a decision and what comes out. Plain data; the logic is in [`decide`](super::decide).

use std::path::{Path, PathBuf};

use super::environment::CommonLocale;
use super::language::Language;
use super::outputs::Output;
use super::reason::{Reason, ReasonKind};
use super::time_words::TimeWords;

/// Which command line the compiler understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompilerFamily {
    /// GNU.
    Gcc,
    /// LLVM.
    Clang,
}

/// What a driver takes a `.c` file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriverLanguage {
    /// `gcc`, `clang`.
    C,
    /// `g++`, `clang++`: `.c` is C++.
    Cxx,
}

/// A compiler command as the user gave it.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// Family of the compiler that will run, found by running it, not by its name.
    pub family: CompilerFamily,
    /// Which driver it is.
    pub driver: DriverLanguage,
    /// Arguments without the program's name.
    pub argv: &'a [String],
    /// The user's environment.
    pub env: &'a [(String, String)],
    /// Where the command runs: absolute, as `getcwd` says (links resolved).
    pub cwd: &'a Path,
    /// Whether stderr of the wrapper is a terminal.
    pub stderr_is_terminal: bool,
    /// Width of the terminal at stdin where there is one.
    pub columns: Option<u32>,
    /// The common locale that speaks as the user's does; `None` where none is known to.
    pub locale: Option<CommonLocale>,
    /// How the names of variables begin that the compiler's wrapper reads.
    pub variables: &'a [String],
}

/// Where a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It can run elsewhere and be cached.
    Distribute(Box<CompileRequest>),
    /// It runs here, and why.
    Local(Reason),
}

/// Which headers a dependency file lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepKind {
    /// `-MD`: all.
    All,
    /// `-MMD`: all but system headers.
    User,
}

/// A dependency file that the compiler writes beside the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepFile {
    /// As spelled, or derived as the compiler derives it.
    pub path: PathBuf,
    /// What is in it.
    pub kind: DepKind,
}

/// In which list of the search path a folder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchKind {
    /// `-iquote`.
    Quote,
    /// `-I`.
    Include,
    /// `-isystem`.
    System,
    /// `-cxx-isystem`, `-stdlib++-isystem` (clang).
    CxxSystem,
    /// `-idirafter`.
    After,
    /// `--sysroot`, `-isysroot`: a root, not a member of the path.
    Sysroot,
    /// From `CPATH`: after `-I`.
    EnvAll,
    /// From `C_INCLUDE_PATH` or what it is called for the language: after `-isystem`.
    EnvLanguage,
}

/// A folder of the search path that the user named. The compiler's own folders are not here: ask it with
/// [`CompileRequest::include_arguments`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchDirectory {
    /// Its list.
    pub kind: SearchKind,
    /// As spelled, relative ones to the working directory.
    pub path: PathBuf,
}

/// What must hold for a result's stderr to be what a local run would have printed on this terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StderrRule {
    /// Always holds.
    Exact,
    /// Holds only for empty text: the compiler would have written something for terminals only that no argument can ask for without
    /// changing the object.
    OnlyIfEmpty,
}

impl StderrRule {
    /// Whether a result with this stderr may be shown. If not, the command has to run locally.
    pub fn accepts(self, stderr: &[u8]) -> bool {
        match self {
            Self::Exact => true,
            Self::OnlyIfEmpty => stderr.is_empty(),
        }
    }
}

/// What becomes of a file that is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputRule {
    /// The compiler reads it if it is there.
    ReadIfThere,
    /// The compiler removes it: nobody else may do that.
    Removed,
}

/// A file that an option names or implies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedInput {
    /// Relative ones to the working directory.
    pub path: PathBuf,
    /// What becomes of it.
    pub rule: InputRule,
}

impl NamedInput {
    /// One that is read if it is there.
    pub(super) fn read(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rule: InputRule::ReadIfThere }
    }
}

/// One compile that can run elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileRequest {
    /// Of the compiler.
    pub family: CompilerFamily,
    /// As spelled.
    pub source: PathBuf,
    /// Of the source.
    pub language: Language,
    /// The main output, as spelled after `-o`, or derived: the source's stem with `.o` (`.s` for `-S`), in the working directory. It is not
    /// written where the command only checks.
    pub object: PathBuf,
    /// The dependency file, if one is written.
    pub depfile: Option<DepFile>,
    /// Every file that a successful local run may write, none twice.
    pub outputs: Vec<Output>,
    /// Arguments for the action, without the program: the user's with response files replaced by what is in them, then what makes
    /// defaults explicit that would depend on a terminal.
    pub argv: Vec<String>,
    /// What of [`argv`](Self::argv) is not the user's: what makes defaults explicit, at its end. A local run gets it too.
    pub added_arguments: Vec<String>,
    /// Folders that are elsewhere in other checkouts and homes, as the build has them. None where nothing is known of it: then the command
    /// is about one project's folder.
    pub roots: Vec<PathBuf>,
    /// The part of the user's environment that can change results, sorted by name, no name twice. `PATH` is not in it: it belongs to
    /// the toolchain. `PWD` is not in it either, see [`logical_directory`](Self::logical_directory).
    pub env: Vec<(String, String)>,
    /// The user's `PWD` where it is absolute and not the working directory's own spelling. Compilers write it into debug information
    /// if it names the same folder (a path through a symlink) and ignore it if it does not (a stale variable), so the caller must
    /// compare device and inode: same folder, then the action needs `PWD` set to it and the links in its input root, or runs locally;
    /// otherwise, and when this is `None`, the action runs without `PWD` or with the working directory in it.
    pub logical_directory: Option<PathBuf>,
    /// The arguments that decide search path, macros and dialect: all but outputs, modes, dependency options and the source. Ends with
    /// `-x LANGUAGE`, so that a source or `/dev/null` can follow. For questions (`-M`, `-E -v`) that the compiler is asked directly.
    /// Sources that are preprocessed already have nothing to ask: gcc answers `-M` with nothing.
    pub include_arguments: Vec<String>,
    /// The arguments as part of a cache key: [`argv`](Self::argv) with output and dependency options in one spelling.
    pub key_arguments: Vec<String>,
    /// Files that other options name or imply.
    pub named_inputs: Vec<NamedInput>,
    /// Files of `-include` and `-imacros`, as spelled: looked for in the working directory, then as `#include "…"` is.
    pub explicit_inputs: Vec<PathBuf>,
    /// Folders that the user added to the search path, in the order given within each kind.
    pub search_directories: Vec<SearchDirectory>,
    /// Whether a result's stderr may be shown.
    pub stderr_rule: StderrRule,
    /// Whether the compiler prints on a terminal.
    pub stderr_is_terminal: bool,
    /// Variables for a run on a terminal: see [`on_terminal`](Self::on_terminal).
    pub terminal: Option<Vec<(String, String)>>,
    /// Why no other machine may run it, though its result can be kept.
    pub here_only: Option<Reason>,
    /// Words that come to the same at every hour.
    pub fixed_words: TimeWords,
    /// Whether two runs of the command leave the same bytes. gcc puts a random number into objects for coverage, profiles and link time
    /// optimisation unless `-frandom-seed=` is given, and its assembler puts the name of a temporary file into the headings of listings.
    /// A result made elsewhere holds another one, just as a second local run's would.
    pub reproducible: bool,
}

impl CompileRequest {
    /// The same, where `argv` began with `maps`, which are not the user's, and `roots` are elsewhere in other checkouts.
    #[must_use]
    pub fn mapped(mut self, maps: Vec<String>, roots: Vec<PathBuf>) -> Self {
        self.added_arguments.splice(0..0, maps);
        Self { roots, ..self }
    }

    /// Whether the output is a precompiled header.
    pub fn makes_precompiled(&self) -> bool {
        self.here_only.as_ref().is_some_and(|reason| reason.kind == ReasonKind::PrecompiledHeader)
    }

    /// The same compile, printing on a terminal like the user's: for where this one prints something that can't be shown there. The
    /// object is the same.
    pub fn on_terminal(&self) -> Option<Self> {
        let variables = self.terminal.clone()?;
        let mut request =
            Self { stderr_rule: StderrRule::Exact, stderr_is_terminal: true, terminal: None, ..self.clone() };
        request.env.retain(|(name, _)| variables.iter().all(|(new, _)| new != name));
        request.env.extend(variables);
        request.env.sort();
        Some(request)
    }

    /// Whether a result with this stderr is what a local run would have printed. Messages in a language whose texts the toolchain
    /// does not hold come out in English elsewhere.
    pub fn accepts_stderr(&self, stderr: &[u8]) -> bool {
        stderr.is_empty() || (self.stderr_rule.accepts(stderr) && self.speaks_plainly())
    }

    /// Whether messages are in a locale that every toolchain has.
    fn speaks_plainly(&self) -> bool {
        let locale = |(name, value): &(String, String)| {
            !(name == "LANG" || name == "LANGUAGE" || name.starts_with("LC_"))
                || matches!(value.as_str(), "" | "C" | "POSIX" | "C.UTF-8" | "C.utf8")
        };
        self.env.iter().all(locale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stderr_rules() {
        assert!(StderrRule::Exact.accepts(b"x"));
        assert!(StderrRule::OnlyIfEmpty.accepts(b""));
        assert!(!StderrRule::OnlyIfEmpty.accepts(b"x"));
    }
}
