//! Between the wrapper or the command line and the user's daemon, over a Unix socket.
//!
//! ```text
//! wrapper                        daemon
//!   Call::Compile         ->
//!                         <-     Working                  (at least every KEEPALIVE_INTERVAL_MS)
//!                         <-     Print                    (at most once: print this already)
//!                         <-     Done                     (print, exit)
//!                         <-     RunLocally{report:false} (the wrapper becomes the compiler)
//!                         <-     RunLocally{report:true}  (the wrapper runs the compiler and tells)
//!   Call::LocalDone       ->
//!                         <-     Done                     (the daemon has what it wants to keep)
//!                         <-     or Cancel before that: a remote result won; kill the compiler, then LocalDone, then Done
//! ```
//!
//! Bytes, not texts: what the operating system hands over need not be UTF-8.

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::codec::{Bytes, Message};
use crate::limits::{MAX_ARGUMENTS, MAX_ENVIRONMENT, MAX_ERROR_TEXT_BYTES, MAX_LOCAL_FRAME, MAX_PATH_BYTES};

/// The daemon says it is alive at least this often, in milliseconds. A wrapper that hears nothing for three times as long runs the
/// compiler itself.
pub const KEEPALIVE_INTERVAL_MS: u64 = 500;

/// Variable that tells which `buildbee run` a compile belongs to.
pub const RUN_VARIABLE: &str = "BUILDBEE_RUN";
/// Longest value of it in bytes.
pub const MAX_RUN_BYTES: usize = 64;
/// Longest `PATH` in bytes.
pub const MAX_SEARCH_BYTES: usize = 64 << 10;

/// To the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalRequest {
    /// [`LOCAL_VERSION`](crate::version::LOCAL_VERSION) of the sender. The first field for ever.
    pub version: u32,
    /// What it is about.
    pub call: LocalCall,
}

/// What is asked of the daemon. Order is the wire format: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalCall {
    /// A compiler was started through the wrapper.
    Compile(Invocation),
    /// The compiler that `RunLocally{report: true}` asked for has ended.
    LocalDone(LocalOutcome),
    /// A question or an order from the command line; the answer is JSON.
    Admin(AdminCall),
    /// The other end speaks HTTP from [`LocalReply::Entries`] on: it reads and writes entries of another tool's cache.
    Entries,
}

/// One start of a compiler, as the operating system gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// The compiler's path as found in `PATH` (or as written, where it holds a slash), not resolved further.
    pub program: Bytes,
    /// All arguments, the compiler's own name first. At most `MAX_ARGUMENTS`: a wrapper with more runs the compiler itself.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_ARGUMENTS>")]
    pub argv: Vec<Bytes>,
    /// `NAME=value`, in the order of the environment. At most `MAX_ENVIRONMENT`, like the arguments.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_ENVIRONMENT>")]
    pub env: Vec<Bytes>,
    /// Working directory.
    pub cwd: Bytes,
    /// File mode creation mask.
    pub umask: u32,
    /// Whether standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Width of the terminal on standard input.
    pub columns: Option<u16>,
}

/// How a local compiler ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalOutcome {
    /// Exit code, or 128 plus the signal; `None` where the wrapper killed it on [`LocalReply::Cancel`].
    pub exit_code: Option<i32>,
    /// What it printed (the wrapper has passed it on already). Cut and `complete` unset where it was too much to keep.
    pub stdout: Bytes,
    /// The same for standard error.
    pub stderr: Bytes,
    /// Whether the two above are whole.
    pub complete: bool,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// The recorder's log (see [`crate::record`]), at most `MAX_RECORD_BYTES`, where [`LocalReply::RunLocally`] asked for one.
    pub record: Option<Bytes>,
}

/// From the daemon. Order is the wire format: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalReply {
    /// Still at it.
    Working,
    /// Outputs are in place: print this and exit so.
    Done {
        /// Exit code.
        exit_code: i32,
        /// To print.
        stdout: Bytes,
        /// To print.
        stderr: Bytes,
    },
    /// Run the compiler.
    RunLocally {
        /// Why, as a stable word (`link`, `unknown-option`, `farm-busy` …).
        #[serde(deserialize_with = "bounded::text::<_, MAX_ERROR_TEXT_BYTES>")]
        reason: String,
        /// Whether to tell how it ended.
        report: bool,
        /// Arguments to add after the compiler's name (what a remote run has too, such as colour for a terminal).
        #[serde(deserialize_with = "bounded::texts::<_, MAX_ARGUMENTS, MAX_PATH_BYTES>")]
        extra_arguments: Vec<String>,
        /// `NAME=value`: variables to set, in place of older ones of the same names.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_ENVIRONMENT>")]
        extra_env: Vec<Bytes>,
        /// The recorder's library to preload, after what is preloaded anyway; the log comes back with [`LocalCall::LocalDone`].
        #[serde(deserialize_with = "bounded::optional_text::<_, MAX_PATH_BYTES>")]
        recorder: Option<String>,
        /// Whether `BUILDBEE=strict` forbids this run: print the reason and fail instead.
        strict_failure: bool,
        /// Whether temporary files get a folder of their own, removed afterwards: the run may be killed, or its log tells them by that.
        /// Its name can be seen in what is made (an assembler's listing is headed by the name of the file that it assembled).
        own_temporary_dir: bool,
    },
    /// A remote result won the race: kill the compiler that runs, say [`LocalCall::LocalDone`], wait for [`LocalReply::Done`].
    Cancel,
    /// Answer to [`LocalCall::Admin`], a JSON text.
    Admin {
        /// The document.
        #[serde(deserialize_with = "bounded::text::<_, MAX_LOCAL_FRAME>")]
        json: String,
    },
    /// The sender's version is another one. The daemon leaves when its work is done; start a new one.
    WrongVersion {
        /// The daemon's.
        version: u32,
    },
    /// Print this now: a crate's metadata is in place, and cargo waits for the line that says so. What comes later counts from the beginning:
    /// it is printed without this, and a compile that makes other metadata after all must fail, since others have begun with these.
    Print {
        /// To print on standard error.
        stderr: Bytes,
        /// The file with the metadata, absolute.
        metadata: Bytes,
        /// Arguments to add, as in `RunLocally`, should the wrapper have to run the compiler without hearing more.
        #[serde(deserialize_with = "bounded::texts::<_, MAX_ARGUMENTS, MAX_PATH_BYTES>")]
        extra_arguments: Vec<String>,
    },
    /// Answer to [`LocalCall::Entries`]: HTTP follows.
    Entries,
    /// Still at it, and for a reason that may take a while. Only to wrappers whose standard error is a terminal.
    Waiting {
        /// One line for the user, in place of the last one; empty: nothing any more.
        #[serde(deserialize_with = "bounded::text::<_, MAX_ERROR_TEXT_BYTES>")]
        text: String,
    },
}

/// From the command line. Order is the wire format: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminCall {
    /// Is anybody there?
    Ping,
    /// Farm, peers, cache, slots.
    Status,
    /// Counts with reasons.
    Stats {
        /// Start counting anew after answering.
        zero: bool,
    },
    /// The last actions and why each went where it went.
    Explain {
        /// Only those whose source or output contains this text.
        #[serde(deserialize_with = "bounded::optional_text::<_, MAX_PATH_BYTES>")]
        filter: Option<String>,
        /// At most so many, newest first.
        limit: u32,
    },
    /// Peers of the farm.
    Peers,
    /// Leave once running actions are done.
    Stop,
    /// Read the whole local cache and drop what is bad.
    CacheVerify,
    /// Empty the local cache.
    CacheClear,
    /// What the local cache holds.
    CacheUsage,
    /// The last actions after the one with the number `after`, at most `limit`, and what runs now.
    Activity {
        /// 0 for all that is remembered.
        after: u64,
        /// At most so many.
        limit: u32,
    },
    /// Counts of one `buildbee run`.
    RunStats {
        /// The value of [`RUN_VARIABLE`] in its environment.
        #[serde(deserialize_with = "bounded::text::<_, MAX_RUN_BYTES>")]
        run: String,
    },
    /// Drop from the local cache what is of no use, and the least recently used beyond this size.
    CacheGc {
        /// `None`: the size that the settings allow.
        max_bytes: Option<u64>,
    },
    /// Toolchains that the daemon knows.
    Toolchains,
    /// One of them, with its files.
    Toolchain {
        /// The compiler's path, or the beginning of the toolchain's name.
        #[serde(deserialize_with = "bounded::text::<_, MAX_PATH_BYTES>")]
        which: String,
    },
    /// Read their files, and compare.
    ToolchainVerify {
        /// As above; `None`: all of them.
        #[serde(deserialize_with = "bounded::optional_text::<_, MAX_PATH_BYTES>")]
        which: Option<String>,
    },
    /// Forget those of compilers that have changed or are gone.
    ToolchainGc,
    /// Have every agent make one present.
    ToolchainWarm {
        /// The compiler's path.
        #[serde(deserialize_with = "bounded::text::<_, MAX_PATH_BYTES>")]
        program: String,
        /// `PATH` of who asks.
        #[serde(deserialize_with = "bounded::text::<_, MAX_SEARCH_BYTES>")]
        search: String,
    },
    /// Have every agent make a rustc and its linker present.
    ToolchainWarmRust {
        /// The compiler's path, or that of rustup's stand-in.
        #[serde(deserialize_with = "bounded::text::<_, MAX_PATH_BYTES>")]
        program: String,
        /// `PATH` of who asks.
        #[serde(deserialize_with = "bounded::text::<_, MAX_SEARCH_BYTES>")]
        search: String,
        /// Where it would be called.
        #[serde(deserialize_with = "bounded::text::<_, MAX_PATH_BYTES>")]
        folder: String,
        /// `HOME` of who asks.
        #[serde(deserialize_with = "bounded::optional_text::<_, MAX_PATH_BYTES>")]
        home: Option<String>,
        /// `RUSTUP_HOME`.
        #[serde(deserialize_with = "bounded::optional_text::<_, MAX_PATH_BYTES>")]
        rustup_home: Option<String>,
        /// `RUSTUP_TOOLCHAIN`.
        #[serde(deserialize_with = "bounded::optional_text::<_, MAX_PATH_BYTES>")]
        rustup_toolchain: Option<String>,
        /// What it would compile for; `None`: its own host.
        #[serde(deserialize_with = "bounded::optional_text::<_, MAX_PATH_BYTES>")]
        target: Option<String>,
    },
}

impl Message for LocalRequest {
    const MAX_BYTES: usize = MAX_LOCAL_FRAME;
}
impl Message for LocalReply {
    const MAX_BYTES: usize = MAX_LOCAL_FRAME;
}
