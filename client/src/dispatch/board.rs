//! Pure core of dispatch: agents, leases, attempts under way, and the choice of where the next one goes. Time comes in as an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use buildbee_proto::control::AgentInfo;
use buildbee_proto::lease::{Lease, SlotToken};
use buildbee_proto::limits::{MAX_KNOWN_AGENTS, MAX_SLOTS_PER_AGENT, MAX_TOOLCHAINS_PER_AGENT};
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::ToolchainId;

/// An agent that had no free slot is left alone for this long where no lease of ours says otherwise.
const BUSY_PAUSE: Duration = Duration::from_millis(150);
/// How often that pause doubles while refusals go on.
const MAX_BUSY_DOUBLINGS: u32 = 2;
/// First pause after a failure of the agent; doubles with each further one.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Bytes that take as long to be brought to an agent as an action loses there, at a guess, for each eighth of its slots that is taken.
const SHARING_BYTES: u64 = 4 << 20;
/// Agents that are kept in mind although the coordinator does not name them.
const MAX_UNNAMED: usize = 256;
/// A lease is not used in its last moments, or it might end under way.
const LEASE_MARGIN: Duration = Duration::from_millis(200);

/// Time since the daemon started, on its monotonic clock.
pub type Now = Duration;

#[derive(Debug)]
struct HeldLease {
    token: SlotToken,
    until: Now,
    busy: bool,
}

#[derive(Debug)]
struct Agent {
    info: AgentInfo,
    connected: bool,
    leases: Vec<HeldLease>,
    n_direct: u32,
    pause_until: Now,
    /// The end of a pause for failures, and not for having had no slot.
    failed_until: Now,
    n_failures: u32,
    n_refusals: u32,
    /// Toolchains that our own actions have brought there.
    taught: BTreeSet<ToolchainId>,
}

impl Agent {
    fn holds(&self, toolchain: &ToolchainId) -> bool {
        self.taught.contains(toolchain) || self.info.offer.toolchains.contains(toolchain)
    }

    /// Whether programs of `host` run there.
    fn runs(&self, host: &str) -> bool {
        self.info.offer.host == host
    }

    fn n_running(&self) -> u32 {
        let leased = self.leases.iter().filter(|lease| lease.busy).count();
        self.n_direct + u32::try_from(leased).unwrap_or(u32::MAX)
    }

    /// How much of it is at work for us.
    fn n_eighths(&self) -> i64 {
        i64::from(8 * self.n_running() / self.info.n_slots.max(1))
    }

    /// An idle lease if there is one; else whether a slot that is dealt to nobody may be free.
    fn way_in(&self, now: Now) -> Option<WayIn> {
        // A lease may be for a slot in which a direct attempt of ours still runs.
        if self.n_running() >= self.info.n_slots {
            return None;
        }
        let usable = |lease: &&HeldLease| !lease.busy && lease.until > now + LEASE_MARGIN;
        if let Some(lease) = self.leases.iter().find(usable) {
            return Some(WayIn::Lease(lease.token));
        }
        (self.pause_until <= now).then_some(WayIn::Direct)
    }
}

/// How an agent is asked. Leases are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WayIn {
    Direct,
    Lease(SlotToken),
}

impl WayIn {
    fn token(self) -> Option<SlotToken> {
        match self {
            Self::Direct => None,
            Self::Lease(token) => Some(token),
        }
    }
}

/// A place for one attempt. Give it back with [`Board::release`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The agent.
    pub peer: PeerId,
    /// Its name for people.
    pub name: String,
    /// The lease to show, if any.
    pub token: Option<SlotToken>,
}

/// How an attempt went, as far as the next choice is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    /// The agent did its part (also where the program failed).
    Well,
    /// It had no slot.
    Busy,
    /// Its owner wants the machine.
    HandedBack,
    /// It failed, or fell silent.
    Badly,
    /// We gave up on it for reasons of our own.
    Cancelled,
}

/// What a pick came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Go there.
    Go(Pick),
    /// There are agents, but none has room now.
    Full,
    /// There is no agent that could be asked.
    Nobody,
}

/// What is known of the farm.
#[derive(Debug, Default)]
pub struct Board {
    agents: BTreeMap<PeerId, Agent>,
}

impl Board {
    /// Takes over the coordinator's list of agents. Agents that it does not name stay while they are connected or run something of
    /// ours: a coordinator that was restarted knows nobody yet. The others are forgotten, and in a large farm, of which the coordinator names a
    /// part only, some of those that are merely connected; all of those are returned.
    pub fn set_agents(&mut self, agents: Vec<AgentInfo>) -> Vec<PeerId> {
        let named: BTreeSet<PeerId> = agents.iter().map(|info| info.peer).collect();
        let stays = |peer: &PeerId, agent: &Agent| agent.connected || agent.n_running() > 0 || named.contains(peer);
        let mut gone: Vec<PeerId> =
            self.agents.iter().filter(|(peer, agent)| !stays(peer, agent)).map(|(peer, _)| *peer).collect();
        let is_unnamed = |peer: &PeerId, agent: &Agent| agent.n_running() == 0 && !named.contains(peer);
        let mut unnamed: Vec<(&PeerId, &Agent)> =
            self.agents.iter().filter(|(peer, agent)| stays(peer, agent) && is_unnamed(peer, agent)).collect();
        unnamed.sort_by_key(|(_, agent)| agent.taught.len());
        gone.extend(unnamed.iter().take(unnamed.len().saturating_sub(MAX_UNNAMED)).map(|(peer, _)| **peer));
        for peer in &gone {
            self.agents.remove(peer);
        }
        for info in agents.into_iter().take(MAX_KNOWN_AGENTS) {
            let room = self.agents.len() < MAX_KNOWN_AGENTS;
            match self.agents.get_mut(&info.peer) {
                Some(agent) => agent.info = info,
                None if room => {
                    let fresh = Agent {
                        info: info.clone(),
                        connected: false,
                        leases: Vec::new(),
                        n_direct: 0,
                        pause_until: Now::ZERO,
                        failed_until: Now::ZERO,
                        n_failures: 0,
                        n_refusals: 0,
                        taught: BTreeSet::new(),
                    };
                    self.agents.insert(info.peer, fresh);
                }
                None => {}
            }
        }
        gone
    }

    /// Takes over which peers are connected.
    pub fn set_connected(&mut self, connected: &BTreeSet<PeerId>) {
        for (peer, agent) in &mut self.agents {
            if agent.connected && !connected.contains(peer) {
                // What it held may be gone with it.
                agent.taught.clear();
                agent.leases.retain(|lease| lease.busy);
            }
            agent.connected = connected.contains(peer);
        }
    }

    /// Takes over the leases that the coordinator deals to us; others are gone, save those in use.
    pub fn set_leases(&mut self, now: Now, leases: &[Lease]) {
        for agent in self.agents.values_mut() {
            agent.leases.retain(|held| held.busy || leases.iter().any(|lease| lease.token == held.token));
        }
        for lease in leases {
            let Some(agent) = self.agents.get_mut(&lease.token.agent) else { continue };
            let until = now + Duration::from_millis(u64::from(lease.expires_in_ms));
            let room = agent.leases.len() < MAX_SLOTS_PER_AGENT;
            match agent.leases.iter_mut().find(|held| held.token == lease.token) {
                Some(held) => held.until = until,
                None if room => {
                    agent.leases.push(HeldLease { token: lease.token, until, busy: false });
                }
                None => {}
            }
        }
    }

    /// Leases held now.
    pub fn held(&mut self, now: Now) -> Vec<SlotToken> {
        for agent in self.agents.values_mut() {
            agent.leases.retain(|lease| lease.busy || lease.until > now);
        }
        self.agents.values().flat_map(|agent| agent.leases.iter().map(|lease| lease.token)).collect()
    }

    /// Where the next attempt goes. Agents that hold the toolchain come first, then leases, then what is cheapest: to bring what is not `held`
    /// there, in bytes, or to share the agent with what runs there; then those with most room. Agents that don't run programs of `host` are
    /// none.
    pub fn pick(
        &mut self,
        now: Now,
        (toolchain, host): (&ToolchainId, &str),
        tried: &[PeerId],
        held: &HashMap<PeerId, u64>,
    ) -> Choice {
        // An agent that lends nothing is none, until the coordinator says otherwise.
        let lends = |agent: &&Agent| agent.connected && agent.info.n_slots > 0 && agent.runs(host);
        let is_candidate = |agent: &&Agent| lends(agent) && !tried.contains(&agent.info.peer);
        let candidates = || self.agents.values().filter(is_candidate);
        if candidates().all(|agent| agent.failed_until > now) {
            return Choice::Nobody;
        }
        let best = candidates()
            .filter_map(|agent| Some((agent, agent.way_in(now)?)))
            .max_by_key(|(agent, way_in)| {
                let room = agent.info.n_slots.saturating_sub(agent.n_running());
                let held_bytes = held.get(&agent.info.peer).copied().unwrap_or(0);
                let gain = i64::try_from(held_bytes / SHARING_BYTES).unwrap_or(i64::MAX) - agent.n_eighths();
                let gain = if held.is_empty() { 0 } else { gain };
                (agent.holds(toolchain), way_in.token().is_some(), gain, room, std::cmp::Reverse(agent.n_failures))
            })
            .map(|(agent, way_in)| Pick {
                peer: agent.info.peer,
                name: agent.info.offer.name.clone(),
                token: way_in.token(),
            });
        let Some(pick) = best else { return Choice::Full };
        if let Some(agent) = self.agents.get_mut(&pick.peer) {
            match pick.token {
                Some(token) => {
                    agent.leases.iter_mut().filter(|lease| lease.token == token).for_each(|lease| lease.busy = true);
                }
                None => agent.n_direct += 1,
            }
        }
        Choice::Go(pick)
    }

    /// Gives a place back.
    pub fn release(&mut self, now: Now, pick: &Pick, toolchain: &ToolchainId, went: Went) {
        let Some(agent) = self.agents.get_mut(&pick.peer) else { return };
        match pick.token {
            Some(token) => {
                agent.leases.iter_mut().filter(|lease| lease.token == token).for_each(|lease| lease.busy = false);
            }
            None => agent.n_direct = agent.n_direct.saturating_sub(1),
        }
        match went {
            Went::Well => {
                agent.n_failures = 0;
                agent.n_refusals = 0;
                agent.pause_until = now;
                agent.failed_until = now;
                if agent.taught.len() < MAX_TOOLCHAINS_PER_AGENT {
                    agent.taught.insert(*toolchain);
                }
            }
            Went::Busy => {
                // The lease was none any more.
                agent.leases.retain(|lease| Some(lease.token) != pick.token);
                let pause = BUSY_PAUSE.saturating_mul(1 << agent.n_refusals.min(MAX_BUSY_DOUBLINGS));
                agent.n_refusals = agent.n_refusals.saturating_add(1);
                agent.pause_until = agent.pause_until.max(now + pause);
            }
            Went::Badly => {
                let pause = FAILURE_PAUSE.saturating_mul(1 << agent.n_failures.min(8)).min(MAX_PAUSE);
                agent.n_failures += 1;
                agent.failed_until = now + pause;
                agent.pause_until = agent.failed_until;
            }
            Went::HandedBack => {
                agent.leases.retain(|lease| lease.busy);
                agent.info.n_slots = 0;
            }
            Went::Cancelled => {}
        }
    }

    /// When an agent that is being left alone may be asked again.
    pub fn next_change(&self, now: Now) -> Option<Now> {
        self.agents
            .values()
            .filter(|agent| agent.connected && agent.pause_until > now)
            .map(|agent| agent.pause_until)
            .min()
    }

    /// Everything, for listings: info, connected, attempts under way, leases.
    pub fn list(&self) -> Vec<(AgentInfo, bool, u32, usize)> {
        (self.agents.values())
            .map(|agent| (agent.info.clone(), agent.connected, agent.n_running(), agent.leases.len()))
            .collect()
    }

    /// Whether programs of `host` run on an agent that is connected; `None`: no agent is.
    pub fn lends_to(&self, host: &str) -> Option<bool> {
        let mut connected = self.agents.values().filter(|agent| agent.connected).peekable();
        connected.peek()?;
        Some(connected.any(|agent| agent.runs(host)))
    }

    /// Connected agents that are not being left alone after a failure.
    pub fn responsive(&self, now: Now) -> Vec<PeerId> {
        let responsive = |agent: &&Agent| agent.connected && !(agent.n_failures > 0 && agent.pause_until > now);
        self.agents.values().filter(responsive).map(|agent| agent.info.peer).collect()
    }

    /// An agent's name for people.
    pub fn name(&self, peer: &PeerId) -> Option<&str> {
        self.agents.get(peer).map(|agent| agent.info.offer.name.as_str())
    }

    /// Agents known, with the addresses to reach them at.
    pub fn addresses(&self) -> Vec<(PeerId, Vec<String>)> {
        self.agents.values().map(|agent| (agent.info.peer, agent.info.offer.addresses.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buildbee_proto::control::Offer;
    use buildbee_proto::digest::Digest;

    const NOW: Now = Now::from_secs(10);
    const HOST: &str = "pdp11-linux";

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn toolchain() -> ToolchainId {
        ToolchainId(Digest::of(b"gcc"))
    }

    fn token(agent: u8, counter: u64) -> SlotToken {
        SlotToken { agent: peer(agent), boot_id: 1, counter }
    }

    fn board(slots: &[u32]) -> Board {
        let mut board = Board::default();
        let agents = slots.iter().enumerate().map(|(n, &n_slots)| {
            let n = u8::try_from(n).unwrap();
            AgentInfo {
                peer: peer(n),
                offer: Offer { name: format!("desk{n}"), host: HOST.to_owned(), ..Offer::default() },
                n_slots,
            }
        });
        board.set_agents(agents.collect());
        board.set_connected(&(0..8).map(peer).collect());
        board
    }

    fn pick_in(board: &mut Board, now: Now, tried: &[PeerId]) -> Choice {
        board.pick(now, (&toolchain(), HOST), tried, &HashMap::new())
    }

    fn go(choice: Choice) -> Pick {
        match choice {
            Choice::Go(pick) => pick,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn agents_that_are_gone_for_good_are_forgotten() {
        let mut board = board(&[1, 1, 1]);
        let pick = go(pick_in(&mut board, NOW, &[peer(0), peer(1)]));
        board.set_connected(&[peer(0)].into());
        assert_eq!(board.set_agents(Vec::new()), [peer(1)], "neither connected nor busy nor named");
        assert_eq!(board.addresses().len(), 2);
        board.release(NOW, &pick, &toolchain(), Went::Cancelled);
        board.set_connected(&BTreeSet::new());
        assert_eq!(board.set_agents(Vec::new()), [peer(0), peer(2)]);
    }

    #[test]
    fn of_a_large_farm_so_many_are_kept_in_mind() {
        let peer = |n: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            PeerId(id)
        };
        let named = |range: std::ops::Range<u16>| -> Vec<AgentInfo> {
            range.map(|n| AgentInfo { peer: peer(n), offer: Offer::default(), n_slots: 1 }).collect()
        };
        let mut board = Board::default();
        board.set_agents(named(0..400));
        board.set_connected(&(0..400).map(peer).collect());
        assert_eq!(board.set_agents(named(300..400)).len(), 300 - MAX_UNNAMED);
        assert_eq!(board.addresses().len(), MAX_UNNAMED + 100);
    }

    #[test]
    fn leases_come_first_and_are_used_once_at_a_time() {
        let mut board = board(&[4, 4]);
        board.set_leases(NOW, &[Lease { token: token(1, 7), expires_in_ms: 5000 }]);
        let first = go(pick_in(&mut board, NOW, &[]));
        assert_eq!((first.peer, first.token), (peer(1), Some(token(1, 7))));
        let second = go(pick_in(&mut board, NOW, &[]));
        assert_eq!(second.token, None);
        board.release(NOW, &first, &toolchain(), Went::Well);
        assert_eq!(go(pick_in(&mut board, NOW, &[])).token, Some(token(1, 7)));
    }

    #[test]
    fn agents_of_another_architecture_are_no_agents() {
        let mut board = board(&[1, 1]);
        assert_eq!(board.pick(NOW, (&toolchain(), "vax-linux"), &[], &HashMap::new()), Choice::Nobody);
        assert_eq!((board.lends_to("vax-linux"), board.lends_to(HOST)), (Some(false), Some(true)));
        board.set_connected(&BTreeSet::new());
        assert_eq!(board.lends_to(HOST), None);
    }

    #[test]
    fn slots_are_not_overrun() {
        let mut board = board(&[1, 2]);
        let picks: Vec<_> = (0..3).map(|_| go(pick_in(&mut board, NOW, &[]))).collect();
        assert_eq!(picks.iter().filter(|pick| pick.peer == peer(1)).count(), 2);
        assert_eq!(pick_in(&mut board, NOW, &[]), Choice::Full);
    }

    #[test]
    fn a_lease_adds_no_slot() {
        let mut board = board(&[1]);
        let direct = go(pick_in(&mut board, NOW, &[]));
        board.set_leases(NOW, &[Lease { token: token(0, 1), expires_in_ms: 5000 }]);
        assert_eq!(pick_in(&mut board, NOW, &[]), Choice::Full);
        board.release(NOW, &direct, &toolchain(), Went::Well);
        assert_eq!(go(pick_in(&mut board, NOW, &[])).token, Some(token(0, 1)));
    }

    #[test]
    fn a_failing_agent_is_left_alone_longer_and_longer() {
        let mut board = board(&[1]);
        let mut now = NOW;
        let mut pauses = Vec::new();
        for _ in 0..3 {
            let pick = go(pick_in(&mut board, now, &[]));
            board.release(now, &pick, &toolchain(), Went::Badly);
            assert_eq!(pick_in(&mut board, now, &[]), Choice::Nobody);
            let next = board.next_change(now).unwrap();
            pauses.push(next.saturating_sub(now));
            now = next;
        }
        assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
        let pick = go(pick_in(&mut board, now, &[]));
        board.release(now, &pick, &toolchain(), Went::Well);
        assert!(matches!(pick_in(&mut board, now, &[]), Choice::Go(_)));
    }

    #[test]
    fn an_agent_that_failed_once_and_has_no_slot_now_is_waited_for() {
        let mut board = board(&[1]);
        let pick = go(pick_in(&mut board, NOW, &[]));
        board.release(NOW, &pick, &toolchain(), Went::Badly);
        let now = board.next_change(NOW).unwrap();
        let pick = go(pick_in(&mut board, now, &[]));
        board.release(now, &pick, &toolchain(), Went::Busy);
        assert_eq!(pick_in(&mut board, now, &[]), Choice::Full);
        let now = board.next_change(now).unwrap();
        go(pick_in(&mut board, now, &[]));
    }

    #[test]
    fn an_agent_whose_owner_is_back_is_none() {
        let mut board = board(&[2, 1]);
        board.set_leases(NOW, &[Lease { token: token(0, 1), expires_in_ms: 5000 }]);
        let pick = go(pick_in(&mut board, NOW, &[]));
        assert_eq!(pick.peer, peer(0));
        board.release(NOW, &pick, &toolchain(), Went::HandedBack);
        assert_eq!(go(pick_in(&mut board, NOW, &[])).peer, peer(1));
        assert_eq!(pick_in(&mut board, NOW, &[]), Choice::Full);
        assert_eq!(pick_in(&mut board, NOW, &[peer(1)]), Choice::Nobody, "nothing to wait for");
        let mut info = board.list()[0].0.clone();
        info.n_slots = 1;
        board.set_agents(vec![info]);
        assert_eq!(go(pick_in(&mut board, NOW, &[])).peer, peer(0));
    }

    #[test]
    fn a_lost_lease_is_dropped_and_one_in_use_is_not() {
        let mut board = board(&[1, 1]);
        board.set_leases(
            NOW,
            &[Lease { token: token(0, 1), expires_in_ms: 5000 }, Lease { token: token(1, 1), expires_in_ms: 5000 }],
        );
        let pick = go(pick_in(&mut board, NOW, &[]));
        board.set_leases(NOW, &[]);
        assert_eq!(board.held(NOW), [pick.token.unwrap()]);
        board.release(NOW, &pick, &toolchain(), Went::Well);
        assert_eq!(board.held(NOW + Duration::from_secs(60)), []);
    }

    #[test]
    fn inputs_draw_actions_until_an_agent_is_busy() {
        let mut board = board(&[4, 4]);
        let held = HashMap::from([(peer(0), 3 * SHARING_BYTES)]);
        let picks: Vec<_> = (0..3).map(|_| go(board.pick(NOW, (&toolchain(), HOST), &[], &held)).peer).collect();
        // Two of four slots are four eighths: then the other one is the better place.
        assert_eq!(picks, [peer(0), peer(0), peer(1)]);
    }

    #[test]
    fn what_was_tried_is_not_tried_again() {
        let mut board = board(&[1]);
        assert_eq!(pick_in(&mut board, NOW, &[peer(0)]), Choice::Nobody);
        board.set_connected(&BTreeSet::new());
        assert_eq!(pick_in(&mut board, NOW, &[]), Choice::Nobody);
    }
}
