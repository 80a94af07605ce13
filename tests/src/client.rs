//! One user's side of the farm: folders of its own, a daemon of its own, and commands that find both.
//!
//! The daemon ends with the [`Client`].

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::view::View;

/// A daemon that was told to leave is gone within this time, or killed.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);

/// Variables of whoever runs the tests that would change what compilers, make or buildbee do.
const NOT_INHERITED: [&str; 19] = [
    "BUILDBEE",
    "BUILDBEE_BUILD_SCRIPTS",
    "BUILDBEE_PATHS",
    "BUILDBEE_WRAPPED",
    "BUILDBEE_BASE_DIR",
    "BUILDBEE_CACHE_SIZE",
    "BUILDBEE_IDLE_TIMEOUT",
    "MAKEFLAGS",
    "MFLAGS",
    "GNUMAKEFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
    "CC",
    "CXX",
    "CFLAGS",
    "CXXFLAGS",
    "CPPFLAGS",
    "GCC_COLORS",
    "TMPDIR",
];

/// A program with an environment in which only what a test sets matters: what plain builds are made with.
pub fn plain(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

/// One user's side.
#[derive(Debug)]
pub struct Client {
    /// Holds everything of this client.
    pub folder: PathBuf,
    /// Where the programs are.
    pub programs: PathBuf,
    /// `local_slots`.
    pub local_slots: usize,
    /// `racing`.
    pub racing: &'static str,
    /// Network namespace that its processes live in.
    pub space: Option<String>,
    /// Mount namespace that its processes live in.
    pub view: Option<View>,
}

impl Client {
    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("daemon.sock")
    }

    /// A command as this client runs it: `buildbee` is found in `PATH` and speaks to this client's daemon.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match (&self.space, &self.view) {
            (None, None) => plain(program),
            (_, Some(view)) => view.command(program),
            (Some(space), None) => {
                // Not `ip netns exec`, which gives each command mounts of its own: the daemon must see what its callers see.
                let mut command = plain("nsenter");
                command.arg(format!("--net=/run/netns/{space}")).arg(program);
                command
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the programs go before what is there")]
        let path = std::env::var("PATH").unwrap_or_default();
        let no_settings = self.folder.join("no-settings.toml");
        let _ = fs::write(&no_settings, "");
        command
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .env("BUILDBEE_CONFIG", no_settings)
            .env("BUILDBEE_SOCKET", self.socket())
            .env("BUILDBEE_STATE_DIR", self.folder.join("state"))
            .env("BUILDBEE_CACHE_DIR", self.folder.join("cache"))
            .env("BUILDBEE_LOCAL_SLOTS", self.local_slots.to_string())
            .env("BUILDBEE_RACING", self.racing)
            .env("BUILDBEE_MDNS", "off")
            .env("BUILDBEE_LOG", "info,buildbee=debug");
        command
    }

    /// A document of the command line; `null` where there is none.
    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.command("buildbee").args(words).arg("--json").output();
        output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or(Value::Null)
    }

    /// `stats`, as (cached, remote, local).
    pub fn counts(&self) -> (u64, u64, u64) {
        let stats = self.json(&["stats"]);
        let count = |name: &str| stats[name].as_u64().unwrap_or(u64::MAX);
        (count("cached"), count("remote"), count("local"))
    }

    /// The same for compiles of cargo's alone: what it asks the compiler, and what build scripts try, compiles no crate.
    pub fn compiles(&self) -> (u64, u64, u64) {
        let ((cached, remote, local), stats) = (self.counts(), self.json(&["stats"]));
        let asked = |reason: &str| stats["reasons"][reason].as_u64().unwrap_or_default();
        (cached, remote, local - asked("not-a-compile") - asked("print") - asked("stdin-input"))
    }

    /// Counts start anew.
    pub fn zero(&self) {
        self.json(&["stats", "--zero"]);
    }

    /// Process id of the daemon, which is started if there is none.
    ///
    /// # Panics
    ///
    /// When there is none all the same.
    pub fn daemon_pid(&self) -> Pid {
        let status = self.json(&["status"]);
        let pid = status["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        Pid::from_raw(pid.unwrap_or_else(|| panic!("no daemon: {status}\n{}", self.log())))
    }

    /// Process id of the daemon that there is.
    pub fn running_daemon(&self) -> Option<Pid> {
        locked_by(&self.socket().with_extension("lock"))
    }

    /// The end of what its daemons said.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.join("state/daemon.log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(20_000)..]).into_owned()
    }

    /// Ends the daemon and waits until it is gone.
    pub fn leave(&self) {
        if fs::symlink_metadata(self.socket()).is_err() {
            return;
        }
        let Some(pid) = self.running_daemon() else { return };
        let mut stop = self.command("buildbee");
        let _ = stop.arg("stop").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let started = Instant::now();
        while kill(pid, None).is_ok() && !is_zombie(pid) {
            if started.elapsed() > LEAVE_DEADLINE {
                let _ = kill(pid, Signal::SIGKILL);
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A zombie waits for its parent to look, which is no business of a test.
pub fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('Z'))
}

/// Which process holds the lock on `file`: what a frozen daemon can't say itself.
fn locked_by(file: &Path) -> Option<Pid> {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{}", fs::metadata(file).ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let line =
        locks.lines().find(|line| line.split_whitespace().nth(5).is_some_and(|place| place.ends_with(&inode)))?;
    line.split_whitespace().nth(4)?.parse().ok().filter(|pid| *pid > 1).map(Pid::from_raw)
}
