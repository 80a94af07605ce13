//! gcc's precompiled headers: made once and kept, used by agents and from the cache.

use std::fs;

use buildbee_tests::farm::{Farm, Options};

use crate::side_by_side::{CACHED, REMOTE, same_and_counted};

const HEADER: &str = "#include <stdio.h>\n#define X 1\n";

#[test]
fn a_precompiled_header_is_an_input_like_any_other() {
    let farm = Farm::up(Options::default());
    let folder = farm.path("precompiled");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("x.h"), HEADER).unwrap();
    fs::write(folder.join("x.c"), "#include \"x.h\"\nint y = X;\n").unwrap();
    let make = || {
        farm.laptop.zero();
        let line = "buildbee gcc -g -MD -x c-header x.h -o x.h.gch";
        farm.must_run(farm.client("sh").args(["-c", line]).current_dir(&folder));
        (fs::read(folder.join("x.h.gch")).unwrap(), fs::read(folder.join("x.h.d")).unwrap(), farm.counts())
    };
    let (first, dependencies, counts) = make();
    assert_eq!(counts, (0, 0, 1), "too large to send: {}", farm.json(&["explain"]));
    fs::remove_file(folder.join("x.h.gch")).unwrap();
    let again = make();
    assert!(again.0 == first, "no two runs make the same");
    assert_eq!((again.1, again.2), (dependencies, CACHED));

    // Fits, and is taken; the header behind it is another one later, which gcc doesn't look at.
    for line in ["$CC -g -MD -Winvalid-pch -c x.c", "$CC -g -MD -Winvalid-pch -include x.h -c x.c"] {
        same_and_counted(&farm, &folder, line, REMOTE);
        same_and_counted(&farm, &folder, line, CACHED);
    }
    fs::write(folder.join("x.h"), HEADER.replace('1', "2")).unwrap();
    let line = "$CC -g -MD -Winvalid-pch -c x.c && objdump -s -j .data x.o | tail -1";
    let with = same_and_counted(&farm, &folder, line, REMOTE);
    fs::remove_file(folder.join("x.h.gch")).unwrap();
    let without = same_and_counted(&farm, &folder, line, REMOTE);
    assert_ne!(with.stdout, without.stdout, "the precompiled header was not used");

    // Made with other options: not taken, with a warning.
    farm.must_run(farm.client("sh").args(["-c", "gcc -O2 -g -x c-header x.h -o x.h.gch"]).current_dir(&folder));
    let line = "$CC -g -MD -Winvalid-pch -c x.c";
    let refused = same_and_counted(&farm, &folder, line, REMOTE);
    assert!(refused.stderr.contains("x.h.gch"), "{}", refused.stderr);
    same_and_counted(&farm, &folder, line, CACHED);
}
