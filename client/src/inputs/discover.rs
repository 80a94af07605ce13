//! Finds what a compile reads: the compiler lists the files (`-M`), their texts tell the names looked up on the way.
//!
//! The outcome is everything that an action needs of the client's files: the tree an agent sees, the read set that a later hit checks,
//! and where each blob can be had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::limits::MAX_READ_SET;
use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::RelPath;
use thiserror::Error;

use super::filehash::{FileHashes, Hashed};
use super::lookup::{LookupError, Lookups, lookups};
use super::resolve::{ResolveError, Resolved, Resolver};
use super::scan::{Form, Include, Scan};
use super::search_path::{SearchPath, SearchPathError, SearchPaths};
use super::tree::{Conflict, Tree, TreeBuilder};
use crate::compiler::depfile;
use crate::compiler::request::CompileRequest;
use crate::toolchain::Compiler;

/// The compiler lists its files within this time, or the compile runs locally.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a compile reads.
#[derive(Debug)]
pub struct Inputs {
    /// What must be as it is for the result to hold.
    pub read_set: ReadSet,
    /// What an agent sees.
    pub tree: Tree,
    /// Every file by content, with its place.
    pub files: BTreeMap<Digest, PathBuf>,
    /// Every file by physical place, as hashed.
    pub guards: Vec<(PathBuf, Hashed)>,
    /// Files that the compile writes, by physical place, in the order of the request's outputs.
    pub outputs: Vec<RelPath>,
    /// The spelling of the working directory that the compiler is told by `PWD`.
    pub logical_directory: PathBuf,
}

/// Why a compile's inputs can't be told. Each ends in a local run.
#[derive(Debug, Error)]
pub enum DiscoverError {
    /// `-M` failed; a local run will show the user why.
    #[error("the compiler could not list what it reads")]
    Unlisted,
    /// It could not be started.
    #[error("the compiler could not be started: {0}")]
    Start(std::io::Error),
    /// It took longer than [`DEADLINE`].
    #[error("the compiler did not list what it reads in time")]
    Timeout,
    /// Its list makes no sense.
    #[error("the compiler's list of files could not be read: {0}")]
    Malformed(String),
    /// A file can't be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file that was listed is gone.
    #[error("{path} vanished", path = .0.display())]
    Vanished(PathBuf),
    /// The result depends on the time of day.
    #[error("{path} asks for the time (__DATE__, __TIME__ or __TIMESTAMP__)", path = .0.display())]
    TimeMacros(PathBuf),
    /// A file is read that no list names.
    #[error("{path} embeds a file (.incbin or #embed)", path = .0.display())]
    Embeds(PathBuf),
    /// A `__has_include` that can't be followed.
    #[error("{path} asks for a computed name (__has_include)", path = .0.display())]
    ComputedProbe(PathBuf),
    /// A place where the sandbox has its own files.
    #[error("{0} is in a place that differs from machine to machine")]
    SpecialPath(RelPath),
    /// An output's folder does not exist, or the output is no regular file.
    #[error("{path} cannot be written", path = .0.display())]
    Output(PathBuf),
    /// Names can't be looked up.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Paths can't be followed.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The search path is not known.
    #[error(transparent)]
    SearchPath(#[from] SearchPathError),
    /// Files changed meanwhile.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// More than a read set holds.
    #[error("more than {MAX_READ_SET} files are read")]
    TooMany,
    /// The task that looked was cut off.
    #[error("interrupted")]
    Interrupted,
}

impl DiscoverError {
    /// The reason's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unlisted | Self::Start(_) | Self::Timeout | Self::Malformed(_) => "inputs-unlisted",
            Self::Unreadable { .. } | Self::Vanished(_) | Self::Conflict(_) | Self::Interrupted => "input-unreadable",
            Self::TimeMacros(_) => "time-macros",
            Self::Embeds(_) => "embedded-file",
            Self::ComputedProbe(_) => "computed-has-include",
            Self::SpecialPath(_) => "special-path",
            Self::Output(_) => "unusual-output",
            Self::Lookup(LookupError::PrecompiledHeader(_)) => "precompiled-header",
            Self::Lookup(LookupError::TooMany) | Self::TooMany => "too-many-inputs",
            Self::Lookup(LookupError::Resolve(_)) | Self::Resolve(_) => "unusual-path",
            Self::SearchPath(_) => "search-path-unknown",
        }
    }
}

/// Finds inputs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Discovery {
    hashes: FileHashes,
    search_paths: SearchPaths,
}

impl Discovery {
    /// With a memory of digests.
    pub fn new(hashes: FileHashes) -> Self {
        Self { hashes, search_paths: SearchPaths::default() }
    }

    /// What `request` reads when it runs in `cwd`. `env` is the user's whole environment: the compiler is started in it. Dropping the
    /// future stops the compiler.
    pub async fn inputs(
        &self,
        compiler: &Arc<Compiler>,
        request: &Arc<CompileRequest>,
        env: &[(String, String)],
        cwd: &Path,
    ) -> Result<Inputs, DiscoverError> {
        let language = request.language.option_name();
        let (listed, search) = if request.language.is_preprocessed() {
            (vec![request.source.clone()], Arc::default())
        } else {
            let listed = list(compiler, request, env, cwd).await?;
            let search =
                self.search_paths.of(compiler, language, &request.include_arguments, &request.env, cwd).await?;
            (listed, search)
        };
        let (hashes, request, cwd) = (self.hashes.clone(), Arc::clone(request), cwd.to_owned());
        let look = move || Look::new(&hashes, &request, &cwd).run(listed, &search);
        tokio::task::spawn_blocking(look).await.map_err(|_| DiscoverError::Interrupted)?
    }
}

async fn list(
    compiler: &Compiler,
    request: &CompileRequest,
    env: &[(String, String)],
    cwd: &Path,
) -> Result<Vec<PathBuf>, DiscoverError> {
    let mut command = tokio::process::Command::new(&compiler.program);
    command.args(&request.include_arguments).args(["-M", "-MT", "x"]).arg(&request.source);
    command.env_clear().envs(env.iter().map(|(name, value)| (name, value)));
    command.current_dir(cwd).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .map_err(|_| DiscoverError::Timeout)?
        .map_err(DiscoverError::Start)?;
    if !output.status.success() {
        return Err(DiscoverError::Unlisted);
    }
    let rules = depfile::parse(&output.stdout).map_err(|error| DiscoverError::Malformed(error.to_string()))?;
    Ok(depfile::prerequisites(rules))
}

struct Look<'a> {
    hashes: &'a FileHashes,
    request: &'a CompileRequest,
    cwd: &'a Path,
    resolver: Resolver,
    files: BTreeMap<RelPath, Hashed>,
}

impl<'a> Look<'a> {
    fn new(hashes: &'a FileHashes, request: &'a CompileRequest, cwd: &'a Path) -> Self {
        Self { hashes, request, cwd, resolver: Resolver::default(), files: BTreeMap::new() }
    }

    fn run(mut self, listed: Vec<PathBuf>, search: &SearchPath) -> Result<Inputs, DiscoverError> {
        let mut scans: Vec<(PathBuf, Arc<Scan>)> = Vec::with_capacity(listed.len() + 1);
        let mut seen = BTreeSet::new();
        for spelled in listed {
            if seen.insert(spelled.clone()) {
                let scan = self.read(&spelled)?;
                scans.push((spelled, scan));
            }
        }
        scans.push((self.cwd.join("x"), Arc::new(named_on_the_command_line(self.request))));
        let found =
            lookups(&mut self.resolver, self.cwd, search, scans.iter().map(|(path, scan)| (path.as_path(), &**scan)))?;
        for probed in &found.probed {
            if !seen.contains(probed) {
                self.exists(probed)?;
            }
        }
        for folder in &self.request.search_directories {
            // A folder that is not there is absent for the compiler too, and noted by the search path.
            self.resolver.resolve(self.cwd, &folder.path)?;
        }
        let logical_directory = self.logical_directory()?;
        let outputs = self.outputs()?;
        self.finish(found, outputs, logical_directory)
    }

    fn read(&mut self, spelled: &Path) -> Result<Arc<Scan>, DiscoverError> {
        let Resolved::Present(place) = self.resolver.resolve(self.cwd, spelled)? else {
            return Err(DiscoverError::Vanished(spelled.to_owned()));
        };
        check_place(&place)?;
        let unreadable = |error| DiscoverError::Unreadable { path: spelled.to_owned(), error };
        let (hashed, scan) = self.hashes.hash_source(&place.to_absolute()).map_err(unreadable)?;
        if scan.time_macros {
            return Err(DiscoverError::TimeMacros(spelled.to_owned()));
        }
        if scan.embeds {
            return Err(DiscoverError::Embeds(spelled.to_owned()));
        }
        if scan.computed_probe {
            return Err(DiscoverError::ComputedProbe(spelled.to_owned()));
        }
        self.insert(place, hashed)?;
        Ok(scan)
    }

    /// A file whose existence alone was asked for: an agent must find it too.
    fn exists(&mut self, spelled: &Path) -> Result<(), DiscoverError> {
        let Resolved::Present(place) = self.resolver.resolve(self.cwd, spelled)? else {
            return Err(DiscoverError::Vanished(spelled.to_owned()));
        };
        if place.to_absolute().is_dir() {
            return Ok(());
        }
        check_place(&place)?;
        let unreadable = |error| DiscoverError::Unreadable { path: spelled.to_owned(), error };
        let hashed = self.hashes.hash(&place.to_absolute()).map_err(unreadable)?;
        self.insert(place, hashed)
    }

    fn insert(&mut self, place: RelPath, hashed: Hashed) -> Result<(), DiscoverError> {
        self.files.insert(place, hashed);
        if self.files.len() > MAX_READ_SET { Err(DiscoverError::TooMany) } else { Ok(()) }
    }

    /// `PWD` counts for a compiler where it names the folder that it runs in.
    fn logical_directory(&mut self) -> Result<PathBuf, DiscoverError> {
        if let Some(spelled) = &self.request.logical_directory {
            let same = |one: std::fs::Metadata, two: std::fs::Metadata| {
                use std::os::unix::fs::MetadataExt;
                (one.dev(), one.ino()) == (two.dev(), two.ino())
            };
            let both = std::fs::metadata(spelled).and_then(|one| Ok((one, std::fs::metadata(self.cwd)?)));
            if both.is_ok_and(|(one, two)| same(one, two)) {
                self.resolver.resolve(Path::new("/"), spelled)?;
                return Ok(spelled.clone());
            }
        }
        Ok(self.cwd.to_owned())
    }

    fn outputs(&mut self) -> Result<Vec<RelPath>, DiscoverError> {
        let mut places = Vec::with_capacity(self.request.outputs.len());
        for spelled in &self.request.outputs {
            let place = self.resolver.resolve_output(self.cwd, spelled)?;
            let place = place.ok_or_else(|| DiscoverError::Output(spelled.clone()))?;
            check_place(&place)?;
            // A compiler writes through a symlink and into a device; a result is put in place by renaming.
            match std::fs::symlink_metadata(place.to_absolute()) {
                Ok(meta) if !meta.is_file() => return Err(DiscoverError::Output(spelled.clone())),
                _ => {}
            }
            places.push(place);
        }
        Ok(places)
    }

    fn finish(
        self,
        found: Lookups,
        outputs: Vec<RelPath>,
        logical_directory: PathBuf,
    ) -> Result<Inputs, DiscoverError> {
        // The working directory counts even where every path is absolute.
        let mut resolver = self.resolver;
        resolver.resolve(Path::new("/"), self.cwd)?;
        let mut tree = TreeBuilder::default();
        let mut files = BTreeMap::new();
        let mut guards = Vec::with_capacity(self.files.len());
        let mut read = Vec::with_capacity(self.files.len());
        for (place, hashed) in self.files {
            tree.file(&place, hashed.digest, hashed.executable)?;
            files.insert(hashed.digest, place.to_absolute());
            guards.push((place.to_absolute(), hashed));
            read.push((place, hashed.digest));
        }
        for (place, target) in resolver.symlinks() {
            tree.symlink(place, target)?;
        }
        for place in resolver.directories() {
            if check_place(place).is_ok() {
                tree.directory(place)?;
            }
        }
        let read_set = ReadSet {
            files: read,
            absent: found.absent.into_iter().collect(),
            symlinks: resolver.symlinks().iter().map(|(place, target)| (place.clone(), target.clone())).collect(),
        };
        Ok(Inputs { read_set, tree: tree.finish(), files, guards, outputs, logical_directory })
    }
}

/// `-include` and `-imacros` are looked up like quoted includes of a file in the working directory.
fn named_on_the_command_line(request: &CompileRequest) -> Scan {
    let name = |path: &PathBuf| path.to_str().map(str::to_owned);
    let include = |name| Include { name, form: Form::Quoted, next: false };
    let mut includes: Vec<_> = request.explicit_inputs.iter().filter_map(name).map(include).collect();
    // The C library's file that every gcc and clang reads before anything else.
    includes.push(Include { name: "stdc-predef.h".to_owned(), form: Form::Angled, next: false });
    Scan { includes, ..Scan::default() }
}

/// The sandbox has its own `/dev` and `/proc`, and no `/sys`.
fn check_place(place: &RelPath) -> Result<(), DiscoverError> {
    match place.components().next() {
        Some("dev" | "proc" | "sys") => Err(DiscoverError::SpecialPath(place.clone())),
        _ => Ok(()),
    }
}
