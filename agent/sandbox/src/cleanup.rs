//! Removes a scratch folder with whatever a command left in it. Blocking.
//!
//! What is in it is hostile: folders without permissions (overlayfs leaves one too), or nested deeper than a path can name or a
//! stack can hold. So nothing is ever followed, no path is built, and folders below a certain depth are moved up to the top first.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use thiserror::Error;

/// A scratch folder that could not be removed.
#[derive(Debug, Error)]
#[error("cannot remove {path:?}: {source}")]
pub struct CleanupError {
    /// The scratch folder.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Removes `scratch` and everything in it. One that does not exist is no error. No command may run in it any more.
pub fn remove_scratch(scratch: &Path) -> Result<(), CleanupError> {
    let failed = |source: io::Error| CleanupError { path: scratch.to_owned(), source };
    match empty(scratch) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.map_err(|error| failed(error.into()))?,
    }
    fs::remove_dir(scratch).map_err(failed)
}

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Folders open at once, one in the other. What lies deeper is moved up.
const MAX_OPEN: usize = 48;

fn empty(scratch: &Path) -> nix::Result<()> {
    let mut top = Dir::open(scratch, FOLDER, Mode::empty())?;
    let above = top.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    let mut moved = 0;
    loop {
        let before = moved;
        Removal { top: &above, moved: &mut moved }.clear(&mut top, 0)?;
        if moved == before {
            return Ok(());
        }
    }
}

struct Removal<'a> {
    top: &'a OwnedFd,
    /// Folders that were moved up so far.
    moved: &'a mut u64,
}

impl Removal<'_> {
    /// Removes what is in `folder`, which lies so deep below the top.
    fn clear(&mut self, folder: &mut Dir, depth: usize) -> nix::Result<()> {
        let mut is_writable = false;
        for (name, kind) in entries(folder)? {
            match self.remove(folder, &name, kind, depth) {
                Err(Errno::EACCES) if !is_writable => {
                    // The command took its own right away.
                    fchmod(folder.as_fd(), Mode::S_IRWXU)?;
                    is_writable = true;
                    self.remove(folder, &name, kind, depth)?;
                }
                removed => removed?,
            }
        }
        Ok(())
    }

    fn remove(&mut self, folder: &Dir, name: &CString, kind: Option<Type>, depth: usize) -> nix::Result<()> {
        if !is_folder(folder, name, kind)? {
            return unlinkat(folder.as_fd(), name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
        // Many are empty: then this is all.
        match unlinkat(folder.as_fd(), name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Err(Errno::EEXIST | Errno::ENOTEMPTY) => {}
            removed => return removed,
        }
        if depth >= MAX_OPEN {
            return self.move_up(folder, name);
        }
        let mut inner = match Dir::openat(folder.as_fd(), name.as_c_str(), FOLDER, Mode::empty()) {
            Err(Errno::EACCES) => {
                make_accessible(folder, name)?;
                Dir::openat(folder.as_fd(), name.as_c_str(), FOLDER, Mode::empty())?
            }
            opened => opened?,
        };
        self.clear(&mut inner, depth + 1)?;
        drop(inner);
        unlinkat(folder.as_fd(), name.as_c_str(), UnlinkatFlags::RemoveDir)
    }

    fn move_up(&mut self, folder: &Dir, name: &CString) -> nix::Result<()> {
        // Moving a folder rewrites its `..`, for which it must be writable.
        make_accessible(folder, name)?;
        loop {
            *self.moved += 1;
            let free = format!(".removed-{}", self.moved);
            match renameat(folder.as_fd(), name.as_c_str(), self.top.as_fd(), free.as_str()) {
                // A command chose the same name: the next number is free some time.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                other => return other,
            }
        }
    }
}

fn entries(folder: &mut Dir) -> nix::Result<Vec<(CString, Option<Type>)>> {
    let mut found = Vec::new();
    for entry in folder.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            found.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(found)
}

fn is_folder(folder: &Dir, name: &CString, kind: Option<Type>) -> nix::Result<bool> {
    if let Some(kind) = kind {
        return Ok(kind == Type::Directory);
    }
    let stat = fstatat(folder.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

fn make_accessible(parent: &Dir, name: &CString) -> nix::Result<()> {
    // It was seen to be a folder, and nobody else is at work here: there is no link to follow.
    fchmodat(parent.as_fd(), name.as_c_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::mkdirat;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn everything_goes_and_nothing_is_followed() {
        let place = TempDir::new().unwrap();
        let kept = place.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        let scratch = place.path().join("scratch");
        fs::create_dir_all(scratch.join("work/work/index")).unwrap();
        fs::create_dir_all(scratch.join(".removed-1/a")).unwrap();
        fs::write(scratch.join("work/.removed-2"), "").unwrap();
        fs::write(scratch.join(".removed-3"), "").unwrap();
        symlink(&kept, scratch.join("work/link")).unwrap();
        symlink(&kept, scratch.join("link")).unwrap();
        for locked in ["work/work/index", "work/work", ".removed-1"] {
            fs::set_permissions(scratch.join(locked), fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_scratch(&scratch).unwrap();
        assert!(!scratch.exists());
        assert!(kept.join("file").exists());
        remove_scratch(&scratch).unwrap();
    }

    #[test]
    fn folders_deeper_than_a_path_can_name() {
        let place = TempDir::new().unwrap();
        let scratch = place.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let mut folder = Dir::open(&scratch, FOLDER, Mode::empty()).unwrap();
        for _ in 0..3000 {
            mkdirat(folder.as_fd(), "deep", Mode::S_IRWXU).unwrap();
            folder = Dir::openat(folder.as_fd(), "deep", FOLDER, Mode::empty()).unwrap();
        }
        remove_scratch(&scratch).unwrap();
        assert!(!scratch.exists());
    }
}
