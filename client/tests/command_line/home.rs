//! A user of buildbee with nothing set up yet: own folders, own socket, own daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Gone with its daemon.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(home.path("x.c"), "int x(void) { return 1; }\n").unwrap();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `buildbee` with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let programs = Path::new(env!("CARGO_BIN_EXE_buildbee")).parent().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_buildbee"));
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("BUILDBEE_MDNS", "off")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// A command that succeeds. What it printed.
    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn document(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.says(arguments)).unwrap()
    }

    /// A command that fails. Its exit code and what it complained about.
    pub(crate) fn complains(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) fn daemon_pid(&self) -> u64 {
        self.document(&["status", "--json"])["pid"].as_u64().unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let stopped = self.command(&["stop"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while stopped.as_ref().is_ok_and(std::process::ExitStatus::success)
            && self.path("buildbee/daemon.sock").exists()
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
