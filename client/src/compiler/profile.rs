//! Profiles that a compile reads: which files a compiler looks for, by the options that ask for one.
//!
//! Seen with gcc 12: without a folder, the main output's name with `.gcda`, by its absolute path; with one, that path with `#` for `/` in
//! it. clang 14: the file, or `default.profdata` in the folder, that is named.

use std::path::{Path, PathBuf};

use super::places::with_suffix;
use super::reason::{Reason, ReasonKind};
use super::request::{CompilerFamily, InputRule, NamedInput};

/// What clang reads where a folder is named, or nothing.
const CLANG_DEFAULT: &str = "default.profdata";

/// What the arguments say about profiles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    /// A profile is read.
    pub(super) used: bool,
    /// clang: from where.
    pub(super) place: Option<String>,
    /// gcc: the folder of profiles, by whichever option came last.
    pub(super) folder: Option<String>,
    /// Notes for a coverage report are written.
    pub(super) notes: bool,
}

/// The files that come of it for a compile to `main` in `cwd`. `seeded`: random numbers are replaced by the user's word.
pub(super) fn inputs(
    profile: &Profile,
    family: CompilerFamily,
    main: &str,
    cwd: &Path,
    seeded: bool,
) -> Result<Vec<NamedInput>, Reason> {
    let mut found = Vec::new();
    if profile.used {
        match (family, &profile.place) {
            (CompilerFamily::Gcc, _) => found.push(NamedInput::read(counts(profile, main, cwd)?)),
            (CompilerFamily::Clang, None) => found.push(NamedInput::read(CLANG_DEFAULT)),
            (CompilerFamily::Clang, Some(place)) => {
                found.extend([PathBuf::from(place), Path::new(place).join(CLANG_DEFAULT)].map(NamedInput::read));
            }
        }
    }
    // Without a stamp of its own an object can't tell counts of an earlier one, so gcc removes them.
    if family == CompilerFamily::Gcc && profile.notes && seeded && !profile.used {
        found.push(NamedInput { path: counts(profile, main, cwd)?, rule: InputRule::Removed });
    }
    Ok(found)
}

/// Where gcc's counts are.
fn counts(profile: &Profile, main: &str, cwd: &Path) -> Result<PathBuf, Reason> {
    let name = with_suffix(main, ".gcda").ok_or_else(|| Reason::about(ReasonKind::UnusualOutput, main))?;
    let Some(folder) = &profile.folder else { return Ok(PathBuf::from(name)) };
    // By text: gcc does not tidy the path.
    let absolute = if name.starts_with('/') { name } else { format!("{}/{name}", cwd.display()) };
    let parts: Vec<&str> = absolute.split('/').map(|part| if part == ".." { "^" } else { part }).collect();
    Ok(Path::new(folder).join(parts.join("#")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(profile: &Profile, family: CompilerFamily, seeded: bool) -> Vec<String> {
        let found = inputs(profile, family, "d/../x.o", Path::new("/w"), seeded).unwrap();
        found.into_iter().map(|input| input.path.display().to_string()).collect()
    }

    #[test]
    fn profiles_are_found_where_compilers_look() {
        let used = |place: Option<&str>, folder: Option<&str>| Profile {
            used: true,
            place: place.map(str::to_owned),
            folder: folder.map(str::to_owned),
            notes: false,
        };
        assert_eq!(paths(&used(None, None), CompilerFamily::Gcc, false), ["d/../x.gcda"]);
        assert_eq!(paths(&used(Some("p"), Some("p")), CompilerFamily::Gcc, false), ["p/#w#d#^#x.gcda"]);
        assert_eq!(paths(&used(None, None), CompilerFamily::Clang, false), ["default.profdata"]);
        assert_eq!(paths(&used(Some("p"), None), CompilerFamily::Clang, false), ["p", "p/default.profdata"]);
    }

    #[test]
    fn old_counts_are_in_the_way_of_seeded_coverage() {
        let notes = Profile { notes: true, ..Profile::default() };
        assert_eq!(paths(&notes, CompilerFamily::Gcc, true), ["d/../x.gcda"]);
        assert!(paths(&notes, CompilerFamily::Gcc, false).is_empty());
        assert!(paths(&notes, CompilerFamily::Clang, true).is_empty());
    }
}
