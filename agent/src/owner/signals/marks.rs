//! What somebody says in so many words: the file that stands for an owner who is here, and a pause.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{Seen, Signal};
use crate::owner::pause;

/// Two files.
#[derive(Debug)]
pub struct Marks {
    /// As long as it exists, the owner is here. It may be empty; any program may make and remove it.
    pub owner_file: PathBuf,
    /// Written by [`pause`].
    pub pause_file: PathBuf,
}

impl Signal for Marks {
    fn period(&self) -> Duration {
        Duration::ZERO
    }

    fn look(&mut self, _now: Duration, seen: &mut Seen) {
        seen.forced = self.owner_file.symlink_metadata().is_ok();
        seen.paused = pause::until(&self.pause_file).is_some_and(|until| until > SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_count_while_they_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let (owner_file, pause_file) = (folder.path().join("here"), folder.path().join("pause"));
        let mut marks = Marks { owner_file: owner_file.clone(), pause_file: pause_file.clone() };
        let mut look = || {
            let mut seen = Seen::default();
            marks.look(Duration::ZERO, &mut seen);
            (seen.forced, seen.paused)
        };
        assert_eq!(look(), (false, false));
        fs::write(&owner_file, "").unwrap();
        pause::begin(&pause_file, SystemTime::now() + Duration::from_secs(60)).unwrap();
        assert_eq!(look(), (true, true));
        fs::remove_file(&owner_file).unwrap();
        pause::begin(&pause_file, SystemTime::now() - Duration::from_secs(1)).unwrap();
        assert_eq!(look(), (false, false));
        fs::write(&pause_file, "for ever").unwrap();
        assert_eq!(look(), (false, false));
    }
}
