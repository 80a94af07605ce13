//! What a build script's program is called, and where it stands once the wrapper stands in for it. Uses nothing but the standard library: the
//! wrapper asks the same.

use std::path::{Path, PathBuf};

/// How cargo calls the crate of every build script, up to the source's own name.
const CRATE: &str = "build_script_";
/// Before the crate's name, in the name of the program behind a stand-in.
const BEHIND: &str = ".buildbee-real.";
/// Digits of the ending that cargo gives a crate's outputs.
const N_HASH_DIGITS: usize = 16;

/// Whether a crate of this name is a build script, as far as a name tells.
pub fn is_script(crate_name: &str) -> bool {
    crate_name.starts_with(CRATE)
}

/// The program that a stand-in at this path stands before: `build-script-build`, or `build_script_build-0123456789abcdef`. `None` for what no
/// build script is called.
pub fn program_behind(stand_in: &Path) -> Option<PathBuf> {
    let name = stand_in.file_name()?.to_str()?;
    let is_hash = |end: &str| end.len() == N_HASH_DIGITS && end.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = name.rsplit_once('-').filter(|(_, end)| is_hash(end)).map_or(name, |(name, _)| name);
    let name = name.replace('-', "_");
    is_script(&name).then(|| stand_in.with_file_name(format!("{BEHIND}{name}")))
}

/// The crate's name, if this is a program behind a stand-in.
pub fn behind(program: &Path) -> Option<&str> {
    program.file_name()?.to_str()?.strip_prefix(BEHIND).filter(|name| is_script(name))
}

/// What shows in a text that names the program behind a stand-in.
pub const TRACE: &str = BEHIND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let real = Path::new("/t/build/x-1/.buildbee-real.build_script_main_x");
        for name in ["build-script-main-x", "build-script-main_x", "build_script_main_x-0123456789abcdef"] {
            assert_eq!(program_behind(&Path::new("/t/build/x-1").join(name)).as_deref(), Some(real), "{name}");
        }
        for name in ["gcc", "buildbee", "build", ".buildbee-real.build_script_main", "/"] {
            assert_eq!(program_behind(Path::new(name)), None, "{name}");
        }
        assert_eq!((behind(real), behind(Path::new("/t/build-script-x"))), (Some("build_script_main_x"), None));
    }
}
