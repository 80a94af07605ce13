//! The scheduler as a pure state machine: whole states of agents and clients come in, what they should hold goes out.
//!
//! Nothing here knows a clock, a socket or a disk: time is an argument, counted from the start of this coordinator. Nothing here is
//! stored either. What an agent reports of a token that this coordinator has not seen yet is believed, so a coordinator that starts
//! empty learns who holds what from the next heartbeat of each agent; from then on its own decision about that token stands.
//!
//! A client's share is computed when it calls, and only its own deals change then: it is dealt open slots up to its share, or told to
//! let go of what exceeds it. A token that it was told to let go is open again when it says so, or when the deal runs out, never
//! before. What it doesn't want any more, and all it held when it left, is open at once.
//!
//! No step looks at all agents or all clients: what it needs of them is kept in order beside them (`agents`, `clients`, [`deal`](super::deal)), and of
//! a farm that is large each peer is told of a part only: agents of those that they stay connected to, clients of those that they have leases
//! on and of some more, among which are those that they go on with when there is no coordinator.

pub mod overview;

use std::collections::BTreeSet;
use std::time::Duration;

use buildbee_proto::control::{AgentDesired, AgentState, ClientDesired, ClientState};
use buildbee_proto::lease::{Lease, SlotReport, SlotToken};
use buildbee_proto::limits::{MAX_MEMBERS, MAX_SLOTS_PER_AGENT};
use buildbee_proto::peer::PeerId;

use super::agents::{Agent, Agents, Slot};
use super::clients::Clients;
use super::deal::{DEAL_FOR, Deal, Deals, Standing};
use super::listing::News;
use super::matching::{Place, choose, n_missing};

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
pub const MAX_SLOTS: usize = 131_072;
/// Slots dealt to one client at a time.
pub const MAX_LEASES_PER_CLIENT: usize = 2_048;
/// Slots dealt in one answer, so that nobody waits long for an answer behind a client that wants many; and when that one is to call for more.
pub const MAX_DEALS_PER_CALL: usize = 64;
/// See [`MAX_DEALS_PER_CALL`].
pub const BATCH_PAUSE: Duration = Duration::from_millis(50);
/// Toolchains of one client that are looked at.
pub const MAX_TOOLCHAINS_PER_CLIENT: usize = 64;
/// Others that an agent is told of. It stays connected to all of them.
pub const TOLD_TO_AGENTS: usize = 64;
/// Agents that a client is told of beside those that it has leases on.
pub const TOLD_TO_CLIENTS: usize = 256;

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

/// The scheduler's state.
#[derive(Debug, Default)]
pub struct Core {
    agents: Agents,
    clients: Clients,
    deals: Deals,
    totals: Totals,
    /// Number of the last listing that anybody was told.
    listing: u64,
    /// Latest time seen, so that a caller's clock that goes backwards stands still here.
    latest: Duration,
}

impl Core {
    /// A scheduler that knows nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, whose listings are numbered from `listing` on: a random number, so that those of an earlier run are not taken for its own.
    pub fn numbering_from(listing: u64) -> Self {
        Self { listing, ..Self::default() }
    }

    /// Takes in one event at `now` (time since the start of this coordinator). A synchronisation is answered by exactly one effect.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let now = now.max(self.latest);
        self.latest = now;
        self.forget_silent(now);
        for token in self.deals.run_out(now) {
            self.undeal(&token);
        }
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
            n_slots: self.agents.n_slots(),
            n_deals: self.deals.len(),
        }
    }

    /// Silent clients lose their share at once and their deals when those run out; silent agents are gone with all their slots.
    fn forget_silent(&mut self, now: Duration) {
        let Some(before) = now.checked_sub(SILENCE) else { return };
        while let Some(peer) = self.clients.silent_since(before) {
            self.clients.remove(&peer);
        }
        while let Some(peer) = self.agents.silent_since(before) {
            self.forget_agent(peer);
        }
    }

    fn forget_agent(&mut self, peer: PeerId) {
        if self.agents.remove(&peer) {
            let tokens: Vec<SlotToken> = self.deals.of_agent(peer).map(|(token, _)| *token).collect();
            for token in tokens {
                self.undeal(&token);
            }
        }
    }

    fn forget_client(&mut self, peer: PeerId) {
        self.clients.remove(&peer);
        for token in self.deals.of_client(peer, Standing::Good) {
            self.undeal(&token);
            self.agents.change_slot(&token, |slot| slot.left_by = Some(peer));
        }
        for token in self.deals.of_client(peer, Standing::Recalled) {
            self.undeal(&token);
        }
    }

    /// Puts a token into a client's hands. Slots and demands follow.
    fn put_deal(&mut self, token: SlotToken, deal: Deal) {
        let before = self.deals.insert(token, deal);
        self.agents.change_slot(&token, |slot| slot.dealt = true);
        if let Some(before) = before {
            self.count_deals(before.client);
        }
        self.count_deals(deal.client);
    }

    /// Takes a token out of whoever's hands. Slots and demands follow.
    fn undeal(&mut self, token: &SlotToken) {
        if let Some(deal) = self.deals.remove(token) {
            self.agents.change_slot(token, |slot| slot.dealt = false);
            self.count_deals(deal.client);
        }
    }

    fn count_deals(&mut self, client: PeerId) {
        let count = |standing| self.deals.count(client, standing);
        self.clients.holds(&client, count(Standing::Good), count(Standing::Recalled));
    }

    fn synchronise_agent(&mut self, now: Duration, peer: PeerId, state: AgentState) -> AgentDesired {
        let known = self.agents.get(&peer).map(Agent::n_slots);
        if known.is_some() || self.agents.len() < MAX_PEERS {
            let others = self.agents.n_slots() - known.unwrap_or(0);
            let room = MAX_SLOTS.saturating_sub(others).min(MAX_SLOTS_PER_AGENT);
            let slots = self.take_in_slots(now, peer, &state.slots, room);
            self.agents.put(now, peer, state.offer, slots);
        }
        let News { listing, more } = self.tell_agent(peer, state.listing);
        AgentDesired {
            dealt: self.deals.of_agent(peer).map(|(token, deal)| (*token, deal.client)).collect(),
            deal_for_ms: milliseconds(DEAL_FOR),
            peers: listing,
            roster: None,
            next_call_ms: milliseconds(if more { EAGER_HEARTBEAT } else { HEARTBEAT }),
        }
    }

    /// The agent's slots as reported. Deals on tokens that it reports no more are void; what it says of tokens that are new here is
    /// believed.
    fn take_in_slots(&mut self, now: Duration, peer: PeerId, reports: &[SlotReport], room: usize) -> Vec<Slot> {
        let own = || reports.iter().filter(|report| report.token.agent == peer).take(room);
        let mut fresh = BTreeSet::new();
        for report in own() {
            if self.agents.slot(&report.token).is_some() || !fresh.insert(report.token) {
                continue;
            }
            let for_now = Duration::from_millis(report.expires_in_ms.into()).min(DEAL_FOR);
            let holder = self.deals.get(&report.token).map(|deal| deal.client);
            if let Some(client) = report.dealt_to.filter(|client| !for_now.is_zero() && holder != Some(*client)) {
                self.put_deal(report.token, Deal { client, until: now + for_now, standing: Standing::Good });
            }
        }
        let named: BTreeSet<(u64, u64)> = own().map(|report| (report.token.boot_id, report.token.counter)).collect();
        let is_void = |token: &SlotToken| !named.contains(&(token.boot_id, token.counter));
        let void: Vec<SlotToken> = self.deals.of_agent(peer).map(|(token, _)| *token).filter(is_void).collect();
        for token in void {
            self.undeal(&token);
        }
        own()
            .map(|report| Slot {
                left_by: self.agents.slot(&report.token).and_then(|slot| slot.left_by),
                dealt: self.deals.get(&report.token).is_some(),
                ..Slot::new(&report.token, report.busy)
            })
            .collect()
    }

    fn tell_agent(&mut self, peer: PeerId, held: u64) -> News {
        let Some(place) = self.agents.place(&peer) else { return News::default() };
        let wanted = self.agents.around(&peer, TOLD_TO_AGENTS);
        let mut told = self.agents.told_mut(place).map(std::mem::take).unwrap_or_default();
        let agents = &self.agents;
        let news = told.news(
            held,
            self.listing.wrapping_add(1).max(1),
            &wanted,
            |place| agents.revision(place),
            |place| agents.info(place),
        );
        if let Some(kept) = self.agents.told_mut(place) {
            *kept = told;
        }
        self.number(news)
    }

    fn number(&mut self, news: News) -> News {
        if let Some(listing) = &news.listing {
            self.listing = listing.number;
        }
        news
    }

    fn synchronise_client(&mut self, now: Duration, peer: PeerId, state: &ClientState) -> ClientDesired {
        let n_wanted = usize::try_from(state.n_wanted).unwrap_or(usize::MAX).min(MAX_LEASES_PER_CLIENT);
        let mut is_batch = false;
        if self.clients.get(&peer).is_some() || self.clients.len() < MAX_PEERS {
            let toolchains = state.toolchains.iter().take(MAX_TOOLCHAINS_PER_CLIENT).copied().collect();
            self.clients.put(now, peer, state.class, n_wanted, toolchains);
            self.count_deals(peer);
            let held: BTreeSet<SlotToken> = state.held.iter().take(MAX_LEASES_PER_CLIENT).copied().collect();
            self.take_in_held(now, peer, n_wanted, &held);
            self.give_back(peer, n_wanted, &held);
            is_batch = self.level(now, peer, &held);
        }
        let leases = self.leases(now, peer);
        let News { listing, more } = self.tell_client(peer, state.listing, &leases);
        let eager = more || leases.len() < n_wanted;
        let next_call = if eager { EAGER_HEARTBEAT } else { HEARTBEAT };
        let next_call = if is_batch { BATCH_PAUSE } else { next_call };
        ClientDesired { leases, agents: listing, roster: None, next_call_ms: milliseconds(next_call) }
    }

    /// Agents that the client has leases on come first, and are told of wherever they stand.
    fn tell_client(&mut self, peer: PeerId, held: u64, leases: &[Lease]) -> News {
        let mut seen = BTreeSet::new();
        let leased = leases.iter().filter_map(|lease| self.agents.place(&lease.token.agent));
        let around = self.agents.around(&peer, TOLD_TO_CLIENTS);
        let wanted: Vec<Place> = leased.chain(around).filter(|place| seen.insert(*place)).collect();
        let Some(client) = self.clients.get_mut(&peer) else { return News::default() };
        let agents = &self.agents;
        let news = client.told.news(
            held,
            self.listing.wrapping_add(1).max(1),
            &wanted,
            |place| agents.revision(place),
            |place| agents.info(place),
        );
        self.number(news)
    }

    /// What the client says that it holds: recalled tokens that it doesn't name any more are open again, and tokens that it lost by
    /// leaving, or that nobody else can know about yet, are its own again.
    fn take_in_held(&mut self, now: Duration, peer: PeerId, n_wanted: usize, held: &BTreeSet<SlotToken>) {
        for token in self.deals.of_client(peer, Standing::Recalled) {
            if !held.contains(&token) {
                self.undeal(&token);
            }
        }
        for token in self.deals.of_client(peer, Standing::Good) {
            if !held.contains(&token) && self.agents.slot(&token).is_none() {
                self.undeal(&token);
            }
        }
        let mut n_held = self.deals.count(peer, Standing::Good);
        for token in held {
            if n_held >= n_wanted || self.deals.get(token).is_some() {
                continue;
            }
            let until = if self.agents.contains(&token.agent) {
                if self.agents.slot(token).is_none_or(|slot| slot.left_by != Some(peer)) {
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
        self.count_deals(peer);
    }

    /// Deals a token that nobody has. The caller counts the client's deals when it has dealt them all.
    fn deal(&mut self, token: SlotToken, client: PeerId, until: Duration) {
        self.totals.n_deals += 1;
        self.deals.insert(token, Deal { client, until, standing: Standing::Good });
        self.agents.change_slot(&token, |slot| {
            slot.left_by = None;
            slot.dealt = true;
        });
    }

    /// Opens at once what exceeds the client's own wish.
    fn give_back(&mut self, peer: PeerId, n_wanted: usize, held: &BTreeSet<SlotToken>) {
        let surplus = self.deals.count(peer, Standing::Good).saturating_sub(n_wanted);
        for token in self.least_useful(surplus, peer, held) {
            self.undeal(&token);
        }
    }

    /// Recalls what exceeds the client's share, or deals what it lacks. Whether there is more than is dealt at a time.
    fn level(&mut self, now: Duration, peer: PeerId, held: &BTreeSet<SlotToken>) -> bool {
        let share = self.share(&peer);
        let n_held = self.deals.count(peer, Standing::Good);
        for token in self.least_useful(n_held.saturating_sub(share), peer, held) {
            self.deals.set_standing(&token, Standing::Recalled);
        }
        let mut lacking = share.saturating_sub(n_held);
        for token in self.deals.of_client(peer, Standing::Recalled).into_iter().take(lacking) {
            self.deals.set_standing(&token, Standing::Good);
            lacking -= 1;
        }
        self.count_deals(peer);
        if lacking == 0 {
            return false;
        }
        let Some(client) = self.clients.get(&peer) else { return false };
        let n = lacking.min(MAX_DEALS_PER_CALL);
        let chosen = choose(n, &client.toolchains, self.agents.candidates(n, &client.toolchains));
        for token in &chosen {
            self.deal(*token, peer, now + DEAL_FOR);
        }
        self.count_deals(peer);
        chosen.len() < lacking && chosen.len() == MAX_DEALS_PER_CALL
    }

    /// How many slots are the client's fair share of what can be dealt to the clients that are here.
    fn share(&self, peer: &PeerId) -> usize {
        self.clients.share(self.agents.n_open() + self.clients.n_dealt(), peer)
    }

    /// At most `n` of the client's good deals, those that it would miss least: not in its hands yet, idle, on an agent without its
    /// toolchains.
    fn least_useful(&self, n: usize, peer: PeerId, held: &BTreeSet<SlotToken>) -> Vec<SlotToken> {
        if n == 0 {
            return Vec::new();
        }
        let wanted = self.clients.get(&peer).map_or(&[][..], |client| &client.toolchains);
        let mut tokens = self.deals.of_client(peer, Standing::Good);
        if n >= tokens.len() {
            return tokens;
        }
        tokens.sort_by_cached_key(|token| {
            let busy = self.agents.slot(token).is_some_and(|slot| slot.busy);
            let agent = self.agents.get(&token.agent);
            let missing = agent.map_or(usize::MAX, |agent| n_missing(wanted, &agent.offer.toolchains));
            (held.contains(token), busy, usize::MAX - missing)
        });
        tokens.truncate(n);
        tokens
    }

    /// The client's leases. Those on slots that are known are good for a while from now.
    fn leases(&mut self, now: Duration, peer: PeerId) -> Vec<Lease> {
        let mut leases = Vec::new();
        for token in self.deals.of_client(peer, Standing::Good) {
            let is_known = self.agents.slot(&token).is_some();
            let until = if is_known { now + DEAL_FOR } else { now };
            let Some(until) = self.deals.renew(&token, until) else { continue };
            leases.push(Lease { token, expires_in_ms: milliseconds(until.saturating_sub(now)) });
        }
        leases.truncate(MAX_LEASES_PER_CLIENT);
        leases
    }

    /// Whether all that is kept beside agents, clients and deals agrees with them.
    #[cfg(test)]
    pub(super) fn is_sound(&self) -> bool {
        let dealt = |agent: &Agent| agent.slots().all(|(token, slot)| slot.dealt == self.deals.get(&token).is_some());
        let n_dealt =
            |peer: &PeerId| self.deals.count(*peer, Standing::Good) + self.deals.count(*peer, Standing::Recalled);
        self.agents.is_sound()
            && self.agents.iter().all(dealt)
            && self.clients.iter().all(|(peer, client)| client.demand.n_held == self.deals.count(*peer, Standing::Good))
            && self.clients.iter().map(|(peer, _)| n_dealt(peer)).sum::<usize>() == self.clients.n_dealt()
    }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
