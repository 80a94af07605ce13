//! What other caches and farms get wrong: inputs that no list names, outputs that no option names, folders in debug information,
//! terminals, and compilers that are not what they are called. One farm a topic; each trap has a folder of its own.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use buildbee_tests::client::plain;
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::seen::Seen;

use crate::side_by_side::{CACHED, REMOTE, same_again, same_and_counted};

/// A folder with these files.
fn project(farm: &Farm, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = farm.path(name);
    for (file, text) in files {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// Right when compiled, right from the cache, and never run here.
fn remote_then_cached(farm: &Farm, folder: &Path, line: &str) -> Seen {
    same_and_counted(farm, folder, line, REMOTE);
    same_and_counted(farm, folder, line, CACHED)
}

/// Right wherever it runs, twice.
fn right_anywhere(farm: &Farm, folder: &Path, line: &str) -> Seen {
    same_again(farm, folder, line);
    same_again(farm, folder, line)
}

fn change(path: &Path, second: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[test]
fn inputs_that_no_include_names() {
    let farm = Farm::up(Options::default());

    let folder = project(&farm, "times", &[("x.c", "#include \"x.h\"\nint x = X;\n"), ("x.h", "#define X 1\n")]);
    let line = "$CC -g -MD -c x.c";
    same_and_counted(&farm, &folder, line, REMOTE);
    for second in [1_500_000_000, 2_000_000_000] {
        change(&folder.join("x.h"), second);
        change(&folder.join("x.c"), second);
        same_and_counted(&farm, &folder, line, CACHED);
    }

    words_for_the_time(&farm);

    let probing = "#define NAME \"maybe.h\"\n#define FOLDER <sub/maybe.h>\n#if __has_include(NAME)\nint one;\n#endif\n\
                   #if __has_include(FOLDER)\nint two;\n#endif\nint x;\n";
    let folder = project(&farm, "probes", &[("x.c", probing), ("inc/other.h", "")]);
    for compiler in ["$CC", "$CLANG"] {
        let line = format!("{compiler} -Iinc -c x.c && nm x.o");
        assert_eq!(right_anywhere(&farm, &folder, &line).stdout.lines().count(), 1);
        fs::write(folder.join("maybe.h"), "").unwrap();
        assert_eq!(right_anywhere(&farm, &folder, &line).stdout.lines().count(), 2);
        fs::create_dir_all(folder.join("inc/sub")).unwrap();
        fs::write(folder.join("inc/sub/maybe.h"), "").unwrap();
        assert_eq!(right_anywhere(&farm, &folder, &line).stdout.lines().count(), 3);
        fs::remove_file(folder.join("maybe.h")).unwrap();
        fs::remove_dir_all(folder.join("inc/sub")).unwrap();
        assert_eq!(right_anywhere(&farm, &folder, &line).stdout.lines().count(), 1);
    }

    let including = "#include \"x.h\"\nint y = X;\n";
    let folder =
        project(&farm, "precompiled", &[("x.c", including), ("x.h", "#define X 1\n"), ("old.h", "#define X 2\n")]);
    for (compiler, make, appears) in [
        ("$CC", "gcc -g -x c-header old.h -o x.h.gch", "x.h.gch"),
        ("$CC", "mkdir x.h.gch && gcc -g -x c-header old.h -o x.h.gch/any", "x.h.gch"),
        ("$CLANG -include x.h", "clang -g -x c-header old.h -o x.h.pch", "x.h.pch"),
        ("$CLANG -include x.h", "clang -g -x c-header old.h -o x.h.gch", "x.h.gch"),
    ] {
        let line = format!("{compiler} -g -MD -c x.c");
        right_anywhere(&farm, &folder, &line);
        assert!(plain("sh").args(["-c", make]).current_dir(&folder).status().unwrap().success());
        let with = right_anywhere(&farm, &folder, &line);
        let appeared = folder.join(appears);
        let _ = fs::remove_dir_all(&appeared).or_else(|_| fs::remove_file(&appeared));
        let without = same_again(&farm, &folder, &line);
        // What is precompiled is of another content, so that its use shows. (clang refuses it: the header is newer.)
        assert!(
            !compiler.contains("CC") || with.files.get("x.o") != without.files.get("x.o"),
            "{make} changed nothing"
        );
    }
}

/// Bazel says what they are on every command line. Nothing brings the first meaning back: else the second run would differ from the first.
fn words_for_the_time(farm: &Farm) {
    let asking = "#pragma push_macro(\"__TIME__\")\n#include \"undone.h\"\n#pragma pop_macro(\"__TIME__\")\n\
                  const char *x[] = {__DATE__, __TIME__, __TIMESTAMP__};\n";
    let undone = "#undef __TIME__\nenum { __TIME__ = 2 };\nint two = __TIME__;\n";
    let folder = project(farm, "clock", &[("x.c", asking), ("undone.h", undone)]);
    for compiler in ["$CC", "$CLANG"] {
        let redefined = "-D__DATE__='\"redacted\"' -D __TIME__='\"never\"' -D__TIMESTAMP__=__DATE__";
        remote_then_cached(farm, &folder, &format!("{compiler} -Wno-builtin-macro-redefined {redefined} -c x.c"));
    }
}

/// Sources, and folders for what comes of them.
const LAID_OUT: [(&str, &str); 5] = [
    ("src/a.c", "#include \"a.h\"\n#include <c.h>\nint a(int x) { return x * A + C; }\nconst char *name = __FILE__;\n"),
    ("src/a.h", "#define A 2\n"),
    ("inc/c.h", "#define C 3\n"),
    ("out/.keep", ""),
    (".deps/.keep", ""),
];

/// Ways to ask for a dependency file; the first [`N_COUNTED`] are known to go to agents.
const DEPENDENCIES: [&str; 13] = [
    "-MD",
    "-MMD -MP",
    "-MD -MF out/a.dep",
    "-MD -MT 'x y'",
    "-MD -MQ '$(x) y'",
    "-MD -MT one -MT two -MF out/a.dep",
    "-MMD -MP -MF .deps/a.dep -MT a.lo",
    "-MD -MT out/a.o -MQ 'a b' -MFout/a.dep",
    "-Wp,-MD,out/a.dep",
    "-Wp,-MMD,out/a.dep -Wp,-MP",
    "-Wp,-MD,out/a.dep,-MT,x",
    "-MD -MG",
    "-MMD -MV",
];
const N_COUNTED: usize = 8;

/// Ways to have folders in the object.
const MAPS: [&str; 6] = [
    "-g",
    "-g -fdebug-prefix-map=$PWD=.",
    "-g -ffile-prefix-map=$PWD=/elsewhere",
    "-g -fmacro-prefix-map=$PWD/=",
    "-gdwarf-4 -fdebug-prefix-map=$PWD/src=s -fdebug-prefix-map=$PWD=p",
    "-O2 -ffile-prefix-map=$PWD/=",
];

#[test]
fn outputs_are_where_and_what_they_are_without_a_farm() {
    let farm = Farm::up(Options::default());
    dependency_files(&farm);
    folders_in_objects(&farm);
    files_beside_objects(&farm);
}

fn dependency_files(farm: &Farm) {
    let folder = project(farm, "dependencies", &LAID_OUT);
    for compiler in ["$CC", "$CLANG"] {
        for form in DEPENDENCIES {
            right_anywhere(farm, &folder, &format!("{compiler} -Iinc {form} -c src/a.c"));
            right_anywhere(farm, &folder, &format!("{compiler} -Iinc {form} -c src/a.c -o ./out/../out//c.x.o"));
        }
        for form in &DEPENDENCIES[..N_COUNTED] {
            let line = format!("{compiler} -DCOUNTED -I inc {form} -c src/a.c -o out/d.o");
            remote_then_cached(farm, &folder, &line);
        }
    }
}

fn folders_in_objects(farm: &Farm) {
    for place in ["one/deep", "two"] {
        let folder = project(farm, place, &LAID_OUT);
        symlink(".", folder.join("link")).unwrap();
        for compiler in ["$CC", "$CLANG"] {
            for map in MAPS {
                let line = format!("{compiler} {map} -Iinc -c src/a.c -o out/a.o");
                same_again(farm, &folder, &line);
                same_and_counted(farm, &folder, &line, CACHED);
            }
            for spelled in ["$PWD/src/a.c", "link/src/../src/./a.c"] {
                remote_then_cached(farm, &folder, &format!("{compiler} -g -Iinc -c {spelled} -o out/a.o"));
            }
            // The shell's own idea of where it is ends in the debug information.
            let line = format!("cd link/src && {compiler} -g -I../inc -c a.c -o ../out/a.o");
            right_anywhere(farm, &folder, &line);
        }
    }
}

fn files_beside_objects(farm: &Farm) {
    let folder = project(farm, "beside", &LAID_OUT);
    for line in [
        "$CC -g -gsplit-dwarf -Iinc -c src/a.c",
        "$CC -g -gsplit-dwarf -Iinc -c src/a.c -o out/a.o",
        "$CLANG -g -gsplit-dwarf -Iinc -c src/a.c -o out/a.o",
        "$CLANG -g -gsplit-dwarf=single -Iinc -c src/a.c",
        "$CC -g -O2 -Wa,-ahl=out/a.lst -Iinc -c src/a.c -o out/a.o",
        "$CC -g -Wa,-ahln=a.lst,--listing-lhs-width=2 -Iinc -c src/a.c",
        "$CC -Wa,-ahl -Iinc -c src/a.c",
        "$CC --coverage -frandom-seed=7 -Iinc -c src/a.c -o out/a.o",
        "$CLANG --coverage -Iinc -c src/a.c -o out/a.o",
        "$CC -march=native -O2 -g -Iinc -c src/a.c",
        "$CLANG -mtune=native -O2 -g -Iinc -c src/a.c",
    ] {
        right_anywhere(farm, &folder, line);
    }
}

#[test]
fn a_terminal_shows_what_it_shows_without_a_farm() {
    let farm = Farm::up(Options::default());
    let source = "#include <stdio.h>\nint f(int x) { int never; printf(\"%s\\n\", x); if (x = 2) return 1; }\n\
                  int tab(void) {\tint caf\u{e9}; return missing_semicolon_is_not_missing; }\n";
    let folder =
        project(&farm, "terminal", &[("w.c", source), ("e.c", "int x = y;\nint z = (1 + ;\n"), ("q.c", "int q;\n")]);
    for compiler in ["$CC", "$CLANG"] {
        for settings in [
            "TERM=xterm",
            "TERM=xterm-256color",
            "TERM=dumb",
            "TERM=xterm COLUMNS=40",
            "TERM=xterm GCC_COLORS='error=01;35:locus=04'",
            "TERM=xterm LC_ALL=C",
            "TERM=xterm LANG=en_US.UTF-8 LC_ALL=",
            "TERM=linux NO_COLOR=1",
        ] {
            for flags in [
                "-Wall -Wextra -w -c q.c",
                "-Wall -Wextra -c e.c",
                "-Wall -Wextra -Dmissing_semicolon_is_not_missing=1 -c w.c",
            ] {
                let line = format!("{settings} script -qefc \"{compiler} {flags}\" /dev/null </dev/null; ls");
                right_anywhere(&farm, &folder, &line);
            }
        }
        // Narrow, and half of it elsewhere.
        let line = format!(
            "script -qefc \"stty cols 30; {compiler} -Wall -c w.c; {compiler} -Wall -c w.c 2>err; cat err\" /dev/null"
        );
        right_anywhere(&farm, &folder, &line);
    }
}

/// A gcc of the tests' own below `to`, which finds its parts by where it stands.
fn relocated_gcc(to: &Path) -> PathBuf {
    let ask =
        |word: &str| String::from_utf8(plain("gcc").arg(word).output().unwrap().stdout).unwrap().trim().to_owned();
    let cc1 = PathBuf::from(ask("-print-prog-name=cc1")).canonicalize().unwrap();
    let parts = cc1.parent().unwrap();
    let own = to.join("lib/gcc").join(parts.strip_prefix("/usr/lib/gcc").unwrap());
    fs::create_dir_all(to.join("bin")).unwrap();
    fs::create_dir_all(&own).unwrap();
    fs::copy(fs::canonicalize("/usr/bin/gcc").unwrap(), to.join("bin/gcc")).unwrap();
    fs::copy(&cc1, own.join("cc1")).unwrap();
    let mut copy = Command::new("cp");
    assert!(copy.arg("-a").arg(parts.join("include")).arg(&own).status().unwrap().success());
    own.join("cc1")
}

/// Makes a compiler put another version into its objects. Size, mode and time stay.
fn patch_version(program: &Path) {
    let mut bytes = fs::read(program).unwrap();
    let time = fs::metadata(program).unwrap().modified().unwrap();
    let (from, to): (&[u8], &[u8]) = (b"12.2.0", b"12.2.9");
    let places: Vec<_> = (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    // A file of its own, as an upgrade would make it: the old one may be running.
    let new = program.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    File::options().write(true).open(&new).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    fs::rename(new, program).unwrap();
}

#[test]
fn a_compiler_is_what_it_is_and_not_what_it_is_called() {
    let farm = Farm::up(Options::default());
    let folder = project(&farm, "names", &[("x.c", "int f(int x) { return x / 3; }\n")]);
    let names = farm.path("impostors");
    fs::create_dir(&names).unwrap();
    symlink("/usr/bin/clang", names.join("gcc")).unwrap();
    let line = "$CC -g -c x.c";
    let impostor = format!("PATH={}:$PATH; {line}", names.display());
    let first = remote_then_cached(&farm, &folder, line);
    let other = remote_then_cached(&farm, &folder, &impostor);
    assert_ne!(first.files["x.o"], other.files["x.o"], "the impostor was not asked");
    same_and_counted(&farm, &folder, line, CACHED);
    same_and_counted(&farm, &folder, &impostor, CACHED);
    // A script is whatever it says.
    fs::remove_file(names.join("gcc")).unwrap();
    fs::write(names.join("gcc"), "#!/bin/sh\nexec clang -DX \"$@\"\n").unwrap();
    fs::set_permissions(names.join("gcc"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(right_anywhere(&farm, &folder, &impostor).files["x.o"], other.files["x.o"]);
    fs::write(names.join("gcc"), "#!/bin/sh\nexec /usr/bin/gcc -O2 \"$@\"\n").unwrap();
    assert_ne!(right_anywhere(&farm, &folder, &impostor).files["x.o"], first.files["x.o"]);

    let cc1 = relocated_gcc(&farm.path("relocated"));
    let own = format!("PATH={}:$PATH; {line}", farm.path("relocated/bin").display());
    let before = remote_then_cached(&farm, &folder, &own);
    let original = fs::read(&cc1).unwrap();
    patch_version(&cc1);
    let after = remote_then_cached(&farm, &folder, &own);
    assert_ne!(before.files["x.o"], after.files["x.o"], "the patch does not show");
    // In place, which leaves the inode as it is too, and back to what it was.
    fs::write(&cc1, original).unwrap();
    same_and_counted(&farm, &folder, &own, CACHED);
}
