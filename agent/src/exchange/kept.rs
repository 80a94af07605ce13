//! What others are told of what is kept here: the filter of results and hints, and that something they wait for has come.
//!
//! The filter is made from the store's index when it is first asked for, and whatever is stored from then on is added. What was evicted stays in
//! it until it is made anew: somebody asks in vain then. Whoever stores a result or a hint says so here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{FilterMark, FilterUpdate};
use buildbee_proto::filter::{Filter, of_hints, of_result};
use buildbee_proto::limits::MAX_FILTER_NEWS;
use buildbee_store::Store;
use tokio::time::Instant;

use super::claims::Claims;

/// Entries that a filter has room for besides those that it is made of, at least. When they are used up it is made anew.
const MIN_ROOM: usize = 8192;
/// How long what was evicted stays in the filter.
const REMADE_AFTER: Duration = Duration::from_secs(1800);

#[derive(Debug)]
struct Made {
    epoch: u64,
    filter: Filter,
    /// At most `room`.
    added: Vec<u64>,
    room: usize,
    at: Instant,
    n_evicted: u64,
}

/// Clones share everything.
#[derive(Clone, Debug)]
pub struct Kept {
    store: Store,
    made: Arc<Mutex<Option<Made>>>,
    claims: Claims,
}

impl Kept {
    /// What is in `store`.
    pub fn new(store: Store) -> Self {
        Self { store, made: Arc::default(), claims: Claims::default() }
    }

    /// Who has what run.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    // A value is put in, taken out or appended to: nothing can be left half done under the lock.
    fn made(&self) -> MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result of `action` is stored.
    pub fn result(&self, action: &Digest) {
        self.add(of_result(action));
        self.claims.settle(action);
    }

    /// Hints for `key` are stored.
    pub fn hints(&self, key: &Digest) {
        self.add(of_hints(key));
    }

    fn add(&self, fingerprint: u64) {
        let mut made = self.made();
        let Some(filter) = &mut *made else { return };
        if filter.filter.may_have(fingerprint) {
            return;
        }
        if filter.added.len() >= filter.room {
            *made = None;
            return;
        }
        filter.filter.add(fingerprint);
        filter.added.push(fingerprint);
    }

    /// What somebody who knows `known` is told. Walks the index now and then.
    pub fn filter(&self, known: Option<FilterMark>) -> FilterUpdate {
        let mut made = self.made();
        let n_evicted = self.store.usage().n_evicted;
        if made.as_ref().is_some_and(|made| made.n_evicted != n_evicted && made.at.elapsed() >= REMADE_AFTER) {
            *made = None;
        }
        // Under the lock, so that nothing that is stored meanwhile is missed.
        let made = made.get_or_insert_with(|| make(&self.store, n_evicted));
        let n_added = made.added.len();
        let known =
            known.filter(|known| known.epoch == made.epoch).and_then(|known| usize::try_from(known.n_added).ok());
        let Some(news) = known.and_then(|known| made.added.get(known..)) else {
            let whole = Some(Bytes(made.filter.as_bytes().to_vec()));
            return FilterUpdate { mark: mark(made.epoch, n_added), whole, added: Vec::new() };
        };
        let added = news[..news.len().min(MAX_FILTER_NEWS)].to_vec();
        let n_known = n_added - news.len() + added.len();
        FilterUpdate { mark: mark(made.epoch, n_known), whole: None, added }
    }
}

fn mark(epoch: u64, n_added: usize) -> FilterMark {
    FilterMark { epoch, n_added: n_added as u64 }
}

fn make(store: &Store, n_evicted: u64) -> Made {
    let (results, hints) = (store.results(), store.hint_keys());
    let n_entries = results.len() + hints.len();
    let room = (n_entries / 4).max(MIN_ROOM);
    let mut filter = Filter::new(n_entries + room);
    results.iter().map(of_result).chain(hints.iter().map(of_hints)).for_each(|fingerprint| filter.add(fingerprint));
    // Where there are no random numbers, filters of two starts may be taken for one: somebody misses what is here until it is made anew.
    let epoch = getrandom::u64().unwrap_or(0);
    Made { epoch, filter, added: Vec::new(), room, at: Instant::now(), n_evicted }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::hint::Hint;
    use buildbee_store::{Durability, Options};

    use super::*;

    fn digest(n: u32) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    /// What somebody knows who has asked before.
    struct Asker {
        known: Option<(FilterMark, Filter)>,
        n_whole: usize,
    }

    impl Asker {
        fn ask(&mut self, kept: &Kept) {
            loop {
                let update = kept.filter(self.known.as_ref().map(|(mark, _)| *mark));
                let n_new = update.added.len();
                let mut filter = match update.whole {
                    Some(whole) => {
                        self.n_whole += 1;
                        Filter::from_bytes(whole.0).unwrap()
                    }
                    None => self.known.take().unwrap().1,
                };
                update.added.iter().for_each(|fingerprint| filter.add(*fingerprint));
                self.known = Some((update.mark, filter));
                if n_new < MAX_FILTER_NEWS {
                    return;
                }
            }
        }

        fn may_have(&self, fingerprint: u64) -> bool {
            self.known.as_ref().unwrap().1.may_have(fingerprint)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_again_hears_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 64 << 20, durability: Durability::Lazy };
        let (store, _) = Store::open_packed(&dir.path().join("store"), &options).unwrap();
        store.add_hint(&digest(1), Hint { roots: Vec::new(), action: digest(2) }).unwrap();
        let kept = Kept::new(store);
        let mut asker = Asker { known: None, n_whole: 0 };
        asker.ask(&kept);
        assert!(asker.may_have(of_hints(&digest(1))) && !asker.may_have(of_result(&digest(1))));
        let mut n = 0;
        for step in [1u32, 10, 6_000] {
            (n..n + step).for_each(|n| kept.result(&digest(n)));
            asker.ask(&kept);
            n += step;
            assert!((0..n).all(|n| asker.may_have(of_result(&digest(n)))));
        }
        assert_eq!(asker.n_whole, 1);
        (n..n + 80_000).for_each(|n| kept.result(&digest(n)));
        asker.ask(&kept);
        assert_eq!(asker.n_whole, 2, "too much was added: it is made anew from what is in the store");
        assert!(asker.may_have(of_hints(&digest(1))));
        let strange = kept.filter(asker.known.as_ref().map(|(mark, _)| FilterMark { n_added: u64::MAX, ..*mark }));
        assert!(strange.whole.is_some());
    }
}
