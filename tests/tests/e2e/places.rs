//! Projects in odd places, and outputs in odd ones: the same files with the same modes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::network::skipped;
use buildbee_tests::seen::see;
use nix::unistd::geteuid;

use crate::side_by_side::same;

fn sources(folder: &Path) {
    for name in ["src/sub", "include", "out"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write(
        "src/sub/a.c",
        "#include \"../b.h\"\n#include <c.h>\n#include <string.h>\nunsigned long a(const char *s) { return strlen(s) * B * C; }\n",
    );
    write("src/b.h", "#define B 2\n");
    write("include/c.h", "#define C 3\n");
}

/// What stands there before the compile.
type SetUp<'a> = &'a dyn Fn(&Path);

const LINES: [&str; 8] = [
    "$CC -g -MD -Iinclude -c src/sub/a.c -o out/a.o",
    "cd out && $CC -g -MD -I../include -c ../src/sub/a.c",
    "cd src/sub && $CC -g -MD -I../../include -c ../../src/./sub//a.c -o ../../out/a.o",
    "$CC -g -MMD -I\"$PWD/include\" -c \"$PWD/src/sub/a.c\" -o \"$PWD/out/a.o\"",
    "umask 077; $CC -MD -Iinclude -c src/sub/a.c -o out/a.o",
    "umask 002; $CC -MD -Iinclude -c src/sub/a.c -o out/a.o",
    "umask 0; $CC -MD -Iinclude -c src/sub/a.c -o out/a.o; umask 0137; $CC -MD -Iinclude -c src/sub/a.c -o out/b.o",
    "$CC -g -Iinclude -c src/sub/a.c -o out/a.o; cp -p out/a.o old; $CC -g -O2 -Iinclude -c src/sub/a.c -o out/a.o",
];

#[test]
fn projects_may_be_anywhere() {
    let farm = Farm::up(Options { n_agents: 1, ..Options::default() });
    fs::create_dir(farm.path("real")).unwrap();
    symlink("real", farm.path("link")).unwrap();
    let places = [
        "plain",
        "a folder with spaces/and 'quotes' & more",
        "link/below",
        "real/deep/er/than/before",
        "\u{fc}ml\u{e4}ut",
    ];
    for place in places {
        farm.laptop.zero();
        for line in LINES {
            let seen = same(&farm, &farm.path(place), line, sources);
            assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""), "{place}: {line}");
        }
        let (cached, remote, local) = farm.counts();
        assert!(cached + remote > 0 && local == 0, "{place}: {}\n{}", farm.json(&["explain"]), farm.logs());
    }
}

#[test]
fn outputs_that_are_there_already_are_treated_as_the_compiler_treats_them() {
    let farm = Farm::up(Options { n_agents: 1, ..Options::default() });
    let folder = farm.path("project");
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let line = "$CC -g -MD -Iinclude -c src/sub/a.c -o out/a.o";
    let cases: [(&str, SetUp<'_>); 9] = [
        ("read-only object", &|folder| {
            fs::write(folder.join("out/a.o"), "old").unwrap();
            mode(&folder.join("out/a.o"), 0o444);
        }),
        ("private object", &|folder| {
            fs::write(folder.join("out/a.o"), "old").unwrap();
            mode(&folder.join("out/a.o"), 0o600);
        }),
        ("empty private object", &|folder| {
            fs::write(folder.join("out/a.o"), "").unwrap();
            mode(&folder.join("out/a.o"), 0o600);
        }),
        ("private dependency file", &|folder| {
            fs::write(folder.join("out/a.d"), "old").unwrap();
            mode(&folder.join("out/a.d"), 0o600);
        }),
        ("read-only dependency file", &|folder| {
            fs::write(folder.join("out/a.d"), "old").unwrap();
            mode(&folder.join("out/a.d"), 0o444);
        }),
        ("hard link", &|folder| {
            fs::write(folder.join("other"), "old").unwrap();
            fs::hard_link(folder.join("other"), folder.join("out/a.o")).unwrap();
        }),
        ("symlink", &|folder| {
            fs::write(folder.join("other"), "old").unwrap();
            symlink("../other", folder.join("out/a.o")).unwrap();
        }),
        ("dangling symlink", &|folder| symlink("../other", folder.join("out/a.d")).unwrap()),
        ("folder", &|folder| fs::create_dir(folder.join("out/a.o")).unwrap()),
    ];
    for (name, more) in cases {
        same(&farm, &folder, line, |folder| {
            sources(folder);
            more(folder);
        });
        same(&farm, &folder, &format!("{line}; echo {name}"), |folder| {
            sources(folder);
            more(folder);
        });
    }
    if geteuid().is_root() {
        return skipped("root may write to read-only folders");
    }
    same(&farm, &folder, &format!("chmod 555 out; {line}; chmod 755 out"), sources);
    same(&farm, &folder, &format!("chmod 000 src/b.h; {line}; chmod 644 src/b.h"), sources);
}

#[test]
fn a_link_named_gcc_stands_in_for_it() {
    let farm = Farm::up(Options { n_agents: 1, ..Options::default() });
    let (links, folder) = (farm.path("links"), farm.path("project"));
    fs::create_dir(&links).unwrap();
    symlink(farm.laptop.programs.join("buildbee"), links.join("gcc")).unwrap();
    let line = "$CC -g -MD -Iinclude -c src/sub/a.c -o out/a.o";
    let expected = same(&farm, &folder, line, sources);
    farm.laptop.zero();
    for name in ["out/a.o", "out/a.d"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let mut bash = farm.client("bash");
    bash.args(["-c", &format!("PATH='{}':$PATH; CC=gcc; {line}", links.display())]).current_dir(&folder);
    assert_eq!(see(&mut bash, &folder), expected);
    let (cached, remote, local) = farm.counts();
    assert_eq!((cached + remote, local), (1, 0), "{}\n{}", farm.json(&["explain"]), farm.logs());
}
