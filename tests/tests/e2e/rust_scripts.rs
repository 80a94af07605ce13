//! Runs of build scripts (`build_scripts`): from the cache where it is certain what they were made from, and plain otherwise. Each script here
//! writes down a number of its run's own, which shows whether it has run. Cargo's view is compared with that of plain cargo.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use buildbee_tests::cargo::{self, Checkout};
use buildbee_tests::client::{Client, plain};
use buildbee_tests::network::skipped;
use buildbee_tests::programs;
use buildbee_tests::project::{Files, assert_same, outputs};
use tempfile::TempDir;

/// Before the body of each script.
const START: &str = "use std::{env, fs, path::Path, process::Command, time::*};\n\
    use std::{collections::hash_map::RandomState, hash::{BuildHasher, Hasher}};\n\
    #[allow(dead_code)] fn unused(_: Command, _: Duration, _: &Path) {}\n\
    fn run(command: &mut Command) { assert!(command.status().unwrap().success()); }\n\
    fn main() {\n    let out = env::var(\"OUT_DIR\").unwrap();\n    let input = fs::read_to_string(\"input.txt\").unwrap();\n    \
    let id = RandomState::new().build_hasher().finish();\n    \
    let id = if env::var_os(\"SAME\").is_some() { 0 } else { id };\n    \
    fs::write(format!(\"{out}/id\"), format!(\"{id}\")).unwrap();\n    \
    let mut made = input.trim().to_owned();\n    println!(\"cargo:rerun-if-changed=input.txt\");\n";

/// After it.
const END: &str =
    "\n    fs::write(format!(\"{out}/made.txt\"), made).unwrap();\n    if false { run(&mut Command::new(\"x\")) }\n}\n";

const MAIN: &str = "fn main() { println!(\"{} {}\", include_str!(concat!(env!(\"OUT_DIR\"), \"/id\")), \
    include_str!(concat!(env!(\"OUT_DIR\"), \"/made.txt\"))) }\n";

/// A user without a farm, and a package with a build script.
struct Bench {
    client: Client,
    checkout: Checkout,
    folder: TempDir,
}

/// A package with a script of this body, in a workspace's folder.
fn write(folder: PathBuf, home: PathBuf, body: &str) -> Checkout {
    let manifest = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::create_dir_all(folder.join("listed")).unwrap();
    fs::create_dir_all(&home).unwrap();
    // Without Command and the clock in it, a script can't walk the environment.
    let start = if body.contains("Command") {
        START.to_owned()
    } else {
        START.replace(
            "run(command: &mut Command) { assert!(command.status().unwrap().success()); }",
            "run(_: &mut Command) {}",
        )
    };
    let end = if body.contains("Command") {
        END
    } else {
        "\n    fs::write(format!(\"{out}/made.txt\"), made).unwrap();\n}\n"
    };
    let script = format!("{start}    {body}{end}");
    for (name, text) in [
        ("Cargo.toml", manifest),
        ("build.rs", &script),
        ("src/main.rs", MAIN),
        ("input.txt", "one\n"),
        ("listed/a", ""),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    let env = [("CARGO_INCREMENTAL", "0"), ("BUILDBEE_BUILD_SCRIPTS", "1")];
    Checkout { folder, home, env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into() }
}

impl Bench {
    fn new(body: &str) -> Option<Self> {
        if !cargo::is_here() {
            skipped("there is no cargo here");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("bb script").tempdir().unwrap();
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
        let checkout = write(folder.path().join("work"), folder.path().join("home"), body);
        Some(Self { client, checkout, folder })
    }

    /// Builds from clean; what the program says then: a number of the script's run, and what that made.
    fn anew(&self, checkout: &Checkout) -> (String, String) {
        checkout.clean();
        self.client.zero();
        // What was just written is not certain to be what was read.
        std::thread::sleep(Duration::from_millis(60));
        checkout.build(Some(&self.client), &["build"]);
        let fresh = checkout.build(Some(&self.client), &["build"]);
        assert_eq!(fresh.compiled, Vec::<String>::new(), "not fresh");
        says(checkout)
    }

    /// Builds from clean twice; whether the script ran once.
    fn is_kept(&self) -> bool {
        let first = self.anew(&self.checkout);
        first == self.anew(&self.checkout)
    }

    /// What became of the script's last run: where it was, and why.
    fn told(&self) -> (String, String) {
        let told = self.client.json(&["explain", "build_script", "--last", "20"]);
        let all = told["actions"].as_array().cloned().unwrap_or_default();
        let run =
            all.iter().find(|action| action["compiler"].as_str().is_some_and(|it| it.contains("/.buildbee-real.")));
        let run = run.unwrap_or_else(|| panic!("{told}"));
        let text = |key: &str| run[key].as_str().unwrap_or_default().to_owned();
        (text("where"), text("reason"))
    }
}

fn says(checkout: &Checkout) -> (String, String) {
    let output = plain(checkout.folder.join("target/debug/app")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (id, made) = text.trim().split_once(' ').unwrap();
    (id.to_owned(), made.to_owned())
}

/// What scripts left, and what cargo keeps of their words.
fn left(checkout: &Checkout) -> Files {
    let mut files = outputs(&checkout.folder.join("target/debug/build"), &[""]);
    files.retain(|name, _| ["/out/", "/output", "/stderr"].iter().any(|part| name.contains(part)));
    files
}

/// Every path below the folders for scripts, with what stands there.
fn tree(folder: &Path) -> Vec<String> {
    let output = plain("find").args([".", "-path", "*/out*", "-printf", "%p %y %m %l\\n"]).current_dir(folder).output();
    let mut lines: Vec<_> = String::from_utf8(output.unwrap().stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

const READER: &str = "made += &env::var(\"WORD\").unwrap_or_default();\n    \
    made += &fs::read_to_string(\"undeclared.txt\").unwrap_or_default();\n    \
    let names: Vec<_> = fs::read_dir(\"listed\").unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();\n    \
    made += &names.len().to_string();\n    println!(\"cargo:rerun-if-env-changed=WORD\");";

#[test]
fn a_script_runs_again_when_what_it_used_has_changed() {
    let Some(mut bench) = Bench::new(READER) else { return };
    assert!(bench.is_kept(), "{}", bench.client.log());
    assert_eq!(bench.told().0, "cached");
    let first = says(&bench.checkout);
    let mut seen = vec![first.clone()];
    let mut changed = |bench: &Bench, made: &str| {
        let said = bench.anew(&bench.checkout);
        assert_eq!(said.1, made);
        assert!(!seen.contains(&said), "{made}: {}", bench.client.json(&["explain"]));
        assert_eq!(said, bench.anew(&bench.checkout), "kept");
        seen.push(said);
    };
    bench.checkout.edit("input.txt", "two\n");
    changed(&bench, "two1");
    bench.checkout.env.insert("WORD".to_owned(), "word".to_owned());
    changed(&bench, "twoword1");
    bench.checkout.edit("undeclared.txt", "more");
    changed(&bench, "twowordmore1");
    bench.checkout.edit("listed/b", "");
    changed(&bench, "twowordmore2");
    // Nothing else counts.
    bench.checkout.env.insert("OTHER".to_owned(), "word".to_owned());
    bench.checkout.edit("unread.txt", "");
    assert_eq!(bench.anew(&bench.checkout), *seen.last().unwrap());
    for name in ["undeclared.txt", "listed/b", "unread.txt"] {
        fs::remove_file(bench.checkout.folder.join(name)).unwrap();
    }
    bench.checkout.env.remove("WORD");
    bench.checkout.edit("input.txt", "one\n");
    assert_eq!(bench.anew(&bench.checkout), first, "as it was at first");
}

const MAKER: &str = "fs::create_dir_all(format!(\"{out}/empty/deep\")).unwrap();\n    \
    fs::create_dir(format!(\"{out}/sub\")).unwrap();\n    fs::write(format!(\"{out}/sub/tool\"), \"#!/bin/sh\\n\").unwrap();\n    \
    use std::os::unix::fs::{symlink, PermissionsExt};\n    \
    fs::set_permissions(format!(\"{out}/sub/tool\"), fs::Permissions::from_mode(0o755)).unwrap();\n    \
    fs::write(format!(\"{out}/nothing\"), \"\").unwrap();\n    symlink(\"sub/tool\", format!(\"{out}/link\")).unwrap();\n    \
    println!(\"cargo:rustc-env=MADE={out}/made.txt\\ncargo:warning=beware of {}\", env::var(\"CARGO_MANIFEST_DIR\").unwrap());\n    \
    eprintln!(\"heard in {out}\");";

#[test]
fn cargo_sees_what_a_plain_run_leaves() {
    for umask in ["022", "077"] {
        let Some(mut bench) = Bench::new(MAKER) else { return };
        bench.checkout.env.insert("SAME".to_owned(), "1".to_owned());
        let build = bench.checkout.folder.join("target/debug/build");
        let with_umask = |client: Option<&Client>| {
            bench.checkout.clean();
            let cargo = bench.checkout.cargo(client, &["build"]);
            let mut shell = client.map_or_else(|| plain("sh"), |client| client.command("sh"));
            shell.args(["-c", &format!("umask {umask}; exec cargo \"$@\""), "sh"]).args(cargo.get_args());
            shell.current_dir(&bench.checkout.folder);
            for (name, value) in cargo.get_envs().filter_map(|(name, value)| Some((name, value?))) {
                shell.env(name, value);
            }
            let output = shell.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let words = String::from_utf8_lossy(&output.stderr)
                .lines()
                .filter(|line| line.contains("warning"))
                .collect::<String>();
            (left(&bench.checkout), tree(&build), words)
        };
        let expected = with_umask(None);
        std::thread::sleep(Duration::from_millis(60));
        for place in ["local", "cached"] {
            let seen = with_umask(Some(&bench.client));
            assert_same(&expected.0, &seen.0);
            assert_eq!((&expected.1, &expected.2), (&seen.1, &seen.2));
            assert_eq!(bench.told().0, place, "{}", bench.client.json(&["explain"]));
        }
    }
}

#[test]
fn c_that_a_script_compiles() {
    let body = "run(Command::new(\"cc\").args([\"-O1\", \"-c\", \"value.c\", \"-o\"]).arg(format!(\"{out}/value.o\")));\n    \
        run(Command::new(\"ar\").arg(\"crD\").arg(format!(\"{out}/libvalue.a\")).arg(format!(\"{out}/value.o\")));";
    let Some(mut bench) = Bench::new(body) else { return };
    bench.checkout.edit("value.c", "#include <stddef.h>\n#include \"value.h\"\nint value(void) { return VALUE; }\n");
    bench.checkout.edit("value.h", "#define VALUE 1\n");
    bench.checkout.env.insert("SAME".to_owned(), "1".to_owned());
    std::thread::sleep(Duration::from_millis(60));
    bench.checkout.build(None, &["build"]);
    let expected = left(&bench.checkout);
    for place in ["local", "cached"] {
        bench.anew(&bench.checkout);
        assert_same(&expected, &left(&bench.checkout));
        assert_eq!(bench.told().0, place, "{:?}\n{}", bench.told(), bench.client.log());
    }
    bench.checkout.edit("value.h", "#define VALUE 2\n");
    bench.anew(&bench.checkout);
    assert_eq!(bench.told().0, "local");
    // Programs that it starts are given every variable.
    bench.anew(&bench.checkout);
    assert_eq!(bench.told().0, "cached");
    bench.checkout.env.insert("ANY".to_owned(), "value".to_owned());
    bench.anew(&bench.checkout);
    assert_eq!(bench.told().0, "local");
    bench.checkout.edit("value.h", "#define VALUE __TIME__[0]\n");
    bench.anew(&bench.checkout);
    assert_eq!(bench.told(), ("local".to_owned(), "script-clock".to_owned()));
}

#[test]
fn a_program_that_stands_in_front_of_another_counts() {
    let body = "made += std::str::from_utf8(&Command::new(\"tool-of-test\").output().unwrap().stdout).unwrap().trim();";
    let Some(mut bench) = Bench::new(body) else { return };
    let folders = ["first", "second"].map(|name| bench.folder.path().join(name));
    let program = |folder: &Path, word: &str| {
        let path = folder.join("tool-of-test");
        fs::write(&path, format!("#!/bin/sh\necho {word}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    for folder in &folders {
        fs::create_dir(folder).unwrap();
    }
    program(&folders[1], "two");
    #[expect(clippy::disallowed_methods, reason = "folders go before those that are there")]
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{}:{}:{path}", folders[0].display(), folders[1].display(), bench.client.programs.display());
    bench.checkout.env.insert("PATH".to_owned(), path);
    let second = bench.anew(&bench.checkout);
    assert_eq!((second.1.as_str(), &bench.anew(&bench.checkout)), ("onetwo", &second), "{:?}", bench.told());
    program(&folders[0], "one");
    assert_eq!(bench.anew(&bench.checkout).1, "oneone");
    fs::remove_file(folders[0].join("tool-of-test")).unwrap();
    assert_eq!(bench.anew(&bench.checkout), second);
    program(&folders[1], "more");
    assert_eq!(bench.anew(&bench.checkout).1, "onemore");
}

#[test]
fn what_is_not_certain_runs_each_time() {
    for (body, reason) in [
        ("fs::write(\"beside.txt\", \"x\").unwrap();", "script-writes-elsewhere"),
        ("fs::write(format!(\"{out}/../beside.txt\"), \"x\").unwrap();", "script-writes-elsewhere"),
        ("let _ = std::net::TcpStream::connect(\"127.0.0.1:1\");", "network"),
        ("made += if SystemTime::now() > UNIX_EPOCH { \"\" } else { \"x\" };", "script-clock"),
        ("made += &Command::new(\"date\").output().unwrap().stdout.len().to_string();", "script-clock"),
        ("made += &fs::read_to_string(\"/proc/uptime\").unwrap().len().to_string()[..0];", "script-system"),
        ("println!(\"cargo:rerun-if-changed=not-there\");", "script-always-runs"),
        (
            "fs::write(format!(\"{out}/all\"), format!(\"{:?}\", env::vars().collect::<Vec<_>>())).unwrap();",
            "script-traces",
        ),
        ("std::os::unix::fs::symlink(\"/etc\", format!(\"{out}/link\")).unwrap();", "output-unusual"),
        ("assert!(Command::new(\"env\").args([\"-i\", \"true\"]).status().unwrap().success());", "program-unrecorded"),
        (
            "use std::io::Write; fs::OpenOptions::new().read(true).write(true).open(\"listed/a\").unwrap().write_all(b\"o\").unwrap();",
            "input-changed-meanwhile",
        ),
    ] {
        let Some(bench) = Bench::new(body) else { return };
        if reason == "script-always-runs" {
            // Cargo never calls it fresh.
            bench.checkout.build(Some(&bench.client), &["build"]);
        } else {
            let first = bench.anew(&bench.checkout);
            assert_eq!(bench.told(), ("local".to_owned(), reason.to_owned()), "{body}");
            let second = bench.anew(&bench.checkout);
            assert!(first.0 != second.0 && first.1 == second.1, "{body}: {first:?} {second:?}");
        }
        assert_eq!(bench.told().0, "local", "{body}");
    }
}

#[test]
fn a_script_that_fails_fails_each_time_with_its_own_words() {
    let Some(bench) = Bench::new("if input.trim() == \"bad\" { eprintln!(\"no luck\"); std::process::exit(7) }") else {
        return;
    };
    bench.checkout.edit("input.txt", "bad\n");
    for _ in 0..2 {
        bench.checkout.clean();
        let built = bench.checkout.try_build(Some(&bench.client), &["build"]);
        let words = String::from_utf8_lossy(&built.output.stderr).into_owned();
        assert!(
            !built.output.status.success() && words.contains("no luck") && words.contains("exit status: 7"),
            "{words}"
        );
        assert_eq!(bench.told(), ("local".to_owned(), "script-failed".to_owned()));
    }
    bench.checkout.edit("input.txt", "good\n");
    assert!(bench.is_kept());
}

#[test]
fn a_run_that_finds_an_earlier_ones_files_is_plain() {
    let body = "let old = Path::new(&out).join(\"old\");\n    if old.exists() { made += \" again\" }\n    fs::write(old, \"\").unwrap();";
    let Some(bench) = Bench::new(body) else { return };
    assert!(bench.is_kept());
    bench.checkout.edit("input.txt", "two\n");
    bench.checkout.build(Some(&bench.client), &["build"]);
    assert_eq!(says(&bench.checkout).1, "two again");
    assert_eq!(bench.told(), ("local".to_owned(), "script-leftovers".to_owned()));
    assert_eq!(bench.anew(&bench.checkout).1, "two");
}

#[test]
fn another_checkout_shares_what_names_no_place() {
    for (body, paths, shared) in [
        ("println!(\"cargo:rustc-env=X={out}\");", "portable", true),
        ("run(Command::new(\"true\").env(\"X\", \"y\"));", "portable", true),
        ("println!(\"cargo:rustc-env=X={out}\");", "exact", false),
        ("fs::write(format!(\"{out}/place\"), &out).unwrap();", "portable", false),
        ("made += if Path::new(\"../settings\").exists() { \"x\" } else { \"\" };", "portable", false),
        ("made += if Path::new(\"../beside/settings\").exists() { \"x\" } else { \"\" };", "portable", false),
    ] {
        let Some(mut bench) = Bench::new(body) else { return };
        let mut second = write(bench.folder.path().join("another/and longer/place"), bench.checkout.home.clone(), body);
        for checkout in [&mut bench.checkout, &mut second] {
            checkout.env.insert("BUILDBEE_PATHS".to_owned(), paths.to_owned());
        }
        assert!(bench.is_kept(), "{body}: {:?}", bench.told());
        let (one, two) = (says(&bench.checkout), bench.anew(&second));
        assert_eq!(one == two, shared, "{body}: {}", bench.client.json(&["explain"]));
        assert_eq!(bench.anew(&second), two, "{body}: its own holds");
        let first = bench.checkout.folder.display().to_string();
        for (name, (content, _)) in left(&second) {
            assert!(!String::from_utf8_lossy(&content).contains(&first), "{body}: {name} names the other checkout");
        }
        assert_eq!(bench.anew(&bench.checkout), one);
    }
}

#[test]
fn a_hit_starts_no_script() {
    let Some(bench) = Bench::new(READER) else { return };
    assert!(bench.is_kept());
    bench.checkout.clean();
    let (starts, cargo) = (bench.folder.path().join("starts"), bench.checkout.cargo(Some(&bench.client), &["build"]));
    let mut strace = bench.client.command("strace");
    strace.args(["-f", "-qq", "-s", "10000", "-e", "trace=execve", "-e", "signal=none", "-o"]).arg(&starts);
    strace.arg("cargo").args(cargo.get_args()).current_dir(&bench.checkout.folder);
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    let output = strace.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let starts = fs::read_to_string(starts).unwrap();
    assert!(starts.contains("/build-script-build") && !starts.contains(".buildbee-real."), "{starts}");
}

#[test]
fn where_it_is_off_nothing_is_there() {
    let Some(mut bench) = Bench::new(READER) else { return };
    bench.checkout.env.remove("BUILDBEE_BUILD_SCRIPTS");
    assert!(!bench.is_kept());
    let build = bench.checkout.folder.join("target/debug/build");
    let names = || outputs(&build, &[""]).into_keys().collect::<Vec<_>>();
    let with_wrapper = names();
    bench.checkout.clean();
    bench.checkout.build(None, &["build"]);
    assert_eq!(names(), with_wrapper);
    assert_eq!(bench.client.json(&["stats"])["reasons"]["scripts-off"].as_u64(), None);
    // The daemon's setting.
    bench.client.leave();
    let settings = bench.folder.path().join("settings.toml");
    fs::write(&settings, "build_scripts = true\n").unwrap();
    bench.checkout.env.insert("BUILDBEE_CONFIG".to_owned(), settings.display().to_string());
    bench.checkout.clean();
    bench.checkout.build(Some(&bench.client), &["build"]);
    assert!(names().iter().any(|name| name.contains(".buildbee-real.")));
}

#[test]
fn a_stand_in_that_was_left_is_the_script() {
    let Some(mut bench) = Bench::new(READER) else { return };
    let (id, _) = bench.anew(&bench.checkout);
    let runs = |bench: &mut Bench, name: &str, value: &str| {
        bench.checkout.env.insert(name.to_owned(), value.to_owned());
        bench.checkout.edit("input.txt", &format!("{name}={value}\n"));
        bench.checkout.build(Some(&bench.client), &["build"]);
        let said = says(&bench.checkout);
        assert!(said.0 != id && said.1 == format!("{name}={value}1"), "{said:?}");
    };
    runs(&mut bench, "BUILDBEE_BUILD_SCRIPTS", "0");
    assert_eq!(bench.told().1, "scripts-off");
    runs(&mut bench, "BUILDBEE_BUILD_SCRIPTS", "1");
    runs(&mut bench, "BUILDBEE", "off");
    bench.client.leave();
    runs(&mut bench, "BUILDBEE_SOCKET", "/dev/null/none");
    bench.checkout.edit("input.txt", "plain\n");
    bench.checkout.build(None, &["build"]);
    assert_eq!(says(&bench.checkout).1, "plain1");
}
