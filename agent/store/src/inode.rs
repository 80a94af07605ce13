//! Single files of the store: how they are sealed, and what makes one of them untrustworthy. Knows nothing of the index.
//!
//! A sealed inode is read-only and has one fixed modification time, so that inputs linked from it never differ by when they were
//! fetched, and so that an inode that somebody has written to or changed since shows it without being read.

use std::fs::{File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io::{self, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use buildbee_proto::digest::Digest;
use nix::errno::Errno;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use thiserror::Error;

use crate::error::is_one_of;

/// Modification time of every file, in seconds since 1970: the first second of 2000. (Zero confuses programs that take it for
/// "unknown", and archivers can't write years before 1980.)
pub(crate) const FIXED_MTIME_SECONDS: i64 = 946_684_800;
/// What is wrong with bytes that are not those of the digest.
pub(crate) const OTHER_CONTENT: &str = "content is not what it is named";
const FIXED_MTIME: Duration = Duration::from_secs(946_684_800);

/// Why a file is not usable.
#[derive(Debug, Error)]
pub(crate) enum Defect {
    /// Nothing there.
    #[error("file is gone")]
    Gone,
    /// Not a file of ours. The inode that was looked at, where there was one, tells it from a good one that has since taken its place.
    #[error("{reason}")]
    Bad { reason: &'static str, inode: Option<u64> },
    /// The system failed; says nothing of the file.
    #[error(transparent)]
    Io(io::Error),
}

/// Modification time of every file that the store hands out.
pub fn sealed_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + FIXED_MTIME
}

/// Gives a finished file its permissions and time. Only ever called on an inode that nobody else has a name for yet.
pub(crate) fn seal(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))?;
    let time = sealed_time();
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time))
}

/// What `metadata` says against a sealed file of this mode and, where known, size.
pub(crate) fn blemish(metadata: &Metadata, mode: u32, size_bytes: Option<u64>) -> Option<&'static str> {
    if !metadata.is_file() {
        Some("not a regular file")
    } else if size_bytes.is_some_and(|size| size != metadata.len()) {
        Some("wrong size")
    } else if metadata.mode() & 0o7777 != mode {
        Some("permissions were changed")
    } else if metadata.mtime() != FIXED_MTIME_SECONDS || metadata.mtime_nsec() != 0 {
        Some("written to after it was stored")
    } else {
        None
    }
}

/// Opens a sealed file for reading, never through a symlink.
pub(crate) fn open(path: &Path, mode: u32, size_bytes: Option<u64>) -> Result<File, Defect> {
    let file = match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) => return Err(why_not_opened(error)),
    };
    let metadata = file.metadata().map_err(Defect::Io)?;
    match blemish(&metadata, mode, size_bytes) {
        None => Ok(file),
        Some(reason) => Err(Defect::Bad { reason, inode: Some(metadata.ino()) }),
    }
}

fn why_not_opened(error: io::Error) -> Defect {
    let bad = |reason| Defect::Bad { reason, inode: None };
    if is_one_of(&error, &[Errno::ENOENT]) {
        Defect::Gone
    } else if is_one_of(&error, &[Errno::ELOOP]) {
        bad("a symlink")
    } else if is_one_of(&error, &[Errno::ENXIO, Errno::ENOTDIR]) {
        bad("not a regular file")
    } else if is_one_of(&error, &[Errno::EACCES, Errno::EPERM]) {
        bad("permissions were changed")
    } else if is_one_of(&error, &[Errno::EIO]) {
        bad("the disk can't read it")
    } else {
        Defect::Io(error)
    }
}

/// Reads the whole of an open file and compares; leaves it at its start.
pub(crate) fn check_content(mut file: &File, expected: &Digest) -> Result<(), Defect> {
    let inode = Some(file.metadata().map_err(Defect::Io)?.ino());
    match digest(file) {
        Ok(found) if found == *expected => file.rewind().map_err(Defect::Io),
        Ok(_) => Err(Defect::Bad { reason: OTHER_CONTENT, inode }),
        Err(error) => Err(why_not_read(error, inode)),
    }
}

/// What it says of a file that reading it has failed.
pub(crate) fn why_not_read(error: io::Error, inode: Option<u64>) -> Defect {
    if is_one_of(&error, &[Errno::EIO]) {
        Defect::Bad { reason: "the disk can't read it", inode }
    } else {
        Defect::Io(error)
    }
}

/// Digest of an open file from its start.
pub(crate) fn digest(mut file: &File) -> io::Result<Digest> {
    file.rewind()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(Digest::from_blake3(hasher.finalize(), hasher.count()))
}
