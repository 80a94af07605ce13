//! Variables that change what a compiler does: which go along with an action, and which make it local.
//!
//! Left out with a reason: `PATH` (the toolchain says where `as` is), `PWD` (see `CompileRequest::logical_directory`), `TERM`,
//! `COLORTERM`, `COLUMNS` (made explicit as arguments), `TMPDIR` (names of temporary files reach no output), `LIBRARY_PATH` (links
//! only), `TZ` (matters for `__DATE__` only, which keeps a source local), `LC_TIME`, `LC_COLLATE`, `LC_NUMERIC`, `LC_MONETARY` (compilers
//! set only ctype and messages), `LD_LIBRARY_PATH`, `LD_PRELOAD` (how this machine starts programs; the toolchain's identity covers what
//! it loads), `HOME`, `USER` (never read).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::language::Language;
use super::reason::{Reason, ReasonKind};
use super::request::{CompilerFamily, Invocation, SearchDirectory, SearchKind};
use super::time_words::TimeWords;

/// A locale that every toolchain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommonLocale {
    /// `C`: plain ASCII.
    Plain,
    /// `C.UTF-8`.
    Utf8,
}

/// Variables that name a locale.
pub const LOCALE_NAMES: [&str; 5] = ["LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES"];

/// When a variable goes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Whenever it is set.
    Always,
    /// If diagnostics are coloured.
    WithColor,
    /// If diagnostics carry links.
    WithUrls,
}

/// A variable that goes along with an action.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The family that reads it; `None` for both.
    pub family: Option<CompilerFamily>,
    /// When.
    pub carried: Carried,
}

const fn carried(name: &'static str) -> Variable {
    Variable { name, family: None, carried: Carried::Always }
}

const fn gcc(name: &'static str, carried: Carried) -> Variable {
    Variable { name, family: Some(CompilerFamily::Gcc), carried }
}

const fn clang(name: &'static str) -> Variable {
    Variable { name, family: Some(CompilerFamily::Clang), carried: Carried::Always }
}

/// What goes along.
pub static CARRIED: [Variable; 19] = [
    // Language of messages, and which quotes they have.
    carried("LANG"),
    carried("LANGUAGE"),
    carried("LC_ALL"),
    carried("LC_CTYPE"),
    carried("LC_MESSAGES"),
    // Search path of includes.
    carried("CPATH"),
    carried("C_INCLUDE_PATH"),
    carried("CPLUS_INCLUDE_PATH"),
    carried("OBJC_INCLUDE_PATH"),
    carried("OBJCPLUS_INCLUDE_PATH"),
    // __DATE__ and __TIME__.
    carried("SOURCE_DATE_EPOCH"),
    // Text of diagnostics.
    gcc("GCC_COLORS", Carried::WithColor),
    gcc("GCC_URLS", Carried::WithUrls),
    gcc("TERM_URLS", Carried::WithUrls),
    gcc("GCC_EXTRA_DIAGNOSTIC_OUTPUT", Carried::Always),
    // Defaults for targets of one vendor.
    clang("SDKROOT"),
    clang("MACOSX_DEPLOYMENT_TARGET"),
    clang("IPHONEOS_DEPLOYMENT_TARGET"),
    clang("TVOS_DEPLOYMENT_TARGET"),
];

/// Variables that make every compile local: they write files, replace parts of the compiler or rewrite its arguments.
pub static FORBIDDEN: [&str; 14] = [
    "CCC_ADD_ARGS",
    "CCC_OVERRIDE_OPTIONS",
    "CC_LOG_DIAGNOSTICS",
    "CC_PRINT_HEADERS",
    "CC_PRINT_INTERNAL_STAT",
    "CC_PRINT_OPTIONS",
    "CC_PRINT_PROC_STAT",
    "COMPILER_PATH",
    "DEPENDENCIES_OUTPUT",
    "FORCE_CLANG_DIAGNOSTICS_CRASH",
    "GCC_COMPARE_DEBUG",
    "GCC_EXEC_PREFIX",
    "QA_OVERRIDE_GCC3_OPTIONS",
    "SUNPRO_DEPENDENCIES",
];

/// Variables that begin as those of nixpkgs' wrappers do and that no compile reads: Nix's own, those of builders and of shells.
static UNREAD: [&str; 17] = [
    "NIX_BINTOOLS",
    "NIX_BUILD_CORES",
    "NIX_BUILD_TOP",
    "NIX_CC",
    "NIX_CONFIG",
    "NIX_CONF_DIR",
    "NIX_DATA_DIR",
    "NIX_INDENT_MAKE",
    "NIX_LOCALSTATE_DIR",
    "NIX_LOG_DIR",
    "NIX_LOG_FD",
    "NIX_PATH",
    "NIX_PROFILES",
    "NIX_REMOTE",
    "NIX_SSL_CERT_FILE",
    "NIX_STATE_DIR",
    "NIX_USER_PROFILE_DIR",
];
/// How variables begin whose words nixpkgs' wrappers put behind the command's own arguments, or in front of them.
const ADDED: [&str; 2] = ["NIX_CFLAGS_COMPILE", "NIX_CXXSTDLIB_COMPILE"];
const ADDED_IN_FRONT: &str = "NIX_CFLAGS_COMPILE_BEFORE";
/// Has nixpkgs' wrappers drop arguments by where this build's folders are.
const PURITY: &str = "NIX_ENFORCE_PURITY";

/// Variables that the compiler's wrapper reads.
fn read_by_wrapper<'a>(invocation: &Invocation<'a>) -> impl Iterator<Item = &'a (String, String)> {
    let starts = invocation.variables;
    let is_read = move |name: &str| starts.iter().any(|start| name.starts_with(start.as_str()));
    invocation.env.iter().filter(move |(name, _)| is_read(name) && !UNREAD.contains(&name.as_str()))
}

/// The command with what the compiler's wrapper adds to it, as variables say; `None` where it adds nothing. Fails where that could not be
/// told from the words alone.
pub(super) fn with_added(invocation: &Invocation<'_>) -> Result<Option<Vec<String>>, Reason> {
    let (mut front, mut behind) = (Vec::new(), Vec::new());
    for (name, value) in read_by_wrapper(invocation) {
        if name.starts_with(PURITY) && value == "1" {
            return Err(Reason::about(ReasonKind::Environment, name.as_str()));
        }
        if ADDED.iter().any(|start| name.starts_with(start)) {
            // Files of arguments, words for the shell, and what asks the machine.
            if value.contains(['@', '"', '\'', '\\', '*', '?', '[']) || value.contains("=native") {
                return Err(Reason::about(ReasonKind::Environment, name.as_str()));
            }
            let side = if name.starts_with(ADDED_IN_FRONT) { &mut front } else { &mut behind };
            side.extend(value.split_ascii_whitespace().map(str::to_owned));
        }
    }
    if front.is_empty() && behind.is_empty() {
        return Ok(None);
    }
    Ok(Some([&front, invocation.argv, &behind].concat()))
}

/// The value that `getenv` would give: the first.
pub(super) fn get<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// What `SOURCE_DATE_EPOCH` says the time for. gcc obeys it; clang does so since 16 only.
pub(super) fn fixed_words(invocation: &Invocation<'_>) -> TimeWords {
    let epoch = get(invocation.env, "SOURCE_DATE_EPOCH");
    if invocation.family == CompilerFamily::Gcc && epoch.is_some_and(|value| value.parse::<u32>().is_ok()) {
        TimeWords::DATE | TimeWords::TIME
    } else {
        TimeWords::default()
    }
}

/// Fails if a variable of [`FORBIDDEN`] is set.
pub(super) fn check(env: &[(String, String)]) -> Result<(), Reason> {
    match FORBIDDEN.iter().find(|name| get(env, name).is_some()) {
        Some(name) => Err(Reason::about(ReasonKind::Environment, *name)),
        None => Ok(()),
    }
}

/// What goes along, sorted by name. A locale that speaks like a common one is replaced by it: then the action is the same for people whose
/// locales differ, and any toolchain prints it.
pub(super) fn carry(invocation: &Invocation<'_>, colored: bool, linked: bool) -> Vec<(String, String)> {
    let Invocation { env, family, locale, .. } = *invocation;
    let mut kept = BTreeMap::new();
    if locale == Some(CommonLocale::Utf8) {
        kept.insert("LC_ALL".to_owned(), "C.UTF-8".to_owned());
    }
    let named_otherwise = |name: &str| locale.is_some() && LOCALE_NAMES.contains(&name);
    for variable in CARRIED.iter().filter(|variable| !named_otherwise(variable.name)) {
        let wanted = match variable.carried {
            Carried::Always => true,
            Carried::WithColor => colored,
            Carried::WithUrls => linked,
        };
        if !wanted || variable.family.is_some_and(|known| known != family) {
            continue;
        }
        if let Some(value) = get(env, variable.name).filter(|value| !value.contains('\0')) {
            kept.insert(variable.name.to_owned(), value.to_owned());
        }
    }
    for (name, value) in read_by_wrapper(invocation).filter(|(_, value)| !value.contains('\0')) {
        kept.entry(name.clone()).or_insert_with(|| value.clone());
    }
    kept.into_iter().collect()
}

/// Folders that variables add to the search path. An empty name in a list is the working directory.
pub(super) fn search_directories(env: &[(String, String)], language: Language) -> Vec<SearchDirectory> {
    let own = match language {
        Language::C | Language::PreprocessedC | Language::Assembler | Language::AssemblerWithCpp => "C_INCLUDE_PATH",
        Language::Cxx | Language::PreprocessedCxx => "CPLUS_INCLUDE_PATH",
        Language::ObjC | Language::PreprocessedObjC => "OBJC_INCLUDE_PATH",
        Language::ObjCxx | Language::PreprocessedObjCxx => "OBJCPLUS_INCLUDE_PATH",
    };
    let mut directories = Vec::new();
    for (name, kind) in [("CPATH", SearchKind::EnvAll), (own, SearchKind::EnvLanguage)] {
        let list = get(env, name).unwrap_or_default();
        if list.is_empty() {
            continue;
        }
        directories.extend(
            list.split(':')
                .map(|path| SearchDirectory { kind, path: PathBuf::from(if path.is_empty() { "." } else { path }) }),
        );
    }
    directories
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::request::DriverLanguage;
    use super::*;

    fn env(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn carry_for(
        set: &[(&str, &str)],
        family: CompilerFamily,
        locale: Option<CommonLocale>,
        terminal: bool,
    ) -> Vec<(String, String)> {
        let env = env(set);
        let invocation = Invocation {
            family,
            driver: DriverLanguage::C,
            argv: &[],
            env: &env,
            cwd: Path::new("/"),
            stderr_is_terminal: terminal,
            columns: None,
            locale,
            variables: &[],
        };
        carry(&invocation, terminal, terminal)
    }

    #[test]
    fn a_locale_is_replaced_by_the_common_one_that_speaks_alike() {
        let set = [("LANG", "en_US.UTF-8"), ("LC_ALL", ""), ("CPATH", "x")];
        let carried = |locale| carry_for(&set, CompilerFamily::Gcc, locale, false);
        assert_eq!(carried(Some(CommonLocale::Plain)), env(&[("CPATH", "x")]));
        assert_eq!(carried(Some(CommonLocale::Utf8)), env(&[("CPATH", "x"), ("LC_ALL", "C.UTF-8")]));
        assert_eq!(carried(None).len(), 3);
    }

    #[test]
    fn every_forbidden_variable_is_named() {
        for name in FORBIDDEN {
            let reason = check(&env(&[("A", "b"), (name, "")])).unwrap_err();
            assert_eq!((reason.code(), reason.argument.as_deref()), ("environment", Some(name)));
        }
        assert!(check(&env(&[("PATH", "/bin")])).is_ok());
    }

    #[test]
    fn every_carried_variable_goes_along_sorted() {
        let all: Vec<_> = CARRIED.iter().rev().map(|variable| (variable.name, "v")).collect();
        for family in [CompilerFamily::Gcc, CompilerFamily::Clang] {
            let kept = carry_for(&all, family, None, true);
            assert_eq!(kept.len(), 15);
            assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        let set = [("GCC_COLORS", "x"), ("GCC_URLS", "x"), ("HOME", "/")];
        assert!(carry_for(&set, CompilerFamily::Gcc, None, false).is_empty());
    }

    #[test]
    fn the_first_of_two_values_counts() {
        let kept = carry_for(&[("LANG", "a"), ("LANG", "b")], CompilerFamily::Gcc, None, false);
        assert_eq!(kept, env(&[("LANG", "a")]));
    }

    fn nixpkgs<'a>(env: &'a [(String, String)], argv: &'a [String], variables: &'a [String]) -> Invocation<'a> {
        Invocation {
            family: CompilerFamily::Gcc,
            driver: DriverLanguage::C,
            argv,
            env,
            cwd: Path::new("/"),
            stderr_is_terminal: false,
            columns: None,
            locale: None,
            variables,
        }
    }

    #[test]
    fn variables_of_a_wrapper_go_along_where_there_is_one() {
        let set =
            env(&[("NIX_LDFLAGS", "-rpath x"), ("NIX_HARDENING_ENABLE", "fortify"), ("NIX_PATH", "n"), ("NI", "")]);
        let (argv, starts) = ([], ["NIX_".to_owned()]);
        let carried = |variables| carry(&nixpkgs(&set, &argv, variables), false, false);
        assert_eq!(carried(&starts), env(&[("NIX_HARDENING_ENABLE", "fortify"), ("NIX_LDFLAGS", "-rpath x")]));
        assert!(carried(&[]).is_empty());
    }

    #[test]
    fn what_a_wrapper_adds_counts_as_arguments() {
        let (argv, starts) = (["-c".to_owned(), "x.c".to_owned()], ["NIX_".to_owned()]);
        let whole = |set: &[(&str, &str)]| with_added(&nixpkgs(&env(set), &argv, &starts)).map_err(|why| why.argument);
        let set = [("NIX_CFLAGS_COMPILE", " -isystem /nix/store/z/include\t-O2"), ("NIX_CFLAGS_COMPILE_BEFORE", "-DA")];
        assert_eq!(whole(&set).unwrap().unwrap().join(" "), "-DA -c x.c -isystem /nix/store/z/include -O2");
        assert_eq!(whole(&[("NIX_LDFLAGS", "-L/x"), ("NIX_ENFORCE_PURITY", "0")]), Ok(None));
        for (name, value) in [
            ("NIX_CFLAGS_COMPILE_x86_64_unknown_linux_gnu", "@file"),
            ("NIX_CFLAGS_COMPILE", "-march=native"),
            ("NIX_CFLAGS_COMPILE", "-I*"),
            ("NIX_ENFORCE_PURITY_x86_64", "1"),
        ] {
            assert_eq!(whole(&[(name, value)]), Err(Some(name.to_owned())));
        }
    }

    #[test]
    fn include_variables_by_language() {
        let set = env(&[("CPATH", "a::/b"), ("C_INCLUDE_PATH", ""), ("CPLUS_INCLUDE_PATH", "c:")]);
        let paths = |language| {
            search_directories(&set, language)
                .into_iter()
                .map(|found| found.path.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(paths(Language::C), ["a", ".", "/b"]);
        assert_eq!(paths(Language::Cxx), ["a", ".", "/b", "c", "."]);
    }
}
