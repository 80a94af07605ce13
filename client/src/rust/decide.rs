//! The decision: weighs what arguments and environment say, finds the roots, and puts the request together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::env::Reader;
use super::locate::{self, Surroundings};
use super::outputs::{FileNames, Naming, outputs};
use super::parse::{LibraryOption, Parsed, Part, Word, parse};
use super::placing::Placer;
use super::reason::{RustReason, RustReasonKind as Why};
use super::request::{
    CrateType, Emit, EmitKind, NativeLibrary, RustDecision, RustDriver, RustOutput, RustRequest, SearchPathKind, Target,
};
use super::response_file::{self, ReadFile};
use super::roots::{PathSetting, Roots, Side};

/// Where an incremental session stands in an action. What the session's folder is called changes no output; that there is one does.
pub const SESSION_PLACE: &str = "/tmp/buildbee-incremental";

/// A command as the user, or cargo, gave it.
#[derive(Clone, Copy, Debug)]
pub struct RustInvocation<'a> {
    /// Which program.
    pub driver: RustDriver,
    /// Arguments without the program's name.
    pub argv: &'a [String],
    /// The user's environment.
    pub env: &'a [(String, String)],
    /// Absolute, links resolved.
    pub cwd: &'a Path,
    /// The compiler's own folder.
    pub sysroot: Option<&'a Path>,
    /// Whether outputs hold names.
    pub paths: PathSetting,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
}

/// What a decision asks of the machine.
#[expect(missing_debug_implementations, reason = "holds functions")]
pub struct Machine<'a> {
    /// Reads a response file, or a target specification; the path is absolute.
    pub read: &'a ReadFile<'a>,
    /// Whether there is such a file; the path is absolute.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// What `target-cpu=native` stands for here: processor and features, as one word. `None`: not known.
    pub processor: &'a dyn Fn() -> Option<String>,
}

/// Decides where a command runs. Pure but for `machine`.
pub fn decide(invocation: &RustInvocation<'_>, machine: &Machine<'_>) -> RustDecision {
    match request(invocation, machine) {
        Ok(request) => RustDecision::Compile(Box::new(request)),
        Err(reason) => RustDecision::Local(reason),
    }
}

/// How many of the first arguments stand before the compiler's own.
pub fn leading_words(driver: RustDriver, argv: &[String]) -> usize {
    let program = match driver {
        RustDriver::Rustc => "rustc",
        RustDriver::Clippy => "clippy-driver",
    };
    locate::leading_words(Path::new(program), argv).unwrap_or_default()
}

/// The arguments that a command gets which runs here by a decision for [`RustDecision::Local`]: what
/// [`RustRequest::added_arguments`] would be.
pub fn added_to_local(invocation: &RustInvocation<'_>, machine: &Machine<'_>) -> Vec<String> {
    let Ok(argv) = response_file::expand(invocation.argv, invocation.cwd, machine.read) else { return Vec::new() };
    let arguments = argv.get(leading_words(invocation.driver, &argv)..).unwrap_or_default();
    locate::added_flags(&surroundings(invocation, arguments, &variable(invocation.env), machine))
}

fn variable(env: &[(String, String)]) -> impl Fn(&str) -> Option<String> {
    move |wanted: &str| env.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
}

fn surroundings<'a>(
    invocation: &RustInvocation<'a>,
    arguments: &'a [String],
    variable: &'a dyn Fn(&str) -> Option<String>,
    machine: &Machine<'a>,
) -> Surroundings<'a> {
    Surroundings {
        arguments,
        cwd: invocation.cwd,
        variable,
        sysroot: invocation.sysroot,
        setting: invocation.paths,
        exists: machine.exists,
    }
}

fn request(invocation: &RustInvocation<'_>, machine: &Machine<'_>) -> Result<RustRequest, RustReason> {
    let argv = response_file::expand(invocation.argv, invocation.cwd, machine.read)?;
    let arguments = argv.get(leading_words(invocation.driver, &argv)..).unwrap_or_default();
    let mut parsed = parse(arguments);
    let source = source(&mut parsed)?;
    let made = Made::of(&parsed)?;
    if made.links
        && let Some(reason) = parsed.link_obstacle.take()
    {
        return Err(reason);
    }
    if !parsed.json_messages && invocation.stderr_is_terminal {
        return Err(Why::TerminalMessages.into());
    }
    let reader = reader(invocation, &parsed, made.links);
    reader.check()?;
    check_sysroot(&parsed, invocation.sysroot)?;
    let names = file_names(&parsed, invocation.cwd, machine)?;
    let (out_dir, outputs) = made.outputs(&parsed, &names)?;
    let roots = roots(invocation, arguments, &parsed, machine);
    let processor = processor(&parsed, machine)?;
    let placer = Placer::new(&roots, invocation.cwd);
    let words = if made.links { parsed.words.clone() } else { without_linker(&parsed.words) };
    let key_arguments = key_arguments(&words, &placer, processor.as_deref())?;
    for output in &outputs {
        placer.place(&output.path.to_string_lossy())?;
    }
    let mut action_arguments = roots.flags(Side::Sandbox);
    action_arguments.extend_from_slice(&key_arguments);
    let (native_libraries, named_inputs) = files_named(&parsed, &made, invocation.cwd, machine);
    let package = invocation.env.iter().find(|(name, _)| name == "CARGO_MANIFEST_DIR").map(|(_, value)| value.into());
    let here_only = parsed.asks_machine.then(|| RustReason::from(Why::NativeProcessor));
    let emits_kind = |kind| made.emits.iter().any(|emit| emit.kind == kind);
    Ok(RustRequest {
        driver: invocation.driver,
        pipelined: emits_kind(EmitKind::Metadata) && emits_kind(EmitKind::Link) && parsed.artifact_messages,
        crate_name: made.crate_name,
        crate_types: made.crate_types,
        emits: made.emits,
        is_test: parsed.is_test,
        source,
        package: package.filter(|folder: &PathBuf| folder.is_absolute()),
        added_arguments: roots.flags(Side::Here),
        key_arguments,
        action_arguments,
        externs: parsed.externs,
        search: parsed.search,
        native_libraries,
        out_dir,
        outputs,
        links: made.links,
        linker: parsed.linker.map(PathBuf::from),
        link_arguments: parsed.link_arguments,
        incremental: parsed.incremental.map(PathBuf::from),
        target: parsed.target,
        named_inputs,
        env: reader.declared(&BTreeSet::new()),
        json_messages: parsed.json_messages,
        here_only,
        roots,
        argv,
    })
}

/// The one source. Reasons in the order in which they tell most: another mode, then what stands in a compile's way.
fn source(parsed: &mut Parsed) -> Result<PathBuf, RustReason> {
    if let Some(mode) = parsed.mode.take() {
        return Err(mode);
    }
    match parsed.inputs.as_slice() {
        [] => return Err(parsed.obstacle.take().unwrap_or(Why::NotACompile.into())),
        [_, second, ..] => return Err(RustReason::about(Why::MultipleInputs, second)),
        [input] if input == "-" => return Err(Why::StdinInput.into()),
        [input] if input.is_empty() => return Err(RustReason::about(Why::UnknownValue, input)),
        [_] => {}
    }
    match parsed.obstacle.take() {
        Some(obstacle) => Err(obstacle),
        None => Ok(parsed.inputs.first().map(PathBuf::from).unwrap_or_default()),
    }
}

/// What is made of which crate.
struct Made {
    crate_name: String,
    crate_types: Vec<CrateType>,
    /// An executable, where it is a test, whatever the crate's type.
    linked_types: Vec<CrateType>,
    emits: Vec<Emit>,
    links: bool,
}

impl Made {
    fn of(parsed: &Parsed) -> Result<Self, RustReason> {
        let crate_name = parsed.crate_name.clone().ok_or(Why::CrateInSource)?;
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|letter| letter == '_' || letter.is_alphanumeric());
        if !is_name(&crate_name) || parsed.extra_filename.contains('/') {
            return Err(RustReason::about(Why::UnknownValue, crate_name + &parsed.extra_filename));
        }
        let mut crate_types: Vec<CrateType> = Vec::new();
        for given in &parsed.crate_types {
            if !crate_types.contains(given) {
                crate_types.push(*given);
            }
        }
        if crate_types.is_empty() {
            // Cargo says nothing of a benchmark without a harness. Should the source say `#![crate_type]`, the program will be missing.
            crate_types.push(CrateType::Bin);
        }
        let mut emits = parsed.emits.clone();
        if emits.is_empty() {
            emits.push(Emit { kind: EmitKind::Link, path: None });
        }
        let emits_link = emits.iter().any(|emit| emit.kind == EmitKind::Link);
        let mut linked_types = if parsed.is_test { vec![CrateType::Bin] } else { crate_types.clone() };
        if linked_types.contains(&CrateType::Rlib) {
            // Both are the same file.
            linked_types.retain(|kind| *kind != CrateType::Lib);
        }
        let links = emits_link && linked_types.iter().any(|kind| kind.links());
        let makes_code =
            emits.iter().any(|emit| !matches!(emit.kind, EmitKind::DepInfo | EmitKind::Metadata | EmitKind::Mir));
        if parsed.split_debuginfo.as_deref() == Some("unpacked") && parsed.has_debuginfo && makes_code {
            // A file for each unit, by a name that depends on the source.
            return Err(RustReason::about(Why::ExtraOutput, "split-debuginfo=unpacked"));
        }
        Ok(Self { crate_name, crate_types, linked_types, emits, links })
    }

    fn outputs(&self, parsed: &Parsed, names: &FileNames) -> Result<(PathBuf, Vec<RustOutput>), RustReason> {
        outputs(&Naming {
            crate_name: &self.crate_name,
            extra_filename: &parsed.extra_filename,
            out_dir: parsed.out_dir.as_deref(),
            output: parsed.output.as_deref(),
            emits: &self.emits,
            crate_types: &self.linked_types,
            names,
            packs_debuginfo: parsed.split_debuginfo.as_deref() == Some("packed"),
            codegen_units: parsed.codegen_units.as_deref(),
        })
    }
}

fn reader<'a>(invocation: &RustInvocation<'a>, parsed: &Parsed, links: bool) -> Reader<'a> {
    Reader {
        driver: invocation.driver,
        links,
        chooses_color: !parsed.json_messages && !parsed.color_given,
        has_target: parsed.target.is_some(),
        env: invocation.env,
    }
}

/// Another sysroot has other crates than the toolchain that is known.
fn check_sysroot(parsed: &Parsed, known: Option<&Path>) -> Result<(), RustReason> {
    match &parsed.sysroot {
        Some(given) if known != Some(Path::new(given)) => Err(RustReason::about(Why::CompilerParts, given)),
        _ => Ok(()),
    }
}

fn file_names(parsed: &Parsed, cwd: &Path, machine: &Machine<'_>) -> Result<FileNames, RustReason> {
    let (names, target) = match &parsed.target {
        None => return Ok(FileNames::default()),
        Some(Target::Triple(triple)) => (FileNames::of_triple(triple), triple.clone()),
        Some(Target::Specification(file)) => {
            let text = (machine.read)(&cwd.join(file)).ok();
            (text.and_then(|text| FileNames::of_specification(&text)), file.display().to_string())
        }
    };
    names.ok_or_else(|| RustReason::about(Why::UnknownTarget, target))
}

/// The roots, at their places unless the command itself says their real names.
fn roots(invocation: &RustInvocation<'_>, arguments: &[String], parsed: &Parsed, machine: &Machine<'_>) -> Roots {
    let roots = locate::locate(&surroundings(invocation, arguments, &variable(invocation.env), machine));
    let placer = Placer::new(&roots, invocation.cwd);
    let texts = parsed.words.iter().flatten().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        Part::Path(_) | Part::Machine | Part::Session => None,
    });
    let is_bound = texts.into_iter().any(|text| placer.is_bound(text));
    // A prefix map of the user's that begins above a root would not match the root's place.
    let maps_above = |from: &String| roots.iter().any(|(_, real, _)| real != Path::new(from) && real.starts_with(from));
    if is_bound || parsed.remapped.iter().any(maps_above) { roots.at_real_places() } else { roots }
}

fn processor(parsed: &Parsed, machine: &Machine<'_>) -> Result<Option<String>, RustReason> {
    if !parsed.asks_machine {
        return Ok(None);
    }
    (machine.processor)().map(Some).ok_or_else(|| Why::NativeProcessor.into())
}

/// `words` without `-C linker`, which cargo says for every crate of a target that has one set. Of a crate that is not linked no byte depends on it,
/// and a desktop that compiles for a board names another linker than the board.
fn without_linker(words: &[Word]) -> Vec<Word> {
    let is_text = |part: &Part, wanted: &[&str]| matches!(part, Part::Text(text) if wanted.contains(&text.as_str()));
    let names_linker = |word: &[Part]| word.first().is_some_and(|part| is_text(part, &["linker="]));
    let mut kept: Vec<Word> = Vec::with_capacity(words.len());
    for word in words {
        let is_alone = |word: &Word| word.len() == 1 && is_text(&word[0], &["-C", "--codegen"]);
        match word.split_first() {
            Some((option, value)) if is_text(option, &["-C", "--codegen="]) && names_linker(value) => {}
            _ if names_linker(word) && kept.last().is_some_and(is_alone) => drop(kept.pop()),
            _ => kept.push(word.clone()),
        }
    }
    kept
}

/// Every word, placed.
fn key_arguments(given: &[Word], placer: &Placer<'_>, processor: Option<&str>) -> Result<Vec<String>, RustReason> {
    let mut words = Vec::with_capacity(given.len());
    for word in given {
        let mut text = String::new();
        for part in word {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Path(path) => text.push_str(&placer.place(path)?),
                Part::Machine => text.extend(["native:", processor.unwrap_or_default()]),
                Part::Session => text.push_str(SESSION_PLACE),
            }
        }
        words.push(text);
    }
    Ok(words)
}

/// The libraries of `-l`; and every file that the command names, those of libraries that are found in its folders too.
fn files_named(parsed: &Parsed, made: &Made, cwd: &Path, machine: &Machine<'_>) -> (Vec<NativeLibrary>, Vec<PathBuf>) {
    let emits_link = made.emits.iter().any(|emit| emit.kind == EmitKind::Link);
    let mut files_read: Vec<PathBuf> = parsed.read_files.iter().map(PathBuf::from).collect();
    let mut libraries = Vec::new();
    for LibraryOption { kind, modifiers, name } in &parsed.libraries {
        let is_static = kind.as_deref() == Some("static");
        let is_opened = made.links || (is_static && emits_link);
        let is_verbatim = modifiers.iter().any(|modifier| modifier == "+verbatim");
        let files: Vec<String> = match (is_verbatim, is_static) {
            (true, _) => vec![name.clone()],
            (false, true) => vec![format!("lib{name}.a")],
            (false, false) => vec![format!("lib{name}.so"), format!("lib{name}.a")],
        };
        let folders =
            parsed.search.iter().filter(|path| matches!(path.kind, SearchPathKind::Native | SearchPathKind::All));
        let mut places = folders.flat_map(|folder| files.iter().map(move |file| folder.path.join(file)));
        if is_opened && let Some(file) = places.find(|file| (machine.exists)(&cwd.join(file))) {
            files_read.push(file);
        }
        libraries.push(NativeLibrary {
            kind: kind.clone(),
            modifiers: modifiers.clone(),
            name: name.clone(),
            is_opened,
        });
    }
    (libraries, files_read)
}
