//! rustup itself, with a home of its own and toolchains that only know where they are.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::*;

/// Says what rustc says of its sysroot, from wherever it stands.
const COMPILER: &str = "fn main() {
    let own = std::env::current_exe().unwrap();
    println!(\"{}\", own.parent().unwrap().parent().unwrap().display());
}";

struct Home {
    folder: tempfile::TempDir,
    program: PathBuf,
    settings: PathBuf,
    cwd: PathBuf,
}

impl Home {
    /// With the toolchains `one`, which is the default, and `two`.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (_, rustup) = capture::find_in(OsStr::new(env!("PATH")), "rustup").expect("rustup is installed");
        for inner in ["bin", "rustup/toolchains/one/bin", "rustup/toolchains/two/bin", "w/package/src"] {
            fs::create_dir_all(root.join(inner)).unwrap();
        }
        symlink(rustup, root.join("bin/rustc")).unwrap();
        fs::write(root.join("r.rs"), COMPILER).unwrap();
        let made = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"))
            .arg(root.join("r.rs"))
            .arg("-o")
            .arg(root.join("rustup/toolchains/one/bin/rustc"))
            .status();
        assert!(made.unwrap().success());
        fs::copy(root.join("rustup/toolchains/one/bin/rustc"), root.join("rustup/toolchains/two/bin/rustc")).unwrap();
        let home = Self {
            program: root.join("bin/rustc"),
            settings: root.join("rustup"),
            cwd: root.join("w/package/src"),
            folder,
        };
        home.default("one");
        home
    }

    fn default(&self, name: &str) {
        let text = format!("version = \"12\"\ndefault_toolchain = \"{name}\"\n");
        fs::write(self.settings.join("settings.toml"), text).unwrap();
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            program: &self.program,
            cwd: &self.cwd,
            home: Some(self.folder.path().as_os_str()),
            rustup_home: Some(self.settings.as_os_str()),
            rustup_toolchain: None,
            target: None,
        }
    }

    fn compiler(&self, name: &str) -> PathBuf {
        self.settings.join("toolchains").join(name).join("bin/rustc")
    }
}

#[test]
fn whatever_chooses_another_toolchain_is_noticed() {
    let home = Home::new();
    let first = find(&home.caller()).unwrap();
    assert_eq!(first.program, home.compiler("one"));
    assert!(first.still_holds());
    home.default("two");
    assert!(!first.still_holds());
    let second = find(&home.caller()).unwrap();
    assert_eq!(second.program, home.compiler("two"));
    fs::write(home.folder.path().join("w/other"), "").unwrap();
    assert!(second.still_holds(), "another file counts for nothing");
    for (name, text) in
        [("rust-toolchain.toml", "[toolchain]\npath = \"../rustup/toolchains/one\""), ("rust-toolchain", "one")]
    {
        let text = text.replace("..", &home.settings.parent().unwrap().display().to_string());
        let place = home.folder.path().join("w").join(name);
        fs::write(&place, text).unwrap();
        assert!(!second.still_holds(), "{name}");
        let third = find(&home.caller()).unwrap();
        assert_eq!(third.program, home.compiler("one"), "{name}");
        assert!(third.still_holds());
        fs::remove_file(&place).unwrap();
        assert!(!third.still_holds(), "{name}");
        assert!(second.still_holds(), "{name}");
    }
    let named = Caller { rustup_toolchain: Some(OsStr::new("one")), ..home.caller() };
    assert_ne!(Question::of(&named), Question::of(&home.caller()));
    let named = find(&named).unwrap();
    assert_eq!(named.program, home.compiler("one"));
    assert!(named.n_looks() <= 4, "{named:?}");
}

#[test]
fn a_toolchain_that_is_not_there_is_not_installed() {
    let home = Home::new();
    let caller = Caller { rustup_toolchain: Some(OsStr::new("three")), ..home.caller() };
    assert_eq!(find(&caller).unwrap_err().code(), "unknown-compiler");
}

#[test]
fn what_is_no_compiler_is_refused_with_its_reason() {
    let home = Home::new();
    let root = home.folder.path();
    let refused = |place: &str, code: &str| {
        let program = root.join(place);
        let caller = Caller { program: &program, ..home.caller() };
        let error = find(&caller).unwrap_err();
        assert_eq!(error.code(), code, "{place}: {error}");
    };
    for folder in ["script", "wrapper", "copied", "gone", "text"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("script/rustc"), "#!/bin/sh\nexec rustc \"$@\"\n").unwrap();
    fs::set_permissions(root.join("script/rustc"), fs::Permissions::from_mode(0o755)).unwrap();
    refused("script/rustc", "wrapper-script");
    fs::copy(home.compiler("one"), root.join("wrapper/sccache")).unwrap();
    symlink("sccache", root.join("wrapper/rustc")).unwrap();
    refused("wrapper/rustc", "another-wrapper");
    fs::write(root.join("text/rustc"), "text").unwrap();
    refused("text/rustc", "unknown-compiler");
    refused("gone/rustc", "unreadable-compiler");
    symlink(home.compiler("one"), root.join("copied/rust")).unwrap();
    refused("copied/rust", "unknown-compiler");
    // It says that its sysroot is the folder above, where another compiler stands.
    fs::create_dir_all(root.join("bin2/bin")).unwrap();
    fs::copy(home.compiler("one"), root.join("bin2/bin/rustc")).unwrap();
    fs::create_dir_all(root.join("bin2/other")).unwrap();
    fs::copy(home.compiler("one"), root.join("bin2/other/rustc")).unwrap();
    refused("bin2/other/rustc", "unknown-compiler");
    // A script behind rustup.
    fs::copy(root.join("script/rustc"), home.compiler("two")).unwrap();
    let caller = Caller { rustup_toolchain: Some(OsStr::new("two")), ..home.caller() };
    assert!(find(&caller).is_err());
}
