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

/// A document of any kind.
pub fn parse(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}
