//! One build with a fault in its middle, measured compile by compile against the same build without a farm.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use buildbee_tests::client::plain;
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::project::{Files, assert_same, make, outputs};

/// Sources, each of which takes a while.
const N_FILES: usize = 24;
/// What a fault may cost any one action.
const MAX_DELAY: Duration = Duration::from_secs(3);
/// Builds that take longer hang.
const BUILD_DEADLINE: Duration = Duration::from_secs(90);
/// Results that show that the build is in its middle.
const N_FIRST_RESULTS: usize = 3;

/// Runs a compiler and notes for how long.
pub(crate) const TIMED: &str = "#!/bin/bash\nstart=$EPOCHREALTIME\n\"${@:2}\"\ncode=$?\n\
    echo \"${@: -1} $start $EPOCHREALTIME\" >>\"$1\"\nexit $code\n";

/// Seconds that each source took.
pub(crate) type Times = BTreeMap<String, f64>;

/// A farm and a project that was built plainly before.
pub(crate) struct Build {
    pub(crate) farm: Farm,
    folder: PathBuf,
    timed: PathBuf,
    expected: Files,
    control: Times,
}

/// A build under way.
pub(crate) struct Running {
    make: Child,
    started: Instant,
    times: PathBuf,
    stderr: PathBuf,
}

pub(crate) fn options() -> Options {
    Options { n_agents: 2, n_slots: 2, local_slots: 2, racing: "tail", ..Options::default() }
}

impl Build {
    pub(crate) fn new(farm: Farm) -> Self {
        let (folder, timed) = (farm.path("project"), farm.path("timed"));
        write_slow(&folder);
        fs::write(&timed, TIMED).unwrap();
        fs::set_permissions(&timed, fs::Permissions::from_mode(0o755)).unwrap();
        let times = farm.path("control.times");
        let compiler = format!("CC='{}' '{}' gcc", timed.display(), times.display());
        let built = make(plain("make"), &folder, 4, &[&compiler]);
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let expected = outputs(&folder, &[".o", ".d"]);
        assert_eq!(expected.len(), 2 * N_FILES);
        let build = Self { farm, folder, timed, expected, control: read_times(&times) };
        build.clean();
        build.warm_up();
        build
    }

    /// Each agent compiles something, so that it has the toolchain: a farm at work is what faults happen to.
    fn warm_up(&self) {
        let folder = self.farm.path("warm-up");
        fs::create_dir(&folder).unwrap();
        let all_have_run = || {
            let agents = self.farm.laptop.json(&["stats"])["agents"].clone();
            agents.as_object().is_some_and(|agents| agents.len() == self.farm.options.n_agents)
        };
        let mut n = 0;
        while !all_have_run() {
            let names: Vec<String> = (n..n + 4).map(|n| format!("warm{n}")).collect();
            for name in &names {
                fs::write(folder.join(format!("{name}.c")), format!("int {name}(void) {{ return {n}; }}\n")).unwrap();
            }
            let rules = "all: $(patsubst %.c,%.o,$(wildcard *.c))\n%.o: %.c\n\tbuildbee gcc -c -o $@ $<\n";
            fs::write(folder.join("Makefile"), rules).unwrap();
            assert!(make(self.farm.client("make"), &folder, 4, &[]).status.success());
            n += 4;
            assert!(n < 200, "an agent does nothing\n{}", self.farm.logs());
        }
        self.farm.laptop.zero();
    }

    fn clean(&self) {
        assert!(make(plain("make"), &self.folder, 1, &["clean"]).status.success());
    }

    /// Starts the build and returns when it is in its middle: the first results are there, most are not.
    pub(crate) fn start(&self) -> Running {
        let running = self.start_at_once();
        let started = Instant::now();
        // From the notes and not from the daemon, which the fault may be about.
        while read_times(&running.times).len() < N_FIRST_RESULTS {
            assert!(started.elapsed() < BUILD_DEADLINE, "no first results\n{}", self.farm.logs());
            std::thread::sleep(Duration::from_millis(10));
        }
        let n_done = read_times(&running.times).len();
        assert!(n_done < N_FILES / 2, "the build was too quick: {n_done} of {N_FILES} are done");
        running
    }

    fn start_at_once(&self) -> Running {
        let (times, stderr) = (self.farm.path("times"), self.farm.path("make.err"));
        let _ = fs::remove_file(&times);
        let compiler = format!("CC='{}' '{}' buildbee gcc", self.timed.display(), times.display());
        let mut make: Command = self.farm.client("make");
        make.args(["--silent", "-j4", &compiler]).current_dir(&self.folder);
        let make = make.stdout(Stdio::null()).stderr(File::create(&stderr).unwrap()).spawn().unwrap();
        Running { make, started: Instant::now(), times, stderr }
    }

    /// Waits for the end of a build; it is green, right, and no action took much longer than without a farm.
    pub(crate) fn finish(&self, mut running: Running) {
        let status = loop {
            if let Some(status) = running.make.try_wait().unwrap() {
                break status;
            }
            if running.started.elapsed() > BUILD_DEADLINE {
                let _ = running.make.kill();
                panic!("the build hangs\n{}", self.farm.logs());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let stderr = fs::read_to_string(&running.stderr).unwrap();
        assert!(status.success(), "{status}\n{stderr}\n{}", self.farm.logs());
        assert_eq!(stderr, "", "the build said something");
        assert_same(&self.expected, &outputs(&self.folder, &[".o", ".d"]));
        self.assert_quick(&read_times(&running.times));
        self.clean();
    }

    /// Other work on this machine slows both builds: the slowest compile of the control build tells by how much it may.
    fn assert_quick(&self, times: &Times) {
        assert_eq!(times.len(), N_FILES);
        let slowest = |times: &Times| times.values().copied().fold(0.0, f64::max);
        let allowed = MAX_DELAY.as_secs_f64() + slowest(&self.control);
        let slow: Vec<_> = times.iter().filter(|(_, seconds)| **seconds > allowed).collect();
        say(&format!("slowest compile: {:.2} s, without a farm {:.2} s", slowest(times), slowest(&self.control)));
        assert!(slow.is_empty(), "held up for more than {allowed:.2} s: {slow:?}\n{}", self.farm.logs());
    }

    /// Shows what became of the actions, with `--nocapture`.
    pub(crate) fn stats(&self) -> serde_json::Value {
        let stats = self.farm.laptop.json(&["stats"]);
        say(&stats.to_string());
        stats
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.make.kill();
        let _ = self.make.wait();
    }
}

#[expect(clippy::print_stderr, reason = "figures for whoever asks for them")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

pub(crate) fn read_times(file: &Path) -> Times {
    let text = fs::read_to_string(file).unwrap_or_default();
    let complete = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, start, end) = (words.next()?, words.next()?, words.next()?);
        Some((name.to_owned(), end.parse::<f64>().ok()? - start.parse::<f64>().ok()?))
    });
    complete.collect()
}

/// A source with this many functions, each of which takes the optimiser some 30 ms.
pub(crate) fn slow_source(n: usize, n_functions: usize) -> String {
    let mut text = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include \"shared.h\"\n".to_owned();
    for function in 0..n_functions {
        let _ = writeln!(
            text,
            "int f{n}_{function}(const char *s, double *d) {{ int sum = {n}; for (unsigned i = 0; i < strlen(s); i++) {{ \
             switch (s[i]) {{ case 'a': sum += {function}; break; case 'b': sum *= SCALE; break; case 'c': d[i] *= sum; break; \
             default: sum ^= s[i] % (i + {function} + 1); }} for (int j = 0; j < 8; j++) d[j] += sum * d[7 - j]; }} return abs(sum); }}"
        );
    }
    text
}

/// Sources that keep the optimiser busy for some tenths of a second each and print no warnings.
fn write_slow(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for n in 0..N_FILES {
        fs::write(folder.join(format!("file{n}.c")), slow_source(n, 14)).unwrap();
    }
    fs::write(folder.join("shared.h"), "#pragma once\n#define SCALE 3\n").unwrap();
    fs::write(
        folder.join("Makefile"),
        "all: $(patsubst %.c,%.o,$(wildcard *.c))\n%.o: %.c\n\t$(CC) -O2 -g -MD -c -o $@ $<\nclean:\n\trm -f *.o *.d\n",
    )
    .unwrap();
}
