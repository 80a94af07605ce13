//! Remembers which names a folder lacks, so that a look at hundreds of them costs one `stat` of their folder.
//!
//! A name can't appear in a folder without changing the folder's times, on a file system whose times can be believed. What was seen to
//! be absent counts as long as the folder is the same one with the same times, and these were clearly older than the look; in a folder
//! that changes all the time, such as one that objects are written to, each name is looked at each time. The name [`FOLDER_MARK`] stands
//! for the folder itself: it is lacking as long as no file has taken the folder's place.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::devices::Devices;
use super::filehash::FileIdentity;
use super::lookup::FOLDER_MARK;

/// Names remembered, of all folders; beyond it the memory starts over.
const MAX_NAMES: usize = 200_000;

/// What a folder lacked at a time.
#[derive(Debug)]
struct Folder {
    identity: FileIdentity,
    lacks: HashSet<Box<str>>,
}

#[derive(Debug, Default)]
struct Memory {
    folders: HashMap<PathBuf, Folder>,
    n_names: usize,
}

/// The memory. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Absences {
    memory: Arc<Mutex<Memory>>,
    devices: Arc<Devices>,
}

impl Absences {
    /// Whether `folder` (absolute) has none of `names`. Blocks.
    pub fn hold(&self, folder: &Path, names: &[Box<str>]) -> bool {
        let now = SystemTime::now();
        // Before the names are looked at: one that appears meanwhile gives the folder another time.
        let identity = fs::metadata(folder).ok().filter(fs::Metadata::is_dir).map(|meta| FileIdentity::of(&meta));
        let unknown = match &identity {
            Some(identity) => self.unknown(folder, identity, names),
            None => names.iter().map(|name| &**name).collect(),
        };
        if !unknown.iter().all(|name| is_absent(&folder.join(name))) {
            return false;
        }
        if let Some(identity) = identity
            && !unknown.is_empty()
            && identity.settled_before(now)
            && self.devices.believes(identity.device(), || nix::sys::statfs::statfs(folder))
        {
            self.remember(folder, identity, &unknown);
        }
        true
    }

    /// Those of `names` that are not known to be absent from the folder as it is.
    fn unknown<'a>(&self, folder: &Path, identity: &FileIdentity, names: &'a [Box<str>]) -> Vec<&'a str> {
        let memory = self.memory();
        let known = memory.folders.get(folder).filter(|known| known.identity == *identity);
        let is_known = |name: &&str| known.is_some_and(|known| known.lacks.contains(*name));
        names.iter().map(|name| &**name).filter(|name| !is_known(name)).collect()
    }

    fn remember(&self, folder: &Path, identity: FileIdentity, names: &[&str]) {
        let mut memory = self.memory();
        if memory.n_names + names.len() > MAX_NAMES {
            *memory = Memory::default();
        }
        let Memory { folders, n_names } = &mut *memory;
        let known = folders.entry(folder.to_owned()).or_insert_with(|| Folder { identity, lacks: HashSet::new() });
        if known.identity != identity {
            *n_names -= known.lacks.len();
            *known = Folder { identity, lacks: HashSet::new() };
        }
        let before = known.lacks.len();
        known.lacks.extend(names.iter().map(|name| Box::from(*name)));
        *n_names += known.lacks.len() - before;
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A count that is off after a panic only moves the day on which the memory starts over.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_absent(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        // A file stands where a folder was: not the same, if a compiler passed the folder over.
        Err(error) => error.kind() == io::ErrorKind::NotADirectory && !path.ends_with(FOLDER_MARK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn settle() {
        std::thread::sleep(super::super::filehash::TICK * 2);
    }

    #[test]
    fn a_name_that_appears_in_a_remembered_folder_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let absences = Absences::default();
        let wanted = names(&["a.h", "b.h"]);
        settle();
        assert!(absences.hold(folder.path(), &wanted));
        assert_eq!(absences.memory().n_names, 2);
        fs::write(folder.path().join("c.h"), "").unwrap();
        assert!(absences.hold(folder.path(), &wanted));
        fs::write(folder.path().join("b.h"), "").unwrap();
        assert!(!absences.hold(folder.path(), &wanted));
        assert!(absences.hold(folder.path(), &wanted[..1]));
        fs::remove_file(folder.path().join("b.h")).unwrap();
        settle();
        assert!(absences.hold(folder.path(), &wanted));
        assert_eq!(absences.memory().n_names, 2);
    }

    #[test]
    fn a_folder_that_has_just_changed_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let absences = Absences::default();
        fs::write(folder.path().join("c.h"), "").unwrap();
        assert!(absences.hold(folder.path(), &names(&["a.h"])));
        assert_eq!(absences.memory().n_names, 0);
    }

    #[test]
    fn another_folder_in_the_same_place_is_another_folder() {
        let root = tempfile::tempdir().unwrap();
        let (place, other) = (root.path().join("inc"), root.path().join("other"));
        fs::create_dir(&place).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("a.h"), "").unwrap();
        settle();
        let absences = Absences::default();
        assert!(absences.hold(&place, &names(&["a.h"])));
        fs::rename(&place, root.path().join("away")).unwrap();
        std::os::unix::fs::symlink(&other, &place).unwrap();
        assert!(!absences.hold(&place, &names(&["a.h"])));
        fs::remove_file(&place).unwrap();
        assert!(absences.hold(&place, &names(&["a.h"])), "nothing is in a folder that is gone");
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("x.h");
        let absences = Absences::default();
        let absent = |folder: &Path, name: &str| absences.hold(folder, &names(&[name]));
        let all = || (absent(folder.path(), "x.h"), absent(&place, FOLDER_MARK), absent(&place, "y.h"));
        assert_eq!(all(), (true, true, true));
        fs::create_dir(&place).unwrap();
        settle();
        assert_eq!(all(), (false, true, true));
        fs::remove_dir(&place).unwrap();
        fs::write(&place, "").unwrap();
        assert_eq!(all(), (false, false, true));
    }
}
