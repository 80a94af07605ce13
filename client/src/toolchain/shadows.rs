//! Notices files that would change what a compiler is, if they appeared: an assembler earlier on its path, a `specs` file, another
//! installation of gcc that clang would prefer. What exists is watched elsewhere, file by file.
//!
//! A new name changes the times of its folder, so that one `stat` a folder tells that nothing has appeared; the names are looked at again
//! only where a folder has changed. Asks no compiler; [`capture`](super::capture) knows which names count.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much older than the moment of a look a folder's times must be for the look to count later on. Kernel ticks are at most 10 ms.
const TICK: Duration = Duration::from_millis(20);

/// Places that matter because nothing is there, and folders whose listing matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Paths that would be taken if they existed. Those that do exist are passed over.
    pub absent: BTreeSet<PathBuf>,
    /// Folders in which any new name may count.
    pub listed: BTreeSet<PathBuf>,
}

/// What the kernel says of a folder; `None` where there is none.
type Identity = Option<(u64, u64, i128, i128)>;

/// One folder, and what must not appear in it.
#[derive(Debug, Default)]
struct Watched {
    absent: BTreeSet<OsString>,
    /// All names in the folder, if any new one may count.
    listing: Option<BTreeSet<OsString>>,
    /// As it was at the last look, where that look counts.
    seen: Option<Identity>,
}

/// Watches [`Places`].
#[derive(Debug, Default)]
pub struct Shadows {
    folders: Mutex<BTreeMap<PathBuf, Watched>>,
}

impl Shadows {
    /// Takes note of how `places` are now.
    pub fn new(places: &Places) -> Self {
        let mut folders: BTreeMap<PathBuf, Watched> = BTreeMap::new();
        for path in &places.absent {
            if let Some((folder, name)) = first_missing(path) {
                folders.entry(folder).or_default().absent.insert(name);
            }
        }
        for path in &places.listed {
            match first_missing(path) {
                Some((folder, name)) => {
                    folders.entry(folder).or_default().absent.insert(name);
                }
                None => folders.entry(path.clone()).or_default().listing = Some(listing(path)),
            }
        }
        // The first check sets the times: a name that appeared since is seen by it.
        Self { folders: Mutex::new(folders) }
    }

    /// Whether nothing has appeared. Costs one `stat` a folder where nothing has changed.
    pub fn still_clear(&self) -> bool {
        let now = SystemTime::now();
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        folders.iter_mut().all(|(folder, watched)| {
            let identity = identity(folder);
            if watched.seen == Some(identity) {
                return true;
            }
            let absent = |name: &OsString| {
                fs::symlink_metadata(folder.join(name)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            };
            let clear = watched.absent.iter().all(absent)
                && watched.listing.as_ref().is_none_or(|before| *before == listing(folder));
            watched.seen = (clear && is_settled(identity, now)).then_some(identity);
            clear
        })
    }
}

/// The deepest folder of `path` that exists, and the name that is missing in it. `None` where nothing is missing.
fn first_missing(path: &Path) -> Option<(PathBuf, OsString)> {
    let mut at = path;
    if fs::symlink_metadata(at).is_ok() {
        return None;
    }
    loop {
        let (parent, name) = (at.parent()?, at.file_name()?);
        if parent.is_dir() {
            return Some((parent.to_owned(), name.to_owned()));
        }
        at = parent;
    }
}

fn identity(folder: &Path) -> Identity {
    let meta = fs::metadata(folder).ok()?;
    let ns = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let times = (ns(meta.mtime(), meta.mtime_nsec()), ns(meta.ctime(), meta.ctime_nsec()));
    Some((meta.dev(), meta.ino(), times.0, times.1))
}

/// Whether a later change would show. A folder that is not there has no times, and none are needed.
fn is_settled(identity: Identity, moment: SystemTime) -> bool {
    let moment = moment.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(TICK).as_nanos();
    let moment = i128::try_from(moment).unwrap_or(i128::MAX);
    identity.is_none_or(|(_, _, mtime, ctime)| mtime < moment && ctime < moment)
}

fn listing(folder: &Path) -> BTreeSet<OsString> {
    fs::read_dir(folder)
        .map_or_else(|_| BTreeSet::new(), |names| names.flatten().map(|entry| entry.file_name()).collect())
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
        std::thread::sleep(TICK * 2);
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
