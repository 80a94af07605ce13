//! What to run: plain data, made by the agent. Checks nothing; [`crate::plan`] does.

use std::path::PathBuf;
use std::time::Duration;

use buildbee_proto::path::RelPath;
use serde::{Deserialize, Serialize};

/// Name of the folder in the scratch folder that receives everything the command writes.
pub const UPPER_NAME: &str = "upper";
/// Name of the folder in the scratch folder that overlayfs works in.
pub const WORK_NAME: &str = "work";
/// Name of the folder in the scratch folder on which the overlay is mounted (seen by the command alone).
pub const MERGED_NAME: &str = "merged";

/// Variable by which cargo tells rustc of its jobserver.
pub const JOBSERVER_VARIABLE: &str = "CARGO_MAKEFLAGS";

/// What commands have of the host besides what they are given.
#[derive(Clone, Debug, Default)]
pub struct HostParts {
    /// The control group that they run in ([`crate::idle_group::place`]), if it can be made.
    pub group: Option<PathBuf>,
    /// Folders that layers and scratch folders are in, which exist. The fewer mounts there are besides, the quicker a command starts. With none,
    /// those may be anywhere.
    pub folders: Vec<PathBuf>,
}

/// One command and the world that it sees.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// Folders that together are the command's root, topmost first: the input tree, then the toolchain's root. Never changed.
    pub layers: Vec<PathBuf>,
    /// An existing empty folder for this command alone, on one file system. `upper`, `work` and `merged` are made in it.
    pub scratch: PathBuf,
    /// Program and arguments. A program without a slash is looked for in the `PATH` of [`Self::env`].
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Where the command starts; made if no layer has it.
    pub working_directory: RelPath,
    /// Folders that must exist before the command starts (parents of its outputs); made if no layer has them.
    pub make_directories: Vec<RelPath>,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Threads and processes that the command may have at work beside its first, if it asks for each as make's children do. `None`: it
    /// finds nobody to ask.
    pub job_tokens: Option<u16>,
    /// What the command may use.
    pub limits: Limits,
}

impl SandboxSpec {
    /// The folder that holds what the command wrote.
    pub fn upper(&self) -> PathBuf {
        self.scratch.join(UPPER_NAME)
    }
}

/// What one command may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Time by the clock; then everything is killed.
    pub wall: Duration,
    /// Processor time of each single process, rounded up to seconds.
    pub cpu: Duration,
    /// Address space of each single process, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads at once. The kernel does not hold user 0 of the host to it: see
    /// [`crate::probe::Capabilities::process_limit`].
    pub processes: u64,
    /// Size of each file written, in bytes.
    pub file_bytes: u64,
    /// Captured standard output and standard error, each, in bytes; then everything is killed.
    pub stream_bytes: u64,
    /// Descriptors open at once in each process.
    pub open_files: u64,
    /// Added to the priority of the helper: 0 changes nothing, 19 is the most modest.
    pub niceness: i32,
    /// Whether it gives way to everybody: runs when no other program wants the processor or the disk, and goes first when memory runs out.
    pub gives_way: bool,
}

impl Default for Limits {
    /// Ten minutes, 16 GiB of address space, 512 processes, files of 4 GiB, streams of 64 MiB, 4096 descriptors, niceness 0, and it gives way to nobody.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(600),
            cpu: Duration::from_secs(600),
            memory_bytes: 16 << 30,
            processes: 512,
            file_bytes: 4 << 30,
            stream_bytes: 64 << 20,
            open_files: 4096,
            niceness: 0,
            gives_way: false,
        }
    }
}
