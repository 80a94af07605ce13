//! Agents and clients of the simulation. An agent's slots are the agent's own core; a client keeps to the rules of the daemon's dispatch: it uses
//! leases alone while it has some, tries an action elsewhere when it is refused or hears nothing, and runs it itself in the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use buildbee_agent::lease::core::{AttemptId, Core, SlotGrant};
use buildbee_proto::control::{AgentDesired, AgentState, Class, ClientDesired, ClientState, Offer};
use buildbee_proto::digest::Digest;
use buildbee_proto::lease::SlotToken;
use buildbee_proto::listing::KnownAgents;
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::ToolchainId;

/// Failures after which a client runs an action itself.
const MAX_TRIES: u32 = 4;

/// A machine's clock: it may be fast or slow, and starts anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) offset: Duration,
    pub(crate) percent: u32,
}

impl Clock {
    pub(crate) fn read(self, now: Duration) -> Duration {
        self.offset + now * self.percent / 100
    }
}

pub(crate) fn toolchain(n: usize) -> ToolchainId {
    ToolchainId(Digest::of(&n.to_le_bytes()))
}

/// An action in a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    pub(crate) grant: SlotGrant,
}

#[derive(Debug)]
pub(crate) struct SimAgent {
    pub(crate) peer: PeerId,
    pub(crate) clock: Clock,
    /// `None` while the machine is off.
    pub(crate) core: Option<Core>,
    pub(crate) boot: u64,
    pub(crate) n_slots: usize,
    pub(crate) known: KnownAgents,
    pub(crate) running: BTreeMap<AttemptId, Running>,
    pub(crate) toolchains: Vec<ToolchainId>,
    /// The last call, to which an answer is still good.
    pub(crate) call: Option<u64>,
    pub(crate) parted_until: Duration,
}

impl SimAgent {
    pub(crate) fn start(&mut self, boot: u64) {
        self.boot = boot;
        self.core = Some(Core::new(self.peer, boot, self.n_slots));
        self.known = KnownAgents::default();
        self.running.clear();
        self.call = None;
    }

    pub(crate) fn state(&mut self, now: Duration) -> Option<AgentState> {
        let local = self.clock.read(now);
        let offer = Offer {
            name: self.peer.short(),
            host: "x86_64-linux".to_owned(),
            n_cores: 8,
            toolchains: self.toolchains.clone(),
            addresses: vec!["192.0.2.1:7471".to_owned()],
            load_percent: u32::try_from(now.as_millis() % 100).unwrap(),
            ..Offer::default()
        };
        let core = self.core.as_mut()?;
        Some(AgentState { offer, slots: core.report(local), roster_version: 1, listing: self.known.number() })
    }

    pub(crate) fn obey(&mut self, now: Duration, desired: AgentDesired) {
        let local = self.clock.read(now);
        let Some(core) = self.core.as_mut() else { return };
        core.apply(local, &desired);
        if let Some(listing) = desired.peers {
            self.known.apply(listing);
        }
    }

    /// Takes an action in if a slot is to be had. No slot runs two, and none that is dealt to somebody else.
    pub(crate) fn admit(&mut self, now: Duration, client: PeerId, token: SlotToken, attempt: AttemptId) -> bool {
        let local = self.clock.read(now);
        let Some(core) = self.core.as_mut() else { return false };
        if self.running.contains_key(&attempt) {
            return true;
        }
        let before = core.report(local);
        let Ok(grant) = core.admit(local, client, Some(token), attempt) else { return false };
        let after = core.report(local);
        let is_busy = |reports: &[buildbee_proto::lease::SlotReport], token: &SlotToken| {
            reports.iter().any(|report| report.token == *token && report.busy)
        };
        let taken: Vec<_> = after.iter().filter(|slot| slot.busy && !is_busy(&before, &slot.token)).collect();
        assert_eq!(taken.len(), 1, "one grant takes one slot");
        assert!(taken[0].dealt_to.is_none_or(|holder| holder == client), "a slot of somebody else");
        self.running.insert(attempt, Running { grant });
        assert_eq!(core.n_busy(), self.running.len());
        true
    }

    pub(crate) fn finish(&mut self, attempt: AttemptId) -> bool {
        let (Some(core), Some(running)) = (self.core.as_mut(), self.running.remove(&attempt)) else { return false };
        core.release(running.grant);
        true
    }
}

/// An attempt under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) action: u64,
    pub(crate) token: SlotToken,
}

#[derive(Debug)]
pub(crate) struct SimClient {
    pub(crate) peer: PeerId,
    pub(crate) clock: Clock,
    pub(crate) class: Class,
    pub(crate) known: KnownAgents,
    pub(crate) toolchains: Vec<ToolchainId>,
    /// Until when, on its own clock.
    pub(crate) leases: BTreeMap<SlotToken, Duration>,
    /// Actions to do, and how often each was tried in vain.
    pub(crate) waiting: VecDeque<(u64, u32)>,
    pub(crate) attempts: BTreeMap<AttemptId, (Attempt, u32)>,
    pub(crate) done: BTreeSet<u64>,
    pub(crate) n_issued: u64,
    pub(crate) n_local: u64,
    /// Wants slots without having anything to do: to see whether shares are fair.
    pub(crate) greedy: u32,
    pub(crate) call: Option<u64>,
    pub(crate) parted_until: Duration,
}

impl SimClient {
    pub(crate) fn n_wanted(&self) -> u32 {
        u32::try_from(self.waiting.len() + self.attempts.len()).unwrap().max(self.greedy)
    }

    pub(crate) fn issue(&mut self, n: u64) {
        self.waiting.extend((self.n_issued..self.n_issued + n).map(|action| (action, 0)));
        self.n_issued += n;
    }

    pub(crate) fn state(&mut self, now: Duration) -> ClientState {
        let local = self.clock.read(now);
        self.leases.retain(|_, until| *until > local);
        ClientState {
            n_wanted: self.n_wanted(),
            toolchains: self.toolchains.clone(),
            held: self.leases.keys().copied().collect(),
            roster_version: 1,
            class: self.class,
            listing: self.known.number(),
        }
    }

    pub(crate) fn take_over(&mut self, now: Duration, desired: ClientDesired) {
        let local = self.clock.read(now);
        let until = |ms: u32| local + Duration::from_millis(ms.into());
        self.leases = desired.leases.iter().map(|lease| (lease.token, until(lease.expires_in_ms))).collect();
        if let Some(listing) = desired.agents {
            self.known.apply(listing);
        }
    }

    /// The next action and the lease to try it with, if there are both.
    pub(crate) fn next(&mut self, now: Duration) -> Option<(Attempt, u32)> {
        let local = self.clock.read(now);
        let in_use: BTreeSet<SlotToken> = self.attempts.values().map(|(attempt, _)| attempt.token).collect();
        let free = |(token, until): &(&SlotToken, &Duration)| **until > local && !in_use.contains(token);
        let token = *self.leases.iter().find(free)?.0;
        let (action, n_tries) = self.waiting.pop_front()?;
        Some((Attempt { action, token }, n_tries))
    }

    /// What became of an attempt. Who says something of one that is over says it in vain.
    pub(crate) fn ended(&mut self, id: AttemptId, well: bool) {
        let Some((attempt, n_tries)) = self.attempts.remove(&id) else { return };
        if well {
            assert!(self.done.insert(attempt.action), "an action was done twice");
            return;
        }
        self.leases.remove(&attempt.token);
        if n_tries + 1 >= MAX_TRIES {
            self.n_local += 1;
            assert!(self.done.insert(attempt.action), "an action was done twice");
        } else {
            self.waiting.push_back((attempt.action, n_tries + 1));
        }
    }
}
