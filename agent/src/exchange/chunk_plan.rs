//! Which chunk of a large blob is asked of whom next. Pure: time and chance are arguments.
//!
//! Agents before the origin: the origin (a client behind a slow link, mostly) is asked for what no agent has, and only while no agent is about
//! to have it all. Chunks are taken at random places, so that agents that began at the same time soon have different ones to swap. What
//! somebody keeps waiting for is asked of another one too.

use std::collections::HashMap;
use std::time::Duration;

use buildbee_proto::chunk::ChunkSet;

/// The source that has all of it.
pub(super) const ORIGIN: usize = 0;
/// Chunks asked for at once.
const BATCH: usize = 4;
/// Chunks that were asked for this long ago are asked of another source.
const STEAL_AFTER: Duration = Duration::from_secs(5);
/// An agent to which nothing comes for this long is not waited for.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Source {
    present: ChunkSet,
    /// It says that the rest is coming.
    coming: bool,
    /// When it was last heard to have more.
    grew: Duration,
    alive: bool,
}

#[derive(Debug)]
struct Flying {
    source: usize,
    since: Duration,
}

/// What is here, who has what, what was asked of whom. Times are since some beginning.
#[derive(Debug)]
pub(super) struct Plan {
    here: ChunkSet,
    sources: Vec<Source>,
    flying: HashMap<u32, Flying>,
}

impl Plan {
    /// With an origin, and what is here.
    pub(super) fn new(here: ChunkSet) -> Self {
        let origin = Source { present: ChunkSet::all(here.n()), coming: false, grew: Duration::ZERO, alive: true };
        Self { here, sources: vec![origin], flying: HashMap::new() }
    }

    /// An agent that has nothing yet.
    pub(super) fn add(&mut self, now: Duration) -> usize {
        let present = ChunkSet::none(self.here.n());
        self.sources.push(Source { present, coming: false, grew: now, alive: true });
        self.sources.len() - 1
    }

    /// It has these.
    pub(super) fn heard(&mut self, source: usize, present: ChunkSet, coming: bool, now: Duration) {
        if let Some(source) = self.sources.get_mut(source) {
            if present.n_present() > source.present.n_present() || (coming && !source.coming) {
                source.grew = now;
            }
            source.present = present;
            source.coming = coming;
        }
    }

    /// How many chunks it has.
    pub(super) fn n_known(&self, source: usize) -> u32 {
        self.sources.get(source).map_or(0, |source| source.present.n_present())
    }

    /// Nothing more comes from it.
    pub(super) fn lost(&mut self, source: usize) {
        self.flying.retain(|_, flying| flying.source != source);
        if let Some(source) = self.sources.get_mut(source) {
            source.alive = false;
        }
    }

    /// The stream to it broke; it may answer on another one.
    pub(super) fn cut(&mut self, source: usize) {
        self.flying.retain(|_, flying| flying.source != source);
    }

    /// It does not have that chunk after all.
    pub(super) fn lacks(&mut self, source: usize, index: u32) {
        if self.flying.get(&index).is_some_and(|flying| flying.source == source) {
            self.flying.remove(&index);
        }
        if let Some(source) = self.sources.get_mut(source) {
            source.present.remove(index);
        }
    }

    /// The chunk is here.
    pub(super) fn arrived(&mut self, index: u32) {
        self.here.insert(index);
        self.flying.remove(&index);
    }

    /// Whether no agent has all of it, or is about to.
    pub(super) fn needs_origin(&self, now: Duration) -> bool {
        let will_have = |source: &Source| {
            source.alive && (source.present.is_all() || (source.coming && now.saturating_sub(source.grew) < PATIENCE))
        };
        !self.sources.iter().skip(1).any(will_have)
    }

    /// What to ask of `source` now, perhaps nothing. `random` is any number.
    pub(super) fn next(&mut self, source: usize, now: Duration, random: u64) -> Vec<u32> {
        let Some(asked) = self.sources.get(source).filter(|source| source.alive) else { return Vec::new() };
        let wanted = |index: &u32| !self.here.contains(*index) && asked.present.contains(*index);
        let agents = || self.sources.iter().skip(1).filter(|source| source.alive);
        let is_elsewhere = |index: &u32| agents().any(|agent| agent.present.contains(*index));
        let indices = || (0..self.here.n()).filter(wanted);
        let mut free: Vec<u32> = indices().filter(|index| !self.flying.contains_key(index)).collect();
        if source == ORIGIN {
            if self.needs_origin(now) {
                free.retain(|index| !is_elsewhere(index));
            } else {
                free.clear();
            }
        }
        if free.is_empty() {
            let is_late = |flying: &Flying| flying.source != source && now.saturating_sub(flying.since) >= STEAL_AFTER;
            free.extend(indices().find(|index| self.flying.get(index).is_some_and(is_late)));
        }
        let n_free = free.len() as u64;
        if n_free > 0 {
            free.rotate_left(usize::try_from(random % n_free).unwrap_or(0));
        }
        free.truncate(BATCH);
        self.flying.extend(free.iter().map(|index| (*index, Flying { source, since: now })));
        free
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn the_origin_is_asked_for_what_no_agent_has() {
        let mut plan = Plan::new(ChunkSet::none(8));
        let agent = plan.add(NOW);
        let mut some = ChunkSet::none(8);
        for index in 0..6 {
            some.insert(index);
        }
        plan.heard(agent, some, false, NOW);
        assert_eq!(plan.next(ORIGIN, NOW, 1), [7, 6]);
        assert_eq!(plan.next(ORIGIN, NOW, 0), [0; 0]);
        assert_eq!(plan.next(agent, NOW, 2), [2, 3, 4, 5]);
        plan.lacks(agent, 2);
        assert_eq!(plan.next(ORIGIN, NOW, 0), [2]);
    }

    #[test]
    fn who_is_about_to_have_it_is_waited_for_while_it_grows() {
        let mut plan = Plan::new(ChunkSet::none(4));
        let agent = plan.add(NOW);
        plan.heard(agent, ChunkSet::none(4), true, NOW);
        assert!(plan.next(ORIGIN, NOW, 0).is_empty());
        let mut one = ChunkSet::none(4);
        one.insert(3);
        let later = NOW + PATIENCE / 2;
        plan.heard(agent, one.clone(), true, later);
        assert!(plan.next(ORIGIN, later + PATIENCE / 2, 0).is_empty());
        // Saying the same again is no growth.
        plan.heard(agent, one, true, later + PATIENCE);
        assert_eq!(plan.next(ORIGIN, later + PATIENCE, 0), [0, 1, 2]);
        plan.lost(agent);
        assert_eq!(plan.next(ORIGIN, later + PATIENCE, 0), [3]);
    }

    #[test]
    fn what_is_late_is_asked_of_another_one() {
        let mut plan = Plan::new(ChunkSet::none(4));
        let agent = plan.add(NOW);
        plan.heard(agent, ChunkSet::all(4), false, NOW);
        assert_eq!(plan.next(agent, NOW, 0), [0, 1, 2, 3]);
        assert!(plan.next(ORIGIN, NOW + STEAL_AFTER / 2, 0).is_empty());
        assert_eq!(plan.next(ORIGIN, NOW + STEAL_AFTER, 0), [0]);
        assert_eq!(plan.next(ORIGIN, NOW + STEAL_AFTER, 0), [1]);
        assert!(plan.next(agent, NOW + STEAL_AFTER, 0).is_empty());
        plan.arrived(0);
        plan.arrived(1);
        plan.lost(agent);
        assert_eq!(plan.next(ORIGIN, NOW, 0), [2, 3]);
    }

    proptest! {
        /// Whatever agents have, say, lose and delay: with the origin, all of it comes, and nothing that is here is asked for.
        #[test]
        fn all_of_it_comes_in_the_end(
            n in 1u32..40,
            agents in proptest::collection::vec((proptest::collection::vec(0u32..40, 0..40), any::<bool>(), 0u8..3), 0..4),
            random in proptest::collection::vec(any::<u64>(), 200),
        ) {
            let mut plan = Plan::new(ChunkSet::none(n));
            for (has, coming, _) in &agents {
                let source = plan.add(Duration::ZERO);
                let mut present = ChunkSet::none(n);
                for index in has { present.insert(*index); }
                plan.heard(source, present, *coming, Duration::ZERO);
            }
            let mut now = Duration::ZERO;
            for random in random {
                for source in 0..=agents.len() {
                    let batch = plan.next(source, now, random);
                    prop_assert!(batch.len() <= BATCH && batch.iter().all(|index| *index < n && !plan.here.contains(*index)));
                    // 0: answers; 1: keeps everybody waiting; 2: dies of it.
                    match source.checked_sub(1).map_or(0, |agent| agents[agent].2) {
                        0 => batch.iter().for_each(|index| plan.arrived(*index)),
                        1 => {}
                        _ => plan.lost(source),
                    }
                }
                now += Duration::from_secs(1);
            }
            prop_assert!(plan.here.is_all());
        }
    }
}
