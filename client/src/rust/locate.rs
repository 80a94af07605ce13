//! Which folders are the roots of a command. The wrapper, when it is alone, asks the same question and must get the same answer, so this looks at
//! words and variables only, and uses nothing but the standard library.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::roots::{PathSetting, RootKind, Roots, Side};

/// What a command stands in.
#[expect(missing_debug_implementations, reason = "holds functions")]
pub struct Surroundings<'a> {
    /// Arguments, response files expanded.
    pub arguments: &'a [String],
    /// Absolute, links resolved.
    pub cwd: &'a Path,
    /// Looks a variable of the environment up.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The compiler's own folder. Its name gets into outputs of no ordinary compile (seen with and without the standard library's sources in
    /// it), so who doesn't know it may leave it out.
    pub sysroot: Option<&'a Path>,
    /// Whether outputs are to hold names.
    pub setting: PathSetting,
    /// Whether there is such a file.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// How many of the first arguments stand before the compiler's own, if `program` is rustc or clippy's driver by its name: cargo gives a
/// workspace wrapper such as the latter the compiler's path.
pub fn leading_words(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Option<usize> {
    let names_rustc = |word: &Path| word.file_stem().is_some_and(|stem| stem == "rustc");
    if names_rustc(program) {
        return Some(0);
    }
    let is_clippy = program.file_stem().is_some_and(|stem| stem == "clippy-driver");
    is_clippy.then(|| usize::from(arguments.first().is_some_and(|word| names_rustc(Path::new(word)))))
}

/// The arguments that a compile gets which runs here; none for a command that compiles nothing. Also for those that can be neither cached nor
/// made elsewhere: a build has names in all of its outputs, or in none.
pub fn added_flags(around: &Surroundings<'_>) -> Vec<String> {
    let begins = |start: &str| around.arguments.iter().any(|word| word.starts_with(start));
    if begins("--crate-name") && !begins("--print") { locate(around).flags(Side::Here) } else { Vec::new() }
}

/// Finds the roots.
pub fn locate(around: &Surroundings<'_>) -> Roots {
    let cargo_home = cargo_home(around);
    let is_foreign =
        [cargo_home.as_deref(), around.sysroot].into_iter().flatten().any(|root| around.cwd.starts_with(root));
    let workspace = (!is_foreign).then_some(around.cwd);
    let target = target(around);
    let cargo_home = cargo_home.filter(|home| is_named(around, home));
    let found = [
        workspace.map(|folder| (RootKind::Workspace, folder)),
        cargo_home.as_deref().map(|folder| (RootKind::CargoHome, folder)),
        target.as_deref().map(|folder| (RootKind::Target, folder)),
        around.sysroot.map(|folder| (RootKind::Sysroot, folder)),
    ];
    Roots::new(around.setting, found.into_iter().flatten())
}

/// `CARGO_HOME`, or where it is without that.
pub(super) fn cargo_home(around: &Surroundings<'_>) -> Option<PathBuf> {
    let absolute = |name| (around.variable)(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("CARGO_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cargo")))
}

/// Whether the command has to do with the folder.
fn is_named(around: &Surroundings<'_>, folder: &Path) -> bool {
    let holds = |name| (around.variable)(name).is_some_and(|value| Path::new(&value).starts_with(folder));
    let Some(text) = folder.to_str() else { return false };
    around.cwd.starts_with(folder)
        || holds("CARGO_MANIFEST_DIR")
        || holds("OUT_DIR")
        || around.arguments.iter().any(|argument| argument.contains(text))
}

/// Cargo's target folder, of a command that says where its outputs go. One that is spelled from the working directory is part of whatever
/// that is part of: a relative path can't lead to another root.
fn target(around: &Surroundings<'_>) -> Option<PathBuf> {
    let out_dir = out_dir(around.arguments).filter(|folder| folder.is_absolute())?;
    let fits = |folder: &Path| !around.cwd.starts_with(folder);
    let is_tagged = |folder: &&Path| (around.exists)(&folder.join("CACHEDIR.TAG"));
    // Cargo tags the folder of each `--target` as well, in its own, from which commands take other crates too.
    let tagged = out_dir.ancestors().find(is_tagged);
    let tagged = tagged.map(|folder| folder.parent().filter(is_tagged).unwrap_or(folder));
    let named = out_dir.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "target"));
    let laid_out = by_layout(&out_dir);
    let parent = out_dir.parent();
    [tagged, named, laid_out, parent].into_iter().flatten().find(|folder| fits(folder)).map(Path::to_owned)
}

/// The value of `--out-dir`, the last one.
fn out_dir(arguments: &[String]) -> Option<PathBuf> {
    let mut found = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--out-dir" {
            found = words.next().map(PathBuf::from);
        } else if let Some(folder) = word.strip_prefix("--out-dir=") {
            found = Some(PathBuf::from(folder));
        }
    }
    found
}

/// By what cargo calls its folders: `TARGET/[TRIPLE/]PROFILE/{deps,examples,build/…}`.
fn by_layout(out_dir: &Path) -> Option<&Path> {
    let profile = out_dir.ancestors().skip(1).take(4).zip(out_dir.ancestors()).find(|(_, below)| {
        below.file_name().is_some_and(|name| name == "deps" || name == "examples" || name == "build")
    });
    let holder = profile?.0.parent()?;
    let is_triple = holder.file_name()?.to_str()?.bytes().filter(|byte| *byte == b'-').count() >= 2;
    if is_triple { holder.parent() } else { Some(holder) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(arguments: &[&str], cwd: &str, env: &[(&str, &str)], tag: &str) -> Vec<(RootKind, String)> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let roots = locate(&Surroundings {
            arguments: &arguments,
            cwd: Path::new(cwd),
            variable: &|name| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
            sysroot: None,
            setting: PathSetting::Portable,
            exists: &|path| path.parent() == Some(Path::new(tag)),
        });
        roots.iter().map(|(kind, real, _)| (kind, real.display().to_string())).collect()
    }

    const HOME: (&str, &str) = ("HOME", "/home/a");

    #[test]
    fn a_member_of_a_workspace() {
        let arguments = ["--out-dir", "/home/a/app/target/debug/deps", "src/main.rs"];
        let expected = [(RootKind::Workspace, "/home/a/app"), (RootKind::Target, "/home/a/app/target")];
        let expected = expected.map(|(kind, folder)| (kind, folder.to_owned()));
        assert_eq!(found(&arguments, "/home/a/app", &[HOME], "/home/a/app/target"), expected);
        assert_eq!(found(&arguments, "/home/a/app", &[HOME], "/home/a"), expected, "a tag above the workspace");
        assert_eq!(found(&arguments, "/home/a/app", &[], "/none"), expected);
    }

    #[test]
    fn a_crate_of_a_registry() {
        let source = "/home/a/.cargo/registry/src/x/y-1.0";
        let arguments = ["--out-dir=/t/release/build/y-0123"];
        let expected = [(RootKind::Target, "/t".to_owned()), (RootKind::CargoHome, "/home/a/.cargo".to_owned())];
        assert_eq!(found(&arguments, source, &[HOME], "/none"), expected);
        let elsewhere = [("CARGO_HOME", "/c")];
        let expected = [(RootKind::CargoHome, "/c".to_owned()), (RootKind::Target, "/t".to_owned())];
        assert_eq!(found(&arguments, "/c/registry/src/x/y-1.0", &elsewhere, "/none"), expected);
    }

    #[test]
    fn the_folder_of_one_target_is_in_that_of_all() {
        let target = Path::new("/w/t/aarch64-unknown-linux-gnu");
        let arguments = ["--out-dir".to_owned(), target.join("debug/deps").display().to_string()];
        let roots = locate(&Surroundings {
            arguments: &arguments,
            cwd: Path::new("/w/vendor/a"),
            variable: &|_| None,
            sysroot: None,
            setting: PathSetting::Portable,
            exists: &|path| [Some(target), target.parent()].contains(&path.parent()),
        });
        assert_eq!(roots.real(RootKind::Target), Some(Path::new("/w/t")));
    }

    #[test]
    fn layouts() {
        for (out_dir, target) in [
            ("/x/y/debug/deps", "/x/y"),
            ("/x/y/aarch64-unknown-linux-gnu/debug/deps", "/x/y"),
            ("/x/y/debug/build/a-1/out", "/x/y"),
            ("/x/y/debug/examples", "/x/y"),
            ("/x/y/z", "/x/y"),
            ("/x/target/y/z", "/x/target"),
        ] {
            let roots = found(&["--out-dir", out_dir], "/w", &[], "/none");
            assert_eq!(roots.last(), Some(&(RootKind::Target, target.to_owned())), "{out_dir}");
        }
        assert_eq!(found(&["--out-dir", "target/debug"], "/w", &[], "/none").len(), 1, "spelled from here");
        assert_eq!(found(&["--out-dir"], "/w", &[], "/none").len(), 1);
        assert_eq!(found(&["--out-dir", "/w/x"], "/w/y", &[], "/none").len(), 1, "above the working directory");
    }
}
