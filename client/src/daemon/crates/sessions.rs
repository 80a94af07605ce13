//! Whose an incremental session is: a program and a library of the same name share their folder for sessions, and a session's name does not say
//! which of them it belongs to. Remembered from what compiles were seen to write; a session that nobody was seen to write may be anyone's.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use buildbee_proto::record::{Kind, records};

/// Sessions remembered; beyond it the memory starts over.
const MAX_SESSIONS: usize = 20_000;

/// Sessions by folder, with the first output of the compile that wrote them: that name has the crate's metadata in it.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<PathBuf, PathBuf>>);

impl Sessions {
    /// Remembers those in `folder` that the compile with this log and output wrote.
    pub fn note(&self, folder: &Path, log: &[u8], output: &Path) {
        let made = records(log).filter_map(Result::ok).filter(|(kind, _)| *kind == Kind::Made);
        let within = made.filter_map(|(_, path)| {
            let rest = Path::new(OsStr::from_bytes(path)).strip_prefix(folder).ok()?;
            Some(folder.join(rest.iter().next()?))
        });
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Whether a session was written by a compile with another output.
    pub fn is_anothers(&self, session: &Path, output: &Path) -> bool {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(session).is_some_and(|owner| owner != output)
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
}
