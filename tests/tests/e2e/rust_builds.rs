//! Whole cargo builds: by a daemon with an empty cache, from the cache, and in another checkout, each compared with the build that it
//! stands for.

use std::fs;
use std::path::{Path, PathBuf};

use buildbee_tests::cargo::{self, Built, Checkout};
use buildbee_tests::client::{Client, plain};
use buildbee_tests::network::skipped;
use buildbee_tests::programs;
use buildbee_tests::project::{Files, assert_same};
use tempfile::TempDir;

/// Crates of `cargo build`: six packages and two build scripts.
const N_CRATES: u64 = 8;

/// A user without a farm, and that user's checkout.
pub(crate) struct Alone {
    pub(crate) client: Client,
    pub(crate) checkout: Checkout,
    folder: TempDir,
}

impl Alone {
    /// `None`, and a word about it, where there is no cargo.
    pub(crate) fn new(paths: &str) -> Option<Self> {
        if !cargo::is_here() {
            skipped("there is no cargo here");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("bb rust").tempdir().unwrap();
        let state = folder.path().join("client");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let client = Client {
            folder: state,
            programs: programs::folder(),
            local_slots: 2,
            racing: "off",
            space: None,
            view: None,
        };
        let checkout = with_paths(Checkout::write(folder.path().join("work"), folder.path().join("home")), paths);
        Some(Self { client, checkout, folder })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// From clean: what was built, and how many crates were cached, remote, local.
    pub(crate) fn build_anew(&self, words: &[&str]) -> (Built, (u64, u64, u64)) {
        self.checkout.clean();
        self.client.zero();
        let built = self.checkout.build(Some(&self.client), words);
        (built, self.client.compiles())
    }

    /// From clean, and right: `key` is `value` in what the application says.
    pub(crate) fn says(&self, key: &str, value: &str) -> (u64, u64, u64) {
        let (_, counts) = self.build_anew(&["build"]);
        let says = self.checkout.says();
        assert_eq!(says.get(key).map(String::as_str), Some(value), "{says:?}\n{}", self.client.json(&["explain"]));
        counts
    }
}

pub(crate) fn with_paths(mut checkout: Checkout, paths: &str) -> Checkout {
    checkout.env.insert("BUILDBEE_PATHS".to_owned(), paths.to_owned());
    checkout
}

/// What builds with the wrapper must be equal to: plain cargo's, or with `paths = "portable"` those of a daemon that knows nothing of them.
fn reference(alone: &Alone, words: &[&str]) -> (Built, Files) {
    let (checkout, client) = (&alone.checkout, &alone.client);
    checkout.clean();
    let programs = client.programs.clone();
    let other =
        Client { folder: alone.path("other"), programs, local_slots: 2, racing: "off", space: None, view: None };
    fs::create_dir(&other.folder).unwrap();
    fs::set_permissions(&other.folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let portable = checkout.env["BUILDBEE_PATHS"] == "portable";
    let built = checkout.build(portable.then_some(&other), words);
    (built, checkout.files())
}

/// Cold and from the cache: same files, same messages, everything fresh afterwards.
fn same_cold_and_cached(paths: &str, words: &[&str], n_crates: u64) {
    let Some(alone) = Alone::new(paths) else { return };
    let (plain, expected) = reference(&alone, words);
    for (n, wanted) in [(0, (0, 0, n_crates)), (1, (n_crates, 0, 0)), (2, (n_crates, 0, 0))] {
        let (built, counts) = alone.build_anew(words);
        assert_same(&expected, &alone.checkout.files());
        assert_eq!(plain.messages, built.messages, "build {n}");
        assert_eq!(plain.compiled, built.compiled, "build {n}");
        assert_eq!(counts, wanted, "build {n}: {}", alone.client.json(&["stats"]));
        let again = alone.checkout.build(Some(&alone.client), words);
        assert_eq!(again.compiled, Vec::<String>::new(), "not fresh after build {n}");
    }
}

#[test]
fn exact_builds_are_plain_cargos() {
    same_cold_and_cached("exact", &["build"], N_CRATES);
}

#[test]
fn portable_builds_are_the_same_each_time() {
    same_cold_and_cached("portable", &["build"], N_CRATES);
}

/// What is not understood runs here, and its bytes are of the same kind as all others.
#[test]
fn crates_that_run_here_have_the_same_names_in_them() {
    for paths in ["portable", "exact"] {
        let Some(mut alone) = Alone::new(paths) else { return };
        let (_, expected) = reference(&alone, &["build"]);
        // It makes the compiler write more, if anything, so that nothing is kept.
        alone.checkout.env.insert("RUSTC_LOG".to_owned(), "off".to_owned());
        assert_eq!(alone.build_anew(&["build"]).1, (0, 0, N_CRATES));
        let reasons = alone.client.json(&["stats"])["reasons"].to_string();
        assert!(reasons.contains("environment"), "{reasons}");
        assert_same(&expected, &alone.checkout.files());
        // The daemon's setting, and not the variable of whoever started it.
        alone.client.leave();
        alone.checkout.env.insert("BUILDBEE_SOCKET".to_owned(), "/dev/null/none".to_owned());
        alone.checkout.clean();
        alone.checkout.build(Some(&alone.client), &["build"]);
        assert_same(&expected, &alone.checkout.files());
    }
}

#[test]
fn clippys_search_for_settings_is_no_reason_to_miss_elsewhere() {
    let Some(alone) = Alone::new("portable") else { return };
    if !plain("cargo").args(["clippy", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return skipped("there is no clippy here");
    }
    alone.build_anew(&["clippy"]);
    let second = Checkout::write(alone.path("another/and longer/place"), alone.path("another home"));
    let second = with_paths(second, "portable");
    let counts = || {
        second.clean();
        alone.client.zero();
        let built = second.build(Some(&alone.client), &["clippy"]);
        (alone.client.compiles(), built.messages)
    };
    // All but the application, one of whose macros asks where it stands.
    let ((_, _, local), messages) = counts();
    assert_eq!(local, 1, "{}", alone.client.json(&["explain"]));
    assert!(messages.iter().any(|message| message.contains("unused_variables")), "{messages:?}");
    assert_eq!(counts().0.2, 0);
    // One that is found counts, wherever it stands.
    fs::write(alone.path("another/clippy.toml"), "too-many-arguments-threshold = 1\n").unwrap();
    assert!(counts().0.2 > 1, "{}", alone.client.json(&["explain"]));
}

/// Clippy asks for the package's folder before it reads a macro; a macro that does so comes later.
#[test]
fn clippy_of_a_crate_with_macros_hits_elsewhere_unless_one_asks_where_it_is() {
    let Some(alone) = Alone::new("portable") else { return };
    if !plain("cargo").args(["clippy", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return skipped("there is no clippy here");
    }
    let second = Checkout::write(alone.path("another/and longer/place"), alone.path("another home"));
    let second = with_paths(second, "portable");
    for (macro_name, misses) in [("variable", 0), ("pages", 1)] {
        let main = format!("fn main() {{ println!(\"{{}}\", macros::{macro_name}!()); let never = 1; }}\n");
        for checkout in [&alone.checkout, &second] {
            checkout.edit("app/src/main.rs", &main);
        }
        alone.build_anew(&["clippy"]);
        second.clean();
        alone.client.zero();
        let built = second.build(Some(&alone.client), &["clippy"]);
        assert_eq!(alone.client.compiles().2, misses, "{macro_name}: {}", alone.client.json(&["explain"]));
        assert!(built.messages.iter().any(|message| message.contains("app") && message.contains("unused_variables")));
    }
}

#[test]
fn checks_are_cached() {
    // The macros are looked at for themselves, too.
    same_cold_and_cached("portable", &["check"], N_CRATES + 1);
}

#[test]
fn optimised_builds_and_tests_are_cached() {
    same_cold_and_cached("portable", &["test", "--release", "--no-run", "-p", "app"], N_CRATES);
}

#[test]
fn a_hit_starts_no_compiler() {
    let Some(alone) = Alone::new("portable") else { return };
    alone.build_anew(&["build"]);
    alone.checkout.clean();
    let (starts, checkout) = (alone.path("starts"), &alone.checkout);
    let cargo = checkout.cargo(Some(&alone.client), &["build"]);
    let mut strace = alone.client.command("strace");
    strace.args(["-f", "-qq", "-s", "10000", "-e", "trace=execve", "-e", "signal=none", "-o"]).arg(&starts);
    strace.arg("cargo").args(cargo.get_args()).current_dir(&checkout.folder);
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    let output = strace.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let starts = fs::read_to_string(starts).unwrap();
    let compiles = |program: &str| {
        let starts = starts.lines().filter(|line| line.contains("--out-dir"));
        let programs = starts.filter_map(|line| line.split_once("execve(\"")?.1.split_once('"'));
        // Cargo looks for the wrapper in each folder of `PATH`.
        programs.filter(|(path, _)| path.ends_with(program) && Path::new(path).exists()).count() as u64
    };
    assert_eq!((compiles("/buildbee"), compiles("/rustc")), (N_CRATES, 0));
    // Nor for cargo's question which version it is.
    let versions = starts.lines().filter(|line| line.contains("\"-vV\"")).filter_map(|line| line.split('"').nth(1));
    assert!(
        versions.clone().any(|path| path.ends_with("/buildbee"))
            && !versions.clone().any(|path| path.ends_with("/rustc")),
        "{starts}"
    );
    assert_eq!(alone.checkout.says()["numbers"], "(1, 1)");
}

#[test]
fn another_checkout_with_another_home_hits() {
    let Some(alone) = Alone::new("portable") else { return };
    alone.build_anew(&["build"]);
    let first = alone.checkout.files();
    let second = Checkout::write(alone.path("another/and longer/place"), alone.path("another home"));
    let second = with_paths(second, "portable");
    alone.client.zero();
    let built = second.build(Some(&alone.client), &["build"]);
    // All but the application: one of its macros asks where it stands, and what it makes of that need not show.
    assert_eq!(alone.client.compiles(), (N_CRATES - 1, 0, 1), "{}", alone.client.json(&["explain"]));
    assert_same(&by_compilers(first), &by_compilers(second.files()));
    assert_eq!(alone.checkout.says(), second.says());
    // What names places names this checkout's.
    let text = format!("{:?}", built.messages);
    assert!(!text.contains(&alone.checkout.folder.display().to_string()), "{text}");
    for (name, (content, _)) in second.files() {
        let foreign = alone.checkout.folder.display().to_string().replace(' ', "\\ ");
        let found = String::from_utf8_lossy(&content).contains(&foreign);
        assert!(
            Path::new(&name).extension() != Some("d".as_ref()) || !found,
            "{name}: {}",
            String::from_utf8_lossy(&content)
        );
    }
    assert_eq!(second.build(Some(&alone.client), &["build"]).compiled, Vec::<String>::new());
    // An edit there is rebuilt there, and only there.
    second.edit("leaf/src/part.rs", "pub const WORD: &str = \"two\";\n");
    second.build(Some(&alone.client), &["build"]);
    assert_eq!(second.says()["word"], "two kept");
    assert_eq!(alone.says("word", "one kept"), (N_CRATES, 0, 0));
}

/// What rustc made: neither dependency files nor what build scripts said, which name places by right.
fn by_compilers(mut files: Files) -> Files {
    files.retain(|name, _| {
        let path = Path::new(name);
        path.extension().is_none_or(|extension| extension != "d")
            && !name.ends_with("output")
            && !name.contains("/out/")
    });
    files
}
