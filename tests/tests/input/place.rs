//! One user's own folder with a daemon, cache and state in it, and what programs said there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use buildbee_tests::network::skipped;
use buildbee_tests::programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes longer unless it is broken.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// No command takes longer, on a machine as busy as this may be.
const LONGEST: Duration = Duration::from_secs(60);

/// Whose rights root borrows to see permissions at work: `nobody` on every system.
const ORDINARY: u32 = 65_534;

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A folder in which all commands keep what they keep.
pub(crate) struct Place {
    folder: TempDir,
    programs: PathBuf,
    /// Set where commands run as another user.
    uid: Option<u32>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("bb in").tempdir().unwrap();
        Self { folder, programs: programs::folder(), uid: None }
    }

    /// A place whose commands run without root's rights. `None`, and a word about it, where root can't lend the programs to others.
    pub(crate) fn ordinary() -> Option<Self> {
        let mut place = Self::new();
        if is_root() {
            chown(place.path(""), Some(ORDINARY), Some(ORDINARY)).unwrap();
            place.uid = Some(ORDINARY);
            let reachable = place.program("buildbee-cli").arg("--version").output();
            if !reachable.is_ok_and(|output| output.status.success()) {
                skipped("the programs can't be reached by an ordinary user from here");
                return None;
            }
        }
        Some(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that the place's user owns.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(&path, text).unwrap();
        if self.uid.is_some() {
            for made in path.ancestors().take_while(|made| *made != self.folder.path()) {
                chown(made, self.uid, self.uid).unwrap();
            }
        }
        path
    }

    /// A command with nothing in its environment but what belongs to this place.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.folder.path()).stdin(Stdio::null());
        command
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.programs.display()))
            .env("HOME", self.path("home"))
            .env("LANG", "C")
            .env("BUILDBEE_SOCKET", self.path("run/s"))
            .env("BUILDBEE_MDNS", "off");
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// One of the programs.
    pub(crate) fn program(&self, name: &str) -> Command {
        self.command(self.programs.join(name))
    }

    /// `buildbee` with these words.
    pub(crate) fn buildbee(&self, words: &[&str]) -> Command {
        let mut command = self.program("buildbee");
        command.args(words);
        command
    }

    /// A document of the command line.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let said = run(self.buildbee(words).arg("--json"));
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    /// `warnings` of `status`, one below the other.
    pub(crate) fn warnings(&self) -> String {
        let status = self.json(&["status"]);
        let warnings = status["warnings"].as_array().unwrap();
        warnings.iter().map(|warning| warning.as_str().unwrap()).collect::<Vec<_>>().join("\n")
    }

    /// The daemons that listen at this place's socket.
    pub(crate) fn daemons(&self) -> Vec<i32> {
        let marker = format!("BUILDBEE_SOCKET={}", self.path("run/s").display());
        let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let words = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let has = |bytes: &[u8], word: &str| bytes.split(|byte| *byte == 0).any(|part| part == word.as_bytes());
            (has(&words("cmdline"), "--detached") && has(&words("environ"), &marker)).then_some(number)
        });
        numbers.collect()
    }

    /// Names, content and modes of everything below `name`.
    pub(crate) fn snapshot(&self, name: &str) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.path(name)];
        while let Some(path) = todo.pop() {
            let Ok(about) = fs::symlink_metadata(&path) else { continue };
            let content = if about.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if about.is_dir() {
                todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            found.insert(path, (about.permissions().mode(), content));
        }
        found
    }

    /// Compiles `name` with the wrapper and without; both must end alike, and the objects be the same. What the wrapper said.
    pub(crate) fn compiles_as_gcc_does(&self, name: &str) -> Said {
        self.compiles_as_gcc_does_with(name, &[])
    }

    /// The same with more in the wrapper's environment.
    pub(crate) fn compiles_as_gcc_does_with(&self, name: &str, environment: &[(&str, &str)]) -> Said {
        let object = Path::new(name).with_extension("o");
        let words = ["gcc", "-O1", "-g", "-Wall", "-c", name, "-o", object.to_str().unwrap()];
        let plain = run(self.command("gcc").args(&words[1..]));
        let expected = fs::read(self.path(object.to_str().unwrap())).ok();
        let _ = fs::remove_file(self.path(object.to_str().unwrap()));
        let mut said = run(self.buildbee(&words).envs(environment.iter().copied()));
        assert_eq!(said.code, plain.code, "{said:?}");
        assert_eq!(said.out, plain.out);
        // What the wrapper says of itself comes first.
        let own = said.err.strip_suffix(&plain.err).unwrap_or_else(|| panic!("{said:?}, but gcc: {plain:?}"));
        assert_eq!(fs::read(self.path(object.to_str().unwrap())).ok(), expected, "another object");
        said.err = own.to_owned();
        said
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.path("run/s").exists() {
            let _ = self.buildbee(&["stop"]).output();
            let started = Instant::now();
            while !self.daemons().is_empty() && started.elapsed() < SOON {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run(command: &mut Command) -> Said {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    let (done, output) = sync_channel(1);
    std::thread::spawn(move || drop(done.send(child.wait_with_output())));
    // A command that never ends must not keep the tests: several of them are to refuse to serve.
    let output = output.recv_timeout(LONGEST).unwrap_or_else(|_| {
        let _ = kill(pid, Signal::SIGKILL);
        panic!("{command:?} goes on and on")
    });
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs a command that must fail with `code`, nothing on standard output, and a message with all of `parts` and a hint.
pub(crate) fn refused(command: &mut Command, code: i32, parts: &[&str]) -> Said {
    let said = run(command);
    assert_eq!(said.code, Some(code), "{command:?}: {said:?}");
    assert_eq!(said.out, "", "{command:?}");
    explains(&said.err, parts);
    said
}

/// Asserts that a message has all of `parts` and ends with one hint, without a trace of the program's insides.
pub(crate) fn explains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let hints = text.lines().filter(|line| line.trim_start().starts_with("hint: ")).count();
    assert!(hints >= 1, "no hint in:\n{text}");
    let last = text.trim_end().lines().last().unwrap_or_default();
    assert!(last.trim_start().starts_with("hint: "), "the hint is not last in:\n{text}");
    for trace in ["panicked", "RUST_BACKTRACE", "Err(", "Os {"] {
        assert!(!text.contains(trace), "{text}");
    }
}

/// Waits until `done`.
pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < SOON, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
