//! Which files a compiler needs to compile (not to link): the driver, what it starts, their libraries, its built-in headers.
//!
//! The compiler itself is asked where its parts are. Nothing is copied: the result names files in place, with their digests.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

use super::shadows::{self, Places};
use crate::compiler::request::CompilerFamily;
use crate::rust::build_script::PROBE;
use crate::wrapper::links;
use crate::wrapper::settings::NESTED_VARIABLE;

/// Files in one toolchain.
const MAX_FILES: usize = 20_000;

/// What the driver of gcc starts in a compile (`objcopy` for `-gsplit-dwarf`). `lto1` and `lto-wrapper` are for links.
const GCC_PROGRAMS: [&str; 7] = ["cc1", "cc1plus", "cc1obj", "cc1objplus", "as", "objcopy", "collect2"];

/// How programs begin.
const ELF: &[u8; 4] = b"\x7fELF";

/// Why a compiler could not be captured.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// A file could not be looked at.
    #[error("cannot read {path}: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The compiler did not answer a question about itself.
    #[error("{program} does not answer {question}", program = program.display())]
    Silent {
        /// The compiler.
        program: PathBuf,
        /// The option it was asked with.
        question: String,
    },
    /// A script, whose needs nobody knows.
    #[error("{path} is a script, and nobody knows what else it reads or runs\nhint: name the compiler that it runs, as in `buildbee gcc`", path = .0.display())]
    Script(PathBuf),
    /// Neither a script nor a program of this system.
    #[error("{path} is not an ELF executable", path = .0.display())]
    NotElf(PathBuf),
    /// clang takes further arguments from a file, which the front-end does not see.
    #[error("the compiler takes options from {path}", path = .0.display())]
    Configured(PathBuf),
    /// A program that stands before compilers, as this one does.
    #[error("{path} is a compiler wrapper of its own\nhint: let buildbee stand before the compiler itself, as in `buildbee gcc`", path = .0.display())]
    Wrapper(PathBuf),
    /// No toolchain has that many.
    #[error("the compiler needs more than {MAX_FILES} files")]
    TooMany,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Capture {
    /// Files, as spelled; symlinks among their components are followed later.
    pub files: BTreeSet<PathBuf>,
    /// Folder in which the assembler is found when it is not among the compiler's own programs.
    pub tool_folder: Option<PathBuf>,
    /// First line of `--version`.
    pub label: String,
    /// Which family it belongs to.
    pub family: Option<CompilerFamily>,
    /// What would be part of it if it existed.
    pub shadows: Places,
    /// Whether it takes `-ffile-prefix-map`.
    pub takes_prefix_maps: bool,
}

/// Asks the compiler at `program` for its parts. Starts it some ten times and `ldd` once. What `is_stored` is true of comes with all that it
/// needs, so it may be a script, and nobody looks for its libraries.
pub fn capture(program: &Path, search: &OsStr, is_stored: &dyn Fn(&Path) -> bool) -> Result<Capture, CaptureError> {
    let real = fs::canonicalize(program).map_err(|error| CaptureError::Io { path: program.to_owned(), error })?;
    if real.file_name().and_then(links::named).is_some() {
        return Err(CaptureError::Wrapper(real));
    }
    let stored = is_stored(&real);
    if !stored {
        check_elf(&real)?;
    }
    let version = ask(program, "--version")?;
    let mut found =
        Capture { label: version.lines().next().unwrap_or_default().trim().to_owned(), ..Capture::default() };
    found.family = family(&version);
    found.takes_prefix_maps = answer(command(program).args(PROBE), program, PROBE[0]).is_ok();
    found.files.insert(program.to_owned());
    found.files.insert(real);
    match found.family {
        Some(CompilerFamily::Gcc) => gcc_parts(program, search, &mut found)?,
        Some(CompilerFamily::Clang) => clang_parts(program, search, &mut found)?,
        None => return Ok(found),
    }
    if !stored {
        // The locale that containers and build services run in: its quotes differ from plain C's.
        add_whole(Path::new("/usr/lib/locale/C.utf8"), &mut found.files)?;
    }
    found.shadows.absent.insert(PathBuf::from("/etc/ld.so.preload"));
    let outside = |path: &&PathBuf| fs::canonicalize(path).is_ok_and(|real| !is_stored(&real));
    let elves = found.files.iter().filter(outside).filter(|path| is_elf(path).unwrap_or(false)).cloned();
    let elves = elves.collect::<Vec<_>>();
    if !elves.is_empty() {
        found.files.extend(libraries(&elves)?);
    }
    Ok(found)
}

/// Refuses what is no program of this system.
pub(super) fn check_elf(path: &Path) -> Result<(), CaptureError> {
    match &magic(path)? {
        magic if magic == ELF => Ok(()),
        [b'#', b'!', ..] => Err(CaptureError::Script(path.to_owned())),
        _ => Err(CaptureError::NotElf(path.to_owned())),
    }
}

pub(super) fn family(version: &str) -> Option<CompilerFamily> {
    let first = version.lines().next().unwrap_or_default();
    if first.contains("clang version") {
        Some(CompilerFamily::Clang)
    } else if version.contains("Free Software Foundation") {
        Some(CompilerFamily::Gcc)
    } else {
        None
    }
}

fn gcc_parts(program: &Path, search: &OsStr, found: &mut Capture) -> Result<(), CaptureError> {
    for part in GCC_PROGRAMS {
        let place = PathBuf::from(ask(program, &format!("-print-prog-name={part}"))?.trim());
        if place.is_absolute() {
            // Languages that are not installed have a name all the same.
            if place.exists() {
                found.files.insert(place);
            }
        } else if let Some((folder, tool)) = find_in(search, part) {
            found.shadows.absent.extend(earlier_in(search, &folder, part));
            found.files.insert(tool);
            found.tool_folder.get_or_insert(folder);
        }
    }
    let machine = ask(program, "-dumpmachine")?;
    let search_dirs = ask(program, "-print-search-dirs")?;
    found.shadows.absent.extend(shadows::gcc_places(&search_dirs, machine.trim(), &GCC_PROGRAMS));
    for part in ["specs", "include", "include-fixed"] {
        let place = PathBuf::from(ask(program, &format!("-print-file-name={part}"))?.trim());
        if place.is_absolute() {
            add_whole(&place, &mut found.files)?;
        }
    }
    Ok(())
}

fn clang_parts(program: &Path, search: &OsStr, found: &mut Capture) -> Result<(), CaptureError> {
    let resources = PathBuf::from(ask(program, "-print-resource-dir")?.trim());
    for part in ["include", "share"] {
        add_whole(&resources.join(part), &mut found.files)?;
    }
    // Clang takes the C++ headers of the gcc that it finds, and finds one by its start-up files: without them an agent's clang would
    // search other folders than the client's. Candidates that lose count too, so that the same one wins.
    for parent in ["/usr/lib/gcc", "/usr/lib/gcc-cross"] {
        found.shadows.listed.insert(PathBuf::from(parent));
    }
    let banner = ask_stderr(program, "-v")?;
    if let Some(file) = banner.lines().find_map(|line| line.strip_prefix("Configuration file: ")) {
        return Err(CaptureError::Configured(PathBuf::from(file.trim())));
    }
    found.shadows.absent.extend(configuration_files(program, &banner));
    for gcc in gcc_installations(&banner) {
        // A version that is installed beside it may be preferred.
        found.shadows.listed.extend(gcc.parent().map(Path::to_owned));
        for multilib in ["", "32", "64", "x32"] {
            add_whole(&gcc.join(multilib).join("crtbegin.o"), &mut found.files)?;
        }
    }
    // For -fno-integrated-as.
    if let Some((folder, tool)) = find_in(search, "as") {
        found.shadows.absent.extend(earlier_in(search, &folder, "as"));
        found.files.insert(tool);
        found.tool_folder = Some(folder);
    }
    Ok(())
}

/// What clang's `-v` says of the gccs that it looked at.
fn gcc_installations(text: &str) -> Vec<PathBuf> {
    let found = text.lines().filter_map(|line| line.strip_prefix("Found candidate GCC installation: "));
    found.map(|place| PathBuf::from(place.trim())).filter(|place| place.is_absolute()).collect()
}

/// Files that clang 16 and later takes options from where they exist, by its name and its target: beside it and in the system's folder
/// (clang's manual, "Configuration files"). Earlier ones know the names, but want to be asked.
fn configuration_files(program: &Path, banner: &str) -> Vec<PathBuf> {
    let target = banner.lines().find_map(|line| line.strip_prefix("Target: ")).unwrap_or_default().trim();
    let called = program.file_name().unwrap_or_default().to_string_lossy();
    let mut names: BTreeSet<String> = BTreeSet::from([format!("{called}.cfg"), format!("{target}.cfg")]);
    for driver in ["clang", "clang++", "clang-cpp"] {
        names.extend([format!("{driver}.cfg"), format!("{target}-{driver}.cfg")]);
    }
    let real = fs::canonicalize(program).ok();
    let beside = [Some(program), real.as_deref()].into_iter().flatten().filter_map(Path::parent);
    let folders: BTreeSet<&Path> = beside.chain([Path::new("/etc/clang")]).collect();
    folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).collect()
}

/// The regular files at or below `place`; nothing where there is none.
fn add_whole(place: &Path, files: &mut BTreeSet<PathBuf>) -> Result<(), CaptureError> {
    let mut todo = vec![place.to_owned()];
    while let Some(path) = todo.pop() {
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                let entries = fs::read_dir(&path).map_err(|error| CaptureError::Io { path: path.clone(), error })?;
                for entry in entries {
                    todo.push(entry.map_err(|error| CaptureError::Io { path: path.clone(), error })?.path());
                }
            }
            Ok(meta) if meta.is_file() => {
                files.insert(path);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CaptureError::Io { path, error }),
        }
        if files.len() + todo.len() > MAX_FILES {
            return Err(CaptureError::TooMany);
        }
    }
    Ok(())
}

/// The regular files at or below `place`, in order; none where there is nothing.
pub(super) fn files_below(place: &Path) -> Result<BTreeSet<PathBuf>, CaptureError> {
    let mut files = BTreeSet::new();
    add_whole(place, &mut files)?;
    Ok(files)
}

pub(super) fn find_in(search: &OsStr, name: &str) -> Option<(PathBuf, PathBuf)> {
    std::env::split_paths(search)
        .filter(|folder| folder.is_absolute())
        .map(|folder| (folder.clone(), folder.join(name)))
        .find(|(_, tool)| tool.is_file())
}

/// Where `name` would be found before it is found in `folder`.
pub(super) fn earlier_in(search: &OsStr, folder: &Path, name: &str) -> Vec<PathBuf> {
    let folders = std::env::split_paths(search).take_while(|other| other != folder);
    folders.filter(|other| other.is_absolute()).map(|other| other.join(name)).collect()
}

/// Shared libraries and loaders of `programs`, as the loader itself finds them.
pub(super) fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>, CaptureError> {
    let ldd = Path::new("ldd");
    // It exits with 1 where one of them is static: what it prints counts.
    let output =
        command(ldd).args(programs).output().map_err(|error| CaptureError::Io { path: ldd.to_owned(), error })?;
    Ok(parse_ldd(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_ldd(text: &str) -> BTreeSet<PathBuf> {
    (text.lines())
        .filter_map(|line| {
            let line = line.strip_prefix('\t')?;
            let place = line.split_once(" => ").map_or(line, |(_, place)| place);
            let place = place.rsplit_once(" (").map_or(place, |(place, _)| place).trim();
            place.starts_with('/').then(|| PathBuf::from(place))
        })
        .collect()
}

pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/local/bin:/usr/bin:/bin");
    // A program that turns out to call the wrapper must not wait for the daemon, which waits for it.
    command.env(NESTED_VARIABLE, "1");
    command.stdin(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    command
}

/// What the program says on its standard output when `command` starts it with these arguments.
pub(super) fn ask_with(command: &mut Command, program: &Path, arguments: &[&str]) -> Result<String, CaptureError> {
    let question = arguments.join(" ");
    let output = answer(command.args(arguments), program, &question)?;
    text(output.stdout, program, &question)
}

/// The same for its standard error.
pub(super) fn ask_stderr_with(
    command: &mut Command,
    program: &Path,
    arguments: &[&str],
) -> Result<String, CaptureError> {
    let question = arguments.join(" ");
    let output = answer(command.stderr(Stdio::piped()).args(arguments), program, &question)?;
    text(output.stderr, program, &question)
}

pub(super) fn ask(program: &Path, question: &str) -> Result<String, CaptureError> {
    let output = answer(command(program).arg(question), program, question)?;
    text(output.stdout, program, question)
}

fn ask_stderr(program: &Path, question: &str) -> Result<String, CaptureError> {
    let output = answer(command(program).stderr(Stdio::piped()).arg(question), program, question)?;
    text(output.stderr, program, question)
}

fn answer(command: &mut Command, program: &Path, question: &str) -> Result<Output, CaptureError> {
    let output = command.output().map_err(|error| CaptureError::Io { path: program.to_owned(), error })?;
    if output.status.success() { Ok(output) } else { Err(silent(program, question)) }
}

fn text(bytes: Vec<u8>, program: &Path, question: &str) -> Result<String, CaptureError> {
    String::from_utf8(bytes).map_err(|_| silent(program, question))
}

fn silent(program: &Path, question: &str) -> CaptureError {
    CaptureError::Silent { program: program.to_owned(), question: question.to_owned() }
}

pub(super) fn is_elf(path: &Path) -> Result<bool, CaptureError> {
    Ok(&magic(path)? == ELF)
}

/// The first bytes of a file; zeros where it has fewer.
fn magic(path: &Path) -> Result<[u8; 4], CaptureError> {
    let read = || -> io::Result<[u8; 4]> {
        let mut magic = [0; 4];
        let n = fs::File::open(path)?.read(&mut magic)?;
        magic[n..].fill(0);
        Ok(magic)
    };
    read().map_err(|error| CaptureError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_output_is_read() {
        let text = "/usr/bin/as:\n\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibgone.so => not found\n";
        let found: Vec<_> = parse_ldd(text).into_iter().collect();
        assert_eq!(found, [Path::new("/lib/x86_64-linux-gnu/libz.so.1"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
    }

    #[test]
    fn gcc_is_captured_with_its_parts() {
        let found = capture(Path::new("/usr/bin/gcc"), OsStr::new("/usr/bin:/bin"), &|_| false).unwrap();
        assert_eq!(found.family, Some(CompilerFamily::Gcc));
        for part in ["cc1", "as", "objcopy", "stddef.h", "libc.so.6"] {
            assert!(found.files.iter().any(|path| path.file_name() == Some(OsStr::new(part))), "{part} is missing");
        }
    }

    #[test]
    fn clang_is_captured_with_what_leads_it_to_the_cpp_headers() {
        let text = "Thread model: posix\nFound candidate GCC installation: /usr/lib/gcc/x/11\nSelected GCC installation: /usr/lib/gcc/x/12\n";
        assert_eq!(gcc_installations(text), [Path::new("/usr/lib/gcc/x/11")]);
        let found = capture(Path::new("/usr/bin/clang++"), OsStr::new("/usr/bin:/bin"), &|_| false).unwrap();
        assert_eq!(found.family, Some(CompilerFamily::Clang));
        assert!(found.files.iter().any(|path| path.ends_with("crtbegin.o")), "{:?}", found.files);
    }

    #[test]
    fn scripts_and_other_wrappers_are_refused() {
        let refused = |program: &Path| capture(program, OsStr::new("/usr/bin"), &|_| false).unwrap_err();
        assert!(matches!(refused(Path::new("/usr/bin/ldd")), CaptureError::Script(_)));
        assert!(matches!(refused(Path::new("/etc/passwd")), CaptureError::NotElf(_)));
        let folder = tempfile::tempdir().unwrap();
        fs::copy("/bin/true", folder.path().join("ccache")).unwrap();
        std::os::unix::fs::symlink("ccache", folder.path().join("gcc")).unwrap();
        assert!(matches!(refused(&folder.path().join("gcc")), CaptureError::Wrapper(_)));
    }
}
