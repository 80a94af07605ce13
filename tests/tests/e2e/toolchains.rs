//! `buildbee toolchain …` and `buildbee cache gc` on a farm.

use std::fs;

use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::project::write_c;
use serde_json::Value;

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
