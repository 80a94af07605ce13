//! Compiles that fail: the words and the exit status are the compiler's, and nothing is left behind.

use std::fs;
use std::path::Path;

use buildbee_tests::farm::{Farm, Options};

use crate::side_by_side::same;

#[test]
fn errors_are_the_compilers_own_and_confirmed_here() {
    let farm = Farm::up(Options { n_agents: 1, ..Options::default() });
    let folder = farm.path("project");
    let set_up = |folder: &Path| {
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("good.h", "static int unused(void) { return 1; }\n");
        write("good.c", "#include \"good.h\"\nint good(int x) { int never; return x; }\n");
        write("bad.c", "#include \"good.h\"\nint bad(int x) { int never; return y; }\nint worse(void { }\n");
        write("missing.c", "#include \"good.h\"\n#include \"missing.h\"\nint f(void) { return MISSING; }\n");
        write("said.c", "#error said \u{2018}so\u{2019}\n");
        write("bad.cpp", "#include <vector>\nint f() { std::vector<int> v; return v.nothing() + std::string(); }\n");
        write("old.o", "an object of old\n");
    };
    let failed_there = [
        "$CC -Wall -c bad.c",
        "$CC -Wall -MD -c bad.c -o old.o",
        "$CC -Wall -Werror -c good.c -o old.o",
        "$CC -fdiagnostics-color=always -Wall -c bad.c",
        "LC_ALL=C $CC -c bad.c",
        "$CXX -c bad.cpp -o bad.o",
        "LC_ALL=C.UTF-8 $CC -c bad.c",
        "$CC -fmax-errors=1 -c bad.c",
        "$CC -c bad.c; echo $?; $CC -c good.c; echo $?",
    ];
    for line in failed_there {
        farm.laptop.zero();
        let seen = same(&farm, &folder, line, set_up);
        assert!(seen.stderr.contains("error"), "{line}: {}", seen.stderr);
        assert!(!seen.files.contains_key("bad.o"), "{line}");
        let reasons = farm.json(&["stats"])["reasons"].clone();
        assert_eq!(reasons["compile-failed"], 1, "{line}: {reasons}\n{}", farm.logs());
        assert!(reasons["agent-disagreed"].is_null(), "{line}: {reasons}");
    }
    let failed_here = [
        "$CC -c missing.c",
        "$CC -MD -c missing.c -o old.o",
        "$CC -c said.c",
        "$CC -c gone.c",
        "$CC -c good.c -o no/such/folder/good.o",
        "$CC -c good.c -o .",
        "$CC --no-such-option -c good.c",
        "$CC -c",
        "$CC",
        "$CC -std=c1789 -c good.c",
    ];
    for line in failed_here {
        let seen = same(&farm, &folder, line, set_up);
        assert!(seen.code != Some(0) && !seen.stderr.is_empty(), "{line}: {seen:?}");
    }
    // A compiler that is not there, or no compiler at all.
    same(&farm, &folder, "PATH=/nonexistent; ${CC##* } -c good.c || /bin/true", set_up);
}
