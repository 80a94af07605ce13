//! Collects what is of no use: results whose content was evicted, manifests that lead to none, and what is beyond a size. For
//! `buildbee cache gc`; a store keeps within its own size by itself.

use buildbee_proto::digest::Digest;

use crate::entry::{Key, Kind};
use crate::store::Store;

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Results that lacked some of their content.
    pub n_results: usize,
    /// Manifests without a result.
    pub n_manifests: usize,
    /// Entries beyond the size, the least recently used.
    pub n_evicted: usize,
    /// Room that this made.
    pub bytes: u64,
}

impl Store {
    /// Drops what is of no use, and what is least recently used beyond `max_bytes`. Reads all results and manifests; puts and reads may go
    /// on beside it.
    pub fn collect(&self, max_bytes: u64) -> Collected {
        let before = self.usage().bytes;
        let mut collected = Collected::default();
        let digests = |kind| self.inner.index().digests(kind);
        let empty = Digest::of(b"");
        for action in digests(Kind::Result) {
            let Ok(Some(result)) = self.peek_result(&action) else { continue };
            let content: Vec<Digest> = result.result.content().filter(|digest| *digest != empty).collect();
            // Looked at again: it may have come back with its content meanwhile.
            if !self.missing(&content).is_empty() && self.remove_result(&action) {
                collected.n_results += 1;
            }
        }
        for key in digests(Kind::Manifest) {
            let Ok(Some(manifest)) = self.peek_manifest(&key) else { continue };
            let leads = manifest.entries.iter().any(|entry| self.has_result(&entry.action));
            if !leads && self.inner.remove(&Key { kind: Kind::Manifest, digest: key }) {
                collected.n_manifests += 1;
            }
        }
        let beyond = self.inner.index().beyond(max_bytes);
        collected.n_evicted = beyond.iter().filter(|key| self.inner.remove(key)).count();
        collected.bytes = before.saturating_sub(self.usage().bytes);
        collected
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::manifest::{Manifest, ManifestEntry};
    use buildbee_proto::outcome::{ActionResult, Provenance, ReadSet, SignedResult};
    use buildbee_proto::peer::{PeerId, Signature};

    use super::*;
    use crate::store::{Durability, Options};

    fn result(action: &[u8], stdout: Digest) -> SignedResult {
        let provenance =
            Provenance { peer: PeerId([1; 32]), sandboxed: true, wall_ms: 0, cpu_ms: 0, peak_memory_bytes: 0 };
        let result = ActionResult {
            action: Digest::of(action),
            exit_code: 0,
            outputs: Vec::new(),
            stdout,
            stderr: Digest::of(b""),
            observed: None,
            provenance,
        };
        SignedResult { result, signature: Signature([0; 64]) }
    }

    #[test]
    fn what_leads_nowhere_goes_and_the_oldest_beyond_the_size() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 64 << 20, durability: Durability::Lazy };
        let (store, _) = Store::open(folder.path(), &options).unwrap();
        let kept = store.put_bytes(b"kept").unwrap();
        store.put_result(&result(b"whole", kept)).unwrap();
        store.put_result(&result(b"torn", Digest::of(b"gone"))).unwrap();
        let manifest = |action: &[u8]| {
            let mut manifest = Manifest::default();
            manifest.remember(ManifestEntry { action: Digest::of(action), read_set: ReadSet::default() });
            manifest
        };
        store.put_manifest(&Digest::of(b"leads"), &manifest(b"whole")).unwrap();
        store.put_manifest(&Digest::of(b"does not"), &manifest(b"torn")).unwrap();
        let collected = store.collect(u64::MAX);
        assert_eq!((collected.n_results, collected.n_manifests, collected.n_evicted), (1, 1, 0), "{collected:?}");
        assert!(store.has_result(&Digest::of(b"whole")) && store.contains(&kept));
        assert_eq!(store.collect(u64::MAX), Collected::default(), "twice is once");
        let pinned = store.put_bytes(b"pinned").unwrap();
        let _pin = store.pin([pinned]);
        let collected = store.collect(0);
        assert!(collected.n_evicted >= 3 && collected.bytes > 0, "{collected:?}");
        assert!(store.contains(&pinned) && !store.contains(&kept));
    }
}
