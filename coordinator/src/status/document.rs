//! What the page shows, as the JSON that it polls. Pure: names are put to the scheduler's peers here.
//!
//! Keys may be added; those that are here are a contract for scripts. Absent on purpose: addresses of members, and of builds everything but
//! how many slots they use, which is all that a coordinator knows of them.

use std::collections::HashMap;
use std::time::Duration;

use buildbee_proto::peer::PeerId;
use serde::Serialize;

use crate::scheduler::core::Totals;
use crate::scheduler::core::overview::{AgentOverview, ClientOverview, Overview, SlotOverview};

/// Toolchains listed of one agent.
const MAX_TOOLCHAINS_SHOWN: usize = 32;

/// What does not come from the scheduler.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The farm's public key.
    pub farm: String,
    /// This machine's name.
    pub name: String,
    /// Since the start of this coordinator.
    pub uptime: Duration,
    /// Enrolled and not revoked.
    pub n_members: usize,
    /// Names of connected members.
    pub names: HashMap<PeerId, String>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// This program's.
    pub version: &'static str,
    /// The farm's public key.
    pub farm: String,
    /// This machine's name.
    pub name: String,
    /// Since the start of this coordinator, in seconds.
    pub uptime_s: u64,
    /// Enrolled and not revoked.
    pub members: usize,
    /// Of all agents.
    pub slots: Slots,
    /// That call, listed or not.
    pub agents_total: usize,
    /// That call, listed or not.
    pub clients_total: usize,
    /// Sorted by name.
    pub agents: Vec<Agent>,
    /// Sorted by name.
    pub clients: Vec<Client>,
    /// For `/metrics` alone.
    #[serde(skip)]
    pub totals: Totals,
}

/// Slots by what they are used for. An agent says so every two seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Slots {
    /// All.
    pub total: usize,
    /// Something runs in them.
    pub busy: usize,
    /// Dealt to a client, and nothing runs in them.
    pub leased: usize,
    /// The rest.
    pub idle: usize,
}

/// One agent.
#[derive(Clone, Debug, Serialize)]
pub struct Agent {
    /// The beginning of its id.
    pub peer: String,
    /// For people.
    pub name: String,
    /// What it runs, `x86_64-linux`.
    pub host: String,
    /// Processor threads.
    pub cores: u32,
    /// Of all of them.
    pub load_percent: u32,
    /// In all.
    pub memory_bytes: u64,
    /// Not in use.
    pub memory_free_bytes: u64,
    /// By use.
    pub slots: Slots,
    /// One by one.
    pub slot_list: Vec<Slot>,
    /// The beginnings of the ids of those that it holds; not all where it holds many.
    pub toolchains: Vec<String>,
    /// How many it holds.
    pub toolchains_total: usize,
    /// Since its last call, in milliseconds.
    pub silent_ms: u64,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// `idle`, `leased` or `busy`.
    pub state: &'static str,
    /// The name of the client that it is dealt to. A slot can be busy without one: it was free, and a client asked the agent itself.
    pub client: Option<String>,
}

/// One client.
#[derive(Clone, Debug, Serialize)]
pub struct Client {
    /// The beginning of its id.
    pub peer: String,
    /// For people.
    pub name: String,
    /// Slots that it could use.
    pub wanted: usize,
    /// Slots that are its fair share now.
    pub share: usize,
    /// Slots that it may use.
    pub held: usize,
    /// Slots that it is to let go.
    pub recalled: usize,
    /// Of its slots, those in which something runs.
    pub busy: usize,
    /// Since its last call, in milliseconds.
    pub silent_ms: u64,
}

/// What is shown of `overview`.
pub fn document(overview: Overview, facts: &Facts) -> Document {
    let name = |peer: &PeerId| facts.names.get(peer).cloned().unwrap_or_else(|| peer.short());
    let total = overview.counts.n_slots;
    let mut agents: Vec<Agent> = overview.agents.into_iter().map(|shown| agent(shown, name)).collect();
    agents.sort_by(|one, other| (&one.name, &one.peer).cmp(&(&other.name, &other.peer)));
    let mut clients: Vec<Client> = overview.clients.iter().map(|shown| client(shown, name)).collect();
    clients.sort_by(|one, other| (&one.name, &one.peer).cmp(&(&other.name, &other.peer)));
    Document {
        version: env!("CARGO_PKG_VERSION"),
        farm: facts.farm.clone(),
        name: facts.name.clone(),
        uptime_s: facts.uptime.as_secs(),
        members: facts.n_members,
        slots: Slots {
            total,
            busy: overview.n_busy,
            leased: overview.n_leased,
            idle: total.saturating_sub(overview.n_busy + overview.n_leased),
        },
        agents_total: overview.counts.n_agents,
        clients_total: overview.counts.n_clients,
        agents,
        clients,
        totals: overview.totals,
    }
}

fn agent(shown: AgentOverview, name: impl Fn(&PeerId) -> String) -> Agent {
    let slot_list: Vec<Slot> =
        (shown.slots.iter()).map(|slot| Slot { state: state(slot), client: slot.client.as_ref().map(&name) }).collect();
    let count = |state| slot_list.iter().filter(|slot| slot.state == state).count();
    let slots = Slots { total: slot_list.len(), busy: count("busy"), leased: count("leased"), idle: count("idle") };
    let digits = |toolchain: &buildbee_proto::toolchain::ToolchainId| toolchain.0.short();
    Agent {
        peer: shown.peer.short(),
        name: shown.offer.name,
        host: shown.offer.host,
        cores: shown.offer.n_cores,
        load_percent: shown.offer.load_percent,
        memory_bytes: shown.offer.memory_bytes,
        memory_free_bytes: shown.offer.memory_free_bytes,
        slots,
        slot_list,
        toolchains: shown.offer.toolchains.iter().take(MAX_TOOLCHAINS_SHOWN).map(digits).collect(),
        toolchains_total: shown.offer.toolchains.len(),
        silent_ms: milliseconds(shown.silent_for),
    }
}

fn state(slot: &SlotOverview) -> &'static str {
    match (slot.busy, slot.client) {
        (true, _) => "busy",
        (false, Some(_)) => "leased",
        (false, None) => "idle",
    }
}

fn client(shown: &ClientOverview, name: impl Fn(&PeerId) -> String) -> Client {
    Client {
        peer: shown.peer.short(),
        name: name(&shown.peer),
        wanted: shown.n_wanted,
        share: shown.n_share,
        held: shown.n_held,
        recalled: shown.n_recalled,
        busy: shown.n_busy,
        silent_ms: milliseconds(shown.silent_for),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use buildbee_proto::control::Offer;

    use super::*;
    use crate::scheduler::core::Counts;

    /// A farm with two agents and two clients, one of which bears a name that nobody should trust.
    pub(crate) fn sample() -> Document {
        let agent = |id: u8, name: &str, slots: &[(bool, Option<u8>)]| AgentOverview {
            peer: PeerId([id; 32]),
            offer: Offer { name: name.to_owned(), host: "x86_64-linux".into(), n_cores: 8, ..Offer::default() },
            slots: (slots.iter())
                .map(|(busy, client)| SlotOverview { busy: *busy, client: client.map(|id| PeerId([id; 32])) })
                .collect(),
            silent_for: Duration::from_millis(1_500),
        };
        let client = |id: u8| ClientOverview {
            peer: PeerId([id; 32]),
            n_wanted: 16,
            n_held: 2,
            n_recalled: 0,
            n_share: 2,
            n_busy: 1,
            silent_for: Duration::ZERO,
        };
        let overview = Overview {
            counts: Counts { n_agents: 2, n_clients: 2, n_slots: 4, n_deals: 3 },
            n_busy: 2,
            n_leased: 1,
            totals: Totals { n_agent_calls: 10, n_client_calls: 20, n_deals: 3 },
            agents: vec![
                agent(2, "desk-b", &[(true, Some(9)), (false, None)]),
                agent(1, "desk-a", &[(true, None), (false, Some(8))]),
            ],
            clients: vec![client(8), client(9)],
        };
        let names = HashMap::from([(PeerId([9; 32]), "<script>\"\\\nalert(1)</script>".to_owned())]);
        let facts =
            Facts { farm: "00ff".into(), name: "box".into(), uptime: Duration::from_secs(61), n_members: 5, names };
        document(overview, &facts)
    }

    #[test]
    fn the_document_is_what_scripts_expect() {
        let shown = serde_json::to_value(sample()).unwrap();
        assert_eq!(shown["slots"], serde_json::json!({"total": 4, "busy": 2, "leased": 1, "idle": 1}));
        assert_eq!(shown["agents"][0]["name"], "desk-a");
        assert_eq!(
            shown["agents"][0]["slot_list"],
            serde_json::json!([{"state": "busy", "client": null}, {"state": "leased", "client": "080808080808"}])
        );
        assert_eq!(shown["agents"][1]["slots"]["busy"], 1);
        assert_eq!((&shown["uptime_s"], &shown["members"], &shown["agents_total"]), (&61.into(), &5.into(), &2.into()));
        assert_eq!(shown["clients"][0]["name"], "080808080808", "no name is known");
        assert!(shown.get("totals").is_none());
    }
}
