//! A coordinator, and peers that join it, sit on a control stream and call.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use buildbee_coordinator::clock::unix_now;
use buildbee_coordinator::membership::farm::Farm;
use buildbee_coordinator::serve::{Coordinator, Places};
use buildbee_p2p::enrolment::{Enrolment, join};
use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::identity::Identity;
use buildbee_p2p::node::{self, Inbound, Node, NodeConfig, PeerStream};
use buildbee_p2p::papers::Papers;
use buildbee_proto::control::{
    AgentDesired, AgentState, Class, ClientDesired, ClientState, ControlAnswer, ControlCall, ControlReply,
    ControlRequest, Offer,
};
use buildbee_proto::lease::{SlotReport, SlotToken};
use buildbee_proto::membership::{Signed, Ticket};
use buildbee_proto::peer::Role;
use buildbee_proto::version::Protocol;

pub(crate) const WITHIN: Duration = Duration::from_secs(20);

/// Any free port of the loopback interface.
pub(crate) fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) async fn start(folder: &Path, listen: SocketAddr) -> Coordinator {
    let farm = Farm::open(folder, unix_now()).unwrap();
    let places = Places { listen, mdns: false, addresses: vec![], members: vec![] };
    Coordinator::start(farm, places, "test", unix_now()).await.unwrap()
}

/// A ticket of the farm in `folder`.
pub(crate) fn ticket(folder: &Path, addresses: Vec<String>, role: Role) -> Signed<Ticket> {
    ticket_from(&Farm::open(folder, unix_now()).unwrap(), addresses, role, unix_now())
}

/// A ticket of `farm`, as printed at `issued_at`.
pub(crate) fn ticket_from(farm: &Farm, addresses: Vec<String>, role: Role, issued_at: u64) -> Signed<Ticket> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).unwrap();
    let (coordinator, expires_at) = (farm.identity().peer(), issued_at + 60);
    farm.invite(Ticket { farm: farm.id(), coordinator, addresses, role, issued_at, expires_at, uses: 1, nonce })
}

/// A member of the farm with a node of its own.
pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) enrolment: Enrolment,
    inbound: Mutex<Option<Inbound>>,
}

impl Member {
    /// Joins with a fresh ticket and connects.
    pub(crate) async fn join(folder: &Path, coordinator: &Coordinator, role: Role, name: &str) -> Self {
        let identity = Identity::generate();
        let ticket = ticket(folder, coordinator.addresses(), role);
        let enrolment = join(&identity, &ticket, name, WITHIN, unix_now()).await.unwrap();
        let member = Self::enrolled(identity, enrolment).await;
        member.connect().await;
        member
    }

    /// A node with papers that are there already. Not connected yet.
    pub(crate) async fn enrolled(identity: Identity, enrolment: Enrolment) -> Self {
        let config = NodeConfig {
            identity,
            membership: enrolment.membership.clone(),
            roster: None,
            listen: vec![],
            mdns: false,
            accept_joins: false,
        };
        let (node, inbound) = node::start(config).await.unwrap();
        Self { node, enrolment, inbound: Mutex::new(Some(inbound)) }
    }

    pub(crate) async fn connect(&self) {
        let Enrolment { coordinator, addresses, .. } = &self.enrolment;
        self.node.connect(*coordinator, addresses, WITHIN).await.unwrap();
    }

    /// Answers what others ask of its papers, and nothing else, from now on.
    pub(crate) fn answer(&self, papers: Papers) {
        let mut inbound = self.inbound.lock().unwrap().take().unwrap();
        tokio::spawn(async move {
            while let Some(arrived) = inbound.next().await {
                if arrived.protocol == Protocol::Papers {
                    papers.answer(arrived.from.peer(), arrived.stream).await;
                }
            }
        });
    }

    pub(crate) async fn open(&self) -> Control {
        let stream = self.node.open(self.enrolment.coordinator, Protocol::Control).await.unwrap();
        Control { stream, id: 0 }
    }
}

/// A control stream, as its opener uses it.
pub(crate) struct Control {
    pub(crate) stream: PeerStream,
    id: u64,
}

impl Control {
    pub(crate) async fn call(&mut self, body: ControlCall) -> ControlAnswer {
        self.id += 7;
        write_message(&mut self.stream, &ControlRequest { id: self.id, body }).await.unwrap();
        let reply = tokio::time::timeout(WITHIN, read_message::<ControlReply, _>(&mut self.stream)).await.unwrap();
        let reply = reply.unwrap().expect("an answer");
        assert_eq!(reply.id, self.id);
        reply.body
    }

    pub(crate) async fn agent(&mut self, state: &AgentState) -> AgentDesired {
        match self.call(ControlCall::Agent(state.clone())).await {
            ControlAnswer::Agent(desired) => desired,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn client(&mut self, n_wanted: u32, held: Vec<SlotToken>) -> ClientDesired {
        let state = ClientState {
            n_wanted,
            toolchains: vec![],
            held,
            roster_version: 0,
            class: Class::Interactive,
            listing: 0,
        };
        match self.call(ControlCall::Client(state)).await {
            ControlAnswer::Client(desired) => desired,
            other => panic!("{other:?}"),
        }
    }
}

/// What an agent with `n_slots` free slots says.
pub(crate) fn offer(agent: &Member, n_slots: u64) -> AgentState {
    let slot = |counter| SlotReport {
        token: SlotToken { agent: agent.node.peer(), boot_id: 1, counter },
        dealt_to: None,
        expires_in_ms: 0,
        busy: false,
    };
    let offer = Offer {
        name: "desk".to_owned(),
        host: "x86_64-linux".to_owned(),
        addresses: vec!["0.0.0.0:7471".to_owned()],
        ..Offer::default()
    };
    AgentState { offer, slots: (0..n_slots).map(slot).collect(), roster_version: 0, listing: 0 }
}

/// What the agent says after it was told what to hold.
pub(crate) fn apply(state: &AgentState, desired: &AgentDesired) -> AgentState {
    let mut state = state.clone();
    for slot in &mut state.slots {
        slot.dealt_to = desired.dealt.iter().find(|(token, _)| *token == slot.token).map(|(_, client)| *client);
        slot.expires_in_ms = if slot.dealt_to.is_some() { desired.deal_for_ms } else { 0 };
    }
    state
}

pub(crate) fn tokens(desired: &ClientDesired) -> Vec<SlotToken> {
    let mut tokens: Vec<SlotToken> = desired.leases.iter().map(|lease| lease.token).collect();
    tokens.sort();
    tokens
}
