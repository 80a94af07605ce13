//! The few variables that the wrapper looks at. It reads no file: that would cost more than a cache hit may.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Set for every compiler that a wrapper becomes or starts, so that a compiler which is itself a script around `buildbee` ends in a
/// plain run. Its value counts the wrappers above.
pub const NESTED_VARIABLE: &str = "BUILDBEE_WRAPPED";

/// The folder that debug information and `__FILE__` are to be relative to: see [`base_dir`](super::base_dir).
pub const BASE_DIR_VARIABLE: &str = "BUILDBEE_BASE_DIR";

/// What `BUILDBEE` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Unset, or anything else.
    Normal,
    /// `off`: become the compiler at once.
    Off,
    /// `strict`: where the farm or the daemon fails, fail too.
    Strict,
}

/// The wrapper's settings.
#[derive(Clone, Debug)]
pub struct WrapperSettings {
    /// `BUILDBEE`.
    pub mode: Mode,
    /// `BUILDBEE_SOCKET`, unless empty.
    pub socket: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`, if absolute.
    pub runtime_dir: Option<PathBuf>,
    /// [`BASE_DIR_VARIABLE`], if absolute.
    pub base_dir: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// `TMPDIR`, if absolute.
    pub temporary_dir: Option<PathBuf>,
    /// How many wrappers this one runs below.
    pub nesting: u32,
    /// Whether words of its own may stand on standard error though the compiler goes on to run. Not below one of cargo's build scripts:
    /// where those try an option, any word counts as the compiler's refusal, and something else is built.
    pub may_complain: bool,
}

impl WrapperSettings {
    /// From the process's environment.
    pub fn from_environment() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the wrapper's one reader of the environment")]
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// From any source of variables.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let absolute = |name| lookup(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            mode: match lookup("BUILDBEE").as_deref().and_then(OsStr::to_str) {
                Some("off") => Mode::Off,
                Some("strict") => Mode::Strict,
                _ => Mode::Normal,
            },
            socket: lookup("BUILDBEE_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from),
            runtime_dir: absolute("XDG_RUNTIME_DIR"),
            base_dir: absolute(BASE_DIR_VARIABLE),
            path: lookup("PATH"),
            temporary_dir: absolute("TMPDIR"),
            // Whatever it holds, it was set by somebody who meant "no further".
            nesting: lookup(NESTED_VARIABLE)
                .map_or(0, |value| value.to_str().and_then(|n| n.parse().ok()).unwrap_or(1)),
            may_complain: lookup("CARGO_MANIFEST_DIR").is_none() || lookup("OUT_DIR").is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> WrapperSettings {
        WrapperSettings::from_lookup(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn modes() {
        for (value, mode) in [("off", Mode::Off), ("strict", Mode::Strict), ("", Mode::Normal), ("on", Mode::Normal)] {
            assert_eq!(settings(&[("BUILDBEE", value)]).mode, mode);
        }
        assert_eq!(settings(&[]).mode, Mode::Normal);
    }

    #[test]
    fn empty_and_relative_places_do_not_count() {
        let settings = settings(&[("BUILDBEE_SOCKET", ""), ("XDG_RUNTIME_DIR", "run"), ("TMPDIR", "")]);
        assert_eq!((settings.socket, settings.runtime_dir, settings.temporary_dir), (None, None, None));
    }

    #[test]
    fn build_scripts_hear_nothing() {
        assert!(settings(&[("CARGO_MANIFEST_DIR", "/p")]).may_complain);
        assert!(!settings(&[("CARGO_MANIFEST_DIR", "/p"), ("OUT_DIR", "/o")]).may_complain);
    }

    #[test]
    fn nesting_counts_and_strange_values_mean_nested() {
        assert_eq!(settings(&[]).nesting, 0);
        assert_eq!(settings(&[(NESTED_VARIABLE, "2")]).nesting, 2);
        assert_eq!(settings(&[(NESTED_VARIABLE, "yes")]).nesting, 1);
    }
}
