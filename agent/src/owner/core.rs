//! How much of this machine may be lent now, as a pure state machine: what is seen of its owner goes in, a decision comes out.
//!
//! Quick to yield, slow to claim: less is lent at once, more only when it was possible for a while. Time is an argument: a `Duration` on a
//! clock that never goes back. Here is no clock, no file and no lock; called by [`watch`](super::watch) only.

use std::fmt;
use std::time::Duration;

use crate::config::{Mode, OwnerSettings, Settings};
use crate::owner::signals::Seen;

/// Processor time of others, in thousandths of a core, that takes no slot away: what a desktop does while nobody sits at it.
const BACKGROUND_MILLICORES: u64 = 500;
/// Share of the last ten seconds in which some program waited for memory, in hundredths of a percent, from which on nothing new is taken.
const HIGH_PRESSURE: u32 = 10_00;
/// The same, from which on what runs is handed back.
const CRITICAL_PRESSURE: u32 = 30_00;
/// What runs is handed back when less than this part of the memory that must stay free is left.
const CRITICAL_PART: u64 = 4;

/// What the owner allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// When to lend.
    pub mode: Mode,
    /// The most that is lent.
    pub n_slots: usize,
    /// Processor threads of the machine.
    pub n_cores: usize,
    /// Who has not touched the machine for this long is away.
    pub idle_after: Duration,
    /// More is lent once it was possible for this long.
    pub claim_after: Duration,
    /// How long what runs is held before it is handed back.
    pub hand_back_after: Duration,
    /// Memory that must stay available.
    pub reserve_bytes: u64,
    /// Whether to lend on battery.
    pub on_battery: bool,
}

/// Why it is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing is in the way.
    Free,
    /// More would be possible, but not for long enough.
    Settling,
    /// The mode says so.
    Off,
    /// Somebody said that the owner is here.
    Forced,
    /// Somebody asked for a pause.
    Paused,
    /// Keyboard, mouse, a terminal or a session is in use.
    Present,
    /// It is not one of the hours at which to lend.
    Hours,
    /// The machine runs on battery.
    Battery,
    /// Memory is short.
    Memory,
    /// Others want the processor.
    Processor,
    /// The day's share is used up.
    Spent,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "nothing is in the way",
            Self::Settling => "the machine has not been free for long enough",
            Self::Off => "the mode is \"off\"",
            Self::Forced => "the file that says so stands for an owner who is here",
            Self::Paused => "paused",
            Self::Present => "keyboard, mouse, a terminal or a session is in use",
            Self::Hours => "not at this hour",
            Self::Battery => "on battery",
            Self::Memory => "memory is short",
            Self::Processor => "other programs want the processor",
            Self::Spent => "the day's processor time is used up",
        })
    }
}

/// What becomes of work that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It goes on.
    Lend,
    /// It stops where it is.
    Hold,
    /// It is handed back and ended.
    HandBack,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Slots that may be in use. What runs in more of them goes on, unless the phase says otherwise.
    pub n_slots: usize,
    /// What becomes of work that runs.
    pub phase: Phase,
    /// Why.
    pub why: Why,
}

/// What would be right, could one go back and forth at will.
#[derive(Clone, Copy, Debug)]
struct Wish {
    n_slots: usize,
    yields: bool,
    why: Why,
}

/// More has been possible since `since`, and never less than `least`.
#[derive(Clone, Copy, Debug)]
struct Rise {
    since: Duration,
    least: usize,
}

/// The state.
#[derive(Clone, Debug)]
pub struct Core {
    policy: Policy,
    n_slots: usize,
    rise: Option<Rise>,
    yielding_since: Option<Duration>,
}

impl Policy {
    /// What the settings say.
    pub fn of(settings: &Settings, n_cores: usize) -> Self {
        let OwnerSettings { idle_after, claim_after, hand_back_after, reserve_bytes, on_battery, .. } = settings.owner;
        let (mode, n_slots) = (settings.mode, settings.n_slots);
        Self { mode, n_slots, n_cores, idle_after, claim_after, hand_back_after, reserve_bytes, on_battery }
    }
}

impl Core {
    /// Lends nothing yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, n_slots: 0, rise: None, yielding_since: None }
    }

    /// What to do at `now`, with what is `seen`.
    pub fn step(&mut self, now: Duration, seen: &Seen) -> Decision {
        let wish = self.wish(now, seen);
        self.follow(now, wish.n_slots);
        let phase = self.phase(now, wish.yields);
        let why = if self.n_slots < wish.n_slots { Why::Settling } else { wish.why };
        Decision { n_slots: self.n_slots, phase, why }
    }

    fn wish(&self, now: Duration, seen: &Seen) -> Wish {
        let policy = &self.policy;
        let yields = |why| Wish { n_slots: 0, yields: true, why };
        let all = Wish { n_slots: policy.n_slots, yields: false, why: Why::Free };
        let is_present =
            seen.in_session || seen.last_input.is_some_and(|last| now.saturating_sub(last) < policy.idle_after);
        match policy.mode {
            Mode::Off => Wish { n_slots: 0, yields: false, why: Why::Off },
            _ if seen.forced => yields(Why::Forced),
            _ if seen.paused => yields(Why::Paused),
            _ if seen.spent => Wish { n_slots: 0, yields: false, why: Why::Spent },
            Mode::Dedicated => all,
            _ if seen.out_of_hours => yields(Why::Hours),
            _ if seen.on_battery && !policy.on_battery => yields(Why::Battery),
            Mode::Idle if is_present => yields(Why::Present),
            Mode::Idle | Mode::Proportional => self.by_use(seen),
        }
    }

    /// As much as other programs leave over.
    fn by_use(&self, seen: &Seen) -> Wish {
        let Policy { n_slots, n_cores, reserve_bytes, .. } = self.policy;
        let pressure = seen.memory_pressure.unwrap_or(0);
        let available = seen.memory_available_bytes.unwrap_or(u64::MAX);
        if pressure >= CRITICAL_PRESSURE || available < reserve_bytes / CRITICAL_PART {
            return Wish { n_slots: 0, yields: true, why: Why::Memory };
        }
        if pressure >= HIGH_PRESSURE || available < reserve_bytes {
            return Wish { n_slots: 0, yields: false, why: Why::Memory };
        }
        let all = 1000 * u64::try_from(n_cores).unwrap_or(u64::MAX / 2000);
        let left = (all + BACKGROUND_MILLICORES).saturating_sub(seen.foreign_millicores.unwrap_or(0)) / 1000;
        match usize::try_from(left).unwrap_or(usize::MAX) {
            left if left < n_slots => Wish { n_slots: left, yields: false, why: Why::Processor },
            _ => Wish { n_slots, yields: false, why: Why::Free },
        }
    }

    fn follow(&mut self, now: Duration, wanted: usize) {
        if wanted <= self.n_slots {
            self.n_slots = wanted;
            self.rise = None;
            return;
        }
        let rise = self.rise.get_or_insert(Rise { since: now, least: wanted });
        rise.least = rise.least.min(wanted);
        let patience = if self.policy.mode == Mode::Dedicated { Duration::ZERO } else { self.policy.claim_after };
        if now.saturating_sub(rise.since) >= patience {
            self.n_slots = rise.least;
            self.rise = None;
        }
    }

    fn phase(&mut self, now: Duration, yields: bool) -> Phase {
        if !yields {
            self.yielding_since = None;
            return Phase::Lend;
        }
        let since = *self.yielding_since.get_or_insert(now);
        if now.saturating_sub(since) >= self.policy.hand_back_after { Phase::HandBack } else { Phase::Hold }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const N_SLOTS: usize = 4;

    fn policy(mode: Mode) -> Policy {
        Policy {
            mode,
            n_slots: N_SLOTS,
            n_cores: 4,
            idle_after: Duration::from_secs(300),
            claim_after: Duration::from_secs(30),
            hand_back_after: Duration::from_millis(1500),
            reserve_bytes: 1 << 30,
            on_battery: false,
        }
    }

    fn at(seconds: f64) -> Duration {
        Duration::from_secs(1_000_000) + Duration::from_secs_f64(seconds)
    }

    fn settled(mode: Mode) -> Core {
        let mut core = Core::new(policy(mode));
        core.step(at(0.0), &Seen::default());
        core.step(at(30.0), &Seen::default());
        core
    }

    #[test]
    fn a_machine_without_a_user_is_lent_after_a_while() {
        for mode in [Mode::Idle, Mode::Proportional] {
            let mut core = Core::new(policy(mode));
            let first = core.step(at(0.0), &Seen::default());
            assert_eq!(first, Decision { n_slots: 0, phase: Phase::Lend, why: Why::Settling });
            assert_eq!(core.step(at(29.9), &Seen::default()).n_slots, 0);
            let lent = core.step(at(30.0), &Seen::default());
            assert_eq!(lent, Decision { n_slots: N_SLOTS, phase: Phase::Lend, why: Why::Free });
        }
        assert_eq!(Core::new(policy(Mode::Dedicated)).step(at(0.0), &Seen::default()).n_slots, N_SLOTS);
        assert_eq!(settled(Mode::Off).step(at(99.0), &Seen::default()).n_slots, 0);
    }

    #[test]
    fn a_key_holds_everything_at_once_and_hands_it_back_after_the_grace() {
        let mut core = settled(Mode::Idle);
        let seen = Seen { last_input: Some(at(40.0)), ..Seen::default() };
        let step = |core: &mut Core, seconds| core.step(at(seconds), &seen);
        assert_eq!(step(&mut core, 40.0), Decision { n_slots: 0, phase: Phase::Hold, why: Why::Present });
        assert_eq!(step(&mut core, 41.4).phase, Phase::Hold);
        assert_eq!(step(&mut core, 41.5).phase, Phase::HandBack);
        assert_eq!(step(&mut core, 339.9).phase, Phase::HandBack);
        assert_eq!(step(&mut core, 340.0), Decision { n_slots: 0, phase: Phase::Lend, why: Why::Settling });
        assert_eq!(step(&mut core, 370.0).n_slots, N_SLOTS);
        let mut core = settled(Mode::Proportional);
        assert_eq!(step(&mut core, 40.0).n_slots, N_SLOTS, "who is at the keyboard leaves something over");
    }

    #[test]
    fn an_owner_who_leaves_within_the_grace_lets_work_go_on() {
        let mut core = settled(Mode::Dedicated);
        let here = Seen { forced: true, ..Seen::default() };
        assert_eq!(core.step(at(40.0), &here).phase, Phase::Hold);
        assert_eq!(core.step(at(41.0), &Seen::default()).phase, Phase::Lend);
        assert_eq!(core.step(at(42.0), &here).phase, Phase::Hold, "the grace begins anew");
    }

    #[test]
    fn other_programs_take_slots_at_once_and_give_them_back_slowly() {
        let mut core = settled(Mode::Proportional);
        let busy = |millicores| Seen { foreign_millicores: Some(millicores), ..Seen::default() };
        assert_eq!(core.step(at(31.0), &busy(400)).n_slots, 4);
        let less = core.step(at(32.0), &busy(1600));
        assert_eq!(less, Decision { n_slots: 2, phase: Phase::Lend, why: Why::Processor });
        assert_eq!(core.step(at(33.0), &busy(9000)).n_slots, 0);
        assert_eq!(core.step(at(34.0), &busy(0)).n_slots, 0);
        assert_eq!(core.step(at(50.0), &busy(1000)).n_slots, 0);
        assert_eq!(core.step(at(64.0), &busy(0)).n_slots, 3, "no more than was possible all the time");
        assert_eq!(core.step(at(94.0), &busy(0)).n_slots, 3);
        assert_eq!(core.step(at(124.0), &busy(0)).n_slots, 4);
    }

    #[test]
    fn short_memory_takes_nothing_new_and_shorter_hands_back() {
        let mut core = settled(Mode::Idle);
        let left = |bytes| Seen { memory_available_bytes: Some(bytes), ..Seen::default() };
        assert_eq!(core.step(at(31.0), &left(2 << 30)).n_slots, 4);
        let low = core.step(at(32.0), &left(900 << 20));
        assert_eq!(low, Decision { n_slots: 0, phase: Phase::Lend, why: Why::Memory });
        assert_eq!(core.step(at(33.0), &left(200 << 20)).phase, Phase::Hold);
        let pressed = Seen { memory_pressure: Some(40_00), ..Seen::default() };
        assert_eq!(core.step(at(35.0), &pressed).phase, Phase::HandBack);
    }

    #[test]
    fn hours_and_battery_count_where_the_owner_does() {
        for seen in [Seen { out_of_hours: true, ..Seen::default() }, Seen { on_battery: true, ..Seen::default() }] {
            for (mode, n_slots) in [(Mode::Idle, 0), (Mode::Proportional, 0), (Mode::Dedicated, N_SLOTS)] {
                assert_eq!(settled(mode).step(at(31.0), &seen).n_slots, n_slots);
            }
        }
    }

    fn mode() -> impl Strategy<Value = Mode> {
        prop_oneof![Just(Mode::Idle), Just(Mode::Proportional), Just(Mode::Dedicated), Just(Mode::Off)]
    }

    fn seen() -> impl Strategy<Value = (f64, Seen)> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
        let often_not = prop_oneof![3 => Just(false), 1 => Just(true)];
        let numbers = (
            proptest::option::of(0.0..400.0f64),
            proptest::option::of(0..9000u64),
            proptest::option::of(0..(3u64 << 30)),
            proptest::option::of(0..50_00u32),
        );
        (0.0..40.0f64, flags, often_not, numbers).prop_map(
            |(wait, (a, b, c, d, e, f), often, (input, foreign, memory, pressure))| {
                let seen = Seen {
                    forced: often && a,
                    paused: often && b,
                    out_of_hours: often && c,
                    on_battery: often && d,
                    spent: often && e,
                    in_session: often && f,
                    last_input: input.map(at),
                    foreign_millicores: foreign,
                    memory_available_bytes: memory,
                    memory_pressure: pressure,
                };
                (wait, seen)
            },
        )
    }

    proptest! {
        /// Whatever is seen: what must yield yields in that very step, nothing is handed back before the grace is over, and no more is
        /// claimed than was right all the time that claiming takes.
        #[test]
        fn quick_to_yield_and_slow_to_claim(mode in mode(), steps in proptest::collection::vec(seen(), 1..60)) {
            let mut core = Core::new(policy(mode));
            let (mut now, mut before) = (at(0.0), 0);
            let mut wishes: Vec<(Duration, Wish)> = Vec::new();
            for (wait, seen) in steps {
                now += Duration::from_secs_f64(wait);
                let wish = core.wish(now, &seen);
                let decision = core.step(now, &seen);
                wishes.push((now, wish));
                prop_assert!(decision.n_slots <= wish.n_slots && wish.n_slots <= N_SLOTS);
                prop_assert_eq!(decision.phase == Phase::Lend, !wish.yields);
                if wish.yields {
                    prop_assert_eq!(decision.n_slots, 0);
                }
                if mode != Mode::Off && (seen.forced || seen.paused) {
                    prop_assert!(wish.yields);
                }
                if decision.phase == Phase::HandBack {
                    let last_lent = wishes.iter().rev().take_while(|(_, wish)| wish.yields).last();
                    prop_assert!(last_lent.is_some_and(|(since, _)| now >= *since + Duration::from_millis(1500)));
                }
                if decision.n_slots > before && mode != Mode::Dedicated {
                    let rising = wishes.iter().rev().take_while(|(_, wish)| wish.n_slots >= decision.n_slots).last();
                    prop_assert!(rising.is_some_and(|(since, _)| now >= *since + Duration::from_secs(30)));
                }
                before = decision.n_slots;
            }
        }
    }
}
