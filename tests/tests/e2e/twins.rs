//! Headers of equal content in two folders: which of them a compiler takes for the same file depends on inodes and on times.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use buildbee_tests::farm::{Farm, Options};

use crate::side_by_side::{CACHED, REMOTE, same_again, same_and_counted};

/// Content that shows in the object how often it was read.
const HEADER: &str = "#pragma once\n#ifndef READ\n#define READ\n#else\n#define READ_AGAIN\n#endif\n";
const SOURCE: &str =
    "#include \"a/x.h\"\n#include \"b/x.h\"\n#ifdef READ_AGAIN\nint twice;\n#else\nint once;\n#endif\n";

fn change(path: &Path, milliseconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[test]
fn equal_headers_are_the_same_file_where_they_are_here() {
    let farm = Farm::up(Options::default());
    for (compiler, shares_by) in [("$CC", "time"), ("$CLANG", "inode")] {
        let folder = farm.path(shares_by);
        let (a, b) = (folder.join("a/x.h"), folder.join("b/x.h"));
        for header in [&a, &b] {
            fs::create_dir_all(header.parent().unwrap()).unwrap();
            fs::write(header, HEADER).unwrap();
            change(header, 1_700_000_000_000);
        }
        fs::write(folder.join("x.c"), SOURCE).unwrap();
        let line = format!("{compiler} -g -MD -c x.c && nm x.o | cut -c18-");
        let is = |expected, times| {
            let seen = same_and_counted(&farm, &folder, &line, expected);
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), times), "{compiler}: {}", seen.stderr);
            let seen = same_and_counted(&farm, &folder, &line, CACHED);
            assert_eq!(seen.stdout, times, "{compiler}");
        };
        let equal_times = if shares_by == "time" { "B once\n" } else { "B twice\n" };
        is(REMOTE, equal_times);
        // Both later, and by a part of a second: related as before.
        change(&a, 1_700_000_060_100);
        change(&b, 1_700_000_060_900);
        is(CACHED, equal_times);
        change(&b, 1_700_000_061_000);
        is(REMOTE, "B twice\n");
        fs::remove_file(&b).unwrap();
        fs::hard_link(&a, &b).unwrap();
        is(REMOTE, "B once\n");
        fs::remove_file(&b).unwrap();
        symlink("../a/x.h", &b).unwrap();
        is(REMOTE, "B once\n");
        // Back to two files that were changed long after one another.
        fs::remove_file(&b).unwrap();
        fs::write(&b, HEADER).unwrap();
        is(CACHED, "B twice\n");
        fs::remove_file(&b).unwrap();
        same_again(&farm, &folder, &line);
    }
}
