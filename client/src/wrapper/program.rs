//! What this start is about: a compiler (as `buildbee gcc …` or through a link named `gcc`) or a word for the command line.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::links;

/// The name that this program is called by when it is not standing in for a compiler.
pub const OWN_NAME: &str = "buildbee";

/// First arguments that belong to the command line and not to a program in `PATH`.
pub const COMMAND_WORDS: [&str; 21] = [
    "status",
    "stats",
    "explain",
    "doctor",
    "top",
    "trace",
    "run",
    "stop",
    "join",
    "peers",
    "toolchain",
    "cache",
    "farm",
    "env",
    "install-links",
    "daemon",
    "help",
    "--help",
    "-h",
    "--version",
    "-V",
];

/// Where `execvp` looks without a `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Hand these arguments to `buildbee-cli`.
    CommandLine(Vec<OsString>),
    /// Run this compiler.
    Compiler {
        /// As written: a name to look up, or a path where it holds a slash.
        name: OsString,
        /// Arguments after the compiler's name.
        arguments: Vec<OsString>,
        /// Whether this executable was started under the compiler's name.
        masquerade: bool,
    },
}

/// A compiler that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// What to execute. Holds a slash.
    pub program: PathBuf,
    /// What it sees as its own name, then its arguments.
    pub argv: Vec<OsString>,
}

/// Why there is nothing to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// No such program.
    Missing,
    /// It is there, but is not a program.
    NotExecutable,
}

/// Sorts out the command line of this process, own name first.
pub fn request(mut argv: impl Iterator<Item = OsString>) -> Request {
    let own = argv.next().unwrap_or_else(|| OWN_NAME.into());
    let base = Path::new(&own).file_name().unwrap_or(own.as_os_str());
    if base != OWN_NAME {
        return Request::Compiler { name: base.to_owned(), arguments: argv.collect(), masquerade: true };
    }
    // Set up twice, as by CMake with `CC="buildbee gcc"` and a launcher, it is one wrapper all the same.
    let arguments: Vec<OsString> =
        argv.skip_while(|word| Path::new(word).file_name() == Some(OsStr::new(OWN_NAME))).collect();
    match arguments.split_first() {
        None => Request::CommandLine(vec!["help".into()]),
        Some((first, _)) if COMMAND_WORDS.iter().any(|word| first == word) => Request::CommandLine(arguments),
        Some((first, rest)) => Request::Compiler { name: first.clone(), arguments: rest.to_vec(), masquerade: false },
    }
}

/// The executable that this process runs, to tell links to it from compilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnFile {
    device: u64,
    inode: u64,
}

impl OwnFile {
    /// Of this process. `None` where there is no `/proc`.
    pub fn of_this_process() -> Option<Self> {
        std::fs::metadata("/proc/self/exe").ok().map(|found| Self::of(&found))
    }

    fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

/// Finds the compiler in `path` (the variable's value), or takes it as written where it holds a slash. The path of a link to this
/// program stands for the compiler that the link does.
pub fn find(
    name: &OsStr,
    arguments: Vec<OsString>,
    masquerade: bool,
    path: Option<&OsStr>,
    own: Option<OwnFile>,
) -> Result<Compiler, NotFound> {
    if name.is_empty() {
        return Err(NotFound::Missing);
    }
    let written = if name.as_bytes().contains(&b'/') { Some(as_written(name)?) } else { None };
    let (program, skipped) = match written {
        Some(program) if !is_own_link(&program, own) => (program, false),
        written => {
            let name = written.as_deref().and_then(Path::file_name).unwrap_or(name);
            search(name, path.unwrap_or(OsStr::new(DEFAULT_PATH)), own)?
        }
    };
    // A compiler looks for its parts next to where PATH has its name. With a link of ours standing there first, or without a PATH, it
    // would look in the wrong place, so it gets its whole path instead.
    let shown =
        if masquerade || skipped || path.is_none() { program.clone().into_os_string() } else { name.to_owned() };
    let mut argv = Vec::with_capacity(arguments.len() + 1);
    argv.push(shown);
    argv.extend(arguments);
    Ok(Compiler { program, argv })
}

fn as_written(name: &OsStr) -> Result<PathBuf, NotFound> {
    let program = PathBuf::from(name);
    match std::fs::metadata(&program) {
        Err(_) => Err(NotFound::Missing),
        Ok(found) if found.is_file() && access(&program, AccessFlags::X_OK).is_ok() => Ok(program),
        Ok(_) => Err(NotFound::NotExecutable),
    }
}

/// The first executable called `name` that stands in for no compiler, and whether one that does came before it.
fn search(name: &OsStr, path: &OsStr, own: Option<OwnFile>) -> Result<(PathBuf, bool), NotFound> {
    let mut skipped = false;
    for folder in path.as_bytes().split(|byte| *byte == b':') {
        // An empty entry is the working directory. A path without a slash would be searched for again.
        let folder = if folder.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(folder)) };
        let candidate = folder.join(name);
        let Ok(found) = std::fs::metadata(&candidate) else { continue };
        if !found.is_file() || access(&candidate, AccessFlags::X_OK).is_err() {
            continue;
        }
        if own == Some(OwnFile::of(&found)) || links::stand_in(&candidate).is_some() {
            skipped = true;
        } else {
            return Ok((candidate, skipped));
        }
    }
    Err(NotFound::Missing)
}

/// A link to this program, or to another copy of it, under a compiler's name.
fn is_own_link(program: &Path, own: Option<OwnFile>) -> bool {
    let is_own = || std::fs::metadata(program).is_ok_and(|found| own == Some(OwnFile::of(&found)));
    links::stand_in(program) == Some(links::StandIn::Own) || is_own()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn request_of(argv: &[&str]) -> Request {
        request(words(argv).into_iter())
    }

    #[test]
    fn requests() {
        assert_eq!(request_of(&["buildbee"]), Request::CommandLine(words(&["help"])));
        assert_eq!(request_of(&[]), Request::CommandLine(words(&["help"])));
        assert_eq!(request_of(&["/x/buildbee", "stats", "--json"]), Request::CommandLine(words(&["stats", "--json"])));
        assert_eq!(
            request_of(&["buildbee", "gcc", "-c", "stats"]),
            Request::Compiler { name: "gcc".into(), arguments: words(&["-c", "stats"]), masquerade: false }
        );
        let gcc = Request::Compiler { name: "gcc".into(), arguments: words(&["-c"]), masquerade: false };
        assert_eq!(request_of(&["buildbee", "/usr/bin/buildbee", "buildbee", "gcc", "-c"]), gcc);
        assert_eq!(
            request_of(&["/lib/bee/g++", "stats"]),
            Request::Compiler { name: "g++".into(), arguments: words(&["stats"]), masquerade: true }
        );
    }

    fn executable(path: &Path) {
        std::fs::write(path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn links_to_the_wrapper_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let [links, copies, real] = ["links", "copies", "real"].map(|name| {
            let folder = folder.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        });
        executable(&folder.path().join("buildbee"));
        executable(&copies.join("buildbee"));
        std::fs::hard_link(folder.path().join("buildbee"), links.join("gcc")).unwrap();
        symlink(copies.join("buildbee"), copies.join("gcc")).unwrap();
        executable(&real.join("gcc"));
        std::fs::write(folder.path().join("gcc"), "not executable").unwrap();
        let found = std::fs::metadata(links.join("gcc")).unwrap();
        let own = Some(OwnFile { device: found.dev(), inode: found.ino() });
        let path = std::env::join_paths([folder.path(), &links, &copies, &real]).unwrap();
        let compiler = find(OsStr::new("gcc"), words(&["-c"]), false, Some(&path), own).unwrap();
        assert_eq!(compiler.program, real.join("gcc"));
        assert_eq!(compiler.argv, [real.join("gcc").into_os_string(), "-c".into()]);
        let by_path = find(links.join("gcc").as_os_str(), vec![], false, Some(&path), own).unwrap();
        assert_eq!(by_path.program, real.join("gcc"), "a link named by its path");
        let by_path = find(copies.join("gcc").as_os_str(), vec![], false, Some(&path), own).unwrap();
        assert_eq!(by_path.program, real.join("gcc"), "a link to another copy");
        let only_links = std::env::join_paths([&links, &copies]).unwrap();
        assert_eq!(find(OsStr::new("gcc"), vec![], false, Some(&only_links), own), Err(NotFound::Missing));
    }

    #[test]
    fn folders_of_other_wrappers_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let [others, real] = ["others", "real"].map(|name| folder.path().join(name));
        std::fs::create_dir(&others).unwrap();
        std::fs::create_dir(&real).unwrap();
        executable(&folder.path().join("ccache"));
        symlink("../ccache", others.join("gcc")).unwrap();
        executable(&real.join("gcc"));
        let path = std::env::join_paths([&others, &real]).unwrap();
        let compiler = find(OsStr::new("gcc"), vec![], false, Some(&path), None).unwrap();
        assert_eq!((compiler.program, compiler.argv), (real.join("gcc"), vec![real.join("gcc").into_os_string()]));
        let by_path = find(others.join("gcc").as_os_str(), vec![], false, Some(&path), None).unwrap();
        assert_eq!(by_path.program, others.join("gcc"), "named on purpose");
    }

    #[test]
    fn a_plain_name_stays_the_compilers_name() {
        let compiler = find(OsStr::new("sh"), vec![], false, Some(OsStr::new("/nonexistent:/bin")), None).unwrap();
        assert_eq!((compiler.program, compiler.argv), (PathBuf::from("/bin/sh"), words(&["sh"])));
        let masquerading = find(OsStr::new("sh"), vec![], true, Some(OsStr::new("/bin")), None).unwrap();
        assert_eq!(masquerading.argv, words(&["/bin/sh"]));
    }

    #[test]
    fn paths_are_taken_as_written() {
        assert_eq!(find(OsStr::new("./no/such"), vec![], false, None, None), Err(NotFound::Missing));
        assert_eq!(find(OsStr::new("/etc/passwd"), vec![], false, None, None), Err(NotFound::NotExecutable));
        assert_eq!(find(OsStr::new("/bin"), vec![], false, None, None), Err(NotFound::NotExecutable));
        assert_eq!(find(OsStr::new("/bin/sh"), vec![], false, None, None).unwrap().argv, words(&["/bin/sh"]));
        assert_eq!(find(OsStr::new(""), vec![], false, None, None), Err(NotFound::Missing));
    }
}
