//! The decision: weighs what the arguments and the environment say, and puts the request together.

use std::path::{Path, PathBuf};

use super::environment;
use super::language::{self, Written};
use super::native::{self, ReadNative};
use super::outputs::{Existing, Output, SideFile, Stage};
use super::parse::{Input, Parsed, parse};
use super::places::{absolute, check_not_special, check_output, with_suffix};
use super::profile;
use super::reason::{Reason, ReasonKind};
use super::request::{CompileRequest, CompilerFamily, Decision, DepFile, Invocation, NamedInput, SearchDirectory};
use super::response_file::{self, ReadFile};
use super::terminal;
use super::time_words::TimeWords;

/// Decides where a command runs. Pure but for `read`, which is called for `@file` arguments only. What asks the machine is local.
pub fn decide(invocation: &Invocation<'_>, read: &ReadFile<'_>) -> Decision {
    decide_on(invocation, read, &|_| None)
}

/// The same on a machine that is known: `native` is called for options that ask it only.
pub fn decide_on(invocation: &Invocation<'_>, read: &ReadFile<'_>, native: &ReadNative<'_>) -> Decision {
    match request(invocation, read, native) {
        Ok(request) => Decision::Distribute(Box::new(request)),
        Err(reason) => Decision::Local(reason),
    }
}

fn request(
    invocation: &Invocation<'_>,
    read: &ReadFile<'_>,
    native: &ReadNative<'_>,
) -> Result<CompileRequest, Reason> {
    let Arguments { argv, mut parsed, stage, mut here_only } = arguments(invocation, read, native)?;
    environment::check(invocation.env)?;
    if let Some(argument) = argv.iter().find(|argument| argument.contains('\0')) {
        return Err(Reason::about(ReasonKind::UnknownOption, argument.replace('\0', "\u{fffd}")));
    }
    let fixed_words = environment::fixed_words(invocation) | parsed.redefined;
    check_macros(&argv, fixed_words)?;
    let (source, Written { language, is_header }) = source(&parsed, stage, invocation)?;
    let seeded = parsed.random_seed || invocation.family == CompilerFamily::Clang;
    let reproducible = (seeded || !parsed.randomised) && !parsed.has_headings && !is_header;
    if is_header {
        // It is large, and made of the compiler's memory: no two runs write the same.
        here_only = Some(ReasonKind::PrecompiledHeader.into());
    } else if stage == Stage::Check && invocation.family == CompilerFamily::Gcc {
        here_only = Some(ReasonKind::SyntaxOnly.into());
    }
    let object = main_output(&parsed, stage, &source, invocation.cwd)?;
    // Preprocessed text has no dependencies left, and compilers write no file of them.
    let depfile = depfile(&parsed, &object, invocation.cwd)?.filter(|_| !language.is_preprocessed());
    let mut search_directories = std::mem::take(&mut parsed.search_directories);
    search_directories.extend(environment::search_directories(invocation.env, language));
    let logical_directory = logical_directory(invocation);
    let named_inputs = named_inputs(&mut parsed, &object, logical_directory.as_deref(), invocation)?;
    check_read(&parsed, &search_directories, &named_inputs, invocation.cwd)?;
    let mut outputs = outputs(&mut parsed, stage, &object, depfile.as_ref(), invocation)?;
    // Seen with gcc 12.
    outputs.iter_mut().filter(|_| is_header).for_each(|output| output.existing = Existing::Kept);
    check_distinct(invocation.cwd, &source, &outputs, &parsed.explicit_inputs, &named_inputs)?;

    let explicit = terminal::explicit(invocation, parsed.diagnostics);
    let env = environment::carry(invocation, explicit.colored, explicit.linked);
    let with = |mut arguments: Vec<String>, more: &[String]| {
        arguments.extend_from_slice(more);
        arguments
    };
    let language_arguments = ["-x".to_owned(), language.option_name().to_owned()];
    Ok(CompileRequest {
        family: invocation.family,
        source: PathBuf::from(source),
        language,
        object: PathBuf::from(object),
        depfile,
        outputs,
        argv: with(argv, &explicit.added),
        added_arguments: explicit.added.clone(),
        roots: Vec::new(),
        env,
        logical_directory,
        include_arguments: with(parsed.include_arguments, &language_arguments),
        key_arguments: with(parsed.key_arguments, &explicit.added),
        explicit_inputs: parsed.explicit_inputs,
        named_inputs,
        search_directories,
        stderr_rule: explicit.rule,
        stderr_is_terminal: false,
        terminal: explicit.terminal,
        reproducible,
        fixed_words,
        here_only,
    })
}

/// A compile's arguments, none of which asks the machine any more.
struct Arguments {
    argv: Vec<String>,
    parsed: Parsed,
    stage: Stage,
    here_only: Option<Reason>,
}

fn arguments(invocation: &Invocation<'_>, read: &ReadFile<'_>, native: &ReadNative<'_>) -> Result<Arguments, Reason> {
    let mut argv = response_file::expand(invocation.argv, invocation.cwd, read)?;
    let mut parsed = parse(&argv, invocation.family);
    let mut stage = check_mode(&mut parsed)?;
    let mut here_only = None;
    if parsed.asks_machine {
        let expanded = native::expand(&argv, invocation.family, native)?;
        (argv, here_only) = (expanded.argv, expanded.here_only);
        parsed = parse(&argv, invocation.family);
        stage = check_mode(&mut parsed)?;
    }
    if let Some(whole) = environment::with_added(&Invocation { argv: &argv, ..*invocation })? {
        let spelled = whole;
        let mut whole = parse(&spelled, invocation.family);
        check_macros(&spelled, environment::fixed_words(invocation) | whole.redefined)?;
        stage = check_mode(&mut whole)?;
        // What the wrapper adds it adds again when it is asked, and the key has the variables.
        whole.include_arguments = parsed.include_arguments;
        whole.key_arguments = parsed.key_arguments;
        parsed = whole;
    }
    Ok(Arguments { argv, parsed, stage, here_only })
}

/// Reasons in the order in which they tell most: another mode, a link, then what stands in a compile's way.
fn check_mode(parsed: &mut Parsed) -> Result<Stage, Reason> {
    if let Some(mode) = parsed.mode.take() {
        return Err(mode);
    }
    if parsed.inputs.is_empty() {
        return Err(ReasonKind::NotACompile.into());
    }
    // A header is precompiled where nothing else is said.
    let only_header = |input: &Input| matches!(input.language, Some(Ok(Written { is_header: true, .. })));
    let implied = parsed.inputs.iter().all(only_header).then_some(Stage::Object);
    let stage = parsed.stage.or(implied).ok_or(ReasonKind::Link)?;
    parsed.obstacle.take().map_or(Ok(stage), Err)
}

/// What a macro of the command line brings in stands in no file that the include scanner reads. Any argument counts: it may be a macro's
/// value.
fn check_macros(argv: &[String], fixed_words: TimeWords) -> Result<(), Reason> {
    let with = |words: &[&str]| argv.iter().find(|argument| words.iter().any(|word| argument.contains(word)));
    if let Some(argument) = argv.iter().find(|argument| !TimeWords::in_text(argument).without(fixed_words).is_empty()) {
        return Err(Reason::about(ReasonKind::TimeMacros, argument));
    }
    match with(&["__has_include", "__has_embed", ".incbin", ".include ", "GCC dependency"]) {
        Some(argument) => Err(Reason::about(ReasonKind::ExtraInput, argument)),
        None => Ok(()),
    }
}

/// gcc's precompiled headers can be kept: it goes by its own checksum, the options and the folder, all of which are in the key. clang
/// writes the times of all headers into them. Without `-o`, gcc names files beside it in ways of its own.
fn check_precompiled(parsed: &Parsed, stage: Stage, source: &str, family: CompilerFamily) -> Result<(), Reason> {
    let is_known = family == CompilerFamily::Gcc && stage == Stage::Object && parsed.object.is_some();
    if is_known && parsed.side_files.is_empty() && parsed.named_outputs.is_empty() {
        Ok(())
    } else {
        Err(Reason::about(ReasonKind::PrecompiledHeader, source))
    }
}

/// Nothing is read from where each machine has its own.
fn check_read(
    parsed: &Parsed,
    search_directories: &[SearchDirectory],
    named_inputs: &[NamedInput],
    cwd: &Path,
) -> Result<(), Reason> {
    let mut read = (search_directories.iter().map(|found| &found.path))
        .chain(&parsed.explicit_inputs)
        .chain(named_inputs.iter().map(|input| &input.path));
    read.try_for_each(|path| check_not_special(cwd, path))
}

fn source(parsed: &Parsed, stage: Stage, invocation: &Invocation<'_>) -> Result<(String, Written), Reason> {
    if parsed.inputs.iter().any(|input| input.spelled == "-") {
        return Err(ReasonKind::StdinInput.into());
    }
    let [input] = parsed.inputs.as_slice() else {
        let second = parsed.inputs.get(1).map(|input| input.spelled.clone());
        return Err(Reason { kind: ReasonKind::MultipleInputs, argument: second });
    };
    let source = &input.spelled;
    let about = |kind| Reason::about(kind, source.clone());
    let written = match input.language {
        Some(explicit) => explicit.map_err(about)?,
        None => language::from_file_name(source, invocation.driver).map_err(about)?,
    };
    // Empty, a folder, or a name that ends the path: no file.
    if matches!(source.rsplit('/').next(), None | Some("" | "." | "..")) {
        return Err(about(ReasonKind::UnknownLanguage));
    }
    check_not_special(invocation.cwd, Path::new(source))?;
    check_not_special(invocation.cwd, Path::new(""))?;
    if written.is_header {
        check_precompiled(parsed, stage, source, invocation.family)?;
    }
    if written.language.is_assembler() && stage != Stage::Object {
        return Err(Reason::about(ReasonKind::PreprocessOnly, source));
    }
    Ok((source.clone(), written))
}

fn main_output(parsed: &Parsed, stage: Stage, source: &str, cwd: &Path) -> Result<String, Reason> {
    let object = if let Some(object) = &parsed.object {
        object.clone()
    } else {
        let name = source.rsplit('/').next().unwrap_or_default();
        let suffix = match (stage, parsed.emits_llvm) {
            (Stage::Assembly, false) => ".s",
            (Stage::Assembly, true) => ".ll",
            (Stage::Object | Stage::Check, false) => ".o",
            (Stage::Object | Stage::Check, true) => ".bc",
        };
        with_suffix(name, suffix).ok_or_else(|| Reason::about(ReasonKind::UnusualOutput, source))?
    };
    check_output(cwd, &object)?;
    Ok(object)
}

fn depfile(parsed: &Parsed, object: &str, cwd: &Path) -> Result<Option<DepFile>, Reason> {
    let odd = |argument: &str| Err(Reason::about(ReasonKind::DependencyOptions, argument));
    let Some(kind) = parsed.dep_kind else {
        if parsed.dep_path.is_some() || parsed.dep_detail {
            return odd("-MF, -MT, -MQ or -MP without -MD or -MMD");
        }
        if let Some(depfile) = &parsed.preprocessor_depfile {
            check_output(cwd, &depfile.path.to_string_lossy())?;
        }
        return Ok(parsed.preprocessor_depfile.clone());
    };
    if parsed.preprocessor_depfile.is_some() {
        return odd("-MD and -Wp,-MD");
    }
    let path = match &parsed.dep_path {
        Some(path) => path.clone(),
        None => match with_suffix(object, ".d") {
            Some(path) => path,
            None => return odd(object),
        },
    };
    check_output(cwd, &path)?;
    Ok(Some(DepFile { path: PathBuf::from(path), kind }))
}

fn named_inputs(
    parsed: &mut Parsed,
    object: &str,
    logical_directory: Option<&Path>,
    invocation: &Invocation<'_>,
) -> Result<Vec<NamedInput>, Reason> {
    if parsed.profile.used && parsed.profile.folder.is_some() && logical_directory.is_some() {
        // The profile's name is made of the working directory's.
        return Err(Reason::about(ReasonKind::Profile, "PWD"));
    }
    let mut named = std::mem::take(&mut parsed.named_inputs);
    let seeded = parsed.random_seed;
    named.extend(profile::inputs(&parsed.profile, invocation.family, object, invocation.cwd, seeded)?);
    Ok(named)
}

/// Every file that the command may write.
fn outputs(
    parsed: &mut Parsed,
    stage: Stage,
    object: &str,
    depfile: Option<&DepFile>,
    invocation: &Invocation<'_>,
) -> Result<Vec<Output>, Reason> {
    let family = invocation.family;
    let mut outputs = Vec::new();
    if stage != Stage::Check {
        outputs.push(Output::main(object, stage, family));
    }
    outputs.extend(depfile.map(|depfile| Output::dependencies(&depfile.path)));
    for file in std::mem::take(&mut parsed.side_files) {
        // clang 14 names this one after the source, whatever `-o` says.
        if family == CompilerFamily::Clang && stage == Stage::Assembly && file == SideFile::SplitDwarf {
            return Err(Reason::about(ReasonKind::ExtraOutput, "-gsplit-dwarf"));
        }
        let output = Output::beside(object, file, family)?;
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    for output in std::mem::take(&mut parsed.named_outputs) {
        check_output(invocation.cwd, &output.path.to_string_lossy())?;
        outputs.push(output);
    }
    Ok(outputs)
}

/// Every output is a file of its own, and none is read.
fn check_distinct(
    cwd: &Path,
    source: &str,
    outputs: &[Output],
    inputs: &[PathBuf],
    named_inputs: &[NamedInput],
) -> Result<(), Reason> {
    let mut seen = vec![absolute(cwd, Path::new(source))];
    seen.extend(inputs.iter().chain(named_inputs.iter().map(|input| &input.path)).map(|input| absolute(cwd, input)));
    for Output { path: output, .. } in outputs {
        let path = absolute(cwd, output);
        if seen.contains(&path) {
            return Err(Reason::about(ReasonKind::UnusualOutput, output.display().to_string()));
        }
        seen.push(path);
    }
    Ok(())
}

fn logical_directory(invocation: &Invocation<'_>) -> Option<PathBuf> {
    let logical = Path::new(environment::get(invocation.env, "PWD")?);
    // By bytes: `Path` takes `/a/./b` for `/a/b`, but debug information does not.
    (logical.is_absolute() && logical.as_os_str() != invocation.cwd.as_os_str()).then(|| logical.to_owned())
}
