//! Which files of a sysroot a compile needs, and where they stand in an action.
//!
//! Needed: the compiler with its libraries, the target's and the host's libraries, code generators, the library's sources if they are
//! there (messages show lines of them); for links also the linkers that come along. Not: cargo, rustdoc, rustfmt, documentation.
//! What the system has to add (the C library, a loader) stands at its real places.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use buildbee_proto::path::RelPath;

use super::error::RustError;
use crate::rust::roots::RootKind;
use crate::toolchain::capture::{self, CaptureError};
use crate::toolchain::parts::{Gathering, Watch};

/// Sysroots whose folder of libraries is the system's own. What is there stays where it is.
const SYSTEM: [&str; 2] = ["/usr", "/"];
/// What proc-macros and plugins may be linked with besides what the compiler is: the C library's pieces.
const RUNTIME: [&str; 7] =
    ["libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1"];

/// Files of a sysroot.
#[derive(Debug)]
pub struct Sysroot<'a> {
    /// As the compiler spells it.
    pub folder: &'a Path,
    /// The compiler, in `bin` of it.
    pub program: &'a Path,
    /// What it runs on.
    pub host: &'a str,
    /// What it compiles for, if that is something else.
    pub target: Option<&'a str>,
    /// Whether its files are to be looked at each time.
    pub watch: Watch,
}

impl Sysroot<'_> {
    /// Where the compiler stands in an action.
    pub fn place_of_program(&self) -> PathBuf {
        let below = self.program.strip_prefix(self.folder).unwrap_or(self.program);
        Path::new(RootKind::Sysroot.place()).join(below)
    }

    /// Gathers what compiling needs. Returns whether the compiler will find its sysroot by itself.
    pub fn gather(&self, into: &mut Gathering) -> Result<bool, RustError> {
        self.place(self.program, into, self.watch)?;
        let library = self.folder.join("lib/rustlib");
        self.watch(library.clone(), into);
        for triple in [Some(self.host), self.target].into_iter().flatten() {
            self.watch(library.join(triple), into);
            for part in ["lib", "codegen-backends"] {
                self.place_whole(&library.join(triple).join(part), into)?;
            }
        }
        if let Some(target) = self.target
            && !library.join(target).join("lib").is_dir()
        {
            return Err(RustError::NoTarget { sysroot: self.folder.to_owned(), target: target.to_owned() });
        }
        self.sources(&library, into)?;
        let backends = capture::files_below(&library.join(self.host).join("codegen-backends"))?;
        let programs = [self.program.to_owned()].into_iter().chain(backends).collect::<Vec<_>>();
        self.libraries(&programs, into)
    }

    /// Gathers what links need besides: linkers and the like that come with the compiler.
    pub fn gather_for_links(&self, into: &mut Gathering) -> Result<(), RustError> {
        let library = self.folder.join("lib/rustlib");
        let mut programs = Vec::new();
        for triple in [Some(self.host), self.target].into_iter().flatten() {
            let folder = library.join(triple).join("bin");
            self.place_whole(&folder, into)?;
            programs.extend(capture::files_below(&folder)?);
        }
        self.libraries(&programs, into).map(|_| ())
    }

    /// The library's own sources. Only their outermost folders and the installer's notes are looked at each time: they are thousands, and an
    /// edited one changes nothing but the line that a message shows (a build of the library itself looks at them as its own sources).
    fn sources(&self, library: &Path, into: &mut Gathering) -> Result<(), RustError> {
        let sources = library.join("src");
        for path in capture::files_below(&sources)? {
            self.place(&path, into, Watch::No)?;
        }
        for note in ["src", "src/rust", "src/rust/library", "components", "manifest-rust-src"] {
            self.watch(library.join(note), into);
        }
        Ok(())
    }

    fn watch(&self, path: PathBuf, into: &mut Gathering) {
        if self.watch == Watch::Yes {
            into.watched(path);
        }
    }

    fn place_whole(&self, folder: &Path, into: &mut Gathering) -> Result<(), RustError> {
        for path in capture::files_below(folder)? {
            // A new name in it counts too.
            self.watch(path.parent().unwrap_or(folder).to_owned(), into);
            self.place(&path, into, self.watch)?;
        }
        Ok(())
    }

    fn place(&self, path: &Path, into: &mut Gathering, watch: Watch) -> Result<(), RustError> {
        let unplaced = || CaptureError::Io {
            path: path.to_owned(),
            error: std::io::Error::new(std::io::ErrorKind::InvalidInput, "is not in the sysroot"),
        };
        let below = path.strip_prefix(self.folder).map_err(|_| unplaced())?;
        let place = RelPath::from_absolute(&Path::new(RootKind::Sysroot.place()).join(below))
            .map_err(crate::toolchain::parts::GatherError::from)?;
        into.placed(path.to_owned(), place, watch);
        Ok(())
    }

    /// Libraries of `programs`: the sysroot's own beside them, the system's where they are. Whether the driver is among the former.
    fn libraries(&self, programs: &[PathBuf], into: &mut Gathering) -> Result<bool, RustError> {
        let elves: Vec<PathBuf> =
            programs.iter().filter(|path| capture::is_elf(path).unwrap_or(false)).cloned().collect();
        let real =
            fs::canonicalize(self.folder).map_err(|error| CaptureError::Io { path: self.folder.to_owned(), error })?;
        let own = (!SYSTEM.iter().any(|system| real == Path::new(system))).then(|| real.join("lib"));
        let (mut placed_driver, mut system) = (false, BTreeSet::new());
        for path in capture::libraries(&elves)? {
            let resolved = fs::canonicalize(&path).map_err(|error| CaptureError::Io { path: path.clone(), error })?;
            match own.as_deref().and_then(|own| resolved.strip_prefix(own).ok()) {
                Some(below) => {
                    // Under the name that it is looked for by, which a symlink may have.
                    let folder = below.parent().unwrap_or(Path::new(""));
                    let name = path.file_name().unwrap_or_default();
                    placed_driver |= name.as_encoded_bytes().starts_with(b"librustc_driver");
                    self.place(&self.folder.join("lib").join(folder).join(name), into, self.watch)?;
                }
                None => {
                    system.insert(path);
                }
            }
        }
        let folders: BTreeSet<PathBuf> = system
            .iter()
            .filter(|path| path.ends_with("libc.so.6"))
            .filter_map(|path| path.parent())
            .map(Path::to_owned)
            .collect();
        let runtime = folders.iter().flat_map(|folder| RUNTIME.map(|name| folder.join(name)));
        system.extend(runtime.filter(|path| path.exists()));
        for path in system {
            into.at_real_place(path, self.watch);
        }
        Ok(placed_driver)
    }
}
