//! An output's folder outside of the working directory: with real compilers, what of its name gets into what they write, and that each option
//! which brings it there is an obstacle.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::RelPath;

use super::options;
use super::root::Project;
use crate::compiler::decide::decide;
use crate::compiler::request::{CompileRequest, CompilerFamily, Decision, DriverLanguage, Invocation};

const C: &str = "#include <assert.h>\n#include <stdio.h>\nstatic int twice(int a) { assert(a); return a + a; }\n\
                 int f(int a) { return printf(\"%s %d\", __FILE__, twice(a)); }\n";
const CXX: &str = "#include <string>\nnamespace { struct S { std::string s; S() : s(__FILE__) {} }; S one; }\n\
                   inline auto g() { return [] { static int n; return ++n; }; }\nint f() { return g()() + (int) one.s.size(); }\n";
const ASSEMBLER: &str = ".globl f\nf:\tnop\n";

const COMPILERS: [(&str, CompilerFamily, DriverLanguage, &str); 6] = [
    ("gcc", CompilerFamily::Gcc, DriverLanguage::C, "x.c"),
    ("g++", CompilerFamily::Gcc, DriverLanguage::Cxx, "x.cc"),
    ("gcc", CompilerFamily::Gcc, DriverLanguage::C, "x.S"),
    ("clang", CompilerFamily::Clang, DriverLanguage::C, "x.c"),
    ("clang++", CompilerFamily::Clang, DriverLanguage::Cxx, "x.cc"),
    ("clang", CompilerFamily::Clang, DriverLanguage::C, "x.S"),
];

/// Options that change what is written; some need an output of their own, and some write the output's name down.
const OPTIONS: [&[&str]; 24] = [
    &[],
    &["-O2", "-Wall", "-pipe"],
    &["-g"],
    &["-g3", "-O2"],
    &["-gdwarf-4", "-fno-omit-frame-pointer", "-fPIC", "-ffunction-sections", "-fdata-sections"],
    &["-ggdb", "-gno-column-info"],
    &["-MD"],
    &["-MMD", "-MP", "-g"],
    &["-fsanitize=address"],
    &["-fsanitize=undefined", "-g"],
    &["-pg"],
    &["-fstack-protector-strong", "-fcf-protection"],
    &["-fno-ident", "-fvisibility=hidden", "-O1"],
    &["-g", "-gsplit-dwarf"],
    &["-g", "-grecord-gcc-switches"],
    &["-frecord-gcc-switches"],
    &["--coverage"],
    &["-fprofile-arcs"],
    &["-ftest-coverage"],
    &["-save-temps=obj"],
    &["-fdump-tree-original"],
    &["-fstack-usage"],
    &["-flto"],
    &["-fverbose-asm", "-S"],
];

fn request(
    (_, family, driver, _): (&str, CompilerFamily, DriverLanguage, &str),
    argv: &[String],
    cwd: &Path,
) -> Option<CompileRequest> {
    let asked = Invocation {
        family,
        driver,
        argv,
        env: &[],
        cwd,
        stderr_is_terminal: false,
        columns: None,
        locale: None,
        variables: &[],
    };
    match decide(&asked, &|path: &Path| fs::read(path)) {
        Decision::Distribute(request) => Some(*request),
        Decision::Local(_) => None,
    }
}

/// Whether the output's folder is free to be another, as far as names and options say.
fn is_free(request: &CompileRequest, cwd: &Path, out: &Path) -> bool {
    let only_known = request.outputs.len() == 1 + usize::from(request.depfile.is_some());
    let project = Project::of(cwd, request, &options::mapped(request), &ReadSet::default()).unwrap();
    assert!(project.roots.contains(&RelPath::from_absolute(out).unwrap()), "{project:?}");
    only_known && options::check(request, &project.folders(cwd).unwrap()).is_ok()
}

#[test]
fn what_names_its_output_is_an_obstacle_and_all_else_is_free() {
    let above = tempfile::tempdir().unwrap();
    let above = above.path().canonicalize().unwrap();
    let cwd = above.join("package");
    let folders = ["a", "another/and/much/longer/folder/than/the/first"].map(|name| above.join("target").join(name));
    for folder in folders.iter().chain([&cwd]) {
        fs::create_dir_all(folder).unwrap();
    }
    for (name, text) in [("x.c", C), ("x.cc", CXX), ("x.S", ASSEMBLER)] {
        fs::write(cwd.join(name), text).unwrap();
    }
    let map = format!("-ffile-prefix-map={}=/buildbee/cargo", cwd.display());
    let (mut n_free, mut n_differ) = (0, 0);
    for compiler in COMPILERS {
        for options in OPTIONS {
            let argv = |out: &PathBuf| {
                let words = [&[map.as_str()], options, &["-c", compiler.3, "-o"]].concat();
                let words = words.iter().filter(|word| **word != "-c" || !options.contains(&"-S"));
                words.map(|word| (*word).to_owned()).chain([out.join("x.o").display().to_string()]).collect::<Vec<_>>()
            };
            let made = folders.each_ref().map(|folder| {
                let mut command = Command::new(compiler.0);
                command.args(argv(folder)).current_dir(&cwd);
                let ran = command.output().unwrap();
                ran.status.success().then(|| fs::read(folder.join("x.o")).unwrap())
            });
            let [Some(one), Some(other)] = made else { continue };
            let free = folders.each_ref().map(|folder| {
                request(compiler, &argv(folder), &cwd).is_some_and(|request| is_free(&request, &cwd, folder))
            });
            assert!(free[0] == free[1] && (one == other || !free[0]), "{compiler:?} {options:?}: {free:?}");
            n_free += usize::from(free[0]);
            n_differ += usize::from(one != other);
        }
    }
    // Both were seen.
    assert!(n_free > 60 && n_differ > 6, "{n_free} {n_differ}");
}

#[test]
fn a_folder_for_outputs_alone_is_a_root_of_its_own() {
    let gcc = COMPILERS[0];
    let roots = |line: &str| {
        let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let cwd = Path::new("/home/a/p/src");
        let request = request(gcc, &argv, cwd).unwrap();
        let project = Project::of(cwd, &request, &[], &ReadSet::default())?;
        Ok::<_, super::Obstacle>(project.roots.iter().map(RelPath::to_string).collect::<Vec<_>>())
    };
    for (line, expected) in [
        ("-c x.c -o x.o", &["home/a/p/src"][..]),
        ("-c x.c -o /home/a/p/src/out/x.o", &["home/a/p/src"]),
        ("-c x.c -o /home/a/build/x.o -MD", &["home/a/p/src", "home/a/build"]),
        ("-c x.c -o /home/a/build/x.o -MD -MF /home/a/deps/x.d", &["home/a/p/src", "home/a/build"]),
        ("-c /home/a/p/lib/x.c -o /home/a/p/build/x.o", &["home/a/p"]),
        ("-c x.c -o ../build/x.o", &["home/a/p"]),
        ("-I/home/a/build/gen -c x.c -o /home/a/build/x.o", &["home/a"]),
        // Where everybody writes, or the system's.
        ("-c x.c -o /tmp/x.o", &["home/a/p/src"]),
        ("-c x.c -o /usr/local/src/x.o", &["home/a/p/src"]),
    ] {
        assert_eq!(roots(line).unwrap(), expected, "{line}");
    }
}

#[test]
fn folders_that_the_build_names_are_roots_wherever_they_are() {
    let gcc = COMPILERS[0];
    let home = "/home/a/.cargo/registry/src/i/y-1.0";
    let argv = "-Iinclude -I/home/a/app/target/debug/build/z/out -c c/x.c -o /home/a/app/target/debug/build/y/out/x.o";
    let argv: Vec<String> = argv.split(' ').map(str::to_owned).collect();
    let with = |folders: &[&str]| {
        let request = request(gcc, &argv, Path::new(home)).unwrap();
        let request = request.mapped(Vec::new(), folders.iter().map(PathBuf::from).collect());
        let project = Project::of(Path::new(home), &request, &[], &ReadSet::default()).unwrap();
        (project.roots.iter().map(RelPath::to_string).collect::<Vec<_>>(), project.n_read)
    };
    assert_eq!(with(&[]), (vec!["home/a".to_owned()], 1));
    let folders = ["/home/a/.cargo", "/home/a/app/target"];
    assert_eq!(with(&folders), (vec!["home/a/.cargo".to_owned(), "home/a/app/target".to_owned()], 2));
    // What the system has is where it is for everybody.
    let package = home.trim_start_matches('/').to_owned();
    assert_eq!(with(&["/usr/local/cargo", "/home/a/app/target"]), (vec!["home/a/app/target".to_owned(), package], 2));
}

#[test]
fn maps_count_that_mean_the_same_wherever_the_folders_are() {
    let words = |maps: &[&str]| {
        let maps = maps.iter().map(|map| (*map).to_owned());
        maps.chain(["-g", "-c", "x.c"].map(str::to_owned)).collect::<Vec<_>>()
    };
    let cwd = Path::new("/home/a/app");
    let checked = |maps: &[&str]| {
        let request = request(COMPILERS[0], &words(maps), cwd).unwrap();
        let request = request.mapped(Vec::new(), ["/home/a/app", "/home/a/app/target"].map(PathBuf::from).to_vec());
        let project = Project::of(cwd, &request, &[], &ReadSet::default()).unwrap();
        options::check(&request, &project.folders(cwd).unwrap()).map(|spelling| spelling.macros_mapped)
    };
    let (app, target) = ("-ffile-prefix-map=/home/a/app=/w", "-ffile-prefix-map=/home/a/app/target=/t");
    assert_eq!(checked(&[app, target]).ok(), Some(true));
    // By the outer folder's map alone it would have no name elsewhere, and in the other order another one.
    assert_eq!(checked(&[app]).ok(), Some(false));
    assert_eq!(checked(&[target, app]).ok(), Some(false));
    assert_eq!(checked(&["-fdebug-prefix-map=/home/a/app=/w"]).ok(), Some(false));
    assert!(
        checked(&[app, "-I/home/a/app/target/gen"]).is_err(),
        "debug information may hold pieces of the other's name"
    );
    assert!(checked(&["-fdebug-compilation-dir=/home/x", "-I/home/a/app/include"]).is_err());
    assert!(checked(&["-fdebug-compilation-dir=/home/x"]).is_ok());
    assert!(checked(&[target]).is_err(), "debug information names the working directory");
    for far in ["-ffile-prefix-map=/home=/h", "-ffile-prefix-map=/home/a/ap=/h", "-fmacro-prefix-map=/="] {
        assert!(checked(&[app, target, far]).is_err() && checked(&[far, app, target]).is_err(), "{far}");
    }
}

#[test]
fn no_way_leads_from_a_folder_into_one_that_is_in_it() {
    let read_set = |link: &str| ReadSet {
        symlinks: vec![(RelPath::try_from("home/a/app/l").unwrap(), link.to_owned())],
        ..ReadSet::default()
    };
    let of = |line: &str, link: &str| {
        let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let cwd = Path::new("/home/a/app");
        let request = request(COMPILERS[0], &argv, cwd).unwrap();
        let request = request.mapped(Vec::new(), ["/home/a/app", "/home/a/app/target"].map(PathBuf::from).to_vec());
        let read_set = read_set(link);
        let project = Project::of(cwd, &request, &[], &read_set)?;
        assert_eq!(project.inner_names(), ["target"]);
        project.check(&read_set)
    };
    assert_eq!(of("-I/home/a/app/target/gen -c src/x.c -o /home/a/app/target/x.o", "src"), Ok(()));
    for line in ["-Itarget/gen -c src/x.c -o /home/a/app/target/x.o", "-c src/x.c -o target/x.o"] {
        assert!(matches!(of(line, "src"), Err(super::Obstacle::Outside(_))), "{line}");
    }
    assert!(of("-c src/x.c -o /home/a/app/target/x.o", "target/gen").is_err());
}
