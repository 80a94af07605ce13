//! Everything that a session needs, put together once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use buildbee_p2p::identity::Identity;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cache::LocalCache;
use super::crates::by_content::CrateFiles;
use super::crates::sessions::Sessions;
use super::view::View;
use crate::config::Settings;
use crate::dispatch::farm::Farm;
use crate::doubles::Doubles;
use crate::doubles::memory::Memory;
use crate::entries::http::Endpoint;
use crate::inputs::discover::Discovery;
use crate::inputs::filehash::FileHashes;
use crate::journal::activity::{Action, Activity, Ongoing};
use crate::journal::stages::StageClock;
use crate::journal::{Journal, Record, Where, Why};
use crate::locale::Locales;
use crate::toolchain::Toolchains;
use crate::toolchain::native::Natives;
use crate::toolchain::rust::RustToolchains;
use crate::toolchain::speech::Speech;

/// Shared by all sessions.
#[derive(Debug)]
pub struct Context {
    /// As loaded at the start.
    pub settings: Settings,
    /// Signs what this client makes itself.
    pub identity: Identity,
    /// What became of every action.
    pub journal: Journal,
    /// Digests by what the kernel says.
    pub hashes: FileHashes,
    /// Compilers by path.
    pub toolchains: Toolchains,
    /// Rust's compilers by path.
    pub rustcs: RustToolchains,
    /// Whose the incremental sessions are.
    pub sessions: Sessions,
    /// The library that watches what a compiler asks for, if there is one.
    pub recorder: Option<PathBuf>,
    /// What this machine's processor is to them.
    pub natives: Natives,
    /// How compilers out of stores speak.
    pub speech: Speech,
    /// Compilers that agents of another architecture run in their place.
    pub doubles: Doubles,
    /// Locales of users.
    pub locales: Locales,
    /// Inputs of compiles.
    pub discovery: Discovery,
    /// What files of crates tell.
    pub crate_files: CrateFiles,
    /// Results so far.
    pub cache: LocalCache,
    /// The farm, if the user has joined one.
    pub farm: Option<Farm>,
    /// What ccache and sccache keep.
    pub entries: Endpoint,
    /// Actions that may run here by choice.
    pub local_slots: Arc<Semaphore>,
    /// One wrapper at a time tells its user what it waits for.
    pub speaking: Arc<Semaphore>,
    /// Ends the daemon.
    pub stop: CancellationToken,
    /// Problems found at the start that the user should hear of in `status`.
    pub warnings: Vec<String>,
    /// When the daemon started.
    pub started: Instant,
    /// Sessions under way.
    pub n_sessions: AtomicUsize,
    /// Moves with every connection; what the idle watch looks at.
    pub n_calls: AtomicU64,
    next_running: AtomicU64,
    own_view: Option<View>,
    running: Mutex<BTreeMap<u64, Running>>,
}

/// An action under way, for `status`.
#[derive(Clone, Debug)]
struct Running {
    source: PathBuf,
    place: String,
    since: Instant,
    /// When it came to `place`.
    moved: Instant,
    outputs: Vec<PathBuf>,
    /// Whether another action that wrote one of the outputs was under way at the same time.
    contested: bool,
}

/// Keeps an action in the list of those under way until dropped.
#[derive(Debug)]
pub struct RunningEntry {
    context: Arc<Context>,
    id: u64,
}

impl RunningEntry {
    /// Where the action is now.
    pub fn at(&self, place: &str) {
        if let Some(running) = self.context.running().get_mut(&self.id)
            && running.place != place
        {
            place.clone_into(&mut running.place);
            running.moved = Instant::now();
        }
    }

    /// Whether another action wrote one of the same outputs meanwhile: then nobody knows whose content stands there.
    pub fn contested(&self) -> bool {
        self.context.running().get(&self.id).is_none_or(|running| running.contested)
    }
}

impl Drop for RunningEntry {
    fn drop(&mut self) {
        self.context.running().remove(&self.id);
    }
}

/// The parts that differ from start to start.
#[derive(Debug)]
pub struct Parts {
    /// See [`Context`].
    pub settings: Settings,
    /// See [`Context`].
    pub identity: Identity,
    /// See [`Context`].
    pub cache: LocalCache,
    /// See [`Context`].
    pub hashes: FileHashes,
    /// See [`Context`].
    pub farm: Option<Farm>,
    /// See [`Context`].
    pub entries: Endpoint,
    /// See [`Context`].
    pub recorder: Option<PathBuf>,
    /// See [`Context`].
    pub journal: Journal,
    /// See [`Context`].
    pub warnings: Vec<String>,
}

impl Context {
    /// From its parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { settings, identity, cache, hashes, farm, entries, recorder, journal, warnings } = parts;
        Arc::new(Self {
            toolchains: Toolchains::new(hashes.clone()).with_stores(settings.outboard.clone()),
            rustcs: RustToolchains::new(hashes.clone()),
            sessions: Sessions::default(),
            recorder,
            natives: Natives::default(),
            speech: Speech::default(),
            doubles: Doubles::new(
                Memory::open(settings.doubles_file()),
                settings.doubles_file().with_file_name("twins"),
            ),
            locales: Locales::default(),
            discovery: Discovery::new(hashes.clone()),
            crate_files: CrateFiles::default(),
            local_slots: Arc::new(Semaphore::new(settings.local_slots.min(Semaphore::MAX_PERMITS))),
            speaking: Arc::new(Semaphore::new(1)),
            stop: CancellationToken::new(),
            started: Instant::now(),
            n_sessions: AtomicUsize::new(0),
            n_calls: AtomicU64::new(0),
            next_running: AtomicU64::new(0),
            own_view: View::own(),
            running: Mutex::default(),
            settings,
            identity,
            journal,
            hashes,
            cache,
            farm,
            entries,
            warnings,
        })
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this daemon sees the files that the process `pid` sees.
    pub fn sees_what(&self, pid: i32) -> bool {
        self.own_view.is_some() && View::of_process(pid) == self.own_view
    }

    /// Lists an action as under way that writes `outputs` (absolute).
    pub fn runs(self: &Arc<Self>, source: PathBuf, outputs: Vec<PathBuf>) -> RunningEntry {
        let id = self.next_running.fetch_add(1, Ordering::Relaxed);
        let mut running = self.running();
        let mut contested = false;
        for other in running.values_mut().filter(|other| other.outputs.iter().any(|path| outputs.contains(path))) {
            other.contested = true;
            contested = true;
        }
        let place = "looking".to_owned();
        let now = Instant::now();
        running.insert(id, Running { source, place, since: now, moved: now, outputs, contested });
        drop(running);
        RunningEntry { context: Arc::clone(self), id }
    }

    /// Writes an action into the journal whose time `clock` measured.
    pub fn ended(&self, record: Record, clock: &StageClock, place: Where, why: Option<Why>) {
        let (reason, text) = match why {
            Some((reason, text)) => (Some(reason), text),
            None => (None, String::new()),
        };
        let (wall_ms, stages) = (u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX), clock.stages());
        let (started_us, ended_us, spans) = (self.moment(clock.started()), self.now_us(), clock.spans());
        let at_unix = unix_now();
        let times = Record { at_unix, wall_ms, stages, started_us, ended_us, spans, ..record };
        self.journal.ended(Record { r#where: place, reason, text, ..times });
    }

    /// In microseconds after the daemon began.
    fn moment(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    fn now_us(&self) -> u64 {
        self.moment(Instant::now())
    }

    /// What has happened after action number `after`, the last `limit` of it, and what happens now.
    pub fn activity(&self, after: u64, limit: usize) -> Activity {
        let (actions, last) = self.journal.since(after, limit, Action::of);
        let running = (self.running().iter())
            .map(|(id, entry)| Ongoing {
                id: *id,
                source: entry.source.display().to_string(),
                r#where: entry.place.clone(),
                since_us: self.moment(entry.since),
                moved_us: self.moment(entry.moved),
            })
            .collect();
        Activity {
            now_us: self.now_us(),
            last,
            actions,
            running,
            stats: self.journal.stats(false, 0),
            status: self.status(),
        }
    }

    /// The document of `status --json`.
    pub fn status(&self) -> serde_json::Value {
        let running: Vec<_> = (self.running().values())
            .map(|entry| {
                json!({
                    "source": entry.source.display().to_string(), "where": entry.place,
                    "for_ms": u64::try_from(entry.since.elapsed().as_millis()).unwrap_or(u64::MAX),
                })
            })
            .collect();
        let slots = self.settings.local_slots;
        let warnings: Vec<_> =
            (self.warnings.iter().cloned()).chain(self.cache.trouble()).chain(self.entries.trouble()).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(), "uptime_s": self.started.elapsed().as_secs(),
            "socket": self.settings.socket.display().to_string(),
            "farm": self.farm.as_ref().map(Farm::status), "cache": self.cache_usage(),
            "local_slots": { "total": slots, "busy": slots.saturating_sub(self.local_slots.available_permits()) },
            "racing": self.settings.racing.word(), "running": running, "warnings": warnings,
            "doubles": self.doubles.status(), "entries": self.entries.status(),
        })
    }

    /// The document of `cache usage --json`; `null` where there is no cache.
    pub fn cache_usage(&self) -> serde_json::Value {
        self.cache.store().map_or(serde_json::Value::Null, |store| {
            let usage = store.usage();
            json!({
                "dir": self.settings.cache_dir.display().to_string(), "bytes": usage.bytes, "max_bytes": usage.max_bytes,
                "blobs": usage.blobs, "results": usage.results, "manifests": usage.manifests,
            })
        })
    }
}

/// Seconds since the Unix epoch.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
