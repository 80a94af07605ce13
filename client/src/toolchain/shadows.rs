//! Notices files that would change what a compiler is, if they appeared: an assembler earlier on its path, a `specs` file, another
//! installation of gcc that clang would prefer. What exists is watched elsewhere, file by file.
//!
//! Asks no compiler; [`capture`](super::capture) knows which names count.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::inputs::absences::Absences;
use crate::inputs::filehash::FileIdentity;

/// Places that matter because nothing is there, and folders whose listing matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Paths that would be taken if they existed. Those that do exist are passed over.
    pub absent: BTreeSet<PathBuf>,
    /// Folders in which any new name may count.
    pub listed: BTreeSet<PathBuf>,
}

/// A folder in which any new name counts.
#[derive(Debug)]
struct Listed {
    folder: PathBuf,
    names: BTreeSet<OsString>,
    /// As it was at the last look, if that look counts.
    seen: Mutex<Option<FileIdentity>>,
}

/// Watches [`Places`].
#[derive(Debug, Default)]
pub struct Shadows {
    /// Names that each folder lacks.
    lacking: Vec<(PathBuf, Vec<Box<str>>)>,
    listed: Vec<Listed>,
    absences: Absences,
}

impl Shadows {
    /// Takes note of how `places` are now.
    pub fn new(places: &Places) -> Self {
        let mut lacking: BTreeMap<PathBuf, BTreeSet<Box<str>>> = BTreeMap::new();
        let mut listed = Vec::new();
        for path in places.absent.iter().chain(&places.listed) {
            if let Some((folder, name)) = first_missing(path) {
                lacking.entry(folder).or_default().insert(name);
            } else if places.listed.contains(path) {
                listed.push(Listed { folder: path.clone(), names: names(path), seen: Mutex::default() });
            }
        }
        let lacking = lacking.into_iter().map(|(folder, names)| (folder, names.into_iter().collect())).collect();
        Self { lacking, listed, absences: Absences::default() }
    }

    /// Whether nothing has appeared. Costs one `stat` a folder where nothing has changed. Blocks.
    pub fn still_clear(&self) -> bool {
        self.lacking.iter().all(|(folder, names)| self.absences.hold(folder, names))
            && self.listed.iter().all(Listed::is_unchanged)
    }
}

impl Shadows {
    /// Folders that [`still_clear`](Self::still_clear) looks at.
    pub fn n_folders(&self) -> usize {
        self.lacking.len() + self.listed.len()
    }
}

impl Listed {
    fn is_unchanged(&self) -> bool {
        let now = SystemTime::now();
        let identity = fs::metadata(&self.folder).ok().map(|meta| FileIdentity::of(&meta));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if identity.is_some() && *seen == identity {
            return true;
        }
        let unchanged = names(&self.folder) == self.names;
        *seen = identity.filter(|identity| unchanged && identity.settled_before(now));
        unchanged
    }
}

/// The deepest folder of `path` that exists, and the name that is missing in it. `None` where nothing is missing.
fn first_missing(path: &Path) -> Option<(PathBuf, Box<str>)> {
    let mut at = path;
    if fs::symlink_metadata(at).is_ok() {
        return None;
    }
    loop {
        let (parent, name) = (at.parent()?, at.file_name()?);
        if parent.is_dir() {
            return Some((parent.to_owned(), name.to_string_lossy().into()));
        }
        at = parent;
    }
}

fn names(folder: &Path) -> BTreeSet<OsString> {
    fs::read_dir(folder)
        .map_or_else(|_| BTreeSet::new(), |entries| entries.flatten().map(|entry| entry.file_name()).collect())
}

/// Where a gcc with these answers to `-print-search-dirs` would take one of `tools` from before it comes to `PATH`, and its `specs`.
/// `machine` is its answer to `-dumpmachine`.
pub fn gcc_places(search_dirs: &str, machine: &str, tools: &[&str]) -> BTreeSet<PathBuf> {
    let folders = |label: &str| -> BTreeSet<PathBuf> {
        let line = search_dirs.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default();
        line.trim().trim_start_matches('=').split(':').map(PathBuf::from).filter(|path| path.is_absolute()).collect()
    };
    let (programs, libraries) = (folders("programs:"), folders("libraries:"));
    let mut places: BTreeSet<PathBuf> = programs.iter().chain(&libraries).map(|folder| folder.join("specs")).collect();
    for tool in tools {
        let full = format!("{machine}-{tool}");
        places.extend(programs.iter().flat_map(|folder| [folder.join(tool), folder.join(&full)]));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(folder: &Path) {
        // A folder changed just now is looked at again each time.
        std::thread::sleep(std::time::Duration::from_millis(40));
        let _ = fs::metadata(folder);
    }

    #[test]
    fn a_name_that_appears_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("bin")).unwrap();
        for appearing in ["bin/as", "gone/deep/as"] {
            let places = Places { absent: [root.join(appearing)].into(), ..Places::default() };
            let shadows = Shadows::new(&places);
            settle(root);
            assert!(shadows.still_clear() && shadows.still_clear());
            fs::write(root.join("bin/other"), "").unwrap();
            fs::write(root.join("other"), "").unwrap();
            assert!(shadows.still_clear(), "another name counts for nothing");
            settle(root);
            assert!(shadows.still_clear());
            fs::create_dir_all(root.join(appearing).parent().unwrap()).unwrap();
            fs::write(root.join(appearing), "").unwrap();
            assert!(!shadows.still_clear() && !shadows.still_clear(), "{appearing}");
        }
    }

    #[test]
    fn a_name_that_appears_right_after_a_look_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("as");
        let shadows = Shadows::new(&Places { absent: [place.clone()].into(), ..Places::default() });
        assert!(shadows.still_clear());
        fs::write(&place, "").unwrap();
        assert!(!shadows.still_clear());
    }

    #[test]
    fn any_new_name_counts_in_a_listed_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("12")).unwrap();
        let shadows = Shadows::new(&Places { listed: [folder.path().to_owned()].into(), ..Places::default() });
        settle(folder.path());
        assert!(shadows.still_clear());
        fs::create_dir(folder.path().join("13")).unwrap();
        assert!(!shadows.still_clear());
        fs::remove_dir(folder.path().join("13")).unwrap();
        assert!(shadows.still_clear());
    }

    #[test]
    fn gcc_says_where_it_would_look() {
        let text = "install: /usr/lib/gcc/m/12/\nprograms: =/usr/lib/gcc/m/12/:/m/bin/:rel/\nlibraries: =/usr/lib/gcc/m/12/:/lib/\n";
        let places = gcc_places(text, "m", &["as"]);
        for place in ["/usr/lib/gcc/m/12/as", "/m/bin/m-as", "/m/bin/specs", "/lib/specs"] {
            assert!(places.contains(Path::new(place)), "{place}");
        }
        assert!(places.iter().all(|place| place.is_absolute()));
    }
}
