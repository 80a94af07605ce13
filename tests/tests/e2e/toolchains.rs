//! `buildbee toolchain …` and `buildbee cache gc` on a farm.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use buildbee_proto::digest::Digest;
use buildbee_tests::cargo::{self, Checkout};
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::network::skipped;
use buildbee_tests::project::write_c;
use serde_json::Value;

use crate::rust_builds::with_paths;

#[test]
fn toolchains_are_warmed_listed_verified_and_forgotten() {
    let farm = Farm::up(Options { n_agents: 2, ..Options::default() });
    assert_eq!(farm.json(&["toolchain", "list"])["toolchains"], Value::Array(Vec::new()));
    let list = farm.path("compilers");
    fs::write(&list, "# for the night\ngcc  # the usual one\n").unwrap();
    let warmed = farm.json(&["toolchain", "warm", "--list", list.to_str().unwrap()]);
    let agents = warmed[0]["agents"].as_object().unwrap_or_else(|| panic!("{warmed}\n{}", farm.logs()));
    assert!(agents.len() == 2 && agents.values().all(|agent| agent["error"].is_null()), "{warmed}\n{}", farm.logs());
    farm.wait("the agents' word", || {
        farm.json(&["toolchain", "list"])["toolchains"][0]["agents"].as_array().is_some_and(|agents| agents.len() == 2)
    });
    let again = farm.json(&["toolchain", "warm", "gcc"]);
    assert!(again[0]["agents"].as_object().unwrap().values().all(|agent| agent["had_it"] == true), "{again}");
    // A build finds it there: nothing of it leaves any more.
    let shown = farm.json(&["toolchain", "show", "gcc"]);
    assert!(
        shown["contents"].as_array().unwrap().iter().any(|file| file["path"].as_str().unwrap().ends_with("/cc1")),
        "{shown}"
    );
    let verified = farm.json(&["toolchain", "verify"]);
    assert_eq!(verified["toolchains"][0]["n_changed"], 0, "{verified}");
    assert!(verified["toolchains"][0]["bytes"].as_u64() > Some(1 << 20), "{verified}");
    assert_eq!(farm.json(&["toolchain", "gc"])["forgotten"], Value::Array(Vec::new()));
    let unknown = farm.client("buildbee").args(["toolchain", "show", "no-such"]).output().unwrap();
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("hint: "));

    let project = farm.path("project");
    write_c(&project, 2).unwrap();
    farm.must_run(farm.client("make").arg("CC=buildbee gcc").current_dir(&project));
    assert_eq!(farm.counts(), (0, 2, 0), "{}", farm.logs());
    assert_eq!(farm.json(&["cache", "gc"])["evicted"], 0);
    let collected = farm.json(&["cache", "gc", "--size", "0B"]);
    assert!(collected["evicted"].as_u64() > Some(0), "{collected}");
    assert_eq!(farm.json(&["cache", "stats"])["results"], 0);
}

/// More than what is said about blobs, and less than any compiler's own program.
const WORDS_BYTES: u64 = 512 << 10;
const GCC: &str = "/usr/lib/gcc/x86_64-linux-gnu/12";

/// Brings a compiler to the agent; how much the client has sent for it, and the sizes of its files by digest.
fn warmed(farm: &Farm, compiler: &str) -> (u64, BTreeMap<String, u64>) {
    let network = farm.network().unwrap();
    let before = network.sent_bytes("laptop");
    let warmed = farm.json(&["toolchain", "warm", compiler]);
    let agents = warmed[0]["agents"].as_object().unwrap_or_else(|| panic!("{warmed}\n{}", farm.logs()));
    assert!(agents.len() == 1 && agents.values().all(|agent| agent["error"].is_null()), "{warmed}\n{}", farm.logs());
    let sent = network.sent_bytes("laptop") - before;
    let shown = farm.json(&["toolchain", "show", compiler]);
    let files = shown["contents"].as_array().unwrap().iter();
    let named = files.map(|file| (file["digest"].as_str().unwrap().to_owned(), file["bytes"].as_u64().unwrap()));
    (sent, named.collect())
}

/// What nothing can make smaller, other bytes each time.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let hash = |n: usize| Digest::of(&[&[seed][..], &n.to_le_bytes()].concat()).hash;
    (0..length / 32).flat_map(hash).collect()
}

#[test]
fn a_toolchain_like_another_sends_only_what_differs() {
    if !Path::new(GCC).join("cc1").exists() {
        return skipped("this is for Debian's gcc 12");
    }
    let Some(farm) = Farm::up_in_namespaces(Options { n_agents: 1, ..Options::default() }) else { return };
    let (sent, gcc) = warmed(&farm, "gcc");
    assert!(sent > 10 * WORDS_BYTES, "{sent}");
    let (sent, gxx) = warmed(&farm, "g++");
    let lacked: u64 = gxx.iter().filter(|(digest, _)| !gcc.contains_key(*digest)).map(|(_, bytes)| bytes).sum();
    let all: u64 = gxx.values().sum();
    println!("g++ after gcc: {sent} bytes sent, {lacked} of {all} bytes were not there");
    assert!(sent < lacked + WORDS_BYTES && lacked + WORDS_BYTES < all / 5, "{sent} {lacked} {all}\n{}", farm.logs());

    // The same compiler elsewhere, with a file of its own that no compile starts.
    let (bin, parts) = (farm.path("gcc/bin"), farm.path("gcc/lib/gcc/x86_64-linux-gnu/12"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(parts.parent().unwrap()).unwrap();
    let copied = std::process::Command::new("cp").args(["-r", GCC]).arg(&parts).status().unwrap();
    assert!(copied.success());
    fs::copy("/usr/bin/x86_64-linux-gnu-gcc-12", bin.join("gcc-12")).unwrap();
    let compiler = bin.join("gcc-12");
    for seed in [1, 2] {
        let changed = parts.join("collect2");
        let content = noise(seed, 1 << 20);
        fs::write(&changed, &content).unwrap();
        fs::set_permissions(&changed, fs::Permissions::from_mode(0o755)).unwrap();
        let (sent, files) = warmed(&farm, compiler.to_str().unwrap());
        println!("changed in one file of 1 MiB: {sent} bytes sent, {} files", files.len());
        assert!(files.contains_key(&Digest::of(&content).to_string()), "{files:?}");
        assert!(((1 << 20)..(1 << 20) + WORDS_BYTES).contains(&sent), "{sent}\n{}", farm.logs());
    }
}

#[test]
fn a_rust_toolchain_that_was_warmed_is_not_sent_again() {
    if !cargo::is_here() {
        return skipped("there is no cargo here");
    }
    let Some(farm) = Farm::up_in_namespaces(Options { n_agents: 1, ..Options::default() }) else { return };
    let network = farm.network().unwrap();
    let (warm, list) = (network.sent_bytes("laptop"), farm.path("compilers"));
    fs::write(&list, "rustc\n").unwrap();
    let warmed = farm.json(&["toolchain", "warm", "--list", list.to_str().unwrap()]);
    let agents = warmed[0]["agents"].as_object().unwrap_or_else(|| panic!("{warmed}\n{}", farm.logs()));
    assert!(agents.len() == 1 && agents.values().all(|agent| agent["error"].is_null()), "{warmed}\n{}", farm.logs());
    assert!(warmed[0]["without_linker"].is_null(), "{warmed}");
    let sent = network.sent_bytes("laptop") - warm;
    assert!(sent > 100 * WORDS_BYTES, "{sent}");

    // Libraries, macros, build scripts' programs and the application: what compiles, and what links.
    let checkout = with_paths(Checkout::write(farm.path("work"), farm.path("home")), "portable");
    let before = network.sent_bytes("laptop");
    checkout.build(Some(&farm.laptop), &["build"]);
    let (cached, remote, local) = farm.laptop.compiles();
    assert!((cached, local) == (0, 0) && remote > 0, "{}\n{}", farm.json(&["explain"]), farm.logs());
    let then = network.sent_bytes("laptop") - before;
    println!("warm: {sent} bytes sent; {remote} crates then: {then}");
    assert!(then < 4 * WORDS_BYTES, "{then} of {sent}\n{}", farm.logs());
    let again = farm.json(&["toolchain", "warm", "rustc"]);
    assert!(again[0]["agents"].as_object().unwrap().values().all(|agent| agent["had_it"] == true), "{again}");
}
