//! What goes wrong in a farm, and when: an endless schedule, drawn from a seed, in which every fault that lasts is also mended.
//!
//! Pure: the same seed and [`Scope`] make the same schedule. On one target there is one fault at a time; several targets have theirs at once.
//! Not here: doing any of it.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

/// Faults that may last at the same time: with more of them hardly anything is left to go wrong.
pub const MAX_AT_ONCE: usize = 4;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An agent is killed, and started again.
    AgentKilled,
    /// The same; it comes back without its store and toolchains.
    AgentLost,
    /// The same; bytes on its disk were flipped meanwhile.
    AgentSpoiled,
    /// An agent is told to end, as at an upgrade, and started again.
    AgentStopped,
    /// The agent's process stands still.
    AgentFrozen,
    /// All of the agent's processes stand still, as on a machine that sleeps.
    AgentSuspended,
    /// An agent's cable is out.
    AgentCut,
    /// The owner of a lending desktop is there, by the file that says so.
    OwnerBack,
    /// The owner of a lending desktop pressed a key.
    KeyPressed,
    /// An agent's disk is full.
    DiskFull,
    /// Bytes in a running agent's store are flipped.
    StoreFlipped,
    /// A process that makes sandboxes is killed.
    SandboxKilled,
    /// A compiler is killed, as for want of memory.
    CompilerKilled,
    /// The coordinator is killed, and started again.
    CoordinatorKilled,
    /// The coordinator stands still.
    CoordinatorFrozen,
    /// The coordinator's cable is out.
    CoordinatorCut,
    /// A client's daemon is killed.
    DaemonKilled,
    /// A client's daemon stands still.
    DaemonFrozen,
    /// Bytes in a client's cache are flipped.
    CacheFlipped,
    /// A client's disk for its cache is full.
    CacheFull,
    /// The clients' cable is out.
    ClientsCut,
    /// Clients and coordinator don't hear each other; all else does.
    ClientsApart,
}

/// All kinds.
pub const FAULTS: [Fault; 22] = [
    Fault::AgentKilled,
    Fault::AgentLost,
    Fault::AgentSpoiled,
    Fault::AgentStopped,
    Fault::AgentFrozen,
    Fault::AgentSuspended,
    Fault::AgentCut,
    Fault::OwnerBack,
    Fault::KeyPressed,
    Fault::DiskFull,
    Fault::StoreFlipped,
    Fault::SandboxKilled,
    Fault::CompilerKilled,
    Fault::CoordinatorKilled,
    Fault::CoordinatorFrozen,
    Fault::CoordinatorCut,
    Fault::DaemonKilled,
    Fault::DaemonFrozen,
    Fault::CacheFlipped,
    Fault::CacheFull,
    Fault::ClientsCut,
    Fault::ClientsApart,
];

/// What a fault happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Agent(usize),
    Client(usize),
    Coordinator,
    /// The cable of all clients.
    Line,
}

/// What there is, and what can be done to it here.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Agents, by number.
    pub n_agents: usize,
    /// Clients with daemons of their own, by number.
    pub n_clients: usize,
    /// The first so many agents are desktops with owners.
    pub n_owners: usize,
    /// Whether there are cables.
    pub has_links: bool,
    /// Whether the last agent and the first client have small disks, which can be filled.
    pub has_small_disks: bool,
    /// The longest time from one fault to the next.
    pub longest_pause: Duration,
    /// The longest time that a fault lasts.
    pub longest_fault: Duration,
}

/// A step of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// What comes to pass.
    Begin,
    /// A fault that lasts is over.
    End,
}

/// What is to be done, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deed {
    /// Since the schedule's start.
    pub at: Duration,
    /// Whether it begins or ends.
    pub step: Step,
    /// What.
    pub fault: Fault,
    /// The agent or client that it happens to, by number; zero where there is only one.
    pub n: usize,
    /// For what else is drawn while it is done.
    pub seed: u64,
}

/// The schedule. It has no end.
#[derive(Debug)]
pub struct Schedule {
    rng: Rng,
    scope: Scope,
    next_begin: Duration,
    /// The ends of what lasts.
    lasting: BTreeMap<Target, Deed>,
}

impl Schedule {
    /// The one of `seed`.
    pub fn new(seed: u64, scope: Scope) -> Self {
        let mut schedule =
            Self { rng: Rng::with_seed(seed), scope, next_begin: Duration::ZERO, lasting: BTreeMap::new() };
        schedule.pause();
        schedule
    }

    /// The ends of all that lasts, in order, whenever they were to be.
    pub fn mend(&mut self) -> Vec<Deed> {
        let mut ends: Vec<Deed> = std::mem::take(&mut self.lasting).into_values().collect();
        ends.sort_unstable();
        ends
    }

    fn pause(&mut self) {
        self.next_begin += self.scope.longest_pause.mul_f64(self.rng.f64());
    }

    fn first_end(&self) -> Option<(Target, Deed)> {
        self.lasting.iter().min_by_key(|(_, end)| **end).map(|(target, end)| (*target, *end))
    }

    /// Where this kind of fault can happen now.
    fn targets(&self, fault: Fault) -> Vec<Target> {
        let Scope { n_agents, n_clients, n_owners, has_links, has_small_disks, .. } = self.scope;
        let agents = |range: std::ops::Range<usize>| range.map(Target::Agent).collect::<Vec<_>>();
        let mut targets = match fault {
            Fault::AgentCut if has_links => agents(0..n_agents),
            Fault::AgentKilled
            | Fault::AgentLost
            | Fault::AgentSpoiled
            | Fault::AgentStopped
            | Fault::AgentFrozen
            | Fault::AgentSuspended
            | Fault::StoreFlipped
            | Fault::SandboxKilled
            | Fault::CompilerKilled => agents(0..n_agents),
            Fault::OwnerBack | Fault::KeyPressed => agents(0..n_owners.min(n_agents)),
            Fault::DiskFull if has_small_disks => agents(n_agents.saturating_sub(1)..n_agents),
            Fault::CacheFull if has_small_disks && n_clients > 0 => vec![Target::Client(0)],
            Fault::DaemonKilled | Fault::DaemonFrozen | Fault::CacheFlipped => {
                (0..n_clients).map(Target::Client).collect()
            }
            Fault::CoordinatorKilled | Fault::CoordinatorFrozen => vec![Target::Coordinator],
            Fault::CoordinatorCut if has_links => vec![Target::Coordinator],
            Fault::ClientsCut | Fault::ClientsApart if has_links => vec![Target::Line],
            // There is nothing here to do it with.
            _ => Vec::new(),
        };
        targets.retain(|target| !self.lasting.contains_key(target));
        targets
    }

    fn begin(&mut self) -> Option<Deed> {
        let possible: Vec<(Fault, Vec<Target>)> = FAULTS.map(|fault| (fault, self.targets(fault))).into();
        let mut possible: Vec<_> = possible.into_iter().filter(|(_, targets)| !targets.is_empty()).collect();
        if possible.is_empty() || self.lasting.len() >= MAX_AT_ONCE {
            return None;
        }
        let (fault, targets) = possible.swap_remove(self.rng.usize(..possible.len()));
        let target = targets[self.rng.usize(..targets.len())];
        let n = match target {
            Target::Agent(n) | Target::Client(n) => n,
            Target::Coordinator | Target::Line => 0,
        };
        let begin = Deed { at: self.next_begin, step: Step::Begin, fault, n, seed: self.rng.u64(..) };
        if lasts(fault) {
            let at = begin.at + self.scope.longest_fault.mul_f64(self.rng.f64());
            self.lasting.insert(target, Deed { at, step: Step::End, ..begin });
        }
        Some(begin)
    }
}

impl Iterator for Schedule {
    type Item = Deed;

    fn next(&mut self) -> Option<Deed> {
        loop {
            if let Some((target, end)) = self.first_end().filter(|(_, end)| end.at <= self.next_begin) {
                self.lasting.remove(&target);
                return Some(end);
            }
            let begin = self.begin();
            self.pause();
            if begin.is_some() {
                return begin;
            }
        }
    }
}

/// Whether a fault is there until it is mended.
fn lasts(fault: Fault) -> bool {
    !matches!(
        fault,
        Fault::KeyPressed
            | Fault::StoreFlipped
            | Fault::SandboxKilled
            | Fault::CompilerKilled
            | Fault::DaemonKilled
            | Fault::CacheFlipped
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn scope(has_all: bool) -> Scope {
        Scope {
            n_agents: 4,
            n_clients: 2,
            n_owners: 2,
            has_links: has_all,
            has_small_disks: has_all,
            longest_pause: Duration::from_secs(2),
            longest_fault: Duration::from_secs(8),
        }
    }

    #[test]
    fn a_seed_is_one_schedule() {
        let deeds = |seed| Schedule::new(seed, scope(true)).take(300).collect::<Vec<_>>();
        assert_eq!(deeds(7), deeds(7));
        assert_ne!(deeds(7), deeds(8));
    }

    #[test]
    fn every_fault_comes_and_what_lasts_is_mended_before_its_target_gets_another() {
        for seed in 0..50 {
            let mut schedule = Schedule::new(seed, scope(true));
            let (mut lasting, mut seen, mut at) = (BTreeSet::new(), BTreeSet::new(), Duration::ZERO);
            for deed in schedule.by_ref().take(2000) {
                assert!(deed.at >= at, "{deed:?}");
                at = deed.at;
                seen.insert(deed.fault);
                match deed.step {
                    Step::Begin if lasts(deed.fault) => assert!(lasting.insert((deed.fault, deed.n)), "{deed:?}"),
                    Step::Begin => {}
                    Step::End => assert!(lasting.remove(&(deed.fault, deed.n)), "{deed:?}"),
                }
                let on_agents = lasting.iter().filter(|(fault, _)| is_of_agents(*fault)).map(|(_, n)| n);
                assert_eq!(
                    on_agents.clone().count(),
                    on_agents.collect::<BTreeSet<_>>().len(),
                    "one each: {lasting:?}"
                );
                assert!(lasting.len() <= MAX_AT_ONCE);
            }
            assert_eq!(seen.len(), FAULTS.len(), "{seen:?}");
            let mended: BTreeSet<_> = schedule.mend().into_iter().map(|deed| (deed.fault, deed.n)).collect();
            assert_eq!(mended, lasting);
        }
    }

    fn is_of_agents(fault: Fault) -> bool {
        !matches!(
            fault,
            Fault::CoordinatorKilled
                | Fault::CoordinatorFrozen
                | Fault::CoordinatorCut
                | Fault::DaemonKilled
                | Fault::DaemonFrozen
                | Fault::CacheFlipped
                | Fault::CacheFull
                | Fault::ClientsCut
                | Fault::ClientsApart
        )
    }

    #[test]
    fn what_can_not_be_done_here_is_not_asked_for() {
        let faults: BTreeSet<_> = Schedule::new(1, scope(false)).take(2000).map(|deed| deed.fault).collect();
        for fault in [Fault::AgentCut, Fault::CoordinatorCut, Fault::ClientsCut, Fault::ClientsApart, Fault::DiskFull] {
            assert!(!faults.contains(&fault), "{fault:?}");
        }
        let nobody = Scope { n_agents: 0, n_clients: 0, ..scope(false) };
        assert!(Schedule::new(1, nobody).take(50).all(|deed| deed.n == 0));
    }
}
