//! Puts outputs where the compiler would have left them: own inode, the caller's mode, a fresh mtime, all or nothing.
//!
//! Each file is written without a name first (or under a temporary one where the file system can't), and gets its name only when all
//! of them are complete, so that a daemon that dies leaves no half-written object.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, access};
use thiserror::Error;

use crate::compiler::outputs::Existing;

/// One file to put in place.
#[derive(Clone, Debug)]
pub struct Placed<'a> {
    /// Where, absolute.
    pub path: PathBuf,
    /// Content.
    pub content: Content<'a>,
    /// Permission bits of a new file, the umask already taken off.
    pub mode: u32,
    /// What the compiler does where there is one already.
    pub existing: Existing,
}

/// Where content comes from.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Memory.
    Bytes(&'a [u8]),
    /// A file, read from its start to so many bytes.
    File(&'a File, u64),
}

/// A file could not be put in place. None of the others was either, unless renaming itself failed half-way.
#[derive(Debug, Error)]
#[error("cannot write {path}: {error}", path = path.display())]
pub struct PlaceError {
    /// Which.
    pub path: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

/// Tells temporary names of one process apart.
static COUNTER: AtomicU64 = AtomicU64::new(0);

enum Draft {
    /// No name yet.
    Nameless(File),
    /// Under a temporary name, removed unless renamed.
    Named(PathBuf),
}

/// Puts all `files` in place. Blocks; call off the event loop.
pub fn place(files: &[Placed<'_>]) -> Result<(), PlaceError> {
    let mut drafts = Vec::with_capacity(files.len());
    let drafted = files.iter().try_for_each(|file| {
        let draft = draft(file).map_err(|error| PlaceError { path: file.path.clone(), error })?;
        drafts.push(draft);
        Ok(())
    });
    let named = drafted.and_then(|()| {
        files.iter().zip(&drafts).try_for_each(|(file, draft)| {
            name(draft, &file.path).map_err(|error| PlaceError { path: file.path.clone(), error })
        })
    });
    if named.is_err() {
        for draft in &drafts {
            if let Draft::Named(path) = draft {
                // Gone already where its rename succeeded.
                let _ = fs::remove_file(path);
            }
        }
    }
    named
}

fn draft(file: &Placed<'_>) -> io::Result<Draft> {
    let folder = file.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // A compiler opens its output for writing: where it may not, neither may we, although a rename could.
    let mode = match fs::symlink_metadata(&file.path) {
        Ok(meta) if !meta.is_file() => return Err(io::Error::other("not a regular file")),
        Ok(meta) => {
            access(&file.path, AccessFlags::W_OK)?;
            let written_into = file.existing.keeps_file_of(meta.len());
            if written_into && meta.nlink() > 1 {
                return Err(io::Error::other("the compiler would write under its other names too"));
            }
            if written_into { meta.permissions().mode() } else { file.mode }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.mode,
        Err(error) => return Err(error),
    };
    let mode = mode & 0o777;
    if let Ok(output) = OpenOptions::new().write(true).mode(mode).custom_flags(nix::libc::O_TMPFILE).open(folder) {
        return fill(&output, file.content, mode).map(|()| Draft::Nameless(output));
    }
    let path = temporary_name(folder);
    let output = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
    match fill(&output, file.content, mode) {
        Ok(()) => Ok(Draft::Named(path)),
        Err(error) => {
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

/// Writes all of a new file. It has `mode` already, but for what this process's umask and the folder's default rights did to it.
fn fill(mut output: &File, content: Content<'_>, mode: u32) -> io::Result<()> {
    match content {
        Content::Bytes(bytes) => output.write_all(bytes)?,
        Content::File(source, n_bytes) => copy(source, output, n_bytes)?,
    }
    if output.metadata()?.permissions().mode() & 0o777 == mode {
        return Ok(());
    }
    output.set_permissions(fs::Permissions::from_mode(mode))
}

/// The kernel copies (`copy_file_range`), and lets both files share their blocks where the file system can.
fn copy(source: &File, output: &File, n_bytes: u64) -> io::Result<()> {
    let copied = io::copy(&mut source.take(n_bytes), &mut &*output)?;
    if copied == n_bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn name(draft: &Draft, path: &Path) -> io::Result<()> {
    match draft {
        Draft::Named(temporary) => fs::rename(temporary, path),
        Draft::Nameless(file) => {
            match link(file, path) {
                Err(nix::errno::Errno::EEXIST) => {}
                done => return Ok(done?),
            }
            // The name is taken: a link can't replace it, a rename can.
            let temporary = temporary_name(path.parent().unwrap_or(Path::new("/")));
            link(file, &temporary)?;
            fs::rename(&temporary, path).inspect_err(|_| {
                let _ = fs::remove_file(&temporary);
            })
        }
    }
}

fn link(file: &File, path: &Path) -> nix::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    let here = nix::fcntl::AT_FDCWD;
    nix::unistd::linkat(here, open.as_str(), here, path, AtFlags::AT_SYMLINK_FOLLOW)
}

fn temporary_name(folder: &Path) -> PathBuf {
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    folder.join(format!(".buildbee-{}-{n}.tmp", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_get_content_mode_and_their_own_inode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.o");
        fs::write(&path, "old").unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        let new = folder.path().join("b.o");
        let files = [
            Placed { path: path.clone(), content: Content::Bytes(b"new"), mode: 0o640, existing: Existing::Replaced },
            Placed { path: new.clone(), content: Content::Bytes(b""), mode: 0o755, existing: Existing::Kept },
        ];
        place(&files).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_ne!(fs::metadata(&path).unwrap().ino(), before);
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(names(folder.path()), ["a.o", "b.o"]);
    }

    #[test]
    fn files_that_a_compiler_writes_into_keep_their_mode() {
        use Existing::{EmptyKept, Kept, Replaced};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.o");
        for (there, existing, mode) in
            [("", Replaced, 0o644), ("", EmptyKept, 0o600), ("x", EmptyKept, 0o644), ("x", Kept, 0o600)]
        {
            fs::write(&path, there).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            place(&[Placed { path: path.clone(), content: Content::Bytes(b"new"), mode: 0o644, existing }]).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{there:?} {existing:?}");
        }
    }

    #[test]
    fn nothing_is_placed_where_one_file_cannot_be() {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("a.o");
        let files = [
            Placed { path: good, content: Content::Bytes(b"x"), mode: 0o644, existing: Existing::Kept },
            Placed {
                path: folder.path().join("no/b.d"),
                content: Content::Bytes(b"x"),
                mode: 0o644,
                existing: Existing::Kept,
            },
        ];
        assert!(place(&files).is_err());
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_file_with_another_name_is_left_to_the_compiler_that_writes_into_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.d"), folder.path().join("b.d"));
        fs::write(&path, "old").unwrap();
        fs::hard_link(&path, &other).unwrap();
        let placed = |existing| Placed { path: path.clone(), content: Content::Bytes(b"new"), mode: 0o644, existing };
        assert!(place(&[placed(Existing::Kept)]).is_err());
        place(&[placed(Existing::Replaced)]).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"old");
    }

    #[test]
    fn folders_and_symlinks_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a.o")).unwrap();
        std::os::unix::fs::symlink("a.o", folder.path().join("b.o")).unwrap();
        for name in ["a.o", "b.o"] {
            assert!(
                place(&[Placed {
                    path: folder.path().join(name),
                    content: Content::Bytes(b"x"),
                    mode: 0o644,
                    existing: Existing::Kept
                }])
                .is_err()
            );
        }
    }
}
