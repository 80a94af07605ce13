//! Cargo builds whose crates agents compile. One farm for all of it: an agent's first use of a Rust toolchain moves half a gigabyte.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use buildbee_tests::cargo::{self, Built, Checkout};
use buildbee_tests::client::{Client, plain};
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::network::skipped;
use buildbee_tests::programs;
use buildbee_tests::project::{Files, assert_same};

use crate::rust_builds::with_paths;

/// Crates of `cargo build`: six packages and two build scripts.
const N_CRATES: u64 = 8;

/// Build scripts among them.
const N_SCRIPTS: u64 = 2;

/// All but the programs of build scripts, and what stands in for them.
fn without_programs(mut files: Files) -> Files {
    files.retain(|name, _| {
        let name = name.rsplit('/').next().unwrap_or_default();
        let is_program = ["build-script", "build_script"].iter().any(|start| name.starts_with(start));
        !name.starts_with(".buildbee-real.") && (!is_program || name.contains('.'))
    });
    files
}

/// Programs of build scripts that agents make get a stand-in too. Other flags have them made anew.
fn scripts_of_agents(alone: &Client, laptop: &Client, checkout: &mut Checkout) {
    checkout.env.insert("CARGO_ENCODED_RUSTFLAGS".to_owned(), "--cfg\x1fwhisper".to_owned());
    let (_, expected) = reference(alone, checkout);
    checkout.env.insert("BUILDBEE_BUILD_SCRIPTS".to_owned(), "1".to_owned());
    for counts in [(0, N_CRATES, N_SCRIPTS), (N_CRATES + N_SCRIPTS, 0, 0)] {
        let (_, found) = build_anew(laptop, checkout);
        assert_eq!(found, counts, "{}", laptop.json(&["explain"]));
        assert_same(&without_programs(expected.clone()), &without_programs(checkout.files()));
        assert_eq!(checkout.build(Some(laptop), &["build"]).compiled, Vec::<String>::new(), "not fresh");
    }
    checkout.env.remove("CARGO_ENCODED_RUSTFLAGS");
    checkout.env.remove("BUILDBEE_BUILD_SCRIPTS");
}

/// Has a crate of the cargo home export a macro from a file that it names by way of a folder, and the application link libraries of the system: one
/// that a build script names, one that the source does.
fn look_around(checkout: &Checkout) {
    let kept = checkout.home.join("kept/kept-1.0.0");
    fs::create_dir_all(kept.join("data")).unwrap();
    fs::write(kept.join("data/made.rs"), "#[macro_export] macro_rules! given { () => { 1 } }\n").unwrap();
    let text = "include!(\"../data/made.rs\");\n#[link(name = \"anl\")]\nextern \"C\" {}\n\
                pub fn word() -> &'static str { \"kept\" }\n";
    fs::write(kept.join("src/lib.rs"), text).unwrap();
    let script = fs::read_to_string(checkout.folder.join("native/build.rs")).unwrap();
    let main = "fn main() {\n    println!(\"cargo:rustc-link-lib=resolv\");";
    checkout.edit("native/build.rs", &script.replace("fn main() {", main));
}

/// A client without a farm.
fn alone(farm: &Farm) -> Client {
    let folder = farm.path("alone");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    Client { folder, programs: programs::folder(), local_slots: 2, racing: "off", space: None, view: None }
}

/// What that makes of the checkout.
fn reference(alone: &Client, checkout: &Checkout) -> (Built, Files) {
    checkout.clean();
    let built = checkout.build(Some(alone), &["build"]);
    (built, checkout.files())
}

/// From clean: what was built, and how many crates were cached, remote, local.
fn build_anew(client: &Client, checkout: &Checkout) -> (Built, (u64, u64, u64)) {
    checkout.clean();
    client.zero();
    let built = checkout.build(Some(client), &["build"]);
    (built, client.compiles())
}

/// Actions that agents have run, and not had.
fn n_ran(farm: &Farm) -> usize {
    let ran = |n| farm.log_of(n).lines().filter(|line| line.contains("origin=ran")).count();
    (0..farm.agents.len()).map(ran).sum()
}

/// A colleague with another home, who has nothing yet.
fn a_colleague_finds_them(farm: &Farm) {
    let colleague = farm.second_client("colleague");
    let second =
        with_paths(Checkout::write(farm.path("another/and longer/place"), farm.path("another home")), "portable");
    look_around(&second);
    let n_before = n_ran(farm);
    let (_, counts) = build_anew(&colleague, &second);
    // All but the application: one of its macros asks where it stands, so its result is one of real paths. An agent that answers a question late
    // is sent the action, and answers that from what it keeps.
    let (cached, remote, local) = counts;
    let explained = || format!("{counts:?} {}\n{}", colleague.json(&["explain"]), farm.logs());
    assert_eq!((cached + remote, local, n_ran(farm) - n_before), (N_CRATES, 0, 1), "{}", explained());
    assert_eq!(second.says()["variable"], "nothing");
}

/// In a sandbox, too, clippy goes up to the top from each package's folder, and finds no settings. They count where somebody has them.
fn clippy_of_agents_holds_elsewhere(farm: &Farm, checkout: &Checkout) {
    if !plain("cargo").args(["clippy", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return skipped("there is no clippy here");
    }
    let clippy = |checkout: &Checkout| {
        checkout.clean();
        farm.laptop.zero();
        let built = checkout.build(Some(&farm.laptop), &["clippy"]);
        (farm.laptop.compiles(), built.messages)
    };
    let ((_, remote, local), messages) = clippy(checkout);
    let reasons = farm.laptop.json(&["stats"])["reasons"].clone();
    assert_eq!((local, &reasons["real-paths"]), (0, &1.into()), "all but the application's: {reasons}");
    assert_eq!(reasons.get("undeclared-file"), None, "the workspace's manifest goes along: {reasons}");
    let second = Checkout::write(farm.path("another/and longer/checkout"), farm.path("home of that"));
    let second = with_paths(second, "portable");
    look_around(&second);
    let (counts, elsewhere) = clippy(&second);
    assert_eq!(counts, (remote - 1, 1, 0), "{}", farm.laptop.json(&["explain"]));
    let warns = |messages: &[String]| messages.iter().any(|message| message.contains("unused_variables"));
    assert!(warns(&messages) && warns(&elsewhere), "{elsewhere:?}");

    // One that is found counts, wherever it stands, for what an agent makes from nothing, too.
    fs::write(farm.path("another/clippy.toml"), "too-many-arguments-threshold = 1\n").unwrap();
    let many = "pub const WORD: &str = \"one\";\npub fn sum(one: u8, other: u8) -> u8 { one + other }\n";
    second.edit("leaf/src/part.rs", many);
    let (_, messages) = clippy(&second);
    assert!(messages.iter().any(|message| message.contains("too_many_arguments")), "{messages:?}");
    fs::remove_file(farm.path("another/clippy.toml")).unwrap();
    let (_, messages) = clippy(&second);
    assert!(!messages.iter().any(|message| message.contains("too_many_arguments")), "{messages:?}");
}

#[test]
fn crates_are_compiled_by_agents() {
    if !cargo::is_here() {
        skipped("there is no cargo here");
        return;
    }
    let mut farm = Farm::up(Options::default());
    let laptop = &farm.laptop;
    let alone = alone(&farm);
    let mut checkout = with_paths(Checkout::write(farm.path("work"), farm.path("home")), "portable");
    look_around(&checkout);
    let (plain, expected) = reference(&alone, &checkout);

    // Cold: libraries, macros, build scripts' programs and the application.
    let (built, counts) = build_anew(laptop, &checkout);
    assert_eq!(counts, (0, N_CRATES, 0), "{}\n{}", laptop.json(&["explain"]), farm.logs());
    assert_same(&expected, &checkout.files());
    assert_eq!(plain.messages, built.messages);
    assert_eq!(checkout.build(Some(laptop), &["build"]).compiled, Vec::<String>::new(), "not fresh");
    let (built, counts) = build_anew(laptop, &checkout);
    assert_eq!(counts, (N_CRATES, 0, 0), "{}", laptop.json(&["explain"]));
    assert_same(&expected, &checkout.files());
    assert_eq!(plain.messages, built.messages);

    // What a macro asks for, and the agent is not told at first.
    checkout.env.insert("MACRO_SEES".to_owned(), "this".to_owned());
    let (_, counts) = build_anew(laptop, &checkout);
    assert_eq!((counts, checkout.says()["variable"].as_str()), ((N_CRATES - 1, 1, 0), "this"));
    assert_eq!(laptop.json(&["stats"])["reasons"]["undeclared-variable"], 1);
    checkout.env.insert("MACRO_SEES".to_owned(), "that".to_owned());
    let (_, counts) = build_anew(laptop, &checkout);
    assert_eq!((counts, checkout.says()["variable"].as_str()), ((N_CRATES - 1, 1, 0), "that"));
    assert_eq!(laptop.json(&["stats"])["reasons"].get("undeclared-variable"), None, "it is known by now");

    // A file of another package: the agent fails for the lack of it, once.
    checkout.edit("before/note.txt", "outside\n");
    for (value, counts) in [("1", (N_CRATES - 3, 2, 1)), ("2", (N_CRATES - 3, 3, 0))] {
        let text =
            format!("pub const WORD: &str = include_str!(\"../../before/note.txt\"); pub const N: u32 = {value};\n");
        checkout.edit("leaf/src/part.rs", &text);
        let (_, found) = build_anew(laptop, &checkout);
        assert!(checkout.says()["word"].starts_with("outside"), "{:?}", checkout.says());
        assert_eq!(found, counts, "{}", laptop.json(&["explain"]));
    }

    // An error is the user's own compiler's word.
    checkout.edit("leaf/src/part.rs", "pub const WORD: &str = 1;\n");
    let failed = checkout.try_build(Some(laptop), &["build"]);
    assert!(failed.messages.iter().any(|message| message.contains("E0308")), "{:?}", failed.messages);
    assert_eq!(laptop.json(&["stats"])["reasons"]["compile-failed"], 1);
    checkout.edit("leaf/src/part.rs", "pub const WORD: &str = \"one\";\n");

    scripts_of_agents(&alone, laptop, &mut checkout);

    a_colleague_finds_them(&farm);

    clippy_of_agents_holds_elsewhere(&farm, &checkout);

    // An agent dies while it compiles: other flags, so that all crates are made anew.
    checkout.env.insert("CARGO_ENCODED_RUSTFLAGS".to_owned(), "--cfg\x1fshout".to_owned());
    let (_, expected) = reference(&alone, &checkout);
    checkout.clean();
    laptop.zero();
    let mut building = checkout.cargo(Some(laptop), &["build"]).stderr(Stdio::null()).spawn().unwrap();
    let mut busy = None;
    farm.wait("an action at an agent", || {
        let actions = farm.json(&["status"])["running"].as_array().cloned().unwrap_or_default();
        busy = actions.iter().find_map(|action| action["where"].as_str()?.strip_prefix("desk")?.parse::<usize>().ok());
        busy.is_some()
    });
    farm.agents[busy.unwrap()] = None;
    let output = building.wait().unwrap();
    assert!(output.success(), "{}", farm.logs());
    assert_same(&expected, &checkout.files());
    let (cached, remote, local) = farm.laptop.compiles();
    assert_eq!(cached + remote + local, N_CRATES, "{}", farm.json(&["explain"]));
}
