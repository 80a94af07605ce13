//! The files that a compile writes: what they are called, whether they are always written, and what the compiler does with one that is
//! there already. Names only: nothing here looks at a file.

use std::path::{Path, PathBuf};

use super::places::with_suffix;
use super::reason::{Reason, ReasonKind};
use super::request::CompilerFamily;

/// How far a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// `-c`: to an object.
    Object,
    /// `-S`: to assembler text.
    Assembly,
    /// `-fsyntax-only`: to messages.
    Check,
}

/// A file that an option makes the compiler write beside its main output. (Each seen with gcc 12 and clang 14: the main output's name with
/// another suffix, whatever the source is called, and in its folder.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideFile {
    /// `-gsplit-dwarf`: debug information that stays out of the object.
    SplitDwarf,
    /// `-fstack-usage`.
    StackUsage,
    /// `-fcallgraph-info`.
    CallGraph,
    /// `-ftest-coverage`: what `gcov` reads.
    CoverageNotes,
    /// clang's `-fsave-optimization-record`.
    OptimizationRecord,
}

impl SideFile {
    /// With its dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::SplitDwarf => ".dwo",
            Self::StackUsage => ".su",
            Self::CallGraph => ".ci",
            Self::CoverageNotes => ".gcno",
            Self::OptimizationRecord => ".opt.yaml",
        }
    }
}

/// How a compiler treats an output that is there already. One that it writes into keeps its permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Removed, or replaced by renaming: clang's objects.
    Replaced,
    /// Removed unless it is empty, as `mktemp` leaves it: what GNU's assembler and `objcopy` write.
    EmptyKept,
    /// Written into: dependency files.
    Kept,
}

impl Existing {
    /// Whether one of this length stays the file that it is, and so keeps its mode.
    pub fn keeps_file_of(self, n_bytes: u64) -> bool {
        match self {
            Self::Replaced => false,
            Self::EmptyKept => n_bytes == 0,
            Self::Kept => true,
        }
    }
}

/// A file that a compile writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// As spelled, or derived as the compiler derives it.
    pub path: PathBuf,
    /// Whether a compile that succeeds always writes it. Of the others an older one stays where it is.
    pub always: bool,
    /// What becomes of one that is there already.
    pub existing: Existing,
}

impl Output {
    /// What `stage` is about.
    pub(super) fn main(path: &str, stage: Stage, family: CompilerFamily) -> Self {
        let existing = match (family, stage) {
            (CompilerFamily::Clang, _) => Existing::Replaced,
            (CompilerFamily::Gcc, Stage::Object) => Existing::EmptyKept,
            (CompilerFamily::Gcc, _) => Existing::Kept,
        };
        Self { path: PathBuf::from(path), always: true, existing }
    }

    /// A dependency file.
    pub(super) fn dependencies(path: &Path) -> Self {
        Self { path: path.to_owned(), always: true, existing: Existing::Kept }
    }

    /// A file that an option names.
    pub(super) fn named(path: &str, existing: Existing) -> Self {
        Self { path: PathBuf::from(path), always: false, existing }
    }

    /// A file beside `main`.
    pub(super) fn beside(main: &str, file: SideFile, family: CompilerFamily) -> Result<Self, Reason> {
        let path = with_suffix(main, file.suffix());
        let path = path.ok_or_else(|| Reason::about(ReasonKind::UnusualOutput, main))?;
        let existing = match (file, family) {
            (SideFile::SplitDwarf, CompilerFamily::Gcc) => Existing::EmptyKept,
            _ => Existing::Kept,
        };
        Ok(Self { path: PathBuf::from(path), always: false, existing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stand_beside_the_main_output() {
        let name = |main| Output::beside(main, SideFile::StackUsage, CompilerFamily::Gcc).map(|output| output.path);
        assert_eq!(name("d/x.c.o"), Ok(PathBuf::from("d/x.c.su")));
        assert_eq!(name("d.d/x"), Ok(PathBuf::from("d.d/x.su")));
        assert_eq!(name("d/.o").map_err(|reason| reason.code()), Err("unusual-output"));
    }

    #[test]
    fn a_file_that_is_written_into_stays() {
        assert!(Existing::Kept.keeps_file_of(1) && Existing::EmptyKept.keeps_file_of(0));
        assert!(!Existing::EmptyKept.keeps_file_of(1) && !Existing::Replaced.keeps_file_of(0));
    }
}
