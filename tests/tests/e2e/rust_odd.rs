//! Odd places and odd crates: folders on other file systems, full ones, huge ones, names that are no text, and macros that don't end.
//! The right result or plain cargo's own failure, and never a wait for nothing.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use buildbee_tests::cargo;
use buildbee_tests::client::plain;
use buildbee_tests::network::skipped;
use buildbee_tests::seen::see;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::rust_builds::Alone;
use crate::rust_traps::macros;

/// Nothing here takes longer unless it is broken.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_target_folder_on_another_file_system() {
    let Some(mut alone) = Alone::new("portable") else { return };
    let elsewhere = tempfile::Builder::new().prefix("bb target").tempdir_in("/dev/shm").unwrap();
    let target = elsewhere.path().join("out");
    alone.checkout.env.insert("CARGO_TARGET_DIR".to_owned(), target.display().to_string());
    for _ in 0..2 {
        let _ = fs::remove_dir_all(&target);
        alone.checkout.build(Some(&alone.client), &["build"]);
        let said = plain(target.join("debug/app")).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("word=one kept"), "{said}");
        assert_eq!(alone.checkout.build(Some(&alone.client), &["build"]).compiled, Vec::<String>::new());
    }
}

#[test]
fn a_full_target_folder_fails_as_plainly_and_leaves_nothing_behind() {
    let Some(alone) = Alone::new("portable") else { return };
    alone.build_anew(&["build"]);
    alone.checkout.clean();
    fs::create_dir(alone.checkout.folder.join("target")).unwrap();
    // Room for some of the crates.
    let script = "mount -t tmpfs -o size=3m none target && exec cargo build --offline -j2";
    let cargo = alone.checkout.cargo(Some(&alone.client), &[]);
    let mut full = alone.client.command("timeout");
    full.args(["60", "unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script]);
    full.current_dir(&alone.checkout.folder);
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => full.env(name, value),
            None => full.env_remove(name),
        };
    }
    let output = full.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("unshare:") || text.contains("mount:") {
        return skipped("there are no user namespaces here");
    }
    assert_eq!(output.status.code(), Some(101), "{text}");
    assert_eq!(alone.says("word", "one kept"), (8, 0, 0), "{}", alone.client.json(&["explain"]));
}

#[test]
fn a_search_folder_with_twenty_thousand_libraries() {
    let Some(alone) = Alone::new("portable") else { return };
    alone.build_anew(&["build"]);
    let deps = alone.checkout.folder.join("target/debug/deps");
    for n in 0..20_000 {
        fs::write(deps.join(format!("libnever{n}-{n:016x}.rlib")), "").unwrap();
    }
    let started = Instant::now();
    // Found out of date by cargo: looked up with all of these beside.
    alone.checkout.edit("leaf/src/part.rs", "pub const WORD: &str = \"one\";\n");
    alone.client.zero();
    alone.checkout.build(Some(&alone.client), &["build"]);
    assert_eq!(alone.client.compiles(), (3, 0, 0), "{}", alone.client.json(&["explain"]));
    assert_eq!(alone.checkout.says()["word"], "one kept");
    assert!(started.elapsed() < SOON);
}

#[test]
fn names_that_are_no_text() {
    if !cargo::is_here() {
        return skipped("there is no cargo here");
    }
    let Some(alone) = Alone::new("portable") else { return };
    let odd = OsStr::from_bytes(b"odd-\xff");
    for words in [&["odd-\u{fffd}.rs"][..], &["plain.rs", "--out-dir", "odd-\u{fffd}"], &["plain.rs"]] {
        let run = |wrapped: bool| {
            let folder = alone.path(if wrapped { "wrapped" } else { "plain" }).join(odd);
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(folder.join(odd)).unwrap();
            for name in [OsStr::from_bytes(b"odd-\xff.rs"), OsStr::new("plain.rs")] {
                fs::write(folder.join(name), "pub fn f() -> u8 { 1 }\n").unwrap();
            }
            let mut command = alone.client.command(if wrapped { "buildbee" } else { "rustc" });
            if wrapped {
                command.arg("rustc");
            }
            command.args(["--crate-name", "odd", "--crate-type", "lib", "--emit", "metadata"]);
            for word in words {
                let bytes = word.replace('\u{fffd}', "\u{1}").into_bytes();
                let bytes: Vec<u8> = bytes.into_iter().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
                command.arg(OsStr::from_bytes(&bytes));
            }
            command.env("BUILDBEE_PATHS", "exact").current_dir(&folder);
            let seen = see(&mut command, &folder);
            // A panicking compiler names its process.
            (seen.code, seen.files.into_keys().collect::<Vec<_>>())
        };
        assert_eq!(run(false), run(true), "{words:?}");
        assert_eq!(run(false), run(true), "{words:?}, again");
    }
}

#[test]
fn a_macro_that_never_ends_ends_with_its_build() {
    let Some(alone) = Alone::new("portable") else { return };
    let text = macros("std::fs::write(\"reached\", \"\").unwrap();\n    loop { std::thread::park() }");
    alone.checkout.edit("macros/src/lib.rs", &text);
    let folder = &alone.checkout.folder;
    let mut cargo = alone.checkout.cargo(Some(&alone.client), &["build", "--quiet"]);
    let mut cargo = cargo.process_group(0).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !folder.join("reached").exists() {
        assert!(cargo.try_wait().unwrap().is_none() && started.elapsed() < SOON, "the macro was not reached");
        std::thread::sleep(Duration::from_millis(20));
    }
    // As a terminal does at Ctrl-C.
    killpg(Pid::from_raw(i32::try_from(cargo.id()).unwrap()), Signal::SIGINT).unwrap();
    cargo.wait().unwrap();
    let is_left = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(|it| fs::read_link(it.path().join("cwd")).ok()).any(|cwd| cwd.starts_with(folder))
    };
    while is_left() {
        assert!(started.elapsed() < SOON, "a compiler goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    alone.checkout.edit("macros/src/lib.rs", &macros("\"ended\".to_owned()"));
    alone.says("variable", "ended");
}
