//! Starts a daemon: lock, log, identity, cache, farm, socket; and takes it down in the opposite order.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use buildbee_p2p::enrolment::{Enrolment, EnrolmentError};
use buildbee_p2p::identity::{Identity, IdentityError};
use buildbee_p2p::papers::Files;
use buildbee_p2p::private_file;
use buildbee_p2p::tasks::Tasks;
use buildbee_store::{Durability, Options, Store};
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use super::cache::LocalCache;
use super::context::{Context, Parts, unix_now};
use super::{listener, recorder};
use crate::config::Settings;
use crate::dispatch::farm::Farm;
use crate::entries::http::Endpoint;
use crate::entries::shelf::Shelf;
use crate::entries::telling;
use crate::inputs::filehash::FileHashes;
use crate::journal::Journal;

/// Threads that read, hash and write files.
const MAX_BLOCKING_THREADS: usize = 32;
/// How long requests for entries may go on at the end.
const ENTRIES_GRACE: Duration = Duration::from_millis(500);
/// Where the recorder's library is copied if it can't be named to the loader where it is, nor in the state folder.
const TEMPORARY: &str = "/tmp";
/// In the state folder: digests of toolchains' files.
const HASHES_FILE: &str = "hashes";
/// The log is started anew when it has grown to this size.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// Why there is no daemon.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Another one has the lock.
    #[error("a daemon is running already ({lock} is locked)\nhint: `buildbee status` shows it, `buildbee stop` ends it", lock = .0.display())]
    Running(PathBuf),
    /// A folder or file of the daemon's own can't be used.
    #[error("cannot use {path}: {error}\nhint: check who owns it and that its disk is not full or read-only", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The socket's folder is open to others.
    #[error("{path} belongs to somebody else, or others may write to it\nhint: remove it, or set BUILDBEE_SOCKET to a path in a folder of your own", path = .0.display())]
    Exposed(PathBuf),
    /// The identity can't be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The system has no threads or descriptors left.
    #[error("cannot start: {0}\nhint: the system may be out of processes, memory or file descriptors")]
    Runtime(io::Error),
}

/// Threads for what waits; whatever reads, hashes or looks at files has others. With a second one the two wake each
/// other for every step of a compile: 6 to 12 % of the daemon's part of a tiny one.
const N_WORKERS: usize = 1;

/// Runs a daemon until it is told to leave or has been idle for long enough.
pub fn run(settings: &Settings) -> Result<(), DaemonError> {
    let folder = settings.socket.parent().unwrap_or(Path::new("/")).to_owned();
    private_folder(&folder)?;
    let _lock = lock(&settings.socket.with_extension("lock"))?;
    make_folder(&settings.state_dir)?;
    log_to(settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(N_WORKERS)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    let served = runtime.block_on(serve(settings.clone()));
    // Whoever connects from here on finds nobody and starts the next one.
    let _ = fs::remove_file(&settings.socket);
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(settings: Settings) -> Result<(), DaemonError> {
    let mut warnings = Vec::new();
    let identity = Identity::load_or_create(&settings.identity_file())?;
    let hashes = FileHashes::lasting(settings.state_dir.join(HASHES_FILE));
    let store = open_cache(&settings, &mut warnings).await;
    let cache = LocalCache::new(store, &identity, hashes.clone());
    let journal = Journal::new(unix_now());
    let farm = join_farm(&settings, &identity, &journal, &hashes, &mut warnings).await;
    let program = std::env::current_exe().unwrap_or_default();
    let recorder = recorder::find(&program, &settings.state_dir, Path::new(TEMPORARY), &mut warnings);
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let socket = settings.socket.clone();
    let tasks = Tasks::new();
    let entries = open_entries(&settings, &cache, &identity, farm.as_ref(), &tasks).await;
    let context = Context::new(Parts { settings, identity, cache, hashes, farm, entries, recorder, journal, warnings });
    // The lock is ours, so a socket that is there has no owner.
    let _ = fs::remove_file(&socket);
    let file = |error| DaemonError::File { path: socket.clone(), error };
    let listener = UnixListener::bind(&socket).map_err(file)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).map_err(file)?;
    tracing::info!(socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "listening");
    let listened = listener::listen(&context, listener).await;
    tasks.stop(ENTRIES_GRACE).await;
    if let Some(farm) = &context.farm {
        farm.stop().await;
    }
    listened.map_err(DaemonError::Runtime)
}

async fn open_cache(settings: &Settings, warnings: &mut Vec<String>) -> Option<Store> {
    let (folder, max_bytes) = (settings.cache_dir.clone(), settings.cache_bytes);
    let open = tokio::task::spawn_blocking(move || {
        let options = Options { max_bytes, durability: Durability::Lazy };
        make_folder(&folder).map_err(|error| error.to_string())?;
        Store::open_packed(&folder, &options).map_err(|error| error.to_string())
    });
    match open.await.unwrap_or_else(|_| Err("interrupted".to_owned())) {
        Ok((store, recovery)) => {
            tracing::info!(?recovery, "cache opened");
            Some(store)
        }
        Err(error) => {
            warnings.push(format!("no local cache: {error}"));
            None
        }
    }
}

/// What ccache and sccache keep, and who serves it.
async fn open_entries(
    settings: &Settings,
    cache: &LocalCache,
    identity: &Identity,
    farm: Option<&Farm>,
    tasks: &Tasks,
) -> Endpoint {
    let store = cache.store().cloned();
    let queue = farm.cloned().zip(store.clone()).map(|(farm, store)| {
        let (queue, waiting) = telling::queue();
        tasks.spawn("tell of entries", telling::tell_task(farm, store, waiting, tasks.token()));
        queue
    });
    let endpoint = Endpoint::new(Shelf::new(store, identity.clone(), farm.cloned(), queue));
    if let Some(address) = settings.http_cache {
        endpoint.open(address, tasks).await;
    }
    endpoint
}

async fn join_farm(
    settings: &Settings,
    identity: &Identity,
    journal: &Journal,
    hashes: &FileHashes,
    warnings: &mut Vec<String>,
) -> Option<Farm> {
    let enrolment = match Enrolment::load(&settings.enrolment_file()) {
        Ok(enrolment) => enrolment?,
        Err(error) => {
            warnings.push(not_in_farm(&error));
            return None;
        }
    };
    let files = Files {
        enrolment: settings.enrolment_file(),
        roster: settings.state_dir.join("roster"),
        neighbours: settings.state_dir.join("neighbours"),
    };
    match Farm::start(
        identity.clone(),
        (enrolment, files),
        settings.mdns,
        settings.class,
        journal.clone(),
        hashes.clone(),
    )
    .await
    {
        Ok(farm) => Some(farm),
        Err(error) => {
            warnings.push(format!("not connected to the farm: {error}"));
            None
        }
    }
}

fn not_in_farm(error: &EnrolmentError) -> String {
    format!("not connected to the farm: {error}")
}

fn make_folder(folder: &Path) -> Result<(), DaemonError> {
    private_file::make_folder(folder).map_err(|error| DaemonError::File { path: folder.to_owned(), error })
}

/// The socket's folder must be ours alone: who can write to it can pose as the daemon.
fn private_folder(folder: &Path) -> Result<(), DaemonError> {
    make_folder(folder)?;
    let meta = fs::symlink_metadata(folder).map_err(|error| DaemonError::File { path: folder.to_owned(), error })?;
    if !meta.is_dir() || meta.uid() != nix::unistd::getuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Err(DaemonError::Exposed(folder.to_owned()));
    }
    Ok(())
}

fn lock(path: &Path) -> Result<Flock<File>, DaemonError> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|error| DaemonError::File { path: path.to_owned(), error })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => DaemonError::Running(path.to_owned()),
        errno => DaemonError::File { path: path.to_owned(), error: errno.into() },
    })
}

fn log_to(settings: &Settings) -> Result<(), DaemonError> {
    let path = settings.log_file();
    let long = fs::metadata(&path).is_ok_and(|meta| meta.len() > MAX_LOG_BYTES);
    let file = OpenOptions::new().write(true).create(true).append(!long).truncate(long).mode(0o600).open(&path);
    let file = file.map_err(|error| DaemonError::File { path, error })?;
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber in one process is a test's doing, and does no harm.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file)).try_init();
    Ok(())
}
