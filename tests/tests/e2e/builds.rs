//! Projects built cold, again, and by a second user.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use buildbee_tests::client::{Client, plain};
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::project::{Files, assert_same, make, outputs, sorted_lines, write_c, write_cpp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Sources of the C project.
const N_FILES: usize = 60;

/// What a plain build from clean left and said; the folder is clean again afterwards.
pub(crate) fn plain_build(folder: &Path, words: &[&str]) -> (Files, Vec<String>) {
    clean(folder);
    let built = make(plain("make"), folder, 2, words);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let files = outputs(folder, &[".o", ".d"]);
    clean(folder);
    (files, sorted_lines(&built.stderr))
}

pub(crate) fn clean(folder: &Path) {
    assert!(make(plain("make"), folder, 1, &["clean"]).status.success());
}

fn build(farm: &Farm, client: &Client, folder: &Path, words: &[&str]) -> Output {
    let built = make(client.command("make"), folder, 4, words);
    assert!(built.status.success(), "{}\n{}", String::from_utf8_lossy(&built.stderr), farm.logs());
    built
}

fn assert_counts(farm: &Farm, client: &Client, expected: (u64, u64, u64)) {
    let counts = client.counts();
    assert_eq!(counts, expected, "(cached, remote, local): {}\n{}", client.json(&["stats"]), farm.logs());
}

/// Compilers and assemblers among the programs started, as strace wrote them down.
fn compilers_started(traces: &[&Path]) -> Vec<String> {
    let mut found = Vec::new();
    let mut n_started = 0;
    for trace in traces {
        let text = fs::read_to_string(trace).unwrap();
        // Where two programs start at once, strace says in another line how it went.
        let is_start = |line: &&str| line.contains("execve(") && (line.contains("= 0") || line.contains("unfinished"));
        for line in text.lines().filter(is_start) {
            n_started += 1;
            if ["/cc1\"", "/cc1plus\"", "/as\"", "/clang", "/collect2\""].iter().any(|name| line.contains(name)) {
                found.push(line.to_owned());
            }
        }
    }
    assert!(n_started > N_FILES, "the traces name {n_started} programs only");
    found
}

/// Follows `pid` until dropped.
struct Trace(std::process::Child);

impl Trace {
    fn follow(pid: Pid, file: &Path) -> Self {
        let log = file.with_extension("strace");
        let mut strace = plain("strace");
        strace.args(["-f", "-e", "trace=execve", "-e", "signal=none", "-o"]).arg(file).args(["-p", &pid.to_string()]);
        let child = strace.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        while !fs::read_to_string(&log).unwrap().contains("attached") {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self(child)
    }

    fn end(mut self) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGINT).unwrap();
        self.0.wait().unwrap();
    }
}

fn traced(client: &Client, file: &Path) -> Command {
    let mut strace = client.command("strace");
    strace.args(["-f", "-qq", "-e", "trace=execve", "-e", "signal=none", "-o"]).arg(file).arg("make");
    strace
}

#[test]
fn a_c_project_is_built_by_the_agents_then_from_the_cache_then_by_a_colleague() {
    let farm = Farm::up(Options::default());
    let folder = farm.path("project");
    write_c(&folder, N_FILES).unwrap();
    let (expected, words) = plain_build(&folder, &["CC=gcc"]);
    assert_eq!(expected.len(), 2 * N_FILES);
    let n_files = N_FILES as u64;

    let built = build(&farm, &farm.laptop, &folder, &["CC=buildbee gcc"]);
    assert_same(&expected, &outputs(&folder, &[".o", ".d"]));
    assert_eq!(sorted_lines(&built.stderr), words);
    assert_counts(&farm, &farm.laptop, (0, n_files, 0));
    let agents = farm.json(&["stats"])["agents"].clone();
    assert!(agents["desk0"].as_u64() > Some(0) && agents["desk1"].as_u64() > Some(0), "{agents}");
    clean(&folder);

    farm.laptop.zero();
    let traces = [farm.path("make.trace"), farm.path("daemon.trace")];
    let daemon = Trace::follow(farm.daemon_pid(), &traces[1]);
    let built = make(traced(&farm.laptop, &traces[0]), &folder, 4, &["CC=buildbee gcc"]);
    daemon.end();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    assert_same(&expected, &outputs(&folder, &[".o", ".d"]));
    assert_eq!(sorted_lines(&built.stderr), words);
    assert_counts(&farm, &farm.laptop, (n_files, 0, 0));
    assert_eq!(compilers_started(&[&traces[0], &traces[1]]), Vec::<String>::new());
    clean(&folder);

    let board = farm.second_client("board");
    let built = build(&farm, &board, &folder, &["CC=buildbee gcc"]);
    assert_same(&expected, &outputs(&folder, &[".o", ".d"]));
    assert_eq!(sorted_lines(&built.stderr), words);
    assert_counts(&farm, &board, (n_files, 0, 0));
}

#[test]
fn cpp_and_clang_projects_come_out_the_same() {
    let farm = Farm::up(Options::default());
    let (c, cpp) = (farm.path("c"), farm.path("cpp"));
    write_c(&c, 6).unwrap();
    write_cpp(&cpp, 6).unwrap();
    for (folder, variable, compiler) in
        [(&cpp, "CXX", "g++"), (&cpp, "CXX", "clang++"), (&c, "CC", "clang"), (&c, "CC", "cc"), (&cpp, "CXX", "c++")]
    {
        farm.laptop.zero();
        let (expected, words) = plain_build(folder, &[&format!("{variable}={compiler}")]);
        let with_farm = format!("{variable}=buildbee {compiler}");
        let built = build(&farm, &farm.laptop, folder, &[&with_farm]);
        assert_same(&expected, &outputs(folder, &[".o", ".d"]));
        assert_eq!(sorted_lines(&built.stderr), words, "{compiler}");
        // Under its other name a compiler may be known already.
        let (cached, remote, local) = farm.counts();
        assert_eq!((cached + remote, local), (6, 0), "{compiler}: {}\n{}", farm.json(&["stats"]), farm.logs());
        clean(folder);
        farm.laptop.zero();
        build(&farm, &farm.laptop, folder, &[&with_farm]);
        assert_same(&expected, &outputs(folder, &[".o", ".d"]));
        assert_counts(&farm, &farm.laptop, (6, 0, 0));
        clean(folder);
    }
}
