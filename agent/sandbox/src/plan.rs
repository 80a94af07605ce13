//! From a [`SandboxSpec`] to the overlay's mount options and bubblewrap's arguments. Pure: looks at no file, starts nothing.

use std::path::{Path, PathBuf};

use buildbee_proto::limits::{MAX_ARGUMENTS, MAX_COMMAND_BYTES};
use buildbee_proto::path::RelPath;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::jobserver;
use crate::spec::{JOBSERVER_VARIABLE, Limits, MERGED_NAME, SandboxSpec, UPPER_NAME, WORK_NAME};

/// User and group id that every command sees, on every agent.
pub const SANDBOX_ID: u32 = 1000;
/// Environment variables of one command: bubblewrap takes 9000 arguments in all, and each variable needs three.
pub const MAX_SANDBOX_ENVIRONMENT: usize = 2048;
/// Overlay mount options in bytes: the kernel takes one page, with the final NUL.
pub const MAX_OVERLAY_OPTIONS_BYTES: usize = 4095;
/// Layers of one command.
pub const MAX_LAYERS: usize = 16;
/// Folders to make for one command.
pub const MAX_MAKE_DIRECTORIES: usize = 8192;
/// Top-level names that the sandbox fills itself, so that no input or output can lie below them.
pub const RESERVED: [&str; 3] = ["dev", "proc", "sys"];

/// Why a specification can't be run.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// The argument list is empty or names an empty program.
    #[error("no program to run")]
    NoProgram,
    /// An argument or variable that can't be handed to a program.
    #[error("argument or variable {0:?} is empty where it may not be, or holds NUL or a misplaced equals sign")]
    Text(String),
    /// More than the limit of something.
    #[error("{n} {what}, at most {max} are possible")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        n: usize,
        /// How many there may be.
        max: usize,
    },
    /// No layer, or more than [`MAX_LAYERS`].
    #[error("{0} layers, between 1 and {MAX_LAYERS} are possible")]
    Layers(usize),
    /// A layer or the scratch folder that is not absolute, or not UTF-8.
    #[error("folder {0:?} is not an absolute UTF-8 path")]
    Folder(PathBuf),
    /// The overlay's mount options are longer than a page.
    #[error("paths of layers and scratch folder need {0} bytes, at most {MAX_OVERLAY_OPTIONS_BYTES} are possible")]
    OptionsTooLong(usize),
    /// A path below `/dev`, `/proc` or `/sys`.
    #[error("{0:?} lies in a folder that the sandbox provides itself")]
    Reserved(PathBuf),
}

/// Everything the helper needs to know to start one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Options of the overlay's mount.
    pub overlay_options: String,
    /// Where the overlay is mounted.
    pub merged: String,
    /// Bubblewrap's options, handed over by `--args` in a file of their own.
    #[serde(skip)]
    pub options: Vec<String>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Tokens in its jobserver, if it has one.
    pub job_tokens: Option<u16>,
    /// What the command may use.
    pub limits: Limits,
}

/// The plan for `spec`, or what is wrong with it.
pub fn plan(spec: &SandboxSpec) -> Result<Plan, PlanError> {
    check_texts(spec)?;
    check_directories(spec)?;
    let merged = text(&spec.scratch.join(MERGED_NAME))?.to_owned();
    Ok(Plan {
        overlay_options: overlay_options(spec)?,
        options: options(spec, &merged),
        merged,
        argv: spec.argv.clone(),
        job_tokens: spec.job_tokens,
        limits: spec.limits,
    })
}

fn check_texts(spec: &SandboxSpec) -> Result<(), PlanError> {
    if spec.argv.first().is_none_or(String::is_empty) {
        return Err(PlanError::NoProgram);
    }
    at_most("arguments", spec.argv.len(), MAX_ARGUMENTS)?;
    at_most("environment variables", spec.env.len(), MAX_SANDBOX_ENVIRONMENT)?;
    let values = spec.env.iter().map(|(_, value)| value);
    if let Some(bad) = spec.argv.iter().chain(values).find(|text| text.contains('\0')) {
        return Err(PlanError::Text(bad.clone()));
    }
    if let Some((bad, _)) = spec.env.iter().find(|(name, _)| name.is_empty() || name.contains(['\0', '='])) {
        return Err(PlanError::Text(bad.clone()));
    }
    let argument_bytes = spec.argv.iter().map(|argument| argument.len() + 1).sum::<usize>();
    let env_bytes = spec.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    at_most("bytes of arguments and environment", argument_bytes + env_bytes, MAX_COMMAND_BYTES)
}

fn at_most(what: &'static str, n: usize, max: usize) -> Result<(), PlanError> {
    if n > max { Err(PlanError::TooMany { what, n, max }) } else { Ok(()) }
}

fn check_directories(spec: &SandboxSpec) -> Result<(), PlanError> {
    at_most("folders to make", spec.make_directories.len(), MAX_MAKE_DIRECTORIES)?;
    for path in spec.make_directories.iter().chain([&spec.working_directory]) {
        if is_reserved(path) {
            return Err(PlanError::Reserved(path.to_absolute()));
        }
    }
    Ok(())
}

fn is_reserved(path: &RelPath) -> bool {
    path.components().next().is_some_and(|first| RESERVED.contains(&first))
}

fn text(path: &Path) -> Result<&str, PlanError> {
    match path.to_str() {
        Some(text) if path.is_absolute() => Ok(text),
        _ => Err(PlanError::Folder(path.to_owned())),
    }
}

/// Mount options of the overlay.
///
/// `userxattr`: the overlay's marks are attributes that a user namespace may set. `volatile`: without it, the end of the mount
/// writes all dirty data of the whole file system to disk. The rest makes sure that a kernel's own defaults change nothing.
fn overlay_options(spec: &SandboxSpec) -> Result<String, PlanError> {
    if spec.layers.is_empty() || spec.layers.len() > MAX_LAYERS {
        return Err(PlanError::Layers(spec.layers.len()));
    }
    let layers = spec.layers.iter().map(|layer| text(layer).map(escape)).collect::<Result<Vec<_>, _>>()?;
    let scratch = escape(text(&spec.scratch)?);
    let options = format!(
        "userxattr,volatile,index=off,metacopy=off,lowerdir={},upperdir={scratch}/{UPPER_NAME},workdir={scratch}/{WORK_NAME}",
        layers.join(":")
    );
    if options.len() > MAX_OVERLAY_OPTIONS_BYTES {
        return Err(PlanError::OptionsTooLong(options.len()));
    }
    Ok(options)
}

/// `path` with a backslash before what separates options and layers.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for character in path.chars() {
        if matches!(character, '\\' | ':' | ',') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn options(spec: &SandboxSpec, merged: &str) -> Vec<String> {
    let id = SANDBOX_ID.to_string();
    let chdir = format!("/{}", spec.working_directory);
    // The other namespaces are there already: the helper has made them.
    let namespaces = ["--unshare-user", "--unshare-pid", "--unshare-cgroup-try"];
    let fixed = ["--die-with-parent", "--new-session", "--cap-drop", "ALL"];
    // Below /proc, user 0 of the host may write kernel settings even without any capability, and bubblewrap covers only what it can
    // itself write as a folder: so all of /proc is read-only.
    // The devices are on the overlay already, and bubblewrap's plain `--bind` would close them.
    let world = ["--dev-bind", merged, "/", "--proc", "/proc", "--remount-ro", "/proc"];
    let identity = ["--uid", &id, "--gid", &id, "--chdir", &chdir, "--clearenv"];
    let variables = spec.env.iter().flat_map(|(name, value)| ["--setenv", name.as_str(), value.as_str()]);
    let mut options: Vec<String> =
        namespaces.into_iter().chain(fixed).chain(world).chain(identity).chain(variables).map(str::to_owned).collect();
    if spec.job_tokens.is_some() {
        options.extend(["--setenv".to_owned(), JOBSERVER_VARIABLE.to_owned(), jobserver::announcement()]);
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SandboxSpec {
        SandboxSpec {
            layers: vec!["/s/inputs/1".into(), "/s/toolchains/gcc".into()],
            scratch: "/s/scratch/7".into(),
            argv: vec!["/usr/bin/gcc".into(), "-c".into(), "x.c".into()],
            env: vec![("LANG".into(), "C".into()), ("EMPTY".into(), String::new())],
            working_directory: "home/a/p".try_into().unwrap(),
            make_directories: vec!["home/a/p/out".try_into().unwrap()],
            stderr_is_terminal: false,
            job_tokens: None,
            limits: Limits::default(),
        }
    }

    #[test]
    fn a_compile() {
        let plan = plan(&spec()).unwrap();
        insta::assert_snapshot!(plan.overlay_options, @"userxattr,volatile,index=off,metacopy=off,lowerdir=/s/inputs/1:/s/toolchains/gcc,upperdir=/s/scratch/7/upper,workdir=/s/scratch/7/work");
        insta::assert_snapshot!(plan.merged, @"/s/scratch/7/merged");
        insta::assert_snapshot!(plan.argv.join(" "), @"/usr/bin/gcc -c x.c");
        insta::assert_snapshot!(plan.options.join(" ").replace(" --", "\n--"), @r"
        --unshare-user
        --unshare-pid
        --unshare-cgroup-try
        --die-with-parent
        --new-session
        --cap-drop ALL
        --dev-bind /s/scratch/7/merged /
        --proc /proc
        --remount-ro /proc
        --uid 1000
        --gid 1000
        --chdir /home/a/p
        --clearenv
        --setenv LANG C
        --setenv EMPTY 
        ");
    }

    #[test]
    fn a_compile_that_asks_before_it_starts_a_thread() {
        let options = plan(&SandboxSpec { job_tokens: Some(3), ..spec() }).unwrap().options;
        assert_eq!(options[options.len() - 3..], ["--setenv", "CARGO_MAKEFLAGS", "-j --jobserver-auth=100,101"]);
    }

    #[test]
    fn separators_in_paths_are_escaped() {
        let mut spec = spec();
        spec.layers = vec![r"/s/a:b,c\d e".into()];
        spec.scratch = "/s/x,y".into();
        insta::assert_snapshot!(plan(&spec).unwrap().overlay_options, @r"userxattr,volatile,index=off,metacopy=off,lowerdir=/s/a\:b\,c\\d e,upperdir=/s/x\,y/upper,workdir=/s/x\,y/work");
    }

    #[test]
    fn the_working_directory_may_be_the_root() {
        let mut spec = spec();
        spec.working_directory = RelPath::root();
        let options = plan(&spec).unwrap().options;
        let at = options.iter().position(|option| option == "--chdir").unwrap();
        assert_eq!(options[at + 1], "/");
    }

    fn refused(change: impl FnOnce(&mut SandboxSpec)) -> PlanError {
        let mut spec = spec();
        change(&mut spec);
        plan(&spec).unwrap_err()
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert_eq!(refused(|spec| spec.argv.clear()), PlanError::NoProgram);
        assert_eq!(refused(|spec| spec.argv[0].clear()), PlanError::NoProgram);
        assert_eq!(refused(|spec| spec.argv.push("a\0".into())), PlanError::Text("a\0".into()));
        assert_eq!(refused(|spec| spec.env[0].0 = "A=B".into()), PlanError::Text("A=B".into()));
        assert_eq!(refused(|spec| spec.env[0].0.clear()), PlanError::Text(String::new()));
        assert_eq!(refused(|spec| spec.layers.clear()), PlanError::Layers(0));
        assert_eq!(refused(|spec| spec.layers = vec!["/a".into(); 17]), PlanError::Layers(17));
        assert_eq!(refused(|spec| spec.layers[0] = "a".into()), PlanError::Folder("a".into()));
        assert_eq!(refused(|spec| spec.scratch = "s".into()), PlanError::Folder("s/merged".into()));
        for path in ["dev", "dev/shm/x", "proc/self", "sys/a"] {
            let found = refused(|spec| spec.make_directories.push(path.try_into().unwrap()));
            assert_eq!(found, PlanError::Reserved(format!("/{path}").into()));
            let found = refused(|spec| spec.working_directory = path.try_into().unwrap());
            assert_eq!(found, PlanError::Reserved(format!("/{path}").into()));
        }
        let variables = (0..=MAX_SANDBOX_ENVIRONMENT).map(|i| (format!("V{i}"), String::new())).collect();
        assert!(matches!(refused(|spec| spec.env = variables), PlanError::TooMany { n: 2049, .. }));
        let long = "a".repeat(MAX_COMMAND_BYTES);
        assert!(matches!(refused(|spec| spec.argv.push(long)), PlanError::TooMany { .. }));
        let deep = format!("/{}", "a/".repeat(2000));
        assert!(matches!(refused(|spec| spec.layers.push(deep.into())), PlanError::OptionsTooLong(_)));
        assert!(plan(&SandboxSpec { working_directory: "device".try_into().unwrap(), ..spec() }).is_ok());
    }
}
