//! What rustc leaves in the user's folders when a signal ends it, removed by the recorder's log: that tells its folders from those of the
//! compiles beside it, which have names of the same kind in the same place.
//!
//! rustc handles no signal. Beside its outputs it has folders with names drawn at random (metadata, archives, links), objects that
//! were not joined yet, and a session that it had begun. What is removed is called so, and was made by a process of this run, or was about
//! to be when that was ended: all of them are gone. Not here: outputs, which the daemon puts in place; what macros write; compilers of C, which tidy up themselves.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use buildbee_proto::record::{Kind, records};

/// Letters and digits that rustc draws for a folder's name.
const N_RANDOM: usize = 6;
/// What names of folders begin and end with, around those.
const FOLDERS: [(&str, &str); 3] = [("rmeta", ""), ("rustc", ""), (".tmp", ".temp-archive")];
/// In names of objects of parts of a crate.
const PART: &str = ".rcgu.";
/// What the name of an incremental session that is not whole ends with; it begins like that of its lock.
const UNFINISHED: &str = "-working";
const SESSION: &str = "s-";
const LOCK: &str = ".lock";

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temporary {
    Folder,
    /// Of a part of a crate.
    Object,
    /// An incremental session, a folder.
    Session,
}

/// Removes what is left of a run with this log. All its processes must be gone.
pub fn remove(log: &[u8]) {
    for path in own(log) {
        let path = Path::new(OsStr::from_bytes(path));
        let Some(what) = path.file_name().and_then(OsStr::to_str).and_then(temporary) else { continue };
        // Most of it has gone, or has another name.
        let Ok(meta) = fs::symlink_metadata(path) else { continue };
        // What can't be removed stays, as it does where nobody tidies up.
        let _ = match what {
            Temporary::Folder if meta.is_dir() => fs::remove_dir_all(path),
            Temporary::Session if meta.is_dir() => remove_session(path),
            Temporary::Object if meta.is_file() => fs::remove_file(path),
            _ => continue,
        };
    }
}

/// What was made, and what was begun and did not fail. A name that somebody else had in that very place is told by the failure, unless the end
/// came before it: then two drew the same of 62 to the power of 6 names.
fn own(log: &[u8]) -> HashSet<&[u8]> {
    let (mut made, mut begun) = (HashSet::new(), HashSet::new());
    for (kind, path) in records(log).map_while(Result::ok) {
        let _is_news = match kind {
            Kind::Made => made.insert(path),
            Kind::Making => begun.insert(path),
            Kind::NotMade => begun.remove(path),
            _ => false,
        };
    }
    made.extend(begun);
    made
}

/// `None`: nothing that rustc would remove again.
fn temporary(name: &str) -> Option<Temporary> {
    let is_random = |part: &str| part.len() == N_RANDOM && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let around = |(start, end): &(&str, &str)| name.strip_prefix(start)?.strip_suffix(end).map(is_random);
    if FOLDERS.iter().any(|name| around(name) == Some(true)) {
        return Some(Temporary::Folder);
    }
    if name.contains(PART) {
        return Some(Temporary::Object);
    }
    (name.starts_with(SESSION) && name.ends_with(UNFINISHED)).then_some(Temporary::Session)
}

/// With its lock, whose making the log does not tell from a look, and the folder of this crate's sessions if there was none before.
fn remove_session(path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path)?;
    let begin = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(UNFINISHED));
    fs::remove_file(path.with_file_name(format!("{}{LOCK}", begin.unwrap_or_default())))?;
    // Fails where there is something else in it.
    path.parent().map_or(Ok(()), fs::remove_dir)
}

#[cfg(test)]
mod tests {
    use buildbee_proto::record::log_of;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    /// Makes files, and folders where the name ends with a slash.
    fn make(folder: &Path, names: &[&str]) {
        for name in names {
            let path = folder.join(name);
            fs::create_dir_all(if name.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
            if !name.ends_with('/') {
                fs::write(path, name).unwrap();
            }
        }
    }

    fn log(folder: &Path, made: &[&str]) -> Vec<u8> {
        let paths: Vec<String> = made.iter().map(|name| folder.join(name).to_str().unwrap().to_owned()).collect();
        log_of(&paths.iter().map(|path| (Kind::Made, path.trim_end_matches('/').as_bytes())).collect::<Vec<_>>())
    }

    #[test]
    fn temporary_names() {
        for (name, expected) in [
            ("rmetaAb3dEf", Some(Temporary::Folder)),
            ("rustcAb3dEf", Some(Temporary::Folder)),
            (".tmpAb3dEf.temp-archive", Some(Temporary::Folder)),
            ("x-1f.x.5d-cgu.0.rcgu.o", Some(Temporary::Object)),
            ("s-h1-0abc-working", Some(Temporary::Session)),
            ("s-h1-0abc.lock", None),
            ("s-h1-0abc-8w5m", None),
            ("rmeta", None),
            ("rustc-stable", None),
            ("rmetaAb3dEf.rs", None),
            ("libx-1f.rlib", None),
            ("x-1f.d", None),
            ("Cargo.lock", None),
        ] {
            assert_eq!(temporary(name), expected, "{name}");
        }
    }

    #[test]
    fn only_what_this_run_made_goes() {
        let folder = tempfile::tempdir().unwrap();
        let ours =
            ["rmetaAAAAAA/full.rmeta", "rustcAAAAAA/", "x-1.a-cgu.0.rcgu.o", "libx-1.rmeta", "x-1.d", "made.txt"];
        let others = ["rmetaBBBBBB/full.rmeta", "rustcBBBBBB/", "y-1.a-cgu.0.rcgu.o"];
        make(folder.path(), &ours);
        make(folder.path(), &others);
        let made = ["rmetaAAAAAA/", "rmetaAAAAAA/full.rmeta", "rustcAAAAAA/", "x-1.a-cgu.0.rcgu.o", "libx-1.rmeta"];
        let made = [&made[..], &["x-1.d", "made.txt", "rustcGONE00/"]].concat();
        remove(&log(folder.path(), &made));
        assert_eq!(
            names(folder.path()),
            ["libx-1.rmeta", "made.txt", "rmetaBBBBBB", "rustcBBBBBB", "x-1.d", "y-1.a-cgu.0.rcgu.o"]
        );
    }

    #[test]
    fn what_was_being_made_goes_unless_it_was_another_s() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &["rmetaAAAAAA/", "rmetaBBBBBB/", "rustcAAAAAA/", "rustcBBBBBB/", "x-1.rcgu.o"]);
        let path = |name: &str| folder.path().join(name).into_os_string().into_encoded_bytes();
        let paths = ["rmetaAAAAAA", "rmetaBBBBBB", "rustcAAAAAA", "rustcBBBBBB", "x-1.rcgu.o"].map(path);
        let [ours, others, taken, foreign, object] = paths.each_ref().map(Vec::as_slice);
        remove(&log_of(&[
            (Kind::Making, ours),
            (Kind::Making, others),
            (Kind::NotMade, others),
            (Kind::Making, taken),
            (Kind::Made, taken),
            (Kind::NotMade, taken),
            (Kind::NotMade, foreign),
            (Kind::Making, object),
        ]));
        assert_eq!(names(folder.path()), ["rmetaBBBBBB", "rustcBBBBBB"]);
    }

    #[test]
    fn a_session_that_was_begun_goes_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let begun = ["x/s-1-2-working/dep-graph.bin", "x/s-1-2.lock"];
        make(folder.path(), &begun);
        let made = log(folder.path(), &["x/", "x/s-1-2-working/"]);
        remove(&made);
        assert!(names(folder.path()).is_empty());
        // One was there before, and one was done.
        make(folder.path(), &begun);
        make(folder.path(), &["x/s-0-1-abc/dep-graph.bin", "x/s-0-1.lock"]);
        remove(&made);
        remove(&log(folder.path(), &["x/s-0-1-working/", "x/s-0-1-abc/"]));
        assert_eq!(names(&folder.path().join("x")), ["s-0-1-abc", "s-0-1.lock"]);
    }

    #[test]
    fn links_and_what_has_become_something_else_stay() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &["kept/x.rcgu.o/", "rustcBBBBBB"]);
        std::os::unix::fs::symlink("kept", folder.path().join("rustcAAAAAA")).unwrap();
        remove(&log(folder.path(), &["rustcAAAAAA", "rustcBBBBBB", "kept/x.rcgu.o"]));
        assert_eq!(names(folder.path()), ["kept", "rustcAAAAAA", "rustcBBBBBB"]);
        assert_eq!(names(&folder.path().join("kept")), ["x.rcgu.o"]);
        remove(b"no log");
    }
}
