//! Which files rustc writes, and what it calls them: as in rustc's `OutputFilenames` and `filename_for_input`. Checked against rustc by the
//! tests with a real compiler.

use std::path::{Path, PathBuf};

use super::reason::{RustReason, RustReasonKind as Why};
use super::request::{CrateType, Emit, EmitKind, RustOutput, RustOutputKind};

/// What a target calls its files. Metadata and rlibs are called the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileNames {
    pub(super) exe_suffix: String,
    pub(super) dll_prefix: String,
    pub(super) dll_suffix: String,
    pub(super) staticlib_prefix: String,
    pub(super) staticlib_suffix: String,
}

impl Default for FileNames {
    fn default() -> Self {
        Self {
            exe_suffix: String::new(),
            dll_prefix: "lib".to_owned(),
            dll_suffix: ".so".to_owned(),
            staticlib_prefix: "lib".to_owned(),
            staticlib_suffix: ".a".to_owned(),
        }
    }
}

/// Parts of names of targets whose links write further files, or files of other names.
const OTHER_TARGETS: [&str; 15] = [
    "-aix",
    "-amdhsa",
    "-apple-",
    "-cuda",
    "-cygwin",
    "-emscripten",
    "-nintendo-3ds",
    "-psx",
    "-qurt",
    "-uefi",
    "-vita-",
    "-windows-",
    "-wrs-",
    "avr-",
    "nvptx",
];

impl FileNames {
    /// Of a built-in target; `None` where they are not known here.
    pub(super) fn of_triple(triple: &str) -> Option<Self> {
        if OTHER_TARGETS.iter().any(|part| triple.contains(part)) {
            return None;
        }
        if triple.starts_with("wasm") {
            let wasm = || ".wasm".to_owned();
            return Some(Self { exe_suffix: wasm(), dll_prefix: String::new(), dll_suffix: wasm(), ..Self::default() });
        }
        Some(Self::default())
    }

    /// Of a target specification's text.
    pub(super) fn of_specification(text: &[u8]) -> Option<Self> {
        let specification: serde_json::Value = serde_json::from_slice(text).ok()?;
        let fields = specification.as_object()?;
        let is = |name: &str| fields.get(name).and_then(serde_json::Value::as_bool).unwrap_or_default();
        if ["is-like-windows", "is-like-darwin", "is-like-osx", "is-like-aix"].into_iter().any(is) {
            return None;
        }
        let word = |name: &str, default: &str| match fields.get(name) {
            None => Some(default.to_owned()),
            Some(value) => value.as_str().filter(|value| !value.contains('/')).map(str::to_owned),
        };
        Some(Self {
            exe_suffix: word("exe-suffix", "")?,
            dll_prefix: word("dll-prefix", "lib")?,
            dll_suffix: word("dll-suffix", ".so")?,
            staticlib_prefix: word("staticlib-prefix", "lib")?,
            staticlib_suffix: word("staticlib-suffix", ".a")?,
        })
    }
}

/// What the names are made of.
#[derive(Debug)]
pub(super) struct Naming<'a> {
    pub(super) crate_name: &'a str,
    pub(super) extra_filename: &'a str,
    /// `--out-dir`.
    pub(super) out_dir: Option<&'a str>,
    /// `-o`.
    pub(super) output: Option<&'a str>,
    pub(super) emits: &'a [Emit],
    /// What is really made: an executable for a test.
    pub(super) crate_types: &'a [CrateType],
    pub(super) names: &'a FileNames,
    /// `-C split-debuginfo=packed`.
    pub(super) packs_debuginfo: bool,
    /// `-C codegen-units`.
    pub(super) codegen_units: Option<&'a str>,
}

/// The files, and the folder of those that have no name of their own.
pub(super) fn outputs(naming: &Naming<'_>) -> Result<(PathBuf, Vec<RustOutput>), RustReason> {
    let stems = Stems::of(naming)?;
    let mut files: Vec<RustOutput> = Vec::new();
    for emit in naming.emits {
        let given = emit.path.as_deref().or(stems.single.as_deref());
        match emit.kind {
            EmitKind::Link => {
                if given.is_some() && naming.crate_types.len() > 1 {
                    return Err(Why::AmbiguousOutput.into());
                }
                for crate_type in naming.crate_types {
                    let path = given.map_or_else(|| linked(*crate_type, naming, &stems), Path::to_owned);
                    files.extend(packed_debuginfo(*crate_type, &path, naming));
                    files.push(RustOutput { path, what: linked_kind(*crate_type), always: true });
                }
            }
            kind => {
                // Each unit would get a file of its own, by a name that depends on the source.
                if is_per_unit(kind) && naming.codegen_units.is_some_and(|units| units != "1") {
                    return Err(Why::AmbiguousOutput.into());
                }
                let path = given.map_or_else(|| stems.emitted(kind), Path::to_owned);
                files.push(RustOutput { path, what: emitted_kind(kind), always: true });
            }
        }
    }
    check(&files)?;
    Ok((stems.folder, files))
}

fn check(files: &[RustOutput]) -> Result<(), RustReason> {
    for (index, file) in files.iter().enumerate() {
        let shown = || file.path.display().to_string();
        let text = shown();
        if file.path.file_name().is_none() || text == "-" || text.ends_with('/') {
            return Err(RustReason::about(Why::UnusualOutput, text));
        }
        if files.iter().skip(index + 1).any(|other| other.path == file.path) {
            return Err(RustReason::about(Why::AmbiguousOutput, text));
        }
    }
    Ok(())
}

struct Stems {
    folder: PathBuf,
    file: String,
    krate: String,
    /// `-o`, if it is the one file without another name.
    single: Option<PathBuf>,
}

impl Stems {
    fn of(naming: &Naming<'_>) -> Result<Self, RustReason> {
        let krate = format!("{}{}", naming.crate_name, naming.extra_filename);
        let Some(output) = naming.output else {
            let folder = PathBuf::from(naming.out_dir.unwrap_or_default());
            return Ok(Self { folder, file: krate.clone(), krate, single: None });
        };
        let path = Path::new(output);
        let stem = path.file_stem().ok_or_else(|| RustReason::about(Why::UnusualOutput, output))?;
        let file = format!("{}{}", stem.to_string_lossy(), naming.extra_filename);
        let n_unnamed = naming.emits.iter().filter(|emit| emit.path.is_none()).count();
        let single = (n_unnamed <= 1).then(|| path.to_owned());
        Ok(Self { folder: path.parent().unwrap_or(Path::new("")).to_owned(), file, krate, single })
    }

    fn emitted(&self, kind: EmitKind) -> PathBuf {
        if kind == EmitKind::Metadata {
            return self.folder.join(format!("lib{}.rmeta", self.krate));
        }
        let extension = match kind {
            EmitKind::Assembly => "s",
            EmitKind::Bitcode => "bc",
            EmitKind::DepInfo => "d",
            EmitKind::LlvmIr => "ll",
            EmitKind::Mir => "mir",
            EmitKind::Object => "o",
            EmitKind::ThinLinkBitcode => "indexing.o",
            EmitKind::Link | EmitKind::Metadata => "",
        };
        self.with_extension(extension)
    }

    fn with_extension(&self, extension: &str) -> PathBuf {
        let mut path = self.folder.join(&self.file);
        path.set_extension(extension);
        path
    }
}

fn linked(crate_type: CrateType, naming: &Naming<'_>, stems: &Stems) -> PathBuf {
    let names = naming.names;
    let name = |prefix: &str, suffix: &str| stems.folder.join(format!("{prefix}{}{suffix}", stems.krate));
    match crate_type {
        CrateType::Lib | CrateType::Rlib => name("lib", ".rlib"),
        CrateType::Dylib | CrateType::Cdylib | CrateType::ProcMacro => name(&names.dll_prefix, &names.dll_suffix),
        CrateType::Staticlib => name(&names.staticlib_prefix, &names.staticlib_suffix),
        CrateType::Bin => {
            let mut path = stems.with_extension("");
            if !names.exe_suffix.is_empty() {
                path.set_extension(names.exe_suffix.trim_start_matches('.'));
            }
            path
        }
    }
}

/// What is packed beside a linked file. Whether it is written depends on the debug information of what is linked.
fn packed_debuginfo(crate_type: CrateType, path: &Path, naming: &Naming<'_>) -> Option<RustOutput> {
    (naming.packs_debuginfo && crate_type.links()).then(|| {
        let mut path = path.to_owned().into_os_string();
        path.push(".dwp");
        RustOutput { path: path.into(), what: RustOutputKind::Other, always: false }
    })
}

fn is_per_unit(kind: EmitKind) -> bool {
    matches!(
        kind,
        EmitKind::Assembly | EmitKind::Bitcode | EmitKind::LlvmIr | EmitKind::Object | EmitKind::ThinLinkBitcode
    )
}

fn linked_kind(crate_type: CrateType) -> RustOutputKind {
    match crate_type {
        CrateType::Bin => RustOutputKind::Executable,
        _ => RustOutputKind::Library,
    }
}

fn emitted_kind(kind: EmitKind) -> RustOutputKind {
    match kind {
        EmitKind::DepInfo => RustOutputKind::DepInfo,
        EmitKind::Metadata => RustOutputKind::Metadata,
        _ => RustOutputKind::Other,
    }
}
