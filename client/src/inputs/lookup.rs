//! Which names a compile looked for in vain: for each include of each file it read, the places before the one where it was found.
//!
//! A superset, since every branch of every file counts: a name too many costs a needless miss on the day it appears, a name too few
//! would be a wrong hit.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use buildbee_proto::limits::MAX_READ_SET;
use buildbee_proto::path::{PathComponent, RelPath};
use thiserror::Error;

use super::resolve::{ResolveError, Resolved, Resolver};
use super::scan::{Form, Include, Scan};
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
    /// Numbers of includers' folders, from one.
    folders: HashMap<PathBuf, usize>,
    /// Names already followed, with the includer's folder (zero for those that it does not count for), and whether they were probes.
    done: HashSet<(usize, Include, bool)>,
    /// Files that a literal include leads to, as spelled.
    present: HashSet<PathBuf>,
    /// Those of them that nobody has taken yet.
    fresh: Vec<PathBuf>,
}

impl<'a> Lookups<'a> {
    /// For a compiler that runs in `cwd` and looks in `search`.
    pub fn new(cwd: &'a Path, search: &'a SearchPath) -> Result<Self, LookupError> {
        let mut lookups = Self {
            resolver: Resolver::default(),
            absent: BTreeSet::new(),
            precompiled: BTreeSet::new(),
            probed: BTreeSet::new(),
            cwd,
            search,
            folders: HashMap::new(),
            done: HashSet::new(),
            present: HashSet::new(),
            fresh: Vec::new(),
        };
        for folder in &search.missing {
            lookups.note(folder)?;
        }
        Ok(lookups)
    }

    /// Follows everything that `file` (as spelled) asks for.
    pub fn follow(&mut self, file: &Path, scan: &Scan) -> Result<(), LookupError> {
        let folder = file.parent().unwrap_or(Path::new(""));
        let n_folders = self.folders.len();
        let number = *self.folders.entry(folder.to_owned()).or_insert(n_folders + 1);
        scan.includes.iter().try_for_each(|include| {
            let (counts, probe) = (include.form == Form::Quoted, scan.probes.contains(include));
            let key = (if counts { number } else { 0 }, include.clone(), probe);
            if self.done.insert(key) { self.include(folder, include, probe) } else { Ok(()) }
        })
    }

    /// Files found since the last call: absolute, with a physical folder, so that files that include each other through `..` come back
    /// under the same name. (The last name is kept as spelled: a symlink's own folder is where its quoted includes are looked up.)
    pub fn take_fresh(&mut self) -> Result<Vec<PathBuf>, LookupError> {
        let mut files = Vec::new();
        for spelled in std::mem::take(&mut self.fresh) {
            let place = self.resolver.resolve_output(self.cwd, &spelled)?;
            files.push(place.map_or(spelled, |place| place.to_absolute()));
        }
        Ok(files)
    }

    /// Some of the `listed` files names what it includes by a macro: those that no literal include leads to may have been looked up at
    /// every place, under every name that they can have there.
    pub fn computed(&mut self, listed: &[&Path]) -> Result<(), LookupError> {
        let folders: BTreeSet<&Path> = (listed.iter().filter_map(|file| file.parent()))
            .chain(self.search.quoted.iter().chain(&self.search.angled).map(PathBuf::as_path))
            .collect();
        for file in listed.iter().filter(|file| !self.present.contains(**file)).copied().collect::<Vec<_>>() {
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

    fn include(&mut self, folder: &Path, include: &Include, probe: bool) -> Result<(), LookupError> {
        let quoted = include.form == Form::Quoted;
        if include.name.starts_with('/') {
            self.candidate(Path::new(&include.name), probe)?;
            return Ok(());
        }
        let search = self.search;
        let own = quoted.then_some(folder).into_iter();
        let quoted_places = search.quoted.iter().filter(|_| quoted).map(PathBuf::as_path);
        for place in own.chain(quoted_places).chain(search.angled.iter().map(PathBuf::as_path)) {
            let found = self.candidate(&place.join(&include.name), probe)?;
            // `include_next` starts somewhere in the list: every place may matter.
            if found && !include.next {
                break;
            }
        }
        Ok(())
    }

    /// Looks at one place; whether a file is there.
    fn candidate(&mut self, path: &Path, probe: bool) -> Result<bool, LookupError> {
        if !self.note(path)? {
            return Ok(false);
        }
        if self.present.insert(path.to_owned()) {
            self.fresh.push(path.to_owned());
        }
        if probe {
            self.probed.insert(path.to_owned());
        }
        let mut precompiled = path.as_os_str().to_owned();
        precompiled.push(".gch");
        if let Some(place) = self.look(Path::new(&precompiled))? {
            // A folder of that name holds several: which one is taken is gcc's secret.
            if self.resolver.directories().contains(&place) {
                return Err(LookupError::PrecompiledHeader(PathBuf::from(precompiled)));
            }
            self.precompiled.insert(PathBuf::from(precompiled));
        }
        Ok(true)
    }

    /// Notes `path` where nothing is there; whether a file is. A folder is passed over, as compilers do; that it is one is noted by a
    /// name below it.
    fn note(&mut self, path: &Path) -> Result<bool, LookupError> {
        let Some(place) = self.look(path)? else { return Ok(false) };
        if !self.resolver.directories().contains(&place) {
            return Ok(true);
        }
        let mark = PathComponent::try_from(FOLDER_MARK).map_err(ResolveError::from)?;
        self.absent.insert(place.join(&mark).map_err(ResolveError::from)?);
        Ok(false)
    }

    /// Where `path` leads, if anything is there; else its absence is noted.
    pub fn look(&mut self, path: &Path) -> Result<Option<RelPath>, LookupError> {
        match self.resolver.resolve(self.cwd, path)? {
            Resolved::Present(place) => Ok(Some(place)),
            Resolved::Absent(place) => {
                self.absent.insert(place);
                if self.absent.len() > MAX_READ_SET { Err(LookupError::TooMany) } else { Ok(None) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::scan::scan;
    use std::fs;

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
        let scan = scan(b"#include \"a.h\"\n#if __has_include(<b.h>)\n#endif\n");
        let mut found = Lookups::new(&root, &search).unwrap();
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
        let (source, header) = (scan(b"#include HEADER\n"), scan(b""));
        let mut found = Lookups::new(&root, &search).unwrap();
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
        let scan = scan(b"#include \"a.h\"\n");
        let search = SearchPath::default();
        let follow = || {
            let mut found = Lookups::new(&root, &search).unwrap();
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
        let scan = scan(b"#include \"../inc/a.h\"\n#include \"sub\"\n");
        let search = SearchPath::default();
        let mut found = Lookups::new(&root, &search).unwrap();
        found.follow(Path::new("inc/a.h"), &scan).unwrap();
        // The folder `inc/sub` is no file that an include could mean, but a file in its place would be.
        assert!(found.absent.contains(&rel(&root.join("inc/sub").join(FOLDER_MARK))));
        assert_eq!(found.take_fresh().unwrap(), [root.join("inc/a.h")]);
        found.follow(&root.join("inc/a.h"), &scan).unwrap();
        assert_eq!(found.take_fresh().unwrap(), [root.join("inc/a.h")]);
    }
}
