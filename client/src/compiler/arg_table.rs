//! Options of gcc and clang as one table: how the value is attached, and what the option means here.
//!
//! Families of harmless options (`-f…`, `-m…`, `-g…`, `-W…`) are not rows but words of [`flag_words`]; a row wins
//! over a word. What is in neither is unknown, and runs locally.

use super::flag_words;
use super::outputs::{Existing, SideFile, Stage};
use super::reason::ReasonKind;
use super::request::{CompilerFamily, DepKind, SearchKind};

/// How an option's value is attached to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// No value: the whole argument is the name.
    None,
    /// The rest of the argument, which may be empty.
    Joined,
    /// The next argument.
    Separate,
    /// The rest of the argument or, if there is none, the next.
    JoinedOrSeparate,
}

/// Whether diagnostics are coloured, or carry links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// Never.
    Never,
    /// If stderr is a terminal that can.
    Auto,
    /// The option's value says it.
    Value,
}

/// What an option means for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Goes along, and decides nothing here.
    PassThrough,
    /// `-c`, `-S`, `-fsyntax-only`: how far to go. The shortest way counts.
    Stage(Stage),
    /// `-emit-llvm`: the main output is called otherwise.
    EmitLlvm,
    /// Another mode than compiling: local, and the first reason to name.
    Mode(ReasonKind),
    /// Makes the command local.
    Local(ReasonKind),
    /// A folder of the search path.
    Search(SearchKind),
    /// A file that is read before the source.
    IncludeFile,
    /// `-o`.
    Output,
    /// Makes a file beside the main output.
    Side(SideFile),
    /// The value names a file that is written, unless something else stands in its way.
    NamedOutput(Existing),
    /// The value names a file that is read.
    ReadFile,
    /// A profile is read, from where the value says if it says so.
    ProfileUse,
    /// Where gcc keeps profiles, or looks for them.
    ProfileFolder,
    /// gcc puts a random number into the object.
    Randomised,
    /// `-MD`, `-MMD`.
    DepMode(DepKind),
    /// `-MF`.
    DepFile,
    /// `-MT`, `-MQ`, `-MP`: say what is in the dependency file.
    DepDetail,
    /// `-D`, `-U`: a macro is defined, or is not.
    Macro,
    /// `-x`.
    Language,
    /// `-march=` and its kin: local if the value asks the machine.
    Processor,
    /// `--target=`: local for systems where includes are looked up by other rules.
    Target,
    /// `-Wa,`, `-Xassembler`: arguments of the assembler.
    Assembler,
    /// `-Xclang`: an argument of the compiler proper, or the value of the one before.
    Frontend,
    /// `-Wp,`: arguments of the preprocessor.
    Preprocessor,
    /// Colour of diagnostics.
    Color(When),
    /// Links in diagnostics (gcc).
    Urls(When),
    /// `-fdiagnostics-plain-output`: neither colour nor links.
    Plain,
    /// `-fdiagnostics-format=`: harmless unless it names a file.
    DiagnosticsFormat,
    /// `-fmessage-length=`.
    MessageLength,
    /// The object holds the command line: nothing may be added to it.
    RecordsCommand,
    /// `-frandom-seed=`.
    RandomSeed,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// With its dashes, and the `=` where that is part of it.
    pub name: &'static str,
    /// How the value is attached.
    pub attached: Attached,
    /// The family that knows it; `None` for both.
    pub family: Option<CompilerFamily>,
    /// What it means.
    pub class: Class,
}

impl Row {
    fn matches(&self, argument: &str, family: CompilerFamily) -> bool {
        if self.family.is_some_and(|known| known != family) {
            return false;
        }
        match self.attached {
            Attached::None | Attached::Separate => argument == self.name,
            Attached::Joined | Attached::JoinedOrSeparate => argument.starts_with(self.name),
        }
    }
}

const fn both(name: &'static str, attached: Attached, class: Class) -> Row {
    Row { name, attached, family: None, class }
}

const fn gcc(name: &'static str, attached: Attached, class: Class) -> Row {
    Row { name, attached, family: Some(CompilerFamily::Gcc), class }
}

const fn clang(name: &'static str, attached: Attached, class: Class) -> Row {
    Row { name, attached, family: Some(CompilerFamily::Clang), class }
}

use Attached::{Joined, JoinedOrSeparate, None as Alone, Separate};
use Class::{Local, Mode, PassThrough, ReadFile, Search, Side};
use ReasonKind as Why;

/// All rows. Of the rows that match an argument, the longest name counts.
pub static ROWS: &[Row] = &[
    // Modes.
    both("-c", Alone, Class::Stage(Stage::Object)),
    both("-S", Alone, Class::Stage(Stage::Assembly)),
    both("-E", Alone, Mode(Why::PreprocessOnly)),
    both("-M", Alone, Mode(Why::PreprocessOnly)),
    both("-MM", Alone, Mode(Why::PreprocessOnly)),
    both("-fsyntax-only", Alone, Class::Stage(Stage::Check)),
    both("-v", Alone, Mode(Why::NotACompile)),
    both("-###", Alone, Mode(Why::NotACompile)),
    both("--version", Alone, Mode(Why::NotACompile)),
    both("--help", Joined, Mode(Why::NotACompile)),
    both("-help", Alone, Mode(Why::NotACompile)),
    both("--target-help", Alone, Mode(Why::NotACompile)),
    both("-dumpversion", Alone, Mode(Why::NotACompile)),
    both("-dumpfullversion", Alone, Mode(Why::NotACompile)),
    both("-dumpmachine", Alone, Mode(Why::NotACompile)),
    both("-dumpspecs", Alone, Mode(Why::NotACompile)),
    both("-print-", Joined, Mode(Why::NotACompile)),
    both("--print-", Joined, Mode(Why::NotACompile)),
    clang("--analyze", Alone, Mode(Why::ExtraOutput)),
    clang("-emit-ast", Alone, Mode(Why::PrecompiledHeader)),
    clang("--precompile", Alone, Mode(Why::Modules)),
    // Outputs.
    both("-o", JoinedOrSeparate, Class::Output),
    clang("-objcmt-", Joined, Local(Why::UnknownOption)),
    clang("-object-file-name", Joined, Local(Why::UnknownOption)),
    both("-MD", Alone, Class::DepMode(DepKind::All)),
    both("-MMD", Alone, Class::DepMode(DepKind::User)),
    both("-MF", JoinedOrSeparate, Class::DepFile),
    both("-MT", JoinedOrSeparate, Class::DepDetail),
    both("-MQ", JoinedOrSeparate, Class::DepDetail),
    both("-MP", Alone, Class::DepDetail),
    both("-MG", Alone, Local(Why::DependencyOptions)),
    clang("-MV", Alone, Local(Why::DependencyOptions)),
    clang("-MJ", JoinedOrSeparate, Local(Why::ExtraOutput)),
    both("-save-temps", Joined, Local(Why::SaveTemps)),
    both("--save-temps", Joined, Local(Why::SaveTemps)),
    clang("-save-stats", Joined, Local(Why::ExtraOutput)),
    clang("--save-stats", Joined, Local(Why::ExtraOutput)),
    clang("-serialize-diagnostics", Separate, Class::NamedOutput(Existing::Replaced)),
    clang("--serialize-diagnostics", Separate, Class::NamedOutput(Existing::Replaced)),
    clang("-emit-llvm", Alone, Class::EmitLlvm),
    both("-d", Joined, Local(Why::Dump)),
    gcc("-aux-info", JoinedOrSeparate, Local(Why::ExtraOutput)),
    // Language and dialect.
    both("-x", JoinedOrSeparate, Class::Language),
    both("-std=", Joined, PassThrough),
    both("--std=", Joined, PassThrough),
    both("-ansi", Alone, PassThrough),
    both("-trigraphs", Alone, PassThrough),
    both("-traditional", Joined, Local(Why::Traditional)),
    both("-traditional-cpp", Alone, Local(Why::Traditional)),
    gcc("-remap", Alone, Local(Why::Traditional)),
    clang("-stdlib=", Joined, PassThrough),
    clang("-ObjC", Alone, Local(Why::UnknownLanguage)),
    clang("-ObjC++", Alone, Local(Why::UnknownLanguage)),
    // Macros and includes.
    both("-D", JoinedOrSeparate, Class::Macro),
    both("-U", JoinedOrSeparate, Class::Macro),
    gcc("-A", JoinedOrSeparate, PassThrough),
    both("-undef", Alone, PassThrough),
    both("-H", Alone, PassThrough),
    both("-I", JoinedOrSeparate, Search(SearchKind::Include)),
    both("-I-", Alone, Local(Why::Traditional)),
    both("-iquote", JoinedOrSeparate, Search(SearchKind::Quote)),
    both("-isystem", JoinedOrSeparate, Search(SearchKind::System)),
    both("-idirafter", JoinedOrSeparate, Search(SearchKind::After)),
    clang("-isystem-after", JoinedOrSeparate, Local(Why::IncludePrefix)),
    clang("-cxx-isystem", JoinedOrSeparate, Search(SearchKind::CxxSystem)),
    clang("-stdlib++-isystem", JoinedOrSeparate, Search(SearchKind::CxxSystem)),
    both("-isysroot", JoinedOrSeparate, Search(SearchKind::Sysroot)),
    both("--sysroot=", Joined, Search(SearchKind::Sysroot)),
    both("--sysroot", Separate, Search(SearchKind::Sysroot)),
    both("-iprefix", JoinedOrSeparate, Local(Why::IncludePrefix)),
    both("-iwithprefix", JoinedOrSeparate, Local(Why::IncludePrefix)),
    both("-iwithprefixbefore", JoinedOrSeparate, Local(Why::IncludePrefix)),
    clang("-iwithsysroot", JoinedOrSeparate, Local(Why::IncludePrefix)),
    clang("-iframework", Joined, Local(Why::IncludePrefix)),
    clang("-ivfsoverlay", Joined, Local(Why::ExtraInput)),
    both("-include", JoinedOrSeparate, Class::IncludeFile),
    both("-imacros", JoinedOrSeparate, Class::IncludeFile),
    clang("-include-pch", Separate, Local(Why::PrecompiledHeader)),
    both("-nostdinc", Alone, PassThrough),
    both("-nostdinc++", Alone, PassThrough),
    clang("-nostdlibinc", Alone, PassThrough),
    clang("-nobuiltininc", Alone, PassThrough),
    // Optimisation, target, warnings.
    both("-O", Joined, PassThrough),
    both("-w", Alone, PassThrough),
    both("-pedantic", Alone, PassThrough),
    both("-pedantic-errors", Alone, PassThrough),
    both("--pedantic", Alone, PassThrough),
    both("-Wa,", Joined, Class::Assembler),
    both("-Wp,", Joined, Class::Preprocessor),
    both("-Wl,", Joined, PassThrough),
    clang("-Rpass", Joined, PassThrough),
    clang("-Qunused-arguments", Alone, PassThrough),
    both("--param", Separate, PassThrough),
    both("--param=", Joined, PassThrough),
    both("-march=", Joined, Class::Processor),
    both("-mcpu=", Joined, Class::Processor),
    both("-mtune=", Joined, Class::Processor),
    gcc("-mdump-", Joined, Local(Why::Dump)),
    clang("-mllvm", JoinedOrSeparate, Local(Why::PassedThrough)),
    clang("-mmlir", JoinedOrSeparate, Local(Why::PassedThrough)),
    clang("-mmodule-dependency-dir", Joined, Local(Why::ExtraOutput)),
    clang("-target", Separate, Class::Target),
    clang("--target=", Joined, Class::Target),
    both("-arch", Separate, Local(Why::MultipleTargets)),
    clang("-Xarch_", Joined, Local(Why::MultipleTargets)),
    both("-foffload", Joined, Local(Why::MultipleTargets)),
    clang("-fopenmp-targets=", Joined, Local(Why::MultipleTargets)),
    both("-pg", Alone, PassThrough),
    both("-p", Alone, PassThrough),
    // Looks quoted names up beside every includer, not the innermost alone.
    clang("-fms-compatibility", Alone, Local(Why::Traditional)),
    // What the linker or nobody listens to when compiling.
    both("-pipe", Alone, PassThrough),
    both("-pthread", Alone, PassThrough),
    clang("-no-pthread", Alone, PassThrough),
    both("-l", JoinedOrSeparate, PassThrough),
    both("-L", JoinedOrSeparate, PassThrough),
    both("-s", Alone, PassThrough),
    both("-shared", Alone, PassThrough),
    both("-static", Alone, PassThrough),
    both("-static-pie", Alone, PassThrough),
    both("-static-libgcc", Alone, PassThrough),
    both("-static-libstdc++", Alone, PassThrough),
    both("-shared-libgcc", Alone, PassThrough),
    both("-pie", Alone, PassThrough),
    both("-no-pie", Alone, PassThrough),
    both("-rdynamic", Alone, PassThrough),
    both("-nostdlib", Alone, PassThrough),
    clang("-nostdlib++", Alone, PassThrough),
    both("-nodefaultlibs", Alone, PassThrough),
    both("-nostartfiles", Alone, PassThrough),
    both("-z", JoinedOrSeparate, PassThrough),
    both("-T", JoinedOrSeparate, PassThrough),
    clang("-static-libsan", Alone, PassThrough),
    clang("-shared-libsan", Alone, PassThrough),
    clang("-static-openmp", Alone, PassThrough),
    clang("--start-no-unused-arguments", Alone, PassThrough),
    clang("--end-no-unused-arguments", Alone, PassThrough),
    clang("-Qy", Alone, PassThrough),
    clang("-Qn", Alone, PassThrough),
    clang("-canonical-prefixes", Alone, PassThrough),
    clang("-mthread-model", Separate, PassThrough),
    clang("-rtlib=", Joined, PassThrough),
    clang("--rtlib=", Joined, PassThrough),
    clang("-unwindlib=", Joined, PassThrough),
    clang("--unwindlib=", Joined, PassThrough),
    // The compiler's own parts.
    both("-B", JoinedOrSeparate, Local(Why::CompilerParts)),
    both("-specs", JoinedOrSeparate, Local(Why::CompilerParts)),
    both("--specs", Joined, Local(Why::CompilerParts)),
    gcc("-wrapper", Separate, Local(Why::CompilerParts)),
    gcc("-no-integrated-cpp", Alone, Local(Why::CompilerParts)),
    clang("-resource-dir", JoinedOrSeparate, Local(Why::CompilerParts)),
    clang("--gcc-toolchain=", Joined, Local(Why::CompilerParts)),
    clang("-gcc-toolchain", Separate, Local(Why::CompilerParts)),
    clang("--config", Joined, Local(Why::CompilerParts)),
    clang("--driver-mode=", Joined, Local(Why::CompilerParts)),
    clang("-ccc-", Joined, Local(Why::CompilerParts)),
    clang("-working-directory", JoinedOrSeparate, Local(Why::CompilerParts)),
    clang("-integrated-as", Alone, PassThrough),
    clang("-fintegrated-as", Alone, PassThrough),
    clang("-no-integrated-as", Alone, Local(Why::ExternalAssembler)),
    clang("-fno-integrated-as", Alone, Local(Why::ExternalAssembler)),
    both("-no-canonical-prefixes", Alone, PassThrough),
    clang("-Xclang", Separate, Class::Frontend),
    both("-Xassembler", Separate, Class::Assembler),
    both("-Xpreprocessor", Separate, Local(Why::PassedThrough)),
    both("-Xlinker", Separate, PassThrough),
    clang("-Xanalyzer", Separate, Local(Why::PassedThrough)),
    clang("-Xopenmp-target", JoinedOrSeparate, Local(Why::PassedThrough)),
    // Coverage and profiles.
    both("--coverage", Alone, Side(SideFile::CoverageNotes)),
    both("-coverage", Alone, Side(SideFile::CoverageNotes)),
    both("-ftest-coverage", Alone, Side(SideFile::CoverageNotes)),
    gcc("-fprofile-note=", Joined, Class::NamedOutput(Existing::Kept)),
    both("-fprofile-arcs", Alone, Class::Randomised),
    gcc("-fcondition-coverage", Alone, Class::Randomised),
    gcc("-fpath-coverage", Joined, Class::Randomised),
    both("-fprofile-generate", Alone, Class::Randomised),
    both("-fprofile-generate=", Joined, Class::ProfileFolder),
    both("-fprofile-dir=", Joined, Class::ProfileFolder),
    both("-fprofile-update=", Joined, PassThrough),
    both("-fprofile-filter-files=", Joined, PassThrough),
    both("-fprofile-exclude-files=", Joined, PassThrough),
    gcc("-fprofile-abs-path", Alone, PassThrough),
    gcc("-fprofile-values", Alone, PassThrough),
    gcc("-fprofile-correction", Alone, PassThrough),
    gcc("-fprofile-partial-training", Alone, PassThrough),
    gcc("-fprofile-reorder-functions", Alone, PassThrough),
    gcc("-fprofile-reproducible=", Joined, PassThrough),
    gcc("-fprofile-info-section", Alone, PassThrough),
    gcc("-fprofile-info-section=", Joined, PassThrough),
    clang("-fprofile-instr-generate", Alone, PassThrough),
    clang("-fprofile-instr-generate=", Joined, PassThrough),
    clang("-fprofile-sample-accurate", Alone, PassThrough),
    clang("-fcs-profile-generate", Alone, PassThrough),
    clang("-fcs-profile-generate=", Joined, PassThrough),
    clang("-fcoverage-mapping", Alone, PassThrough),
    clang("-fcoverage-compilation-dir=", Joined, PassThrough),
    clang("-fcoverage-prefix-map=", Joined, PassThrough),
    both("-fprofile-use", Alone, Class::ProfileUse),
    both("-fprofile-use=", Joined, Class::ProfileUse),
    gcc("-fbranch-probabilities", Alone, Class::ProfileUse),
    clang("-fprofile-instr-use", Alone, Class::ProfileUse),
    clang("-fprofile-instr-use=", Joined, Class::ProfileUse),
    both("-fauto-profile=", Joined, ReadFile),
    clang("-fprofile-sample-use=", Joined, ReadFile),
    clang("-fprofile-remapping-file=", Joined, ReadFile),
    clang("-fprofile-list=", Joined, ReadFile),
    both("-fno-test-coverage", Alone, PassThrough),
    both("-fno-profile-arcs", Alone, PassThrough),
    both("-fno-profile-generate", Alone, PassThrough),
    clang("-fno-coverage-mapping", Alone, PassThrough),
    clang("-fno-profile-instr-generate", Alone, PassThrough),
    clang("-fno-memory-profile", Alone, PassThrough),
    clang("-fno-sanitize-ignorelist", Alone, PassThrough),
    both("-fno-modules", Alone, PassThrough),
    clang("-fno-cxx-modules", Alone, PassThrough),
    both("-fprofile", Joined, Local(Why::Profile)),
    both("-fauto-profile", Joined, Local(Why::Profile)),
    both("-fcs-profile", Joined, Local(Why::Profile)),
    both("-fcreate-profile", Alone, Local(Why::Profile)),
    both("-fmemory-profile", Joined, Local(Why::Profile)),
    // Further files and reports.
    both("-fplugin", Joined, Local(Why::Plugin)),
    both("-fpass-plugin", Joined, Local(Why::Plugin)),
    both("-fmodule", Joined, Local(Why::Modules)),
    both("-fcxx-modules", Alone, Local(Why::Modules)),
    both("-fimplicit-module", Joined, Local(Why::Modules)),
    both("-fprebuilt-", Joined, Local(Why::Modules)),
    both("-fbuiltin-module-map", Alone, Local(Why::Modules)),
    both("-gmodules", Alone, Local(Why::Modules)),
    both("-fpch", Joined, Local(Why::PrecompiledHeader)),
    both("-fdump", Joined, Local(Why::Dump)),
    both("-fopt-info", Joined, Local(Why::Dump)),
    both("-fdbg-cnt", Joined, Local(Why::Dump)),
    both("-fcompare-debug", Joined, Local(Why::Dump)),
    both("-fsched-verbose", Joined, Local(Why::Dump)),
    both("-fself-test", Joined, Local(Why::Dump)),
    gcc("-fcallgraph-info", Joined, Side(SideFile::CallGraph)),
    both("-fstack-usage", Alone, Side(SideFile::StackUsage)),
    clang("-fsave-optimization-record", Alone, Side(SideFile::OptimizationRecord)),
    clang("-fsave-optimization-record=", Joined, Local(Why::ExtraOutput)),
    gcc("-fsave-optimization-record", Joined, Local(Why::ExtraOutput)),
    both("-foptimization-record", Joined, Local(Why::ExtraOutput)),
    both("-fcrash-diagnostics-dir", Joined, Local(Why::ExtraOutput)),
    both("-fdeps-", Joined, Local(Why::ExtraOutput)),
    both("-fdiagnostics-add-output", Joined, Local(Why::ExtraOutput)),
    both("-fdiagnostics-set-output", Joined, Local(Why::ExtraOutput)),
    gcc("-frepo", Alone, Local(Why::ExtraOutput)),
    gcc("-gen-decls", Alone, Local(Why::ExtraOutput)),
    gcc("-fpre-include=", Joined, Local(Why::ExtraInput)),
    gcc("-fpreprocessed", Alone, Local(Why::Traditional)),
    gcc("-freport-bug", Alone, Local(Why::Report)),
    gcc("-fdisable-", Joined, Local(Why::Dump)),
    gcc("-fenable-", Joined, Local(Why::Dump)),
    clang("-F", JoinedOrSeparate, Local(Why::IncludePrefix)),
    gcc("-fvtv-", Joined, Local(Why::ExtraOutput)),
    both("-ftime-", Joined, Local(Why::Report)),
    both("-fmem-report", Joined, Local(Why::Report)),
    both("-fpre-ipa-mem-report", Alone, Local(Why::Report)),
    both("-fpost-ipa-mem-report", Alone, Local(Why::Report)),
    both("-fproc-stat-report", Joined, Local(Why::Report)),
    both("-fstats", Alone, Local(Why::Report)),
    both("-flto-report", Joined, Local(Why::Report)),
    both("-time", Joined, Local(Why::Report)),
    gcc("-Q", Alone, Local(Why::Report)),
    clang("-fsanitize-blacklist=", Joined, ReadFile),
    clang("-fsanitize-ignorelist=", Joined, ReadFile),
    clang("-fsanitize-system-blacklist=", Joined, ReadFile),
    clang("-fsanitize-system-ignorelist=", Joined, ReadFile),
    clang("-fsanitize-coverage-allowlist=", Joined, ReadFile),
    clang("-fsanitize-coverage-whitelist=", Joined, ReadFile),
    clang("-fsanitize-coverage-ignorelist=", Joined, ReadFile),
    clang("-fsanitize-coverage-blacklist=", Joined, ReadFile),
    clang("-fxray-always-instrument=", Joined, ReadFile),
    clang("-fxray-never-instrument=", Joined, ReadFile),
    clang("-fxray-attr-list=", Joined, ReadFile),
    clang("-fxray-instrument", Alone, PassThrough),
    clang("-fxray-instruction-threshold=", Joined, PassThrough),
    clang("-fxray-instrumentation-bundle=", Joined, PassThrough),
    clang("-fxray-function-groups=", Joined, PassThrough),
    clang("-fxray-selected-function-group=", Joined, PassThrough),
    clang("-fxray-modes=", Joined, PassThrough),
    clang("-fbasic-block-sections=list=", Joined, ReadFile),
    clang("-fbasic-block-sections=", Joined, PassThrough),
    both("-fthinlto-index", Joined, Local(Why::ExtraInput)),
    both("-fdepfile-entry", Joined, Local(Why::ExtraInput)),
    both("-finput-charset=", Joined, Local(Why::Charset)),
    both("-fexec-charset=", Joined, Local(Why::Charset)),
    both("-fwide-exec-charset=", Joined, Local(Why::Charset)),
    both("-gsplit-dwarf", Alone, Side(SideFile::SplitDwarf)),
    clang("-gsplit-dwarf=split", Alone, Side(SideFile::SplitDwarf)),
    clang("-gsplit-dwarf=single", Alone, PassThrough),
    both("-gno-split-dwarf", Alone, PassThrough),
    // Diagnostics, as far as they look at the terminal.
    both("-fdiagnostics-color", Alone, Class::Color(When::Always)),
    both("-fno-diagnostics-color", Alone, Class::Color(When::Never)),
    both("-fdiagnostics-color=", Joined, Class::Color(When::Value)),
    clang("-fcolor-diagnostics", Alone, Class::Color(When::Always)),
    clang("-fno-color-diagnostics", Alone, Class::Color(When::Never)),
    gcc("-fdiagnostics-urls=", Joined, Class::Urls(When::Value)),
    gcc("-fdiagnostics-plain-output", Alone, Class::Plain),
    both("-fdiagnostics-format=", Joined, Class::DiagnosticsFormat),
    both("-fmessage-length=", Joined, Class::MessageLength),
    // What the object remembers.
    both("-frecord-gcc-switches", Alone, Class::RecordsCommand),
    both("-fno-record-gcc-switches", Alone, PassThrough),
    both("-grecord-gcc-switches", Alone, PassThrough),
    both("-gno-record-gcc-switches", Alone, PassThrough),
    clang("-grecord-command-line", Alone, Class::RecordsCommand),
    clang("-frecord-command-line", Alone, Class::RecordsCommand),
    clang("-gno-record-command-line", Alone, PassThrough),
    clang("-fno-record-command-line", Alone, PassThrough),
    both("-frandom-seed=", Joined, Class::RandomSeed),
    both("-flto", Alone, Class::Randomised),
    both("-flto=", Joined, Class::Randomised),
    both("-fno-lto", Alone, PassThrough),
    clang("-fdebug-compilation-dir", Separate, PassThrough),
];

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownOption {
    /// Bytes of the argument that are the name; what follows is a joined value.
    pub name_bytes: usize,
    /// How the value is attached.
    pub attached: Attached,
    /// What it means.
    pub class: Class,
}

/// Looks an argument up that starts with `-`. `None`: not known to this family.
pub fn lookup(argument: &str, family: CompilerFamily) -> Option<KnownOption> {
    let row = ROWS.iter().filter(|row| row.matches(argument, family)).max_by_key(|row| row.name.len());
    if let Some(row) = row {
        return Some(KnownOption { name_bytes: row.name.len(), attached: row.attached, class: row.class });
    }
    flag_words::is_harmless(argument).then_some(KnownOption {
        name_bytes: argument.len(),
        attached: Attached::None,
        class: Class::PassThrough,
    })
}
