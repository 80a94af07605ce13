//! Named points at which a crash test ends its child process, as abruptly as `kill -9` does, and notes of what would survive a loss of power
//! there. Exists in tests only.
//!
//! The notes: at each synchronisation the file is copied, or the folder's names are listed, as they are at that moment, below the noting
//! folder. Nothing else is sure to be on the disk.

use std::fs::{self, File, FileTimes};
use std::io::{self, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

static ARMED: OnceLock<(String, AtomicU32)> = OnceLock::new();
static NOTES: OnceLock<PathBuf> = OnceLock::new();

/// From now on, the `n_skip + 1`st time that this process passes the point `name` is its last moment.
pub(crate) fn arm(name: &str, n_skip: u32) {
    ARMED.set((name.to_owned(), AtomicU32::new(n_skip))).expect("armed once");
}

/// Dies here if armed for this point.
pub(crate) fn point(name: &str) {
    let Some((armed, skip)) = ARMED.get() else { return };
    if armed == name && skip.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err() {
        kill(Pid::this(), Signal::SIGKILL).expect("own process");
    }
}

/// From now on what is synchronised is noted below `dir`, instead of being synchronised.
pub(crate) fn note_below(dir: &Path) {
    NOTES.set(dir.to_owned()).expect("once");
}

/// What tells an inode from any other, later ones with its number too.
pub(crate) fn identity(found: &fs::Metadata) -> String {
    let made = found.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}-{}", found.ino(), made.as_nanos())
}

/// True if it was noted.
pub(crate) fn synced_file(file: &File) -> io::Result<bool> {
    let Some(dir) = NOTES.get() else { return Ok(false) };
    let found = file.metadata()?;
    let note = dir.join(format!("file-{}", identity(&found)));
    // A descriptor of its own: the offset of this one is somebody's.
    let mut from = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))?;
    from.rewind()?;
    let mut to = File::create(dir.join("new"))?;
    io::copy(&mut from, &mut to)?;
    to.set_times(FileTimes::new().set_modified(found.modified()?))?;
    to.set_permissions(found.permissions())?;
    fs::rename(dir.join("new"), note)?;
    Ok(true)
}

/// True if it was noted.
pub(crate) fn synced_folder(folder: &Path) -> io::Result<bool> {
    let Some(dir) = NOTES.get() else { return Ok(false) };
    let mut note = File::create(dir.join("new"))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_file() {
            writeln!(note, "{} {}", identity(&found), entry.file_name().to_string_lossy())?;
        }
    }
    fs::rename(dir.join("new"), dir.join(format!("folder-{}", identity(&fs::metadata(folder)?))))?;
    Ok(true)
}
