//! The table of rustc's options: names, whether they take a value, and what that means for a compile. `-Z` is in
//! `unstable_table`.
//!
//! Sources: `rustc --help -v` and `rustc -C help` of 1.95, and rustc's own parser (getopts: short flags may stand together, a value may be
//! joined or the next word, `--name=value`; `-` and `_` are the same in names of `-C` and `-Z`). What is not here is not known: local.

use super::reason::RustReasonKind as Why;

/// What an option means for a compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Changes the result by its text alone.
    Plain,
    /// Like [`Plain`](Self::Plain), but the value is a path.
    PlainPath,
    /// Names a file that is read.
    ReadFile,
    /// The command runs here.
    Local(Why),
    /// The command runs here, unless the value says no.
    LocalUnlessOff(Why),
    /// The command runs here, unless the value says yes or no.
    LocalUnlessSwitch(Why),
    /// `--crate-name`.
    CrateName,
    /// `--crate-type`.
    CrateType,
    /// `--emit`.
    Emit,
    /// `-o`.
    Output,
    /// `--out-dir`.
    OutDir,
    /// `--test`.
    Test,
    /// `--extern`.
    Extern,
    /// `-L`.
    SearchPath,
    /// `-l`.
    NativeLibrary,
    /// `--target`.
    Target,
    /// `--error-format`.
    ErrorFormat,
    /// `--json`.
    Json,
    /// `--color`.
    Color,
    /// `-A`, `-W` and so on: `help` lists lints.
    Lint,
    /// `--remap-path-prefix`.
    RemapPrefix,
    /// `--sysroot`.
    Sysroot,
    /// `-C`: look into [`CODEGEN`].
    Codegen,
    /// `-Z`.
    Unstable,
    /// `-g`, `-C debuginfo`.
    DebugInfo,
    /// `-C split-debuginfo`.
    SplitDebugInfo,
    /// `-C codegen-units`.
    CodegenUnits,
    /// `-C extra-filename`.
    ExtraFilename,
    /// `-C incremental`.
    Incremental,
    /// `-C linker`.
    Linker,
    /// `-C link-arg`.
    LinkArgument,
    /// `-C link-args`.
    LinkArguments,
    /// `-C llvm-args`, `-C passes`.
    LlvmArguments,
    /// `-C target-cpu`.
    Processor,
}

/// An option of the command line itself.
#[derive(Clone, Copy, Debug)]
pub struct MainOption {
    /// `C` of `-C`.
    pub short: Option<char>,
    /// `codegen` of `--codegen`.
    pub long: Option<&'static str>,
    /// Whether a value follows.
    pub takes_value: bool,
    /// Whether it may stand more than once. rustc refuses a second one elsewhere.
    pub repeats: bool,
    /// What it means.
    pub class: Class,
}

/// An option of `-C` or `-Z`. Whether a value is needed is left to rustc: all that matter here are checked where they are used.
#[derive(Clone, Copy, Debug)]
pub struct SubOption {
    /// With dashes.
    pub name: &'static str,
    /// What it means.
    pub class: Class,
}

const fn flag(short: Option<char>, long: Option<&'static str>, class: Class) -> MainOption {
    MainOption { short, long, takes_value: false, repeats: true, class }
}

const fn once(long: &'static str, class: Class) -> MainOption {
    MainOption { short: None, long: Some(long), takes_value: true, repeats: false, class }
}

const fn many(short: Option<char>, long: Option<&'static str>, class: Class) -> MainOption {
    MainOption { short, long, takes_value: true, repeats: true, class }
}

/// Options of the command line.
pub static MAIN: [MainOption; 35] = [
    flag(Some('h'), Some("help"), Class::Local(Why::NotACompile)),
    flag(Some('V'), Some("version"), Class::Local(Why::NotACompile)),
    once("explain", Class::Local(Why::NotACompile)),
    many(None, Some("print"), Class::Local(Why::Print)),
    many(None, Some("cfg"), Class::Plain),
    many(None, Some("check-cfg"), Class::Plain),
    many(Some('L'), None, Class::SearchPath),
    many(Some('l'), None, Class::NativeLibrary),
    many(None, Some("crate-type"), Class::CrateType),
    once("crate-name", Class::CrateName),
    once("edition", Class::Plain),
    many(None, Some("emit"), Class::Emit),
    flag(Some('g'), None, Class::DebugInfo),
    flag(Some('O'), None, Class::Plain),
    MainOption { short: Some('o'), long: None, takes_value: true, repeats: false, class: Class::Output },
    once("out-dir", Class::OutDir),
    flag(None, Some("test"), Class::Test),
    once("target", Class::Target),
    many(Some('A'), Some("allow"), Class::Lint),
    many(Some('W'), Some("warn"), Class::Lint),
    many(None, Some("force-warn"), Class::Lint),
    many(Some('D'), Some("deny"), Class::Lint),
    many(Some('F'), Some("forbid"), Class::Lint),
    many(None, Some("cap-lints"), Class::Plain),
    many(Some('C'), Some("codegen"), Class::Codegen),
    many(Some('Z'), None, Class::Unstable),
    flag(Some('v'), Some("verbose"), Class::Plain),
    many(None, Some("extern"), Class::Extern),
    once("sysroot", Class::Sysroot),
    once("error-format", Class::ErrorFormat),
    many(None, Some("json"), Class::Json),
    once("color", Class::Color),
    once("diagnostic-width", Class::Plain),
    many(None, Some("remap-path-prefix"), Class::RemapPrefix),
    many(None, Some("remap-path-scope"), Class::Plain),
];

pub(super) const fn sub(name: &'static str, class: Class) -> SubOption {
    SubOption { name, class }
}

/// Options of `-C`.
pub static CODEGEN: [SubOption; 54] = [
    sub("ar", Class::Plain),
    sub("code-model", Class::Plain),
    sub("codegen-units", Class::CodegenUnits),
    sub("collapse-macro-debuginfo", Class::Plain),
    sub("control-flow-guard", Class::Plain),
    sub("debug-assertions", Class::Plain),
    sub("debuginfo", Class::DebugInfo),
    sub("default-linker-libraries", Class::Plain),
    sub("dlltool", Class::Local(Why::CompilerParts)),
    sub("dwarf-version", Class::Plain),
    sub("embed-bitcode", Class::Plain),
    sub("extra-filename", Class::ExtraFilename),
    sub("force-frame-pointers", Class::Plain),
    sub("force-unwind-tables", Class::Plain),
    sub("help", Class::Local(Why::NotACompile)),
    sub("incremental", Class::Incremental),
    sub("inline-threshold", Class::Plain),
    sub("instrument-coverage", Class::Plain),
    sub("jump-tables", Class::Plain),
    sub("link-arg", Class::LinkArgument),
    sub("link-args", Class::LinkArguments),
    sub("link-dead-code", Class::Plain),
    sub("link-self-contained", Class::Plain),
    sub("linker", Class::Linker),
    sub("linker-features", Class::Plain),
    sub("linker-flavor", Class::Plain),
    // A path is one of a plugin of the linker.
    sub("linker-plugin-lto", Class::LocalUnlessSwitch(Why::Plugin)),
    sub("llvm-args", Class::LlvmArguments),
    sub("lto", Class::Plain),
    sub("metadata", Class::Plain),
    sub("no-prepopulate-passes", Class::Plain),
    sub("no-redzone", Class::Plain),
    sub("no-stack-check", Class::Plain),
    sub("no-vectorize-loops", Class::Plain),
    sub("no-vectorize-slp", Class::Plain),
    sub("opt-level", Class::Plain),
    sub("overflow-checks", Class::Plain),
    sub("panic", Class::Plain),
    sub("passes", Class::LlvmArguments),
    sub("prefer-dynamic", Class::Plain),
    // A path is where the program will write one day: text in the output.
    sub("profile-generate", Class::Plain),
    sub("profile-use", Class::ReadFile),
    sub("relocation-model", Class::Plain),
    sub("relro-level", Class::Plain),
    sub("remark", Class::Plain),
    // Tells in the output how to get from it to the compiler's libraries.
    sub("rpath", Class::LocalUnlessOff(Why::RelativePlaces)),
    sub("save-temps", Class::LocalUnlessOff(Why::SaveTemps)),
    sub("soft-float", Class::Plain),
    sub("split-debuginfo", Class::SplitDebugInfo),
    sub("strip", Class::Plain),
    sub("symbol-mangling-version", Class::Plain),
    sub("target-cpu", Class::Processor),
    sub("target-feature", Class::Plain),
    sub("unsafe-allow-abi-mismatch", Class::Plain),
];

/// The option behind `-x`.
pub fn short(name: char) -> Option<&'static MainOption> {
    MAIN.iter().find(|option| option.short == Some(name))
}

/// The option behind `--name`.
pub fn long(name: &str) -> Option<&'static MainOption> {
    MAIN.iter().find(|option| option.long == Some(name))
}

/// What `name` means in a table of `-C` or `-Z`, spelled with dashes or underscores.
pub fn sub_class(table: &[SubOption], name: &str) -> Option<Class> {
    let same = |known: &str| {
        known.len() == name.len()
            && known.bytes().zip(name.bytes()).all(|(one, two)| one == two || (one, two) == (b'-', b'_'))
    };
    table.iter().find(|option| same(option.name)).map(|option| option.class)
}
