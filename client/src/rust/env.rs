//! Variables that count for a Rust compile: which go along, which change nothing, which make it local.
//!
//! A variable counts if rustc, a procedural macro or `env!` asks for it. What rustc, its linkers and clippy always ask for was seen by logging
//! `getenv` (rustc 1.95, gcc 12, lld, gold): each of those is in one of the tables here. Never along, whatever asks: the jobserver's
//! (`MAKEFLAGS`, `CARGO_MAKEFLAGS`), which names descriptors of this machine, and what looks like a secret.

use std::collections::BTreeSet;

use super::reason::{RustReason, RustReasonKind as Why};
use super::request::RustDriver;

/// Go along whenever they are set: what cargo says of the package, and what changes results.
const DECLARED: [&str; 12] = [
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_RUSTC_CURRENT_DIR",
    "CARGO_TARGET_TMPDIR",
    "LD_RUN_PATH",
    "OUT_DIR",
    "RUSTC_BOOTSTRAP",
    "SOURCE_DATE_EPOCH",
];

/// The same, by how they begin.
const DECLARED_PREFIXES: [&str; 2] = ["CARGO_BIN_EXE_", "CARGO_PKG_"];

/// The same, if clippy runs.
const DECLARED_FOR_CLIPPY: [&str; 3] = ["CLIPPY_ARGS", "CLIPPY_CONF_DIR", "CLIPPY_DISABLE_DOCS_LINKS"];

/// The same, if messages are for people and may be coloured.
const DECLARED_FOR_PEOPLE: [&str; 3] = ["CLICOLOR", "CLICOLOR_FORCE", "NO_COLOR"];

/// Asked for by every rustc or linker, and without influence on what a compile that succeeds puts out. Some of them forbid a compile where they
/// are set; that they are looked for in vain says nothing.
const HARMLESS: [&str; 63] = [
    "BINUTILS_ROOT",
    "CARGO_MAKEFLAGS",
    "CI",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "CLIPPY_TERMINAL_WIDTH",
    "COLLECT_GCC",
    "COLLECT_GCC_OPTIONS",
    "COLLECT_LTO_WRAPPER",
    "COLLECT_NO_DEMANGLE",
    "COLORTERM",
    "COLUMNS",
    "COMPILER_PATH",
    "FORCE_LLD_DIAGNOSTICS_CRASH",
    "GCC_COLORS",
    "GCC_COMPARE_DEBUG",
    "GCC_EXEC_PREFIX",
    "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
    "GCC_ROOT",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LIBRARY_PATH",
    "LLD_IN_TEST",
    "LLD_REPRODUCE",
    "LLD_VERSION",
    "LLVM_IGNORED_ENV_VAR",
    "LLVM_OVERRIDE_PRODUCER",
    "LPATH",
    "MAKEFLAGS",
    "MALLOC_CONF",
    "MFLAGS",
    "NO_COLOR",
    "PATH",
    "PWD",
    "RUSTC_CTFE_BACKTRACE",
    "RUSTC_FORCE_RUSTC_VERSION",
    "RUSTC_GRAPHVIZ_FONT",
    "RUSTC_ICE",
    "RUSTC_LOG",
    "RUSTC_LOG_BACKTRACE",
    "RUSTC_LOG_COLOR",
    "RUSTC_LOG_ENTRY_EXIT",
    "RUSTC_LOG_FORMAT_JSON",
    "RUSTC_LOG_LINES",
    "RUSTC_LOG_OUTPUT_TARGET",
    "RUSTC_LOG_THREAD_IDS",
    "RUSTC_LOG_WRAPTREE",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "RUST_MIN_STACK",
    "SYSROOT",
    "TEMP",
    "TERM",
    "TMP",
    "TMPDIR",
    "VCINSTALLDIR",
    "_RJEM_MALLOC_CONF",
];

/// Where they are set the command runs here: they write further output, or replace what the compiler is.
const FORBIDDEN: [&str; 6] = [
    "LLD_REPRODUCE",
    "LLD_VERSION",
    "LLVM_OVERRIDE_PRODUCER",
    "RUSTC_FORCE_RUSTC_VERSION",
    "RUSTC_LOG",
    "RUSTC_OVERRIDE_VERSION_STRING",
];

/// The same, for links: they say where the linker looks.
const FORBIDDEN_FOR_LINKS: [&str; 5] =
    ["COMPILER_PATH", "GCC_COMPARE_DEBUG", "GCC_EXEC_PREFIX", "LIBRARY_PATH", "LPATH"];

/// Parts of names whose values are nobody else's business.
const SECRET: [&str; 6] = ["CREDENTIAL", "PASSWD", "PASSWORD", "PRIVATE_KEY", "SECRET", "TOKEN"];

/// What the environment of a command means.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Which program asks.
    pub driver: RustDriver,
    /// Whether a linker is started.
    pub links: bool,
    /// Whether messages are for people, and their colour is left to the compiler.
    pub chooses_color: bool,
    /// Whether `--target` is given: one that is not built in is looked for in `RUST_TARGET_PATH`.
    pub has_target: bool,
    /// The environment.
    pub env: &'a [(String, String)],
}

impl Reader<'_> {
    /// Fails if a variable is set that makes the command local.
    pub fn check(&self) -> Result<(), RustReason> {
        let forbids = |name: &str| {
            FORBIDDEN.contains(&name)
                || (self.links && FORBIDDEN_FOR_LINKS.contains(&name))
                || (self.has_target && name == "RUST_TARGET_PATH")
                || (self.driver == RustDriver::Clippy && name == "SYSROOT")
        };
        match self.env.iter().find(|(name, value)| !value.is_empty() && forbids(name)) {
            Some((name, _)) => Err(RustReason::about(Why::Environment, name)),
            None => Ok(()),
        }
    }

    /// The variables that go along, sorted by name: the known ones that are set, and of `more` (what the sources name, or what was once seen to be
    /// asked for) those that are set and may go along.
    pub fn declared(&self, more: &BTreeSet<String>) -> Vec<(String, String)> {
        let mut declared: Vec<(String, String)> = Vec::new();
        for (name, value) in self.env {
            let goes = self.is_declared(name) || (more.contains(name) && may_go_along(name));
            // The first of a name is what `getenv` gives.
            if goes && !declared.iter().any(|(known, _)| known == name) {
                declared.push((name.clone(), value.clone()));
            }
        }
        declared.sort();
        declared
    }

    fn is_declared(&self, name: &str) -> bool {
        DECLARED.contains(&name)
            || DECLARED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || (self.driver == RustDriver::Clippy && DECLARED_FOR_CLIPPY.contains(&name))
            || (self.chooses_color && DECLARED_FOR_PEOPLE.contains(&name))
    }
}

/// Whether it says nothing that a compile asked for this variable: programs always do, and it changes no result.
pub fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

/// Whether a variable may be told to an agent if a compile asks for it. One that may not makes the compile local.
pub fn may_go_along(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    !matches!(name, "MAKEFLAGS" | "MFLAGS" | "CARGO_MAKEFLAGS" | "CARGO_ENCODED_RUSTFLAGS")
        && !SECRET.iter().any(|part| upper.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn reader(env: &[(String, String)], driver: RustDriver) -> Reader<'_> {
        Reader { driver, links: false, chooses_color: false, has_target: false, env }
    }

    #[test]
    fn packages_and_what_sources_name_go_along() {
        let env = env(&[
            ("OUT_DIR", "/t/out"),
            ("CARGO_PKG_NAME", "x"),
            ("CARGO_REGISTRY_TOKEN", "secret"),
            ("CARGO_MAKEFLAGS", "-j"),
            ("HOME", "/home/a"),
            ("FROM_SCRIPT", "1"),
            ("OTHER", "2"),
            ("CLIPPY_ARGS", ""),
            ("CARGO_PKG_NAME", "shadowed"),
        ]);
        let more = ["FROM_SCRIPT", "CARGO_REGISTRY_TOKEN", "CARGO_MAKEFLAGS", "UNSET"].map(str::to_owned).into();
        let names = |driver| -> Vec<String> {
            reader(&env, driver).declared(&more).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(names(RustDriver::Rustc), ["CARGO_PKG_NAME=x", "FROM_SCRIPT=1", "OUT_DIR=/t/out"]);
        assert_eq!(names(RustDriver::Clippy)[1], "CLIPPY_ARGS=");
    }

    #[test]
    fn some_variables_keep_a_compile_here() {
        for (name, driver, links, has_target) in [
            ("RUSTC_LOG", RustDriver::Rustc, false, false),
            ("LIBRARY_PATH", RustDriver::Rustc, true, false),
            ("RUST_TARGET_PATH", RustDriver::Rustc, false, true),
            ("SYSROOT", RustDriver::Clippy, false, false),
        ] {
            let set = env(&[(name, "x")]);
            let with = Reader { links, has_target, ..reader(&set, driver) };
            assert_eq!(with.check(), Err(RustReason::about(Why::Environment, name)));
            let empty = env(&[(name, "")]);
            assert_eq!(Reader { env: &empty, ..with }.check(), Ok(()));
        }
        let set = env(&[("LIBRARY_PATH", "x"), ("RUST_TARGET_PATH", "x"), ("SYSROOT", "x")]);
        assert_eq!(reader(&set, RustDriver::Rustc).check(), Ok(()));
    }

    #[test]
    fn tables_are_sorted_and_do_not_overlap() {
        assert!(HARMLESS.is_sorted() && DECLARED.is_sorted() && FORBIDDEN.is_sorted());
        for name in DECLARED.iter().chain(&DECLARED_FOR_CLIPPY) {
            assert!(!is_harmless(name), "{name}");
        }
        assert!(is_harmless("RUST_MIN_STACK") && !is_harmless("GIT_HASH"));
    }
}
