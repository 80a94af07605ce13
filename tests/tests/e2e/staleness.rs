//! Files that change between two builds in every way that a cache might miss: never an old object.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::symlink;
use std::path::Path;

use buildbee_tests::client::plain;
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::project::{assert_same, make, outputs, write_c};
use buildbee_tests::seen::see;

use crate::builds::{clean, plain_build};
use crate::side_by_side::same_again;

fn farm() -> Farm {
    Farm::up(Options { n_agents: 1, ..Options::default() })
}

/// The compile is right, and right again when the cache knows it.
fn twice(farm: &Farm, folder: &Path, line: &str) {
    same_again(farm, folder, line);
    farm.laptop.zero();
    let seen = same_again(farm, folder, line);
    if seen.code == Some(0) {
        let (cached, remote, local) = farm.counts();
        assert_eq!((remote, local), (0, 0), "{cached} cached: {line}\n{}", farm.json(&["explain"]));
    }
}

#[test]
fn only_what_depends_on_an_edited_header_is_compiled_again() {
    let farm = farm();
    let folder = farm.path("project");
    write_c(&folder, 8).unwrap();
    let build = || {
        clean(&folder);
        farm.laptop.zero();
        let built = make(farm.client("make"), &folder, 4, &["CC=buildbee gcc"]);
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        (outputs(&folder, &[".o", ".d"]), farm.counts())
    };
    build();
    for (header, text, n_compiled) in [
        ("own3.h", "#define OWN3 30\n", 1),
        ("include/deep/inner.h", "struct inner { int a; double b; long c; };\n", 8),
        ("include/shared.h", "#pragma once\n#include \"deep/inner.h\"\n#define SCALE 5\n", 8),
    ] {
        fs::write(folder.join(header), text).unwrap();
        let (expected, _) = plain_build(&folder, &["CC=gcc"]);
        let (found, counts) = build();
        assert_same(&expected, &found);
        assert_eq!(counts, (8 - n_compiled, n_compiled, 0), "{header}");
    }
}

#[test]
fn names_that_come_and_go_are_noticed() {
    let farm = farm();
    let folder = farm.path("project");
    for name in ["src/near", "first", "second"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("second/conf.h", "#define CONF 1\n");
    write(
        "src/a.c",
        "#include <conf.h>\n#include \"near.h\"\n#if __has_include(\"optional.h\")\n#define OPTIONAL 1\n#else\n#define OPTIONAL 0\n#endif\n\
         int values[] = {CONF, NEAR, OPTIONAL, sizeof(int)};\n",
    );
    write("second/near.h", "#define NEAR 1\n");
    let line = "$CC -g -Imissing -Ifirst -Isecond -MD -c src/a.c -o a.o";
    twice(&farm, &folder, line);
    // Appear earlier on the search path.
    write("first/conf.h", "#define CONF 2\n");
    twice(&farm, &folder, line);
    write("src/near.h", "#define NEAR 2\n");
    twice(&farm, &folder, line);
    write("second/optional.h", "");
    twice(&farm, &folder, line);
    fs::create_dir(folder.join("missing")).unwrap();
    write("missing/conf.h", "#define CONF 3\n");
    twice(&farm, &folder, line);
    write("missing/stdc-predef.h", "#define __STDC_IEC_559__ 7\n");
    twice(&farm, &folder, line);
    // Go again.
    fs::remove_dir_all(folder.join("missing")).unwrap();
    twice(&farm, &folder, line);
    fs::remove_file(folder.join("first/conf.h")).unwrap();
    twice(&farm, &folder, line);
    fs::remove_file(folder.join("second/conf.h")).unwrap();
    twice(&farm, &folder, line);
    write("second/conf.h", "#define CONF 1\n");
    twice(&farm, &folder, line);
    // A folder where a file was, and the other way round.
    fs::remove_file(folder.join("src/near.h")).unwrap();
    fs::create_dir(folder.join("src/near.h")).unwrap();
    same_again(&farm, &folder, line);
    // The environment leads elsewhere.
    fs::create_dir(folder.join("third")).unwrap();
    fs::remove_dir(folder.join("src/near.h")).unwrap();
    fs::remove_file(folder.join("second/conf.h")).unwrap();
    write("third/conf.h", "#define CONF 9\n");
    twice(&farm, &folder, &format!("export CPATH=third; {line}"));
    same_again(&farm, &folder, line);
}

#[test]
fn symlinks_that_lead_elsewhere_are_noticed() {
    let farm = farm();
    let folder = farm.path("project");
    for name in ["one", "two"] {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::write(
            folder.join(name).join("conf.h"),
            format!("#define CONF {}\n", name.len() + usize::from(name == "two")),
        )
        .unwrap();
    }
    fs::write(folder.join("a.c"), "#include \"conf.h\"\n#include \"current/conf.h\"\nint value = CONF;\n").unwrap();
    let lead = |name: &str, target: &str| {
        let _ = fs::remove_file(folder.join(name));
        symlink(target, folder.join(name)).unwrap();
    };
    lead("conf.h", "one/conf.h");
    lead("current", "one");
    let line = "$CC -g -c a.c -o a.o";
    twice(&farm, &folder, line);
    lead("conf.h", "two/conf.h");
    lead("current", "two");
    twice(&farm, &folder, line);
    lead("current", "one");
    same_again(&farm, &folder, line);
    lead("conf.h", "nowhere.h");
    same_again(&farm, &folder, line);
    lead("conf.h", "one/conf.h");
    twice(&farm, &folder, line);
}

#[test]
fn content_that_changes_behind_the_same_size_and_time_is_noticed() {
    let farm = farm();
    let folder = farm.path("project");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a.c"), "#include \"conf.h\"\nint value = CONF;\n").unwrap();
    let header = folder.join("conf.h");
    let write = |path: &Path, n: usize| {
        fs::write(path, format!("#define CONF 0x{n:08x}\n")).unwrap();
        let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
        File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
    };
    let compile = || {
        let seen = see(farm.client("buildbee").args(["gcc", "-c", "a.c", "-o", "a.o"]).current_dir(&folder), &folder);
        assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""));
        fs::read(folder.join("a.o")).unwrap()
    };
    for n in 0x1234_0000..0x1234_0020_usize {
        if n % 2 == 0 {
            write(&header, n);
        } else {
            // The same with another inode.
            write(&folder.join("new.h"), n);
            fs::rename(folder.join("new.h"), &header).unwrap();
        }
        let expected = u32::try_from(n).unwrap().to_le_bytes();
        for _ in 0..2 {
            assert!(compile().windows(4).any(|bytes| bytes == expected), "an old object for {n:x}\n{}", farm.logs());
        }
    }
}

#[test]
fn a_header_that_appears_while_an_agent_compiles_counts() {
    let farm = farm();
    let folder = farm.path("project");
    for name in ["first", "second"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    fs::write(folder.join("second/conf.h"), "#define CONF 1\n").unwrap();
    // Long enough to be caught at it.
    let functions: Vec<String> =
        (0..6_000).map(|n| format!("int f{n}(int a) {{ return a * CONF + {n}; }}\n")).collect();
    fs::write(folder.join("a.c"), format!("#include <conf.h>\n{}", functions.concat())).unwrap();
    fs::write(folder.join("first.c"), "int first;\n").unwrap();
    let words = "-O2 -Ifirst -Isecond -c a.c -o a.o".split(' ');
    farm.must_run(farm.client("buildbee").args(["gcc", "-c", "first.c"]).current_dir(&folder));
    let mut compile = farm.client("buildbee");
    let mut compile = compile.arg("gcc").args(words.clone()).current_dir(&folder).spawn().unwrap();
    farm.wait("the agent is at it", || {
        let status = farm.json(&["status"]);
        let mut running = status["running"].as_array().unwrap().iter();
        running.any(|action| action["where"].as_str().is_some_and(|place| place.starts_with("desk")))
    });
    fs::write(folder.join("first/conf.h"), "#define CONF 2\n").unwrap();
    assert!(compile.wait().unwrap().success());
    let found = fs::read(folder.join("a.o")).unwrap();
    assert!(plain("gcc").args(words).current_dir(&folder).status().unwrap().success());
    assert!(found == fs::read(folder.join("a.o")).unwrap(), "the object is that of the header before");
    assert_eq!(farm.json(&["stats"])["reasons"]["inputs-changed"], 1, "{}", farm.json(&["stats"]));
}
