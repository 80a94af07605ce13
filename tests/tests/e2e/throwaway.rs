//! `buildbee farm up`: a whole farm around one command, and nothing of it left afterwards.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use buildbee_tests::client::{is_zombie, plain};
use buildbee_tests::programs;
use buildbee_tests::project::{assert_same, outputs, sorted_lines, write_c};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::builds::plain_build;

/// What was left is looked for by this folder's name: everything of the farm has it in its environment or its path.
fn farm_up(temporary: &Path, command: &[&str]) -> Command {
    let mut up = plain(programs::folder().join("buildbee"));
    up.args(["farm", "up", "--agents", "2", "--"]).args(command);
    up.env("TMPDIR", temporary).env("BUILDBEE_LOCAL_SLOTS", "0").env("BUILDBEE_RACING", "off");
    up
}

fn processes_of(folder: &Path) -> Vec<String> {
    let name = folder.to_str().unwrap().as_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let mut text = read("environ");
        text.extend(read("cmdline"));
        if text.windows(name.len()).any(|part| part == name) && !is_zombie(Pid::from_raw(pid)) {
            found.push(format!("{pid} {}", String::from_utf8_lossy(&read("cmdline")).replace('\0', " ")));
        }
    }
    found
}

fn assert_nothing_left(folder: &Path) {
    assert_eq!(processes_of(folder), Vec::<String>::new());
    let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()), "{mounts}");
}

#[test]
fn a_project_is_built_by_a_farm_that_is_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let (project, temporary) = (folder.path().join("project"), folder.path().join("tmp"));
    fs::create_dir(&temporary).unwrap();
    write_c(&project, 12).unwrap();
    let (expected, words) = plain_build(&project, &["CC=gcc"]);
    let make = ["make", "--silent", "--output-sync=target", "-j4", "CC=buildbee gcc"];
    let built = farm_up(&temporary, &make).current_dir(&project).output().unwrap();
    let stderr = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{stderr}");
    assert_same(&expected, &outputs(&project, &[".o", ".d"]));
    assert!(stderr.contains("remote      12 (100 %)") && stderr.contains("local       0 (0 %)"), "{stderr}");
    // The summary comes after the last word of the command.
    let said = stderr.split_once("farm: what became").unwrap().0;
    assert_eq!(sorted_lines(said.as_bytes()), words);
    assert_nothing_left(&temporary);
}

#[test]
fn its_exit_status_is_the_commands() {
    let temporary = tempfile::tempdir().unwrap();
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let ended = farm_up(temporary.path(), &["sh", "-c", script]).output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{script}: {}", String::from_utf8_lossy(&ended.stderr));
        assert_nothing_left(temporary.path());
    }
    // A folder in PATH that may not be searched would make it "permission denied".
    let ended = farm_up(temporary.path(), &["no-such-command"]).env("PATH", "/usr/bin:/bin").output().unwrap();
    assert_eq!(ended.status.code(), Some(127), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_nothing_left(temporary.path());
}

/// Starts a farm, sends `signal` once `ready` holds, and waits.
fn interrupted(temporary: &Path, command: &[&str], signal: Signal, ready: impl Fn() -> bool) -> ExitStatus {
    let mut up = farm_up(temporary, command).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(30), "the farm did not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(i32::try_from(up.id()).unwrap()), signal).unwrap();
    up.wait().unwrap()
}

#[test]
fn a_signal_takes_all_of_it_down() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let marker = folder.path().join("runs");
    let script = format!("touch '{}'; sleep 600 & sleep 600", marker.display());
    for (signal, early) in [(Signal::SIGINT, false), (Signal::SIGTERM, false), (Signal::SIGINT, true)] {
        let _ = fs::remove_file(&marker);
        let ready = || if early { !processes_of(&temporary.join("bee-")).is_empty() } else { marker.exists() };
        let status = interrupted(&temporary, &["sh", "-c", &script], signal, ready);
        assert_eq!(status.code(), Some(128 + signal as i32), "{signal}: {:?}", status.signal());
        assert_nothing_left(&temporary);
    }
}
