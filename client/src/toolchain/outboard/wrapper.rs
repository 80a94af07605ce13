//! Which wrappers do on an agent what they do here. nixpkgs' own are known to: they read variables that begin alike, and name all else by
//! store path. Of any other script every variable counts that it does not set itself.
//!
//! Whatever it is, what it adds to a command is looked at once: an argument that reads or writes a file that the front-end does not know of
//! would go unseen.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::{OutboardError, Store};
use crate::toolchain::capture::{self, CaptureError};

/// A script larger than this is none that wraps a compiler.
const MAX_SCRIPT_BYTES: u64 = 1 << 20;
/// Files by which nixpkgs' `cc-wrapper` is known, beside its `bin`.
const NIXPKGS: [&str; 2] = ["nix-support/orig-cc", "nix-support/cc-cflags"];
/// Commands after which anything may be read.
const OPAQUE: [&str; 5] = ["eval", "source", ".", "env", "printenv"];
/// How nixpkgs' `makeWrapper` hands on the name that it was called by.
const KEEPS_NAME: &str = "exec -a \"$0\"";
/// Asks for the commands of a compile that reads nothing, without temporary files, whose names are random.
const PLAN: [&str; 6] = ["-###", "-S", "-x", "c", "/dev/null", "-o"];
/// What a wrapper may not add: it reads or writes further files.
const NOT_FOLLOWED: [&str; 11] = [
    "-include",
    "-imacros",
    "-M",
    "-dependency-file",
    "-fplugin",
    "-gsplit-dwarf",
    "-save-temps",
    "-fdump",
    "-specs",
    "-fprofile",
    "-ftest-coverage",
];

/// Whether `program` (absolute, physical) is a script.
pub fn is_script(program: &Path) -> bool {
    capture::check_elf(program).is_err_and(|error| matches!(error, CaptureError::Script(_)))
}

/// Refuses a script in `store_path` that depends on what no agent is told.
pub fn check_script(store: &Store, store_path: &Path, script: &Path) -> Result<(), OutboardError> {
    if NIXPKGS.iter().any(|file| store_path.join(file).is_file()) {
        return Ok(());
    }
    let refused = |what: String| OutboardError::Script { path: script.to_owned(), what };
    if fs::metadata(script).is_ok_and(|meta| meta.len() > MAX_SCRIPT_BYTES) {
        return Err(refused("more than can be looked through".to_owned()));
    }
    let text = fs::read_to_string(script).map_err(|error| refused(error.to_string()))?;
    depends_on(&text, &store.variables).map_or(Ok(()), |what| Err(refused(what)))
}

/// Refuses a compiler that does other things under the `PATH` that agents give it, or that adds what is not followed.
pub fn check_plan(program: &Path, search: &OsStr, on_agents: &OsStr) -> Result<(), OutboardError> {
    let plan = |path: &OsStr| {
        let arguments: Vec<&str> = PLAN.into_iter().chain(["/dev/null"]).collect();
        capture::ask_stderr_with(capture::command(program).env("PATH", path), program, &arguments).ok()
    };
    let told = plan(on_agents).filter(|told| plan(search).as_ref() == Some(told));
    let told = told.ok_or_else(|| OutboardError::Path(program.to_owned()))?;
    let words = told.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    match words.into_iter().find(|word| NOT_FOLLOWED.iter().any(|start| word.starts_with(start))) {
        None => Ok(()),
        Some(word) => Err(OutboardError::Adds { path: program.to_owned(), argument: word.to_owned() }),
    }
}

/// What of the outside a shell script reads besides variables that begin with one of `carried`; `PATH` is looked at by running it. A variable
/// that it sets further up counts as its own.
fn depends_on(text: &str, carried: &[String]) -> Option<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let code = code.join("\n").replace(KEEPS_NAME, "exec");
    let words = code.split(|c: char| c.is_whitespace() || ";|&()`{}".contains(c));
    if let Some(word) = words.into_iter().find(|word| OPAQUE.contains(word)) {
        return Some(format!("what {word:?} reads"));
    }
    let set = set_by(&code);
    let is_known = |name: &str, at: usize| {
        name == "PATH"
            || set.iter().any(|(place, known)| *known == name && *place < at)
            || carried.iter().any(|start| name.starts_with(start))
    };
    for (at, _) in code.match_indices('$') {
        let rest = code[at + 1..].trim_start_matches('{').trim_start_matches(['#', '!']);
        let name = name_at(rest);
        if rest.starts_with('0') || name == "BASH_SOURCE" {
            return Some("the name that it is called by".to_owned());
        }
        if !name.is_empty() && !is_known(name, at) {
            return Some(format!("the variable {name}"));
        }
    }
    None
}

/// Variables that a script gives values to, and where.
fn set_by(code: &str) -> Vec<(usize, &str)> {
    let assigned = code.match_indices('=').filter_map(|(at, _)| {
        let start = code[..at].rfind(|c: char| !is_name(c)).map_or(0, |at| at + 1);
        let opens = code[..start].chars().next_back().is_none_or(|c| c.is_whitespace() || ";|&(".contains(c));
        opens.then(|| (at, &code[start..at])).filter(|(_, name)| !name.is_empty())
    });
    let looped = code.match_indices("for ").map(|(at, word)| (at, name_at(code[at + word.len()..].trim_start())));
    assigned.chain(looped).collect()
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The variable's name that `text` begins with; empty where it begins with none.
fn name_at(text: &str) -> &str {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return "";
    }
    text.find(|c| !is_name(c)).map_or(text, |end| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &str) -> Option<String> {
        depends_on(text, &["NIX_".to_owned()])
    }

    #[test]
    fn scripts_that_set_what_they_read_are_taken() {
        for good in [
            "#!/nix/store/a/bin/sh\n# uses $HOME\nexport PATH=/nix/store/b/bin\nexec /nix/store/b/bin/gcc -Bx \"$@\"\n",
            "flags=(-O2)\nflags+=($NIX_CFLAGS_COMPILE)\nexec gcc \"${flags[@]}\" \"$@\"",
            "for arg in \"$@\"; do last=$arg; done; exec -a \"$0\" /nix/store/c/bin/clang \"$@\"",
            "if [ $# -gt 0 ]; then exit $?; fi",
            "PATH=$PATH:/nix/store/b/bin gcc \"$@\"",
        ] {
            assert_eq!(says(good), None, "{good}");
        }
    }

    #[test]
    fn scripts_that_read_the_outside_are_not() {
        for (bad, what) in [
            ("exec gcc $EXTRA_FLAGS \"$@\"", "EXTRA_FLAGS"),
            ("exec gcc ${CFLAGS:-} \"$@\"", "CFLAGS"),
            ("[ ${#MORE} = 0 ] || exec gcc", "MORE"),
            ("exec \"$(dirname \"$0\")/gcc\" \"$@\"", "called by"),
            ("exec gcc $(eval echo x)", "eval"),
            (". /etc/flags\nexec gcc", "\".\""),
            ("a=$b; b=1", "the variable b"),
            ("[ x == $y ]", "the variable y"),
        ] {
            let said = says(bad).unwrap_or_default();
            assert!(said.contains(what), "{bad}: {said:?}");
        }
    }

    #[test]
    fn a_compiler_that_adds_nothing_passes_and_a_plan_that_varies_does_not() {
        let path = OsStr::new("/usr/bin:/bin");
        check_plan(Path::new("/usr/bin/gcc"), path, path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let wrapper = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt;
            let place = folder.path().join(name);
            fs::write(&place, text).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
            place
        };
        let adds = wrapper("adds", "#!/bin/sh\nexec /usr/bin/gcc -include stddef.h \"$@\"\n");
        assert!(matches!(check_plan(&adds, path, path), Err(OutboardError::Adds { .. })));
        let varies = wrapper("varies", "#!/bin/sh\ncommand -v gcc >/dev/null || exit 1\nexec /usr/bin/gcc \"$@\"\n");
        assert!(matches!(check_plan(&varies, path, OsStr::new("/nowhere")), Err(OutboardError::Path(_))));
        assert!(is_script(&varies) && !is_script(Path::new("/bin/true")));
    }
}
