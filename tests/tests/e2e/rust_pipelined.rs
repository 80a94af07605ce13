//! Crates whose dependants begin while an agent is still making their code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use buildbee_tests::cargo::{self, Checkout};
use buildbee_tests::client::{Client, plain};
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::network::skipped;
use buildbee_tests::programs;
use buildbee_tests::project::{Files, assert_same};

use crate::rust_builds::with_paths;

/// Functions of the crate that is slow to make code for: each brings a sort of its own.
const N_FUNCTIONS: u32 = 30;

/// A library that is slow in the end, one above it, and a program.
pub(super) fn project(farm: &Farm) -> Checkout {
    let home = farm.path("home");
    fs::create_dir_all(&home).unwrap();
    let env = [("CARGO_INCREMENTAL".to_owned(), "0".to_owned())].into();
    let checkout = Checkout { folder: farm.path("work"), home, env };
    let package = |name: &str, needs: &str| {
        format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n{needs}\n\
             [profile.dev]\nopt-level = 3\ncodegen-units = 1\n"
        )
    };
    let above = |name: &str| format!("{name} = {{ path = \"../{name}\" }}");
    checkout.edit("slow/Cargo.toml", &package("slow", ""));
    checkout.edit("middle/Cargo.toml", &package("middle", &above("slow")));
    checkout.edit("middle/src/lib.rs", "pub fn value() -> u32 { slow::f0(&mut vec![(slow::VALUE, String::new())]) }\n");
    checkout.edit("app/Cargo.toml", &package("app", &above("middle")));
    checkout.edit("app/src/main.rs", "fn main() { println!(\"value={}\", middle::value()); }\n");
    with_paths(checkout, "portable")
}

pub(super) fn write_slow(checkout: &Checkout, value: u32) {
    let sorts = (0..N_FUNCTIONS).map(|n| {
        format!(
            "pub fn f{n}(v: &mut Vec<(u32, String)>) -> u32 {{ v.sort_by_key(|x| (x.1.len() as u32 ^ {n}, x.1.clone())); \
             v.iter().map(|x| x.0).sum() }}\n"
        )
    });
    checkout.edit("slow/src/lib.rs", &format!("pub const VALUE: u32 = {value};\n{}", sorts.collect::<String>()));
}

/// A wrapper before ours that writes down when each crate's compile begins and ends.
fn watcher(farm: &Farm) -> (PathBuf, PathBuf) {
    let (script, log) = (farm.path("watcher"), farm.path("events"));
    let text = format!(
        "#!/bin/sh\nname= take=\nfor word; do\n  [ -z \"$take\" ] || name=$word\n  take=\n  [ \"$word\" != --crate-name ] || take=1\ndone\n\
         echo \"start $name\" >>'{log}'\nbuildbee \"$@\"\ncode=$?\necho \"end $name\" >>'{log}'\nexit $code\n",
        log = log.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    (script, log)
}

fn place_of(log: &Path, event: &str) -> Option<usize> {
    fs::read_to_string(log).unwrap_or_default().lines().position(|line| line == event)
}

/// What a daemon without a farm makes of it.
fn alone(farm: &Farm, checkout: &Checkout) -> Files {
    let folder = farm.path("alone");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let client =
        Client { folder, programs: programs::folder(), local_slots: 2, racing: "off", space: None, view: None };
    checkout.clean();
    build(&client, checkout, None);
    checkout.files()
}

fn build(client: &Client, checkout: &Checkout, watcher: Option<&Path>) {
    let mut command =
        checkout.cargo(Some(client), &["build", "--manifest-path", "app/Cargo.toml", "--target-dir", "target"]);
    if let Some(watcher) = watcher {
        command.env("RUSTC_WRAPPER", watcher);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), client.log());
}

fn says(checkout: &Checkout) -> String {
    let output = plain(checkout.folder.join("target/debug/app")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn dependants_begin_before_their_dependency_is_done() {
    if !cargo::is_here() {
        skipped("there is no cargo here");
        return;
    }
    let mut farm = Farm::up(Options { n_agents: 1, ..Options::default() });
    let checkout = project(&farm);
    let (watcher, log) = watcher(&farm);
    write_slow(&checkout, 1);
    let expected = alone(&farm, &checkout);

    checkout.clean();
    build(&farm.laptop, &checkout, Some(&watcher));
    assert_eq!(farm.laptop.compiles(), (0, 3, 0), "{}\n{}", farm.json(&["explain"]), farm.logs());
    let events = fs::read_to_string(&log).unwrap();
    assert!(place_of(&log, "start middle") < place_of(&log, "end slow"), "{events}{}", farm.logs());
    assert!(place_of(&log, "end slow").is_some(), "{events}");
    assert_same(&expected, &checkout.files());
    assert_eq!(says(&checkout), "value=1\n");
    fs::remove_file(&log).unwrap();
    build(&farm.laptop, &checkout, Some(&watcher));
    assert_eq!(place_of(&log, "start middle"), None, "what was made with early metadata is not fresh");

    // The agent dies when others have begun with what it wrote: the same is made here, and said once.
    write_slow(&checkout, 2);
    let expected = alone(&farm, &checkout);
    checkout.clean();
    drop(fs::remove_file(&log));
    let words = ["build", "--manifest-path", "app/Cargo.toml", "--target-dir", "target", "--message-format", "json"];
    let mut command = checkout.cargo(Some(&farm.laptop), &words);
    command.env("RUSTC_WRAPPER", &watcher).stdout(Stdio::piped()).stderr(Stdio::piped());
    let building = command.spawn().unwrap();
    farm.wait("a dependant to begin", || place_of(&log, "start middle").is_some());
    assert_eq!(place_of(&log, "end slow"), None);
    farm.agents[0].take().unwrap().kill();
    let built = building.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{text}\n{}", farm.logs());
    assert_same(&expected, &checkout.files());
    assert_eq!(says(&checkout), "value=2\n");
    let reasons = farm.json(&["stats"])["reasons"].clone();
    assert!(reasons["agent-lost"].is_u64() && reasons["early"].is_u64(), "{reasons}");
}
