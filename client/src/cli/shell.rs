//! `buildbee env`: what a shell evaluates to build through the wrapper. Pure but for a look at the compilers in `PATH`.
//!
//! `CC` has two words, so that it works with every compiler that is there. What can't live with two words gets a folder of links
//! instead (`--links`), and then plain names.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use thiserror::Error;

use super::links::found_before;
use super::programs::{in_path, same_file};
use crate::wrapper::links::{StandIn, stand_in};
use crate::wrapper::program::OWN_NAME;

/// A shell's way to set variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Any that understands POSIX: sh, bash, dash, zsh, ksh.
    Sh,
    /// fish.
    Fish,
}

/// C compilers where none is set, best first.
const C_COMPILERS: [&str; 3] = ["cc", "gcc", "clang"];
/// The same for C++.
const CXX_COMPILERS: [&str; 3] = ["c++", "g++", "clang++"];

/// Why there is nothing to evaluate.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ShellError {
    /// No links.
    #[error("{folder} holds no links to buildbee\nhint: `buildbee install-links {folder}` makes them")]
    NoLinks {
        /// The folder that was named.
        folder: String,
    },
    /// A path that no shell text can hold, or that would be two in `PATH`.
    #[error("{path:?} cannot stand in PATH\nhint: choose a folder whose path is UTF-8 text without a colon")]
    Path {
        /// Which.
        path: String,
    },
}

/// What the shell has now.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// `PATH`.
    pub path: String,
    /// `CC`.
    pub cc: Option<String>,
    /// `CXX`.
    pub cxx: Option<String>,
}

/// What is to be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Folders to put before `PATH`, one after the other.
    pub before_path: Vec<PathBuf>,
    /// Name and value.
    pub variables: Vec<(&'static str, String)>,
}

/// The text to evaluate. `wrapper` is the executable to stand before compilers, `links` a folder of links to use instead.
pub fn assignments(shell: Shell, now: &Variables, wrapper: &Path, links: Option<&Path>) -> Result<String, ShellError> {
    let Set { before_path, variables } = set(now, wrapper, links)?;
    let mut out = String::new();
    for folder in before_path {
        prepend(&mut out, shell, &folder)?;
    }
    for (name, value) in variables {
        set_variable(&mut out, shell, name, &value);
    }
    Ok(out)
}

/// The same as data.
pub fn set(now: &Variables, wrapper: &Path, links: Option<&Path>) -> Result<Set, ShellError> {
    let mut out = Set::default();
    let found = in_path(OWN_NAME, OsStr::new(&now.path));
    if !found.is_some_and(|found| same_file(&found, wrapper)) {
        out.before_path.push(wrapper.parent().unwrap_or(Path::new("/")).to_owned());
    }
    if let Some(folder) = links {
        if !has_links(folder) {
            return Err(ShellError::NoLinks { folder: folder.display().to_string() });
        }
        if found_before(folder, OsStr::new(&now.path)).is_some() {
            out.before_path.push(folder.to_owned());
        }
    }
    for (name, set, usual) in [("CC", &now.cc, C_COMPILERS), ("CXX", &now.cxx, CXX_COMPILERS)] {
        let compiler = compiler(set.as_deref(), usual, &now.path);
        // With links it is named all the same: Meson puts ccache, if there is one, before a compiler that nobody names.
        let value = if links.is_some() { compiler } else { wrapped(&compiler) };
        out.variables.push((name, value));
    }
    if links.is_none() {
        for name in ["CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"] {
            out.variables.push((name, OWN_NAME.to_owned()));
        }
    }
    out.variables.push(("RUSTC_WRAPPER", OWN_NAME.to_owned()));
    Ok(out)
}

/// The compiler that is set, without the wrapper, or the first of the usual ones that is there.
fn compiler(set: Option<&str>, usual: [&str; 3], path: &str) -> String {
    let mut words: Vec<&str> = set.unwrap_or_default().split_whitespace().collect();
    if words.first().is_some_and(|first| Path::new(first).file_name() == Some(OsStr::new(OWN_NAME))) {
        words.remove(0);
    }
    if words.is_empty() {
        let there = usual.into_iter().find(|name| in_path(name, OsStr::new(path)).is_some());
        return there.unwrap_or(usual[0]).to_owned();
    }
    words.join(" ")
}

fn wrapped(compiler: &str) -> String {
    format!("{OWN_NAME} {compiler}")
}

fn has_links(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| stand_in(&entry.path()) == Some(StandIn::Own))
}

fn set_variable(out: &mut String, shell: Shell, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = match shell {
        Shell::Sh => writeln!(out, "export {name}={}", quoted(shell, value)),
        Shell::Fish => writeln!(out, "set -gx {name} {};", quoted(shell, value)),
    };
}

fn prepend(out: &mut String, shell: Shell, folder: &Path) -> Result<(), ShellError> {
    let folder = match folder.to_str() {
        Some(text) if !text.contains(':') => quoted(shell, text),
        _ => return Err(ShellError::Path { path: folder.display().to_string() }),
    };
    let _ = match shell {
        Shell::Sh => writeln!(out, "export PATH={folder}\"${{PATH:+:$PATH}}\""),
        Shell::Fish => writeln!(out, "set -gx PATH {folder} $PATH;"),
    };
    Ok(())
}

/// A word that the shell takes as it is.
pub fn quoted(shell: Shell, text: &str) -> String {
    match shell {
        Shell::Sh => format!("'{}'", text.replace('\'', r"'\''")),
        Shell::Fish => format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapper_in(folder: &Path) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let file = folder.join(OWN_NAME);
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn everything_is_set_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let now = Variables {
            path: format!("{}:/usr/bin", folder.path().display()),
            cc: Some("clang -m32".into()),
            cxx: Some("buildbee g++".into()),
        };
        let text = assignments(Shell::Sh, &now, &wrapper_in(folder.path()), None).unwrap();
        assert_eq!(
            text,
            "export CC='buildbee clang -m32'\nexport CXX='buildbee g++'\n\
             export CMAKE_C_COMPILER_LAUNCHER='buildbee'\nexport CMAKE_CXX_COMPILER_LAUNCHER='buildbee'\n\
             export RUSTC_WRAPPER='buildbee'\n"
        );
    }

    #[test]
    fn a_wrapper_elsewhere_comes_first_in_path() {
        let folder = tempfile::Builder::new().prefix("it's ").tempdir().unwrap();
        let wrapper = wrapper_in(folder.path());
        let text = assignments(Shell::Sh, &Variables::default(), &wrapper, None).unwrap();
        let quoted = folder.path().display().to_string().replace('\'', r"'\''");
        assert!(
            text.starts_with(&format!("export PATH='{quoted}'\"${{PATH:+:$PATH}}\"\nexport CC='buildbee cc'\n")),
            "{text}"
        );
        assert!(assignments(Shell::Sh, &Variables::default(), Path::new("/a:b/buildbee"), None).is_err());
    }

    #[test]
    fn links_need_no_second_word() {
        let folder = tempfile::tempdir().unwrap();
        let wrapper = wrapper_in(folder.path());
        let cc = Some("buildbee clang".to_owned());
        let now = Variables { path: folder.path().display().to_string(), cc, cxx: None };
        let links = folder.path().join("links");
        std::fs::create_dir(&links).unwrap();
        assert!(assignments(Shell::Fish, &now, &wrapper, Some(&links)).is_err(), "no links yet");
        std::os::unix::fs::symlink(&wrapper, links.join("gcc")).unwrap();
        let text = assignments(Shell::Fish, &now, &wrapper, Some(&links)).unwrap();
        let folder = links.display();
        assert_eq!(
            text,
            format!(
                "set -gx PATH '{folder}' $PATH;\nset -gx CC 'clang';\nset -gx CXX 'c++';\nset -gx RUSTC_WRAPPER 'buildbee';\n"
            )
        );
    }

    #[test]
    fn shells_get_back_what_was_quoted() {
        for word in ["plain", "with space", "it's", r"back\slash", r"\'", "$HOME `x` \"y\"", "line\nline"] {
            for (shell, program) in [(Shell::Sh, "sh"), (Shell::Fish, "fish")] {
                let script = format!("printf %s {}", quoted(shell, word));
                // Not every machine has fish.
                let Ok(output) = std::process::Command::new(program).args(["-c", &script]).output() else { continue };
                assert_eq!(String::from_utf8(output.stdout).unwrap(), word, "{program}: {script}");
            }
        }
    }
}
