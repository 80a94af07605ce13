//! Removes a scratch folder with whatever a command left in it. Blocking.
//!
//! What is in it is hostile: folders without permissions (overlayfs leaves one too), or nested deeper than a path can name or a
//! stack can hold. So nothing is ever followed, no path is built, and nested folders are moved up to the top instead of descended into.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat};
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

fn empty(scratch: &Path) -> nix::Result<()> {
    let mut top = Dir::open(scratch, FOLDER, Mode::empty())?;
    let mut moved = 0_u64;
    loop {
        let names = entries(&mut top)?;
        let mut folders = Vec::new();
        for (name, kind) in names {
            if remove_unless_folder(&top, &name, kind)? {
                folders.push(name);
            }
        }
        if folders.is_empty() {
            return Ok(());
        }
        for name in folders {
            flatten(&top, &name, &mut moved)?;
        }
    }
}

/// Removes the folder `name` of `top`, after its own folders have moved up into `top`.
fn flatten(top: &Dir, name: &CString, moved: &mut u64) -> nix::Result<()> {
    make_writable(top, name)?;
    let mut folder = Dir::openat(top.as_fd(), name.as_c_str(), FOLDER, Mode::empty())?;
    for (inner, kind) in entries(&mut folder)? {
        if !remove_unless_folder(&folder, &inner, kind)? {
            continue;
        }
        // Moving a folder rewrites its `..`, for which it must be writable.
        make_writable(&folder, &inner)?;
        loop {
            *moved += 1;
            match renameat(folder.as_fd(), inner.as_c_str(), top.as_fd(), format!(".removed-{moved}").as_str()) {
                // A command chose the same name: the next number is free some time.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                other => break other?,
            }
        }
    }
    unlinkat(top.as_fd(), name.as_c_str(), UnlinkatFlags::RemoveDir)
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

/// Removes a file or link; tells whether it is a folder instead.
fn remove_unless_folder(folder: &Dir, name: &CString, kind: Option<Type>) -> nix::Result<bool> {
    let is_folder = if let Some(kind) = kind {
        kind == Type::Directory
    } else {
        let stat = fstatat(folder.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
    };
    if !is_folder {
        unlinkat(folder.as_fd(), name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
    }
    Ok(is_folder)
}

fn make_writable(parent: &Dir, name: &CString) -> nix::Result<()> {
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
