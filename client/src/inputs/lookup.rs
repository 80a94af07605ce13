//! Which names a compile looked for in vain: for each include of each file it read, the places before the one where it was found.
//!
//! A superset, since every branch of every file counts: a name too many costs a needless miss on the day it appears, a name too few
//! would be a wrong hit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use buildbee_proto::limits::MAX_READ_SET;
use buildbee_proto::path::RelPath;
use thiserror::Error;

use super::resolve::{ResolveError, Resolved, Resolver};
use super::scan::{Form, Include, Scan};
use super::search_path::SearchPath;

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

/// What a set of files looks up.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Physical places where nothing is.
    pub absent: BTreeSet<RelPath>,
    /// Files whose existence was asked for (`__has_include`), as spelled; most are read anyway.
    pub probed: BTreeSet<PathBuf>,
}

/// Follows the includes of `files` (as the compiler spells them, with their scans).
pub fn lookups<'a>(
    resolver: &mut Resolver,
    cwd: &Path,
    search: &SearchPath,
    files: impl Iterator<Item = (&'a Path, &'a Scan)>,
) -> Result<Lookups, LookupError> {
    let mut walk =
        Walk { resolver, cwd, search, found: Lookups::default(), done: BTreeSet::new(), present: BTreeSet::new() };
    for folder in &search.missing {
        walk.note(folder)?;
    }
    let mut computed = false;
    let mut listed = Vec::new();
    for (file, scan) in files {
        let folder = file.parent().unwrap_or(Path::new(""));
        for include in &scan.includes {
            walk.include(folder, include, scan.probes.contains(include))?;
        }
        computed |= scan.computed_include;
        listed.push(file);
    }
    if computed {
        walk.computed(&listed)?;
    }
    Ok(walk.found)
}

struct Walk<'a> {
    resolver: &'a mut Resolver,
    cwd: &'a Path,
    search: &'a SearchPath,
    found: Lookups,
    /// Names already followed: the includer's folder counts only for quoted ones.
    done: BTreeSet<(Option<PathBuf>, String, bool, bool)>,
    /// Files that a literal include leads to.
    present: BTreeSet<PathBuf>,
}

impl Walk<'_> {
    fn include(&mut self, folder: &Path, include: &Include, probe: bool) -> Result<(), LookupError> {
        let quoted = include.form == Form::Quoted;
        let key = (quoted.then(|| folder.to_owned()), include.name.clone(), include.next, probe);
        if !self.done.insert(key) {
            return Ok(());
        }
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

    /// Some file names what it includes by a macro: files that were read and that no literal include leads to may have been looked up
    /// at every place, under every name that they can have there.
    fn computed(&mut self, listed: &[&Path]) -> Result<(), LookupError> {
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

    /// Looks at one place; whether something is there.
    fn candidate(&mut self, path: &Path, probe: bool) -> Result<bool, LookupError> {
        if !self.note(path)? {
            return Ok(false);
        }
        self.present.insert(path.to_owned());
        if probe {
            self.found.probed.insert(path.to_owned());
        }
        let mut precompiled = path.as_os_str().to_owned();
        precompiled.push(".gch");
        if self.note(Path::new(&precompiled))? {
            return Err(LookupError::PrecompiledHeader(PathBuf::from(precompiled)));
        }
        Ok(true)
    }

    /// Notes `path` where nothing is there; whether something is.
    fn note(&mut self, path: &Path) -> Result<bool, LookupError> {
        match self.resolver.resolve(self.cwd, path)? {
            Resolved::Present(_) => Ok(true),
            Resolved::Absent(place) => {
                self.found.absent.insert(place);
                if self.found.absent.len() > MAX_READ_SET {
                    return Err(LookupError::TooMany);
                }
                Ok(false)
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
        let mut resolver = Resolver::default();
        let found = lookups(&mut resolver, &root, &search, [(Path::new("src/x.c"), &scan)].into_iter()).unwrap();
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
        let search = SearchPath { quoted: vec![], angled: vec!["one".into(), "two".into()], missing: vec![] };
        let (source, header) = (scan(b"#include HEADER\n"), scan(b""));
        let files = [(Path::new("src/x.c"), &source), (Path::new("two/a.h"), &header)];
        let mut resolver = Resolver::default();
        let found = lookups(&mut resolver, &root, &search, files.into_iter()).unwrap();
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
        let mut resolver = Resolver::default();
        let found = lookups(&mut resolver, &root, &SearchPath::default(), [(Path::new("x.c"), &scan)].into_iter());
        assert!(matches!(found, Err(LookupError::PrecompiledHeader(_))));
    }
}
