//! Whose an incremental session is: a program and a library of the same name share their folder for sessions, and a session's name does not say
//! which of them it belongs to; so do all build scripts of a workspace. Remembered from what compiles were seen to write, which is known when
//! they have ended; one that came while such a compile is under way is that one's. A session that nobody was seen to write may be anyone's.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use buildbee_proto::record::{Kind, records};

/// Sessions remembered; beyond it the memory starts over.
const MAX_SESSIONS: usize = 20_000;

/// What is known of sessions.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By folder, with the first output of the compile that wrote them: that name has the crate's metadata in it.
    owners: HashMap<PathBuf, PathBuf>,
    /// As many as there are calls at most.
    under_way: Vec<Compile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Compile {
    folder: PathBuf,
    crate_name: String,
    output: PathBuf,
    since: SystemTime,
}

/// A compile that may write a session, until this is dropped.
#[derive(Debug)]
pub struct UnderWay<'a> {
    sessions: &'a Sessions,
    compile: Compile,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.sessions.state();
        if let Some(place) = state.under_way.iter().position(|compile| *compile == self.compile) {
            state.under_way.swap_remove(place);
        }
    }
}

/// Whether a session of this name is one of a crate of that name: what follows has no hyphen in it, and nor has a crate's name.
pub fn is_of(session: &OsStr, crate_name: &str) -> bool {
    session.as_bytes().strip_prefix(crate_name.as_bytes()).is_some_and(|rest| rest.starts_with(b"-"))
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A compile that may write a session into `folder` begins.
    pub fn begin(&self, folder: PathBuf, crate_name: &str, output: PathBuf) -> UnderWay<'_> {
        let compile = Compile { folder, crate_name: crate_name.to_owned(), output, since: SystemTime::now() };
        self.state().under_way.push(compile.clone());
        UnderWay { sessions: self, compile }
    }

    /// Remembers those in `folder` that the compile with this log and output wrote.
    pub fn note(&self, folder: &Path, log: &[u8], output: &Path) {
        let made = records(log).filter_map(Result::ok).filter(|(kind, _)| *kind == Kind::Made);
        let within = made.filter_map(|(_, path)| {
            let rest = Path::new(OsStr::from_bytes(path)).strip_prefix(folder).ok()?;
            Some(folder.join(rest.iter().next()?))
        });
        let owners = &mut self.state().owners;
        for session in within {
            if owners.get(&session).is_some_and(|owner| owner == output) {
                continue;
            }
            if owners.len() >= MAX_SESSIONS {
                owners.clear();
            }
            owners.insert(session, output.to_owned());
        }
    }

    /// Whether a session was written by a compile with another output. Blocks.
    pub fn is_anothers(&self, session: &Path, output: &Path) -> bool {
        let state = self.state();
        if let Some(owner) = state.owners.get(session) {
            return owner != output;
        }
        let (Some(folder), Some(name)) = (session.parent(), session.file_name()) else { return false };
        let may_write = |it: &&Compile| it.folder == folder && it.output != output && is_of(name, &it.crate_name);
        let since: Vec<SystemTime> = state.under_way.iter().filter(may_write).map(|it| it.since).collect();
        drop(state);
        // A file system that does not tell leaves it anyone's.
        let created = || fs::metadata(session).and_then(|meta| meta.created()).ok();
        !since.is_empty() && created().is_some_and(|created| since.iter().any(|since| created >= *since))
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::record::log_of;

    use super::*;

    #[test]
    fn a_session_is_its_writers() {
        let sessions = Sessions::default();
        let (folder, library, program) =
            (Path::new("/t/incremental"), Path::new("/t/libx-1.rmeta"), Path::new("/t/x-2"));
        let session = folder.join("x-0abc");
        assert!(!sessions.is_anothers(&session, program));
        let made =
            ["/t/incremental/x-0abc/s-1/dep-graph.bin", "/t/libx-1.rmeta"].map(|path| (Kind::Made, path.as_bytes()));
        sessions.note(folder, &log_of(&made), library);
        assert!(sessions.is_anothers(&session, program) && !sessions.is_anothers(&session, library));
        assert!(!sessions.is_anothers(&folder.join("x-1abc"), program), "nobody's");
    }

    #[test]
    fn what_came_during_anothers_compile_is_that_ones() {
        let target = tempfile::tempdir().unwrap();
        let (sessions, folder) = (Sessions::default(), target.path());
        let pause = || std::thread::sleep(std::time::Duration::from_millis(30));
        let make = |name: &str| {
            fs::create_dir(folder.join(name)).unwrap();
            folder.join(name)
        };
        let [one, two] = ["/t/build_script_build-1", "/t/build_script_build-2"].map(Path::new);
        let before = make("build_script_build-0abc");
        if fs::metadata(&before).unwrap().created().is_err() {
            return;
        }
        pause();
        let under_way = sessions.begin(folder.to_owned(), "build_script_build", one.to_owned());
        pause();
        let after = make("build_script_build-1abc");
        assert!(sessions.is_anothers(&after, two) && !sessions.is_anothers(&after, one));
        assert!(!sessions.is_anothers(&before, two), "it was there before");
        assert!(!sessions.is_anothers(&make("build_script-1abc"), two), "another crate's");
        drop(under_way);
        assert!(!sessions.is_anothers(&after, two), "nobody knows any more");
    }
}
