//! The slots of this agent as a pure state machine. Only what it decides counts: the coordinator proposes deals, this grants.
//!
//! Time is a `Duration` on the agent's own monotonic clock, from any fixed moment. No clock, no network, no locks here; called by
//! [`slots`](super::slots) only.

use std::time::Duration;

use buildbee_proto::control::AgentDesired;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::lease::{SlotReport, SlotToken};
use buildbee_proto::limits::MAX_SLOTS_PER_AGENT;
use buildbee_proto::peer::PeerId;

/// Longest time a slot is held for a client that does not show up.
pub const MAX_DEAL: Duration = Duration::from_secs(60);

/// One attempt at one action, as the client named it.
pub type AttemptId = [u8; 16];

/// Who a slot is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Open,
    Dealt { to: PeerId, until: Duration },
}

#[derive(Clone, Debug)]
struct Slot {
    token: SlotToken,
    held: Held,
    busy: Option<AttemptId>,
}

/// A slot that was granted. Handed back by [`Core::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotGrant {
    index: usize,
    attempt: AttemptId,
}

/// All slots.
#[derive(Clone, Debug)]
pub struct Core {
    agent: PeerId,
    boot_id: u64,
    next_counter: u64,
    slots: Vec<Slot>,
    /// How many of them are lent now.
    n_lent: usize,
    draining: bool,
}

impl Core {
    /// `n_slots` open slots (at most `MAX_SLOTS_PER_AGENT`). `boot_id` must be random: it voids the tokens of earlier runs.
    pub fn new(agent: PeerId, boot_id: u64, n_slots: usize) -> Self {
        let n_lent = n_slots.min(MAX_SLOTS_PER_AGENT);
        let mut core = Self { agent, boot_id, next_counter: 0, slots: Vec::new(), n_lent, draining: false };
        for _ in 0..n_lent {
            let token = core.mint();
            core.slots.push(Slot { token, held: Held::Open, busy: None });
        }
        core
    }

    fn mint(&mut self) -> SlotToken {
        self.next_counter += 1;
        SlotToken { agent: self.agent, boot_id: self.boot_id, counter: self.next_counter }
    }

    /// Opens slots whose deal has run out. Their tokens are void from then on.
    fn expire(&mut self, now: Duration) {
        for index in 0..self.slots.len() {
            if matches!(self.slots[index].held, Held::Dealt { until, .. } if until <= now) {
                self.open(index);
            }
        }
    }

    fn open(&mut self, index: usize) {
        let token = self.mint();
        let slot = &mut self.slots[index];
        slot.token = token;
        slot.held = Held::Open;
    }

    /// Lends `n_slots` from now on (at most all). Whoever holds one that is lent no more has lost it; what runs in one goes on: to end it is
    /// the caller's business.
    pub fn lend(&mut self, now: Duration, n_slots: usize) {
        self.expire(now);
        self.n_lent = n_slots.min(self.slots.len());
        for index in 0..self.slots.len() {
            if self.slots[index].held != Held::Open && !self.is_lent(index) {
                self.open(index);
            }
        }
    }

    /// Whether a slot is among those that are lent: those come first in which something runs, then those that are dealt.
    fn is_lent(&self, index: usize) -> bool {
        let rank = |index: usize| {
            let slot = &self.slots[index];
            (slot.busy.is_none(), slot.held == Held::Open, index)
        };
        let own = rank(index);
        self.n_lent == self.slots.len()
            || (0..self.slots.len()).filter(|other| rank(*other) < own).count() < self.n_lent
    }

    /// Takes a slot for `attempt`: the one that `token` names if it is dealt to `peer` and idle, else any idle one that is open.
    pub fn admit(
        &mut self,
        now: Duration,
        peer: PeerId,
        token: Option<SlotToken>,
        attempt: AttemptId,
    ) -> Result<SlotGrant, WireError> {
        self.expire(now);
        if self.draining {
            return Err(WireError::new(ErrorCode::Busy, Retry::OtherAgent, "this agent is about to stop"));
        }
        if self.n_lent == 0 {
            return Err(WireError::new(ErrorCode::Busy, Retry::OtherAgent, "this machine lends nothing now"));
        }
        let holds =
            |slot: &Slot| Some(slot.token) == token && matches!(slot.held, Held::Dealt { to, .. } if to == peer);
        let leased = self.slots.iter().position(holds);
        let idle_leased = leased.filter(|&index| self.slots[index].busy.is_none() && self.is_lent(index));
        let is_open = |slot: &Slot| slot.held == Held::Open && slot.busy.is_none();
        let open = || (0..self.slots.len()).find(|&index| is_open(&self.slots[index]) && self.is_lent(index));
        let Some(index) = idle_leased.or_else(open) else {
            return Err(match (leased, token) {
                (Some(_), _) => {
                    WireError::new(ErrorCode::Busy, Retry::SameAgent, "the leased slot still runs an action")
                }
                (None, Some(_)) => {
                    WireError::new(ErrorCode::Lease, Retry::OtherAgent, "the lease is over, and no slot is open")
                }
                (None, None) => WireError::new(ErrorCode::Busy, Retry::OtherAgent, "no slot is open"),
            });
        };
        self.slots[index].busy = Some(attempt);
        Ok(SlotGrant { index, attempt })
    }

    /// Whether the slot of a grant may be dealt to anybody, once nothing runs in it. For as long as it is dealt to a client, the
    /// coordinator decides nothing by what runs in it.
    pub fn is_open(&self, grant: SlotGrant) -> bool {
        self.slots.get(grant.index).is_some_and(|slot| slot.held == Held::Open)
    }

    /// Gives a granted slot back. A grant that was given back already changes nothing.
    pub fn release(&mut self, grant: SlotGrant) {
        if let Some(slot) = self.slots.get_mut(grant.index)
            && slot.busy == Some(grant.attempt)
        {
            slot.busy = None;
        }
    }

    /// Holds slots as the coordinator wants them held. Tokens that are not current (minted before a restart, or expired meanwhile) are
    /// ignored, and so are those of slots that are not lent: the next report shows the coordinator what there is.
    pub fn apply(&mut self, now: Duration, desired: &AgentDesired) {
        self.expire(now);
        let until = now + Duration::from_millis(desired.deal_for_ms.into()).min(MAX_DEAL);
        for index in 0..self.slots.len() {
            let token = self.slots[index].token;
            let dealt = desired.dealt.iter().find(|(named, _)| *named == token).map(|(_, peer)| *peer);
            match dealt.filter(|_| self.is_lent(index)) {
                Some(to) => self.slots[index].held = Held::Dealt { to, until },
                None if self.slots[index].held != Held::Open => self.open(index),
                None => {}
            }
        }
    }

    /// Every slot that is lent, as the coordinator is told of it; none while draining.
    pub fn report(&mut self, now: Duration) -> Vec<SlotReport> {
        self.expire(now);
        if self.draining {
            return Vec::new();
        }
        let each = |slot: &Slot| {
            let (dealt_to, left) = match slot.held {
                Held::Open => (None, Duration::ZERO),
                Held::Dealt { to, until } => (Some(to), until.saturating_sub(now)),
            };
            let expires_in_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
            SlotReport { token: slot.token, dealt_to, expires_in_ms, busy: slot.busy.is_some() }
        };
        (0..self.slots.len()).filter(|&index| self.is_lent(index)).map(|index| each(&self.slots[index])).collect()
    }

    /// From now on nothing is admitted; what runs may end.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Slots that run an action.
    pub fn n_busy(&self) -> usize {
        self.slots.iter().filter(|slot| slot.busy.is_some()).count()
    }

    /// Slots that are lent now.
    pub fn n_lent(&self) -> usize {
        self.n_lent
    }

    /// All slots.
    pub fn n_slots(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGENT: PeerId = PeerId([9; 32]);
    const ALICE: PeerId = PeerId([1; 32]);
    const BOB: PeerId = PeerId([2; 32]);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn deal(dealt: Vec<(SlotToken, PeerId)>) -> AgentDesired {
        AgentDesired { dealt, deal_for_ms: 10_000, peers: None, roster: None, next_call_ms: 1000 }
    }

    fn code(result: Result<SlotGrant, WireError>) -> (ErrorCode, Retry) {
        let error = result.unwrap_err();
        (error.code, error.retry)
    }

    #[test]
    fn a_dealt_slot_is_its_holders_alone() {
        let mut core = Core::new(AGENT, 7, 1);
        let token = core.report(at(0))[0].token;
        core.apply(at(0), &deal(vec![(token, ALICE)]));
        assert_eq!(code(core.admit(at(1), BOB, None, [1; 16])), (ErrorCode::Busy, Retry::OtherAgent));
        assert_eq!(code(core.admit(at(1), BOB, Some(token), [1; 16])), (ErrorCode::Lease, Retry::OtherAgent));
        let grant = core.admit(at(1), ALICE, Some(token), [2; 16]).unwrap();
        assert_eq!(code(core.admit(at(1), ALICE, Some(token), [3; 16])), (ErrorCode::Busy, Retry::SameAgent));
        core.release(grant);
        assert!(core.admit(at(1), ALICE, Some(token), [3; 16]).is_ok());
    }

    #[test]
    fn an_expired_deal_opens_the_slot_and_voids_the_token() {
        let mut core = Core::new(AGENT, 7, 1);
        let token = core.report(at(0))[0].token;
        core.apply(at(0), &deal(vec![(token, ALICE)]));
        let later = core.report(at(10))[0];
        assert_ne!(later.token, token);
        assert_eq!(later.dealt_to, None);
        // The old token is as good as none: the slot is open, so it is granted all the same, but to anybody.
        assert!(core.admit(at(10), BOB, None, [1; 16]).is_ok());
        assert_eq!(code(core.admit(at(10), ALICE, Some(token), [2; 16])), (ErrorCode::Lease, Retry::OtherAgent));
        core.apply(at(10), &deal(vec![(token, ALICE)]));
        assert_eq!(core.report(at(10))[0].dealt_to, None, "a void token can't be dealt again");
    }

    #[test]
    fn tokens_of_another_run_are_no_tokens() {
        let mut core = Core::new(AGENT, 7, 1);
        let foreign = Core::new(AGENT, 8, 1).report(at(0))[0].token;
        core.apply(at(0), &deal(vec![(foreign, ALICE)]));
        assert_eq!(core.report(at(0))[0].dealt_to, None);
        assert!(core.admit(at(0), ALICE, Some(foreign), [1; 16]).is_ok());
    }

    #[test]
    fn a_release_that_comes_late_frees_nothing_else() {
        let mut core = Core::new(AGENT, 7, 1);
        let first = core.admit(at(0), ALICE, None, [1; 16]).unwrap();
        core.release(first);
        core.admit(at(0), BOB, None, [2; 16]).unwrap();
        core.release(first);
        assert_eq!(core.n_busy(), 1);
    }

    #[test]
    fn draining_admits_nothing_and_reports_nothing() {
        let mut core = Core::new(AGENT, 7, 2);
        core.drain();
        assert_eq!(code(core.admit(at(0), ALICE, None, [1; 16])), (ErrorCode::Busy, Retry::OtherAgent));
        assert!(core.report(at(0)).is_empty());
    }

    #[test]
    fn what_is_not_lent_is_nobodys() {
        let mut core = Core::new(AGENT, 7, 3);
        let tokens: Vec<_> = core.report(at(0)).iter().map(|report| report.token).collect();
        core.apply(at(0), &deal(vec![(tokens[1], ALICE), (tokens[2], ALICE)]));
        let running = core.admit(at(0), ALICE, Some(tokens[2]), [1; 16]).unwrap();
        core.lend(at(1), 1);
        let report = core.report(at(1));
        assert_eq!((report.len(), report[0].token, report[0].busy), (1, tokens[2], true));
        assert_eq!(code(core.admit(at(1), ALICE, Some(tokens[1]), [2; 16])), (ErrorCode::Lease, Retry::OtherAgent));
        core.lend(at(1), 0);
        assert!(core.report(at(1)).is_empty());
        assert_eq!(code(core.admit(at(1), ALICE, Some(tokens[2]), [2; 16])), (ErrorCode::Busy, Retry::OtherAgent));
        core.apply(at(1), &deal(vec![(tokens[0], BOB)]));
        core.release(running);
        core.lend(at(2), 3);
        assert!(core.report(at(2)).iter().all(|report| report.dealt_to.is_none() && !report.busy));
        assert!(core.report(at(2)).iter().all(|report| !tokens[1..].contains(&report.token)), "lost leases are void");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Lend(usize),
        Admit { peer: u8, token: Option<usize>, attempt: u8 },
        Release(usize),
        Apply(Vec<(usize, u8)>),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u8, proptest::option::of(0..40usize), any::<u8>()).prop_map(|(peer, token, attempt)| Step::Admit {
                peer,
                token,
                attempt
            }),
            (0..8usize).prop_map(Step::Release),
            proptest::collection::vec((0..40usize, 0..3u8), 0..5).prop_map(Step::Apply),
            (0..15u64).prop_map(Step::Wait),
            (0..4usize).prop_map(Step::Lend),
        ]
    }

    proptest! {
        /// Whatever clients and coordinator do: never more running than slots, never a slot run by somebody while it is dealt to
        /// somebody else who did not get it first, tokens never repeated.
        #[test]
        fn slots_are_never_created_twice(steps in proptest::collection::vec(step(), 0..80), n_slots in 1..4usize) {
            let mut core = Core::new(AGENT, 7, n_slots);
            let mut now = Duration::ZERO;
            let (mut seen, mut void): (Vec<SlotToken>, Vec<SlotToken>) = (Vec::new(), Vec::new());
            let mut running: Vec<SlotGrant> = Vec::new();
            for step in steps {
                for report in core.report(now) {
                    prop_assert!(!void.contains(&report.token));
                    if !seen.contains(&report.token) {
                        seen.push(report.token);
                    }
                }
                // What was void once stays void.
                void.extend(seen.iter().filter(|token| core.slots.iter().all(|slot| slot.token != **token)));
                match step {
                    Step::Admit { peer, token, attempt } => {
                        let peer = PeerId([peer; 32]);
                        let token = token.and_then(|index| seen.get(index)).copied();
                        let before = core.report(now);
                        let n_lent = core.n_lent();
                        prop_assert!(before.len() == n_lent);
                        if let Ok(grant) = core.admit(now, peer, token, [attempt; 16]) {
                            let granted = core.slots[grant.index].token;
                            let slot = *before.iter().find(|report| report.token == granted).unwrap();
                            prop_assert!(core.n_busy() <= n_lent);
                            prop_assert!(!slot.busy);
                            let his = slot.dealt_to == Some(peer) && token == Some(slot.token);
                            prop_assert!(slot.dealt_to.is_none() || his);
                            running.push(grant);
                        }
                    }
                    Step::Release(index) if !running.is_empty() => {
                        let grant = running.swap_remove(index % running.len());
                        core.release(grant);
                    }
                    Step::Release(_) => {}
                    Step::Apply(dealt) => {
                        let dealt = dealt.into_iter()
                            .filter_map(|(index, peer)| Some((*seen.get(index)?, PeerId([peer; 32]))))
                            .collect();
                        core.apply(now, &deal(dealt));
                    }
                    Step::Wait(seconds) => now += at(seconds),
                    Step::Lend(n_slots) => core.lend(now, n_slots),
                }
                prop_assert_eq!(core.n_busy(), running.len());
                prop_assert!(core.n_busy() <= core.n_slots());
            }
        }
    }
}
