//! The recorder in real programs: rustc with a macro and a linker, and small programs that do one thing each.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use buildbee_proto::limits::MAX_RECORD_BYTES;
use buildbee_proto::observed::{NotKnown, Observed, View, observe};
use buildbee_proto::path::RelPath;
use buildbee_proto::record::{Kind, VARIABLE, header, records, used_bytes};
use tempfile::TempDir;

/// A small program has come to its last call by then, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

/// The library as users have it, a log, and a folder to work in.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.path("w")).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
        let made = bench
            .rustc(&["--crate-name=buildbee_recorder", "--crate-type=cdylib", "-Cpanic=abort", "-Copt-level=3"])
            .args(["-Cstrip=symbols", "-Clink-arg=-nostdlib", "-o"])
            .args([bench.library(), source])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    fn library(&self) -> PathBuf {
        self.path("libbuildbee_recorder.so")
    }

    fn rustc(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("rustc");
        command.arg("--edition=2024").args(arguments).current_dir(self.path("w"));
        command
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path("w").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A C program `name` in the working folder.
    fn program(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        self.write(&format!("{name}.c"), source);
        let program = self.path(name);
        let source = self.path("w").join(format!("{name}.c"));
        let made = Command::new("gcc").args(flags).arg("-o").args([&program, &source]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        program
    }

    /// Runs `command` under the recorder.
    fn record(&self, command: &mut Command) -> (Output, Vec<u8>) {
        let output = self.under_recorder(command).output().unwrap();
        (output, self.log())
    }

    /// `command` with an empty log.
    fn under_recorder<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let log = self.path("log");
        fs::write(&log, header()).unwrap();
        fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(MAX_RECORD_BYTES as u64).unwrap();
        command.env("LD_PRELOAD", self.library()).env(VARIABLE, &log).current_dir(self.path("w"))
    }

    /// What is noted so far.
    fn log(&self) -> Vec<u8> {
        let mut log = fs::read(self.path("log")).unwrap();
        log.truncate(used_bytes(&log).unwrap());
        log
    }

    fn told(&self, command: &mut Command) -> Result<Observed, NotKnown> {
        let (output, log) = self.record(command);
        assert!(output.status.success(), "{output:?}");
        observe(&log, View { ignored: &|_| false, link: &|_| None })
    }

    fn told_of(&self, source: &str) -> Result<Observed, NotKnown> {
        self.told(&mut Command::new(self.program("one", source, &["-pthread"])))
    }

    fn has(&self, paths: &[RelPath], name: &str) -> bool {
        let path = RelPath::from_absolute(&self.path("w").join(name)).unwrap();
        paths.contains(&path)
    }
}

/// The rustc that stands behind a proxy.
fn real_rustc() -> PathBuf {
    let output = Command::new("rustc").arg("--print=sysroot").output().unwrap();
    Path::new(String::from_utf8(output.stdout).unwrap().trim()).join("bin/rustc")
}

const MACRO: &str = r#"
    extern crate proc_macro;
    #[proc_macro]
    pub fn ask(_: proc_macro::TokenStream) -> proc_macro::TokenStream {
        let variable = std::env::var("UNDECLARED").unwrap_or_default();
        let listed = std::fs::read_dir("assets").unwrap().count();
        let read = std::fs::read_to_string("data.txt").unwrap();
        let absent = std::path::Path::new("absent.txt").exists();
        std::fs::write("made.txt", "x").unwrap();
        let made = std::fs::read_to_string("made.txt").unwrap();
        let threads = (0..8).map(|n| std::thread::spawn(move || std::env::var(format!("THREAD_{n}")).is_ok()));
        let threads = threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).count();
        format!("const X: &str = {:?};", format!("{variable}{listed}{read}{absent}{made}{threads}")).parse().unwrap()
    }
"#;

#[test]
fn a_macro_and_a_link_are_seen() {
    let bench = Bench::new();
    bench.write("assets/one", "");
    bench.write("data.txt", "data");
    bench.write("m.rs", MACRO);
    bench.write("app.rs", "mod part; m::ask!(); fn main() { println!(\"{X}{:?}\", part::P) }");
    bench.write("part.rs", "pub const P: Option<&str> = option_env!(\"OPTIONAL\");");
    assert!(bench.rustc(&["--crate-type=proc-macro", "m.rs"]).status().unwrap().success());
    let plain = bench.rustc(&["app.rs", "--extern=m=libm.so", "-oplain"]).output().unwrap();
    assert!(plain.status.success(), "{plain:?}");
    fs::remove_file(bench.path("w/made.txt")).unwrap();

    let mut rustc = Command::new(real_rustc());
    let told = bench.told(rustc.args(["--edition=2024", "app.rs", "--extern=m=libm.so", "-oapp"])).unwrap();
    assert_eq!(
        fs::read(bench.path("w/plain")).unwrap(),
        fs::read(bench.path("w/app")).unwrap(),
        "it changed the outcome"
    );
    for file in ["app.rs", "part.rs", "data.txt", "libm.so"] {
        assert!(bench.has(&told.files, file), "{file}: {:?}", told.files);
    }
    assert!(bench.has(&told.absent, "absent.txt") && bench.has(&told.absent, "part/mod.rs"), "{:?}", told.absent);
    assert!(bench.has(&told.listed, "assets"), "{:?}", told.listed);
    for name in ["UNDECLARED", "OPTIONAL", "THREAD_0", "THREAD_7", "PATH", "COLLECT_GCC"] {
        assert!(told.env.iter().any(|known| known == name), "{name}: {:?}", told.env);
    }
    // Its own, however it came to read them. The linker is three programs below: what it reads counts.
    assert!(
        !bench.has(&told.files, "made.txt") && !told.files.iter().any(|path| path.as_str().contains("rcgu")),
        "{told:?}"
    );
    assert!(told.files.iter().any(|path| path.as_str().ends_with("crt1.o")), "{:?}", told.files);
    assert!(!told.network);
}

#[test]
fn a_macro_that_could_walk_the_environment_is_told_from_one_that_could_not() {
    let bench = Bench::new();
    let walker = "let n = std::env::vars().count();";
    for (name, body) in [("plain", "let n = std::env::var(\"A\").is_ok();"), ("walker", walker)] {
        let source = format!(
            "extern crate proc_macro; #[proc_macro] pub fn ask(_: proc_macro::TokenStream) -> proc_macro::TokenStream \
             {{ {body} drop(format!(\"{{n}}\")); Default::default() }}"
        );
        bench.write("m.rs", &source);
        bench.write("app.rs", "m::ask!();");
        assert!(bench.rustc(&["--crate-type=proc-macro", "m.rs"]).status().unwrap().success());
        let mut rustc = Command::new(real_rustc());
        rustc.args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "app.rs", "--extern=m=libm.so"]);
        let told = bench.told(&mut rustc).unwrap();
        assert_eq!(bench.has(&told.walkers, "libm.so"), name == "walker", "{name}: {:?}", told.walkers);
    }
}

#[test]
fn many_files_are_all_seen() {
    const N_FILES: usize = 3000;
    let bench = Bench::new();
    let modules: Vec<String> = (0..N_FILES).map(|n| format!("mod m{n};")).collect();
    bench.write("lib.rs", &modules.concat());
    for n in 0..N_FILES {
        bench.write(&format!("m{n}.rs"), "");
    }
    let mut rustc = Command::new(real_rustc());
    let told = bench.told(rustc.args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "lib.rs"])).unwrap();
    let n_seen = (0..N_FILES).filter(|n| bench.has(&told.files, &format!("m{n}.rs"))).count();
    assert_eq!(n_seen, N_FILES);
}

#[test]
fn more_than_the_log_holds_is_not_known() {
    let bench = Bench::new();
    let source = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <sys/stat.h>\n\
        int main(void) { static char p[2100]; struct stat s; memset(p, 'a', 2000);\n\
        for (int i = 1; i < 2000; i++) if (i % 200 == 1) p[i - 1] = '/';\n\
        for (int i = 0; i < 6000; i++) { sprintf(p + 2000, \"%d\", i); stat(p, &s); } return 0; }";
    assert_eq!(bench.told_of(source), Err(NotKnown::Overflow));
}

#[test]
fn closed_descriptors_and_other_folders_change_nothing() {
    let bench = Bench::new();
    bench.write("sub/in", "");
    let told = bench.told_of(
        "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <unistd.h>\n#include <stdlib.h>\n#include <sys/wait.h>\n\
         int main(void) { for (int i = 0; i < 100; i++) close(i);\n\
         chdir(\"sub\"); int d = open(\"..\", O_RDONLY | O_DIRECTORY); open(\"in\", O_RDONLY);\n\
         openat(d, \"nothing\", O_RDONLY); getenv(\"ASKED\");\n\
         if (!fork()) { getenv(\"CHILD\"); _exit(0); } wait(0);\n\
         if (!vfork()) { getenv(\"BORROWED\"); execl(\"/nothing\", \"x\", (char *)0); _exit(0); } wait(0); return 0; }",
    );
    let told = told.unwrap();
    assert!(bench.has(&told.files, "sub/in") && bench.has(&told.absent, "nothing"), "{told:?}");
    for name in ["ASKED", "CHILD", "BORROWED"] {
        assert!(told.env.iter().any(|known| known == name), "{name}: {:?}", told.env);
    }
}

#[test]
fn what_is_made_is_noted_before_and_after() {
    let bench = Bench::new();
    let program = bench.program(
        "one",
        "#include <fcntl.h>\n#include <stdio.h>\n#include <sys/stat.h>\n#include <unistd.h>\n\
         int main(void) { mkdir(\"d\", 0777); mkdir(\"d\", 0777); mkdirat(AT_FDCWD, \"e\", 0777); fclose(fopen(\"f\", \"w\"));\n\
         open(\"g\", O_CREAT | O_WRONLY, 0666); link(\"g\", \"h\"); link(\"g\", \"f\"); open(\"g\", O_WRONLY);\n\
         open(\"p\", O_CREAT | O_WRONLY, 0666); return 0; }",
        &[],
    );
    assert!(Command::new("mkfifo").arg(bench.path("w/p")).status().unwrap().success());
    let mut command = Command::new(&program);
    let mut child = bench.under_recorder(&mut command).spawn().unwrap();
    let making = |log: &[u8]| {
        let kinds = [Kind::Making, Kind::Made, Kind::NotMade];
        let noted = records(log).map_while(Result::ok).filter(|(kind, _)| kinds.contains(kind));
        let name = |path: &[u8]| {
            Path::new(std::str::from_utf8(path).unwrap()).file_name().unwrap().to_str().unwrap().to_owned()
        };
        noted.map(|(kind, path)| (kind, name(path))).collect::<Vec<_>>()
    };
    // The last call does not return: nobody reads.
    let started = Instant::now();
    let noted = loop {
        let noted = making(&bench.log());
        if noted.iter().any(|(_, name)| name == "p") || started.elapsed() > DEADLINE {
            break noted;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let expected = [
        (Kind::Making, "d"),
        (Kind::Made, "d"),
        (Kind::NotMade, "d"),
        (Kind::Making, "e"),
        (Kind::Made, "e"),
        (Kind::Making, "f"),
        (Kind::Made, "f"),
        (Kind::Making, "g"),
        (Kind::Made, "g"),
        (Kind::Making, "h"),
        (Kind::Made, "h"),
        (Kind::NotMade, "f"),
        (Kind::Making, "p"),
    ];
    let noted: Vec<_> = noted.iter().map(|(kind, name)| (*kind, name.as_str())).collect();
    assert_eq!(noted, expected);
}

#[test]
fn programs_without_the_recorder_are_missed() {
    let bench = Bench::new();
    let started = bench.program("static", "int main(void) { return 0; }", &["-static"]);
    let silent = |known: Result<Observed, NotKnown>| matches!(known, Err(NotKnown::Silent { .. }));
    assert!(silent(bench.told(&mut Command::new(&started))), "the program itself");
    let run = |function: &str| {
        format!(
            "#define _GNU_SOURCE\n#include <spawn.h>\n#include <stdlib.h>\n#include <unistd.h>\n#include <sys/wait.h>\n\
             extern char **environ; int main(void) {{ char *p = \"{}\", *a[] = {{p, 0}}, *none[] = {{0}}; pid_t c;\n\
             (void)a; (void)none; (void)c; {function}; wait(0); return 0; }}",
            started.display()
        )
    };
    for function in ["if (!fork()) execv(p, a)", "posix_spawn(&c, p, 0, 0, a, environ)", "if (!vfork()) execvp(p, a)"] {
        assert!(silent(bench.told_of(&run(function))), "{function}");
    }
    assert!(silent(bench.told_of(&run("p = \"/bin/true\"; if (!fork()) execve(p, a, none)"))), "no environment");
    for function in [
        "if (!fork()) { p = \"/bin/true\"; execve(p, a, environ); }",
        "system(\"exit 0\")",
        "p = \"/nothing\"; posix_spawn(&c, p, 0, 0, a, environ)",
    ] {
        assert!(bench.told_of(&run(function)).is_ok(), "{function}: {:?}", bench.told_of(&run(function)));
    }
}

#[test]
fn what_is_not_followed_is_said() {
    let bench = Bench::new();
    let globbed = bench.told_of("#include <glob.h>\nint main(void) { glob_t g; glob(\"*\", 0, 0, &g); return 0; }");
    assert_eq!(globbed, Err(NotKnown::Unrecorded("glob".to_owned())));
    let socket =
        bench.told_of("#include <sys/socket.h>\nint main(void) { socket(AF_UNIX, SOCK_STREAM, 0); return 0; }");
    assert!(socket.unwrap().network);
}

#[test]
fn the_time_of_day_is_asked_for_and_right() {
    let bench = Bench::new();
    let of_day = "time_t t = 0; struct timeval v = {0}; struct timespec s = {0};\n\
        time_t now = time(&t); gettimeofday(&v, 0); clock_gettime(CLOCK_REALTIME, &s);\n\
        return now != t || v.tv_sec < t || v.tv_sec > t + 5 || v.tv_usec < 0 || v.tv_usec >= 1000000 || s.tv_sec < v.tv_sec;";
    let passed = "struct timespec s; return clock_gettime(CLOCK_MONOTONIC, &s);";
    for (body, functions) in [(of_day, &["time", "gettimeofday", "clock_gettime"][..]), (passed, &[])] {
        let source = format!("#include <sys/time.h>\n#include <time.h>\nint main(void) {{ {body} }}");
        let program = bench.program("one", &source, &[]);
        let (output, log) = bench.record(&mut Command::new(&program));
        assert!(output.status.success(), "{output:?}");
        let asked: Vec<_> = records(&log)
            .map(Result::unwrap)
            .filter(|(kind, _)| *kind == Kind::Clock)
            .map(|(_, content)| String::from_utf8(content.to_vec()).unwrap())
            .collect();
        let expected: Vec<_> = functions.iter().map(|function| format!("{function} {}", program.display())).collect();
        assert_eq!(asked, expected);
    }
    let told = bench.told_of("#include <time.h>\nint main(void) { return time(0) < 0; }");
    assert!(told.is_ok(), "compilers ask too: {told:?}");
}

#[test]
fn without_a_log_nothing_changes() {
    let bench = Bench::new();
    let plain = Command::new("gcc").arg("--version").output().unwrap();
    for log in ["", "relative", "/nothing/log", "/etc/hostname"] {
        let output =
            Command::new("gcc").arg("--version").env("LD_PRELOAD", bench.library()).env(VARIABLE, log).output();
        assert_eq!(output.unwrap(), plain, "{log}");
    }
}
