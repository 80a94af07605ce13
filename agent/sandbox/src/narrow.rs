//! A root for the helper that has few mounts: the system's programs, `/proc`, and the folders that the agent works in. Called by
//! [`crate::world`] alone.
//!
//! The kernel copies every mount of the helper's for each command, twice, bubblewrap reads the list of them, and all are taken down again: on
//! a desktop with its sixty or more that takes longer than to start a program. What is not there can't be reached either.
//!
//! Where bubblewrap does not start in it, as with libraries in an unusual place, the helper stays where it is.

#![expect(unsafe_code, reason = "a program is tried in the new root before that is the helper's")]

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chroot, pivot_root};

/// Where programs and what they need to start are. `/proc` is what allows another one.
const SYSTEM: [&str; 12] =
    ["bin", "etc", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "opt", "proc", "sbin", "usr"];
/// Folders that are empty here: bubblewrap makes its first one on `/tmp`, the helper its devices on `/sys`.
const EMPTY: [&str; 2] = ["sys", "tmp"];
/// Where the new root is made: every system has it, and nothing is needed of what it has.
const PLACE: &str = "/sys";

/// Makes the new root with `folders` in it, has `furnish` add to it what it takes from the old one, and goes there, unless `bwrap` does not
/// start in it. The caller must own its mount namespace.
pub(crate) fn enter(
    bwrap: &Path,
    folders: &[PathBuf],
    furnish: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let root = Path::new(PLACE);
    mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755,size=1m"))?;
    let filled = fill(root, bwrap, folders).and_then(|()| furnish(root));
    let ready = filled.and_then(|()| close(root)).and_then(|()| starts(bwrap, root));
    if let Err(error) = ready {
        umount2(root, MntFlags::MNT_DETACH)?;
        return Err(error);
    }
    go(root)
}

fn fill(root: &Path, bwrap: &Path, folders: &[PathBuf]) -> io::Result<()> {
    for name in EMPTY {
        fs::create_dir(root.join(name))?;
    }
    let mut bound: Vec<PathBuf> = Vec::new();
    for name in SYSTEM {
        let path = Path::new("/").join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => symlink(fs::read_link(&path)?, root.join(name))?,
            Ok(found) if found.is_dir() => bound.push(path),
            _ => {}
        }
    }
    // One that is brought along, with libraries beside it: all of the file system's part that it is in.
    bound.extend(top(&fs::canonicalize(bwrap)?));
    for path in folders {
        // By the name that the agent has for it, and by the one behind symlinks.
        bound.push(path.clone());
        bound.push(fs::canonicalize(path)?);
    }
    bound.sort();
    bound.dedup_by(|next, one| next.starts_with(one));
    bound.iter().try_for_each(|path| bind(root, path))
}

/// The top-level folder that `path` lies in.
fn top(path: &Path) -> Option<PathBuf> {
    path.components().nth(1).map(|first| Path::new("/").join(first)).filter(|top| path != top)
}

fn bind(root: &Path, path: &Path) -> io::Result<()> {
    let place = root.join(path.strip_prefix("/").map_err(io::Error::other)?);
    DirBuilder::new().recursive(true).mode(0o755).create(&place)?;
    Ok(mount(Some(path), &place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?)
}

/// Whether bubblewrap can be executed with `root` for its root.
fn starts(bwrap: &Path, root: &Path) -> io::Result<()> {
    let root = root.to_owned();
    let mut trial = Command::new(bwrap);
    trial.arg("--version").env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: one system call, on memory that was allocated before the fork.
    unsafe { trial.pre_exec(move || Ok(chroot(&root)?)) };
    let status = trial.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("bubblewrap does not start there")) }
}

fn close(root: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(None::<&str>, root, None::<&str>, flags, Some("mode=755,size=1m"))?)
}

fn go(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    // With both at one place the old root comes to lie on the new one, and needs no folder there (pivot_root(2)).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")
}
