//! The scheduler as a pure state machine: whole states of agents and clients come in, what they should hold goes out.
//!
//! Nothing here knows a clock, a socket or a disk: time is an argument, counted from the start of this coordinator. Nothing here is
//! stored either. What an agent reports of a token that this coordinator has not seen yet is believed, so a coordinator that starts
//! empty learns who holds what from the next heartbeat of each agent; from then on its own decision about that token stands.
//!
//! A client's share is computed when it calls, and only its own deals change then: it is dealt open slots up to its share, or told to
//! let go of what exceeds it. A token that it was told to let go is open again when it says so, or when the deal runs out, never
//! before. What it doesn't want any more, and all it held when it left, is open at once.

pub mod overview;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buildbee_proto::control::{AgentDesired, AgentInfo, AgentState, Class, ClientDesired, ClientState, Offer};
use buildbee_proto::lease::{Lease, SlotToken};
use buildbee_proto::limits::{MAX_MEMBERS, MAX_SLOTS_PER_AGENT, MAX_TOOLCHAINS_PER_AGENT};
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::ToolchainId;

use super::deal::{DEAL_FOR, Deal, Deals, Standing};
use super::fairness::{Demand, shares, weight};
use super::listing::bounded;
use super::matching::{Candidate, choose, n_missing};

/// When agents, and clients that have what they want, are to call again.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// When a client that wants more than it has is to call again.
pub const EAGER_HEARTBEAT: Duration = Duration::from_millis(500);
/// Who did not call for this long is gone.
pub const SILENCE: Duration = Duration::from_secs(6);
/// For how long after the start a client's word is taken for tokens of agents that have not called yet.
pub const RECOVERY: Duration = DEAL_FOR;
/// Agents, and clients, known at a time.
pub const MAX_PEERS: usize = MAX_MEMBERS;
/// Slots of all agents together; what is offered beyond is not dealt.
pub const MAX_SLOTS: usize = 65_536;
/// Slots dealt to one client at a time.
pub const MAX_LEASES_PER_CLIENT: usize = 2_048;
/// Toolchains of one client that are looked at.
pub const MAX_TOOLCHAINS_PER_CLIENT: usize = 64;

/// What happens to the scheduler.
#[derive(Clone, Debug)]
pub enum Event {
    /// An agent called.
    AgentSync {
        /// Who.
        peer: PeerId,
        /// With what.
        state: AgentState,
    },
    /// A client called.
    ClientSync {
        /// Who.
        peer: PeerId,
        /// With what.
        state: ClientState,
    },
    /// A peer's connection ended.
    Gone {
        /// Whose.
        peer: PeerId,
    },
    /// Time passed.
    Tick,
}

/// What the scheduler wants to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer an agent.
    ReplyAgent {
        /// Whom.
        peer: PeerId,
        /// With what. The roster is filled in by the caller, who has it.
        desired: AgentDesired,
    },
    /// Answer a client.
    ReplyClient {
        /// Whom.
        peer: PeerId,
        /// With what. The roster is filled in by the caller, who has it.
        desired: ClientDesired,
    },
}

/// How much the scheduler knows: for bounds and for logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Agents.
    pub n_agents: usize,
    /// Clients.
    pub n_clients: usize,
    /// Slots of all agents.
    pub n_slots: usize,
    /// Tokens dealt.
    pub n_deals: usize,
}

/// What has happened since the start, for those who count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Synchronisations of agents.
    pub n_agent_calls: u64,
    /// Synchronisations of clients.
    pub n_client_calls: u64,
    /// Tokens given to a client that did not hold them.
    pub n_deals: u64,
}

#[derive(Debug)]
struct Agent {
    offer: Offer,
    slots: BTreeMap<SlotToken, Slot>,
    last_call: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    busy: bool,
    /// Who lost it by leaving: if that client comes back before anybody else got it, it may go on.
    left_by: Option<PeerId>,
}

#[derive(Debug)]
struct Client {
    class: Class,
    n_wanted: usize,
    toolchains: Vec<ToolchainId>,
    last_call: Duration,
}

/// The scheduler's state.
#[derive(Debug, Default)]
pub struct Core {
    agents: BTreeMap<PeerId, Agent>,
    clients: BTreeMap<PeerId, Client>,
    deals: Deals,
    totals: Totals,
    /// Latest time seen, so that a caller's clock that goes backwards stands still here.
    latest: Duration,
}

impl Core {
    /// A scheduler that knows nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one event at `now` (time since the start of this coordinator). A synchronisation is answered by exactly one effect.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let now = now.max(self.latest);
        self.latest = now;
        self.forget_silent(now);
        self.deals.expire(now);
        match event {
            Event::AgentSync { peer, state } => {
                self.totals.n_agent_calls += 1;
                vec![Effect::ReplyAgent { peer, desired: self.synchronise_agent(now, peer, state) }]
            }
            Event::ClientSync { peer, state } => {
                self.totals.n_client_calls += 1;
                vec![Effect::ReplyClient { peer, desired: self.synchronise_client(now, peer, &state) }]
            }
            Event::Gone { peer } => {
                self.forget_agent(peer);
                self.forget_client(peer);
                Vec::new()
            }
            Event::Tick => Vec::new(),
        }
    }

    /// How much is known.
    pub fn counts(&self) -> Counts {
        Counts {
            n_agents: self.agents.len(),
            n_clients: self.clients.len(),
            n_slots: self.n_slots(),
            n_deals: self.deals.len(),
        }
    }

    fn n_slots(&self) -> usize {
        self.agents.values().map(|agent| agent.slots.len()).sum()
    }

    /// Silent clients lose their share at once and their deals when those run out; silent agents are gone with all their slots.
    fn forget_silent(&mut self, now: Duration) {
        self.clients.retain(|_, client| now.saturating_sub(client.last_call) < SILENCE);
        let silent: Vec<PeerId> = self
            .agents
            .iter()
            .filter(|(_, agent)| now.saturating_sub(agent.last_call) >= SILENCE)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in silent {
            self.forget_agent(peer);
        }
    }

    fn forget_agent(&mut self, peer: PeerId) {
        if self.agents.remove(&peer).is_some() {
            let tokens: Vec<SlotToken> = self.deals.of_agent(peer).map(|(token, _)| *token).collect();
            for token in tokens {
                self.deals.remove(&token);
            }
        }
    }

    fn forget_client(&mut self, peer: PeerId) {
        self.clients.remove(&peer);
        for token in self.deals.of_client(peer, Standing::Good) {
            self.deals.remove(&token);
            if let Some(slot) = self.slot_mut(&token) {
                slot.left_by = Some(peer);
            }
        }
        for token in self.deals.of_client(peer, Standing::Recalled) {
            self.deals.remove(&token);
        }
    }

    fn slot_mut(&mut self, token: &SlotToken) -> Option<&mut Slot> {
        self.agents.get_mut(&token.agent)?.slots.get_mut(token)
    }

    fn slot(&self, token: &SlotToken) -> Option<&Slot> {
        self.agents.get(&token.agent)?.slots.get(token)
    }

    fn synchronise_agent(&mut self, now: Duration, peer: PeerId, state: AgentState) -> AgentDesired {
        let known = self.agents.remove(&peer);
        if known.is_some() || self.agents.len() < MAX_PEERS {
            let room = MAX_SLOTS.saturating_sub(self.n_slots()).min(MAX_SLOTS_PER_AGENT);
            let before = known.map(|agent| agent.slots).unwrap_or_default();
            let slots = self.take_in_slots(now, peer, &state, &before, room);
            self.agents.insert(peer, Agent { offer: state.offer, slots, last_call: now });
        }
        AgentDesired {
            dealt: self.deals.of_agent(peer).map(|(token, deal)| (*token, deal.client)).collect(),
            deal_for_ms: milliseconds(DEAL_FOR),
            peers: bounded(self.agents.iter().filter(|(other, _)| **other != peer).map(info)),
            roster: None,
            next_call_ms: milliseconds(HEARTBEAT),
        }
    }

    /// The agent's slots as reported. Deals on tokens that it reports no more are void; what it says of tokens that are new here is
    /// believed.
    fn take_in_slots(
        &mut self,
        now: Duration,
        peer: PeerId,
        state: &AgentState,
        before: &BTreeMap<SlotToken, Slot>,
        room: usize,
    ) -> BTreeMap<SlotToken, Slot> {
        let mut slots = BTreeMap::new();
        for report in state.slots.iter().filter(|report| report.token.agent == peer).take(room) {
            let known = before.get(&report.token);
            let left_by = known.and_then(|slot| slot.left_by);
            if slots.insert(report.token, Slot { busy: report.busy, left_by }).is_some() || known.is_some() {
                continue;
            }
            let for_now = Duration::from_millis(report.expires_in_ms.into()).min(DEAL_FOR);
            let holder = self.deals.get(&report.token).map(|deal| deal.client);
            if let Some(client) = report.dealt_to.filter(|client| !for_now.is_zero() && holder != Some(*client)) {
                self.deals.insert(report.token, Deal { client, until: now + for_now, standing: Standing::Good });
            }
        }
        let void: Vec<SlotToken> =
            self.deals.of_agent(peer).map(|(token, _)| *token).filter(|token| !slots.contains_key(token)).collect();
        for token in void {
            self.deals.remove(&token);
        }
        slots
    }

    fn synchronise_client(&mut self, now: Duration, peer: PeerId, state: &ClientState) -> ClientDesired {
        let n_wanted = usize::try_from(state.n_wanted).unwrap_or(usize::MAX).min(MAX_LEASES_PER_CLIENT);
        if self.clients.contains_key(&peer) || self.clients.len() < MAX_PEERS {
            let toolchains = state.toolchains.iter().take(MAX_TOOLCHAINS_PER_CLIENT).copied().collect();
            self.clients.insert(peer, Client { class: state.class, n_wanted, toolchains, last_call: now });
            let held: BTreeSet<SlotToken> = state.held.iter().take(MAX_LEASES_PER_CLIENT).copied().collect();
            self.take_in_held(now, peer, n_wanted, &held);
            self.give_back(peer, n_wanted, &held);
            self.level(now, peer, &held);
            for token in self.deals.of_client(peer, Standing::Good) {
                if self.slot(&token).is_some() {
                    self.deals.renew(&token, now + DEAL_FOR);
                }
            }
        }
        let leases = self.leases(now, peer);
        let next_call = if leases.len() < n_wanted { EAGER_HEARTBEAT } else { HEARTBEAT };
        let agents = self.agents_for(&leases, &state.toolchains);
        ClientDesired { leases, agents, roster: None, next_call_ms: milliseconds(next_call) }
    }

    /// What the client says that it holds: recalled tokens that it doesn't name any more are open again, and tokens that it lost by
    /// leaving, or that nobody else can know about yet, are its own again.
    fn take_in_held(&mut self, now: Duration, peer: PeerId, n_wanted: usize, held: &BTreeSet<SlotToken>) {
        for token in self.deals.of_client(peer, Standing::Recalled) {
            if !held.contains(&token) {
                self.deals.remove(&token);
            }
        }
        for token in self.deals.of_client(peer, Standing::Good) {
            if !held.contains(&token) && self.slot(&token).is_none() {
                self.deals.remove(&token);
            }
        }
        let mut n_held = self.deals.count(peer, Standing::Good);
        for token in held {
            if n_held >= n_wanted || self.deals.get(token).is_some() {
                continue;
            }
            let until = if self.agents.contains_key(&token.agent) {
                if self.slot(token).is_none_or(|slot| slot.left_by != Some(peer)) {
                    continue;
                }
                now + DEAL_FOR
            } else {
                // The agent may just not have called since this coordinator started. It will settle the matter when it does.
                if now >= RECOVERY || self.deals.len() >= MAX_SLOTS {
                    continue;
                }
                RECOVERY
            };
            self.deal(*token, peer, until);
            n_held += 1;
        }
    }

    fn deal(&mut self, token: SlotToken, client: PeerId, until: Duration) {
        if let Some(slot) = self.slot_mut(&token) {
            slot.left_by = None;
        }
        self.totals.n_deals += 1;
        self.deals.insert(token, Deal { client, until, standing: Standing::Good });
    }

    /// Opens at once what exceeds the client's own wish.
    fn give_back(&mut self, peer: PeerId, n_wanted: usize, held: &BTreeSet<SlotToken>) {
        let surplus = self.deals.count(peer, Standing::Good).saturating_sub(n_wanted);
        for token in self.least_useful(peer, held).into_iter().take(surplus) {
            self.deals.remove(&token);
        }
    }

    /// Recalls what exceeds the client's share, or deals what it lacks.
    fn level(&mut self, now: Duration, peer: PeerId, held: &BTreeSet<SlotToken>) {
        let share = self.share(peer);
        let n_held = self.deals.count(peer, Standing::Good);
        for token in self.least_useful(peer, held).into_iter().take(n_held.saturating_sub(share)) {
            self.deals.set_standing(&token, Standing::Recalled);
        }
        let mut lacking = share.saturating_sub(n_held);
        for token in self.deals.of_client(peer, Standing::Recalled).into_iter().take(lacking) {
            self.deals.set_standing(&token, Standing::Good);
            lacking -= 1;
        }
        if lacking == 0 {
            return;
        }
        let Some(client) = self.clients.get(&peer) else { return };
        for token in choose(lacking, &client.toolchains, self.candidates()) {
            self.deal(token, peer, now + DEAL_FOR);
        }
    }

    /// How many slots are the client's fair share of what can be dealt to the clients that are here.
    fn share(&self, peer: PeerId) -> usize {
        let index = self.clients.range(..peer).count();
        self.shares().get(index).copied().unwrap_or(0)
    }

    /// The shares of all clients, in their order.
    fn shares(&self) -> Vec<usize> {
        let n_open: usize = self.agents.values().map(|agent| self.open(agent).count()).sum();
        let n_dealt: usize = self
            .deals
            .clients()
            .filter(|client| self.clients.contains_key(client))
            .map(|client| self.deals.count(*client, Standing::Good) + self.deals.count(*client, Standing::Recalled))
            .sum();
        let demands: Vec<Demand> = self
            .clients
            .iter()
            .map(|(client, state)| Demand {
                n_wanted: state.n_wanted,
                n_held: self.deals.count(*client, Standing::Good),
                weight: weight(state.class),
            })
            .collect();
        shares(n_open + n_dealt, &demands)
    }

    /// Tokens that can be dealt: nobody holds them and nothing runs in their slots.
    fn open<'a>(&'a self, agent: &'a Agent) -> impl Iterator<Item = SlotToken> + 'a {
        let open = agent.slots.iter().filter(|(token, slot)| !slot.busy && self.deals.get(token).is_none());
        open.map(|(token, _)| *token)
    }

    fn candidates(&self) -> Vec<Candidate<'_>> {
        let candidates = self.agents.iter().map(|(peer, agent)| {
            let open: std::collections::VecDeque<SlotToken> = self.open(agent).collect();
            Candidate {
                agent: *peer,
                toolchains: &agent.offer.toolchains,
                load_percent: agent.offer.load_percent,
                n_slots: agent.slots.len(),
                n_taken: agent.slots.len() - open.len(),
                open,
            }
        });
        candidates.filter(|candidate| !candidate.open.is_empty()).collect()
    }

    /// The client's good deals, those first that it would miss least: not in its hands yet, idle, on an agent without its toolchains.
    fn least_useful(&self, peer: PeerId, held: &BTreeSet<SlotToken>) -> Vec<SlotToken> {
        let wanted = self.clients.get(&peer).map_or(&[][..], |client| &client.toolchains);
        let mut tokens = self.deals.of_client(peer, Standing::Good);
        tokens.sort_by_cached_key(|token| {
            let busy = self.slot(token).is_some_and(|slot| slot.busy);
            let agent = self.agents.get(&token.agent);
            let missing = agent.map_or(usize::MAX, |agent| n_missing(wanted, &agent.offer.toolchains));
            (held.contains(token), busy, usize::MAX - missing)
        });
        tokens
    }

    fn leases(&self, now: Duration, peer: PeerId) -> Vec<Lease> {
        let tokens = self.deals.of_client(peer, Standing::Good);
        let lease = |token: SlotToken| {
            let until = self.deals.get(&token)?.until;
            Some(Lease { token, expires_in_ms: milliseconds(until.saturating_sub(now)) })
        };
        tokens.into_iter().filter_map(lease).take(MAX_LEASES_PER_CLIENT).collect()
    }

    /// All agents, those first that the client needs to know: where it has leases, then by the toolchains it lacks there.
    fn agents_for(&self, leases: &[Lease], toolchains: &[ToolchainId]) -> Vec<AgentInfo> {
        let near: BTreeSet<PeerId> = leases.iter().map(|lease| lease.token.agent).collect();
        let wanted = &toolchains[..toolchains.len().min(MAX_TOOLCHAINS_PER_CLIENT)];
        let mut agents: Vec<(&PeerId, &Agent)> = self.agents.iter().collect();
        agents.sort_by_cached_key(|(peer, agent)| {
            (!near.contains(peer), n_missing(wanted, &agent.offer.toolchains), **peer)
        });
        bounded(agents.into_iter().map(info))
    }
}

fn info((peer, agent): (&PeerId, &Agent)) -> AgentInfo {
    let mut offer = agent.offer.clone();
    offer.toolchains.truncate(MAX_TOOLCHAINS_PER_AGENT);
    AgentInfo { peer: *peer, offer, n_slots: u32::try_from(agent.slots.len()).unwrap_or(u32::MAX) }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
