//! This client's place in its farm: the node, what is known of agents and leases, and who may fetch what from here.
//!
//! [`Farm`] is the clone-able handle; its tasks (peer watching, inbound streams, synchronisation) end with the node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_p2p::enrolment::Enrolment;
use buildbee_p2p::identity::Identity;
use buildbee_p2p::node::{Inbound, Node, NodeConfig, Sender, StartError};
use buildbee_p2p::papers::{Files, Papers, load_roster};
use buildbee_p2p::tasks::Tasks;
use buildbee_proto::control::{Class, ClientDesired, ClientState};
use buildbee_proto::digest::Digest;
use buildbee_proto::limits::MAX_TOOLCHAINS_PER_AGENT;
use buildbee_proto::listing::KnownAgents;
use buildbee_proto::membership::{Membership, Roster, Signed};
use buildbee_proto::outcome::ActionResult;
use buildbee_proto::peer::{PeerId, Role};
use buildbee_proto::roster_news::RosterNews;
use buildbee_proto::toolchain::ToolchainId;
use buildbee_proto::version::Protocol;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::along::Sent;
use super::attempt::Attempts;
use super::board::{Board, Choice, Pick, Went};
use super::cache_streams::CacheStreams;
use super::claim::{Releases, release_task, releases};
use super::filters::Filters;
use super::hints::{Hints, hints, hints_task};
use super::lender::{Lender, Loan, Source, serve_task};
use super::synchronise::synchronise_task;
use crate::inputs::filehash::FileHashes;
use crate::journal::Journal;
use crate::toolchain::Parts;

/// Blob streams served at once: a dozen for each of many agents that need the same toolchain. One that finds none free asks again.
const MAX_SERVING: usize = 256;
/// A wish for slots is kept up for this long after it was last felt, so that a build's next wave finds its leases.
const WISH_MEMORY: Duration = Duration::from_secs(3);
/// A daemon that has just started hears of its agents within this time, or of none. Measured: some 60 ms.
const SETTLING: Duration = Duration::from_millis(250);
/// How often it looks while it waits for that, at least.
const SETTLING_LOOK: Duration = Duration::from_millis(50);
/// Toolchains lent at once; beyond it the oldest loans end.
const MAX_TOOLCHAINS: usize = 16;

#[derive(Debug, Default)]
struct State {
    board: Board,
    n_wanted: u32,
    peak: u32,
    peak_at: Option<Instant>,
    toolchains: BTreeMap<ToolchainId, Loan>,
    coordinator_connected: bool,
    /// The agents that the coordinator told of.
    known: KnownAgents,
    /// A change of the roster did not fit the one that is held.
    needs_roster: bool,
}

/// The handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Farm {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: Node,
    enrolment: Enrolment,
    papers: Papers,
    /// How urgent this user's builds are.
    class: Class,
    cache_streams: CacheStreams,
    filters: Filters,
    releases: Releases,
    hints: Hints,
    lender: Lender,
    sent: Sent,
    state: Mutex<State>,
    /// Something changed that a waiting action may profit from.
    changed: Notify,
    /// The wish for slots changed.
    wishes: Notify,
    started: Instant,
    tasks: Tasks,
}

/// A place for one attempt, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    farm: Farm,
    /// Where to go.
    pub pick: Pick,
    toolchain: ToolchainId,
    went: Went,
}

impl Seat {
    /// Says how the attempt went; otherwise it counts as given up.
    pub fn went(&mut self, went: Went) {
        self.went = went;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.farm.state().board.release(self.farm.now(), &self.pick, &self.toolchain, self.went);
        self.farm.shared.changed.notify_waiters();
    }
}

/// Counts one action's wish for a slot until dropped.
#[derive(Debug)]
pub struct Wish(Farm);

impl Drop for Wish {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.n_wanted = state.n_wanted.saturating_sub(1);
    }
}

/// What a search for a place came to.
#[derive(Debug)]
pub enum Found {
    /// A place.
    Seat(Seat),
    /// Agents, but no room.
    Full,
    /// No agent to ask.
    Nobody,
}

impl Farm {
    /// Starts the node and its tasks.
    pub async fn start(
        identity: Identity,
        (enrolment, files): (Enrolment, Files),
        mdns: bool,
        class: Class,
        journal: Journal,
        hashes: FileHashes,
    ) -> Result<Self, StartError> {
        let config = NodeConfig {
            identity,
            membership: enrolment.membership.clone(),
            roster: load_roster(&files.roster, enrolment.membership.value.farm),
            listen: Vec::new(),
            mdns,
            accept_joins: false,
        };
        let (node, inbound) = buildbee_p2p::node::start(config).await?;
        let tasks = Tasks::new();
        let (releases, to_release) = releases();
        let (hints, to_tell) = hints();
        let papers = Papers::new(node.clone(), enrolment.clone(), files);
        let farm = Self {
            shared: Arc::new(Shared {
                cache_streams: CacheStreams::new(node.clone()),
                filters: Filters::default(),
                releases,
                hints,
                node,
                lender: Lender::new(hashes),
                sent: Sent::default(),
                state: Mutex::default(),
                changed: Notify::new(),
                wishes: Notify::new(),
                started: Instant::now(),
                tasks: tasks.clone(),
                enrolment,
                papers: papers.clone(),
                class,
            }),
        };
        let coordinator = farm.shared.enrolment.coordinator;
        tasks.spawn("papers", papers.clone().upkeep_task(tasks.token()));
        tasks.spawn("synchronise", synchronise_task(farm.clone(), coordinator, tasks.token()));
        let (streams, stop) = (farm.cache_streams().clone(), tasks.token());
        tasks.spawn("release claims", async move {
            stop.run_until_cancelled(release_task(streams, to_release)).await;
        });
        tasks.spawn("tell of results", hints_task(farm.clone(), to_tell, tasks.token()));
        tasks.spawn("watch peers", watch_peers_task(farm.clone()));
        tasks.spawn("serve peers", serve_peers_task(farm.clone(), papers, inbound, journal));
        Ok(farm)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Our end of the network.
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// What asks peers' caches.
    pub fn cache_streams(&self) -> &CacheStreams {
        &self.shared.cache_streams
    }

    /// Which agents may have what.
    pub fn filters(&self) -> &Filters {
        &self.shared.filters
    }

    /// Where claims end.
    pub fn releases(&self) -> &Releases {
        &self.shared.releases
    }

    /// Where it is said what was done in which folders.
    pub fn hints(&self) -> &Hints {
        &self.shared.hints
    }

    /// What attempts need.
    pub fn attempts(&self) -> Attempts {
        Attempts { node: self.node().clone(), lender: self.shared.lender.clone(), sent: self.shared.sent.clone() }
    }

    /// Lends what a job reads for as long as the loan lives, and its toolchain for good.
    pub fn lend(&self, toolchain: &Parts, blobs: impl IntoIterator<Item = (Digest, Source)>) -> Loan {
        let known = self.state().toolchains.contains_key(&toolchain.id);
        if !known {
            self.shared.lender.watch(toolchain);
            let files = toolchain.files.iter().map(|(path, digest)| (*digest, Source::File(path.clone())));
            let directories =
                toolchain.directories.iter().map(|(digest, bytes)| (*digest, Source::Bytes(Arc::clone(bytes))));
            let loan = self.shared.lender.lend(files.chain(directories));
            let mut state = self.state();
            if state.toolchains.len() >= MAX_TOOLCHAINS {
                state.toolchains.pop_first();
            }
            state.toolchains.insert(toolchain.id, loan);
        }
        self.shared.lender.lend(blobs)
    }

    /// Lends `blobs` for as long as the loan lives.
    pub fn lend_blobs(&self, blobs: impl IntoIterator<Item = (Digest, Source)>) -> Loan {
        self.shared.lender.lend(blobs)
    }

    /// Counts one action that could use a slot.
    pub fn wish(&self) -> Wish {
        let mut state = self.state();
        state.n_wanted += 1;
        let now = Instant::now();
        if state.n_wanted >= state.peak || state.peak_at.is_none_or(|at| now - at > WISH_MEMORY) {
            state.peak = state.n_wanted;
        }
        state.peak_at = Some(now);
        drop(state);
        self.shared.wishes.notify_one();
        Wish(self.clone())
    }

    /// The agent that made a result has what it names.
    pub fn made(&self, result: &ActionResult) {
        let outputs = result.outputs.iter().map(|file| &file.digest);
        self.shared.sent.made(result.provenance.peer, outputs);
    }

    /// How many bytes of `blobs` each agent has, as far as is known.
    pub fn held<'a>(&self, blobs: impl Iterator<Item = &'a Digest>) -> HashMap<PeerId, u64> {
        self.shared.sent.held(blobs)
    }

    /// Looks for a place for one attempt; `held` says how many bytes of what it reads an agent has.
    pub fn seat(&self, parts: &Parts, tried: &[PeerId], held: &HashMap<PeerId, u64>) -> Found {
        let (now, toolchain) = (self.now(), parts.id);
        match self.state().board.pick(now, (&toolchain, &parts.toolchain.host), tried, held) {
            Choice::Go(pick) => Found::Seat(Seat { farm: self.clone(), pick, toolchain, went: Went::Cancelled }),
            Choice::Full => Found::Full,
            Choice::Nobody => Found::Nobody,
        }
    }

    /// Whether an agent that is connected runs programs of `host`; `None`: no agent is connected.
    pub fn lends_to(&self, host: &str) -> Option<bool> {
        self.state().board.lends_to(host)
    }

    /// A line of `columns` at most on the toolchain on its way that is farthest behind.
    pub fn on_their_way(&self, columns: Option<usize>) -> Option<String> {
        let all = self.shared.lender.on_their_way();
        let one = all.iter().max_by_key(|one| one.n_bytes.1 - one.n_bytes.0)?;
        Some(one.line(columns, |agent| self.name_of(agent)))
    }

    /// Names of the agents that have a toolchain, as far as the coordinator has told.
    pub fn holders(&self, toolchain: &ToolchainId) -> Vec<String> {
        let agents = self.state().board.list();
        let holders = agents.into_iter().filter(|(info, ..)| info.offer.toolchains.contains(toolchain));
        holders.map(|(info, ..)| info.offer.name).collect()
    }

    /// Agents that are connected and run programs of `host`, with their names.
    pub fn agents_for(&self, host: &str) -> Vec<(PeerId, String)> {
        let agents = self.state().board.list();
        let fit = agents.into_iter().filter(|(info, connected, ..)| *connected && info.offer.host == host);
        fit.map(|(info, ..)| (info.peer, info.offer.name)).collect()
    }

    /// Ends the loans of all toolchains but these. How many.
    pub fn lend_only(&self, toolchains: &[ToolchainId]) -> usize {
        let mut ended = Vec::new();
        {
            let mut state = self.state();
            let gone: Vec<ToolchainId> =
                state.toolchains.keys().filter(|id| !toolchains.contains(id)).copied().collect();
            ended.extend(gone.iter().filter_map(|id| state.toolchains.remove(id)));
        }
        // The loans take a lock of their own.
        ended.len()
    }

    /// Waits until [`seat`](Self::seat) may answer differently, for at most `at_most`. May return early.
    pub async fn changed(&self, at_most: Duration) {
        let now = self.now();
        let next = self.state().board.next_change(now).map_or(at_most, |next| next.saturating_sub(now).min(at_most));
        let _ = tokio::time::timeout(next.max(Duration::from_millis(5)), self.shared.changed.notified()).await;
    }

    /// Waits until there is an agent to ask, or a daemon that has just started has waited long enough for one. At once in all others.
    pub async fn settled(&self) {
        while self.roster().is_none() || self.responsive_agents().is_empty() {
            let left = SETTLING.saturating_sub(self.now());
            if left.is_zero() {
                return;
            }
            self.changed(left.min(SETTLING_LOOK)).await;
        }
    }

    /// What the coordinator is told.
    pub(super) fn client_state(&self) -> ClientState {
        let now = self.now();
        let held_roster = self.node().roster().map_or(0, |roster| roster.value.version);
        let mut state = self.state();
        let remembered = state.peak_at.filter(|at| at.elapsed() < WISH_MEMORY).map_or(0, |_| state.peak);
        ClientState {
            n_wanted: state.n_wanted.max(remembered),
            toolchains: state.toolchains.keys().copied().take(MAX_TOOLCHAINS_PER_AGENT).collect(),
            held: state.board.held(now),
            roster_version: if state.needs_roster { 0 } else { held_roster },
            class: self.shared.class,
            listing: state.known.number(),
        }
    }

    /// Takes over what the coordinator answered.
    pub(super) fn apply(&self, desired: ClientDesired) {
        if let Some(news) = desired.roster {
            self.take_roster(&news);
        }
        let now = self.now();
        let (gone, addresses) = {
            let mut state = self.state();
            state.coordinator_connected = true;
            if desired.agents.is_some_and(|listing| state.known.apply(listing)) {
                let agents = state.known.agents().iter();
                self.shared.papers.remember(agents.map(|agent| (agent.peer, agent.offer.addresses.as_slice())));
            }
            // Those of which nothing new was told, too: an agent that handed work back counts as one that lends nothing until now.
            let told = state.known.agents().to_vec();
            let gone = state.board.set_agents(told);
            state.board.set_leases(now, &desired.leases);
            (gone, state.board.addresses())
        };
        for peer in gone {
            self.node().let_go(peer);
        }
        for (peer, addresses) in addresses {
            self.node().keep_connected(peer, addresses);
        }
        self.watch_connections();
        self.shared.changed.notify_waiters();
    }

    fn take_roster(&self, news: &RosterNews) {
        let held = self.node().roster();
        let taken = news.resolve(held.as_deref()).map_err(|error| error.to_string());
        let taken = taken.and_then(|roster| self.node().set_roster(roster).map_err(|error| error.to_string()));
        self.state().needs_roster = taken.is_err();
        if let Err(error) = taken {
            tracing::warn!(error, "the coordinator's roster is of no use");
        }
    }

    pub(super) fn coordinator_lost(&self) {
        self.state().coordinator_connected = false;
    }

    /// Returns when more is wanted than `told`, or after `at_most`.
    pub(super) async fn wishes_changed(&self, told: u32, at_most: Duration) {
        let more = async {
            while self.state().n_wanted <= told {
                self.shared.wishes.notified().await;
            }
        };
        let _ = tokio::time::timeout(at_most, more).await;
    }

    fn watch_connections(&self) {
        // Called at every conversation with the coordinator, too.
        self.shared.cache_streams.tidy();
        let connected: BTreeSet<PeerId> = self.connected_agents().into_iter().collect();
        self.shared.filters.keep_of(|peer| connected.contains(peer));
        let mut state = self.state();
        for (info, was_connected, ..) in state.board.list() {
            if was_connected && !connected.contains(&info.peer) {
                self.shared.sent.forget(&info.peer);
            }
        }
        state.board.set_connected(&connected);
    }

    /// Agents that are connected now.
    pub fn connected_agents(&self) -> Vec<PeerId> {
        let peers = self.node().peers().borrow().clone();
        peers.0.iter().filter(|peer| peer.role == Role::Agent).map(|peer| peer.peer).collect()
    }

    /// Connected agents that have not failed us lately.
    pub fn responsive_agents(&self) -> Vec<PeerId> {
        self.state().board.responsive(self.now())
    }

    /// An agent's name for people; its short id where that is not known.
    pub fn name_of(&self, peer: &PeerId) -> String {
        self.state().board.name(peer).map_or_else(|| peer.short(), str::to_owned)
    }

    /// The roster, if one has arrived.
    pub fn roster(&self) -> Option<Arc<Signed<Roster>>> {
        self.node().roster()
    }

    /// Our membership.
    pub fn membership(&self) -> &Membership {
        &self.shared.enrolment.membership.value
    }

    /// The farm's part of `status --json`.
    pub fn status(&self) -> serde_json::Value {
        let peers = self.node().peers().borrow().clone();
        let address =
            |peer: &PeerId| peers.0.iter().find(|known| known.peer == *peer).map(|known| known.address.clone());
        let coordinator = self.shared.enrolment.coordinator;
        let agents: Vec<_> = (self.state().board.list().into_iter())
            .map(|(info, connected, running, leases)| {
                json!({
                    "name": info.offer.name, "peer": info.peer.to_string(), "connected": connected, "slots": info.n_slots,
                    "address": address(&info.peer).or_else(|| info.offer.addresses.first().cloned()),
                    "leased": leases, "running": running, "toolchains": info.offer.toolchains.len(),
                })
            })
            .collect();
        let membership = self.membership();
        let sending = self.shared.lender.on_their_way();
        let sending: Vec<_> = sending.iter().map(|one| one.document(|agent| self.name_of(agent))).collect();
        json!({
            "id": membership.farm.to_string(), "name": membership.name, "role": membership.role.to_string(),
            "coordinator": {
                "peer": coordinator.to_string(), "connected": self.state().coordinator_connected,
                "address": address(&coordinator).or_else(|| self.shared.enrolment.addresses.first().cloned()),
            },
            "agents": agents, "sending": sending,
        })
    }

    /// The document of `peers --json`.
    pub fn peers(&self) -> serde_json::Value {
        let peers = self.node().peers().borrow().clone();
        let rows: Vec<_> = (peers.0.iter())
            .map(|peer| {
                json!({
                    "peer": peer.peer.to_string(), "name": peer.name, "role": peer.role.to_string(),
                    "address": peer.address, "connected": true,
                })
            })
            .collect();
        json!({ "peers": rows })
    }

    /// Ends all tasks and connections.
    pub async fn stop(&self) {
        self.shared.tasks.stop(Duration::from_secs(1)).await;
        self.node().shutdown().await;
    }
}

async fn watch_peers_task(farm: Farm) {
    let mut peers = farm.node().peers();
    let stop = farm.shared.tasks.token();
    loop {
        farm.watch_connections();
        farm.shared.changed.notify_waiters();
        tokio::select! {
            changed = peers.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

async fn serve_peers_task(farm: Farm, papers: Papers, mut inbound: Inbound, journal: Journal) {
    let stop = farm.shared.tasks.token();
    let serving = Arc::new(Semaphore::new(MAX_SERVING));
    loop {
        let stream = tokio::select! {
            stream = inbound.next() => stream,
            () = stop.cancelled() => return,
        };
        let Some(stream) = stream else { return };
        // Agents fetch inputs, and whoever is connected may ask for papers; nothing else is asked of a client.
        let Sender::Member { role, peer, .. } = stream.from else { continue };
        if stream.protocol == Protocol::Papers {
            let papers = papers.clone();
            farm.shared.tasks.spawn("papers", async move { papers.answer(peer, stream.stream).await });
            continue;
        }
        if (stream.protocol, role) != (Protocol::Blob, Role::Agent) {
            continue;
        }
        let Ok(permit) = Arc::clone(&serving).try_acquire_owned() else { continue };
        let serve = serve_task(farm.shared.lender.clone(), journal.clone(), peer, stream.stream);
        farm.shared.tasks.spawn("serve blobs", async move {
            serve.await;
            drop(permit);
        });
    }
}
