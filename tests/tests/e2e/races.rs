//! Races between this machine and an agent: what the loser leaves.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use buildbee_tests::cargo::{self, Checkout};
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::network::skipped;
use buildbee_tests::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::rust_pipelined::{project, write_slow};

/// An agent has had the toolchain sent and the crate made by then, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(120);
/// Builds until one can be held before it is done.
const MAX_BUILDS: u32 = 5;
/// What another rustc has at work in the same folder, and a file of its own.
const OTHERS: [&str; 2] = ["rmetaZZZZZZ/full.rmeta", "other-1.other.0-cgu.0.rcgu.o"];
const BUILD: [&str; 5] = ["build", "--manifest-path", "app/Cargo.toml", "--target-dir", "target"];

/// Names in `folder` that `is_meant`, sorted.
fn names(folder: &Path, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| is_meant(name));
    names.sort();
    names
}

fn is_temporary(name: &str) -> bool {
    name.starts_with("rmeta") || name.starts_with("rustc") || name.contains(".rcgu.") || name.contains("temp-archive")
}

/// Stops the compiler of `slow` that runs here as soon as `has_begun`. `false`: it was done before.
fn hold(build: &mut Child, has_begun: impl Fn() -> bool) -> bool {
    while build.try_wait().unwrap().is_none() {
        if has_begun() {
            let below = processes::tree(Pid::from_raw(i32::try_from(build.id()).unwrap()));
            let compilers: Vec<Pid> = below.into_iter().filter(|pid| compiles_slow(*pid)).collect();
            for pid in &compilers {
                // One that has ended lost nothing.
                let _ = kill(*pid, Signal::SIGSTOP);
            }
            return !compilers.is_empty();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

fn compiles_slow(pid: Pid) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0);
    processes::name(pid) == "rustc" && words.any(|word| word == b"slow")
}

/// Has the local compiler of `slow` lose, held as soon as `has_begun` in the folder of outputs.
fn lost(farm: &Farm, checkout: &Checkout, has_begun: impl Fn(&Path) -> bool) {
    let deps = checkout.folder.join("target/debug/deps");
    for value in 1..=MAX_BUILDS {
        checkout.clean();
        farm.laptop.zero();
        write_slow(checkout, value);
        for other in OTHERS {
            checkout.edit(&format!("target/debug/deps/{other}"), "");
        }
        let log = fs::File::create(farm.path("cargo.log")).unwrap();
        let mut build = checkout.cargo(Some(&farm.laptop), &BUILD).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let held = hold(&mut build, || has_begun(&deps));
        let started = Instant::now();
        while build.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < DEADLINE, "held, and the agent does nothing: {}", farm.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = fs::read_to_string(farm.path("cargo.log")).unwrap();
        assert!(build.wait().unwrap().success(), "{said}\n{}", farm.logs());
        let explained = farm.json(&["explain", "slow", "--last", "10"]);
        let has_lost = |action: &Value| action["where"] == "remote" && action.to_string().contains("libslow-");
        if held && explained["actions"].as_array().is_some_and(|actions| actions.iter().any(has_lost)) {
            return;
        }
    }
    panic!("no compile could be held before it was done: {}", farm.logs());
}

fn has_temporary(deps: &Path) -> bool {
    !names(deps, |name| is_temporary(name) && !is_others(name)).is_empty()
}

fn is_others(name: &str) -> bool {
    OTHERS.iter().any(|other| other.split('/').next() == Some(name))
}

#[test]
fn a_rustc_that_loses_leaves_nothing_and_touches_nothing_of_others() {
    if !cargo::is_here() {
        skipped("there is no cargo here");
        return;
    }
    let farm = Farm::up(Options { n_agents: 1, local_slots: 1, racing: "eager", ..Options::default() });
    let mut checkout = project(&farm);
    // A session is begun, too.
    checkout.env.insert("CARGO_INCREMENTAL".to_owned(), "1".to_owned());
    let deps = checkout.folder.join("target/debug/deps");
    lost(&farm, &checkout, has_temporary);
    assert_eq!(names(&deps, is_temporary), ["other-1.other.0-cgu.0.rcgu.o", "rmetaZZZZZZ"]);
    assert_eq!(names(&deps.join("rmetaZZZZZZ"), |_| true), ["full.rmeta"]);
    let sessions = checkout.folder.join("target/debug/incremental");
    assert_eq!(names(&sessions, |name| name.starts_with("slow-")), Vec::<String>::new());
    // Here the dependants begin with the loser's metadata, and mostly one is done before the agent is.
    let is_metadata = |name: &str| name.starts_with("libslow-") && name.contains(".rmeta");
    lost(&farm, &checkout, |deps| !names(deps, is_metadata).is_empty());
    assert_eq!(names(&deps, is_temporary), ["other-1.other.0-cgu.0.rcgu.o", "rmetaZZZZZZ"]);
    let again = checkout.cargo(Some(&farm.laptop), &[&BUILD[..], &["-v"]].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && !said.contains("Dirty") && !said.contains("Running"), "{said}");
}
