//! Rust workspaces to build with cargo, made on the spot and without a network, and builds of them. The program that comes out says what
//! it was made of, one fact a line, so that an old piece in it shows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::client::{Client, plain};
use crate::project::{Files, outputs};

/// Variables that cargo or nextest set for the test itself, and settings of whoever runs it.
const CARGO_NAMES: [&str; 6] = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOCFLAGS", "RUST_BACKTRACE", "LD_LIBRARY_PATH"];

/// Whether cargo can be started here: an ordinary user on a machine where root has it can't.
pub fn is_here() -> bool {
    ["cargo", "rustc"]
        .iter()
        .all(|program| plain(program).arg("--version").output().is_ok_and(|output| output.status.success()))
}

/// The sources of a workspace: a leaf (which warns), a crate above it, proc-macros that look at the environment and at a folder, a C library
/// made by a build script, one that was there before, and an application with a build script. One crate is in the cargo home.
const WORKSPACE: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[workspace]\nresolver = \"2\"\nmembers = [\"leaf\", \"middle\", \"macros\", \"native\", \"app\"]\n",
    ),
    ("leaf/Cargo.toml", "[package]\nname = \"leaf\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[features]\nloud = []\n"),
    (
        "leaf/src/lib.rs",
        "mod part;\npub fn word() -> String {\n    let never = 1;\n    let end = if cfg!(feature = \"loud\") { \"!\" } else { \"\" };\n    \
         format!(\"{}{}{}\", part::WORD, end, if cfg!(shout) { \"?\" } else { \"\" })\n}\n",
    ),
    ("leaf/src/part.rs", "pub const WORD: &str = \"one\";\n"),
    (
        "middle/Cargo.toml",
        "[package]\nname = \"middle\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nleaf = { path = \"../leaf\" }\nkept = \"1\"\n",
    ),
    (
        "middle/src/lib.rs",
        "pub fn word() -> String { format!(\"{} {}\", leaf::word(), kept::word()) }\n\
         #[track_caller] pub fn here() -> &'static str { std::panic::Location::caller().file() }\n",
    ),
    (
        "macros/Cargo.toml",
        "[package]\nname = \"macros\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[lib]\nproc-macro = true\n",
    ),
    (
        "macros/src/lib.rs",
        "extern crate proc_macro;\nuse proc_macro::TokenStream;\nuse std::{env, fs, path::Path};\n\
         fn text(value: &str) -> TokenStream { format!(\"{value:?}\").parse().unwrap() }\n\
         #[proc_macro] pub fn variable(_: TokenStream) -> TokenStream { text(&env::var(\"MACRO_SEES\").unwrap_or(\"nothing\".into())) }\n\
         #[proc_macro] pub fn pages(_: TokenStream) -> TokenStream {\n    \
         let folder = Path::new(&env::var(\"CARGO_MANIFEST_DIR\").unwrap()).join(\"pages\");\n    \
         let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|page| page.unwrap().path()).collect();\n    all.sort();\n    \
         let all = all.iter().map(|page| format!(\"{}={}\", page.file_name().unwrap().to_str().unwrap(), fs::read_to_string(page).unwrap().trim()));\n    \
         text(&all.collect::<Vec<_>>().join(\",\"))\n}\n",
    ),
    ("native/Cargo.toml", "[package]\nname = \"native\"\nversion = \"0.1.0\"\nedition = \"2021\"\nlinks = \"value\"\n"),
    (
        "native/build.rs",
        "use std::{env, process::Command};\n\
         fn run(command: &mut Command) { assert!(command.status().unwrap().success()); }\n\
         fn main() {\n    let out = env::var(\"OUT_DIR\").unwrap();\n    \
         run(Command::new(\"gcc\").args([\"-O1\", \"-c\", \"value.c\", \"-o\"]).arg(format!(\"{out}/value.o\")));\n    \
         run(Command::new(\"ar\").arg(\"crD\").arg(format!(\"{out}/libvalue.a\")).arg(format!(\"{out}/value.o\")));\n    \
         println!(\"cargo:rerun-if-changed=value.c\\ncargo:rustc-link-lib=static=value\\ncargo:rustc-link-search=native={out}\");\n    \
         let before = std::path::Path::new(&env::var(\"CARGO_MANIFEST_DIR\").unwrap()).with_file_name(\"before\");\n    \
         println!(\"cargo:rustc-link-lib=static=before\\ncargo:rustc-link-search=native={}\", before.display());\n}\n",
    ),
    ("native/value.c", "int value(void) { return 1; }\n"),
    (
        "native/src/lib.rs",
        "extern \"C\" { fn value() -> i32; fn before() -> i32; }\npub fn numbers() -> (i32, i32) { unsafe { (value(), before()) } }\n",
    ),
    ("before/before.c", "int before(void) { return 1; }\n"),
    (
        "app/Cargo.toml",
        "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[features]\nloud = [\"leaf/loud\"]\n[dependencies]\n\
         middle = { path = \"../middle\" }\nleaf = { path = \"../leaf\" }\nmacros = { path = \"../macros\" }\nnative = { path = \"../native\" }\n",
    ),
    (
        "app/build.rs",
        "use std::{env, fs, path::Path};\nfn main() {\n    let config = fs::read_to_string(\"config.txt\").unwrap();\n    \
         let head = fs::read_to_string(\"../.git/HEAD\").unwrap();\n    \
         let made = format!(\"pub const CONFIG: &str = {:?};\\npub const MADE_BY: u32 = 1;\\n\", config.trim());\n    \
         fs::write(Path::new(&env::var(\"OUT_DIR\").unwrap()).join(\"made.rs\"), made).unwrap();\n    \
         println!(\"cargo:rerun-if-changed=config.txt\\ncargo:rerun-if-changed=build.rs\\ncargo:rerun-if-changed=../.git/HEAD\");\n    \
         println!(\"cargo:rustc-env=HEAD={}\", head.trim());\n}\n",
    ),
    ("app/config.txt", "one\n"),
    ("app/note.txt", "one\n"),
    ("app/pages/a.txt", "one\n"),
    (".git/HEAD", "one\n"),
    (
        "app/src/main.rs",
        "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\nfn main() {\n    println!(\"word={}\", middle::word());\n    \
         println!(\"config={CONFIG} {MADE_BY}\");\n    println!(\"note={}\", include_str!(\"../note.txt\").trim());\n    \
         println!(\"head={}\", env!(\"HEAD\"));\n    println!(\"option={:?}\", option_env!(\"APP_SAYS\"));\n    \
         println!(\"variable={}\", macros::variable!());\n    println!(\"pages={}\", macros::pages!());\n    \
         println!(\"numbers={:?}\", native::numbers());\n    \
         println!(\"here={}\", middle::here());\n}\n\
         #[test]\nfn numbers() { assert!(native::numbers().0 > 0); }\n",
    ),
];

/// The crate in the cargo home, as registries' crates are: in a folder that cargo takes for the registry.
const KEPT: &[(&str, &str)] = &[
    ("Cargo.toml", "[package]\nname = \"kept\"\nversion = \"1.0.0\"\nedition = \"2021\"\n"),
    ("src/lib.rs", "pub fn word() -> &'static str { \"kept\" }\n"),
    (".cargo-checksum.json", "{\"files\":{},\"package\":null}\n"),
];

fn write_all(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        let written = fs::create_dir_all(path.parent().unwrap_or(folder)).and_then(|()| fs::write(&path, text));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// A checkout of the workspace, with a cargo home, as one user builds it.
#[derive(Debug)]
pub struct Checkout {
    /// The workspace.
    pub folder: PathBuf,
    /// `CARGO_HOME`.
    pub home: PathBuf,
    /// Variables for each build.
    pub env: BTreeMap<String, String>,
}

/// What a build did.
#[derive(Debug)]
pub struct Built {
    /// Cargo's own exit status and text.
    pub output: Output,
    /// Crates (by package and kind) that were not fresh.
    pub compiled: Vec<String>,
    /// What compilers said, for each crate in its order.
    pub messages: Vec<String>,
}

impl Checkout {
    /// Writes the sources.
    ///
    /// # Panics
    ///
    /// When something can't be written.
    pub fn write(folder: PathBuf, home: PathBuf) -> Self {
        write_all(&folder, WORKSPACE);
        let kept = home.join("kept");
        write_all(&kept.join("kept-1.0.0"), KEPT);
        let settings = format!(
            "[source.crates-io]\nreplace-with = \"kept\"\n[source.kept]\ndirectory = {:?}\n",
            kept.display().to_string()
        );
        write_all(&home, &[("config.toml", &settings)]);
        // Incremental sessions are a matter of their own.
        let env = BTreeMap::from([("CARGO_INCREMENTAL".to_owned(), "0".to_owned())]);
        let checkout = Self { folder, home, env };
        checkout.make_library("before");
        checkout
    }

    /// Makes `before/libbefore.a` of its source, in place.
    ///
    /// # Panics
    ///
    /// When that can't be done.
    pub fn make_library(&self, name: &str) {
        let folder = self.folder.join(name);
        let line = format!("gcc -O1 -c {name}.c -o {name}.o && ar crD lib{name}.a {name}.o");
        let made = plain("sh").args(["-c", &line]).current_dir(folder).status();
        assert!(made.is_ok_and(|status| status.success()), "{line}");
    }

    /// Writes one file of the workspace.
    ///
    /// # Panics
    ///
    /// When it can't be written.
    pub fn edit(&self, name: &str, text: &str) {
        write_all(&self.folder, &[(name, text)]);
    }

    /// Removes what builds have left.
    pub fn clean(&self) {
        let _ = fs::remove_dir_all(self.folder.join("target"));
    }

    /// cargo with `words`, plainly or with `client`'s wrapper.
    pub fn cargo(&self, client: Option<&Client>, words: &[&str]) -> Command {
        let mut command = client.map_or_else(|| plain("cargo"), |client| client.command("cargo"));
        #[expect(clippy::disallowed_methods, reason = "what surrounds a test is no setting of a build")]
        for (name, _) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            if CARGO_NAMES.contains(&name) || name.starts_with("CARGO_") || name.starts_with("NEXTEST") {
                command.env_remove(name);
            }
        }
        command.args(words).args(["--offline", "-j2"]).current_dir(&self.folder);
        command.env("CARGO_HOME", &self.home).env("CARGO_TERM_COLOR", "never").envs(&self.env);
        if client.is_some() {
            command.env("RUSTC_WRAPPER", "buildbee");
        }
        command
    }

    /// Builds, which must succeed.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn build(&self, client: Option<&Client>, words: &[&str]) -> Built {
        let built = self.try_build(client, words);
        let log = client.map(Client::log).unwrap_or_default();
        let text = String::from_utf8_lossy(&built.output.stderr);
        assert!(built.output.status.success(), "{words:?}: {text}\n{}\n{log}", built.messages.join("\n"));
        built
    }

    /// Builds.
    ///
    /// # Panics
    ///
    /// When cargo can't be started.
    pub fn try_build(&self, client: Option<&Client>, words: &[&str]) -> Built {
        let mut command = self.cargo(client, words);
        command.args(["--message-format", "json"]);
        let output = command.output().unwrap_or_else(|error| panic!("cargo: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let documents = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let (mut compiled, mut messages) = (Vec::new(), Vec::new());
        for document in documents {
            let about = format!("{} {}", document["target"]["name"], document["target"]["kind"]);
            match document["reason"].as_str() {
                Some("compiler-artifact") if document["fresh"] == false => compiled.push(about),
                Some("compiler-message") => messages.push(format!("{about} {}", document["message"])),
                _ => {}
            }
        }
        compiled.sort();
        // Crates end in any order; the sort is stable, so each crate's own messages keep theirs.
        messages.sort_by_key(|message| message.split(']').next().map(str::to_owned));
        Built { output, compiled, messages }
    }

    /// What the application says of itself.
    ///
    /// # Panics
    ///
    /// When it can't be run.
    pub fn says(&self) -> BTreeMap<String, String> {
        let output = plain(self.folder.join("target/debug/app")).output();
        let output = output.unwrap_or_else(|error| panic!("app: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.into(), value.into())).collect()
    }

    /// Everything below `target` but what cargo keeps for itself.
    ///
    /// # Panics
    ///
    /// When it can't be read.
    pub fn files(&self) -> Files {
        let mut files = outputs(&self.folder.join("target"), &[""]);
        files.retain(|name, _| {
            !["/.fingerprint/", "/incremental/", ".cargo-", "/invoked.timestamp"].iter().any(|part| name.contains(part))
                && !name.starts_with(".rustc_info")
        });
        files
    }
}
