//! Which results and hints each agent may have, by the filters that they hand out, so that nobody is asked in vain: a sure miss costs no question,
//! and what stands in for an agent that is away is found.
//!
//! Filters are brought up to date in the background while somebody looks things up, and not otherwise. One that is old says nothing: then the
//! agents that should have it are asked. What came since the last update is overlooked for a moment. For an action that is about to be run
//! the claim on it catches that ([`claim`](super::claim)). An agent that let two questions go by is not asked for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_proto::exchange::{CacheReply, CacheRequest, FilterMark, FilterUpdate};
use buildbee_proto::filter::Filter;
use buildbee_proto::limits::MAX_FILTER_NEWS;
use buildbee_proto::peer::PeerId;
use tokio::time::Instant;

use super::cache_streams::CacheStreams;

/// How old a filter may get before it is brought up to date: this, and more for each agent, so that many agents are not asked more often.
const UPDATED_AFTER: Duration = Duration::from_millis(400);
const UPDATED_LATER: Duration = Duration::from_millis(100);
/// One that is to be brought up to date is fresh for so long after, since nobody waits for that.
const FRESH_AFTERWARDS: Duration = Duration::from_millis(100);
/// How old a filter may be that is believed.
const BELIEVED_FOR: Duration = Duration::from_secs(10);
/// How long an update may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long an agent that let questions go by is left alone, and how many in a row.
const SILENT_FOR: Duration = Duration::from_secs(10);
const MAX_SILENT: u32 = 2;
/// All filters together, in bytes; agents beyond it are asked as if there were no filters.
const MAX_BYTES: usize = 64 << 20;
/// Updates in a row that one agent may have more news after.
const MAX_UPDATES: usize = 32;

#[derive(Debug, Default)]
struct Known {
    filter: Option<(FilterMark, Filter)>,
    at: Option<Instant>,
    /// When what came into the filter last was asked for.
    as_of: Option<Instant>,
    is_updating: bool,
    /// Questions in a row that it let go by.
    n_silent: u32,
    silent_since: Option<Instant>,
}

/// The filters of all agents. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Bounded by the agents that there are.
    known: Arc<Mutex<HashMap<PeerId, Known>>>,
}

/// What is known of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It may be there.
    Perhaps,
    /// It was not at the last update.
    No,
    /// It was not a moment ago.
    FreshNo,
    /// There is no answer to be had.
    Silent,
    /// Nothing.
    Nothing,
}

impl Filters {
    // Each use leaves the map whole.
    fn known(&self) -> MutexGuard<'_, HashMap<PeerId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `peer` may have what `fingerprint` stands for.
    pub fn say(&self, peer: &PeerId, fingerprint: u64) -> Says {
        let now = Instant::now();
        let all = self.known();
        let fresh_for = updated_after(all.len()) + FRESH_AFTERWARDS;
        let Some(known) = all.get(peer) else { return Says::Nothing };
        if known.silent_since.is_some_and(|since| now - since < SILENT_FOR) {
            return Says::Silent;
        }
        match &known.filter {
            Some((_, filter)) if known.at.is_some_and(|at| now - at < BELIEVED_FOR) => {
                if filter.may_have(fingerprint) {
                    Says::Perhaps
                } else if known.as_of.is_some_and(|as_of| now - as_of < fresh_for) {
                    Says::FreshNo
                } else {
                    Says::No
                }
            }
            _ => Says::Nothing,
        }
    }

    /// `peer` did not answer in time. Once may be chance.
    pub fn silent(&self, peer: PeerId) {
        let mut known = self.known();
        let known = known.entry(peer).or_default();
        known.n_silent = known.n_silent.saturating_add(1);
        if known.n_silent >= MAX_SILENT {
            known.silent_since = Some(Instant::now());
        }
    }

    /// `peer` answers.
    pub fn answers(&self, peer: &PeerId) {
        if let Some(known) = self.known().get_mut(peer) {
            known.n_silent = 0;
        }
    }

    /// Forgets agents that are not there.
    pub fn keep_of(&self, is_here: impl Fn(&PeerId) -> bool) {
        self.known().retain(|peer, _| is_here(peer));
    }

    /// Has the filters of `peers` brought up to date that are not. Returns at once.
    pub fn update(&self, streams: &CacheStreams, peers: &[PeerId]) {
        let age = updated_after(peers.len());
        let now = Instant::now();
        for peer in peers {
            let mark = {
                let mut all = self.known();
                let known = all.entry(*peer).or_default();
                if known.is_updating || known.at.is_some_and(|at| now - at < age) {
                    continue;
                }
                known.is_updating = true;
                known.filter.as_ref().map(|(mark, _)| *mark)
            };
            let (filters, streams, peer) = (self.clone(), streams.clone(), *peer);
            tokio::spawn(async move {
                let updated = tokio::time::timeout(DEADLINE, filters.bring(&streams, peer, mark)).await;
                if !matches!(updated, Ok(Some(()))) {
                    tracing::debug!(peer = %peer.short(), "its filter can't be had");
                }
                if let Some(known) = filters.known().get_mut(&peer) {
                    // Also where nothing came: not to be asked for all the time.
                    known.at = Some(Instant::now());
                    known.is_updating = false;
                }
            });
        }
    }

    async fn bring(&self, streams: &CacheStreams, peer: PeerId, mut mark: Option<FilterMark>) -> Option<()> {
        for _ in 0..MAX_UPDATES {
            let as_of = Instant::now();
            let asked = [CacheRequest::Filter { known: mark }];
            let Ok([CacheReply::Filter(update)]) =
                streams.ask(peer, &asked).await.map(<[CacheReply; 1]>::try_from).ok()?
            else {
                return None;
            };
            let n_new = update.added.len();
            mark = Some(update.mark);
            self.take(peer, update, as_of)?;
            if n_new < MAX_FILTER_NEWS {
                return Some(());
            }
        }
        Some(())
    }

    fn take(&self, peer: PeerId, update: FilterUpdate, as_of: Instant) -> Option<()> {
        let mut all = self.known();
        let n_bytes: usize =
            all.values().filter_map(|known| known.filter.as_ref()).map(|(_, f)| f.as_bytes().len()).sum();
        let known = all.get_mut(&peer)?;
        let mut filter = match (update.whole, known.filter.take()) {
            (Some(whole), _) if n_bytes + whole.0.len() > MAX_BYTES => return None,
            (Some(whole), _) => Filter::from_bytes(whole.0)?,
            (None, Some((mark, filter))) if mark.epoch == update.mark.epoch => filter,
            (None, _) => return None,
        };
        update.added.iter().for_each(|fingerprint| filter.add(*fingerprint));
        known.filter = Some((update.mark, filter));
        known.as_of = Some(as_of);
        Some(())
    }
}

/// How old filters of so many agents get.
fn updated_after(n_agents: usize) -> Duration {
    UPDATED_AFTER + UPDATED_LATER.saturating_mul(u32::try_from(n_agents).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use buildbee_proto::codec::Bytes;

    use super::*;

    fn update(epoch: u64, whole: Option<&Filter>, added: &[u64]) -> FilterUpdate {
        let whole = whole.map(|filter| Bytes(filter.as_bytes().to_vec()));
        FilterUpdate { mark: FilterMark { epoch, n_added: added.len() as u64 }, whole, added: added.to_vec() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_is_believed_for_a_while() {
        let (filters, peer) = (Filters::default(), PeerId([1; 32]));
        assert_eq!(filters.say(&peer, 7), Says::Nothing);
        filters.known().entry(peer).or_default().at = Some(Instant::now());
        let mut whole = Filter::new(10);
        whole.add(7);
        assert!(filters.take(peer, update(1, Some(&whole), &[]), Instant::now()).is_some());
        assert!(filters.take(peer, update(1, None, &[8]), Instant::now()).is_some());
        let says = |fingerprint| filters.say(&peer, fingerprint);
        assert_eq!([says(7), says(8), says(9)], [Says::Perhaps, Says::Perhaps, Says::FreshNo]);
        tokio::time::advance(updated_after(1) + FRESH_AFTERWARDS).await;
        assert_eq!([says(7), says(8), says(9)], [Says::Perhaps, Says::Perhaps, Says::No]);
        filters.silent(peer);
        filters.answers(&peer);
        filters.silent(peer);
        assert_eq!(says(7), Says::Perhaps, "once may be chance");
        filters.silent(peer);
        assert_eq!(says(7), Says::Silent);
        tokio::time::advance(SILENT_FOR).await;
        assert_eq!(says(7), Says::Nothing, "it is old");
        filters.keep_of(|_| false);
        assert!(filters.known().is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_not_taken() {
        let (filters, peer) = (Filters::default(), PeerId([1; 32]));
        let whole = Filter::new(10);
        let now = Instant::now();
        assert!(filters.take(peer, update(1, Some(&whole), &[]), now).is_none(), "nobody asked");
        filters.known().entry(peer).or_default();
        assert!(filters.take(peer, update(1, None, &[8]), now).is_none(), "an addition to nothing");
        assert!(filters.take(peer, update(1, Some(&whole), &[]), now).is_some());
        assert!(filters.take(peer, update(2, None, &[8]), now).is_none(), "an addition to another one");
        let empty = FilterUpdate { whole: Some(Bytes(Vec::new())), ..update(1, None, &[]) };
        assert!(filters.take(peer, empty, now).is_none());
        assert_eq!(filters.say(&peer, 8), Says::Nothing);
    }
}
