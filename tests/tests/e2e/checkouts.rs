//! Two checkouts of one project, in folders of different length, and two users: what may be shared is, what may not is not, and both come
//! out as a plain compile would have left them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use buildbee_tests::client::{Client, plain};
use buildbee_tests::farm::{Farm, Options};
use serde_json::Value;

use buildbee_tests::seen::{Seen, see};

/// Folders of the checkouts, by the users that have them.
const CHECKOUTS: [&str; 2] = ["ann/p", "bob/a/rather/longer/way/to/the-project"];

fn sources(folder: &Path) {
    for name in ["src", "include", "build"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let c = "#include \"../include/deep.h\"\n#include <b.h>\n#include <string.h>\nstatic int unused;\nunsigned long a(const char *s) { return strlen(s) * B; }\n";
    write("src/a.c", c);
    write("src/asserts.c", "#include <assert.h>\n#include <b.h>\nint a(int b) { assert(b); return B; }\n");
    write("src/measures.c", "int a(void) { return sizeof __FILE__; }\n");
    write("src/a.cpp", "#include <b.h>\n#include <vector>\nint a() { return (int) std::vector<int>(B).size(); }\n");
    write("include/b.h", "#define B 2\n");
    write("include/deep.h", "#include \"b.h\"\n");
}

/// How long a client may not know what hints an agent has got.
const OVERLOOKED_FOR: Duration = Duration::from_millis(700);

struct Office {
    farm: Farm,
    colleague: Client,
}

impl Office {
    fn open() -> Self {
        let farm = Farm::up(Options { n_agents: 1, ..Options::default() });
        let colleague = farm.second_client("colleague");
        Self { farm, colleague }
    }

    fn checkout(&self, n: usize) -> PathBuf {
        let folder = self.farm.path(CHECKOUTS[n]);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        sources(&folder);
        folder
    }

    /// Hints that the agent keeps, by the heads of its store's packs: 64 bytes each, of which the first says that it lives and the second what it is.
    fn n_hints(&self) -> usize {
        let files =
            fs::read_dir(self.farm.path("desk0/store/packs")).into_iter().flatten().map(|file| file.unwrap().path());
        let heads = files.filter(|path| path.extension().is_some_and(|suffix| suffix == "heads"));
        let is_hint = |head: &&[u8]| head[0] == b'+' && head[1] == 3;
        heads.map(|path| fs::read(path).unwrap_or_default().chunks_exact(64).filter(is_hint).count()).sum()
    }

    /// Until there are more, and others know.
    fn wait_for_a_hint(&self, n_before: usize) {
        self.farm.wait("a hint", || self.n_hints() > n_before);
        thread::sleep(OVERLOOKED_FOR);
    }

    /// `line` in the first checkout by the first user, and in the second by `second`, where it must do what it does plainly. Returns where
    /// the second one's compile ran, and what is said of the first one's folder.
    fn compile_twice(&self, line: &str, second: &Client, expect_hint: bool) -> (Value, Value) {
        let n_before = self.n_hints();
        let run = |client: &Client, folder: &Path| -> Seen {
            let mut bash = client.command("bash");
            bash.args(["-c", line]).env("CC", "buildbee gcc").env("CXX", "buildbee g++").env("CLANG", "buildbee clang");
            if line.contains("$MAP") {
                bash.env("BUILDBEE_BASE_DIR", folder);
            }
            see(bash.current_dir(folder), folder)
        };
        let first = run(&self.farm.laptop, &self.checkout(0));
        assert_eq!(first.code, Some(0), "{line}: {}", first.stderr);
        let explained = self.farm.json(&["explain"])["actions"][0].clone();
        assert_eq!(explained["where"], "remote", "{line}: {explained}");
        if expect_hint {
            assert_eq!(explained["directory"], Value::Null, "{line}");
            self.wait_for_a_hint(n_before);
        }
        let mut bash = plain("bash");
        bash.args(["-c", line]).env("CC", "gcc").env("CXX", "g++").env("CLANG", "clang");
        let folder = self.checkout(1);
        bash.env("MAP", format!("-ffile-prefix-map={}=.", folder.display()));
        let expected = see(bash.current_dir(&folder), &folder);
        let seen = run(second, &self.checkout(1));
        assert_eq!(
            (seen.code, &seen.stdout, &seen.stderr),
            (expected.code, &expected.stdout, &expected.stderr),
            "{line}"
        );
        let differing: Vec<_> =
            expected.files.iter().filter(|(name, file)| seen.files.get(*name) != Some(file)).collect();
        let names: Vec<_> = differing.iter().map(|(name, _)| name).collect();
        assert!(differing.is_empty() && seen.files.len() == expected.files.len(), "{line}: other bytes in {names:?}");
        (second.json(&["explain"])["actions"][0]["where"].clone(), explained["directory"].clone())
    }
}

#[test]
fn results_are_shared_between_checkouts_where_the_bytes_allow_it() {
    let office = Office::open();
    let lines = [
        "$CC -O2 -Iinclude -c src/a.c -o build/a.o",
        "$CC -Wall -Iinclude -c src/a.c -o build/a.o",
        "$CC -MMD -Iinclude -c src/a.c",
        "cd build && $CC -I../include -MD -c ../src/a.c -o a.o",
        "$CC -O2 -Iinclude -c src/asserts.c -o build/a.o",
        "$CC -I\"$PWD/include\" -MD -MT build/a.o -MF build/a.o.d -o build/a.o -c \"$PWD/src/a.c\"",
        "$CC -Wall -I\"$PWD/include\" -MD -MP -o \"$PWD/build/a.o\" -c \"$PWD/src/a.c\"",
        "$CXX -O2 -I\"$PWD/include\" -MD -o build/a.o -c \"$PWD/src/a.cpp\"",
        "$CC -DNDEBUG -O1 -Iinclude -c src/asserts.c -o \"$PWD/build/a.o\"",
        "mkdir -p \"$PWD.out\"; $CC -O2 -Iinclude -MD -c src/a.c -o \"$PWD.out/a.o\" && cp \"$PWD.out\"/* build/",
        "mkdir -p \"$PWD.out\"; $CXX -Wall -Iinclude -MD -MF build/a.d -c src/a.cpp -o \"$PWD.out/b.o\" && cp \"$PWD.out/b.o\" build/",
        "$CC -g -ffile-prefix-map=\"$PWD\"=. -Iinclude -MD -c src/a.c -o build/a.o",
        "$CC -g -ffile-prefix-map=\"$PWD\"=. -I\"$PWD/include\" -c \"$PWD/src/asserts.c\" -o build/a.o",
        "$CC -g -ffile-prefix-map=\"$PWD\"=. -c \"$PWD/src/measures.c\" -o build/a.o",
        "$CC $MAP -g -O2 -Iinclude -MD -c src/asserts.c -o build/a.o",
        "cd build && $CXX $MAP -g -I\"$PWD/../include\" -c ../src/a.cpp -o a.o",
        "$CLANG $MAP -g -Iinclude -c \"$PWD/src/asserts.c\" -o build/a.o",
        "$CLANG -Wall -I\"$PWD/include\" -MD -o \"$PWD/build/a.o\" -c \"$PWD/src/a.c\"",
        "$CLANG -g -ffile-prefix-map=\"$PWD\"=. -Iinclude -MD -MP -c src/a.c -o build/a.o",
    ];
    for line in lines {
        let found = office.compile_twice(line, &office.colleague, true);
        assert_eq!(found, ("cached".into(), Value::Null), "{line}\n{}", office.farm.logs());
    }
    let line = "$CC -O3 -I\"$PWD/include\" -MD -c src/a.c -o build/a.o";
    let found = office.compile_twice(line, &office.farm.laptop, true);
    assert_eq!(found, ("cached".into(), Value::Null), "one user's two checkouts");
}

#[test]
fn results_that_hold_their_folder_stay_in_it_and_it_is_said_why() {
    let office = Office::open();
    let lines = [
        ("$CC -g -Iinclude -c src/a.c -o build/a.o", "debug information"),
        ("$CC -I\"$PWD/include\" -c \"$PWD/src/asserts.c\" -o build/a.o", "the object holds"),
        ("$CC -O2 -I\"$PWD/include\" -c \"$PWD/src/measures.c\" -o build/a.o", "__FILE__"),
        ("$CC -DHERE=\\\"\"$PWD\"\\\" -Iinclude -c src/a.c -o build/a.o", "-DHERE"),
        ("$CC -g -gz -ffile-prefix-map=\"$PWD\"=. -Iinclude -c src/a.c -o build/a.o", "-gz"),
        ("$CC -g -fdebug-prefix-map=\"$PWD\"=. -c \"$PWD/src/measures.c\" -o build/a.o", "__FILE__"),
        (
            "mkdir -p \"$PWD.out\"; $CC --coverage -Iinclude -c src/a.c -o \"$PWD.out/a.o\"; touch build/a.o",
            "other files",
        ),
        ("$CC -O1 -ffile-prefix-map=/=. -Iinclude -c src/a.c -o build/a.o", "-ffile-prefix-map=/"),
        ("echo \"#include \\\"$PWD/include/b.h\\\"\" >x.c; $CC -c x.c -o build/a.o", "leads out"),
    ];
    for (line, reason) in lines {
        let (place, said) = office.compile_twice(line, &office.colleague, false);
        assert_eq!(place, "remote", "{line}");
        assert!(said.as_str().is_some_and(|said| said.contains(reason)), "{line}: {said}");
    }
}

#[test]
fn other_content_under_the_same_names_is_compiled() {
    let office = Office::open();
    let line = "$CC -O2 -Iinclude -c src/a.c -o build/a.o";
    office.compile_twice(line, &office.colleague, true);
    // The hint of the first is of no use to the second.
    let folder = office.checkout(1);
    fs::write(folder.join("include/b.h"), "#define B 3\n").unwrap();
    let mut bash = office.colleague.command("bash");
    bash.args(["-c", line]).env("CC", "buildbee gcc");
    let seen = see(bash.current_dir(&folder), &folder);
    let mut bash = plain("bash");
    bash.args(["-c", line]).env("CC", "gcc");
    let expected = see(bash.current_dir(&folder), &folder);
    assert_eq!(seen, expected);
    assert_eq!(office.colleague.json(&["explain"])["actions"][0]["where"], "remote");
}

/// One user's side of a package with C in a cargo home, and what a build script runs there, as `cc` does. The object.
fn script(
    client: &Client,
    home: &Path,
    target: &Path,
    (compiler, source): (&str, &str),
    socket: Option<&str>,
) -> PathBuf {
    let package = home.join("registry/src/index-0/y-1.0");
    let out = target.join("debug/build/y-0123/out");
    for folder in [&package.join("c"), &out] {
        fs::create_dir_all(folder).unwrap();
    }
    let write = |path: PathBuf, text: &str| fs::write(path, text).unwrap();
    write(package.join("c/y.h"), "#define Y 1\n");
    let c = "#include <assert.h>\n#include <y.h>\n#include <made.h>\nint y(int a) { assert(a); return Y + made(); }\n";
    write(package.join("c/y.c"), c);
    write(package.join("c/y.S"), "#include <y.h>\n\t.text\ny:\tnop\n");
    write(out.join("made.h"), "static inline int made(void) { return 2; }\n");
    let object = out.join("y.o");
    let mut command = client.command("buildbee");
    command.args([compiler, "-O0", "-fPIC", "-g", "-Wall", "-I"]).arg(package.join("c")).arg("-I").arg(&out);
    command.arg("-o").arg(&object).args(["-c", source]).current_dir(&package);
    command.env("CARGO_HOME", home).env("CARGO_MANIFEST_DIR", &package).env("OUT_DIR", &out);
    command.envs([("HOST", "x"), ("TARGET", "x")]).envs(socket.map(|socket| ("BUILDBEE_SOCKET", socket)));
    let ran = command.output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    object
}

#[test]
fn c_of_a_cargo_home_is_a_colleagues_too() {
    let office = Office::open();
    for how in [("gcc", "c/y.c"), ("gcc", "c/y.S"), ("clang", "c/y.c")] {
        let (home, target) = (office.farm.path("ann/home"), office.farm.path("ann/app/target"));
        let n_before = office.n_hints();
        let first = script(&office.farm.laptop, &home, &target, how, None);
        let made = office.farm.json(&["explain"])["actions"][0].clone();
        assert_eq!((&made["where"], &made["directory"]), (&"remote".into(), &Value::Null), "{made}");
        office.wait_for_a_hint(n_before);
        let content = fs::read(&first).unwrap();
        let names = String::from_utf8_lossy(&content).into_owned();
        assert!(names.contains("/buildbee/cargo/registry/src/index-0/y-1.0"), "{how:?}");
        assert!(!names.contains(&office.farm.path("").display().to_string()), "{how:?}");
        // The target folder in the home, and a space in both; then without a daemon.
        let home = office.farm.path("bob the second/cargo");
        for socket in [None, Some("/dev/null/none")] {
            let second = script(&office.colleague, &home, &home.join("target"), how, socket);
            assert!(content == fs::read(&second).unwrap(), "{how:?} {socket:?}");
        }
        let found = office.colleague.json(&["explain"])["actions"][0].clone();
        assert_eq!(found["where"], "cached", "{found}");
    }
}
