//! The agent as a whole: opens what it needs in order, starts its tasks, stops them in order.
//!
//! Start: state folder, key, membership, store, sandbox (tried out for real), node, toolchains; then it listens, and says so. Stop:
//! nothing more is admitted, results that nobody else has are handed on, what runs is cancelled and gone, the node closes, the store
//! last. Not here: what any part does.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use buildbee_p2p::enrolment::{Enrolment, EnrolmentError};
use buildbee_p2p::identity::{Identity, IdentityError};
use buildbee_p2p::node::{self, Inbound, InboundStream, Node, NodeConfig, Sender};
use buildbee_p2p::papers::{Files, Papers, load_roster};
use buildbee_p2p::private_file;
use buildbee_p2p::shares::Shares;
use buildbee_p2p::tasks::Tasks;
use buildbee_proto::control::Offer;
use buildbee_proto::limits::MAX_ADDRESSES_PER_PEER;
use buildbee_proto::peer::{PeerId, Role};
use buildbee_proto::record::LIBRARY;
use buildbee_proto::version::Protocol;
use buildbee_sandbox::cleanup::remove_scratch;
use buildbee_sandbox::idle_group;
use buildbee_sandbox::launcher::{Launcher, StartError};
use buildbee_sandbox::probe::{ProbeFailure, probe};
use buildbee_sandbox::spec::HostParts;
use buildbee_store::{Durability, OpenError, Options, Store};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::compose;
use crate::config::{Mode, Settings};
use crate::doubles::{Doubles, keep_task};
use crate::exchange::adopt::{adopt_task, adopter};
use crate::exchange::announce::{Announcer, ToAnnounce, announce_task, announcer};
use crate::exchange::cache::CacheServer;
use crate::exchange::fetch::Fetcher;
use crate::exchange::kept::Kept;
use crate::exchange::lasting::{lasting, lasting_task};
use crate::exchange::repair::{Repair, repair_task};
use crate::exchange::scrub::{Scrubber, scrub_task};
use crate::exchange::serve::BlobServer;
use crate::exchange::small::Small;
use crate::executor::sandboxed::{Holders, Parts};
use crate::lease::actor::{Heartbeat, heartbeat_task};
use crate::lease::core::Core;
use crate::lease::slots::Slots;
use crate::nix_cache::ask::Askers;
use crate::nix_cache::database::Database;
use crate::nix_cache::http;
use crate::nix_cache::serve::StorePathServer;
use crate::nix_sources::sources::NixSources;
use crate::owner::core::{Core as OwnerCore, Phase, Policy};
use crate::owner::gate::Gate;
use crate::owner::history::{History, ToWrite, history_task};
use crate::owner::signals;
use crate::owner::watch::{Watch, watch_task};
use crate::recorder::Recorder;
use crate::session::{Sessions, Terms};
use crate::state::{StateDir, StateError};
use crate::toolchain::{Changed, Making, Toolchains, host};
use crate::workspace::folders::Folders;
use crate::workspace::memory::{MemoryFolder, SHARED_MEMORY};

/// Streams of all peers served at once; further ones are reset, and their openers try again or elsewhere.
const MAX_STREAMS: usize = 1024;
/// Those of one peer, so that no single one can take them all.
const MAX_STREAMS_PER_PEER: usize = 256;
/// How long others may take to store what this agent alone has.
const HAND_OFF_GRACE: Duration = Duration::from_secs(1);
/// How long what runs may take to be gone.
const STOP_GRACE: Duration = Duration::from_millis(1500);
/// How long the connections may take to close.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// Why the agent does not start. Each is for the person who starts it.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The state folder is of no use.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key is of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The membership can't be read.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// There is none.
    #[error(
        "this machine has not joined a farm\nhint: run `buildbee-coordinator invite --role agent` at the coordinator, then \
         `buildbee-agent join TICKET` here"
    )]
    NotJoined,
    /// It is for a client or a coordinator.
    #[error("this machine's membership is for a {role}, not for an agent\nhint: join again with a ticket for an agent")]
    Role {
        /// What it is for.
        role: Role,
    },
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Actions can't be run in a sandbox here, and are never run without one.
    #[error("this machine can't run actions in a sandbox: {0}")]
    Sandbox(#[from] ProbeFailure),
    /// The sandbox's helper does not start.
    #[error(transparent)]
    Launcher(#[from] StartError),
    /// The node does not start.
    #[error(transparent)]
    Node(#[from] node::StartError),
    /// No random numbers.
    #[error("no random numbers: {0}\nhint: the kernel must offer getrandom")]
    Random(getrandom::Error),
    /// Nix's address can't be listened at.
    #[error(
        "cannot serve Nix at {address}: {source}\nhint: another program may be there; set nix_cache to another port"
    )]
    NixCache {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The ready file can't be written.
    #[error("ready file {}: {source}\nhint: check the folder that --ready-file names", file.display())]
    Ready {
        /// Which.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    node: Node,
    slots: Slots,
    announcer: Announcer,
    tasks: Tasks,
    addresses: Vec<String>,
    nix_cache: Option<SocketAddr>,
}

/// What looks after results.
struct Results {
    kept: Kept,
    to_announce: ToAnnounce,
    seen_file: PathBuf,
    gone_after: Duration,
    scrub_every: Duration,
}

/// What this agent's machine has for others besides blobs and results.
struct Answers {
    store_paths: StorePathServer,
    doubles: Doubles,
    papers: Papers,
}

#[derive(Debug)]
struct RingSlots(Slots);

impl Changed for RingSlots {
    fn changed(&self) {
        self.0.ring();
    }
}

impl Agent {
    /// Starts an agent on the current runtime.
    pub async fn start(settings: &Settings) -> Result<Self, ServeError> {
        let at = |source| StateError { dir: settings.state_dir.clone(), source };
        let state = StateDir::open(&settings.state_dir)?;
        if let Some(file) = &settings.ready_file {
            // One of an earlier run would make somebody believe this one is ready.
            drop(fs::remove_file(file));
        }
        let identity = Identity::load_or_create(&state.identity())?;
        let enrolment = enrolled(&state)?;
        let options = Options { max_bytes: settings.cache_bytes, durability: Durability::Asked };
        let (store, recovery) = Store::open_packed(&state.store(), &options)?;
        tracing::info!(?recovery, "store is open");
        let workspaces = fresh_folder(&state.workspaces()).map_err(at)?;
        let capabilities = probe(&settings.sandbox, &settings.bwrap, &workspaces).await?;
        tracing::info!(?capabilities, "the sandbox works");
        let memory = memory_folder(settings).await;
        let launcher = launcher(settings, &state, memory.as_ref()).await?;
        let (node, inbound) = node::start(network(settings, &state, &identity, &enrolment)).await?;
        let tasks = Tasks::new();
        let slots = slots(settings, node.peer())?;
        let (phase, gate) = Gate::new();
        let making = making(settings, &store, &tasks, (gate.clone(), &slots));
        let toolchains = Toolchains::open(&state.toolchains(), making).map_err(at)?;
        let addresses = addresses(settings, &node);
        let (announcer, to_announce) = announcer();
        let mut agent = Self { node, slots, announcer, tasks, addresses, nix_cache: None };
        let (neighbours, holders) = watch::channel(Arc::default());
        let fetcher = Fetcher::new(agent.node.clone(), store.clone());
        agent.start_nix_cache(settings, &holders).await?;
        let papers = agent.start_papers(&state, &enrolment);
        agent.start_heartbeat(settings, &enrolment, toolchains.clone(), neighbours, papers.clone());
        let (history, to_write) = History::open(state.path());
        agent.start_watch(settings, &state, launcher.clone(), phase, (&history, to_write));
        let doubles = Doubles::new(state.doubles(), store.clone());
        let keeping = keep_task(doubles.clone(), toolchains.clone(), fetcher.clone(), agent.tasks.token());
        agent.tasks.spawn("doubles", keeping);
        let parts = Parts {
            identity,
            store: store.clone(),
            small: Small::default(),
            fetcher: fetcher.clone(),
            toolchains,
            launcher,
            holders,
            folders: Folders::new(workspaces, memory, &agent.tasks),
            recorder: recorder(settings, &state).map_err(at)?,
            slots: agent.slots.clone(),
            gate: gate.clone(),
            limits: settings.limits,
        };
        let results = Results {
            kept: Kept::new(store.clone()),
            to_announce,
            seen_file: state.seen(),
            gone_after: settings.repair_after,
            scrub_every: settings.scrub_every,
        };
        let store_paths = StorePathServer::new(Database::open(&settings.nix_root));
        let answers = Answers { store_paths, doubles, papers };
        let blocked = settings.owner.blocked.clone().into();
        let terms = Terms { slots: agent.slots.clone(), gate, history, blocked };
        agent.start_serving(parts, terms, answers, fetcher, results, inbound);
        if let Some(file) = &settings.ready_file {
            agent.say_ready(file)?;
        }
        tracing::info!(peer = %agent.node.peer(), addresses = ?agent.addresses, n_slots = agent.slots.n_slots(), mode = %settings.mode, "up");
        Ok(agent)
    }

    /// This agent's id.
    pub fn peer(&self) -> PeerId {
        self.node.peer()
    }

    /// Where it can be reached.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Slots in use now.
    pub fn n_busy(&self) -> usize {
        self.slots.n_busy()
    }

    fn start_papers(&self, state: &StateDir, enrolment: &Enrolment) -> Papers {
        let files = Files { enrolment: state.enrolment(), roster: state.roster(), neighbours: state.neighbours() };
        let papers = Papers::new(self.node.clone(), enrolment.clone(), files);
        self.tasks.spawn("papers", papers.clone().upkeep_task(self.tasks.token()));
        papers
    }

    fn start_heartbeat(
        &self,
        settings: &Settings,
        enrolment: &Enrolment,
        toolchains: Toolchains,
        neighbours: watch::Sender<Arc<Vec<buildbee_proto::control::AgentInfo>>>,
        papers: Papers,
    ) {
        let name =
            if settings.name.is_empty() { enrolment.membership.value.name.clone() } else { settings.name.clone() };
        let n_cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        let offer = Offer { name, host: host(), n_cores, addresses: self.addresses.clone(), ..Offer::default() };
        let heartbeat = Heartbeat {
            node: self.node.clone(),
            coordinator: enrolment.coordinator,
            slots: self.slots.clone(),
            toolchains,
            offer,
            neighbours,
            papers,
        };
        self.tasks.spawn("heartbeat", heartbeat_task(heartbeat, self.tasks.token()));
    }

    async fn start_nix_cache(&mut self, settings: &Settings, agents: &Holders) -> Result<(), ServeError> {
        let Some(address) = settings.nix_cache else { return Ok(()) };
        let failed = |source| ServeError::NixCache { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        self.nix_cache = Some(listener.local_addr().map_err(failed)?);
        let askers = Askers::new(self.node.clone(), agents.clone(), self.tasks.clone());
        let serve = http::serve_task(listener, askers, self.tasks.clone(), self.tasks.token());
        self.tasks.spawn("binary caches", serve);
        Ok(())
    }

    /// From here on nothing is lent that the owner does not leave over.
    fn start_watch(
        &self,
        settings: &Settings,
        state: &StateDir,
        launcher: Launcher,
        phase: watch::Sender<Phase>,
        (history, to_write): (&History, ToWrite),
    ) {
        if settings.mode != Mode::Dedicated {
            self.slots.lend(0);
        }
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let watch = Watch {
            core: OwnerCore::new(Policy::of(settings, n_cores)),
            mode: settings.mode,
            signals: signals::all(settings, state, history, &self.tasks),
            slots: self.slots.clone(),
            launcher,
            phase,
            status_file: state.status(),
        };
        self.tasks.spawn("owner", watch_task(watch, self.tasks.token()));
        self.tasks.spawn("history", history_task(to_write, state.path().to_owned()));
    }

    fn start_serving(
        &self,
        parts: Parts,
        terms: Terms,
        answers: Answers,
        fetcher: Fetcher,
        results: Results,
        inbound: Inbound,
    ) {
        let store = parts.store.clone();
        let Answers { store_paths, doubles, papers } = answers;
        let Results { kept, to_announce, seen_file, gone_after, scrub_every } = results;
        let arriving = fetcher.arriving().clone();
        let (node, announcer) = (self.node.clone(), self.announcer.clone());
        let stop = || self.tasks.token();
        let small = parts.small.clone();
        let announcing = announce_task(node.clone(), store.clone(), small.clone(), kept.clone(), to_announce, stop());
        self.tasks.spawn("announce", announcing);
        let (adopter, to_adopt) = adopter(node.clone(), store.clone(), kept.clone());
        self.tasks.spawn("adopt", adopt_task(adopter.clone(), fetcher.clone(), to_adopt, stop()));
        let scrubber = Scrubber {
            store: store.clone(),
            node: node.clone(),
            fetcher,
            toolchains: parts.toolchains.clone(),
            slots: self.slots.clone(),
            every: scrub_every,
        };
        self.tasks.spawn("scrub", scrub_task(scrubber, stop()));
        let (lasting, to_last) = lasting();
        self.tasks.spawn("lasting", lasting_task(store.clone(), to_last, stop()));
        let (cache, was_read) = CacheServer::new(store.clone(), (adopter, lasting), kept.clone(), doubles);
        let repair = Repair {
            node: node.clone(),
            store: store.clone(),
            announcer: announcer.clone(),
            slots: self.slots.clone(),
            seen_file,
            gone_after,
        };
        self.tasks.spawn("repair", repair_task(repair, was_read, stop()));
        let executor = compose::executor(parts, store.clone(), announcer, kept, node, self.tasks.clone());
        let servers = Servers {
            blobs: BlobServer::new(store.clone(), small.clone(), arriving.clone()),
            cache,
            store_paths,
            papers,
            sessions: Sessions::new(store, small, arriving, terms, executor, self.tasks.clone()),
        };
        self.tasks.spawn("accept", accept_task(inbound, servers, self.tasks.clone()));
    }

    fn say_ready(&self, file: &Path) -> Result<(), ServeError> {
        let ready = serde_json::json!({ "peer": self.peer().to_string(), "addresses": self.addresses, "nix_cache": self.nix_cache });
        let failed = |source| ServeError::Ready { file: file.to_owned(), source };
        private_file::replace(file, format!("{ready}\n").as_bytes()).map_err(failed)
    }

    /// Gives results that are nowhere else yet to those who should have them: before an end, or before the machine sleeps. Takes a
    /// second at most, and no time where there are none.
    pub async fn hand_off(&self) {
        match tokio::time::timeout(HAND_OFF_GRACE, self.announcer.hand_off()).await {
            Ok(0) => {}
            Ok(n_owed) => tracing::info!(n_owed, "results stay with this agent alone: nobody is there to take them"),
            Err(_) => tracing::info!("not all results could be handed on in time"),
        }
    }

    /// Admits nothing more, hands on what nobody else has, ends what runs, closes. Takes about three seconds at most.
    pub async fn stop(self) {
        self.slots.drain();
        self.hand_off().await;
        self.tasks.stop(STOP_GRACE).await;
        if tokio::time::timeout(CLOSE_GRACE, self.node.shutdown()).await.is_err() {
            tracing::debug!("connections did not close in time");
        }
    }
}

/// What toolchains are made with.
fn making(settings: &Settings, store: &Store, tasks: &Tasks, (gate, slots): (Gate, &Slots)) -> Making {
    let elsewhere = NixSources::new(settings.nix_sources(), store.clone(), tasks.clone());
    Making {
        store: store.clone(),
        tasks: tasks.clone(),
        gate,
        changed: Box::new(RingSlots(slots.clone())),
        elsewhere: Some(Box::new(elsewhere)),
    }
}

fn slots(settings: &Settings, peer: PeerId) -> Result<Slots, ServeError> {
    let boot_id = getrandom::u64().map_err(ServeError::Random)?;
    Ok(Slots::new(Core::new(peer, boot_id, settings.n_slots)))
}

/// An empty folder where there may be leftovers of actions, with folders that their programs made inaccessible.
fn fresh_folder(dir: &Path) -> io::Result<PathBuf> {
    if dir.exists() {
        for entry in fs::read_dir(dir)? {
            remove_scratch(&entry?.path()).map_err(|error| error.source)?;
        }
    }
    fs::create_dir_all(dir)?;
    Ok(dir.to_owned())
}

/// What `join` kept.
fn enrolled(state: &StateDir) -> Result<Enrolment, ServeError> {
    let enrolment = Enrolment::load(&state.enrolment())?.ok_or(ServeError::NotJoined)?;
    match enrolment.membership.value.role {
        Role::Agent => Ok(enrolment),
        role => Err(ServeError::Role { role }),
    }
}

fn network(settings: &Settings, state: &StateDir, identity: &Identity, enrolment: &Enrolment) -> NodeConfig {
    NodeConfig {
        identity: identity.clone(),
        membership: enrolment.membership.clone(),
        roster: load_roster(&state.roster(), enrolment.membership.value.farm),
        listen: settings.listen.clone(),
        mdns: settings.mdns,
        accept_joins: false,
    }
}

fn recorder(settings: &Settings, state: &StateDir) -> std::io::Result<Option<Recorder>> {
    let recorder = Recorder::make(fresh_folder(&state.recorder())?, &settings.sandbox)?;
    if recorder.is_none() {
        tracing::warn!("{LIBRARY} is not beside buildbee-sandbox: no action is recorded");
    }
    Ok(recorder)
}

/// A place in memory for the folders of actions, if there is one in which the sandbox works.
async fn launcher(
    settings: &Settings,
    state: &StateDir,
    memory: Option<&MemoryFolder>,
) -> Result<Launcher, StartError> {
    let group = if settings.limits.gives_way { idle_group::place() } else { None };
    let folders = [state.path()].into_iter().chain(memory.map(MemoryFolder::path)).map(Path::to_owned).collect();
    Launcher::with(&settings.sandbox, &settings.bwrap, HostParts { group, folders }).await
}

async fn memory_folder(settings: &Settings) -> Option<MemoryFolder> {
    let made = MemoryFolder::make(Path::new(SHARED_MEMORY));
    let memory =
        made.inspect_err(|error| tracing::warn!(%error, "no folder in memory: actions run on the disk")).ok()??;
    match probe(&settings.sandbox, &settings.bwrap, memory.path()).await {
        Ok(_) => Some(memory),
        Err(error) => {
            tracing::info!(%error, "the sandbox does not work in memory: actions run on the disk");
            None
        }
    }
}

/// What others are told: what is configured, else where the node listens. Addresses of the machine itself only where there is no
/// other, as in trials on one machine.
fn addresses(settings: &Settings, node: &Node) -> Vec<String> {
    let mut addresses = if settings.advertise.is_empty() { node.listening() } else { settings.advertise.clone() };
    let is_own = |address: &String| address.starts_with("127.") || address.starts_with("[::1]");
    if addresses.iter().any(|address| !is_own(address)) {
        addresses.retain(|address| !is_own(address));
    }
    addresses.truncate(MAX_ADDRESSES_PER_PEER);
    addresses
}

#[derive(Clone, Debug)]
struct Servers {
    blobs: BlobServer,
    cache: CacheServer,
    store_paths: StorePathServer,
    papers: Papers,
    sessions: Sessions,
}

async fn accept_task(mut inbound: Inbound, servers: Servers, tasks: Tasks) {
    let permits = Arc::new(Semaphore::new(MAX_STREAMS));
    let shares = Shares::new(MAX_STREAMS_PER_PEER);
    let stop = tasks.token();
    while let Some(Some(arrived)) = stop.run_until_cancelled(inbound.next()).await {
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tracing::debug!("too many streams at once; one is reset");
            continue;
        };
        let Some(share) = shares.take(arrived.from.peer()) else {
            tracing::debug!(peer = %arrived.from.peer().short(), "too many streams of one peer; one is reset");
            continue;
        };
        let servers = servers.clone();
        tasks.spawn("stream", async move {
            servers.serve(arrived).await;
            drop((permit, share));
        });
    }
}

impl Servers {
    async fn serve(&self, arrived: InboundStream) {
        let InboundStream { from, protocol, stream } = arrived;
        let Sender::Member { peer, role, name } = &from else { return };
        match (protocol, role) {
            // Not the coordinator: it never sees content.
            (Protocol::Blob, Role::Client | Role::Agent) => self.blobs.serve(*peer, stream).await,
            (Protocol::Cache, Role::Client | Role::Agent) => self.cache.serve(&from, stream).await,
            (Protocol::Papers, _) => self.papers.answer(*peer, stream).await,
            (Protocol::StorePath, Role::Agent) => self.store_paths.serve(*peer, stream).await,
            // An agent's machine has users who build, too.
            (Protocol::Action, Role::Client | Role::Agent) => self.sessions.serve(*peer, name, stream).await,
            _ => tracing::debug!(peer = %peer.short(), protocol = protocol.id(), "not served here"),
        }
    }
}
