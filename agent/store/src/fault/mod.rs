//! Named points of storing and of replication at which a test ends its process, as abruptly as `kill -9` does, and notes of what would survive a
//! loss of power there, from which [`drawn`] makes such disks. Nothing of it is in programs made for users, which are built without assertions,
//! and nothing happens where nobody has armed a point.
//!
//! The notes: at each synchronisation the file is copied, or the folder's names are listed, as they are at that moment, below the noting
//! folder. Nothing else is sure to be on the disk.

pub mod drawn;

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
/// Notes are written side by side.
static N_NOTES: AtomicU32 = AtomicU32::new(0);

/// From now on, the `n_skip + 1`st time that this process passes the point `name` is its last moment. The first call counts.
pub fn arm(name: &str, n_skip: u32) {
    ARMED.get_or_init(|| (name.to_owned(), AtomicU32::new(n_skip)));
}

/// Dies here if armed for this point.
pub fn point(name: &str) {
    let Some((armed, skip)) = ARMED.get() else { return };
    if armed == name && skip.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err() {
        // Nothing else can be done with a process that does not even die.
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}

/// From now on what is synchronised is noted below `dir`, instead of being synchronised. The first call counts.
pub fn note_below(dir: &Path) {
    NOTES.get_or_init(|| dir.to_owned());
}

/// Notes all that is below `folder`: it was synchronised long ago.
pub fn note_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            note_all(&entry.path())?;
        } else if kind.is_file() {
            synced_file(&File::open(entry.path())?)?;
        }
    }
    synced_folder(folder)?;
    Ok(())
}

/// What tells an inode from any other, later ones with its number too.
pub(crate) fn identity(found: &fs::Metadata) -> String {
    let made = found.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}-{}", found.ino(), made.as_nanos())
}

/// A note that has no name yet.
fn unnamed(dir: &Path) -> PathBuf {
    dir.join(format!("new-{}", N_NOTES.fetch_add(1, Ordering::Relaxed)))
}

/// True if it was noted.
pub(crate) fn synced_file(file: &File) -> io::Result<bool> {
    let Some(dir) = NOTES.get() else { return Ok(false) };
    let found = file.metadata()?;
    let (note, unnamed) = (dir.join(format!("file-{}", identity(&found))), unnamed(dir));
    // A descriptor of its own: the offset of this one is somebody's.
    let mut from = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))?;
    from.rewind()?;
    let mut to = File::create(&unnamed)?;
    io::copy(&mut from, &mut to)?;
    to.set_times(FileTimes::new().set_modified(found.modified()?))?;
    to.set_permissions(found.permissions())?;
    fs::rename(unnamed, note)?;
    Ok(true)
}

/// True if it was noted.
pub(crate) fn synced_folder(folder: &Path) -> io::Result<bool> {
    let Some(dir) = NOTES.get() else { return Ok(false) };
    let unnamed = unnamed(dir);
    let mut note = File::create(&unnamed)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What goes while the names are read is not there.
        let Ok(found) = entry.metadata() else { continue };
        if found.is_file() {
            writeln!(note, "{} {}", identity(&found), entry.file_name().to_string_lossy())?;
        }
    }
    fs::rename(unnamed, dir.join(format!("folder-{}", identity(&fs::metadata(folder)?))))?;
    Ok(true)
}
