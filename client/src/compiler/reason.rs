//! Why a command runs locally. Codes are a contract with scripts (`stats --json`): they are never renamed.

use crate::reason;

/// What stands in the way, without the argument that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ReasonKind {
    /// `-v`, `--version`, `-print-…`, or nothing to compile.
    NotACompile,
    /// No `-c`: the command links.
    Link,
    /// `-E`, `-M`, `-MM`.
    PreprocessOnly,
    /// `-fsyntax-only` with gcc, which opens `/dev/null` for it: fails in a sandbox (seen with gcc 12).
    SyntaxOnly,
    /// Not in the table of options.
    UnknownOption,
    /// An option lacks its value.
    MissingValue,
    /// More than one source.
    MultipleInputs,
    /// The source is standard input.
    StdinInput,
    /// The suffix is none of a language that is handled here.
    UnknownLanguage,
    /// Assembler source that compilers differ about (`.sx`).
    AssemblerSource,
    /// The object goes to standard output.
    OutputToStdout,
    /// The output is no regular file by its spelling, or one output is another file of the command.
    UnusualOutput,
    /// `-o` or `-MF` twice: compilers differ in which wins.
    RepeatedOutput,
    /// Dependency options that compilers treat differently or reject.
    DependencyOptions,
    /// A response file that is missing, too large, nested too deep, or spelled in a way that compilers read differently.
    ResponseFileUnreadable,
    /// More or longer arguments than an action may have.
    TooManyArguments,
    /// Writes or reads a profile in a way that is not followed here.
    Profile,
    /// `-march=native` and its kin ask the machine.
    MarchNative,
    /// Keeps intermediate files.
    SaveTemps,
    /// Loads code into the compiler.
    Plugin,
    /// C++20 or clang modules.
    Modules,
    /// Makes or names a precompiled header.
    PrecompiledHeader,
    /// The source uses `__DATE__`, `__TIME__` or `__TIMESTAMP__`.
    TimeMacros,
    /// Dumps the compiler's insides into files or onto stderr.
    Dump,
    /// Reports times or memory: different at each run.
    Report,
    /// Writes a further file.
    ExtraOutput,
    /// Reads a file that is not found by following includes.
    ExtraInput,
    /// Character set conversion, which loads modules of the C library.
    Charset,
    /// Passes an argument to a part of the compiler behind the driver's back.
    PassedThrough,
    /// Changes where the compiler finds its own parts.
    CompilerParts,
    /// Include folders that are put together from a prefix.
    IncludePrefix,
    /// Preprocesses by other rules than the include scanner's.
    Traditional,
    /// More than one architecture, or an offload target.
    MultipleTargets,
    /// An external assembler instead of clang's own.
    ExternalAssembler,
    /// A variable of the environment changes what the compiler does.
    Environment,
    /// A path below `/dev`, `/proc` or `/sys`.
    SpecialPath,
    /// Not a C or C++ action at all, though the compiler was known.
    OtherLanguage,
}

impl reason::Kind for ReasonKind {
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::NotACompile => ("not-a-compile", "the command compiles nothing"),
            Self::Link => ("link", "the command links"),
            Self::PreprocessOnly => ("preprocess-only", "the command only preprocesses"),
            Self::SyntaxOnly => ("syntax-only", "the command only checks"),
            Self::UnknownOption => ("unknown-option", "the option is not known"),
            Self::MissingValue => ("missing-value", "the option lacks its value"),
            Self::MultipleInputs => ("multiple-inputs", "there is more than one input"),
            Self::StdinInput => ("stdin-input", "the source is standard input"),
            Self::UnknownLanguage => ("unknown-language", "the language of the input is not known"),
            Self::AssemblerSource => ("assembler-source", "assembler source may read files unseen"),
            Self::OutputToStdout => ("output-to-stdout", "the output is standard output"),
            Self::UnusualOutput => ("unusual-output", "the output is not an ordinary file of its own"),
            Self::RepeatedOutput => ("repeated-output", "an output is named twice"),
            Self::DependencyOptions => ("dependency-options", "the dependency options do not fit together"),
            Self::ResponseFileUnreadable => ("response-file-unreadable", "a response file cannot be read reliably"),
            Self::TooManyArguments => ("too-many-arguments", "the command is too long"),
            Self::Profile => ("profile", "a profile is read or written"),
            Self::MarchNative => ("march-native", "the option asks this machine for its processor"),
            Self::SaveTemps => ("save-temps", "intermediate files are kept"),
            Self::Plugin => ("plugin", "code is loaded into the compiler"),
            Self::Modules => ("modules", "modules are used"),
            Self::PrecompiledHeader => ("precompiled-header", "a precompiled header is made or named"),
            Self::TimeMacros => ("time-macros", "the source asks for the time"),
            Self::Dump => ("dump", "the compiler dumps its insides"),
            Self::Report => ("report", "the compiler reports times or memory"),
            Self::ExtraOutput => ("extra-output", "a further file is written"),
            Self::ExtraInput => ("extra-input", "a further file is read"),
            Self::Charset => ("charset", "a character set is converted"),
            Self::PassedThrough => ("passed-through", "the argument goes past the compiler driver"),
            Self::CompilerParts => ("compiler-parts", "the compiler is told where to find its parts"),
            Self::IncludePrefix => ("include-prefix", "include folders are built from a prefix"),
            Self::Traditional => ("traditional", "the preprocessor follows old rules"),
            Self::MultipleTargets => ("multiple-targets", "there is more than one target"),
            Self::ExternalAssembler => ("external-assembler", "an external assembler is run"),
            Self::Environment => ("environment", "a variable changes what the compiler does"),
            Self::SpecialPath => ("special-path", "the path is below /dev, /proc or /sys"),
            Self::OtherLanguage => ("other-language", "the input is neither C nor C++"),
        }
    }
}

/// A [`ReasonKind`] and the argument, path or variable that it is about.
pub type Reason = reason::Reason<ReasonKind>;
