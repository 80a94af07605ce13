//! Who is there, what is on its way, and what happens next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use buildbee_agent::lease::core::AttemptId;
use buildbee_coordinator::scheduler::core::{
    Core, Effect, Event, MAX_SLOTS, RECOVERY, SILENCE, TOLD_TO_AGENTS, TOLD_TO_CLIENTS,
};
use buildbee_coordinator::scheduler::fairness::{Demand, shares, weight};
use buildbee_proto::control::{AgentDesired, AgentState, Class, ClientDesired, ClientState};
use buildbee_proto::lease::SlotToken;
use buildbee_proto::listing::KnownAgents;
use buildbee_proto::peer::PeerId;
use fastrand::Rng;

use crate::parties::{Clock, SimAgent, SimClient, toolchain};
use crate::promises::Promises;

/// A call that is not answered by then is given up.
const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// So is an attempt of which nothing is heard.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(8);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// After the last fault.
const CALM: Duration = Duration::from_secs(45);
/// Of it, for as long everybody wants more than there is.
const GREEDY: Duration = Duration::from_secs(15);
/// Messages and timers under way for each party, at most.
const MAX_UNDER_WAY: usize = 60;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) n_agents: usize,
    pub(crate) n_clients: usize,
    pub(crate) n_slots: usize,
    pub(crate) rough_s: u64,
}

/// In a thousand: of messages, or of parties each second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    lost: u32,
    repeated: u32,
    late: u32,
    parted: u32,
    crashed: u32,
    /// Of seconds.
    coordinator_crashed: u32,
}

impl Faults {
    pub(crate) const NONE: Self = Self { lost: 0, repeated: 0, late: 0, parted: 0, crashed: 0, coordinator_crashed: 0 };
    pub(crate) const SOME: Self =
        Self { lost: 5, repeated: 5, late: 10, parted: 3, crashed: 3, coordinator_crashed: 30 };
    pub(crate) const MANY: Self =
        Self { lost: 30, repeated: 30, late: 50, parted: 20, crashed: 20, coordinator_crashed: 60 };
}

#[derive(Clone, Debug)]
enum Happening {
    AgentDue { agent: usize, boot: u64 },
    AgentCalls { agent: usize, call: u64, state: AgentState },
    AgentHears { agent: usize, call: u64, desired: AgentDesired },
    AgentGivesUp { agent: usize, call: u64 },
    ClientDue { client: usize, life: u64 },
    ClientCalls { client: usize, call: u64, state: ClientState },
    ClientHears { client: usize, call: u64, desired: ClientDesired },
    ClientGivesUp { client: usize, call: u64 },
    Submitted { agent: usize, client: usize, token: SlotToken, attempt: AttemptId },
    Finished { agent: usize, boot: u64, client: usize, attempt: AttemptId },
    Ended { client: usize, attempt: AttemptId, well: bool },
    Gone { peer: PeerId },
    AgentStarts { agent: usize },
    CoordinatorStarts,
    Second,
}

pub(crate) struct World {
    size: Size,
    faults: Faults,
    rng: Rng,
    now: Duration,
    /// `None` while it is down; else when it started.
    coordinator: Option<(Core, Duration)>,
    /// Calls of before it started do not reach it: their streams ended with its predecessor.
    first_call: u64,
    agents: Vec<SimAgent>,
    clients: Vec<SimClient>,
    lives: Vec<u64>,
    agent_at: HashMap<PeerId, usize>,
    under_way: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: HashMap<u64, Happening>,
    n_posted: u64,
    n_steps: u64,
    is_rough: bool,
    promises: Promises,
    heard: BTreeMap<PeerId, Duration>,
    heard_at: BTreeSet<(Duration, PeerId)>,
}

fn peer(rng: &mut Rng) -> PeerId {
    PeerId(std::array::from_fn(|_| rng.u8(..)))
}

impl World {
    pub(crate) fn new(size: Size, faults: Faults, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let clock =
            |rng: &mut Rng| Clock { offset: Duration::from_secs(rng.u64(0..100_000)), percent: rng.u32(90..=110) };
        let agents: Vec<SimAgent> = (0..size.n_agents)
            .map(|_| SimAgent {
                peer: peer(&mut rng),
                clock: clock(&mut rng),
                core: None,
                boot: 0,
                n_slots: rng.usize(1..2 * size.n_slots),
                known: KnownAgents::default(),
                running: BTreeMap::new(),
                toolchains: (0..5).filter(|_| rng.bool()).map(toolchain).collect(),
                call: None,
                parted_until: Duration::ZERO,
            })
            .collect();
        let clients = (0..size.n_clients)
            .map(|n| SimClient {
                peer: peer(&mut rng),
                clock: clock(&mut rng),
                class: if n % 4 == 3 { Class::Batch } else { Class::Interactive },
                known: KnownAgents::default(),
                toolchains: vec![toolchain(n % 5)],
                leases: BTreeMap::new(),
                waiting: std::collections::VecDeque::new(),
                attempts: BTreeMap::new(),
                done: BTreeSet::new(),
                n_issued: 0,
                n_local: 0,
                greedy: 0,
                call: None,
                parted_until: Duration::ZERO,
            })
            .collect();
        let agent_at = agents.iter().enumerate().map(|(at, agent)| (agent.peer, at)).collect();
        let mut world = Self {
            size,
            faults,
            rng,
            now: Duration::ZERO,
            coordinator: Some((Core::new(), Duration::ZERO)),
            first_call: 0,
            agents,
            clients,
            lives: vec![0; size.n_clients],
            agent_at,
            under_way: BinaryHeap::new(),
            happenings: HashMap::new(),
            n_posted: 0,
            n_steps: 0,
            is_rough: true,
            promises: Promises::default(),
            heard: BTreeMap::new(),
            heard_at: BTreeSet::new(),
        };
        for agent in 0..size.n_agents {
            let at = world.within(2_000);
            world.post(at, Happening::AgentStarts { agent });
        }
        for client in 0..size.n_clients {
            let at = world.within(2_000);
            world.post(at, Happening::ClientDue { client, life: 0 });
        }
        world.post(Duration::ZERO, Happening::Second);
        world
    }

    fn within(&mut self, ms: u64) -> Duration {
        Duration::from_millis(self.rng.u64(0..ms))
    }

    fn post(&mut self, after: Duration, happening: Happening) {
        self.n_posted += 1;
        self.under_way.push(Reverse((self.now + after, self.n_posted)));
        self.happenings.insert(self.n_posted, happening);
    }

    fn chance(&mut self, in_a_thousand: u32) -> bool {
        self.is_rough && self.rng.u32(0..1_000) < in_a_thousand
    }

    /// Over the network: it may come late, twice, after what was sent later, or never.
    fn send(&mut self, happening: Happening) {
        if self.chance(self.faults.lost) {
            return;
        }
        if self.chance(self.faults.repeated) {
            let after = self.within(3_000);
            self.post(after, happening.clone());
        }
        let late = if self.chance(self.faults.late) { self.within(4_000) } else { Duration::ZERO };
        let after = late + Duration::from_millis(1) + self.within(60);
        self.post(after, happening);
    }

    pub(crate) fn rough(&mut self) {
        self.run_until(Duration::from_secs(self.size.rough_s));
    }

    /// No more faults, and everybody wants more than there is: then all is as it should be.
    pub(crate) fn calm(&mut self) {
        self.is_rough = false;
        if self.coordinator.is_none() {
            self.restart();
        }
        for agent in 0..self.agents.len() {
            self.agents[agent].parted_until = Duration::ZERO;
            if self.agents[agent].core.is_none() {
                self.post(Duration::ZERO, Happening::AgentStarts { agent });
            }
        }
        for client in &mut self.clients {
            client.parted_until = Duration::ZERO;
        }
        let end = self.now + CALM;
        self.run_until(end.saturating_sub(GREEDY));
        let n_slots: usize = self.agents.iter().map(|agent| agent.n_slots).sum();
        let greedy = u32::try_from(2 * n_slots / self.clients.len() + 1).unwrap().min(1_000);
        for client in &mut self.clients {
            client.greedy = greedy;
        }
        self.run_until(end);
        self.check_end(n_slots);
    }

    fn run_until(&mut self, end: Duration) {
        while let Some(Reverse((at, number))) = self.under_way.peek().copied().filter(|Reverse((at, _))| *at <= end) {
            self.under_way.pop();
            self.now = at;
            let happening = self.happenings.remove(&number).unwrap();
            self.n_steps += 1;
            self.take(happening);
        }
        self.now = end;
    }

    fn take(&mut self, happening: Happening) {
        match happening {
            Happening::AgentDue { agent, boot } if self.agents[agent].boot == boot => self.agent_calls(agent),
            Happening::AgentCalls { agent, call, state } => self.agent_called(agent, call, state),
            Happening::AgentHears { agent, call, desired } if self.agents[agent].call == Some(call) => {
                self.agents[agent].call = None;
                let next = Duration::from_millis(desired.next_call_ms.into());
                self.agents[agent].obey(self.now, desired);
                let boot = self.agents[agent].boot;
                self.post(next, Happening::AgentDue { agent, boot });
            }
            Happening::AgentGivesUp { agent, call } if self.agents[agent].call == Some(call) => {
                let boot = self.agents[agent].boot;
                self.agents[agent].call = None;
                self.post(RETRY_PAUSE, Happening::AgentDue { agent, boot });
            }
            Happening::ClientDue { client, life } if self.lives[client] == life => self.client_calls(client),
            Happening::ClientCalls { client, call, state } => self.client_called(client, call, state),
            Happening::ClientHears { client, call, desired } if self.clients[client].call == Some(call) => {
                self.clients[client].call = None;
                let next = Duration::from_millis(desired.next_call_ms.into());
                self.clients[client].take_over(self.now, desired);
                let life = self.lives[client];
                self.post(next, Happening::ClientDue { client, life });
                self.work(client);
            }
            Happening::ClientGivesUp { client, call } if self.clients[client].call == Some(call) => {
                let life = self.lives[client];
                self.clients[client].call = None;
                self.post(RETRY_PAUSE, Happening::ClientDue { client, life });
            }
            Happening::Submitted { agent, client, token, attempt } => self.submitted(agent, client, token, attempt),
            Happening::Finished { agent, boot, client, attempt }
                if self.agents[agent].boot == boot && self.agents[agent].finish(attempt) =>
            {
                self.send(Happening::Ended { client, attempt, well: true });
            }
            Happening::Ended { client, attempt, well } => {
                self.clients[client].ended(attempt, well);
                self.work(client);
            }
            Happening::Gone { peer } => self.gone(peer),
            Happening::AgentStarts { agent } if self.agents[agent].core.is_none() => {
                let boot = self.rng.u64(1..);
                self.agents[agent].start(boot);
                self.agent_calls(agent);
            }
            Happening::CoordinatorStarts if self.coordinator.is_none() => self.restart(),
            Happening::Second => self.second(),
            // Of somebody who is no more, or an answer to a call that was given up.
            _ => {}
        }
    }

    /// What happens of itself: work, and faults.
    fn second(&mut self) {
        self.post(Duration::from_secs(1), Happening::Second);
        let parties = self.agents.len() + self.clients.len();
        assert!(self.under_way.len() <= MAX_UNDER_WAY * parties, "{} things under way", self.under_way.len());
        if !self.is_rough {
            return;
        }
        for client in 0..self.clients.len() {
            if self.rng.u32(0..4) == 0 {
                let n = self.rng.u64(1..12);
                self.clients[client].issue(n);
                self.work(client);
            }
            if self.chance(self.faults.parted) {
                self.clients[client].parted_until = self.now + Duration::from_secs(self.rng.u64(1..15));
            }
            if self.chance(self.faults.crashed) {
                self.client_crashes(client);
            }
        }
        for agent in 0..self.agents.len() {
            if self.chance(self.faults.parted) {
                self.agents[agent].parted_until = self.now + Duration::from_secs(self.rng.u64(1..15));
                self.maybe_gone(self.agents[agent].peer);
            }
            if self.chance(self.faults.crashed) && self.agents[agent].core.take().is_some() {
                self.agents[agent].running.clear();
                self.agents[agent].call = None;
                self.agents[agent].boot = 0;
                self.maybe_gone(self.agents[agent].peer);
                let after = self.within(10_000);
                self.post(after, Happening::AgentStarts { agent });
            }
        }
        if self.chance(self.faults.coordinator_crashed) {
            self.coordinator = None;
            let after = self.within(8_000);
            self.post(after, Happening::CoordinatorStarts);
        }
    }

    fn client_crashes(&mut self, at: usize) {
        self.lives[at] += 1;
        let life = self.lives[at];
        let client = &mut self.clients[at];
        client.leases.clear();
        client.call = None;
        client.known = KnownAgents::default();
        // Make goes on with what it waits for.
        let again: Vec<(u64, u32)> = client.attempts.values().map(|(attempt, _)| (attempt.action, 0)).collect();
        client.attempts.clear();
        client.waiting.extend(again);
        let peer = client.peer;
        self.maybe_gone(peer);
        let after = self.within(3_000);
        self.post(after, Happening::ClientDue { client: at, life });
    }

    /// The coordinator may notice at once that a connection is gone, or by silence.
    fn maybe_gone(&mut self, peer: PeerId) {
        if self.rng.bool() {
            let after = self.within(100);
            self.post(after, Happening::Gone { peer });
        }
    }

    fn gone(&mut self, peer: PeerId) {
        self.forget_silent();
        self.promises.agent_gone(&peer);
        self.promises.client_gone(&peer);
        if let Some(heard) = self.heard.remove(&peer) {
            self.heard_at.remove(&(heard, peer));
        }
        self.step(Event::Gone { peer });
    }

    fn restart(&mut self) {
        let listing = self.rng.u64(1..1 << 60);
        self.coordinator = Some((Core::numbering_from(listing), self.now));
        self.first_call = self.n_posted;
        let mut said = HashMap::new();
        for agent in &mut self.agents {
            for slot in agent.state(self.now).into_iter().flat_map(|state| state.slots) {
                if let Some(client) = slot.dealt_to {
                    // By a clock that is fast it is over sooner, and so it will be said.
                    let left = Duration::from_millis(slot.expires_in_ms.into()) * 100 / agent.clock.percent.max(100);
                    said.insert(slot.token, (client, left.saturating_sub(Duration::from_millis(2))));
                }
            }
        }
        self.promises.restarted(self.now, &said);
        self.heard.clear();
        self.heard_at.clear();
    }

    fn agent_calls(&mut self, agent: usize) {
        let Some(state) = self.agents[agent].state(self.now) else { return };
        self.n_posted += 1;
        let call = self.n_posted;
        self.agents[agent].call = Some(call);
        self.post(CALL_DEADLINE, Happening::AgentGivesUp { agent, call });
        if self.agents[agent].parted_until <= self.now {
            self.send(Happening::AgentCalls { agent, call, state });
        }
    }

    fn client_calls(&mut self, client: usize) {
        let state = self.clients[client].state(self.now);
        self.n_posted += 1;
        let call = self.n_posted;
        self.clients[client].call = Some(call);
        self.post(CALL_DEADLINE, Happening::ClientGivesUp { client, call });
        if self.clients[client].parted_until <= self.now {
            self.send(Happening::ClientCalls { client, call, state });
        }
    }

    fn forget_silent(&mut self) {
        let Some(before) = self.now.checked_sub(SILENCE) else { return };
        while let Some((heard, peer)) = self.heard_at.first().copied().filter(|(heard, _)| *heard <= before) {
            self.heard_at.remove(&(heard, peer));
            self.heard.remove(&peer);
            self.promises.agent_gone(&peer);
        }
    }

    fn step(&mut self, event: Event) -> Option<Effect> {
        let (core, started) = self.coordinator.as_mut()?;
        let effect = core.step(self.now.saturating_sub(*started), event).pop();
        let counts = core.counts();
        assert!(counts.n_agents <= self.agents.len() && counts.n_clients <= self.clients.len());
        assert!(counts.n_deals <= MAX_SLOTS);
        if self.now.saturating_sub(*started) >= RECOVERY {
            assert!(counts.n_deals <= counts.n_slots, "{counts:?}");
        }
        effect
    }

    fn agent_called(&mut self, agent: usize, call: u64, state: AgentState) {
        if self.coordinator.is_none() || call < self.first_call {
            return;
        }
        let peer = self.agents[agent].peer;
        self.forget_silent();
        if let Some(before) = self.heard.insert(peer, self.now) {
            self.heard_at.remove(&(before, peer));
        }
        self.heard_at.insert((self.now, peer));
        self.promises.agent_said(&peer, &state);
        let Some(Effect::ReplyAgent { desired, .. }) = self.step(Event::AgentSync { peer, state }) else {
            panic!("no answer")
        };
        let tokens: BTreeSet<SlotToken> = desired.dealt.iter().map(|(token, _)| *token).collect();
        assert!(tokens.len() == desired.dealt.len() && tokens.iter().all(|token| token.agent == peer));
        if self.agents[agent].parted_until <= self.now {
            self.send(Happening::AgentHears { agent, call, desired });
        }
    }

    fn client_called(&mut self, client: usize, call: u64, state: ClientState) {
        if self.coordinator.is_none() || call < self.first_call {
            return;
        }
        let peer = self.clients[client].peer;
        self.forget_silent();
        self.promises.client_said(&peer, &state);
        let n_wanted = state.n_wanted as usize;
        let Some(Effect::ReplyClient { desired, .. }) = self.step(Event::ClientSync { peer, state }) else {
            panic!("no answer")
        };
        assert!(desired.leases.len() <= n_wanted, "more than it wants");
        let heard = &self.heard;
        self.promises.promised(self.now, peer, &desired, |agent| heard.contains_key(agent));
        if self.clients[client].parted_until <= self.now {
            self.send(Happening::ClientHears { client, call, desired });
        }
    }

    /// Starts what can be started.
    fn work(&mut self, client: usize) {
        while let Some((attempt, n_tries)) = self.clients[client].next(self.now) {
            self.n_posted += 1;
            let id: AttemptId = u128::from(self.n_posted).to_le_bytes();
            self.clients[client].attempts.insert(id, (attempt, n_tries));
            self.post(ATTEMPT_DEADLINE, Happening::Ended { client, attempt: id, well: false });
            let agent = self.agent_at[&attempt.token.agent];
            self.send(Happening::Submitted { agent, client, token: attempt.token, attempt: id });
        }
    }

    fn submitted(&mut self, agent: usize, client: usize, token: SlotToken, attempt: AttemptId) {
        let peer = self.clients[client].peer;
        if self.agents[agent].core.is_none() {
            return;
        }
        if self.agents[agent].admit(self.now, peer, token, attempt) {
            let (boot, after) = (self.agents[agent].boot, Duration::from_millis(self.rng.u64(100..2_000)));
            self.post(after, Happening::Finished { agent, boot, client, attempt });
        } else {
            self.send(Happening::Ended { client, attempt, well: false });
        }
    }

    fn check_end(&mut self, n_slots: usize) {
        let demands: Vec<Demand> = (self.clients.iter())
            .map(|client| {
                let (n_wanted, n_held) = (client.n_wanted() as usize, client.leases.len());
                Demand { n_wanted, n_held, weight: weight(client.class) }
            })
            .collect();
        let fair = shares(n_slots, &demands);
        for (client, fair) in self.clients.iter().zip(fair) {
            assert_eq!(u64::try_from(client.done.len()).unwrap(), client.n_issued, "an action was lost");
            assert!(client.leases.len().abs_diff(fair) <= 1, "{} leases, fair are {fair}", client.leases.len());
            let known: BTreeSet<PeerId> = client.known.agents().iter().map(|info| info.peer).collect();
            assert!(client.leases.keys().all(|token| known.contains(&token.agent)), "a lease on an unknown agent");
            assert_eq!(known.len(), client.known.agents().len());
            assert!(known.len() >= self.agents.len().min(TOLD_TO_CLIENTS));
        }
        for agent in &self.agents {
            assert_eq!(agent.known.agents().len(), (self.agents.len() - 1).min(TOLD_TO_AGENTS));
            for info in agent.known.agents() {
                let told = &self.agents[self.agent_at[&info.peer]];
                assert_eq!(info.n_slots as usize, told.n_slots);
                assert_eq!(info.offer.toolchains, told.toolchains);
            }
        }
        let counts = self.coordinator.as_ref().unwrap().0.counts();
        assert_eq!((counts.n_agents, counts.n_clients), (self.agents.len(), self.clients.len()));
        assert_eq!((counts.n_slots, counts.n_deals), (n_slots, n_slots));
    }

    pub(crate) fn n_done(&self) -> usize {
        self.clients.iter().map(|client| client.done.len()).sum()
    }

    pub(crate) fn n_local(&self) -> u64 {
        self.clients.iter().map(|client| client.n_local).sum()
    }

    pub(crate) fn summary(&self) -> String {
        format!("{:?}: {} steps, {} actions, {} of them local", self.now, self.n_steps, self.n_done(), self.n_local())
    }
}
