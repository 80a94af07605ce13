//! Which chunk of a large blob is asked of whom next. Pure: time and chance are arguments.
//!
//! Agents before the origin: the origin (a client behind a slow link, mostly) is asked for what no agent has. Of that, agents that bring the
//! blob at the same time ask for different chunks ([`pull`](super::pull)) and leave each other's alone while these keep coming; who is through
//! with its own helps who is slow, from the far end. What somebody keeps waiting for is asked of another one too.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use buildbee_proto::chunk::ChunkSet;
use buildbee_proto::digest::Digest;
use buildbee_proto::peer::PeerId;

use super::pull::Piece;

/// The source that has all of it.
pub(super) const ORIGIN: usize = 0;
/// Chunks asked for at once.
const BATCH: usize = 4;
/// The same of the origin. Few: what an agent has asked for, no other one can take over.
const ORIGIN_BATCH: usize = 2;
/// Chunks of another agent's that it has asked the origin for, or will soon.
const ITS_NEXT: usize = 6;
/// Who is through with its own helps others after this time: what is known of them is a little old.
const HELP_AFTER: Duration = Duration::from_millis(300);
/// In the beginning nobody knows who else begins: an agent keeps to what is its own whoever does.
const SETTLING: Duration = Duration::from_millis(150);
/// Chunks that were asked for this long ago are asked of another source.
const STEAL_AFTER: Duration = Duration::from_secs(5);
/// An agent to which nothing comes for this long is not waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where the origin takes longer than that for a chunk, this many times as long,
const PATIENCE_IN_CHUNKS: u32 = 2;
/// but no longer than this.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Source {
    peer: PeerId,
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
    me: PeerId,
    blob: Piece,
    here: ChunkSet,
    sources: Vec<Source>,
    flying: HashMap<u32, Flying>,
    /// How long the origin took for the last chunk.
    origin_took: Duration,
    /// Since when nothing is left that is ours to ask the origin for.
    through: Option<Duration>,
}

impl Plan {
    /// Of `me`, to whom `blob` is brought, with an origin, and what is here.
    pub(super) fn new(me: PeerId, blob: &Digest, origin: PeerId, here: ChunkSet) -> Self {
        let present = ChunkSet::all(here.n());
        let origin = Source { peer: origin, present, coming: false, grew: Duration::ZERO, alive: true };
        let (sources, blob) = (vec![origin], Piece::blob(blob));
        Self { me, blob, here, sources, flying: HashMap::new(), origin_took: Duration::ZERO, through: None }
    }

    /// An agent that has nothing yet.
    pub(super) fn add(&mut self, peer: PeerId, now: Duration) -> usize {
        let present = ChunkSet::none(self.here.n());
        self.sources.push(Source { peer, present, coming: false, grew: now, alive: true });
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

    /// A stream to it broke: `batch` won't come on that one. It may answer on another one.
    pub(super) fn cut(&mut self, source: usize, batch: &[u32]) {
        for index in batch {
            if self.flying.get(index).is_some_and(|flying| flying.source == source) {
                self.flying.remove(index);
            }
        }
    }

    /// It does not have that chunk after all.
    pub(super) fn lacks(&mut self, source: usize, index: u32) {
        self.cut(source, &[index]);
        if let Some(source) = self.sources.get_mut(source) {
            source.present.remove(index);
        }
    }

    /// The chunk is here.
    pub(super) fn arrived(&mut self, index: u32, now: Duration) {
        self.here.insert(index);
        if let Some(Flying { source: ORIGIN, since }) = self.flying.remove(&index) {
            self.origin_took = now.saturating_sub(since);
        }
    }

    /// How long an agent may not grow: it may be behind the same slow origin.
    fn patience(&self, now: Duration) -> Duration {
        let asked = self.flying.values().filter(|flying| flying.source == ORIGIN);
        let waited = asked.map(|flying| now.saturating_sub(flying.since)).max().unwrap_or_default();
        (self.origin_took.max(waited) * PATIENCE_IN_CHUNKS).clamp(PATIENCE, MAX_PATIENCE)
    }

    fn agents(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().skip(1).filter(|source| source.alive)
    }

    /// Agents that ask the origin too, and get something.
    fn rivals(&self, now: Duration) -> Vec<&Source> {
        let patience = self.patience(now);
        self.agents().filter(|source| source.coming && now.saturating_sub(source.grew) < patience).collect()
    }

    /// Whether no agent has all of it, or is about to.
    pub(super) fn needs_origin(&self, now: Duration) -> bool {
        !self.agents().any(|source| source.present.is_all()) && self.rivals(now).is_empty()
    }

    /// What to ask of `source` now, perhaps nothing. `random` is any number.
    pub(super) fn next(&mut self, source: usize, now: Duration, random: u64) -> Vec<u32> {
        let Some(asked) = self.sources.get(source).filter(|source| source.alive) else { return Vec::new() };
        let wanted = |index: &u32| !self.here.contains(*index) && asked.present.contains(*index);
        let indices = || (0..self.here.n()).filter(wanted);
        let mut batch: Vec<u32> = indices().filter(|index| !self.flying.contains_key(index)).collect();
        if source == ORIGIN {
            let is_elsewhere = |index: &u32| self.agents().any(|agent| agent.present.contains(*index));
            batch.retain(|index| !is_elsewhere(index));
            let (ours, theirs) = self.shared_out(batch, now);
            self.through = if ours.is_empty() { self.through.or(Some(now)) } else { None };
            let helps = self.through.is_some_and(|since| now.saturating_sub(since) >= HELP_AFTER);
            batch = if helps { theirs } else { ours };
        } else if let Some(n_free) = u64::try_from(batch.len()).ok().filter(|n_free| *n_free > 0) {
            batch.rotate_left(usize::try_from(random % n_free).unwrap_or(0));
            batch.truncate(BATCH);
        }
        if batch.is_empty() {
            let is_late = |flying: &Flying| flying.source != source && now.saturating_sub(flying.since) >= STEAL_AFTER;
            batch.extend(indices().find(|index| self.flying.get(index).is_some_and(is_late)));
        }
        self.flying.extend(batch.iter().map(|index| (*index, Flying { source, since: now })));
        batch
    }

    /// What of `free` the origin is asked for next, and what instead by who helps others.
    fn shared_out(&self, free: Vec<u32>, now: Duration) -> (Vec<u32>, Vec<u32>) {
        let everybody: Vec<PeerId> = self.agents().map(|source| source.peer).collect();
        let rivals = self.rivals(now);
        let is_settling = now < SETTLING && !everybody.is_empty();
        // Whose it is: ours whoever joins, ours as it is, or a rival's.
        let (mut ours, mut theirs) = (Vec::new(), vec![Vec::new(); rivals.len()]);
        for index in free {
            let piece = self.blob.chunk(index);
            let pull = piece.pull(&self.me);
            let strongest = |(at, rival): (usize, &&Source)| ((piece.pull(&rival.peer), rival.peer), at);
            match rivals.iter().enumerate().map(strongest).max() {
                Some(((strongest, peer), at)) if (strongest, peer) > (pull, self.me) => {
                    theirs[at].push((Reverse(strongest), index));
                }
                _ => {
                    let is_anyway = piece.is_mine(&self.me, &everybody);
                    if is_anyway || !is_settling {
                        ours.push((!is_anyway, Reverse(pull), index));
                    }
                }
            }
        }
        ours.sort_unstable();
        // Of who has most left, what it would come to last.
        let mut most = theirs.into_iter().max_by_key(Vec::len).unwrap_or_default();
        most.sort_unstable();
        let last = most.iter().skip(ITS_NEXT).rev().take(ORIGIN_BATCH);
        (
            ours.into_iter().take(ORIGIN_BATCH).map(|(.., index)| index).collect(),
            last.map(|(_, index)| *index).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const ME: PeerId = PeerId([1; 32]);
    const OTHER: PeerId = PeerId([2; 32]);

    fn plan(n: u32) -> Plan {
        Plan::new(ME, &blob(), PeerId([9; 32]), ChunkSet::none(n))
    }

    fn blob() -> Digest {
        Digest::of(b"large")
    }

    fn some(n: u32, indices: impl IntoIterator<Item = u32>) -> ChunkSet {
        let mut some = ChunkSet::none(n);
        for index in indices {
            some.insert(index);
        }
        some
    }

    /// All that is asked of `source` now.
    fn all(plan: &mut Plan, source: usize, now: Duration) -> Vec<u32> {
        let batches = std::iter::from_fn(|| Some(plan.next(source, now, 0)).filter(|batch| !batch.is_empty()));
        let mut all: Vec<u32> = batches.take(100).flatten().collect();
        all.sort_unstable();
        all
    }

    fn is_ours(index: u32) -> bool {
        Piece::blob(&blob()).chunk(index).is_mine(&ME, &[OTHER])
    }

    #[test]
    fn the_origin_is_asked_for_what_no_agent_has() {
        let mut plan = plan(8);
        let agent = plan.add(OTHER, NOW);
        plan.heard(agent, some(8, 0..6), false, NOW);
        assert_eq!(all(&mut plan, ORIGIN, NOW), [6, 7]);
        assert_eq!(plan.next(agent, NOW, 2), [2, 3, 4, 5]);
        plan.lacks(agent, 2);
        assert_eq!(plan.next(ORIGIN, NOW, 0), [2]);
    }

    #[test]
    fn who_brings_it_too_is_left_its_share_while_it_grows() {
        let n = 8;
        let mut plan = plan(n);
        let agent = plan.add(OTHER, NOW);
        plan.heard(agent, ChunkSet::none(n), true, NOW);
        let (ours, theirs): (Vec<u32>, Vec<u32>) = (0..n).partition(|index| is_ours(*index));
        assert!(!ours.is_empty() && (2..=ITS_NEXT).contains(&theirs.len()), "{ours:?} {theirs:?}");
        assert_eq!(all(&mut plan, ORIGIN, NOW), ours);
        for index in &ours {
            plan.arrived(*index, NOW);
        }
        let later = NOW + PATIENCE / 2;
        plan.heard(agent, some(n, [theirs[0]]), true, later);
        assert!(plan.next(ORIGIN, later + PATIENCE / 2, 0).is_empty());
        // Saying the same again is no growth.
        plan.heard(agent, some(n, [theirs[0]]), true, later + PATIENCE);
        assert_eq!(all(&mut plan, ORIGIN, later + PATIENCE), theirs[1..]);
        plan.lost(agent);
        assert_eq!(plan.next(ORIGIN, later + PATIENCE, 0), [theirs[0]]);
    }

    #[test]
    fn who_is_slow_is_helped_from_the_far_end() {
        let n = 64;
        let mut plan = plan(n);
        let agent = plan.add(OTHER, NOW);
        plan.heard(agent, ChunkSet::none(n), true, NOW);
        let theirs = (0..n).filter(|index| !is_ours(*index)).count();
        let mut asked = all(&mut plan, ORIGIN, NOW);
        assert_eq!(asked.len() + theirs, n as usize);
        asked.extend(all(&mut plan, ORIGIN, NOW + HELP_AFTER));
        assert_eq!(asked.len() + ITS_NEXT, n as usize, "all but what it has asked for");
        assert!(theirs > ITS_NEXT);
        // What is left is what the other one asks for first.
        let mut its = Plan::new(OTHER, &blob(), PeerId([9; 32]), ChunkSet::none(n));
        let us = its.add(ME, NOW);
        its.heard(us, ChunkSet::none(n), true, NOW);
        let first: Vec<u32> = (0..ITS_NEXT / ORIGIN_BATCH).flat_map(|_| its.next(ORIGIN, NOW, 0)).collect();
        assert!(first.iter().all(|index| !asked.contains(index)));
    }

    #[test]
    fn a_slow_origin_makes_patient() {
        let n = 8;
        let mut plan = plan(n);
        let agent = plan.add(OTHER, NOW);
        plan.heard(agent, ChunkSet::none(n), true, NOW);
        let ours = all(&mut plan, ORIGIN, NOW);
        // Nothing has come to anybody.
        assert!(!plan.needs_origin(NOW + 4 * PATIENCE));
        let later = NOW + 4 * PATIENCE;
        for index in &ours {
            plan.arrived(*index, later);
        }
        assert!(!plan.needs_origin(later + PATIENCE));
        assert!(plan.needs_origin(later + MAX_PATIENCE));
    }

    #[test]
    fn in_the_beginning_everybody_keeps_to_what_is_theirs() {
        let mut plan = plan(16);
        plan.add(OTHER, Duration::ZERO);
        let asked = all(&mut plan, ORIGIN, Duration::ZERO);
        assert_eq!(asked, (0..16).filter(|index| is_ours(*index)).collect::<Vec<_>>());
        assert_eq!(asked.len() + all(&mut plan, ORIGIN, SETTLING).len(), 16);
    }

    #[test]
    fn what_is_late_is_asked_of_another_one() {
        let mut plan = plan(4);
        let agent = plan.add(OTHER, NOW);
        plan.heard(agent, ChunkSet::all(4), false, NOW);
        assert_eq!(plan.next(agent, NOW, 0), [0, 1, 2, 3]);
        assert!(plan.next(ORIGIN, NOW + STEAL_AFTER / 2, 0).is_empty());
        assert_eq!(plan.next(ORIGIN, NOW + STEAL_AFTER, 0), [0]);
        assert_eq!(plan.next(ORIGIN, NOW + STEAL_AFTER, 0), [1]);
        assert!(plan.next(agent, NOW + STEAL_AFTER, 0).is_empty());
        plan.arrived(0, NOW);
        plan.arrived(1, NOW);
        plan.lost(agent);
        assert_eq!(all(&mut plan, ORIGIN, NOW), [2, 3]);
    }

    proptest! {
        /// Two agents that begin together, each behind an origin that serves both at some pace: each chunk leaves the origin about once.
        #[test]
        fn two_at_once_ask_for_each_chunk_about_once(
            n in 20u32..200, paces in proptest::array::uniform2(1u32..8), apart_ms in 0u64..400, hear_ms in 1u64..100,
        ) {
            let peers = [ME, OTHER];
            let mut plans = peers.map(|peer| Plan::new(peer, &blob(), PeerId([9; 32]), ChunkSet::none(n)));
            let mut asked: [Vec<u32>; 2] = [Vec::new(), Vec::new()];
            let (mut n_sent, mut now) = (0, Duration::ZERO);
            for at in 0..2 { plans[at].add(peers[1 - at], now); }
            let tick = Duration::from_millis(10);
            for step in 0u32..200_000 {
                for at in 0..2 {
                    let begun = Duration::from_millis(apart_ms) * u32::try_from(at).unwrap();
                    if now < begun || plans[at].here.is_all() { continue; }
                    let since = now.saturating_sub(begun);
                    // What the other one says, now and then.
                    if step % u32::try_from(hear_ms.div_ceil(10)).unwrap() == 0 {
                        let other = plans[1 - at].here.clone();
                        let is_begun = at == 1 || now >= Duration::from_millis(apart_ms);
                        plans[at].heard(1, other, is_begun, since);
                    }
                    for index in plans[at].next(1, since, 0) { plans[at].arrived(index, since); }
                    if asked[at].is_empty() {
                        asked[at] = plans[at].next(ORIGIN, since, 0);
                        n_sent += asked[at].len();
                    }
                    if step % paces[at] == 0 && let Some(index) = asked[at].pop() { plans[at].arrived(index, since); }
                }
                now += tick;
                if plans.iter().all(|plan| plan.here.is_all()) { break; }
            }
            prop_assert!(plans.iter().all(|plan| plan.here.is_all()));
            // What the other one got since it was heard is not known yet.
            let unheard = usize::try_from(hear_ms / 10).unwrap();
            // Nobody waits in vain: the quicker one alone would have taken about as long.
            let alone = tick * n * *paces.iter().min().unwrap();
            prop_assert!(now <= alone + Duration::from_millis(apart_ms) + PATIENCE / 2, "{now:?}, alone {alone:?}");
            prop_assert!(n_sent <= n as usize + n as usize / 10 + 2 + unheard, "{n_sent} of {n}");
        }

        /// Whatever agents have, say, lose and delay: with the origin, all of it comes, and nothing that is here is asked for.
        #[test]
        fn all_of_it_comes_in_the_end(
            n in 1u32..40,
            agents in proptest::collection::vec((proptest::collection::vec(0u32..40, 0..40), any::<bool>(), 0u8..3), 0..4),
            random in proptest::collection::vec(any::<u64>(), 200),
        ) {
            let mut plan = plan(n);
            for (at, (has, coming, _)) in (2..).zip(&agents) {
                let source = plan.add(PeerId([at; 32]), Duration::ZERO);
                plan.heard(source, some(n, has.iter().copied()), *coming, Duration::ZERO);
            }
            let mut now = Duration::ZERO;
            for random in random {
                for source in 0..=agents.len() {
                    let batch = plan.next(source, now, random);
                    prop_assert!(batch.len() <= BATCH && batch.iter().all(|index| *index < n && !plan.here.contains(*index)));
                    // 0: answers; 1: keeps everybody waiting; 2: dies of it.
                    match source.checked_sub(1).map_or(0, |agent| agents[agent].2) {
                        0 => batch.iter().for_each(|index| plan.arrived(*index, now)),
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
