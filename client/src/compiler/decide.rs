//! The decision: weighs what the arguments and the environment say, and puts the request together.

use std::path::{Path, PathBuf};

use super::environment;
use super::language::{self, Language};
use super::parse::{Parsed, parse};
use super::places::{absolute, check_not_special, check_output, with_suffix};
use super::reason::{Reason, ReasonKind};
use super::request::{CompileRequest, CompilerFamily, Decision, DepFile, Invocation};
use super::response_file::{self, ReadFile};
use super::terminal;

/// Decides where a command runs. Pure but for `read`, which is called for `@file` arguments only.
pub fn decide(invocation: &Invocation<'_>, read: &ReadFile<'_>) -> Decision {
    match request(invocation, read) {
        Ok(request) => Decision::Distribute(Box::new(request)),
        Err(reason) => Decision::Local(reason),
    }
}

fn request(invocation: &Invocation<'_>, read: &ReadFile<'_>) -> Result<CompileRequest, Reason> {
    let argv = response_file::expand(invocation.argv, invocation.cwd, read)?;
    let mut parsed = parse(&argv, invocation.family);
    check_mode(&mut parsed)?;
    environment::check(invocation.env)?;
    if let Some(argument) = argv.iter().find(|argument| argument.contains('\0')) {
        return Err(Reason::about(ReasonKind::UnknownOption, argument.replace('\0', "\u{fffd}")));
    }
    check_macros(&argv)?;
    let (source, language) = source(&parsed, invocation)?;
    let object = object(&parsed, &source, invocation.cwd)?;
    // Preprocessed text has no dependencies left, and compilers write no file of them.
    let depfile = depfile(&parsed, &object, invocation.cwd)?.filter(|_| !language.is_preprocessed());
    let mut search_directories = std::mem::take(&mut parsed.search_directories);
    search_directories.extend(environment::search_directories(invocation.env, language));
    let read_paths = search_directories.iter().map(|found| &found.path).chain(&parsed.explicit_inputs);
    for path in read_paths {
        check_not_special(invocation.cwd, path)?;
    }
    let mut outputs = vec![PathBuf::from(&object)];
    outputs.extend(depfile.iter().map(|depfile| depfile.path.clone()));
    check_distinct(invocation.cwd, &source, &outputs, &parsed.explicit_inputs)?;

    let explicit = terminal::explicit(invocation, parsed.diagnostics);
    let env = environment::carry(invocation.env, invocation.family, explicit.colored, explicit.linked);
    let with = |mut arguments: Vec<String>, more: &[String]| {
        arguments.extend_from_slice(more);
        arguments
    };
    let language_arguments = ["-x".to_owned(), language.option_name().to_owned()];
    Ok(CompileRequest {
        source: PathBuf::from(source),
        language,
        object: PathBuf::from(object),
        depfile,
        outputs,
        argv: with(argv, &explicit.added),
        added_arguments: explicit.added.clone(),
        env,
        logical_directory: logical_directory(invocation),
        include_arguments: with(parsed.include_arguments, &language_arguments),
        key_arguments: with(parsed.key_arguments, &explicit.added),
        explicit_inputs: parsed.explicit_inputs,
        search_directories,
        stderr_rule: explicit.rule,
    })
}

/// Reasons in the order in which they tell most: another mode, a link, then what stands in a compile's way.
fn check_mode(parsed: &mut Parsed) -> Result<(), Reason> {
    if let Some(mode) = parsed.mode.take() {
        return Err(mode);
    }
    if parsed.inputs.is_empty() {
        return Err(ReasonKind::NotACompile.into());
    }
    if !parsed.compile_only {
        return Err(ReasonKind::Link.into());
    }
    parsed.obstacle.take().map_or(Ok(()), Err)
}

/// What a macro of the command line brings in stands in no file that the include scanner reads. Any argument counts: it may be a macro's
/// value.
fn check_macros(argv: &[String]) -> Result<(), Reason> {
    let with = |words: &[&str]| argv.iter().find(|argument| words.iter().any(|word| argument.contains(word)));
    if let Some(argument) = with(&["__DATE__", "__TIME__", "__TIMESTAMP__"]) {
        return Err(Reason::about(ReasonKind::TimeMacros, argument));
    }
    match with(&["__has_include", "__has_embed", ".incbin", ".include ", "GCC dependency"]) {
        Some(argument) => Err(Reason::about(ReasonKind::ExtraInput, argument)),
        None => Ok(()),
    }
}

fn source(parsed: &Parsed, invocation: &Invocation<'_>) -> Result<(String, Language), Reason> {
    if parsed.inputs.iter().any(|input| input.spelled == "-") {
        return Err(ReasonKind::StdinInput.into());
    }
    let [input] = parsed.inputs.as_slice() else {
        let second = parsed.inputs.get(1).map(|input| input.spelled.clone());
        return Err(Reason { kind: ReasonKind::MultipleInputs, argument: second });
    };
    let source = &input.spelled;
    let about = |kind| Reason::about(kind, source.clone());
    let language = match input.language {
        Some(explicit) => explicit.map_err(about)?,
        None => language::from_file_name(source, invocation.driver).map_err(about)?,
    };
    // Empty, a folder, or a name that ends the path: no file.
    if matches!(source.rsplit('/').next(), None | Some("" | "." | "..")) {
        return Err(about(ReasonKind::UnknownLanguage));
    }
    check_not_special(invocation.cwd, Path::new(source))?;
    check_not_special(invocation.cwd, Path::new(""))?;
    if parsed.lto && !parsed.random_seed && invocation.family == CompilerFamily::Gcc {
        return Err(Reason::about(ReasonKind::Lto, "-flto"));
    }
    Ok((source.clone(), language))
}

fn object(parsed: &Parsed, source: &str, cwd: &Path) -> Result<String, Reason> {
    let object = if let Some(object) = &parsed.object {
        object.clone()
    } else {
        let name = source.rsplit('/').next().unwrap_or_default();
        with_suffix(name, ".o").ok_or_else(|| Reason::about(ReasonKind::UnusualOutput, source))?
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

/// Every output is a file of its own, and none is read.
fn check_distinct(cwd: &Path, source: &str, outputs: &[PathBuf], inputs: &[PathBuf]) -> Result<(), Reason> {
    let mut seen = vec![absolute(cwd, Path::new(source))];
    seen.extend(inputs.iter().map(|input| absolute(cwd, input)));
    for output in outputs {
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
