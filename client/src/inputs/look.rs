//! Looks at the files of one compile: reads and hashes them, follows their includes, and puts tree and read set together.
//!
//! Two ways to the list of files: [`Look::closure`] follows every include that any branch could reach; [`Look::listed`] takes the
//! compiler's word for the files and follows includes only for the names that were looked up in vain. Starts no program.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::limits::MAX_READ_SET;
use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::RelPath;
use buildbee_proto::tree::Twin;

use super::aliases::computed_probe;
use super::discover::{DiscoverError, Inputs, OutputPlace};
use super::filehash::{FileHashes, FileIdentity, Hashed};
use super::followed::Followed;
use super::lookup::{Found, LookupError, Lookups};
use super::resolve::Resolved;
use super::scan::{Form, Include, Scan};
use super::search_path::SearchPath;
use super::tree::TreeBuilder;
use super::twins;
use crate::compiler::request::{CompileRequest, CompilerFamily, InputRule};

/// One look at one compile.
#[derive(Debug)]
pub struct Look<'a> {
    hashes: &'a FileHashes,
    request: &'a CompileRequest,
    cwd: &'a Path,
    lookups: Lookups<'a>,
    files: BTreeMap<RelPath, Hashed>,
    /// Files that the compiler may quote in its messages, though it does not include them.
    quoted: BTreeSet<PathBuf>,
}

impl<'a> Look<'a> {
    /// At `request`, which runs in `cwd` and looks in `search`; `followed` is what is known of looks through it.
    pub fn new(
        hashes: &'a FileHashes,
        request: &'a CompileRequest,
        cwd: &'a Path,
        search: &'a SearchPath,
        followed: Arc<Followed>,
    ) -> Result<Self, DiscoverError> {
        Ok(Self {
            hashes,
            request,
            cwd,
            lookups: Lookups::new(cwd, search, followed)?,
            files: BTreeMap::new(),
            quoted: BTreeSet::new(),
        })
    }

    /// All files that any branch of any file could include. Fails where a file names what it includes by a macro.
    pub fn closure(mut self) -> Result<Inputs, DiscoverError> {
        let first = self.lookups.resolver.resolve_output(self.cwd, &self.request.source)?;
        let source = first.map_or_else(|| self.request.source.clone(), |place| place.to_absolute());
        let mut seen = HashSet::from([source.clone()]);
        let (mut unread, mut read_by_others) = (vec![Found { path: source, place: None }], Vec::new());
        let mut scans = Vec::new();
        let mut next = Some(self.command_line());
        loop {
            if let Some((file, scan)) = next {
                if scan.computed_include {
                    return Err(DiscoverError::ComputedInclude(file));
                }
                self.lookups.follow(&file, &scan)?;
                scans.push((file, scan));
            } else if !self.lookups.follow_rest()? {
                break;
            }
            unread.extend(self.lookups.take_fresh().into_iter().filter(|found| seen.insert(found.path.clone())));
            next = self.next_read(&mut unread, &mut read_by_others)?;
        }
        no_computed_probe(&scans)?;
        self.finish()
    }

    /// The files that the compiler listed.
    pub fn listed(mut self, listed: Vec<PathBuf>) -> Result<Inputs, DiscoverError> {
        let mut scans: Vec<(PathBuf, Arc<Scan>)> = Vec::with_capacity(listed.len() + 1);
        let mut seen = HashSet::new();
        for spelled in listed {
            if seen.insert(spelled.clone()) {
                let scan = self.read(&spelled)?;
                let asks = scan.computed_include || !scan.includes.is_empty();
                if self.request.language.is_preprocessed() && asks {
                    return Err(DiscoverError::IncludesAfterAll(spelled));
                }
                scans.push((spelled, scan));
            }
        }
        scans.push(self.command_line());
        no_computed_probe(&scans)?;
        for (file, scan) in &scans {
            self.lookups.follow(file, scan)?;
        }
        if scans.iter().any(|(_, scan)| scan.computed_include) {
            self.lookups.computed(&scans.iter().map(|(file, _)| file.as_path()).collect::<Vec<_>>())?;
        }
        for probed in self.lookups.probed.clone() {
            if !seen.contains(&probed) {
                self.exists(&probed)?;
            }
        }
        self.finish()
    }

    /// `-include` and `-imacros` are looked up like quoted includes of a file in the working directory, and the C library has a file that
    /// every gcc and clang reads before anything else.
    fn command_line(&self) -> (PathBuf, Arc<Scan>) {
        let name = |path: &PathBuf| path.to_str().map(str::to_owned);
        let include = |name| Include { name, form: Form::Quoted, next: false };
        let mut includes: Vec<_> = self.request.explicit_inputs.iter().filter_map(name).map(include).collect();
        includes.push(Include { name: "stdc-predef.h".to_owned(), form: Form::Angled, next: false });
        (self.cwd.join("<command line>"), Arc::new(Scan { includes, ..Scan::default() }))
    }

    /// Reads one of `unread`, if there is any. Those that other compiles are just reading come last: most of them need not be read then.
    fn next_read(
        &mut self,
        unread: &mut Vec<Found>,
        read_by_others: &mut Vec<Found>,
    ) -> Result<Option<(PathBuf, Arc<Scan>)>, DiscoverError> {
        while let Some(found) = unread.pop() {
            let place = match &found.place {
                Some(place) => check_place(place).map(|()| place.clone())?,
                None => self.place(&found.path)?,
            };
            let read = self.hashes.hash_source_unless_read(&place.to_absolute()).map_err(unreadable(&found.path))?;
            match read {
                Some(read) => return self.keep(&found.path, place, read).map(|scan| Some((found.path, scan))),
                None => read_by_others.push(found),
            }
        }
        let Some(Found { path, .. }) = read_by_others.pop() else { return Ok(None) };
        let scan = self.read(&path)?;
        unread.append(read_by_others);
        Ok(Some((path, scan)))
    }

    fn read(&mut self, spelled: &Path) -> Result<Arc<Scan>, DiscoverError> {
        let place = self.place(spelled)?;
        let found = self.hashes.hash_source(&place.to_absolute()).map_err(unreadable(spelled))?;
        self.keep(spelled, place, found)
    }

    fn place(&mut self, spelled: &Path) -> Result<RelPath, DiscoverError> {
        let Resolved::Present(place) = self.lookups.resolver.resolve(self.cwd, spelled)? else {
            return Err(DiscoverError::Vanished(spelled.to_owned()));
        };
        check_place(&place)?;
        Ok(place)
    }

    fn keep(
        &mut self,
        spelled: &Path,
        place: RelPath,
        (hashed, scan): (Hashed, Arc<Scan>),
    ) -> Result<Arc<Scan>, DiscoverError> {
        if !scan.time_words.without(self.request.fixed_words).is_empty() {
            return Err(DiscoverError::TimeMacros(spelled.to_owned()));
        }
        if scan.embeds {
            return Err(DiscoverError::Embeds(spelled.to_owned()));
        }
        if scan.computed_probe {
            return Err(DiscoverError::ComputedProbe(spelled.to_owned()));
        }
        if self.request.family == CompilerFamily::Gcc {
            self.quoted.extend(scan.line_names.iter().map(PathBuf::from));
        }
        self.insert(place, hashed)?;
        Ok(scan)
    }

    /// A file that is not scanned: one whose existence alone was asked for, or one that is no source. An agent must find it too.
    fn exists(&mut self, spelled: &Path) -> Result<(), DiscoverError> {
        let Resolved::Present(place) = self.lookups.resolver.resolve(self.cwd, spelled)? else {
            return Err(DiscoverError::Vanished(spelled.to_owned()));
        };
        if place.to_absolute().is_dir() {
            return Ok(());
        }
        check_place(&place)?;
        let hashed = self.hashes.hash(&place.to_absolute()).map_err(unreadable(spelled))?;
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
                self.lookups.resolver.resolve(Path::new("/"), spelled)?;
                return Ok(spelled.clone());
            }
        }
        Ok(self.cwd.to_owned())
    }

    fn outputs(&mut self) -> Result<Vec<OutputPlace>, DiscoverError> {
        let mut places = Vec::with_capacity(self.request.outputs.len());
        for output in &self.request.outputs {
            let place = self.lookups.resolver.resolve_output(self.cwd, &output.path)?;
            let place = place.ok_or_else(|| DiscoverError::Output(output.path.clone()))?;
            check_place(&place)?;
            // A compiler writes through a symlink and into a device; a result is put in place by renaming.
            let before = match std::fs::symlink_metadata(place.to_absolute()) {
                Ok(meta) if !meta.is_file() => return Err(DiscoverError::Output(output.path.clone())),
                Ok(meta) => Some(FileIdentity::of(&meta)),
                Err(_) => None,
            };
            places.push(OutputPlace { place, always: output.always, before });
        }
        Ok(places)
    }

    /// Files that options or line markers name. Where there is none, its absence counts.
    fn named_inputs(&mut self) -> Result<(), DiscoverError> {
        for quoted in std::mem::take(&mut self.quoted) {
            if self.lookups.look(&quoted)?.is_some() {
                self.exists(&quoted)?;
            }
        }
        for input in &self.request.named_inputs {
            let found = self.lookups.look(&input.path)?.is_some();
            match input.rule {
                InputRule::ReadIfThere if found => self.exists(&input.path)?,
                InputRule::Removed if found => return Err(DiscoverError::Removed(input.path.clone())),
                InputRule::ReadIfThere | InputRule::Removed => {}
            }
        }
        Ok(())
    }

    /// Precompiled headers are read beside the headers: which of the two counts is the compiler's to say. (clang looks for them for
    /// `-include` only, and judges them by times, which an agent does not have.)
    fn precompiled(&mut self) -> Result<(), DiscoverError> {
        let found = std::mem::take(&mut self.lookups.precompiled);
        let is_taken = self.request.family == CompilerFamily::Gcc && !self.request.makes_precompiled();
        let first = found.first().filter(|_| !is_taken).cloned();
        if let Some(first) = first {
            return Err(LookupError::PrecompiledHeader(first).into());
        }
        found.iter().try_for_each(|precompiled| self.exists(precompiled))
    }

    fn finish(mut self) -> Result<Inputs, DiscoverError> {
        for folder in &self.request.search_directories {
            // A folder that is not there is absent for the compiler too, and noted by the search path.
            self.lookups.resolver.resolve(self.cwd, &folder.path)?;
        }
        for file in &self.request.explicit_inputs {
            self.lookups.no_precompiled(file)?;
        }
        self.named_inputs()?;
        self.precompiled()?;
        let logical_directory = self.logical_directory()?;
        let outputs = self.outputs()?;
        let folders = self.lookups.settled_folders();
        let Lookups { mut resolver, absent, .. } = self.lookups;
        // The working directory counts even where every path is absolute.
        resolver.resolve(Path::new("/"), self.cwd)?;
        let mut tree = TreeBuilder::default();
        let mut files = BTreeMap::new();
        let mut guards = Vec::with_capacity(self.files.len());
        let mut read = Vec::with_capacity(self.files.len());
        let stamps: Vec<_> = self.files.values().map(|hashed| (hashed.digest, hashed.identity.stamp())).collect();
        let twins = twins::among(&stamps);
        let mut known_twins = twins.iter().peekable();
        for (at, (place, hashed)) in (0..).zip(self.files) {
            let twin = known_twins.next_if(|(twin_at, _)| *twin_at == at).map_or_else(Twin::default, |(_, twin)| *twin);
            tree.twin(&place, hashed.digest, hashed.executable, twin)?;
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
            absent: absent.into_iter().collect(),
            symlinks: resolver.symlinks().iter().map(|(place, target)| (place.clone(), target.clone())).collect(),
            twins,
            ..ReadSet::default()
        };
        let tree = Arc::new(tree.finish());
        Ok(Inputs { read_set, folders, listed: false, tree, files, guards, outputs, logical_directory })
    }
}

/// Whether a `__has_include` by another name asks for a name that no scanner can tell.
fn no_computed_probe(scans: &[(PathBuf, Arc<Scan>)]) -> Result<(), DiscoverError> {
    match computed_probe(&scans.iter().map(|(_, scan)| &**scan)) {
        Some(at) => Err(DiscoverError::ComputedProbe(scans[at].0.clone())),
        None => Ok(()),
    }
}

fn unreadable(spelled: &Path) -> impl FnOnce(std::io::Error) -> DiscoverError {
    move |error| match error.kind() {
        std::io::ErrorKind::InvalidInput => DiscoverError::NotRegular(spelled.to_owned()),
        _ => DiscoverError::Unreadable { path: spelled.to_owned(), error },
    }
}

/// The sandbox has its own `/dev` and `/proc`, and no `/sys`.
fn check_place(place: &RelPath) -> Result<(), DiscoverError> {
    match place.components().next() {
        Some("dev" | "proc" | "sys") => Err(DiscoverError::SpecialPath(place.clone())),
        _ => Ok(()),
    }
}
