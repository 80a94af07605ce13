//! Where the built programs are: the folder that `BUILDBEE_TEST_PROGRAMS` names, else the one that cargo builds into.

use std::path::{Path, PathBuf};

/// The folder that holds `buildbee`, `buildbee-cli`, `buildbee-agent`, `buildbee-coordinator` and `buildbee-sandbox`.
///
/// # Panics
///
/// When one of them is missing: cargo does not build the programs of other crates for a test, `make debug` does.
pub fn folder() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the one variable of the harness")]
    let named = std::env::var_os("BUILDBEE_TEST_PROGRAMS").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug"));
    for program in ["buildbee", "buildbee-cli", "buildbee-agent", "buildbee-coordinator", "buildbee-sandbox"] {
        let path = folder.join(program);
        assert!(path.is_file(), "{} is missing: run `make debug` first, or set BUILDBEE_TEST_PROGRAMS", path.display());
    }
    folder.canonicalize().unwrap_or(folder)
}
