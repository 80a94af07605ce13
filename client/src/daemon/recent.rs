//! A bounded memory of what was used last, by digest.
//!
//! Two generations: what is put or used goes into the young one; when that is full, it becomes the old one, and what the old one still
//! holds is forgotten. So what was not used for a whole generation goes, without a list of uses to keep.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::digest::Digest;

#[derive(Debug)]
struct Generations<V> {
    young: HashMap<Digest, (Arc<V>, usize)>,
    old: HashMap<Digest, (Arc<V>, usize)>,
    young_bytes: usize,
}

/// The memory.
#[derive(Debug)]
pub struct Recent<V> {
    generations: Mutex<Generations<V>>,
    max_bytes: usize,
}

impl<V> Recent<V> {
    /// That takes `max_bytes` at most, by the sizes that are given with each value.
    pub fn new(max_bytes: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new(), young_bytes: 0 };
        Self { generations: Mutex::new(generations), max_bytes }
    }

    /// What is remembered under `key`.
    pub fn get(&self, key: &Digest) -> Option<Arc<V>> {
        let mut generations = self.generations();
        if let Some((value, _)) = generations.young.get(key) {
            return Some(Arc::clone(value));
        }
        let (value, bytes) = generations.old.remove(key)?;
        self.insert(&mut generations, *key, Arc::clone(&value), bytes);
        Some(value)
    }

    /// Remembers `value`, which takes `bytes`; not if that is more than a generation holds.
    pub fn put(&self, key: Digest, value: Arc<V>, bytes: usize) {
        self.insert(&mut self.generations(), key, value, bytes);
    }

    /// Forgets what is known under `key`.
    pub fn forget(&self, key: &Digest) {
        let mut generations = self.generations();
        generations.old.remove(key);
        if let Some((_, bytes)) = generations.young.remove(key) {
            generations.young_bytes -= bytes;
        }
    }

    fn insert(&self, generations: &mut Generations<V>, key: Digest, value: Arc<V>, bytes: usize) {
        let room = self.max_bytes / 2;
        if bytes > room {
            return;
        }
        if generations.young_bytes + bytes > room {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_bytes = 0;
        }
        if let Some((_, before)) = generations.young.insert(key, (value, bytes)) {
            generations.young_bytes -= before;
        }
        generations.young_bytes += bytes;
    }

    fn generations(&self) -> MutexGuard<'_, Generations<V>> {
        // A count that is off after a panic only moves the day on which a generation ends.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let recent = Recent::new(200);
        for n in 0..100 {
            recent.put(key(n), Arc::new(n), 10);
            assert_eq!(recent.get(&key(0)).as_deref(), Some(&0), "after {n}");
        }
        let kept = (0..100).filter(|n| recent.get(&key(*n)).is_some()).count();
        assert!((10..=20).contains(&kept), "{kept} are kept");
    }

    #[test]
    fn what_is_forgotten_or_too_large_is_not_there() {
        let recent = Recent::new(200);
        recent.put(key(1), Arc::new(1), 101);
        recent.put(key(2), Arc::new(2), 10);
        recent.put(key(2), Arc::new(3), 20);
        assert_eq!(recent.generations().young_bytes, 20);
        assert_eq!((recent.get(&key(1)), recent.get(&key(2)).as_deref()), (None, Some(&3)));
        recent.forget(&key(2));
        assert_eq!(recent.get(&key(2)), None);
        assert_eq!(recent.generations().young_bytes, 0);
    }
}
