//! What a crate's compile read and asked for, kept with every path in its place, and whether it is so still. Blocks: it stats, and reads what
//! changed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use buildbee_proto::digest::Digest;
use buildbee_proto::limits::MAX_READ_SET;
use buildbee_proto::outcome::{ReadSet, names_digest};
use buildbee_proto::path::RelPath;
use thiserror::Error;

use crate::inputs::absences::Absences;
use crate::inputs::filehash::FileHashes;
use crate::inputs::recorded::{Known, Lacking, by_folder};
use crate::rust::respell::Respell;
use crate::rust::roots::{RootKind, Roots};

/// Stands for every folder above the workspace: a name that is missing there is missing in each of them.
const ABOVE: &str = "/buildbee.d/above";

/// Names in one folder that is listed; a folder with more is not looked through.
const MAX_NAMES: usize = 100_000;

/// One caller's spelling of paths and variables.
#[derive(Debug)]
pub struct Spelling<'a> {
    places: Respell,
    reals: Respell,
    workspace: Option<PathBuf>,
    env: &'a [(String, String)],
    odd: &'a [String],
}

impl<'a> Spelling<'a> {
    /// For `roots`, with the caller's environment, and the names of variables in it that are not text.
    pub fn new(roots: &Roots, env: &'a [(String, String)], odd: &'a [String]) -> Self {
        let workspace = roots.real(RootKind::Workspace).map(Path::to_owned);
        Self { places: roots.places(), reals: roots.reals(), workspace, env, odd }
    }

    /// Where something stands here.
    pub fn real(&self, place: &RelPath) -> PathBuf {
        self.reals.path(&place.to_absolute())
    }

    /// The place of an absolute path.
    pub fn place(&self, real: &Path) -> Option<RelPath> {
        RelPath::from_absolute(&self.places.path(real)).ok()
    }

    /// Places to real folders.
    pub fn reals(&self) -> &Respell {
        &self.reals
    }

    /// Real folders to places.
    pub fn places(&self) -> &Respell {
        &self.places
    }

    /// The folders above the workspace, up to the top; none where there is no workspace.
    pub(super) fn above(&self) -> Option<impl Iterator<Item = &Path>> {
        self.workspace.as_deref().map(|folder| folder.ancestors().skip(1))
    }

    /// Whether a folder, in its place, still has none of these names.
    fn lacks(&self, folder: &Path, names: &[Box<str>], absences: &Absences) -> bool {
        if folder == Path::new(ABOVE) {
            return self.above().is_some_and(|mut above| above.all(|folder| absences.hold(folder, names)));
        }
        absences.hold(&self.reals.path(folder), names)
    }

    /// A variable's value with paths in their places; `Err` where it is not text.
    fn variable(&self, name: &str) -> Result<Option<String>, ()> {
        if self.odd.iter().any(|odd| odd == name) {
            return Err(());
        }
        let found = self.env.iter().find(|(known, _)| known == name);
        Ok(found.map(|(_, value)| self.places.text(value)))
    }
}

/// One result that a question had, with what must be as it was.
#[derive(Debug)]
pub struct Candidate {
    /// Its action.
    pub action: Digest,
    set: ReadSet,
    absent: Vec<Lacking>,
}

impl Candidate {
    /// From a manifest's entry.
    pub fn new(action: Digest, set: ReadSet) -> Self {
        Self { absent: by_folder(&set.absent), action, set }
    }

    /// Whether everything is as it was, for a caller who spells it so.
    pub fn holds(&self, spelling: &Spelling<'_>, known: &Known) -> bool {
        let set = &self.set;
        set.env.iter().all(|(name, value)| spelling.variable(name).as_ref() == Ok(value))
            && set.files.iter().all(|(place, digest)| known.hashes.leads_to(&spelling.real(place), digest))
            && set.symlinks.iter().all(|(place, target)| {
                let now = fs::read_link(spelling.real(place));
                now.is_ok_and(|now| now == spelling.reals.path(Path::new(target)))
            })
            && set.listed.iter().all(|(place, names)| is_listed(&spelling.real(place), names))
            && self.absent.iter().all(|(folder, names)| spelling.lacks(folder, names, &known.absences))
    }

    /// Memory that it takes, about.
    pub fn bytes(&self) -> usize {
        let names = self.set.files.iter().map(|(path, _)| path).chain(&self.set.absent);
        let variables =
            self.set.env.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len) + 64);
        names.map(|path| path.as_str().len() + 80).chain(variables).sum::<usize>() + size_of::<Self>()
    }
}

/// In place of its names, the mark of a folder that only has to be there. No names have this digest, since a NUL follows each.
const THERE: &[u8] = b"there";

fn is_listed(folder: &Path, names: &Digest) -> bool {
    if *names == Digest::of(THERE) { folder.is_dir() } else { names_of(folder).is_ok_and(|now| now == *names) }
}

/// Digest of the names in a folder.
pub fn names_of(folder: &Path) -> io::Result<Digest> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        if names.len() >= MAX_NAMES {
            return Err(io::Error::other("too many names"));
        }
        names.push(entry?.file_name().into_vec());
    }
    Ok(names_digest(&mut names))
}

/// What a compile was seen to use, in real spelling, absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Files that it read.
    pub files: BTreeSet<PathBuf>,
    /// Names that it looked for in vain.
    pub absent: BTreeSet<PathBuf>,
    /// Names that it looked for in vain in each folder above the workspace.
    pub absent_above: BTreeSet<OsString>,
    /// Folders that it listed.
    pub listed: BTreeSet<PathBuf>,
    /// Variables that it asked for.
    pub env: BTreeSet<String>,
    /// Those of them asked for after a library was read, perhaps by a macro.
    pub late_env: BTreeSet<String>,
    /// Folders that it saw to be there, no more.
    pub there: BTreeSet<PathBuf>,
    /// Symlinks whose targets it asked for.
    pub links: BTreeSet<(PathBuf, PathBuf)>,
    /// Whether it looked into a folder that a root stands in.
    pub above: bool,
    /// Those that the crate's text names (`env!`) for its value, and not for a file's name.
    pub spoken: BTreeSet<String>,
}

/// Why nobody can say what a compile read.
#[derive(Debug, Error)]
pub enum Uncertain {
    /// A file changed while the compiler ran, or is gone.
    #[error("{path} changed meanwhile", path = .0.display())]
    Changed(PathBuf),
    /// A path that no read set can hold.
    #[error("{path} is an unusual path", path = .0.display())]
    Path(PathBuf),
    /// A variable that is not text.
    #[error("the variable {0} is not UTF-8")]
    Variable(String),
    /// A folder could not be listed.
    #[error("cannot list {path}: {error}", path = path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// More than a read set holds.
    #[error("more than {MAX_READ_SET} files are read")]
    TooMany,
}

/// The read set of a compile that began at `start` and has ended.
///
/// What lies in the target folder is written by the build itself, which starts a compile when its inputs are there: such a file may be as
/// young as the compile. Every other one must be clearly older.
pub fn of(
    seen: &Seen,
    roots: &Roots,
    spelling: &Spelling<'_>,
    hashes: &FileHashes,
    start: SystemTime,
) -> Result<ReadSet, Uncertain> {
    if seen.files.len() + seen.absent.len() > MAX_READ_SET {
        return Err(Uncertain::TooMany);
    }
    let place = |path: &Path| spelling.place(path).ok_or_else(|| Uncertain::Path(path.to_owned()));
    let target = roots.real(RootKind::Target);
    let mut set = ReadSet::default();
    for path in &seen.files {
        let hashed = hashes.hash(path).map_err(|_| Uncertain::Changed(path.clone()))?;
        let is_built = target.is_some_and(|target| path.starts_with(target));
        let is_old =
            if is_built { hashed.identity.written_before(start) } else { hashed.identity.settled_before(start) };
        if !is_old {
            return Err(Uncertain::Changed(path.clone()));
        }
        set.files.push((place(path)?, hashed.digest));
    }
    for path in &seen.absent {
        if fs::symlink_metadata(path).is_ok() {
            return Err(Uncertain::Changed(path.clone()));
        }
        set.absent.push(place(path)?);
    }
    for name in &seen.absent_above {
        let above = spelling.above().into_iter().flatten().map(|folder| folder.join(name));
        if let Some(path) = above.into_iter().find(|path| fs::symlink_metadata(path).is_ok()) {
            return Err(Uncertain::Changed(path));
        }
        set.absent.push(place(&Path::new(ABOVE).join(name))?);
    }
    for path in &seen.listed {
        let names = names_of(path).map_err(|error| Uncertain::Folder { path: path.clone(), error })?;
        set.listed.push((place(path)?, names));
    }
    for path in seen.there.difference(&seen.listed) {
        set.listed.push((place(path)?, Digest::of(THERE)));
    }
    for (path, target) in &seen.links {
        let target = spelling.places.path(target);
        let target = target.into_os_string().into_string().map_err(|_| Uncertain::Path(path.clone()))?;
        set.symlinks.push((place(path)?, target));
    }
    for name in &seen.env {
        let value = spelling.variable(name).map_err(|()| Uncertain::Variable(name.clone()))?;
        set.env.push((name.clone(), value));
    }
    sort(&mut set);
    Ok(set)
}

/// Two names for one file have one place: what a root and a folder in it are called may meet.
fn sort(set: &mut ReadSet) {
    set.files.sort();
    set.files.dedup_by(|one, other| one.0 == other.0);
    set.absent.sort();
    set.absent.dedup();
    set.symlinks.sort();
    set.symlinks.dedup_by(|one, other| one.0 == other.0);
    set.listed.sort();
    set.listed.dedup_by(|one, other| one.0 == other.0);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rust::roots::PathSetting;

    fn at(folder: &Path) -> Roots {
        Roots::new(PathSetting::Portable, [(RootKind::Workspace, folder)])
    }

    fn env(value: &str) -> Vec<(String, String)> {
        vec![("WHERE".to_owned(), value.to_owned())]
    }

    /// Two checkouts with the same files; what a compile in the first one read, and whether it holds in the second after a change there.
    fn holds_after(change: impl Fn(&Path), value: &str) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let checkouts = ["one", "two"].map(|name| folder.path().join(name));
        for checkout in &checkouts {
            fs::create_dir_all(checkout.join("src")).unwrap();
            fs::write(checkout.join("src/lib.rs"), "mod a;").unwrap();
            std::os::unix::fs::symlink("lib.rs", checkout.join("src/link.rs")).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
        let [one, two] = &checkouts;
        let seen = Seen {
            files: [one.join("src/lib.rs")].into(),
            absent: [one.join("src/a.rs")].into(),
            listed: [one.join("src")].into(),
            there: [one.join("src"), one.clone()].into(),
            links: [(one.join("src/link.rs"), PathBuf::from("lib.rs"))].into(),
            env: ["WHERE".to_owned(), "UNSET".to_owned()].into(),
            ..Seen::default()
        };
        let first = env(&format!("{}/src", one.display()));
        let spelling = Spelling::new(&at(one), &first, &[]);
        let set = of(&seen, &at(one), &spelling, &FileHashes::default(), SystemTime::now()).unwrap();
        let candidate = Candidate::new(Digest::of(b"action"), set);
        change(two);
        let second = env(&value.replace("TWO", &two.display().to_string()));
        candidate.holds(&Spelling::new(&at(two), &second, &[]), &Known::default())
    }

    #[test]
    fn what_holds_in_one_checkout_holds_in_another_until_it_changes() {
        let same = "TWO/src";
        assert!(holds_after(|_| {}, same));
        assert!(!holds_after(|_| {}, "/elsewhere"));
        assert!(!holds_after(|two| fs::write(two.join("src/lib.rs"), "mod b;").unwrap(), same));
        assert!(!holds_after(|two| fs::write(two.join("src/a.rs"), "").unwrap(), same));
        assert!(!holds_after(|two| fs::write(two.join("src/new.txt"), "").unwrap(), same), "a listed folder");
        assert!(holds_after(|two| fs::write(two.join("new.txt"), "").unwrap(), same), "a folder that is not listed");
        let relink = |two: &Path| {
            fs::remove_file(two.join("src/link.rs")).unwrap();
            std::os::unix::fs::symlink("../x", two.join("src/link.rs")).unwrap();
        };
        assert!(!holds_after(relink, same));
    }

    #[test]
    fn settings_that_no_folder_above_has() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["a/one", "b/c/two"].map(|name| folder.path().join(name));
        for checkout in [&one, &two] {
            fs::create_dir_all(checkout).unwrap();
        }
        let seen = Seen { absent_above: ["bb-clippy.toml".into()].into(), ..Seen::default() };
        let spelling = Spelling::new(&at(&one), &[], &[]);
        let known = FileHashes::default();
        let set = of(&seen, &at(&one), &spelling, &known, SystemTime::now()).unwrap();
        let candidate = Candidate::new(Digest::of(b"action"), set);
        let holds = |checkout: &Path| candidate.holds(&Spelling::new(&at(checkout), &[], &[]), &Known::default());
        assert!(holds(&one) && holds(&two));
        fs::write(folder.path().join("b/bb-clippy.toml"), "").unwrap();
        assert!(holds(&one) && !holds(&two));
        let elsewhere = Roots::new(PathSetting::Portable, [(RootKind::Target, two.as_path())]);
        assert!(
            !candidate.holds(&Spelling::new(&elsewhere, &[], &[]), &Known::default()),
            "it is not known above what"
        );
        fs::write(folder.path().join("bb-clippy.toml"), "").unwrap();
        assert!(!holds(&one));
        assert!(matches!(of(&seen, &at(&one), &spelling, &known, SystemTime::now()), Err(Uncertain::Changed(_))));
    }

    #[test]
    fn a_file_as_young_as_the_compile_is_not_certain() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.rs");
        let start = SystemTime::now();
        fs::write(&path, "").unwrap();
        let seen = Seen { files: [path].into(), ..Seen::default() };
        let set =
            of(&seen, &at(folder.path()), &Spelling::new(&at(folder.path()), &[], &[]), &FileHashes::default(), start);
        assert!(matches!(set, Err(Uncertain::Changed(_))));
    }
}
