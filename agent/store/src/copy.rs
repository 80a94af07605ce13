//! Copies whole files, sharing blocks where the file system can.
//!
//! Executables are copied by a child process: a descriptor open for writing in this process can leak into any child that another
//! thread is just starting, and until that child has started its program nobody can execute the file ("text file busy").

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies the first `size_bytes` of `from` to the empty `to`. The kernel does it (`copy_file_range`): no bytes pass through here.
pub(crate) fn within(mut from: &File, mut to: &File, size_bytes: u64) -> io::Result<u64> {
    from.rewind()?;
    io::copy(&mut from.take(size_bytes), &mut to)
}

/// Copies `from` to the new file `to` without ever opening it for writing in this process. False if there is no program to do it.
pub(crate) fn by_child(from: &Path, to: &Path) -> bool {
    let status = Command::new("cp")
        .arg("--reflink=auto")
        .arg("--")
        .args([from, to])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => true,
        Ok(status) => {
            // What it left would be in the way of the copy made here. A failure to remove it shows there.
            let _ = crate::layout::remove_any(to);
            tracing::debug!(%status, from = %from.display(), "cp failed; copying here");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "cp can't be started; copying here, a program may be busy when it is first run");
            false
        }
    }
}
