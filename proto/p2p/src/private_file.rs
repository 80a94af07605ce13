//! Small files that only their owner may read: written whole or not at all.
//!
//! Not here: what is in them. Used by [`crate::identity`], [`crate::enrolment`], and by the daemons for their own files. Everything
//! here blocks on the disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Largest such file in bytes.
pub(crate) const MAX_PRIVATE_FILE_BYTES: u64 = 64 << 10;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// A file's text, and its permission bits.
pub(crate) struct PrivateText {
    pub(crate) text: String,
    pub(crate) mode: u32,
}

impl PrivateText {
    /// Whether anybody but the owner may read or change it.
    pub(crate) fn is_open_to_others(&self) -> bool {
        self.mode & OTHERS != 0
    }
}

/// The file's text; `None` if there is no such file.
pub(crate) fn read(file: &Path) -> io::Result<Option<PrivateText>> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let metadata = opened.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = String::new();
    opened.take(MAX_PRIVATE_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_PRIVATE_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "file is too large"));
    }
    Ok(Some(PrivateText { text, mode: metadata.mode() & 0o7777 }))
}

/// Writes a file that must not exist yet. `false` if it already does (then nothing is changed).
pub(crate) fn create(file: &Path, text: &str) -> io::Result<bool> {
    let temporary = write_temporary(file, text.as_bytes())?;
    // A hard link fails where the name is taken: of two processes that start at once, one wins and the other reads its file.
    let linked = fs::hard_link(&temporary, file);
    fs::remove_file(&temporary)?;
    match linked {
        Ok(()) => {
            sync_folder(file)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a file, replacing an older one in one step: after a crash it is the old one or the new one, and once this returns it is the
/// new one.
pub fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = write_temporary(file, content)?;
    if let Err(error) = fs::rename(&temporary, file) {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder(file)
}

/// Makes a folder, with those above it, for its owner alone. One that is there is left as it is.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn write_temporary(file: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let name = file.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let tag = getrandom::u64().map_err(io::Error::other)?;
    let temporary = folder_of(file).join(format!(".{}.{tag:016x}", name.to_string_lossy()));
    let write = || {
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        opened.write_all(content)?;
        opened.sync_all()
    };
    match write() {
        Ok(()) => Ok(temporary),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        make_folder(&inner).unwrap();
        make_folder(&inner).unwrap();
        let file = inner.join("x");
        replace(&file, b"one").unwrap();
        replace(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "a temporary file stays");
    }

    #[test]
    fn a_failed_replacement_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("x/y")).unwrap();
        assert!(replace(&folder.path().join("x"), b"new").is_err(), "x is a folder that is not empty");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
