//! Packs a compiler of this machine as a double: its programs and libraries as content, none of its headers, in a folder that agents take in.
//!
//! A folder has `NAME.double` for each compiler, and `blobs/DIGEST` for what they are made of. Who may add it to an agent is the agent's owner's
//! business; whether it is a double of anything is found out by who wants to use it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::double::Double;
use thiserror::Error;

use super::capture::{self, CaptureError};
use super::identify::{IdentifyError, identify_bare};
use super::parts::Parts;
use super::rust::{self, Caller, LinkQuestion, RustError};
use crate::compiler::request::CompilerFamily;
use crate::daemon::crates::action::PLAIN_SEARCH;
use crate::doubles::ask::Identity;
use crate::doubles::rustc::identity::{FAMILY, LINKING, identity};
use crate::inputs::filehash::FileHashes;

/// Beginnings of the names of libraries that compilers and assemblers compress parts of objects with.
const COMPRESSING: [&str; 2] = ["libz.so.", "libzstd.so."];

/// A compiler can't be packed.
#[derive(Debug, Error)]
pub enum PackError {
    /// It is none that is known.
    #[error(transparent)]
    Identify(#[from] IdentifyError),
    /// It does not answer.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The same of a rustc.
    #[error(transparent)]
    Rust(#[from] RustError),
    /// A rustc that does not say what it is.
    #[error("{program}: {what}", program = program.display())]
    Wordless {
        /// Which.
        program: PathBuf,
        /// What it does not say.
        what: String,
    },
    /// It compiles for nobody else.
    #[error("{program} has no library of another target\nhint: `rustup target add TARGET` for what the boards are, as `rustc -vV` calls their host there", program = .0.display())]
    NoTargets(PathBuf),
    /// A file can't be written, or was another when it was read again.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A path that no double can name.
    #[error("{0} is not UTF-8")]
    NotUtf8(PathBuf),
}

/// Names of the libraries among `files` that compress, with their versions, sorted.
pub fn compressing<'a>(files: impl Iterator<Item = &'a Path>) -> Vec<String> {
    let names: BTreeSet<&str> = files
        .filter_map(|path| path.file_name()?.to_str())
        .filter(|name| COMPRESSING.iter().any(|with| name.starts_with(with)))
        .collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Where programs are looked for when a compiler is packed.
const SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What a compiler is packed as: itself without headers. Starts it some ten times; reads what `hashes` does not know. Blocks.
pub fn bare(hashes: &FileHashes, program: &Path) -> Result<Parts, PackError> {
    let compiler = identify_bare(hashes, program, OsStr::new(SEARCH))?;
    Arc::into_inner(compiler.parts).ok_or(PackError::Identify(IdentifyError::Interrupted))
}

/// Packs `program` into `folder`, which is made if need be. Starts it some ten times; reads all of it. Blocks.
pub fn pack(program: &Path, folder: &Path) -> Result<Double, PackError> {
    let compiler = identify_bare(&FileHashes::default(), program, OsStr::new(SEARCH))?;
    let ask = |question: &str| capture::ask(program, question).map(|answer| answer.trim().to_owned());
    let (family, version, target) = match compiler.family {
        CompilerFamily::Gcc => ("gcc", ask("-dumpfullversion")?, ask("-dumpmachine")?),
        CompilerFamily::Clang => {
            let told = crate::doubles::clang::target_and_version(&ask("--version")?);
            let (_, version) = told.ok_or_else(|| IdentifyError::Unknown(program.to_owned()))?;
            ("clang", version, String::new())
        }
    };
    let name = program.file_name().and_then(OsStr::to_str).ok_or_else(|| PackError::NotUtf8(program.to_owned()))?;
    let double = Double {
        toolchain: compiler.parts.toolchain.clone(),
        program: program.to_str().ok_or_else(|| PackError::NotUtf8(program.to_owned()))?.to_owned(),
        search: compiler.search.clone(),
        family: family.to_owned(),
        driver: if name.contains("++") { "c++" } else { "c" }.to_owned(),
        version,
        target,
        libraries: compressing(compiler.parts.files.iter().map(|(path, _)| path.as_path())),
    };
    write_down(folder, name, &double, &compiler.parts)?;
    Ok(double)
}

/// Whether `program` is packed for every target that it has a library of ([`pack_rustc`]), by its name.
pub fn is_rustc(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == "rustc")
}

/// Packs a rustc, and for rustup's stand-in the one that it starts for `caller`, into `folder`: a double for each target. Reads all of it. Blocks.
pub fn pack_rustc(caller: &Caller<'_>, folder: &Path) -> Result<Vec<Double>, PackError> {
    let program = caller.program;
    let (hashes, mut packed) = (FileHashes::default(), Vec::new());
    for target in rust::targets(caller)? {
        let compiler = rust::identify_bare(&hashes, &Caller { target: Some(&target), ..*caller })?;
        let wordless = |what| PackError::Wordless { program: program.to_owned(), what };
        let Identity { version, libraries, .. } = identity(&compiler, &target).map_err(wordless)?;
        let double = Double {
            toolchain: compiler.parts.toolchain.clone(),
            program: compiler.place.to_str().ok_or_else(|| PackError::NotUtf8(compiler.place.clone()))?.to_owned(),
            search: compiler.arguments.concat(),
            family: FAMILY.to_owned(),
            driver: FAMILY.to_owned(),
            version,
            target,
            libraries,
        };
        write_down(folder, &format!("rustc-{}", double.target), &double, &compiler.parts)?;
        packed.push(double);
    }
    if packed.is_empty() { Err(PackError::NoTargets(program.to_owned())) } else { Ok(packed) }
}

/// Packs the same rustc with this machine's linker, for its own host: with it agents build what compilers load, macros. Reads all of it. Blocks.
pub fn pack_linking_rustc(caller: &Caller<'_>, folder: &Path) -> Result<Double, PackError> {
    let program = caller.program;
    let hashes = FileHashes::default();
    let compiler = rust::identify_bare(&hashes, &Caller { target: None, ..*caller })?;
    let search = OsStr::new(PLAIN_SEARCH);
    let question = LinkQuestion { linker: None, cwd: Path::new("/"), arguments: &[], search };
    let linker = rust::identify_linker(&hashes, &compiler, &question)?;
    let wordless = |what| PackError::Wordless { program: program.to_owned(), what };
    let Identity { version, libraries, target, .. } = identity(&compiler, &compiler.host).map_err(wordless)?;
    let double = Double {
        toolchain: linker.parts.toolchain.clone(),
        program: compiler.place.to_str().ok_or_else(|| PackError::NotUtf8(compiler.place.clone()))?.to_owned(),
        search: compiler.arguments.concat(),
        family: FAMILY.to_owned(),
        driver: LINKING.to_owned(),
        version,
        target,
        libraries,
    };
    write_down(folder, LINKING, &double, &linker.parts)?;
    Ok(double)
}

fn write_down(folder: &Path, name: &str, double: &Double, parts: &Parts) -> Result<(), PackError> {
    let blobs = folder.join("blobs");
    fs::create_dir_all(&blobs).map_err(|error| PackError::Io { path: blobs.clone(), error })?;
    for (digest, bytes) in &parts.directories {
        put(&blobs, digest, bytes)?;
    }
    for (path, digest) in &parts.files {
        let bytes = fs::read(path).map_err(|error| PackError::Io { path: path.clone(), error })?;
        put(&blobs, digest, &bytes)?;
    }
    // Last: who finds it finds all of it.
    write(&folder.join(format!("{name}.double")), &double.to_canonical())
}

fn put(blobs: &Path, digest: &Digest, bytes: &[u8]) -> Result<(), PackError> {
    let path = blobs.join(digest.to_string());
    if Digest::of(bytes) != *digest {
        return Err(PackError::Io { path, error: io::Error::other("it changed while it was packed") });
    }
    if fs::metadata(&path).is_ok_and(|meta| meta.len() == digest.size_bytes) { Ok(()) } else { write(&path, bytes) }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PackError> {
    let fresh = path.with_extension("new");
    let written = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    written.map_err(|error| PackError::Io { path: path.to_owned(), error })
}

/// The program that is meant by `named`: a place, or a name that is looked for in `search`.
pub fn find(named: &Path, search: &str) -> Option<PathBuf> {
    if named.components().count() > 1 {
        return std::path::absolute(named).ok().filter(|path| path.is_file());
    }
    let name = named.to_str()?;
    capture::find_in(OsStr::new(search), name).map(|(_, program)| program)
}

/// `program`'s C++ driver, or C driver, where there is one beside it.
pub fn sibling(program: &Path) -> Option<PathBuf> {
    let name = program.file_name()?.to_str()?;
    // clang++ ends as g++ does.
    let other = [("clang++", "clang"), ("clang", "clang++"), ("gcc", "g++"), ("g++", "gcc")];
    let (from, to) = other.into_iter().find(|(from, _)| name.contains(from))?;
    Some(program.with_file_name(name.replacen(from, to, 1))).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_compiler_is_whole_and_has_no_headers() {
        let folder = tempfile::tempdir().unwrap();
        let double = pack(Path::new("/usr/bin/gcc"), folder.path()).unwrap();
        assert_eq!((double.family.as_str(), double.driver.as_str()), ("gcc", "c"));
        let told = fs::read(folder.path().join("gcc.double")).unwrap();
        assert_eq!(Double::from_canonical(&told).unwrap(), double);
        let blob = |digest: &Digest| fs::read(folder.path().join("blobs").join(digest.to_string())).unwrap();
        let mut todo = vec![double.toolchain.root];
        let mut names = Vec::new();
        while let Some(digest) = todo.pop() {
            let bytes = blob(&digest);
            assert_eq!(Digest::of(&bytes), digest);
            let directory = buildbee_proto::tree::Directory::from_canonical(&bytes).unwrap();
            todo.extend(directory.directories.iter().map(|inner| inner.digest));
            for file in directory.files {
                assert_eq!(Digest::of(&blob(&file.digest)), file.digest);
                names.push(file.name.to_string());
            }
        }
        assert!(names.iter().any(|name| name == "cc1"), "{names:?}");
        assert!(!names.iter().any(|name| Path::new(name).extension().is_some_and(|ending| ending == "h")), "{names:?}");
        assert!(double.libraries.iter().any(|name| name.starts_with("libz.so.")), "{double:?}");
    }

    #[test]
    fn drivers_have_siblings() {
        assert_eq!(sibling(Path::new("/usr/bin/gcc")), Some(PathBuf::from("/usr/bin/g++")));
        assert_eq!(sibling(Path::new("/usr/bin/clang++")), Some(PathBuf::from("/usr/bin/clang")));
        assert_eq!(sibling(Path::new("/usr/bin/true")), None);
    }
}
