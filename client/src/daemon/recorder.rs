//! Where compilers find the library that watches them. Blocks.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the library is called.
const RECORDER: &str = "libbuildbee_recorder.so";

/// The library beside `program`, or a copy in `state_dir` where the loader could not be told its path. `None`: there is none, or no place
/// for it; `warnings` says so then.
pub fn find(program: &Path, state_dir: &Path, warnings: &mut Vec<String>) -> Option<PathBuf> {
    let library = program.with_file_name(RECORDER);
    if !library.is_file() {
        warnings.push(format!("crates that are compiled here are not cached: there is no {}", library.display()));
        return None;
    }
    if can_be_named(&library) {
        return Some(library);
    }
    let copy = state_dir.join(RECORDER);
    let copied = if can_be_named(&copy) {
        bring(&library, &copy)
    } else {
        Err(std::io::Error::other("neither folder's path can be named to the loader"))
    };
    match copied {
        Ok(()) => Some(copy),
        Err(error) => {
            warnings.push(format!(
                "crates that are compiled here are not cached: {} has a space or colon in its path, and {}: {error}",
                library.display(),
                copy.display()
            ));
            None
        }
    }
}

/// The loader splits its list at both, and quotes nothing.
fn can_be_named(library: &Path) -> bool {
    library.is_absolute() && !library.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':'))
}

/// Has the same content at `copy`. A compiler that has the older one loaded keeps that.
fn bring(library: &Path, copy: &Path) -> std::io::Result<()> {
    let content = fs::read(library)?;
    if fs::read(copy).is_ok_and(|there| there == content) {
        return Ok(());
    }
    let new = copy.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, content)?;
    fs::rename(&new, copy).inspect_err(|_| drop(fs::remove_file(&new)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_the_loader_would_split_gets_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let [plain, spaced, state] = ["bin", "the bin", "state"].map(|name| folder.path().join(name));
        for folder in [&plain, &spaced, &state] {
            fs::create_dir(folder).unwrap();
        }
        for folder in [&plain, &spaced] {
            fs::write(folder.join(RECORDER), "one").unwrap();
        }
        let mut warnings = Vec::new();
        let mut found = |program: &Path, state: &Path| find(&program.join("buildbee-cli"), state, &mut warnings);
        assert_eq!(found(&plain, &state), Some(plain.join(RECORDER)));
        assert_eq!(found(&spaced, &state), Some(state.join(RECORDER)));
        fs::write(spaced.join(RECORDER), "two").unwrap();
        assert_eq!(found(&spaced, &state), Some(state.join(RECORDER)));
        assert_eq!(fs::read(state.join(RECORDER)).unwrap(), b"two");
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
        assert_eq!(found(&spaced, &spaced), None);
        assert_eq!(found(&state.join("none"), &state), None);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }
}
