//! Which names a compile looked for in vain: for each include of each file it read, the places before the one where it was found.
//!
//! A superset, since every branch of every file counts: a name too many costs a needless miss on the day it appears, a name too few
//! would be a wrong hit.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::limits::MAX_READ_SET;
use buildbee_proto::path::{PathComponent, RelPath};
use thiserror::Error;

use super::filehash::FileIdentity;
use super::followed::{Asked, FolderNumber, Followed, IncludeNumber, Known, Led, Step, Todo, Version};
use super::recorded::SettledFolders;
use super::resolve::{Folder, ResolveError, Resolved, Resolver, Spot};
use super::scan::{Form, Scan};
use super::search_path::SearchPath;

/// Last component of an absent name that stands for its folder: no file has replaced the folder as long as the name is looked for in vain
/// *in* a folder (`ENOENT`, not `ENOTDIR`).
pub const FOLDER_MARK: &str = ".buildbee-folder";

/// Why lookups can't be told.
#[derive(Debug, Error)]
pub enum LookupError {
    /// A place can't be looked at.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A precompiled header stands where one of the includes would find it.
    #[error("{path} is a precompiled header", path = .0.display())]
    PrecompiledHeader(PathBuf),
    /// More than [`MAX_READ_SET`] names.
    #[error("more names are looked up than a read set holds")]
    TooMany,
}

/// Follows includes through the search path, and notes what is found where and what is not.
#[derive(Debug)]
pub struct Lookups<'a> {
    /// Follows paths; what it passes is part of the read set.
    pub resolver: Resolver,
    /// Physical places where nothing is.
    pub absent: BTreeSet<RelPath>,
    /// gcc's precompiled headers that stand where an include would find them, as spelled. gcc takes one if it was made with the same
    /// options, else the header.
    pub precompiled: BTreeSet<PathBuf>,
    /// Files whose existence was asked for (`__has_include`), as spelled; most are read anyway.
    pub probed: BTreeSet<PathBuf>,
    cwd: &'a Path,
    search: &'a SearchPath,
    /// What is known of earlier looks.
    followed: Arc<Followed>,
    /// Includes already followed, by their numbers there.
    done: Vec<bool>,
    /// Includes that other looks were at.
    later: Vec<IncludeNumber>,
    /// Folders, by their numbers there.
    versions: Vec<Seen>,
    /// Files that a literal include leads to, as spelled, of those that this look followed itself.
    present: HashSet<OsString>,
    /// Files that were found and that nobody has taken yet.
    fresh: Vec<Found>,
}

/// What a look knows of a folder.
#[derive(Clone, Copy, Debug, Default)]
enum Seen {
    #[default]
    NotYet,
    /// Its version; `None` where that can't be told.
    Version(Option<Version>),
}

/// A file that an include leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Absolute, with a physical folder, so that files that include each other through `..` come back under the same name. (The last name
    /// is kept as spelled: a symlink's own folder is where its quoted includes are looked up.)
    pub path: PathBuf,
    /// Where it is, if the last name is no symlink.
    pub place: Option<RelPath>,
}

/// What one look at an include is about to be remembered by; nothing once it met something that is not remembered.
#[derive(Debug, Default)]
struct Trail(Option<Vec<(Step, Option<Version>)>>);

impl<'a> Lookups<'a> {
    /// For a compiler that runs in `cwd` and looks in `search`. What it follows is remembered in `followed`, which is of this search path
    /// and working directory.
    pub fn new(cwd: &'a Path, search: &'a SearchPath, followed: Arc<Followed>) -> Result<Self, LookupError> {
        let mut lookups = Self {
            resolver: Resolver::default(),
            absent: BTreeSet::new(),
            precompiled: BTreeSet::new(),
            probed: BTreeSet::new(),
            cwd,
            search,
            followed,
            done: Vec::new(),
            later: Vec::new(),
            versions: Vec::new(),
            present: HashSet::new(),
            fresh: Vec::new(),
        };
        for folder in &search.missing {
            lookups.note(folder)?;
        }
        Ok(lookups)
    }

    /// Follows everything that `file` (as spelled) asks for, but for what other looks follow at this moment: see [`follow_rest`](Self::follow_rest).
    pub fn follow(&mut self, file: &Path, scan: &Arc<Scan>) -> Result<(), LookupError> {
        for todo in self.followed.asked_by(file, scan, &mut self.done) {
            match todo.known {
                Known::Soon => self.later.push(todo.number),
                Known::Nothing | Known::Led(_) => self.follow_one(&todo)?,
            }
        }
        Ok(())
    }

    /// Follows what was left to other looks; `false` if there was nothing.
    pub fn follow_rest(&mut self) -> Result<bool, LookupError> {
        let rest = std::mem::take(&mut self.later);
        for number in &rest {
            if let Some(todo) = self.followed.asked_again(*number) {
                self.follow_one(&todo)?;
            }
        }
        Ok(!rest.is_empty())
    }

    fn follow_one(&mut self, Todo { number, asked, known }: &Todo) -> Result<(), LookupError> {
        if let Known::Led(led) = known
            && self.follow_again(*number, led)?
        {
            return Ok(());
        }
        match self.include(asked) {
            Ok(Trail(Some(steps))) => {
                let (steps, versions): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
                self.followed.remember(*number, Led { steps: steps.into(), versions });
            }
            Ok(Trail(None)) => self.followed.give_up(*number),
            Err(error) => {
                self.followed.give_up(*number);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Files found since the last call.
    pub fn take_fresh(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.fresh)
    }

    /// Goes the way of an earlier look, past the folders that are as they were; `false` where something else is there now.
    fn follow_again(&mut self, number: usize, led: &Led) -> Result<bool, LookupError> {
        let mut versions = Vec::with_capacity(led.versions.len());
        for (step, before) in led.steps.iter().zip(&led.versions) {
            let version = self.version(step.folder)?;
            if (version.is_none() || version != *before) && !self.is_as_before(step)? {
                return Ok(false);
            }
            versions.push(version);
        }
        for Step { place, is_there, .. } in led.steps.iter() {
            if *is_there {
                self.fresh.push(Found { path: place.to_absolute(), place: Some(place.clone()) });
            } else {
                self.absent.insert(place.clone());
            }
        }
        if versions != led.versions {
            self.followed.remember(number, Led { steps: Arc::clone(&led.steps), versions });
        }
        self.bounded()?;
        Ok(true)
    }

    /// Looks at a place again. Whether the same is there; nothing is noted.
    fn is_as_before(&mut self, step: &Step) -> Result<bool, LookupError> {
        let folder = self.resolver.enter(&self.followed.spelled(step.folder))?;
        let spot = self.resolver.spot(&folder, &step.name)?;
        Ok(match &spot.resolved {
            Resolved::Absent(place) => !step.is_there && *place == step.place,
            Resolved::Present(place) => step.is_there && *place == step.place && !spot.is_folder,
        })
    }

    /// The version of a folder, as it was when this look first met it; `None` where that can't be told.
    fn version(&mut self, number: FolderNumber) -> Result<Option<Version>, LookupError> {
        if let Some(Seen::Version(known)) = self.versions.get(number) {
            return Ok(*known);
        }
        let now = self.resolver.look_at_folder(&self.followed.spelled(number))?.filter(|folder| match folder {
            Folder::Absent(_) => true,
            Folder::At { place, identity } => self.believes(place, identity),
        });
        let version = now.and_then(|now| self.followed.version(number, now));
        if self.versions.len() <= number {
            self.versions.resize(number + 1, Seen::NotYet);
        }
        if let Some(known) = self.versions.get_mut(number) {
            *known = Seen::Version(version);
        }
        Ok(version)
    }

    fn believes(&self, place: &RelPath, identity: &FileIdentity) -> bool {
        self.followed.devices.believes(identity.device(), || nix::sys::statfs::statfs(&place.to_absolute()))
    }

    /// The folders that this look passed, as far as their times tell whether they change.
    pub fn settled_folders(&self) -> SettledFolders {
        let folders = self.resolver.settled_folders().filter(|(place, identity)| self.believes(place, identity));
        folders.map(|(place, identity)| (place.as_str().to_owned(), *identity)).collect()
    }

    /// Some of the `listed` files names what it includes by a macro: those that no literal include leads to may have been looked up at
    /// every place, under every name that they can have there.
    pub fn computed(&mut self, listed: &[&Path]) -> Result<(), LookupError> {
        let folders: BTreeSet<&Path> = (listed.iter().filter_map(|file| file.parent()))
            .chain(self.search.quoted.iter().chain(&self.search.angled).map(PathBuf::as_path))
            .collect();
        for file in listed.iter().filter(|file| !self.present.contains(file.as_os_str())).copied().collect::<Vec<_>>() {
            let names: BTreeSet<&Path> = folders.iter().filter_map(|folder| file.strip_prefix(folder).ok()).collect();
            for name in names {
                for folder in &folders {
                    self.note(&folder.join(name))?;
                }
            }
        }
        Ok(())
    }

    /// clang takes `NAME.pch` in the working directory for `-include NAME`.
    pub fn no_precompiled(&mut self, name: &Path) -> Result<(), LookupError> {
        let mut precompiled = name.as_os_str().to_owned();
        precompiled.push(".pch");
        match self.look(Path::new(&precompiled))? {
            Some(_) => Err(LookupError::PrecompiledHeader(PathBuf::from(precompiled))),
            None => Ok(()),
        }
    }

    fn include(&mut self, asked: &Asked) -> Result<Trail, LookupError> {
        let (include, search) = (&asked.include, self.search);
        let mut trail = Trail(Some(Vec::new()));
        if include.name.starts_with('/') {
            self.candidate(Path::new(&include.name), asked.probe, &mut trail)?;
            return Ok(trail);
        }
        let quoted = include.form == Form::Quoted;
        let quoted_places = search.quoted.iter().filter(|_| quoted).map(PathBuf::as_path);
        let places = asked.folder.as_deref().map(Path::new).into_iter().chain(quoted_places);
        for place in places.chain(search.angled.iter().map(PathBuf::as_path)) {
            let found = self.candidate(&place.join(&include.name), asked.probe, &mut trail)?;
            // `include_next` starts somewhere in the list: every place may matter.
            if found && !include.next {
                break;
            }
        }
        Ok(trail)
    }

    /// Looks at one place; whether a file is there.
    fn candidate(&mut self, path: &Path, probe: bool, trail: &mut Trail) -> Result<bool, LookupError> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            // It ends in `..`, where no file can be.
            *trail = Trail(None);
            return self.note(path).map(|_| false);
        };
        let spelled = self.cwd.join(folder);
        let folder = self.resolver.enter(&spelled)?;
        let spot = self.resolver.spot(&folder, name)?;
        let is_there = self.note_spot(&spot)?;
        let place = self.keep(&spelled, name, spot, is_there, trail)?;
        if !is_there {
            return Ok(false);
        }
        if self.present.insert(path.as_os_str().to_owned()) {
            let at = match &place {
                Some(place) => Some(place.clone()),
                None => self.resolver.resolve_output(self.cwd, path)?,
            };
            self.fresh.push(Found { path: at.map_or_else(|| path.to_owned(), |at| at.to_absolute()), place });
        }
        if probe {
            self.probed.insert(path.to_owned());
        }
        let suffixed = |name: &OsStr| [name, OsStr::new(".gch")].into_iter().collect::<OsString>();
        let precompiled = suffixed(name);
        let spot = self.resolver.spot(&folder, &precompiled)?;
        if let Resolved::Present(_) = spot.resolved {
            let path = PathBuf::from(suffixed(path.as_os_str()));
            // A folder of that name holds several: which one is taken is gcc's secret.
            if spot.is_folder {
                return Err(LookupError::PrecompiledHeader(path));
            }
            self.precompiled.insert(path);
        } else {
            self.note_spot(&spot)?;
        }
        self.keep(&spelled, &precompiled, spot, false, trail)?;
        Ok(true)
    }

    /// Puts what was found under a name on the trail: a regular file if `is_there`, else nothing. Something else, or a symlink, ends the
    /// trail. The file's place, if it stands there under its own name.
    fn keep(
        &mut self,
        folder: &Path,
        name: &OsStr,
        spot: Spot,
        is_there: bool,
        trail: &mut Trail,
    ) -> Result<Option<RelPath>, LookupError> {
        let place = match spot.resolved {
            Resolved::Absent(place) if !is_there && spot.is_plain => place,
            Resolved::Present(place) if is_there && spot.is_plain => place,
            Resolved::Absent(_) | Resolved::Present(_) => {
                *trail = Trail(None);
                return Ok(None);
            }
        };
        if let Trail(Some(steps)) = trail {
            let folder = self.followed.folder(folder);
            let version = self.version(folder)?;
            steps.push((Step { folder, name: name.to_owned(), place: place.clone(), is_there }, version));
        }
        Ok(is_there.then_some(place))
    }

    /// Notes a spot where nothing is; whether a file is there. A folder is passed over, as compilers do; that it is one is noted by a name
    /// below it.
    fn note_spot(&mut self, spot: &Spot) -> Result<bool, LookupError> {
        let absent = match &spot.resolved {
            Resolved::Present(_) if !spot.is_folder => return Ok(true),
            Resolved::Present(place) => {
                let mark = PathComponent::try_from(FOLDER_MARK).map_err(ResolveError::from)?;
                place.join(&mark).map_err(ResolveError::from)?
            }
            Resolved::Absent(place) => place.clone(),
        };
        self.absent.insert(absent);
        self.bounded().map(|()| false)
    }

    /// The same of a path.
    fn note(&mut self, path: &Path) -> Result<bool, LookupError> {
        let resolved = self.resolver.resolve(self.cwd, path)?;
        let is_folder = matches!(&resolved, Resolved::Present(place) if self.resolver.directories().contains(place));
        self.note_spot(&Spot { resolved, is_folder, is_plain: false })
    }

    /// Where `path` leads, if anything is there; else its absence is noted.
    pub fn look(&mut self, path: &Path) -> Result<Option<RelPath>, LookupError> {
        match self.resolver.resolve(self.cwd, path)? {
            Resolved::Present(place) => Ok(Some(place)),
            Resolved::Absent(place) => {
                self.absent.insert(place);
                self.bounded().map(|()| None)
            }
        }
    }

    fn bounded(&self) -> Result<(), LookupError> {
        if self.absent.len() > MAX_READ_SET { Err(LookupError::TooMany) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::scan::scan;
    use std::fs;

    fn shared(text: &[u8]) -> Arc<Scan> {
        Arc::new(scan(text))
    }

    fn taken(lookups: &mut Lookups<'_>) -> Vec<PathBuf> {
        lookups.take_fresh().into_iter().map(|found| found.path).collect()
    }

    fn rel(path: &Path) -> RelPath {
        RelPath::from_absolute(path).unwrap()
    }

    #[test]
    fn earlier_places_are_noted_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["one", "two", "src"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        fs::write(root.join("two/a.h"), "").unwrap();
        let search =
            SearchPath { quoted: vec![], angled: vec!["one".into(), "two".into()], missing: vec!["zero".into()] };
        let scan = shared(b"#include \"a.h\"\n#if __has_include(<b.h>)\n#endif\n");
        let mut found = Lookups::new(&root, &search, Arc::default()).unwrap();
        found.follow(Path::new("src/x.c"), &scan).unwrap();
        let absent: Vec<_> = ["one/a.h", "one/b.h", "src/a.h", "two/a.h.gch", "two/b.h", "zero"].into();
        assert_eq!(
            found.absent.into_iter().collect::<Vec<_>>(),
            absent.iter().map(|name| rel(&root.join(name))).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_computed_include_guards_every_place() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["one", "two", "src"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        fs::write(root.join("two/a.h"), "").unwrap();
        let search = SearchPath { quoted: vec![], angled: vec!["one".into(), "two".into()], ..SearchPath::default() };
        let (source, header) = (shared(b"#include HEADER\n"), shared(b""));
        let mut found = Lookups::new(&root, &search, Arc::default()).unwrap();
        found.follow(Path::new("src/x.c"), &source).unwrap();
        found.follow(Path::new("two/a.h"), &header).unwrap();
        found.computed(&[Path::new("src/x.c"), Path::new("two/a.h")]).unwrap();
        for name in ["one/a.h", "src/a.h"] {
            assert!(found.absent.contains(&rel(&root.join(name))), "{name}");
        }
    }

    #[test]
    fn a_precompiled_header_is_not_overlooked() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::write(root.join("a.h"), "").unwrap();
        fs::write(root.join("a.h.gch"), "").unwrap();
        let scan = shared(b"#include \"a.h\"\n");
        let search = SearchPath::default();
        let follow = || {
            let mut found = Lookups::new(&root, &search, Arc::default()).unwrap();
            found.follow(Path::new("x.c"), &scan).map(|()| found.precompiled)
        };
        assert_eq!(follow().unwrap(), [PathBuf::from("a.h.gch")].into());
        fs::remove_file(root.join("a.h.gch")).unwrap();
        fs::create_dir(root.join("a.h.gch")).unwrap();
        assert!(matches!(follow(), Err(LookupError::PrecompiledHeader(_))));
    }

    #[test]
    fn files_that_include_each_other_keep_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("inc")).unwrap();
        fs::write(root.join("inc/a.h"), "").unwrap();
        fs::create_dir(root.join("inc/sub")).unwrap();
        let scan = shared(b"#include \"../inc/a.h\"\n#include \"sub\"\n");
        let search = SearchPath::default();
        let mut found = Lookups::new(&root, &search, Arc::default()).unwrap();
        found.follow(Path::new("inc/a.h"), &scan).unwrap();
        // The folder `inc/sub` is no file that an include could mean, but a file in its place would be.
        assert!(found.absent.contains(&rel(&root.join("inc/sub").join(FOLDER_MARK))));
        assert_eq!(taken(&mut found), [root.join("inc/a.h")]);
        found.follow(&root.join("inc/a.h"), &scan).unwrap();
        assert_eq!(taken(&mut found), [root.join("inc/a.h")]);
    }
}
