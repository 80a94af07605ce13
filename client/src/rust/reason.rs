//! Why a rustc command runs locally. Codes are a contract with scripts (`stats --json`): they are never renamed. Where the same thing stands in
//! the way of a C compile, the code is the same.

use crate::reason;

/// What stands in the way, without the argument that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RustReasonKind {
    /// `--version`, `--help`, `--explain`, `-C help`, or no source at all.
    NotACompile,
    /// `--print`: asks the compiler, and compiles nothing or besides.
    Print,
    /// Not in the table of options.
    UnknownOption,
    /// An option lacks its value.
    MissingValue,
    /// An option has a value that rustc does not know, or that is not known here.
    UnknownValue,
    /// More than one source.
    MultipleInputs,
    /// The source is standard input.
    StdinInput,
    /// An output goes to standard output, or is no ordinary file by its spelling.
    UnusualOutput,
    /// `-o`, or an emitted file's name, where the rest makes it unclear what is written where.
    AmbiguousOutput,
    /// A response file that is missing, too large or not UTF-8.
    ResponseFileUnreadable,
    /// More or longer arguments than an action may have.
    TooManyArguments,
    /// `-C save-temps` and its kin.
    SaveTemps,
    /// `target-cpu=native` asks the machine.
    NativeProcessor,
    /// Dumps the compiler's insides into files or onto its streams.
    Dump,
    /// Reports times or memory: different at each run.
    Report,
    /// Writes a further file.
    ExtraOutput,
    /// Reads a file or folder in a way that is not followed here.
    ExtraInput,
    /// Loads code into the compiler.
    Plugin,
    /// Says where the compiler or the linker finds its own parts.
    CompilerParts,
    /// A linker's argument that is not followed here.
    LinkerArgument,
    /// The output says how to get from one folder to another.
    RelativePlaces,
    /// The crate's name stands in its source, if anywhere.
    CrateInSource,
    /// An option that may stand once stands twice.
    RepeatedOption,
    /// The target's file names are not known here.
    UnknownTarget,
    /// Messages would look different on this terminal.
    TerminalMessages,
    /// An incremental session is there already.
    Incremental,
    /// A variable of the environment changes what the compiler does.
    Environment,
    /// A path that can't be given a fixed place: through `..` out of its root, or a relative one into another.
    UnplaceablePath,
    /// A path below `/dev`, `/proc` or `/sys`.
    SpecialPath,
}

impl reason::Kind for RustReasonKind {
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::NotACompile => ("not-a-compile", "the command compiles nothing"),
            Self::Print => ("print", "the compiler is asked for information"),
            Self::UnknownOption => ("unknown-option", "the option is not known"),
            Self::MissingValue => ("missing-value", "the option lacks its value"),
            Self::UnknownValue => ("unknown-value", "the option's value is not known"),
            Self::MultipleInputs => ("multiple-inputs", "there is more than one input"),
            Self::StdinInput => ("stdin-input", "the source is standard input"),
            Self::UnusualOutput => ("unusual-output", "the output is not an ordinary file of its own"),
            Self::AmbiguousOutput => ("ambiguous-output", "the names of the outputs do not fit together"),
            Self::ResponseFileUnreadable => ("response-file-unreadable", "a response file cannot be read reliably"),
            Self::TooManyArguments => ("too-many-arguments", "the command is too long"),
            Self::SaveTemps => ("save-temps", "intermediate files are kept"),
            Self::NativeProcessor => ("native-processor", "the option asks this machine for its processor"),
            Self::Dump => ("dump", "the compiler dumps its insides"),
            Self::Report => ("report", "the compiler reports times or memory"),
            Self::ExtraOutput => ("extra-output", "a further file is written"),
            Self::ExtraInput => ("extra-input", "a further file is read"),
            Self::Plugin => ("plugin", "code is loaded into the compiler"),
            Self::CompilerParts => ("compiler-parts", "the compiler is told where to find its parts"),
            Self::LinkerArgument => ("linker-argument", "the linker gets an argument that is not known"),
            Self::RelativePlaces => ("relative-places", "the output says where folders are from each other"),
            Self::CrateInSource => ("crate-in-source", "the crate's name stands in its source, if anywhere"),
            Self::RepeatedOption => ("repeated-option", "the option stands twice"),
            Self::UnknownTarget => ("unknown-target", "the target's file names are not known"),
            Self::TerminalMessages => ("terminal-messages", "the compiler writes for a terminal"),
            Self::Incremental => ("incremental", "the crate has an incremental session"),
            Self::Environment => ("environment", "a variable changes what the compiler does"),
            Self::UnplaceablePath => ("unplaceable-path", "the path leaves its folder and comes back"),
            Self::SpecialPath => ("special-path", "the path is below /dev, /proc or /sys"),
        }
    }
}

/// A [`RustReasonKind`] and the argument, path or variable that it is about.
pub type RustReason = reason::Reason<RustReasonKind>;
