//! The scheduler core in a small world: agents and clients that keep their own state, a network that drops, repeats and reorders, a
//! coordinator that restarts empty, time that jumps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buildbee_proto::control::{AgentDesired, AgentState, Class, ClientDesired, ClientState, Offer};
use buildbee_proto::digest::Digest;
use buildbee_proto::lease::{SlotReport, SlotToken};
use buildbee_proto::listing::{KnownAgents, Listing};
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::ToolchainId;
use proptest::prelude::*;

use super::core::{BATCH_PAUSE, Core, EAGER_HEARTBEAT, Effect, Event, HEARTBEAT, MAX_SLOTS, RECOVERY, SILENCE};
use super::deal::DEAL_FOR;

const N_AGENTS: u8 = 3;
const N_CLIENTS: u8 = 4;

fn agent_id(index: u8) -> PeerId {
    PeerId([index; 32])
}

fn client_id(index: u8) -> PeerId {
    PeerId([100 + index; 32])
}

/// One slot as its agent sees it.
#[derive(Clone, Debug)]
struct SimSlot {
    token: SlotToken,
    dealt: Option<(PeerId, Duration)>,
    busy: bool,
}

#[derive(Clone, Debug)]
struct SimAgent {
    peer: PeerId,
    minted: u64,
    slots: Vec<SimSlot>,
    toolchains: Vec<ToolchainId>,
    known: KnownAgents,
}

impl SimAgent {
    fn new(index: u8, n_slots: u64) -> Self {
        let peer = agent_id(index);
        let slot =
            |counter| SimSlot { token: SlotToken { agent: peer, boot_id: 7, counter }, dealt: None, busy: false };
        Self {
            peer,
            minted: n_slots,
            slots: (0..n_slots).map(slot).collect(),
            toolchains: vec![],
            known: KnownAgents::default(),
        }
    }

    fn expire(&mut self, now: Duration) {
        for slot in &mut self.slots {
            if slot.dealt.is_some_and(|(_, until)| until <= now) {
                slot.dealt = None;
                slot.token.counter = self.minted;
                self.minted += 1;
            }
        }
    }

    fn state(&self, now: Duration) -> AgentState {
        let report = |slot: &SimSlot| SlotReport {
            token: slot.token,
            dealt_to: slot.dealt.map(|(client, _)| client),
            expires_in_ms: slot
                .dealt
                .map_or(0, |(_, until)| u32::try_from(until.saturating_sub(now).as_millis()).unwrap()),
            busy: slot.busy,
        };
        let offer = Offer { toolchains: self.toolchains.clone(), ..Offer::default() };
        AgentState {
            offer,
            slots: self.slots.iter().map(report).collect(),
            roster_version: 0,
            listing: self.known.number(),
        }
    }

    fn apply(&mut self, now: Duration, desired: &AgentDesired) {
        let dealt: BTreeMap<SlotToken, PeerId> = desired.dealt.iter().copied().collect();
        assert_eq!(dealt.len(), desired.dealt.len(), "a token stands twice in one answer");
        let until = now + Duration::from_millis(desired.deal_for_ms.into());
        for slot in &mut self.slots {
            slot.dealt = dealt.get(&slot.token).map(|client| (*client, until));
        }
    }
}

#[derive(Clone, Debug)]
struct SimClient {
    peer: PeerId,
    n_wanted: u32,
    class: Class,
    toolchains: Vec<ToolchainId>,
    held: BTreeSet<SlotToken>,
    known: KnownAgents,
}

impl SimClient {
    fn state(&self) -> ClientState {
        ClientState {
            n_wanted: self.n_wanted,
            toolchains: self.toolchains.clone(),
            held: self.held.iter().copied().collect(),
            roster_version: 0,
            class: self.class,
            listing: self.known.number(),
        }
    }
}

/// The world, and for each token which client was last told that it holds it and has neither let go nor run out.
struct World {
    now: Duration,
    started: Duration,
    n_starts: u64,
    core: Core,
    agents: Vec<SimAgent>,
    clients: Vec<SimClient>,
    network: Vec<Event>,
    told: BTreeMap<SlotToken, (PeerId, Duration)>,
    /// When each agent was last heard of.
    heard: BTreeMap<PeerId, Duration>,
}

impl World {
    fn new(slots: &[u64], wants: &[u32]) -> Self {
        let agents = (0..).zip(slots).map(|(index, n_slots)| SimAgent::new(index, *n_slots)).collect();
        let client = |(index, n_wanted): (u8, &u32)| SimClient {
            peer: client_id(index),
            n_wanted: *n_wanted,
            class: Class::Interactive,
            toolchains: vec![],
            held: BTreeSet::new(),
            known: KnownAgents::default(),
        };
        Self {
            now: Duration::ZERO,
            started: Duration::ZERO,
            n_starts: 0,
            core: Core::new(),
            agents,
            clients: (0..).zip(wants).map(client).collect(),
            network: vec![],
            told: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        for agent in &mut self.agents {
            agent.expire(self.now);
        }
        let now = self.now;
        self.told.retain(|_, (_, until)| *until > now);
    }

    fn agent_event(&self, index: usize) -> Event {
        let agent = &self.agents[index];
        Event::AgentSync { peer: agent.peer, state: agent.state(self.now) }
    }

    fn client_event(&self, index: usize) -> Event {
        let client = &self.clients[index];
        Event::ClientSync { peer: client.peer, state: client.state() }
    }

    /// Hands `event` to the coordinator and its answer to who asked, unless it is lost on the way.
    #[expect(clippy::needless_pass_by_value, reason = "made for this one call")]
    fn deliver(&mut self, event: Event, answer_arrives: bool) {
        self.let_go(&event);
        let effects = self.core.step(self.now.saturating_sub(self.started), event.clone());
        let n_answers = usize::from(matches!(event, Event::AgentSync { .. } | Event::ClientSync { .. }));
        assert_eq!(effects.len(), n_answers);
        for effect in effects {
            match effect {
                Effect::ReplyAgent { peer, desired } => {
                    assert!(desired.dealt.iter().all(|(token, _)| token.agent == peer));
                    let agent = self.agents.iter_mut().find(|agent| agent.peer == peer).unwrap();
                    if answer_arrives {
                        agent.apply(self.now, &desired);
                        learn(&mut agent.known, desired.peers, &self.core, Some(peer));
                    }
                }
                Effect::ReplyClient { peer, desired } => {
                    let Event::ClientSync { state, .. } = &event else { panic!("answer to another kind of call") };
                    self.check_leases(peer, state, &desired);
                    if answer_arrives {
                        let client = self.clients.iter_mut().find(|client| client.peer == peer).unwrap();
                        client.held = desired.leases.iter().map(|lease| lease.token).collect();
                        learn(&mut client.known, desired.agents, &self.core, None);
                    }
                }
            }
        }
        let counts = self.core.counts();
        assert!(counts.n_agents <= self.agents.len() && counts.n_clients <= self.clients.len());
        assert!(counts.n_deals <= MAX_SLOTS);
        assert!(self.core.is_sound());
        if self.now.saturating_sub(self.started) >= RECOVERY {
            assert!(counts.n_deals <= counts.n_slots, "{counts:?}");
        }
    }

    /// Which promises `event` frees the coordinator from.
    fn let_go(&mut self, event: &Event) {
        let (now, heard) = (self.now, &self.heard);
        self.told.retain(|token, _| heard.get(&token.agent).is_none_or(|heard| now.saturating_sub(*heard) < SILENCE));
        self.heard.retain(|_, heard| now.saturating_sub(*heard) < SILENCE);
        match event {
            Event::AgentSync { peer, state } => {
                self.heard.insert(*peer, now);
                let reported: BTreeSet<SlotToken> = state.slots.iter().map(|slot| slot.token).collect();
                self.told.retain(|token, _| token.agent != *peer || reported.contains(token));
            }
            Event::ClientSync { peer, state } => {
                let gives_back = state.held.len() > state.n_wanted as usize;
                self.told.retain(|token, (client, _)| client != peer || (!gives_back && state.held.contains(token)));
            }
            Event::Gone { peer } => {
                self.heard.remove(peer);
                self.told.retain(|token, (client, _)| token.agent != *peer && client != peer);
            }
            Event::Tick => {}
        }
    }

    fn check_leases(&mut self, peer: PeerId, state: &ClientState, desired: &ClientDesired) {
        assert!(desired.leases.len() <= state.n_wanted as usize, "more than it wants");
        let eager = desired.leases.len() < state.n_wanted as usize;
        let next_call = if eager { EAGER_HEARTBEAT } else { HEARTBEAT };
        assert_eq!(u128::from(desired.next_call_ms), next_call.as_millis());
        for lease in &desired.leases {
            let for_now = Duration::from_millis(lease.expires_in_ms.into());
            assert!(for_now <= DEAL_FOR);
            if !self.heard.contains_key(&lease.token.agent) {
                // Right after a restart: the client's own word, which its agent settles when it calls.
                assert!(state.held.contains(&lease.token) && self.now.saturating_sub(self.started) < RECOVERY);
                continue;
            }
            let before = self.told.insert(lease.token, (peer, self.now + for_now));
            let holder = before.map_or(peer, |(holder, _)| holder);
            assert_eq!(holder, peer, "{:?} is dealt twice", lease.token);
        }
    }

    /// An empty coordinator. What survives is what an agent knows of.
    fn restart(&mut self) {
        self.n_starts += 1;
        self.core = Core::numbering_from(self.n_starts << 32);
        self.started = self.now;
        let known: BTreeMap<SlotToken, (PeerId, Duration)> = self
            .agents
            .iter()
            .flat_map(|agent| &agent.slots)
            .filter_map(|slot| slot.dealt.map(|dealt| (slot.token, dealt)))
            .collect();
        self.told.retain(|token, (client, until)| {
            known.get(token).is_some_and(|(holder, known_until)| {
                *until = (*until).min(*known_until);
                holder == client
            })
        });
        self.network.clear();
        self.heard.clear();
    }

    fn round(&mut self, every: Duration) {
        for index in 0..self.agents.len() {
            self.deliver(self.agent_event(index), true);
        }
        for index in 0..self.clients.len() {
            self.deliver(self.client_event(index), true);
        }
        self.advance(every);
    }

    fn shares(&self) -> Vec<usize> {
        self.clients.iter().map(|client| client.held.len()).collect()
    }

    /// One slot at a time to whoever has least: max-min fairness by definition.
    fn fair(&self) -> Vec<usize> {
        let n_slots: usize = self.agents.iter().map(|agent| agent.slots.len()).sum();
        let mut fair = vec![0; self.clients.len()];
        for _ in 0..n_slots {
            let hungry = (0..fair.len()).filter(|&index| fair[index] < self.clients[index].n_wanted as usize);
            if let Some(next) = hungry.min_by_key(|&index| fair[index]) {
                fair[next] += 1;
            }
        }
        fair
    }
}

/// Whoever has an answer knows of all agents but itself what the coordinator does.
fn learn(known: &mut KnownAgents, listing: Option<Listing>, core: &Core, own: Option<PeerId>) {
    if let Some(listing) = listing {
        // A message from the past may have been answered, which is put right by the next call.
        if !known.apply(listing) {
            return;
        }
    }
    let found: BTreeMap<PeerId, u32> = known.agents().iter().map(|info| (info.peer, info.n_slots)).collect();
    let agents = core.overview(Duration::ZERO).agents.into_iter().filter(|agent| Some(agent.peer) != own);
    let expected = agents.map(|agent| (agent.peer, u32::try_from(agent.slots.len()).unwrap())).collect();
    assert_eq!(known.agents().len(), found.len(), "somebody stands twice");
    assert_eq!(found, expected);
}

#[derive(Clone, Debug)]
enum Step {
    AgentCalls(usize),
    ClientCalls(usize, u32),
    /// Posted now, delivered by a later step, or never.
    PostAgent(usize),
    PostClient(usize, u32),
    Deliver {
        nth: usize,
        keep: bool,
        answer_arrives: bool,
    },
    AgentGone(usize),
    ClientGone(usize),
    Busy(usize, usize, bool),
    Restart,
    Advance(u64),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    let agent = 0..usize::from(N_AGENTS);
    let client = 0..usize::from(N_CLIENTS);
    prop_oneof![
        6 => agent.clone().prop_map(Step::AgentCalls),
        10 => (client.clone(), 0_u32..12).prop_map(|(index, n)| Step::ClientCalls(index, n)),
        2 => agent.clone().prop_map(Step::PostAgent),
        3 => (client.clone(), 0_u32..12).prop_map(|(index, n)| Step::PostClient(index, n)),
        6 => (0_usize..8, any::<bool>(), any::<bool>())
            .prop_map(|(nth, keep, answer_arrives)| Step::Deliver { nth, keep, answer_arrives }),
        1 => agent.clone().prop_map(Step::AgentGone),
        1 => client.prop_map(Step::ClientGone),
        3 => (agent, 0_usize..6, any::<bool>()).prop_map(|(agent, slot, busy)| Step::Busy(agent, slot, busy)),
        1 => Just(Step::Restart),
        6 => (0_u64..3_000).prop_map(Step::Advance),
        1 => (3_000_u64..100_000).prop_map(Step::Advance),
        2 => Just(Step::Tick),
    ]
}

#[expect(clippy::needless_pass_by_value, reason = "a step is taken once")]
fn run(world: &mut World, step: Step) {
    match step {
        Step::AgentCalls(index) => world.deliver(world.agent_event(index), true),
        Step::ClientCalls(index, n_wanted) => {
            world.clients[index].n_wanted = n_wanted;
            world.deliver(world.client_event(index), true);
        }
        Step::PostAgent(index) => world.network.push(world.agent_event(index)),
        Step::PostClient(index, n_wanted) => {
            world.clients[index].n_wanted = n_wanted;
            world.network.push(world.client_event(index));
        }
        Step::Deliver { nth, keep, answer_arrives } => {
            if world.network.is_empty() {
                return;
            }
            let nth = nth % world.network.len();
            let event = if keep { world.network[nth].clone() } else { world.network.remove(nth) };
            world.deliver(event, answer_arrives);
        }
        Step::AgentGone(index) => world.deliver(Event::Gone { peer: world.agents[index].peer }, true),
        Step::ClientGone(index) => world.deliver(Event::Gone { peer: world.clients[index].peer }, true),
        Step::Busy(agent, slot, busy) => {
            if let Some(slot) = world.agents[agent].slots.get_mut(slot) {
                slot.busy = busy;
            }
        }
        Step::Restart => world.restart(),
        Step::Advance(milliseconds) => world.advance(Duration::from_millis(milliseconds)),
        Step::Tick => world.deliver(Event::Tick, true),
    }
}

fn slots() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(0_u64..7, usize::from(N_AGENTS))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever the network, the clock and the processes do: no token is promised to two, nobody gets more than they want, the state
    /// stays bounded. And once all is quiet, shares are fair within six heartbeats.
    #[test]
    fn nothing_is_dealt_twice(slots in slots(), steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new(&slots, &[3; N_CLIENTS as usize]);
        for step in steps {
            run(&mut world, step);
        }
        for agent in &mut world.agents {
            for slot in &mut agent.slots {
                slot.busy = false;
            }
        }
        // Deals to clients by word of messages from the past may have to run out first.
        for _ in 0..12 {
            world.round(Duration::from_secs(2));
        }
        let (mut shares, mut fair) = (world.shares(), world.fair());
        shares.sort_unstable();
        fair.sort_unstable();
        prop_assert_eq!(shares, fair);
    }

    /// A restarted coordinator that all agents and clients have called once leaves every lease where it was, whoever calls first.
    #[test]
    fn a_restart_moves_nothing(
        slots in slots(),
        wants in proptest::collection::vec(0_u32..12, usize::from(N_CLIENTS)),
        order in Just((0..usize::from(N_AGENTS + N_CLIENTS)).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut world = World::new(&slots, &wants);
        for _ in 0..4 {
            world.round(Duration::from_secs(1));
        }
        let before: Vec<BTreeSet<SlotToken>> = world.clients.iter().map(|client| client.held.clone()).collect();
        world.restart();
        for index in order {
            match index.checked_sub(usize::from(N_AGENTS)) {
                None => world.deliver(world.agent_event(index), true),
                Some(index) => world.deliver(world.client_event(index), true),
            }
        }
        let after: Vec<BTreeSet<SlotToken>> = world.clients.iter().map(|client| client.held.clone()).collect();
        prop_assert_eq!(&before, &after);
        world.round(Duration::from_secs(2));
        let after: Vec<BTreeSet<SlotToken>> = world.clients.iter().map(|client| client.held.clone()).collect();
        prop_assert_eq!(before, after);
    }
}

#[test]
fn who_waits_gets_four_slots_for_each_of_a_batch() {
    let mut world = World::new(&[6, 4], &[10, 0]);
    world.clients[0].class = Class::Batch;
    for _ in 0..3 {
        world.round(HEARTBEAT);
    }
    assert_eq!(world.shares(), [10, 0]);
    world.clients[1].n_wanted = 20;
    for _ in 0..6 {
        world.round(EAGER_HEARTBEAT);
    }
    assert_eq!(world.shares(), [2, 8]);
}

#[test]
fn a_newcomer_gets_its_share_within_three_seconds() {
    let mut world = World::new(&[4, 4], &[8, 0]);
    world.round(HEARTBEAT);
    assert_eq!(world.shares(), [8, 0]);
    world.clients[1].n_wanted = 8;
    let since = world.now;
    // The first is asked to let go when it calls next, which is then soon, as it wants more than it has.
    for every in [HEARTBEAT, EAGER_HEARTBEAT, EAGER_HEARTBEAT] {
        assert_eq!(world.shares()[1], 0);
        world.round(every);
    }
    assert_eq!(world.shares(), [4, 4]);
    assert!(world.now.saturating_sub(since) <= Duration::from_secs(3));
}

#[test]
fn what_is_not_wanted_any_more_is_open_at_once() {
    let mut world = World::new(&[4], &[4, 4]);
    world.deliver(world.agent_event(0), true);
    world.deliver(world.client_event(0), true);
    world.clients[0].n_wanted = 1;
    world.deliver(world.client_event(0), true);
    world.deliver(world.client_event(1), true);
    assert_eq!(world.shares(), [1, 3]);
}

#[test]
fn who_leaves_loses_its_slots_at_once_and_who_falls_silent_when_they_run_out() {
    let mut world = World::new(&[4], &[4, 4]);
    world.deliver(world.agent_event(0), true);
    world.deliver(world.client_event(0), true);
    world.deliver(Event::Gone { peer: client_id(0) }, true);
    world.deliver(world.client_event(1), true);
    assert_eq!(world.shares(), [4, 4], "the one that left does not know yet");
    let frozen = world.now;
    while world.now < frozen + DEAL_FOR {
        assert_eq!(world.core.counts().n_deals, 4);
        world.advance(Duration::from_secs(1));
        world.deliver(world.agent_event(0), true);
    }
    assert_eq!(world.core.counts().n_clients, 0);
    assert_eq!(world.core.counts().n_deals, 0);
    world.advance(SILENCE);
    world.deliver(Event::Tick, true);
    assert_eq!(world.core.counts().n_agents, 0);
}

#[test]
fn many_slots_are_dealt_in_batches() {
    let mut world = World::new(&[200], &[150]);
    world.deliver(world.agent_event(0), true);
    for expected in [64, 128, 150] {
        let event = Event::ClientSync { peer: client_id(0), state: world.clients[0].state() };
        let effects = world.core.step(world.now, event);
        let [Effect::ReplyClient { desired, .. }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(desired.leases.len(), expected);
        let next_call = if expected < 150 { BATCH_PAUSE } else { HEARTBEAT };
        assert_eq!(u128::from(desired.next_call_ms), next_call.as_millis());
        world.clients[0].held = desired.leases.iter().map(|lease| lease.token).collect();
    }
}

#[test]
fn a_short_absence_costs_nothing() {
    let mut world = World::new(&[4], &[4, 4]);
    world.deliver(world.agent_event(0), true);
    world.deliver(world.client_event(0), true);
    for slot in &mut world.agents[0].slots {
        slot.busy = true;
    }
    world.deliver(world.agent_event(0), true);
    let held = world.clients[0].held.clone();
    world.deliver(Event::Gone { peer: client_id(0) }, true);
    world.deliver(world.client_event(0), true);
    assert_eq!(world.clients[0].held, held);
}

#[test]
fn a_made_up_token_is_worth_nothing() {
    let mut world = World::new(&[4], &[0, 4]);
    world.advance(RECOVERY);
    world.deliver(world.agent_event(0), true);
    let open = world.agents[0].slots[0].token;
    let void = SlotToken { counter: 99, ..open };
    let elsewhere = SlotToken { agent: agent_id(2), ..open };
    for slot in &mut world.agents[0].slots {
        slot.busy = true;
    }
    world.deliver(world.agent_event(0), true);
    world.clients[1].held = [open, void, elsewhere].into();
    world.deliver(world.client_event(1), true);
    assert_eq!(world.shares(), [0, 0]);
}

#[test]
fn the_agents_word_settles_a_token_that_two_clients_claim() {
    let mut world = World::new(&[1], &[1, 1]);
    let token = world.agents[0].slots[0].token;
    world.agents[0].slots[0].dealt = Some((client_id(1), Duration::from_secs(5)));
    world.clients[0].held = [token].into();
    world.clients[1].held = [token].into();
    world.deliver(world.client_event(0), true);
    assert_eq!(world.shares(), [1, 1], "only its own word so far");
    world.deliver(world.agent_event(0), true);
    world.deliver(world.client_event(0), true);
    world.deliver(world.client_event(1), true);
    assert_eq!(world.shares(), [0, 1]);
}

#[test]
fn an_agent_can_only_offer_its_own_slots_and_not_without_end() {
    let mut core = Core::new();
    let slot = |agent: u8, counter| SlotReport {
        token: SlotToken { agent: agent_id(agent), boot_id: 1, counter },
        dealt_to: None,
        expires_in_ms: 0,
        busy: false,
    };
    let slots = (0..5_000).map(|counter| slot(1, counter)).chain([slot(2, 1)]).collect();
    let state = AgentState { offer: Offer::default(), slots, roster_version: 0, listing: 0 };
    core.step(Duration::ZERO, Event::AgentSync { peer: agent_id(2), state: state.clone() });
    assert_eq!(core.counts().n_slots, 1);
    core.step(Duration::ZERO, Event::AgentSync { peer: agent_id(1), state });
    assert_eq!(core.counts().n_slots, 1 + buildbee_proto::limits::MAX_SLOTS_PER_AGENT);
}

#[test]
fn toolchains_decide_where_and_load_spreads() {
    let gcc = ToolchainId(Digest::of(b"gcc"));
    let mut world = World::new(&[2, 2, 2], &[3]);
    world.agents[1].toolchains = vec![gcc];
    world.clients[0].toolchains = vec![gcc];
    world.round(HEARTBEAT);
    let on = |index| world.clients[0].held.iter().filter(|token| token.agent == agent_id(index)).count();
    assert_eq!((on(0), on(1), on(2)), (1, 2, 0));
    let mut spread = World::new(&[2, 2, 2], &[3]);
    spread.round(HEARTBEAT);
    let agents: BTreeSet<PeerId> = spread.clients[0].held.iter().map(|token| token.agent).collect();
    assert_eq!(agents.len(), 3);
}

#[test]
fn a_clock_that_goes_backwards_stands_still() {
    let mut world = World::new(&[2], &[2]);
    world.advance(Duration::from_secs(100));
    world.round(Duration::ZERO);
    let state = world.clients[0].state();
    let effects = world.core.step(Duration::ZERO, Event::ClientSync { peer: client_id(0), state });
    let [Effect::ReplyClient { desired, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(desired.leases.len(), 2);
    assert_eq!(u128::from(desired.leases[0].expires_in_ms), DEAL_FOR.as_millis());
}
