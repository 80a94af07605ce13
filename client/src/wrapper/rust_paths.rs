//! The arguments that make rustc write names for folders, where this program becomes the compiler: because the daemon has nothing to do with
//! that command, or because there is none. So all crates of a build are of one kind, whatever became of each. Which folders, and which
//! arguments, [`locate`](crate::rust::locate) knows, as for the daemon; for the C of build scripts, [`build_script`].
//!
//! `BUILDBEE_PATHS=exact`, or `paths = "exact"` in the settings file, adds none. The file is read for nothing else, and not where a result is
//! found: beside a compiler's run that costs nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::base_dir::is_compiler;
use super::program::Compiler;
use super::settings::NESTED_VARIABLE;
use crate::rust::build_script;
use crate::rust::locate::{Surroundings, added_flags, leading_words};
use crate::rust::roots::PathSetting;

/// The variable that says what paths in outputs look like.
pub const PATHS_VARIABLE: &str = "BUILDBEE_PATHS";

/// Adds the arguments to a compile of rustc's or clippy's. `variable` looks the environment up.
pub fn add_flags(compiler: &mut Compiler, cwd: &Path, variable: &dyn Fn(&str) -> Option<OsString>) {
    let Some(at) = leading_words(&compiler.program, compiler.argv.get(1..).unwrap_or_default()) else { return };
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
    let setting = setting(&text);
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

/// The same for a compile of C or C++ below one of cargo's build scripts, by a compiler that takes such arguments.
pub fn add_prefix_maps(compiler: &mut Compiler, cwd: &Path, variable: &dyn Fn(&str) -> Option<OsString>) {
    // Looked at before anything else: the settings file is nothing to an ordinary compile.
    if variable("OUT_DIR").is_none() || !is_compiler(compiler.program.file_name().unwrap_or_default()) {
        return;
    }
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
    let words = compiler.argv.iter().skip(1);
    let arguments: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let renamed = build_script::renamed(&Surroundings {
        arguments: &arguments,
        cwd,
        variable: &text,
        sysroot: None,
        setting: setting(&text),
        exists: &|path| path.exists(),
    });
    let flags = renamed.map(|renamed| renamed.flags).unwrap_or_default();
    if !flags.is_empty() && takes_prefix_maps(compiler) {
        compiler.argv.splice(1..1, flags.into_iter().map(OsString::from));
    }
}

/// Nothing is remembered here, so it is asked each time.
fn takes_prefix_maps(compiler: &Compiler) -> bool {
    let mut probe = Command::new(&compiler.program);
    probe.args(build_script::PROBE).env(NESTED_VARIABLE, "1");
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// What `variable`, or else the settings file, says of paths.
fn setting(variable: &dyn Fn(&str) -> Option<String>) -> PathSetting {
    let setting = variable(PATHS_VARIABLE).and_then(|word| PathSetting::from_word(&word));
    setting.or_else(|| written(&std::fs::read_to_string(settings_file(variable)?).ok()?)).unwrap_or_default()
}

/// The settings file, where the command line and the daemon look for it.
fn settings_file(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let named = variable("BUILDBEE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = || absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    named.or_else(|| base().map(|base| base.join("buildbee/config.toml")))
}

/// What a settings file says of `paths`. No TOML parser: the key has a short word for its value, and stands on a line of its own.
pub fn written(settings: &str) -> Option<PathSetting> {
    let lines = settings.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    let mut values = lines.filter_map(|line| line.strip_prefix("paths")?.trim_start().strip_prefix('='));
    let value = values.next()?.trim_start();
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    PathSetting::from_word(value.get(1..)?.split(quote).next()?)
}

/// The words with response files replaced; `None` where one can't be read. What is not UTF-8 names no folder that could be a root.
fn expanded(words: &[OsString], cwd: &Path) -> Option<Vec<String>> {
    let mut arguments = Vec::with_capacity(words.len());
    for word in words {
        let word = word.to_string_lossy();
        match word.strip_prefix('@') {
            Some(file) => {
                let text = std::fs::read_to_string(cwd.join(file)).ok()?;
                arguments.extend(text.lines().map(str::to_owned));
            }
            None => arguments.push(word.into_owned()),
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
    fn what_is_no_text_gets_them_too() {
        use std::os::unix::ffi::OsStringExt;
        let mut argv: Vec<OsString> = std::iter::once("rustc").chain(COMPILE).map(OsString::from).collect();
        argv.push(OsString::from_vec(b"--cfg=odd-\xff".to_vec()));
        let mut compiler = Compiler { program: "rustc".into(), argv };
        add_flags(&mut compiler, Path::new("/nonexistent/ws"), &|_| None);
        assert_eq!(compiler.argv.len(), 1 + COMPILE.len() + FLAGS.len() + 1);
    }

    #[test]
    fn the_settings_file_counts_where_no_variable_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("buildbee/config.toml");
        std::fs::create_dir(folder.path().join("buildbee")).unwrap();
        let n_flags = |text: &str, variables: &[(&str, &OsString)]| {
            std::fs::write(&file, text).unwrap();
            let argv = std::iter::once("rustc").chain(COMPILE).map(OsString::from).collect();
            let mut compiler = Compiler { program: "rustc".into(), argv };
            let variable =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).clone());
            add_flags(&mut compiler, Path::new("/nonexistent/ws"), &variable);
            compiler.argv.len() - 1 - COMPILE.len()
        };
        let (base, named) = (folder.path().as_os_str().to_owned(), file.clone().into_os_string());
        let (exact, portable, nowhere) = (OsString::from("exact"), OsString::from("portable"), OsString::from("/none"));
        let written = "# paths = \"portable\"\npaths = \"exact\" # as plain cargo\n";
        assert_eq!(n_flags(written, &[("XDG_CONFIG_HOME", &base)]), 0);
        assert_eq!(n_flags(written, &[("BUILDBEE_CONFIG", &named), ("XDG_CONFIG_HOME", &nowhere)]), 0);
        assert_eq!(n_flags(written, &[("XDG_CONFIG_HOME", &base), (PATHS_VARIABLE, &portable)]), FLAGS.len());
        assert_eq!(n_flags(written, &[("HOME", &nowhere)]), FLAGS.len());
        assert_eq!(n_flags("paths='portable'\n", &[("XDG_CONFIG_HOME", &base), (PATHS_VARIABLE, &exact)]), 0);
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

    /// What a compile becomes below a build script, by a compiler that is this script.
    fn with_maps(name: &str, script: &str, words: &[&str], more: &[(&str, &str)]) -> Vec<String> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(name);
        std::fs::write(folder.path().join("text"), format!("#!/bin/sh\n{script}\n")).unwrap();
        // Written by another process: what others of these tests start meanwhile would hold it open.
        assert!(Command::new("cp").arg(folder.path().join("text")).arg(&program).status().unwrap().success());
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let argv = std::iter::once(&name).chain(words).map(OsString::from).collect();
        let mut compiler = Compiler { program, argv };
        let set = [
            ("CARGO_HOME", "/h"),
            ("CARGO_MANIFEST_DIR", "/h/y"),
            ("HOST", "x"),
            ("OUT_DIR", "/t/debug/build/y-1/out"),
            ("TARGET", "x"),
        ];
        let set = [&set[..], more].concat();
        let variable =
            |name: &str| set.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        add_prefix_maps(&mut compiler, Path::new("/h/y"), &variable);
        compiler.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn c_below_a_build_script_gets_names_if_its_compiler_takes_them() {
        let words = ["-g", "-c", "x.c"];
        let plain = ["gcc", "-g", "-c", "x.c"];
        let maps = ["-ffile-prefix-map=/h=/buildbee/cargo", "-ffile-prefix-map=/t=/buildbee/target"];
        let mapped = [&["gcc"], maps.as_slice(), words.as_slice()].concat();
        assert_eq!(with_maps("gcc", "exit 0", &words, &[]), mapped);
        assert_eq!(with_maps("gcc", "exit 1", &words, &[]), plain, "one that does not know the option");
        assert_eq!(with_maps("gcc", "exit 0", &words, &[(PATHS_VARIABLE, "exact")]), plain);
        assert_eq!(with_maps("ld", "exit 0", &words, &[]), ["ld", "-g", "-c", "x.c"]);
    }
}
