//! One command's place on the host: input tree, scratch folder, launcher.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buildbee_sandbox::attempt::{Completed, Exit, SandboxError};
use buildbee_sandbox::cleanup::remove_scratch;
use buildbee_sandbox::launcher::Launcher;
use buildbee_sandbox::spec::{HostParts, Limits, SandboxSpec};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::programs::{Layer, toolchain};

/// Longest that anything here may take before a test says that it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Where inputs lie.
pub(crate) const PROJECT: &str = "home/a/project";

/// The helper: beside this test program if it was copied there, else where cargo put it.
pub(crate) fn helper() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("buildbee-sandbox");
    if beside.exists() { beside } else { env!("CARGO_BIN_EXE_buildbee-sandbox").into() }
}

pub(crate) fn bwrap() -> PathBuf {
    "/usr/bin/bwrap".into()
}

/// The helper. Tests that run several commands hold a [`Place`] besides, lest the shared layer be made anew for each.
pub(crate) async fn launcher() -> Launcher {
    // As agents have it: with few of the host's folders.
    let host = HostParts { group: None, folders: vec![std::env::temp_dir()] };
    Launcher::with(&helper(), &bwrap(), host).await.unwrap()
}

pub(crate) struct Place {
    folder: TempDir,
    toolchain: Arc<Layer>,
    pub(crate) limits: Limits,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::named("place")
    }

    /// A place whose folders have `name` in their paths.
    pub(crate) fn named(name: &str) -> Self {
        let folder = TempDir::with_prefix(name).unwrap();
        fs::create_dir_all(folder.path().join("input").join(PROJECT)).unwrap();
        fs::create_dir(folder.path().join("scratch")).unwrap();
        Self { folder, toolchain: toolchain(), limits: Limits { wall: PATIENCE, ..Limits::default() } }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn input(&self, name: &str) -> PathBuf {
        self.path().join("input").join(PROJECT).join(name)
    }

    pub(crate) fn output(&self, name: &str) -> PathBuf {
        self.path().join("scratch/upper").join(PROJECT).join(name)
    }

    pub(crate) fn spec(&self, argv: &[&str]) -> SandboxSpec {
        SandboxSpec {
            layers: vec![self.path().join("input"), self.toolchain.path.clone()],
            scratch: self.path().join("scratch"),
            argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
            env: vec![("PATH".into(), "/bin".into())],
            working_directory: PROJECT.try_into().unwrap(),
            make_directories: Vec::new(),
            stderr_is_terminal: false,
            job_tokens: None,
            limits: self.limits,
        }
    }

    pub(crate) fn shell(&self, script: &str) -> SandboxSpec {
        self.spec(&["/bin/bash", "-c", script])
    }

    pub(crate) async fn run(&self, script: &str) -> Completed {
        run(&launcher().await, self.shell(script)).await.unwrap()
    }

    /// Standard output of a script that must succeed.
    pub(crate) async fn text(&self, script: &str) -> String {
        let completed = self.run(script).await;
        assert_eq!(completed.exit, Exit::Code(0), "{}", String::from_utf8_lossy(&completed.stderr));
        String::from_utf8(completed.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Overlayfs leaves a folder without permissions, over which the temporary folder's own removal stumbles.
        let removed = remove_scratch(self.path());
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

pub(crate) async fn run(launcher: &Launcher, spec: SandboxSpec) -> Result<Completed, SandboxError> {
    tokio::time::timeout(PATIENCE, launcher.run(spec, CancellationToken::new())).await.expect("the command hangs")
}

/// A number that no other process on this machine sleeps for, to find a sandboxed `sleep` from outside.
pub(crate) fn marker(n: u32) -> String {
    format!("{}.{n}", 100_000 + std::process::id())
}

/// Whether a process that sleeps for `marker` runs on this machine, as its command line tells.
pub(crate) fn sleeps(marker: &str) -> bool {
    processes().any(|line| line == format!("sleep\0{marker}\0"))
}

fn processes() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    entries.filter_map(|path| fs::read_to_string(path.join("cmdline")).ok())
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn kill(process: u32) {
    let status = Command::new("kill").args(["-9", &process.to_string()]).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
}

/// Whether the tests run as user 0.
pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}
