//! The heartbeat: tells the coordinator the whole state of this agent, does what it answers, and calls again when told to or when
//! something has changed.
//!
//! Life cycle: one task for the life of the agent. It opens a control stream whenever the coordinator is connected (the node redials),
//! and begins anew after any fault; every call carries everything, so nothing is lost with a stream. Without a coordinator slots fall
//! open one by one as their deals run out, and direct requests go on. Not here: deciding about slots ([`core`](super::core)).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use buildbee_p2p::frames::{FrameError, read_message, write_message};
use buildbee_p2p::node::{Node, OpenError, PeerStream};
use buildbee_p2p::papers::Papers;
use buildbee_proto::control::{
    AgentDesired, AgentInfo, AgentState, ControlAnswer, ControlCall, ControlReply, ControlRequest, Offer,
};
use buildbee_proto::digest::Digest;
use buildbee_proto::error::WireError;
use buildbee_proto::limits::MAX_TOOLCHAINS_PER_AGENT;
use buildbee_proto::listing::KnownAgents;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::ranked;
use buildbee_proto::roster_news::RosterNews;
use buildbee_proto::version::Protocol;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::load::LoadSampler;
use super::slots::Slots;
use crate::toolchain::Toolchains;

/// The coordinator may ask for calls no more often than this, and changes are gathered for as long.
const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// Nor less often than this.
const MAX_INTERVAL: Duration = Duration::from_secs(10);
/// How long a reply may take.
const REPLY_DEADLINE: Duration = Duration::from_secs(1);
/// Waits between attempts to reach the coordinator.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Other agents that this one stays connected to.
const MAX_NEIGHBOURS: usize = 64;

/// Why a conversation ended.
#[derive(Debug, Error)]
enum TalkError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the coordinator did not answer in time")]
    Late,
    #[error("the coordinator ended the stream")]
    Ended,
    #[error("the coordinator refused: {0}")]
    Refused(WireError),
    #[error("the coordinator answered another question")]
    OutOfTurn,
}

/// What the heartbeat is made of.
#[derive(Debug)]
pub struct Heartbeat {
    /// Where streams are opened.
    pub node: Node,
    /// Whom to call.
    pub coordinator: PeerId,
    /// The slots.
    pub slots: Slots,
    /// Which toolchains are here.
    pub toolchains: Toolchains,
    /// What does not change: name, host type, cores, addresses.
    pub offer: Offer,
    /// Told of the other agents.
    pub neighbours: watch::Sender<Arc<Vec<AgentInfo>>>,
    /// Remembers where other agents are.
    pub papers: Papers,
}

/// Calls the coordinator until `stop`.
pub async fn heartbeat_task(heartbeat: Heartbeat, stop: CancellationToken) {
    let mut actor = Actor {
        heartbeat,
        sampler: LoadSampler::new(),
        next_id: 0,
        known: KnownAgents::default(),
        kept: BTreeSet::new(),
        needs_roster: false,
        reached: false,
    };
    stop.run_until_cancelled(actor.run()).await;
}

struct Actor {
    heartbeat: Heartbeat,
    sampler: LoadSampler,
    next_id: u64,
    /// The other agents that the coordinator told of.
    known: KnownAgents,
    kept: BTreeSet<PeerId>,
    /// A change of the roster did not fit the one that is held.
    needs_roster: bool,
    reached: bool,
}

impl Actor {
    async fn run(&mut self) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            self.connected().await;
            let error = match self.talk(&mut backoff).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if std::mem::replace(&mut self.reached, false) {
                tracing::warn!(%error, "lost the coordinator; slots stay open to direct requests");
            } else {
                tracing::debug!(%error, "the coordinator can't be reached");
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Waits until the node is connected to the coordinator.
    async fn connected(&self) {
        let mut peers = self.heartbeat.node.peers();
        let coordinator = self.heartbeat.coordinator;
        // An error means that the node has stopped, and this task is about to be.
        if peers.wait_for(|table| table.contains(coordinator)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn talk(&mut self, backoff: &mut Duration) -> Result<std::convert::Infallible, TalkError> {
        let mut stream = self.heartbeat.node.open(self.heartbeat.coordinator, Protocol::Control).await?;
        loop {
            let called = Instant::now();
            let desired = self.call(&mut stream).await?;
            if !std::mem::replace(&mut self.reached, true) {
                tracing::info!(coordinator = %self.heartbeat.coordinator.short(), "in touch with the coordinator");
            }
            *backoff = FIRST_BACKOFF;
            let next = Duration::from_millis(desired.next_call_ms.into()).clamp(MIN_INTERVAL, MAX_INTERVAL);
            self.obey(desired);
            let due = called + next;
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.heartbeat.slots.changed() => sleep_until(due.min(called + MIN_INTERVAL)).await,
            }
        }
    }

    async fn call(&mut self, stream: &mut PeerStream) -> Result<AgentDesired, TalkError> {
        self.next_id += 1;
        let request = ControlRequest { id: self.next_id, body: ControlCall::Agent(self.state()) };
        let exchange = async {
            write_message(stream, &request).await?;
            read_message::<ControlReply, _>(stream).await?.ok_or(TalkError::Ended)
        };
        let reply = timeout(REPLY_DEADLINE, exchange).await.map_err(|_| TalkError::Late)??;
        match reply.body {
            ControlAnswer::Agent(desired) if reply.id == request.id => Ok(desired),
            ControlAnswer::Error(error) => Err(TalkError::Refused(error)),
            _ => Err(TalkError::OutOfTurn),
        }
    }

    fn state(&mut self) -> AgentState {
        let load = self.sampler.sample();
        let mut toolchains = self.heartbeat.toolchains.held();
        toolchains.truncate(MAX_TOOLCHAINS_PER_AGENT);
        let offer = Offer {
            load_percent: load.load_percent,
            memory_bytes: load.memory_bytes,
            memory_free_bytes: load.memory_free_bytes,
            toolchains,
            ..self.heartbeat.offer.clone()
        };
        let held = self.heartbeat.node.roster().filter(|_| !self.needs_roster);
        let roster_version = held.map_or(0, |roster| roster.value.version);
        AgentState { offer, slots: self.heartbeat.slots.report(), roster_version, listing: self.known.number() }
    }

    fn obey(&mut self, desired: AgentDesired) {
        self.heartbeat.slots.apply(&desired);
        if let Some(news) = &desired.roster {
            self.take_roster(news);
        }
        if desired.peers.is_some_and(|listing| self.known.apply(listing)) {
            self.meet();
            let agents = self.known.agents().iter();
            self.heartbeat.papers.remember(agents.map(|agent| (agent.peer, agent.offer.addresses.as_slice())));
            self.heartbeat.neighbours.send_replace(Arc::new(self.known.agents().to_vec()));
        }
    }

    fn take_roster(&mut self, news: &RosterNews) {
        let held = self.heartbeat.node.roster();
        let roster = match news.resolve(held.as_deref()) {
            Ok(roster) => roster,
            Err(error) => {
                self.needs_roster = true;
                return tracing::warn!(%error, "the coordinator sent a roster that is of no use");
            }
        };
        // The node's papers keep it for the next start.
        let taken = self.heartbeat.node.set_roster(roster);
        self.needs_roster = taken.is_err();
        if let Err(error) = taken {
            tracing::warn!(%error, "the coordinator sent a roster that is not the farm's");
        }
    }

    /// Stays connected to the other agents; where there are too many, to those that hashing picks, so that not all pick the same.
    fn meet(&mut self) {
        let (own, peers) = (self.heartbeat.node.peer(), self.known.agents());
        let others = peers.iter().map(|info| info.peer).filter(|peer| *peer != own);
        let wanted: BTreeSet<PeerId> = ranked(&Digest::of(&own.0), others).into_iter().take(MAX_NEIGHBOURS).collect();
        for gone in self.kept.difference(&wanted) {
            self.heartbeat.node.let_go(*gone);
        }
        for info in peers.iter().filter(|info| wanted.contains(&info.peer)) {
            self.heartbeat.node.keep_connected(info.peer, info.offer.addresses.clone());
        }
        self.kept = wanted;
    }
}
