//! The compiler behind rustup's stand-in: `~/.cargo/bin/rustc` starts whichever toolchain the folder, its settings and the environment ask
//! for. It is asked once; afterwards the answer stands for as long as everything that it is made from is as it was.
//!
//! Does not read rustup's settings: which of them count is known, what they mean is rustup's to say.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::error::RustError;
use super::identify::Caller;
use crate::inputs::filehash::FileIdentity;
use crate::toolchain::capture::{self, CaptureError};
use crate::toolchain::shadows::{Places, Shadows};
use crate::wrapper::links;

/// Makes rustup act under another name than it was called by; any other program passes it over.
const ACT_AS: (&str, &str) = ("RUSTUP_FORCE_ARG0", "rustup");
/// Files in which a folder names its toolchain, for everything below it (rustup's book, "Overrides").
const TOOLCHAIN_FILES: [&str; 2] = ["rust-toolchain", "rust-toolchain.toml"];
/// Folders above the working directory that are looked at.
const MAX_DEPTH: usize = 128;

/// What the answer depends on besides files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    program: PathBuf,
    toolchain: Option<OsString>,
    rustup_home: Option<OsString>,
    home: Option<OsString>,
    /// Only where no variable names the toolchain.
    cwd: Option<PathBuf>,
}

impl Question {
    /// As `caller` asks.
    pub fn of(caller: &Caller<'_>) -> Self {
        let toolchain = caller.rustup_toolchain.map(OsStr::to_owned);
        Self {
            program: caller.program.to_owned(),
            rustup_home: caller.rustup_home.map(OsStr::to_owned),
            home: caller.home.map(OsStr::to_owned),
            cwd: toolchain.is_none().then(|| caller.cwd.to_owned()),
            toolchain,
        }
    }

    /// As anybody asks, from anywhere: for a program that stands in for no other. No caller's question is the same.
    pub fn of_anybody(program: &Path) -> Self {
        Self { program: program.to_owned(), toolchain: None, rustup_home: None, home: None, cwd: None }
    }
}

/// The compiler that a program stands for.
#[derive(Debug)]
pub struct Found {
    /// The compiler itself.
    pub program: PathBuf,
    /// Its sysroot, as it spells it.
    pub sysroot: PathBuf,
    /// Whether the program is a stand-in, so that it is another compiler for another caller.
    pub stands_in: bool,
    guards: Vec<(PathBuf, FileIdentity)>,
    shadows: Shadows,
}

impl Found {
    /// Whether nothing changed that it was found by. Only `stat`s.
    pub fn still_holds(&self) -> bool {
        let same = |(path, identity): &(PathBuf, FileIdentity)| {
            fs::metadata(path).is_ok_and(|meta| FileIdentity::of(&meta) == *identity)
        };
        self.guards.iter().all(same) && self.shadows.still_clear()
    }

    /// How many things [`still_holds`](Self::still_holds) looks at.
    pub fn n_looks(&self) -> usize {
        self.guards.len() + self.shadows.n_folders()
    }
}

/// Asks `caller`'s program which compiler it is. Starts it twice, which costs as much as a small compile: a stand-in is asked for each folder
/// that may have a toolchain of its own, any other program once.
pub fn find(caller: &Caller<'_>) -> Result<Found, RustError> {
    let program = caller.program;
    let unreadable = |error: io::Error| CaptureError::Io { path: program.to_owned(), error };
    let mut found = Found {
        program: PathBuf::new(),
        sysroot: PathBuf::new(),
        stands_in: false,
        guards: vec![(program.to_owned(), FileIdentity::of(&fs::metadata(program).map_err(unreadable)?))],
        shadows: Shadows::default(),
    };
    let real = fs::canonicalize(program).map_err(unreadable)?;
    let name = program.file_name().filter(|name| *name == "rustc" || *name == "clippy-driver");
    if real.file_name().and_then(links::named).is_some() {
        return Err(CaptureError::Wrapper(real).into());
    }
    capture::check_elf(&real)?;
    let name = name.ok_or_else(|| RustError::Unknown(program.to_owned()))?;
    found.stands_in = is_rustup(caller)?;
    if found.stands_in {
        // Before it is asked: what changes meanwhile shows at the next look.
        guard_settings(caller, &mut found);
    }
    let told = capture::ask_with(&mut command(caller), program, &["--print", "sysroot"])?;
    found.sysroot = PathBuf::from(told.trim_end_matches('\n'));
    if !found.sysroot.is_absolute() {
        return Err(RustError::Wordless { program: program.to_owned(), what: "sysroot" });
    }
    found.program = found.sysroot.join("bin").join(name);
    let compiler =
        fs::metadata(&found.program).map_err(|error| CaptureError::Io { path: found.program.clone(), error })?;
    if found.stands_in {
        capture::check_elf(&found.program)?;
    } else {
        let called = fs::metadata(&real).map_err(unreadable)?;
        if (called.dev(), called.ino()) != (compiler.dev(), compiler.ino()) {
            return Err(RustError::Elsewhere { program: program.to_owned(), sysroot: found.sysroot });
        }
    }
    Ok(found)
}

/// Whether the program is rustup under a compiler's name, by link or copy.
fn is_rustup(caller: &Caller<'_>) -> Result<bool, RustError> {
    let mut command = command(caller);
    command.env(ACT_AS.0, ACT_AS.1);
    Ok(capture::ask_with(&mut command, caller.program, &["--version"])?.starts_with("rustup "))
}

fn command(caller: &Caller<'_>) -> std::process::Command {
    let mut command = capture::command(caller.program);
    command.current_dir(caller.cwd);
    // A toolchain that is not there is installed by whoever runs the compiler, not by who asks about it.
    command.env("RUSTUP_AUTO_INSTALL", "0");
    let variables =
        [("HOME", caller.home), ("RUSTUP_HOME", caller.rustup_home), ("RUSTUP_TOOLCHAIN", caller.rustup_toolchain)];
    for (name, value) in variables {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

/// Everything that rustup decides by.
fn guard_settings(caller: &Caller<'_>, found: &mut Found) {
    let home = caller.rustup_home.map(PathBuf::from).or_else(|| Some(Path::new(caller.home?).join(".rustup")));
    let mut places: Vec<PathBuf> = home.map(|home| home.join("settings.toml")).into_iter().collect();
    places.push(PathBuf::from("/etc/rustup/settings.toml"));
    if caller.rustup_toolchain.is_none() {
        for folder in caller.cwd.ancestors().take(MAX_DEPTH) {
            places.extend(TOOLCHAIN_FILES.map(|name| folder.join(name)));
        }
    }
    let mut absent = Places::default();
    for place in places {
        match fs::metadata(&place) {
            Ok(meta) => found.guards.push((place, FileIdentity::of(&meta))),
            Err(_) => {
                absent.absent.insert(place);
            }
        }
    }
    found.shadows = Shadows::new(&absent);
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
