//! Root acts as the owner of a daemon's folder.
//!
//! A packaged daemon runs as a user of its own. What root does in its folder (`join`, `invite`, `doctor`) must leave files that the daemon
//! can read and replace, and needs no more rights than the daemon has. Not here: which folder that is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

/// Where this process is root and `folder` somebody else's, becomes its owner, for good and in all threads; says whether it did.
pub fn act_as_owner_of(folder: &Path) -> io::Result<bool> {
    if !geteuid().is_root() {
        return Ok(false);
    }
    let found = match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let (user, group) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
    if user.is_root() {
        return Ok(false);
    }
    setgroups(&[group])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ones_own_or_not_there_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let before = geteuid();
        assert!(!act_as_owner_of(folder.path()).unwrap());
        assert!(!act_as_owner_of(&folder.path().join("none")).unwrap());
        assert_eq!(geteuid(), before);
    }
}
