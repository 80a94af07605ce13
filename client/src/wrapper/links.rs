//! Links that stand in a compiler's place: made to this program, or to another of its kind.
//!
//! Such folders come early in `PATH`, and each kind passes over its own links only. Two kinds that pass a compile to each other would
//! cache it twice, or for ever call each other.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::program::OWN_NAME;

/// Other programs that distributions link under compilers' names.
pub const OTHER_WRAPPERS: [&str; 4] = ["ccache", "distcc", "icecc", "sccache"];

/// Links that lead to links are followed so far. Compilers have three at most (`cc`, the alternative, the version, the target).
const MAX_LINKS: usize = 8;

/// What a link in a compiler's place leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandIn {
    /// A program called `buildbee`: this one, or another copy.
    Own,
    /// One of [`OTHER_WRAPPERS`].
    Other(&'static str),
}

/// Whether `path` is a link to a compiler wrapper, judged by the names that it leads to. `None` for compilers.
pub fn stand_in(path: &Path) -> Option<StandIn> {
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        let target = std::fs::read_link(&place).ok()?;
        if let Some(found) = target.file_name().and_then(named) {
            return Some(found);
        }
        place = place.parent().map_or_else(PathBuf::new, Path::to_owned).join(target);
    }
    None
}

/// The wrapper of this name.
pub fn named(name: &OsStr) -> Option<StandIn> {
    if name == OWN_NAME {
        return Some(StandIn::Own);
    }
    OTHER_WRAPPERS.iter().find(|other| name == **other).map(|other| StandIn::Other(other))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_judged_by_what_they_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let link = |name: &str, target: &str| {
            let place = folder.path().join(name);
            symlink(target, &place).unwrap();
            place
        };
        assert_eq!(stand_in(&link("gcc", "/nowhere/buildbee")), Some(StandIn::Own));
        assert_eq!(stand_in(&link("cc", "gcc")), Some(StandIn::Own), "a link to a link");
        assert_eq!(stand_in(&link("g++", "../../bin/ccache")), Some(StandIn::Other("ccache")));
        assert_eq!(stand_in(&link("clang", "clang-14")), None);
        assert_eq!(stand_in(&link("loop", "loop")), None);
        std::fs::write(folder.path().join("buildbee"), "").unwrap();
        assert_eq!(stand_in(&folder.path().join("buildbee")), None, "not a link");
    }
}
