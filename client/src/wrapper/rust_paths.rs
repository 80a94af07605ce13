//! The arguments that make rustc write names for folders, where there is no daemon to say them: a build whose daemon leaves half-way has the same
//! bytes throughout. Which folders, and which arguments, [`locate`](crate::rust::locate) knows, as for the daemon.
//!
//! `BUILDBEE_PATHS=exact` adds none. A setting in a file is the daemon's: this program reads none.

use std::ffi::OsString;
use std::path::Path;

use super::program::Compiler;
use crate::rust::locate::{Surroundings, added_flags, leading_words};
use crate::rust::roots::PathSetting;

/// The variable that says what paths in outputs look like.
pub const PATHS_VARIABLE: &str = "BUILDBEE_PATHS";

/// Adds the arguments to a compile of rustc's or clippy's. `variable` looks the environment up.
pub fn add_flags(compiler: &mut Compiler, cwd: &Path, variable: &dyn Fn(&str) -> Option<OsString>) {
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
    let setting = text(PATHS_VARIABLE).and_then(|word| PathSetting::from_word(&word)).unwrap_or_default();
    let Some(at) = leading_words(&compiler.program, compiler.argv.get(1..).unwrap_or_default()) else { return };
    let own = at + 1;
    let Some(arguments) = compiler.argv.get(own..).and_then(|words| expanded(words, cwd)) else { return };
    let flags = added_flags(&Surroundings {
        arguments: &arguments,
        cwd,
        variable: &text,
        sysroot: None,
        setting,
        exists: &|path| path.exists(),
    });
    compiler.argv.splice(own..own, flags.into_iter().map(OsString::from));
}

/// The words with response files replaced; `None` where one is not UTF-8 or can't be read.
fn expanded(words: &[OsString], cwd: &Path) -> Option<Vec<String>> {
    let mut arguments = Vec::with_capacity(words.len());
    for word in words {
        let word = word.to_str()?;
        match word.strip_prefix('@') {
            Some(file) => {
                let text = std::fs::read_to_string(cwd.join(file)).ok()?;
                arguments.extend(text.lines().map(str::to_owned));
            }
            None => arguments.push(word.to_owned()),
        }
    }
    Some(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_flags(program: &str, words: &[&str], paths: &str) -> Vec<String> {
        let argv = std::iter::once(&program).chain(words).map(OsString::from).collect();
        let mut compiler = Compiler { program: program.into(), argv };
        add_flags(&mut compiler, Path::new("/nonexistent/ws"), &|name| (name == PATHS_VARIABLE).then(|| paths.into()));
        compiler.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    const COMPILE: [&str; 5] = ["--crate-name", "x", "src/lib.rs", "--out-dir", "/nonexistent/ws/target/debug/deps"];
    const FLAGS: [&str; 2] = [
        "--remap-path-prefix=/nonexistent/ws=/proc/self/cwd",
        "--remap-path-prefix=/nonexistent/ws/target=/buildbee/target",
    ];

    #[test]
    fn compiles_get_the_same_arguments_as_from_the_daemon() {
        let rustc = with_flags("/r/bin/rustc", &COMPILE, "");
        assert_eq!(rustc, [&["/r/bin/rustc"], FLAGS.as_slice(), COMPILE.as_slice()].concat());
        let words = [&["/r/bin/rustc"], COMPILE.as_slice()].concat();
        let clippy = with_flags("clippy-driver", &words, "portable");
        assert_eq!(clippy, [&["clippy-driver", "/r/bin/rustc"], FLAGS.as_slice(), COMPILE.as_slice()].concat());
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for (program, words, paths) in [
            ("rustc", COMPILE.as_slice(), "exact"),
            ("gcc", COMPILE.as_slice(), ""),
            ("rustc", &["-vV"], ""),
            ("rustc", &["-", "--crate-name", "___", "--print=file-names"], ""),
            ("rustc", &["@/nonexistent/args"], ""),
        ] {
            assert_eq!(with_flags(program, words, paths).len(), words.len() + 1, "{program} {words:?} {paths}");
        }
    }
}
