//! Holds the shape of the repository: which crate may use which, what stands at top level, how large files may grow.

#![expect(clippy::unwrap_used, reason = "all of it is a test, also what stands outside the test functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Production lines in one file.
const MAX_FILE_LINES: usize = 600;
/// Lines in one function; tables and flat matches are named in [`LONG_FUNCTIONS`].
const MAX_FUNCTION_LINES: usize = 70;
/// Functions that are one table or one flat match.
const LONG_FUNCTIONS: &[&str] = &["texts"];

/// Which crates of the workspace each crate may depend on. Tests of a crate may use what the crate may.
const ARROWS: &[(&str, &[&str])] = &[
    ("buildbee-proto", &[]),
    ("buildbee-p2p", &["buildbee-proto"]),
    ("buildbee-store", &["buildbee-proto"]),
    ("buildbee-sandbox", &["buildbee-proto"]),
    ("buildbee-recorder", &["buildbee-proto"]),
    ("buildbee-agent", &["buildbee-proto", "buildbee-p2p", "buildbee-store", "buildbee-sandbox"]),
    ("buildbee-coordinator", &["buildbee-proto", "buildbee-p2p"]),
    ("buildbee", &["buildbee-proto", "buildbee-p2p", "buildbee-store", "buildbee-sandbox"]),
    ("buildbee-manual", &["buildbee-agent", "buildbee-coordinator", "buildbee"]),
    (
        "buildbee-tests",
        &[
            "buildbee-proto",
            "buildbee-p2p",
            "buildbee-store",
            "buildbee-sandbox",
            "buildbee-agent",
            "buildbee-coordinator",
            "buildbee",
        ],
    ),
];

/// Crates that proto, which every program links, must not pull in.
const NOT_IN_PROTO: &[&str] = &["tokio", "libp2p", "nix", "futures"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    sources(&root(), &mut found);
    assert!(found.len() > 50, "only {} sources found", found.len());
    found
}

fn is_test(path: &Path) -> bool {
    let text = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    text.starts_with("tests/")
        || text.contains("/tests/")
        || text.ends_with("_tests.rs")
        || text.ends_with("testbed.rs")
}

/// The part of a file before its inline tests.
fn production(text: &str) -> Vec<&str> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn crates_use_what_they_may() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(packages.len(), ARROWS.len(), "a crate is missing from the table, or the table from the workspace");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            if used.starts_with("buildbee") && used != name {
                assert!(may.contains(&used), "{name} must not depend on {used}");
            }
            if name == "buildbee-proto" && dependency["kind"].is_null() {
                assert!(!NOT_IN_PROTO.contains(&used), "{name} must not depend on {used}");
            }
        }
    }
}

#[test]
fn code_stands_in_the_six_folders() {
    let top: BTreeSet<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    let expected = ["agent", "client", "coordinator", "packaging", "proto", "tests"];
    assert_eq!(top, expected.into_iter().map(str::to_owned).collect());
}

#[test]
fn files_stay_small_and_say_what_they_are_for() {
    let mut bad = Vec::new();
    for path in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        let n_lines = production(&text).len();
        if !is_test(&path) && n_lines > MAX_FILE_LINES {
            bad.push(format!("{}: {n_lines} lines", shown(&path)));
        }
        if !text.starts_with("//!") {
            bad.push(format!("{}: does not open with its job (//!)", shown(&path)));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn functions_stay_small() {
    let mut bad = Vec::new();
    for path in all_sources().into_iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(&path).unwrap();
        let mut open: Option<(usize, usize, String)> = None;
        for (number, line) in production(&text).into_iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match &open {
                Some((start, depth, name)) if line.trim_end() == format!("{}}}", " ".repeat(*depth)) => {
                    let n_lines = number - start + 1;
                    if n_lines > MAX_FUNCTION_LINES && !LONG_FUNCTIONS.contains(&name.as_str()) {
                        bad.push(format!("{}:{} {name}: {n_lines} lines", shown(&path), start + 1));
                    }
                    open = None;
                }
                Some(_) => {}
                None => {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    if let Some(at) = words.iter().position(|word| *word == "fn").filter(|at| *at < 5)
                        && !line.trim_end().ends_with(';')
                        && !line.trim_start().starts_with("//")
                    {
                        let name = words.get(at + 1).map_or("", |word| word.split(['(', '<']).next().unwrap_or(""));
                        open = Some((number, indent, name.to_owned()));
                    }
                }
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn the_serialiser_is_named_in_one_file() {
    let named: Vec<_> = all_sources()
        .into_iter()
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            production(&text).iter().any(|line| line.contains("bincode::"))
        })
        .map(|path| shown(&path))
        .filter(|path| path != "tests/tests/tidy/main.rs")
        .collect();
    assert_eq!(named, ["proto/src/codec.rs"]);
}

#[test]
fn unsafe_code_stands_in_the_sandbox_alone() {
    for path in all_sources().into_iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(&path).unwrap();
        if text.lines().any(|line| line.contains("unsafe {") || line.contains("unsafe fn")) {
            assert!(shown(&path).starts_with("agent/sandbox/"), "{} holds unsafe code", shown(&path));
        }
    }
}

#[test]
fn no_file_is_a_drawer() {
    for path in all_sources() {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let drawer = ["util", "utils", "helper", "helpers", "common", "misc", "manager"];
        assert!(!drawer.contains(&stem.as_str()), "{} says nothing about its content", shown(&path));
    }
}

#[test]
fn pure_cores_know_no_runtime_and_no_clock() {
    let pure = [
        "coordinator/src/scheduler/core.rs",
        "agent/src/lease/core.rs",
        "agent/src/owner/core.rs",
        "agent/src/owner/hours.rs",
        "client/src/dispatch/board.rs",
    ];
    let mut files: Vec<PathBuf> = pure.iter().map(|path| root().join(path)).collect();
    files.extend(["audit", "owed", "presence"].map(|name| root().join(format!("agent/src/exchange/{name}.rs"))));
    sources(&root().join("client/src/compiler"), &mut files);
    let front = ["decide", "env", "link_arguments", "locate", "outputs", "parse", "placing", "respell", "roots"];
    files.extend(front.map(|name| root().join(format!("client/src/rust/{name}.rs"))));
    for path in files.into_iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(&path).unwrap();
        for line in production(&text) {
            for word in ["tokio::", "Instant::now", "SystemTime::now", "std::fs::"] {
                assert!(!line.contains(word), "{} is pure, but names {word}", shown(&path));
            }
        }
    }
}

/// A place where a kill may hurt is of use only where a test goes there.
#[test]
fn tests_walk_each_point_at_which_a_process_may_die() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let walks = read("agent/store/src/power_tests.rs") + &read("agent/tests/farm/replication.rs");
    let mut n_points = 0;
    for path in all_sources().iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(path).unwrap();
        for point in text.split("fault::point(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(walks.contains(&format!("\"{point}\"")), "{}: no test ends a process at {point}", path.display());
            n_points += 1;
        }
    }
    assert!(n_points > 20, "only {n_points} points found");
}
