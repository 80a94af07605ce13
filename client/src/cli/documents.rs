//! The daemon's answers as types. The document itself is the contract for scripts; these hold what the screen shows of it. The
//! counts of `stats` are [`crate::journal::Stats`].
//!
//! Unknown keys are skipped and missing ones empty, so that a daemon of another version can still be shown.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The daemon's.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// In seconds.
    pub uptime_s: u64,
    /// Where it listens.
    pub socket: String,
    /// `None` where this user has not joined one.
    pub farm: Option<Farm>,
    /// `None` where there is no cache.
    pub cache: Option<CacheUsage>,
    /// Compilers that run here.
    pub local_slots: LocalSlots,
    /// `off`, `tail` or `eager`.
    pub racing: String,
    /// What runs now.
    pub running: Vec<Running>,
    /// What the daemon does without.
    pub warnings: Vec<String>,
    /// Compilers whose doubles were looked for.
    pub doubles: Vec<Double>,
    /// What ccache and sccache keep.
    pub entries: Entries,
}

/// What ccache and sccache have asked for since the daemon started.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Entries {
    /// Where it is served over HTTP.
    pub http: Option<String>,
    /// Values asked for.
    pub asked: u64,
    /// Values found.
    pub found: u64,
    /// Those of them that peers had.
    pub found_at_peers: u64,
    /// Values put.
    pub put: u64,
    /// Values that peers have not stored yet.
    pub untold: u64,
}

/// What came of looking for a compiler's double.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Double {
    /// The compiler.
    pub compiler: String,
    /// The language that was proved.
    pub language: String,
    /// `proving`, `proved` or `refused`.
    pub state: String,
    /// Which, or why not.
    pub text: String,
}

/// The farm as the daemon sees it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Farm {
    /// Its public key.
    pub id: String,
    /// This member's name.
    pub name: String,
    /// This member's role.
    pub role: String,
    /// Where to get leases.
    pub coordinator: Option<Coordinator>,
    /// Those known.
    pub agents: Vec<Agent>,
    /// Toolchains that agents fetch from here now.
    pub sending: Vec<Sending>,
}

/// A toolchain on its way.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sending {
    /// What the compiler says it is.
    pub toolchain: String,
    /// Who fetches it.
    pub agents: Vec<String>,
    /// Fetched by who is farthest behind.
    pub files: u64,
    /// All.
    pub files_total: u64,
    /// Fetched by who is farthest behind.
    pub bytes: u64,
    /// All.
    pub bytes_total: u64,
    /// At most, in seconds.
    pub left_s: Option<u64>,
}

/// The coordinator as the daemon sees it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Coordinator {
    /// Its identity.
    pub peer: String,
    /// `host:port`.
    pub address: Option<String>,
    /// Whether there is a connection now.
    pub connected: bool,
}

/// An agent as the daemon sees it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub peer: String,
    /// `host:port`.
    pub address: Option<String>,
    /// Whether there is a connection now.
    pub connected: bool,
    /// What it offers in all.
    pub slots: u32,
    /// What this daemon holds of them.
    pub leased: u32,
    /// In how many of them something of ours runs.
    pub running: u32,
    /// How many it has.
    pub toolchains: u64,
}

/// Compilers that run here.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LocalSlots {
    /// At most.
    pub total: u64,
    /// Now.
    pub busy: u64,
}

/// An action that runs now.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Running {
    /// Its source.
    pub source: String,
    /// On which agent, or `local`.
    pub r#where: String,
    /// For how long.
    pub for_ms: u64,
}

/// `explain`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Explained {
    /// Newest first.
    pub actions: Vec<ExplainedAction>,
}

/// One action of `explain`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ExplainedAction {
    /// When it ended.
    pub at_unix: u64,
    /// Working directory.
    pub cwd: String,
    /// As spelled.
    pub source: String,
    /// As spelled.
    pub output: String,
    /// Its path.
    pub compiler: String,
    /// `cached`, `remote` or `local`.
    pub r#where: String,
    /// Which one.
    pub agent: Option<String>,
    /// Why not cached or remote.
    pub reason: Option<String>,
    /// For people.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
    /// From start to end.
    pub wall_ms: u64,
    /// Parts of that, by name.
    pub stages_ms: BTreeMap<String, f64>,
    /// The action's name.
    pub action: Option<String>,
    /// Why its result is of no use to a checkout in another folder.
    pub directory: Option<String>,
    /// Not the user's.
    pub added_arguments: Vec<String>,
    /// On a miss.
    pub inputs: Option<Inputs>,
    /// With the action.
    pub sent_bytes: u64,
    /// Of the result.
    pub received_bytes: u64,
    /// Why it was no direct hit.
    pub miss: Option<Miss>,
}

/// What a compile reads.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Inputs {
    /// Different ones.
    pub files: u64,
    /// In all.
    pub bytes: u64,
    /// Looked for in vain.
    pub absent: u64,
}

/// Why a compile was no direct hit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Miss {
    /// Stable word.
    pub because: String,
    /// From the nearest compile before.
    pub differences: Vec<Difference>,
    /// Not listed.
    pub more: u64,
}

/// One thing that differs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Difference {
    /// Stable word.
    pub kind: String,
    /// Which one.
    pub name: String,
    /// Before.
    pub was: Option<String>,
    /// Now.
    pub now: Option<String>,
}

/// `peers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Peers {
    /// Sorted by identity.
    pub peers: Vec<Peer>,
}

/// One of `peers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Its identity.
    pub peer: String,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// `host:port`.
    pub address: Option<String>,
    /// Whether there is a connection now.
    pub connected: bool,
}

/// `cache usage`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CacheUsage {
    /// Where it is.
    pub dir: String,
    /// Held.
    pub bytes: u64,
    /// Allowed.
    pub max_bytes: u64,
    /// Files.
    pub blobs: u64,
    /// Action results.
    pub results: u64,
    /// Indexes of results.
    pub manifests: u64,
}

/// `cache verify`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CacheVerified {
    /// Files read.
    pub blobs: u64,
    /// Their size.
    pub bytes: u64,
    /// What was damaged and is dropped.
    pub bad: Vec<String>,
    /// Action results read.
    pub results: u64,
}

/// `cache clear`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CacheCleared {
    /// Entries removed.
    pub cleared: u64,
    /// Entries that running actions need.
    pub in_use: u64,
}

/// `cache gc`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CacheCollected {
    /// Results that lacked content.
    pub results: u64,
    /// Indexes that led to none.
    pub manifests: u64,
    /// Entries beyond the size.
    pub evicted: u64,
    /// Room that this made.
    pub bytes: u64,
}

/// `toolchain list`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Toolchains {
    /// Sorted by program.
    pub toolchains: Vec<Toolchain>,
}

/// One of them, and `toolchain show`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Toolchain {
    /// Its name.
    pub id: String,
    /// The compiler.
    pub program: String,
    /// What it says it is.
    pub label: String,
    /// What it runs on.
    pub host: String,
    /// How many.
    pub files: u64,
    /// In all.
    pub bytes: u64,
    /// Whether it is still that.
    pub current: bool,
    /// Those that have it.
    pub agents: Vec<String>,
    /// With `show` alone.
    pub contents: Vec<ToolchainFile>,
}

/// A file of a toolchain.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ToolchainFile {
    /// Where it is here.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// `toolchain verify`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VerifiedToolchains {
    /// Sorted by program.
    pub toolchains: Vec<VerifiedToolchain>,
}

/// One of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VerifiedToolchain {
    /// The compiler.
    pub program: String,
    /// How many were read.
    pub files: u64,
    /// Of the good ones.
    pub bytes: u64,
    /// How many are not as they were.
    pub n_changed: u64,
    /// Which, and why.
    pub changed: Vec<String>,
}

/// `toolchain gc`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CollectedToolchains {
    /// Compilers.
    pub forgotten: Vec<String>,
}

/// `toolchain warm`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WarmedToolchain {
    /// The compiler.
    pub program: String,
    /// Why nothing was done.
    pub error: Option<String>,
    /// Why agents have a rustc alone, and what is linked stays here.
    pub without_linker: Option<String>,
    /// By name.
    pub agents: BTreeMap<String, WarmedAgent>,
}

/// What became of it at one agent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WarmedAgent {
    /// It was there before.
    pub had_it: bool,
    /// Why it has not got it.
    pub error: Option<String>,
    /// From asking to having.
    pub took_ms: u64,
}

/// A document of any kind.
pub fn parse(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}
