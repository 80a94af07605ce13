//! Where compilers find the library that watches them. Blocks.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What the library is called.
const RECORDER: &str = "libbuildbee_recorder.so";
/// The beginning of a folder's name that holds a copy.
const FOLDER: &str = "buildbee-recorder";
/// Names that are tried for it.
const MAX_NAMES: usize = 8;

/// The library beside `program`, or a copy in `state_dir` or below `temporary` where the loader could not be told its path. `None`: there is
/// none, or no place for it; `warnings` says so then.
pub fn find(program: &Path, state_dir: &Path, temporary: &Path, warnings: &mut Vec<String>) -> Option<PathBuf> {
    let library = program.with_file_name(RECORDER);
    if !library.is_file() {
        warnings.push(format!("crates that are compiled here are not cached: there is no {}", library.display()));
        return None;
    }
    if can_be_named(&library) {
        return Some(library);
    }
    let found = if can_be_named(state_dir) {
        bring(&library, state_dir)
    } else {
        private_folder(temporary).and_then(|folder| bring(&library, &folder))
    };
    found.inspect_err(|error| warnings.push(format!("crates that are compiled here are not cached: {} has a space or colon in its path, and no copy can be made: {error}", library.display()))).ok()
}

/// A folder of this user's alone below `temporary`. Another's may have the name: number 0 of a user namespace is somebody else outside.
fn private_folder(temporary: &Path) -> io::Result<PathBuf> {
    let uid = nix::unistd::geteuid().as_raw();
    let mut last = Err(io::Error::from(io::ErrorKind::AlreadyExists));
    for n in 0..MAX_NAMES {
        last = own_folder(temporary.join(format!("{FOLDER}-{uid}-{n}")), uid);
        if last.is_ok() {
            break;
        }
    }
    last
}

fn own_folder(folder: PathBuf, uid: u32) -> io::Result<PathBuf> {
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = fs::symlink_metadata(&folder)?;
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{} is not this user's alone", folder.display())));
    }
    Ok(folder)
}

/// The loader splits its list at both, and quotes nothing.
fn can_be_named(library: &Path) -> bool {
    library.is_absolute() && !library.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':'))
}

/// A copy of `library` in `folder`. A compiler that has an older one loaded keeps that.
fn bring(library: &Path, folder: &Path) -> io::Result<PathBuf> {
    let copy = folder.join(RECORDER);
    let content = fs::read(library)?;
    if !fs::read(&copy).is_ok_and(|there| there == content) {
        let new = copy.with_extension(format!("new-{}", std::process::id()));
        fs::write(&new, content)?;
        fs::rename(&new, &copy).inspect_err(|_| drop(fs::remove_file(&new)))?;
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_path_that_the_loader_would_split_gets_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let [plain, spaced, state, temporary] = ["bin", "the bin", "state", "tmp"].map(|name| folder.path().join(name));
        for folder in [&plain, &spaced, &state, &temporary] {
            fs::create_dir(folder).unwrap();
        }
        for folder in [&plain, &spaced] {
            fs::write(folder.join(RECORDER), "one").unwrap();
        }
        let mut warnings = Vec::new();
        let mut found =
            |program: &Path, state: &Path| find(&program.join("buildbee-cli"), state, &temporary, &mut warnings);
        assert_eq!(found(&plain, &state), Some(plain.join(RECORDER)));
        assert_eq!(found(&spaced, &state), Some(state.join(RECORDER)));
        fs::write(spaced.join(RECORDER), "two").unwrap();
        assert_eq!(found(&spaced, &state), Some(state.join(RECORDER)));
        assert_eq!(fs::read(state.join(RECORDER)).unwrap(), b"two");
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
        let copy = found(&spaced, &spaced).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), b"two");
        let private = copy.parent().unwrap();
        assert!(private.starts_with(&temporary));
        fs::set_permissions(private, fs::Permissions::from_mode(0o755)).unwrap();
        let other = found(&spaced, &spaced).unwrap();
        assert!(other != copy && other.starts_with(&temporary), "another name: {}", other.display());
        let uid = nix::unistd::geteuid();
        for n in 0..MAX_NAMES {
            let taken = temporary.join(format!("{FOLDER}-{uid}-{n}"));
            let _ = fs::remove_dir_all(&taken);
            fs::write(taken, "").unwrap();
        }
        assert_eq!(found(&spaced, &spaced), None);
        assert_eq!(found(&state.join("none"), &state), None);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }
}
