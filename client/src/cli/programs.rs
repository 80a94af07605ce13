//! Programs in `PATH`, for the command line: where the wrapper is, and which file a name means.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::wrapper::program::OWN_NAME;

/// The wrapper that belongs to this command line: `buildbee` in the same folder.
pub fn wrapper() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().unwrap_or(Path::new("/")).join(OWN_NAME))
}

/// The first executable file called `name` in `path` (the variable's value).
pub fn in_path(name: impl AsRef<OsStr>, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(name.as_ref())).find(|file| is_program(file))
}

/// Whether `file` is a file that may be executed.
pub fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether both paths lead to one file that exists.
pub fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |file: &Path| file.metadata().ok().map(|found| (found.dev(), found.ino()));
    identity(one).is_some_and(|one| Some(one) == identity(other))
}
