//! C and C++ that cargo's build scripts compile: in what it makes of them, the folders that rustc is told to write names for have the same names,
//! so that objects, and the crates and programs that they get into, are the same in every checkout and home. Compilers of C are told by
//! `-ffile-prefix-map`.
//!
//! Asked by the daemon and, where it is alone, by the wrapper, like [`locate`](mod@super::locate): so this looks at words and variables only, and uses
//! nothing but the standard library.

use std::path::{Path, PathBuf};

use super::locate::{self, Surroundings, locate};
use super::roots::{PathSetting, RootKind};

/// Variables that only a build script has all of.
const VARIABLES: [&str; 4] = ["CARGO_MANIFEST_DIR", "HOST", "OUT_DIR", "TARGET"];

/// Whether a compiler of C takes the option: it succeeds with these arguments, and compiles nothing.
pub const PROBE: [&str; 6] = ["-ffile-prefix-map=/a=/b", "-###", "-E", "-x", "c", "/dev/null"];

/// What a compile below a build script stands in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renamed {
    /// The arguments that make outputs hold names, to stand before the user's: those of folders in others follow these.
    pub flags: Vec<String>,
    /// The folders, with or without an argument; in an order that does not depend on where they are, as far as they are not in each other.
    pub folders: Vec<PathBuf>,
}

/// The folders that get names; `None` for a command that compiles nothing, or that no build script runs.
pub fn renamed(around: &Surroundings<'_>) -> Option<Renamed> {
    let compiles = around.arguments.iter().any(|word| word == "-c" || word == "-S");
    if around.setting == PathSetting::Exact || !compiles {
        return None;
    }
    let [package, _, out_dir, _] = VARIABLES.map(|name| (around.variable)(name));
    let is_script = VARIABLES.iter().all(|name| (around.variable)(name).is_some());
    let (package, out_dir) = (PathBuf::from(package?), out_dir?);
    if !is_script || !package.is_absolute() || !Path::new(&out_dir).is_absolute() {
        return None;
    }
    let arguments: Vec<String> = around.arguments.iter().cloned().chain(["--out-dir".to_owned(), out_dir]).collect();
    let roots = locate(&Surroundings { arguments: &arguments, cwd: workspace(around, &package), ..*around });
    let folders = in_order(roots.iter().map(|(kind, real, _)| (kind, real.to_owned())).collect());
    let flags = folders.iter().filter_map(|(kind, folder)| flag(*kind, folder, around.arguments)).collect();
    Some(Renamed { flags, folders: folders.into_iter().map(|(_, folder)| folder).collect() })
}

/// The folder that a build script's package belongs to: for rustc, cargo's working directory is there. No variable names it, but cargo keeps its lock
/// file there; packages of registries are folders of their own.
fn workspace<'a>(around: &Surroundings<'_>, package: &'a Path) -> &'a Path {
    if locate::cargo_home(around).is_some_and(|home| package.starts_with(home)) {
        return package;
    }
    package.ancestors().find(|folder| (around.exists)(&folder.join("Cargo.lock"))).unwrap_or(package)
}

/// By kind, but folders in others after these.
fn in_order(mut folders: Vec<(RootKind, PathBuf)>) -> Vec<(RootKind, PathBuf)> {
    folders.sort();
    let mut ordered = Vec::with_capacity(folders.len());
    while !folders.is_empty() {
        let is_outer = |(_, folder): &(RootKind, PathBuf)| {
            !folders.iter().any(|(_, other)| other != folder && folder.starts_with(other))
        };
        // Of any number of folders one is in no other.
        let at = folders.iter().position(is_outer).unwrap_or_default();
        ordered.push(folders.remove(at));
    }
    ordered
}

/// The argument for one folder, unless the user has said something of it.
fn flag(kind: RootKind, folder: &Path, arguments: &[String]) -> Option<String> {
    let folder = folder.to_str().filter(|folder| !folder.contains('='))?;
    let is_said =
        |word: &String| old_prefix(word).is_some_and(|old| folder.starts_with(old) || old.starts_with(folder));
    (!arguments.iter().any(is_said)).then(|| format!("-ffile-prefix-map={folder}={}", kind.name()))
}

/// What a prefix map replaces, without a slash at its end.
fn old_prefix(word: &str) -> Option<&str> {
    let (option, map) = word.split_once('=')?;
    let is_map = matches!(option, "-ffile-prefix-map" | "-fdebug-prefix-map" | "-fmacro-prefix-map");
    is_map.then(|| map.split('=').next().unwrap_or_default().trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: [(&str, &str); 5] = [
        ("CARGO_MANIFEST_DIR", "/home/a/app/native"),
        ("HOME", "/home/a"),
        ("HOST", "x"),
        ("OUT_DIR", "/home/a/app/target/debug/build/native-0123/out"),
        ("TARGET", "x"),
    ];

    fn of(words: &[&str], env: &[(&str, &str)], setting: PathSetting, files: &[&str]) -> Option<Renamed> {
        let arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        renamed(&Surroundings {
            arguments: &arguments,
            cwd: Path::new("/anywhere"),
            variable: &|name| env.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
            sysroot: None,
            setting,
            exists: &|path| files.iter().any(|file| path == Path::new(file)),
        })
    }

    fn flags(words: &[&str], more: &[(&str, &str)], files: &[&str]) -> Vec<String> {
        of(words, &[&SCRIPT, more].concat(), PathSetting::Portable, files)
            .map(|renamed| renamed.flags)
            .unwrap_or_default()
    }

    #[test]
    fn a_package_of_a_workspace() {
        let lock = ["/home/a/app/Cargo.lock"];
        let workspace = "-ffile-prefix-map=/home/a/app=/proc/self/cwd";
        let target = "-ffile-prefix-map=/home/a/app/target=/buildbee/target";
        assert_eq!(flags(&["-c", "x.c"], &[], &lock), [workspace, target]);
        let package = "-ffile-prefix-map=/home/a/app/native=/proc/self/cwd";
        assert_eq!(flags(&["-c", "x.c"], &[], &[]), [package, target], "no lock file, no workspace");
        let home = "-ffile-prefix-map=/home/a/.cargo=/buildbee/cargo";
        let words = ["-I", "/home/a/.cargo/registry/src/i/y-1.0/include", "-c", "x.c"];
        assert_eq!(flags(&words, &[], &lock), [workspace, home, target], "another's headers");
        let inner = "-ffile-prefix-map=/home/a/app/target/home=/buildbee/cargo";
        let words = ["-I/home/a/app/target/home/registry", "-c", "x.c"];
        let env = [("CARGO_HOME", "/home/a/app/target/home")];
        assert_eq!(flags(&words, &env, &lock), [workspace, target, inner], "a home in the target folder");
    }

    #[test]
    fn a_package_of_a_registry_wherever_things_are() {
        for (home, target) in [("/h", "/home/a/rather/long/target"), ("/h", "/h/target"), ("/t/home", "/x")] {
            let package = format!("{home}/registry/src/i/blake3-1.8.2");
            let out_dir = format!("{target}/debug/build/blake3-0123/out");
            let env = [("CARGO_HOME", home), ("CARGO_MANIFEST_DIR", package.as_str()), ("OUT_DIR", out_dir.as_str())];
            let lock = format!("{package}/Cargo.lock");
            let expected = [
                format!("-ffile-prefix-map={home}=/buildbee/cargo"),
                format!("-ffile-prefix-map={target}=/buildbee/target"),
            ];
            assert_eq!(flags(&["-g", "-c", "c/blake3.c"], &env, &[&lock]), expected, "{home} {target}");
        }
    }

    #[test]
    fn what_the_user_says_of_a_folder_counts() {
        let lock = ["/home/a/app/Cargo.lock"];
        for (word, n) in [
            ("-ffile-prefix-map=/home/a/app=.", 0),
            ("-fdebug-prefix-map=/home/a=/x", 0),
            ("-fmacro-prefix-map=/home/a/app/native/=", 1),
            ("-ffile-prefix-map=/elsewhere=/x", 2),
        ] {
            assert_eq!(flags(&[word, "-c", "x.c"], &[], &lock).len(), n, "{word}");
        }
        assert_eq!(flags(&["-c", "x.c"], &[("CARGO_MANIFEST_DIR", "/home/a=b/native")], &[]).len(), 1);
    }

    #[test]
    fn other_commands_get_nothing() {
        let compile = ["-c", "x.c"];
        assert_eq!(of(&["x.o", "-o", "x"], &SCRIPT, PathSetting::Portable, &[]), None);
        assert_eq!(of(&compile, &SCRIPT, PathSetting::Exact, &[]), None);
        for at in 0..SCRIPT.len() {
            let mut env = SCRIPT.to_vec();
            let (name, _) = env.remove(at);
            assert_eq!(of(&compile, &env, PathSetting::Portable, &[]).is_some(), name == "HOME", "{name}");
        }
        assert_eq!(of(&compile, &[&SCRIPT[..], &[("OUT_DIR", "out")]].concat(), PathSetting::Portable, &[]), None);
    }
}
