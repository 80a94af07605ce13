//! Builds in a loop, each compared with a plain one: what users would see of the faults.
//!
//! A round gives all compiles a word that no compile before had and that no object holds, so that they are made anew; or those of the round
//! before, so that their results are somewhere; or it is broken off, and gone on with. Not here: the faults.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buildbee_tests::cargo::Checkout;
use buildbee_tests::client::{Client, plain};
use buildbee_tests::farm::Farm;
use buildbee_tests::project::{Files, make, outputs, sorted_lines, write_c, write_cpp};
use fastrand::Rng;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::build::{TIMED, Times, read_times};

/// A build that takes longer hangs.
const BUILD_DEADLINE: Duration = Duration::from_secs(180);
/// A single compile that takes longer hangs.
const COMPILE_DEADLINE: Duration = Duration::from_secs(40);
/// What the client says of a compile that takes longer is shown.
const SLOW: f64 = 6.0;
/// Who is told to end by Ctrl-C has ended then.
const BREAK_OFF_DEADLINE: Duration = Duration::from_secs(10);
/// When a build is broken off, at the latest.
const LATEST_BREAK: Duration = Duration::from_secs(3);
/// Passes a number on that is in no output: messages are never so wide.
const RUSTC_WRAPPER: &str = "#!/bin/sh\nexec buildbee \"$@\" --diagnostic-width=$FAULT_ROUND\n";
const FIRST_WIDTH: usize = 2000;

/// What a build is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// All compiles are new.
    New,
    /// All were made before.
    Again,
    /// As [`New`](Self::New), and broken off on the way.
    BrokenOff,
    /// New, and nothing may run here.
    OnAgents,
}

impl Round {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.u32(..10) {
            0..6 => Self::New,
            6..8 => Self::Again,
            _ => Self::BrokenOff,
        }
    }
}

/// What comes of one build.
#[derive(Debug)]
pub(super) struct Built {
    /// Compiles.
    pub(super) n_actions: usize,
    /// The slowest, where that is noted.
    pub(super) slowest: Option<f64>,
    /// What became of it, if it was slow.
    pub(super) why_slow: Option<String>,
}

/// A loop of builds.
pub(super) trait Builder: Send {
    fn name(&self) -> &'static str;
    /// Builds from clean.
    fn build(&mut self, round: Round, rng: &mut Rng) -> Result<Built, String>;
}

/// Folder for the temporary files of a client's compilers.
pub(super) fn temporary(client: &Client) -> PathBuf {
    client.folder.join("tmp")
}

/// C and C++ with make.
pub(super) struct Cpp {
    client: Arc<Client>,
    folder: PathBuf,
    timed: PathBuf,
    times: PathBuf,
    stderr: PathBuf,
    expected: Files,
    said: Vec<String>,
    n_round: usize,
}

impl Cpp {
    /// Real projects where there are sources of such, else ones made up, of so many files of C, and of C++ if wanted.
    pub(super) fn new(
        farm: &Farm,
        client: Arc<Client>,
        sources: Option<&Path>,
        (n_files, with_cpp): (usize, bool),
    ) -> Self {
        let (folder, timed) = (farm.path("cpp-project"), farm.path("timed"));
        if let Some(sources) = sources {
            for name in ["zlib", "lzip"] {
                copy_sources(&sources.join(name), &folder);
            }
        } else {
            write_c(&folder, n_files).unwrap();
            if with_cpp {
                write_cpp(&folder, n_files).unwrap();
            }
        }
        fs::write(folder.join("Makefile"), MAKEFILE).unwrap();
        fs::write(&timed, TIMED).unwrap();
        fs::set_permissions(&timed, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(temporary(&client)).unwrap();
        let (times, stderr) = (farm.path("cpp.times"), farm.path("cpp.err"));
        let words = words(&timed, &times, "", 0);
        let built = make(plain("make"), &folder, 4, &words.each_ref().map(String::as_str));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let expected = outputs(&folder, &[""]);
        Self { client, folder, timed, times, stderr, expected, said: sorted_lines(&built.stderr), n_round: 0 }
    }

    fn start(&self, round: Round) -> Child {
        let mut make = self.client.command("make");
        make.args(["--silent", "--output-sync=target", "-j6"]).current_dir(&self.folder);
        make.args(words(&self.timed, &self.times, "buildbee ", self.n_round)).env("TMPDIR", temporary(&self.client));
        if round == Round::OnAgents {
            make.env("BUILDBEE", "strict");
        }
        let stderr = File::create(&self.stderr).unwrap();
        make.process_group(0).stdout(Stdio::null()).stderr(stderr).spawn().unwrap()
    }
}

/// What the client's daemon knows of the last compile of a source.
fn told(client: &Client, source: &str, seconds: f64) -> String {
    let told = client.json(&["explain", source, "--last"]);
    let told = &told["actions"][0];
    // What it knows is about an earlier compile.
    if told["wall_ms"].as_f64().is_none_or(|known| known < 800.0 * seconds) {
        return "its daemon did not live, or was not heard, to the end".to_owned();
    }
    ["where", "agent", "reason", "text", "wall_ms", "stages_ms"].map(|name| format!("{name} {}", told[name])).join(", ")
}

const MAKEFILE: &str = "C = $(patsubst %.c,%.o,$(wildcard *.c))\nCPP = $(patsubst %.cc,%.o,$(wildcard *.cc)) $(patsubst %.cpp,%.o,$(wildcard *.cpp))\n\
    FLAGS = -g -Wall -Wextra -Iinclude -MD -DPROGVERSION='\"1\"' -DFAULT_ROUND_$(ROUND)\n\
    all: $(C) $(CPP)\n%.o: %.c\n\t$(CC) -O2 $(FLAGS) -c -o $@ $<\n%.o: %.cc\n\t$(CXX) -O1 $(FLAGS) -c -o $@ $<\n\
    %.o: %.cpp\n\t$(CXX) -O1 $(FLAGS) -c -o $@ $<\nclean:\n\trm -f *.o *.d\n";

fn words(timed: &Path, times: &Path, before: &str, round: usize) -> [String; 3] {
    let tool = |variable: &str, compiler: &str| {
        format!("{variable}='{}' '{}' {before}{compiler}", timed.display(), times.display())
    };
    [tool("CC", "gcc"), tool("CXX", "g++"), format!("ROUND={round}")]
}

/// Sources and headers of a project's own folder, none of those below it.
fn copy_sources(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let entries = fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())).flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.extension().is_some_and(|ending| ["c", "cc", "h"].iter().any(|known| ending == *known)) {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

impl Builder for Cpp {
    fn name(&self) -> &'static str {
        "cpp"
    }

    fn build(&mut self, round: Round, rng: &mut Rng) -> Result<Built, String> {
        assert!(make(plain("make"), &self.folder, 1, &["clean"]).status.success());
        let _ = fs::remove_file(&self.times);
        self.n_round += usize::from(round != Round::Again);
        if round == Round::BrokenOff {
            break_off(self.start(round), rng)?;
        }
        let status = wait(self.start(round))?;
        let said = fs::read(&self.stderr).unwrap();
        if !status.success() {
            return Err(format!("{status}\n{}", String::from_utf8_lossy(&said)));
        }
        if round != Round::BrokenOff && sorted_lines(&said) != self.said {
            return Err(format!(
                "said something else:\n{}\n--- expected\n{:?}",
                String::from_utf8_lossy(&said),
                self.said
            ));
        }
        same(&self.expected, &outputs(&self.folder, &[""]))?;
        let times: Times = read_times(&self.times);
        let slowest = times.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        if let Some((name, seconds)) = slowest
            && *seconds > COMPILE_DEADLINE.as_secs_f64()
        {
            return Err(format!("{name} took {seconds:.1} s"));
        }
        let slow = slowest.filter(|(_, seconds)| **seconds > SLOW);
        let why_slow =
            slow.map(|(name, seconds)| format!("{name} {seconds:.1} s: {}", told(&self.client, name, *seconds)));
        Ok(Built { n_actions: times.len(), slowest: slowest.map(|(_, seconds)| *seconds), why_slow })
    }
}

/// A workspace with cargo.
pub(super) struct Rust {
    client: Arc<Client>,
    checkout: Checkout,
    wrapper: PathBuf,
    output: [PathBuf; 2],
    expected: Files,
    said: Vec<String>,
    n_round: usize,
}

impl Rust {
    pub(super) fn new(farm: &Farm, client: Arc<Client>) -> Self {
        let checkout = Checkout::write(farm.path("rust-project"), farm.path("cargo-home"));
        let wrapper = farm.path("rustc-wrapper");
        fs::write(&wrapper, RUSTC_WRAPPER).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(temporary(&client)).unwrap();
        let built = checkout.build(None, &["build"]);
        let (expected, output) = (checkout.files(), ["rust.out", "rust.err"].map(|name| farm.path(name)));
        let said = messages(&String::from_utf8_lossy(&built.output.stdout));
        Self { client, checkout, wrapper, output, expected, said, n_round: 0 }
    }

    fn start(&self, round: Round) -> Child {
        let mut cargo = self.checkout.cargo(Some(&self.client), &["build", "--message-format", "json"]);
        cargo.env("RUSTC_WRAPPER", &self.wrapper).env("FAULT_ROUND", (FIRST_WIDTH + self.n_round).to_string());
        // What a plain build makes; portable paths are others.
        cargo.env("TMPDIR", temporary(&self.client)).env("BUILDBEE_PATHS", "exact");
        if round == Round::OnAgents {
            cargo.env("BUILDBEE", "strict");
        }
        let [stdout, stderr] = self.output.each_ref().map(|path| File::create(path).unwrap());
        cargo.process_group(0).stdout(stdout).stderr(stderr).spawn().unwrap()
    }
}

/// What compilers said, in an order that does not depend on which was done first.
fn messages(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().filter(|line| line.contains("\"compiler-message\"")).map(str::to_owned).collect();
    lines.sort();
    lines
}

impl Builder for Rust {
    fn name(&self) -> &'static str {
        "rust"
    }

    fn build(&mut self, round: Round, rng: &mut Rng) -> Result<Built, String> {
        self.checkout.clean();
        self.n_round += usize::from(round != Round::Again);
        let mut left = Files::new();
        if round == Round::BrokenOff {
            break_off(self.start(round), rng)?;
            // rustc and ar leave temporary files beside their outputs where a signal ends them, with a farm or without.
            if self.checkout.folder.join("target").exists() {
                left = self.checkout.files();
            }
            left.retain(|name, _| !self.expected.contains_key(name) && !name.contains("buildbee"));
        }
        let status = wait(self.start(round))?;
        let [said, errors] = self.output.each_ref().map(|path| fs::read_to_string(path).unwrap_or_default());
        if !status.success() {
            return Err(format!("{status}\n{errors}\n{said}"));
        }
        if messages(&said) != self.said {
            return Err(format!("said something else:\n{:#?}\n--- expected\n{:#?}", messages(&said), self.said));
        }
        let mut files = self.checkout.files();
        files.retain(|name, _| !left.contains_key(name));
        same(&self.expected, &files)?;
        let n_actions = said.lines().filter(|line| line.contains("\"compiler-artifact\"")).count();
        Ok(Built { n_actions, slowest: None, why_slow: None })
    }
}

fn wait(mut child: Child) -> Result<ExitStatus, String> {
    if let Some(status) = wait_until(&mut child, Instant::now() + BUILD_DEADLINE) {
        return Ok(status);
    }
    let tree = buildbee_tests::processes::tree(group(&child));
    let what: Vec<String> = tree.iter().map(|pid| format!("{pid} {}", command_line(*pid))).collect();
    end(&mut child);
    Err(format!("the build hangs:\n{}", what.join("\n")))
}

fn command_line(pid: Pid) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

fn break_off(mut child: Child, rng: &mut Rng) -> Result<(), String> {
    let by = Instant::now() + LATEST_BREAK.mul_f64(rng.f64());
    if wait_until(&mut child, by).is_some() {
        return Ok(());
    }
    let (group, by) = (group(&child), Instant::now() + BREAK_OFF_DEADLINE);
    let _ = killpg(group, Signal::SIGINT);
    if wait_until(&mut child, by).is_none() || !all_end(group, by) {
        end(&mut child);
        return Err("a build that was broken off did not end".to_owned());
    }
    Ok(())
}

/// Whether what its first process left behind ends, too: orphans come to this process. Until then compilers may write.
fn all_end(group: Pid, by: Instant) -> bool {
    loop {
        match waitpid(Pid::from_raw(-group.as_raw()), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() > by => return false,
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            Ok(_) => {}
            Err(_) => return true,
        }
    }
}

fn wait_until(child: &mut Child, by: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > by {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn group(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

fn end(child: &mut Child) {
    let _ = killpg(group(child), Signal::SIGKILL);
    let _ = child.wait();
}

fn same(expected: &Files, found: &Files) -> Result<(), String> {
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differing: Vec<String> = names
        .into_iter()
        .filter(|name| expected.get(*name) != found.get(*name))
        .map(|name| {
            let look = |files: &Files| {
                files.get(name).map_or("absent".into(), |(bytes, mode)| format!("{} bytes, {mode:o}", bytes.len()))
            };
            format!("{name}: {} (plain: {})", look(found), look(expected))
        })
        .collect();
    if differing.is_empty() { Ok(()) } else { Err(format!("not what a plain build leaves: {differing:#?}")) }
}
