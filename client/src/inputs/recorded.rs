//! A read set laid out for looking at it again and again: whether everything that a compile read is as it was, and everything that it
//! missed is still missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use buildbee_proto::digest::Digest;
use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::RelPath;
use buildbee_proto::tree::Twin;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

use super::absences::Absences;
use super::filehash::{FileHashes, FileIdentity};
use super::twins;

/// What is known of files, of all compiles. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Content of files that are there.
    pub hashes: FileHashes,
    /// Names that are not.
    pub absences: Absences,
}

/// A folder, and names that it lacks.
pub type Lacking = (PathBuf, Vec<Box<str>>);

/// A read set.
#[derive(Debug)]
pub struct Recorded {
    symlinks: Vec<(PathBuf, String)>,
    /// Folders of files, without those that lie on the way to another.
    folders: Vec<PathBuf>,
    files: Vec<(PathBuf, Digest)>,
    absent: Vec<Lacking>,
    twins: Vec<(u32, Twin)>,
    bytes: usize,
}

impl Recorded {
    /// From the read set as it is stored.
    pub fn new(set: &ReadSet) -> Self {
        let files = set.files.iter().map(|(path, digest)| (path.to_absolute(), *digest)).collect::<Vec<_>>();
        let names = set.files.iter().map(|(path, _)| path).chain(&set.absent);
        let bytes = names.map(|path| path.as_str().len() + size_of::<(PathBuf, Digest)>()).sum();
        Self {
            symlinks: set.symlinks.iter().map(|(path, target)| (path.to_absolute(), target.clone())).collect(),
            folders: innermost_folders(&files),
            files,
            absent: by_folder(&set.absent),
            twins: set.twins.clone(),
            bytes,
        }
    }

    /// Whether all is as it was. Blocks: costs a `stat` a file, one a folder that lacks something, and a look at the way to each file.
    pub fn holds(&self, known: &Known) -> bool {
        let same_target = |(path, target): &(PathBuf, String)| {
            fs::read_link(path).is_ok_and(|now| now.as_os_str() == target.as_str())
        };
        self.symlinks.iter().all(same_target)
            && self.folders.iter().all(|folder| is_reached_plainly(folder))
            && self.files_hold(&known.hashes)
            && lacks(&self.absent, &known.absences)
    }

    fn files_hold(&self, hashes: &FileHashes) -> bool {
        let mut twins = self.twins.iter().map(|(at, _)| *at).peekable();
        let mut stamps = Vec::with_capacity(self.twins.len());
        for (at, (path, digest)) in (0..).zip(&self.files) {
            let Some(identity) = hashes.with_content(path, digest) else { return false };
            if twins.next_if_eq(&at).is_some() {
                stamps.push((*digest, identity.stamp()));
            }
        }
        let now = twins::among(&stamps);
        now.into_iter().map(|(_, twin)| twin).eq(self.twins.iter().map(|(_, twin)| *twin))
    }

    /// Memory that it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The absent names of a read set, by folder.
pub fn by_folder<'a>(absent: impl IntoIterator<Item = &'a RelPath>) -> Vec<Lacking> {
    let mut folders: BTreeMap<&str, Vec<Box<str>>> = BTreeMap::new();
    for path in absent {
        let (folder, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
        folders.entry(folder).or_default().push(name.into());
    }
    folders.into_iter().map(|(folder, names)| (Path::new("/").join(folder), names)).collect()
}

/// Folders as a look found them before it looked for names in them: physical places, and what the kernel said. Only those whose times tell of
/// every change since.
pub type SettledFolders = HashMap<String, FileIdentity>;

/// Whether nothing that a look missed has appeared since: a folder that is as the look found it still lacks what it lacked then. Blocks.
pub fn still_lacks(absent: &[RelPath], folders: &SettledFolders, absences: &Absences) -> bool {
    let is_as_found = |folder: &str| {
        let now = || fs::metadata(Path::new("/").join(folder)).ok();
        folders.get(folder).is_some_and(|found| now().is_some_and(|now| FileIdentity::of(&now) == *found))
    };
    let (mut looked, mut rest) = (HashMap::new(), Vec::new());
    let mut last = ("/", false);
    for path in absent {
        let folder = path.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
        // Sorted, so that most names follow another of their folder.
        if last.0 != folder {
            last = (folder, *looked.entry(folder).or_insert_with(|| is_as_found(folder)));
        }
        if !last.1 {
            rest.push(path);
        }
    }
    rest.is_empty() || lacks(&by_folder(rest), absences)
}

/// Whether nothing that was missed has appeared. Blocks.
fn lacks(absent: &[Lacking], absences: &Absences) -> bool {
    absent.iter().all(|(folder, names)| absences.hold(folder, names))
}

/// The folders of `files` (sorted by path) that contain no other of them.
fn innermost_folders(files: &[(PathBuf, Digest)]) -> Vec<PathBuf> {
    let folders: BTreeSet<&Path> = files.iter().filter_map(|(path, _)| path.parent()).collect();
    let mut innermost: Vec<PathBuf> = Vec::new();
    for folder in folders {
        // What a folder contains follows it.
        if innermost.last().is_some_and(|last| folder.starts_with(last)) {
            innermost.pop();
        }
        innermost.push(folder.to_owned());
    }
    innermost
}

/// Whether no symlink lies on the way to `folder`. Files are recorded where they are, so that there was none; through a new one gcc would find
/// the same content and might spell the names of system headers otherwise.
fn is_reached_plainly(folder: &Path) -> bool {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, folder, how) {
        Ok(_) => true,
        // Kernels before 5.6, and sandboxes that do not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) => fs::canonicalize(folder).is_ok_and(|real| real == folder),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::time::{Duration, SystemTime};

    use super::super::filehash::TICK;
    use super::super::resolve::Resolver;
    use super::*;

    fn change(path: &Path, second: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second) + Duration::from_millis(second % 1000);
        File::options().append(true).open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    #[test]
    fn a_folder_that_became_a_symlink_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for place in ["inc/sys", "src", "copy/sys"] {
            fs::create_dir_all(root.join(place)).unwrap();
        }
        for place in ["inc/a.h", "inc/sys/b.h", "src/x.c", "copy/a.h", "copy/sys/b.h"] {
            fs::write(root.join(place), "same").unwrap();
        }
        let path = |name: &str| RelPath::from_absolute(&root.join(name)).unwrap();
        let files = ["inc/a.h", "inc/sys/b.h", "src/x.c"].map(|name| (path(name), Digest::of(b"same")));
        let set =
            Recorded { twins: Vec::new(), ..Recorded::new(&ReadSet { files: files.to_vec(), ..ReadSet::default() }) };
        assert_eq!(set.folders, [root.join("inc/sys"), root.join("src")]);
        let reached = || set.folders.iter().all(|folder| is_reached_plainly(folder));
        assert!(reached());
        fs::rename(root.join("inc"), root.join("old")).unwrap();
        std::os::unix::fs::symlink("copy", root.join("inc")).unwrap();
        assert!(fs::read(root.join("inc/sys/b.h")).is_ok() && !reached());
        assert!(!set.holds(&Known::default()));
    }

    #[test]
    fn a_folder_that_changed_is_looked_into_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["one", "two", "two/inner"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        fs::write(root.join("file"), "").unwrap();
        std::thread::sleep(TICK * 2);
        let names = ["one/a.h", "two/a.h", "two/inner/a.h", "two/inner/b.h", "gone/a.h", "file/a.h"];
        let mut resolver = Resolver::default();
        let mut absent = Vec::new();
        for name in names {
            let super::super::resolve::Resolved::Absent(place) = resolver.resolve(&root, Path::new(name)).unwrap()
            else {
                panic!("{name} is there")
            };
            absent.push(place);
        }
        absent.sort();
        let folders: SettledFolders =
            resolver.settled_folders().map(|(place, identity)| (place.as_str().to_owned(), *identity)).collect();
        let lacks = || still_lacks(&absent, &folders, &Absences::default());
        assert!(lacks() && still_lacks(&absent, &SettledFolders::default(), &Absences::default()));
        fs::write(root.join("two/other.h"), "").unwrap();
        assert!(lacks(), "another name");
        for name in ["one/a.h", "two/inner/b.h", "two/a.h", "gone"] {
            fs::write(root.join(name), "").unwrap();
            assert!(!lacks(), "{name}");
            fs::remove_file(root.join(name)).unwrap();
            assert!(lacks(), "{name} is gone again");
        }
        fs::remove_dir(root.join("two/inner")).unwrap();
        assert!(lacks());
        fs::create_dir(root.join("elsewhere")).unwrap();
        fs::write(root.join("elsewhere/a.h"), "").unwrap();
        std::os::unix::fs::symlink("../elsewhere", root.join("two/inner")).unwrap();
        assert!(!lacks(), "another folder in its place");
    }

    #[test]
    fn a_set_holds_while_its_twins_are_related_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| folder.path().join(name));
        for path in &paths {
            fs::write(path, "same").unwrap();
            change(path, 1_600_000_000);
        }
        fs::remove_file(&paths[2]).unwrap();
        fs::hard_link(&paths[0], &paths[2]).unwrap();
        let set = || {
            let files = paths.each_ref().map(|path| (RelPath::from_absolute(path).unwrap(), Digest::of(b"same")));
            let stamps = paths.each_ref().map(|path| FileIdentity::of(&fs::metadata(path).unwrap()).stamp());
            let twins = twins::among(&stamps.map(|stamp| (Digest::of(b"same"), stamp)));
            ReadSet { files: files.to_vec(), twins, ..ReadSet::default() }
        };
        let known = Known::default();
        let hold = |set: &ReadSet| Recorded::new(set).holds(&known);
        let first = set();
        assert!(hold(&first) && hold(&ReadSet::default()));
        // All at another time: still related as before.
        change(&paths[0], 1_700_000_001);
        assert!(!hold(&first));
        change(&paths[1], 1_700_000_001);
        assert!(hold(&first));
        // The link becomes a file of its own.
        fs::remove_file(&paths[2]).unwrap();
        assert!(!hold(&first));
        fs::write(&paths[2], "same").unwrap();
        change(&paths[2], 1_700_000_001);
        assert!(!hold(&first) && hold(&set()));
    }
}
