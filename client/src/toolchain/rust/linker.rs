//! What the driver that rustc links with needs: its programs, the linkers that it may pick, start-up files, the C library's and its own
//! libraries.
//!
//! The driver is asked what it would do for each kind of link. Files of crates, and libraries that crates name, are inputs of an action
//! and not looked for here ([`Folders`] finds the latter).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::RustError;
use super::identify::LinkQuestion;
use super::library::Folders;
use super::sysroot::Sysroot;
use crate::compiler::request::CompilerFamily;
use crate::compiler::response_file::split;
use crate::toolchain::capture::{self, CaptureError};
use crate::toolchain::parts::{Gathering, Watch};
use crate::toolchain::shadows::{self, Places};
use crate::wrapper::links;

/// What rustc starts where nothing else is asked for.
const DEFAULT_LINKER: &str = "cc";
/// Kinds of links that rustc asks for (`LinkOutputKind` in rustc's sources).
const KINDS: [&str; 5] = ["-no-pie", "-pie", "-static", "-static-pie", "-shared"];
/// What drivers start for a link, besides `ld.NAME` for `-fuse-ld=NAME`: `lto-wrapper` is handed to the linker's plugin, `nm` and `strip` are looked for
/// at each link, and rarely used.
const PROGRAMS: [&str; 5] = ["collect2", "ld", "lto-wrapper", "nm", "strip"];
/// Files that gcc looks for in its folders.
const DRIVER_FILES: [&str; 2] = ["specs", "liblto_plugin.so"];
/// Libraries that the standard library is linked with (its `libc` and `unwind` crates), and drivers' own.
const LIBRARIES: [&str; 9] = ["c", "dl", "gcc", "gcc_eh", "gcc_s", "m", "pthread", "rt", "util"];
/// Start-up files, so that one that would be taken instead is noticed.
const START_FILES: [&str; 13] = [
    "Scrt1.o",
    "crt1.o",
    "rcrt1.o",
    "gcrt1.o",
    "crti.o",
    "crtn.o",
    "crtbegin.o",
    "crtbeginS.o",
    "crtbeginT.o",
    "crtend.o",
    "crtendS.o",
    "crtfastmath.o",
    "liblto_plugin.so",
];

/// gold orders what it writes by its inputs' paths: two folders, two files, with no path in either.
const WAYWARD: &str = "gold";

/// Variables that make drivers and linkers look in other places. A link under one of them is for the user's own machine.
pub const LINK_VARIABLES: [&str; 8] = [
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "LD_LIBRARY_PATH_64",
    "LD_RUN_PATH",
    "LIBRARY_PATH",
    "LDEMULATION",
    "LDFLAGS_SYSROOT",
    "GNUTARGET",
];

/// What was found.
#[derive(Debug)]
pub(super) struct Linker {
    pub(super) program: PathBuf,
    pub(super) search: String,
    pub(super) folders: Folders,
    pub(super) label: String,
}

/// Whether an argument for the linker decides which parts a link needs.
pub(super) fn matters(argument: &str) -> bool {
    const STARTS: [&str; 9] =
        ["-fuse-ld=", "-m", "--target=", "-target", "-B", "-specs", "--specs", "--sysroot", "--ld-path"];
    STARTS.iter().any(|start| argument.starts_with(start))
}

/// Gathers the parts of the linker that `question` names.
pub(super) fn gather(
    sysroot: &Sysroot<'_>,
    question: &LinkQuestion<'_>,
    into: &mut Gathering,
) -> Result<Linker, RustError> {
    let target = sysroot.target.unwrap_or(sysroot.host);
    let named = question.linker.unwrap_or(Path::new(DEFAULT_LINKER));
    let asked: Vec<&str> = question.arguments.iter().map(String::as_str).filter(|argument| matters(argument)).collect();
    if let Some(unknown) = asked.iter().find(|argument| !known(argument)) {
        return Err(RustError::UnknownLinkArgument((*unknown).to_owned()));
    }
    if !target.contains("-linux-") {
        return Err(RustError::UnknownLinker(named.to_owned()));
    }
    let mut places = Places::default();
    let program = find(named, question, &mut places)?;
    let driver = Driver::new(program, &asked, question, sysroot.program)?;
    let mut files = BTreeSet::from([driver.program.clone()]);
    let mut search = vec![driver.program.parent().unwrap_or(Path::new("/")).to_owned()];
    if driver.family == CompilerFamily::Clang {
        // It looks for an installation of gcc by its files.
        let whole = capture::capture(&driver.program, question.search, &|_| false)?;
        files.extend(whole.files);
        places.absent.extend(whole.shadows.absent);
        places.listed.extend(whole.shadows.listed);
    }
    driver.programs(&asked, &mut files, &mut places, &mut search)?;
    let folders = driver.plans(&mut files)?;
    let libraries = folders.find(LIBRARIES);
    files.extend(libraries.files);
    places.absent.extend(libraries.absent);
    let elves: Vec<PathBuf> = files.iter().filter(|path| capture::is_elf(path).unwrap_or(false)).cloned().collect();
    // Start-up files and the like are ELF too; the loader says nothing of those.
    files.extend(capture::libraries(&elves)?);
    // Those that exist are parts, by their real places; others must not appear.
    places.absent.retain(|place| fs::symlink_metadata(place).is_err());
    into.shadows(places);
    for file in files {
        into.at_real_place(file, Watch::Yes);
    }
    let mut seen = BTreeSet::new();
    search.retain(|folder| seen.insert(folder.clone()));
    let search = search.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
    Ok(Linker { program: driver.program, search, folders, label: driver.label })
}

/// Arguments whose meaning for the parts is known: which machine, which linker by name.
fn known(argument: &str) -> bool {
    let machines = ["-m32", "-m64", "-mx32"];
    let name = argument.strip_prefix("-fuse-ld=");
    machines.contains(&argument)
        || argument.starts_with("--target=")
        || argument.starts_with("-mtune=")
        || argument.starts_with("-march=")
        || argument.starts_with("-mcpu=")
        || name.is_some_and(|name| !name.contains('/'))
}

/// The linker of this name, as the system finds it in `PATH`.
fn find(named: &Path, question: &LinkQuestion<'_>, places: &mut Places) -> Result<PathBuf, RustError> {
    if named.components().count() > 1 {
        let program = question.cwd.join(named);
        return if program.is_file() { Ok(program) } else { Err(RustError::NoLinker(named.to_owned())) };
    }
    for folder in std::env::split_paths(question.search).filter(|folder| folder.is_absolute()) {
        let place = folder.join(named);
        // Links that stand in for compilers hand links on to the next one.
        if place.is_file() && links::stand_in(&place).is_none() {
            return Ok(place);
        }
        places.absent.insert(place);
    }
    Err(RustError::NoLinker(named.to_owned()))
}

struct Driver<'a> {
    program: PathBuf,
    family: CompilerFamily,
    label: String,
    /// Arguments that choose machine and linker.
    asked: &'a [&'a str],
    search: &'a std::ffi::OsStr,
    /// Some file, to be linked in questions. It is not read.
    file: &'a Path,
}

impl<'a> Driver<'a> {
    fn new(
        program: PathBuf,
        asked: &'a [&'a str],
        question: &LinkQuestion<'a>,
        file: &'a Path,
    ) -> Result<Self, RustError> {
        let real = fs::canonicalize(&program).map_err(|error| CaptureError::Io { path: program.clone(), error })?;
        if real.file_name().and_then(links::named).is_some() {
            return Err(CaptureError::Wrapper(real).into());
        }
        capture::check_elf(&real)?;
        let unknown = || RustError::UnknownLinker(program.clone());
        // Linkers that are called without a driver take other words.
        let version = capture::ask(&program, "--version")?;
        let family = capture::family(&version).ok_or_else(unknown)?;
        if family == CompilerFamily::Gcc && capture::ask(&program, "-dumpmachine").is_err() {
            return Err(unknown());
        }
        let label = version.lines().next().unwrap_or_default().trim().to_owned();
        Ok(Self { program, family, label, asked, search: question.search, file })
    }

    /// What it starts.
    fn programs(
        &self,
        asked: &[&str],
        files: &mut BTreeSet<PathBuf>,
        places: &mut Places,
        search: &mut Vec<PathBuf>,
    ) -> Result<(), RustError> {
        let chosen: Vec<String> = asked
            .iter()
            .filter_map(|argument| argument.strip_prefix("-fuse-ld="))
            .map(|name| format!("ld.{name}"))
            .collect();
        let names: Vec<&str> = PROGRAMS.into_iter().chain(chosen.iter().map(String::as_str)).collect();
        for name in &names {
            let place = PathBuf::from(self.ask(&format!("-print-prog-name={name}"))?.trim());
            let found = if place.is_absolute() {
                place.is_file().then_some(place)
            } else {
                capture::find_in(self.search, name).map(|(folder, tool)| {
                    places.absent.extend(capture::earlier_in(self.search, &folder, name));
                    search.push(folder);
                    tool
                })
            };
            let Some(tool) = found else { continue };
            let real = fs::canonicalize(&tool).map_err(|error| CaptureError::Io { path: tool.clone(), error })?;
            let ends = |path: &Path| path.as_os_str().as_encoded_bytes().ends_with(WAYWARD.as_bytes());
            // The system's own linker is not the one that is taken where another one is named.
            if ends(&real) && (chosen.is_empty() || *name != "ld") {
                return Err(RustError::Wayward(tool));
            }
            files.insert(tool);
        }
        let machine = self.ask("-dumpmachine")?;
        let told = self.ask("-print-search-dirs")?;
        places.absent.extend(shadows::gcc_places(&told, machine.trim(), &names));
        let folders = told.lines().find_map(|line| line.strip_prefix("libraries:")).unwrap_or_default();
        let folders = folders.trim().trim_start_matches('=').split(':').map(Path::new);
        for folder in folders.filter(|folder| folder.is_absolute()) {
            places.absent.extend(START_FILES.map(|name| folder.join(name)));
        }
        for name in DRIVER_FILES {
            let place = PathBuf::from(self.ask(&format!("-print-file-name={name}"))?.trim());
            if place.is_absolute() && place.is_file() {
                files.insert(place);
            }
        }
        Ok(())
    }

    /// What it would hand to the linker for each kind of link: files among it, and folders that libraries are looked for in.
    fn plans(&self, files: &mut BTreeSet<PathBuf>) -> Result<Folders, RustError> {
        let mut folders: Vec<PathBuf> = Vec::new();
        for kind in KINDS {
            let mut command = capture::command(&self.program);
            let file = self.file.display().to_string();
            let arguments: Vec<&str> =
                self.asked.iter().copied().chain([kind, "-###", file.as_str(), "-o", "/buildbee.d/out"]).collect();
            let told = capture::ask_stderr_with(&mut command, &self.program, &arguments)?;
            let unknown = || RustError::UnknownLinker(self.program.clone());
            let line = told.lines().rfind(|line| line.starts_with(' ')).ok_or_else(unknown)?;
            for word in split(line.trim()).ok_or_else(unknown)? {
                if let Some(folder) = word.strip_prefix("-L") {
                    let folder = PathBuf::from(folder);
                    if folder.is_absolute() && !folders.contains(&folder) {
                        folders.push(folder);
                    }
                    continue;
                }
                let place = Path::new(word.strip_prefix("-plugin-opt=").unwrap_or(&word));
                if place.is_absolute() && place != self.file && place.is_file() {
                    files.insert(place.to_owned());
                }
            }
        }
        Ok(Folders(folders))
    }

    fn ask(&self, question: &str) -> Result<String, CaptureError> {
        let arguments: Vec<&str> = self.asked.iter().copied().chain([question]).collect();
        capture::ask_with(&mut capture::command(&self.program), &self.program, &arguments)
    }
}
