//! The running coordinator: composes farm, node, scheduler and streams, and takes them down in order.
//!
//! Life: [`Coordinator::start`] returns once it listens; [`Coordinator::stop`] ends new streams first, then those that run, then the
//! connections. Not here: signals and process exit (`main`).

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use buildbee_p2p::node::{self, Node, NodeConfig, StartError};
use buildbee_p2p::private_file;
use buildbee_p2p::tasks::Tasks;
use buildbee_proto::limits::MAX_ADDRESSES_PER_PEER;
use buildbee_proto::membership::UnixSeconds;
use serde::Serialize;
use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::addresses::guess;
use crate::membership::farm::{Farm, FarmError};
use crate::papers::Papers;
use crate::rpc::{self, Rpc};
use crate::scheduler::actor;
use crate::scheduler::handle::SchedulerHandle;
use crate::status::host::OwnNames;
use crate::status::server::{Source, StatusServer};

/// How often to look whether another process changed the roster.
const ROSTER_POLL: Duration = Duration::from_secs(1);
/// How long streams may take to end.
const STREAM_GRACE: Duration = Duration::from_millis(300);
/// How long the connections may take to close.
const NODE_GRACE: Duration = Duration::from_millis(400);

/// Why the coordinator does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The farm.
    #[error(transparent)]
    Farm(#[from] FarmError),
    /// The network.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Nobody could be told that it runs.
    #[error("ready file {}: {source}\nhint: its folder must exist and be writable", file.display())]
    ReadyFile {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The operating system.
    #[error("{what}: {source}\nhint: the machine is short of something; see the system's log")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The network ended by itself.
    #[error("the network stopped unexpectedly\nhint: this is a bug; please report it with the log")]
    NodeStopped,
}

/// What the ready file says.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    peer: String,
    farm: String,
    addresses: &'a [String],
    /// Where the status page is, if it could be put there at once.
    status: Option<String>,
}

/// Where a coordinator is, and where others are.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether to answer by multicast.
    pub mdns: bool,
    /// Where members reach it; a guess if empty.
    pub addresses: Vec<String>,
    /// Members to dial while nobody calls.
    pub members: Vec<String>,
}

/// A coordinator that listens.
#[derive(Debug)]
pub struct Coordinator {
    node: Node,
    scheduler: SchedulerHandle,
    accepting: CancellationToken,
    tasks: Tasks,
    status: Option<StatusServer>,
}

impl Coordinator {
    /// Starts the coordinator of `farm` on the current runtime. Returns once it listens.
    pub async fn start(farm: Farm, places: Places, name: &str, now: UnixSeconds) -> Result<Self, ServeError> {
        let Places { listen, mdns, mut addresses, members } = places;
        let config = NodeConfig {
            identity: farm.identity().clone(),
            membership: farm.own_membership(name, now),
            roster: farm.read_roster()?,
            listen: vec![listen.to_string()],
            mdns,
            accept_joins: true,
        };
        let (node, inbound) = Box::pin(node::start(config)).await?;
        let (scheduler_actor, scheduler) = actor::new();
        let tasks = Tasks::new();
        let accepting = tasks.token().child_token();
        if let Some(bound) = node.listening().iter().find_map(|address| address.parse::<SocketAddr>().ok()) {
            let listening = SocketAddr::new(listen.ip(), bound.port());
            farm.note_listening(listening)?;
            if addresses.is_empty() {
                // Without one, members go on with the address that they joined at.
                addresses = guess(listening).unwrap_or_default();
            }
        }
        addresses.truncate(MAX_ADDRESSES_PER_PEER);
        let farm = Arc::new(farm);
        let papers = Papers::new(Arc::clone(&farm), node.clone(), addresses)?;
        tasks.spawn("consult", papers.clone().consult_task(members, tasks.clone()));
        tasks.spawn("scheduler", scheduler_actor.run(tasks.token()));
        tasks.spawn("roster", roster_task(Arc::clone(&farm), node.clone(), tasks.token()));
        let rpc = Rpc {
            scheduler: scheduler.clone(),
            farm,
            node: node.clone(),
            papers,
            roster_log: Arc::default(),
            tasks: tasks.clone(),
        };
        let accept = rpc::serve(inbound, rpc, accepting.clone());
        let ended = accepting.clone();
        tasks.spawn("accept", async move {
            accept.await;
            ended.cancel();
        });
        Ok(Self { node, scheduler, accepting, tasks, status: None })
    }

    /// Shows what goes on at `address`, to those who ask for this machine.
    pub fn show_status(&mut self, address: SocketAddr, names: OwnNames) -> Result<(), ServeError> {
        let (scheduler, node) = (self.scheduler.clone(), self.node.clone());
        let name = node.membership().name.clone();
        let source = Source { scheduler, node, name, started: Instant::now() };
        let what = "starting the status page";
        let started = StatusServer::start(address, names, source);
        self.status = Some(started.map_err(|source| ServeError::System { what, source })?);
        Ok(())
    }

    /// Where the status page is, if it could be put there at once.
    pub fn status_address(&self) -> Option<SocketAddr> {
        self.status.as_ref()?.address()
    }

    /// Where it listens, as `host:port` with real ports.
    pub fn addresses(&self) -> Vec<String> {
        self.node.listening()
    }

    /// The scheduler.
    pub fn scheduler(&self) -> &SchedulerHandle {
        &self.scheduler
    }

    /// Writes the ready file.
    pub fn write_ready_file(&self, file: &Path) -> Result<(), ServeError> {
        let membership = self.node.membership();
        let addresses = self.addresses();
        let ready = Ready {
            peer: self.node.peer().to_string(),
            farm: membership.farm.to_string(),
            addresses: &addresses,
            status: self.status_address().map(|address| address.to_string()),
        };
        let failed = |source| ServeError::ReadyFile { file: file.to_owned(), source };
        let mut text = serde_json::to_vec(&ready).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        private_file::replace(file, &text).map_err(failed)
    }

    /// Ends when no stream is taken in any more although nobody called [`stop`](Self::stop). Cancel-safe.
    pub async fn failed(&self) -> ServeError {
        self.accepting.cancelled().await;
        ServeError::NodeStopped
    }

    /// Takes everything down in order, within a second.
    pub async fn stop(self) {
        self.accepting.cancel();
        if let Some(status) = self.status {
            status.stop().await;
        }
        self.tasks.stop(STREAM_GRACE).await;
        if tokio::time::timeout(NODE_GRACE, self.node.shutdown()).await.is_err() {
            tracing::debug!("connections did not close in time");
        }
    }
}

/// Hands the roster to the node whenever `revoke`, in another process, has replaced it.
async fn roster_task(farm: Arc<Farm>, node: Node, token: CancellationToken) {
    let file = farm.roster_file();
    let mut seen = None;
    let mut polls = interval(ROSTER_POLL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while token.run_until_cancelled(polls.tick()).await.is_some() {
        // Replaced files have another inode, even within the clock's resolution.
        let now = tokio::fs::metadata(&file).await.ok();
        let stamp = now.map(|metadata| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()));
        if stamp.is_none() || stamp == seen {
            continue;
        }
        let reader = Arc::clone(&farm);
        match tokio::task::spawn_blocking(move || reader.read_roster()).await {
            Ok(Ok(Some(roster))) => {
                seen = stamp;
                let n_revoked = roster.value.revoked.len();
                let version = roster.value.version;
                match node.set_roster(roster) {
                    Ok(true) => tracing::info!(version, n_revoked, "roster changed"),
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "the stored roster is not taken"),
                }
            }
            Ok(Ok(None)) => {
                seen = stamp;
                tracing::error!(file = %file.display(), "the stored roster is not this farm's; restart to have it written again");
            }
            Ok(Err(error)) => tracing::warn!(%error, "the roster can't be read"),
            Err(_) => return,
        }
    }
}
