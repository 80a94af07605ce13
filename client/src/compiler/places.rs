//! Paths by their spelling alone: which can be outputs, and which are not there in a sandbox. Symlinks are the caller's business.

use std::path::{Component, Path, PathBuf};

use super::reason::{Reason, ReasonKind};

/// Folders that a sandbox mounts its own of.
const SPECIAL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// The path below `cwd`, with `.` and `..` taken out by name.
pub fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in cwd.join(path).components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::Normal(name) => plain.push(name),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    plain
}

/// Fails for a path below one of [`SPECIAL`].
pub(super) fn check_not_special(cwd: &Path, path: &Path) -> Result<(), Reason> {
    let plain = absolute(cwd, path);
    if SPECIAL.iter().any(|special| plain.starts_with(special)) {
        return Err(Reason::about(ReasonKind::SpecialPath, path.display().to_string()));
    }
    Ok(())
}

/// Fails for what can't be spelled as an ordinary output file.
pub(super) fn check_output(cwd: &Path, spelled: &str) -> Result<(), Reason> {
    if spelled == "-" {
        return Err(Reason::about(ReasonKind::OutputToStdout, spelled));
    }
    let last = spelled.rsplit('/').next().unwrap_or_default();
    if matches!(last, "" | "." | "..") || spelled.starts_with('-') {
        return Err(Reason::about(ReasonKind::UnusualOutput, spelled));
    }
    check_not_special(cwd, Path::new(spelled))
}

/// The path with the last suffix of its file name replaced, the way drivers derive names. `None` for a name that begins with its only
/// dot: drivers disagree there.
pub(super) fn with_suffix(path: &str, suffix: &str) -> Option<String> {
    let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
    let (folder, name) = path.split_at(name_at);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    (!stem.is_empty()).then(|| format!("{folder}{stem}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_replaced_in_the_name_only() {
        assert_eq!(with_suffix("a.b/x", ".d").as_deref(), Some("a.b/x.d"));
        assert_eq!(with_suffix("a.b/x.y.o", ".d").as_deref(), Some("a.b/x.y.d"));
        assert_eq!(with_suffix("x.", ".d").as_deref(), Some("x.d"));
        assert_eq!(with_suffix("d/.o", ".d"), None);
        assert_eq!(with_suffix("", ".d"), None);
    }

    #[test]
    fn special_folders_are_seen_through_dots() {
        let cwd = Path::new("/home/a");
        for path in ["/dev/null", "../../proc/self/x", "/sys", "/../dev/shm/x"] {
            assert!(check_not_special(cwd, Path::new(path)).is_err(), "{path}");
        }
        for path in ["/device/x", "dev/null", "../proc/x"] {
            assert!(check_not_special(cwd, Path::new(path)).is_ok(), "{path}");
        }
    }

    #[test]
    fn outputs() {
        let cwd = Path::new("/home/a");
        for path in ["", "d/", ".", "d/..", "-", "-x", "/dev/null"] {
            assert!(check_output(cwd, path).is_err(), "{path}");
        }
        assert!(check_output(cwd, "d/x.o").is_ok());
    }
}
