//! Control streams: agents and clients say what they have and want, the coordinator answers with what they should hold and when to
//! call next. Every message is a whole state, so a lost one heals at the next call.

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::codec::{Bytes, Message};
use crate::error::WireError;
use crate::lease::{Lease, SlotReport, SlotToken};
use crate::limits::{
    MAX_ADDRESS_BYTES, MAX_ADDRESSES_PER_PEER, MAX_CONTROL_FRAME, MAX_HELLO_FRAME, MAX_LEASES_PER_CLIENT,
    MAX_NAME_BYTES, MAX_SLOTS_PER_AGENT, MAX_TOOLCHAINS_PER_AGENT,
};
use crate::listing::Listing;
use crate::peer::{PeerId, Role};
use crate::roster_news::RosterNews;
use crate::toolchain::ToolchainId;

/// What an agent lends. At most `MAX_TOOLCHAINS_PER_AGENT` toolchains and `MAX_ADDRESSES_PER_PEER` addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Name for people.
    #[serde(deserialize_with = "bounded::text::<_, MAX_NAME_BYTES>")]
    pub name: String,
    /// What programs must be built for, `x86_64-linux`.
    #[serde(deserialize_with = "bounded::text::<_, MAX_NAME_BYTES>")]
    pub host: String,
    /// Processor threads of the machine.
    pub n_cores: u32,
    /// Memory of the machine in bytes.
    pub memory_bytes: u64,
    /// Memory not in use, in bytes. Others are told how this and the load were when something else changed.
    pub memory_free_bytes: u64,
    /// Load of the machine in percent of all its cores.
    pub load_percent: u32,
    /// Toolchains that are wholly present.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_TOOLCHAINS_PER_AGENT>")]
    pub toolchains: Vec<ToolchainId>,
    /// Where it can be dialled, as `host:port`.
    #[serde(deserialize_with = "bounded::texts::<_, MAX_ADDRESSES_PER_PEER, MAX_ADDRESS_BYTES>")]
    pub addresses: Vec<String>,
}

/// An agent's whole state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentState {
    /// What it lends.
    pub offer: Offer,
    /// Every slot. At most `MAX_SLOTS_PER_AGENT`. Empty while draining.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_SLOTS_PER_AGENT>")]
    pub slots: Vec<SlotReport>,
    /// Version of the roster it holds; 0: none, or it needs the whole.
    pub roster_version: u64,
    /// Number of the last listing that it took in; 0: none.
    pub listing: u64,
}

/// What the coordinator wants of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDesired {
    /// Slots that are to be held for a client. A slot that is not named here is open.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_SLOTS_PER_AGENT>")]
    pub dealt: Vec<(SlotToken, PeerId)>,
    /// For how long from now, in milliseconds, on the agent's own clock.
    pub deal_for_ms: u32,
    /// Other agents, those that it is to stay connected to, where anything has changed about them.
    pub peers: Option<Listing>,
    /// A newer roster than the agent's.
    pub roster: Option<RosterNews>,
    /// When to call next, in milliseconds.
    pub next_call_ms: u32,
}

/// An agent as others are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Who.
    pub peer: PeerId,
    /// What it lends and where.
    pub offer: Offer,
    /// All its slots, free or not.
    pub n_slots: u32,
}

/// How urgent a client's work is. Order is the wire format: append only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// Nobody does: builds of CI, nightly builds.
    Batch,
}

/// A client's whole state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientState {
    /// Slots it could use now, those it holds included.
    pub n_wanted: u32,
    /// Toolchains its actions need: agents that hold them are dealt first. At most `MAX_TOOLCHAINS_PER_AGENT`.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_TOOLCHAINS_PER_AGENT>")]
    pub toolchains: Vec<ToolchainId>,
    /// Leases that it holds. At most `MAX_LEASES_PER_CLIENT`.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LEASES_PER_CLIENT>")]
    pub held: Vec<SlotToken>,
    /// Version of the roster it holds; 0: none, or it needs the whole.
    pub roster_version: u64,
    /// How urgent its work is.
    pub class: Class,
    /// Number of the last listing that it took in; 0: none.
    pub listing: u64,
}

/// What the coordinator wants of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientDesired {
    /// Leases it should hold from now on; others are gone. At most `MAX_LEASES_PER_CLIENT`.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LEASES_PER_CLIENT>")]
    pub leases: Vec<Lease>,
    /// Agents: those of its leases, and others, all of them in a farm that is not large; where anything has changed about them.
    pub agents: Option<Listing>,
    /// A newer roster than the client's.
    pub roster: Option<RosterNews>,
    /// When to call next at the latest, in milliseconds.
    pub next_call_ms: u32,
}

/// To the coordinator. The id is echoed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlRequest {
    /// Chosen by the caller, ascending on one stream.
    pub id: u64,
    /// What it is about.
    pub body: ControlCall,
}

/// What is asked of the coordinator. Order is the wire format: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlCall {
    /// An agent's heartbeat.
    Agent(AgentState),
    /// A client's heartbeat, or its wish for more or fewer slots.
    Client(ClientState),
}

/// From the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlReply {
    /// The request's id.
    pub id: u64,
    /// The answer.
    pub body: ControlAnswer,
}

/// What the coordinator answers. Order is the wire format: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlAnswer {
    /// To an agent.
    Agent(AgentDesired),
    /// To a client.
    Client(ClientDesired),
    /// Neither.
    Error(WireError),
}

/// First frame on every connection, from the dialler, and the answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's signed membership, canonical bytes.
    pub membership: Bytes,
    /// Optional features of the sender's program, one bit each; none yet.
    pub features: u64,
}

/// The listener's answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloReply {
    /// Welcome; here is mine.
    Welcome(Hello),
    /// No.
    Refused(WireError),
}

/// A stranger asks to be enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The signed ticket, canonical bytes.
    pub ticket: Bytes,
    /// The newcomer's name, for people. At most `MAX_NAME_BYTES`.
    #[serde(deserialize_with = "bounded::text::<_, MAX_NAME_BYTES>")]
    pub name: String,
}

/// The coordinator's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinReply {
    /// Enrolled: the signed membership, canonical bytes.
    Welcome {
        /// Signed by the farm's key.
        membership: Bytes,
        /// What it may do, as in the ticket.
        role: Role,
    },
    /// No.
    Refused(WireError),
}

impl Message for ControlRequest {
    const MAX_BYTES: usize = MAX_CONTROL_FRAME;
}
impl Message for ControlReply {
    const MAX_BYTES: usize = MAX_CONTROL_FRAME;
}
impl Message for Hello {
    const MAX_BYTES: usize = MAX_HELLO_FRAME;
}
impl Message for HelloReply {
    const MAX_BYTES: usize = MAX_HELLO_FRAME;
}
impl Message for JoinRequest {
    const MAX_BYTES: usize = MAX_HELLO_FRAME;
}
impl Message for JoinReply {
    const MAX_BYTES: usize = MAX_HELLO_FRAME;
}
