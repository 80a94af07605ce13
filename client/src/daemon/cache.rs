//! The user's own cache: direct-mode manifests, results and their content, in the same store as an agent's.
//!
//! A cache that can't be opened or written is reported once and done without: builds go on. Blocks; call off the event loop.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use buildbee_p2p::identity::{Identity, verify_result};
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::local::LocalReply;
use buildbee_proto::manifest::{Manifest, ManifestEntry};
use buildbee_proto::outcome::{ReadSet, SignedResult};
use buildbee_proto::peer::PeerId;
use buildbee_store::{PutError, Store};

use crate::dispatch::attempt::{MAX_RESULT_CONTENT_BYTES, named};
use crate::inputs::filehash::FileHashes;
use crate::inputs::lookup::FOLDER_MARK;
use crate::inputs::twins;

/// A result with its content.
#[derive(Debug)]
pub struct Hit {
    /// What it says.
    pub signed: SignedResult,
    /// Content of everything that it names.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Hit {
    /// Content of `digest`; empty content is never stored.
    pub fn content(&self, digest: &Digest) -> &[u8] {
        self.blobs.get(digest).map_or(&[], Vec::as_slice)
    }

    /// Of all content, in bytes.
    pub fn size(&self) -> u64 {
        self.blobs.keys().map(|digest| digest.size_bytes).fold(0, u64::saturating_add)
    }

    /// What the wrapper is told.
    pub fn reply(&self) -> LocalReply {
        let result = &self.signed.result;
        let stream = |digest| Bytes(self.content(digest).to_vec());
        LocalReply::Done { exit_code: result.exit_code, stdout: stream(&result.stdout), stderr: stream(&result.stderr) }
    }
}

/// The cache. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalCache {
    store: Option<Store>,
    own: PeerId,
    hashes: FileHashes,
    trouble: Arc<Mutex<Option<String>>>,
}

impl LocalCache {
    /// Over `store`, or over nothing.
    pub fn new(store: Option<Store>, identity: &Identity, hashes: FileHashes) -> Self {
        Self { store, own: identity.peer(), hashes, trouble: Arc::default() }
    }

    /// The store, if there is one.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// A result that holds for `key` with the files as they are now.
    pub fn direct(&self, key: &Digest) -> Option<Arc<Hit>> {
        let manifest = self.store.as_ref()?.manifest(key).ok()??;
        let holding = manifest.entries.iter().find(|entry| self.holds(&entry.read_set))?;
        self.result(&holding.action)
    }

    /// The result of `action`, whole.
    pub fn result(&self, action: &Digest) -> Option<Arc<Hit>> {
        let store = self.store.as_ref()?;
        let signed = store.result(action).ok()??;
        if signed.result.action != *action || !self.trusts(&signed) {
            return None;
        }
        let mut blobs = named(&signed);
        let size = blobs.keys().map(|digest| digest.size_bytes).fold(0u64, u64::saturating_add);
        if size > MAX_RESULT_CONTENT_BYTES {
            return None;
        }
        for (digest, content) in &mut blobs {
            *content = store.read(digest, MAX_RESULT_CONTENT_BYTES).ok()??;
        }
        Some(Arc::new(Hit { signed, blobs }))
    }

    /// Results of others count only if a sandbox made them.
    fn trusts(&self, signed: &SignedResult) -> bool {
        let made = &signed.result.provenance;
        (made.sandboxed || made.peer == self.own) && verify_result(signed)
    }

    /// Whether everything that was read is as it was, and nothing that was missed has appeared.
    pub fn holds(&self, set: &ReadSet) -> bool {
        set.symlinks
            .iter()
            .all(|(path, target)| fs::read_link(path.to_absolute()).is_ok_and(|now| now.as_os_str() == target.as_str()))
            && set.files.iter().all(|(path, digest)| self.hashes.has_content(&path.to_absolute(), digest))
            && set.absent.iter().all(|path| is_absent(&path.to_absolute()))
            && twins::hold(set)
    }

    /// Keeps a result, its content, and (where given) how to find it without looking at the inputs again. A cache that is full or
    /// failing keeps nothing and says so in the log.
    pub fn keep(&self, signed: &SignedResult, blobs: &BTreeMap<Digest, Vec<u8>>, index: (Digest, ReadSet)) {
        let Some(store) = &self.store else { return };
        let (key, read_set) = index;
        let keep = || -> Result<(), PutError> {
            let _pinned = store.pin(blobs.keys().copied());
            for content in blobs.values() {
                store.put_bytes(content)?;
            }
            store.put_result(signed)?;
            let mut manifest = store.manifest(&key).ok().flatten().unwrap_or_else(Manifest::default);
            manifest.remember(ManifestEntry { action: signed.result.action, read_set });
            store.put_manifest(&key, &manifest)
        };
        self.note(keep());
    }

    /// Notes that `key` leads to `action` with these files.
    pub fn index(&self, key: &Digest, action: Digest, read_set: ReadSet) {
        let Some(store) = &self.store else { return };
        let mut manifest = store.manifest(key).ok().flatten().unwrap_or_else(Manifest::default);
        manifest.remember(ManifestEntry { action, read_set });
        self.note(store.put_manifest(key, &manifest));
    }

    /// Why the last result was not kept, for `status`; `None` where it was.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, kept: Result<(), PutError>) {
        let trouble = kept.err().map(|error| {
            let text = format!("the local cache could not keep a result: {error}");
            if text.contains("\nhint: ") { text } else { text + "\nhint: `buildbee doctor` looks for the cause" }
        });
        if let Some(trouble) = &trouble {
            tracing::warn!("{trouble}");
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

fn is_absent(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        // A file stands where a folder was: not the same, if a compiler passed the folder over.
        Err(error) => error.kind() == io::ErrorKind::NotADirectory && !path.ends_with(FOLDER_MARK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_place_of_a_folder_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("x.h");
        let (mark, other) = (place.join(FOLDER_MARK), place.join("y.h"));
        assert!(is_absent(&place) && is_absent(&mark) && is_absent(&other));
        fs::create_dir(&place).unwrap();
        assert!(!is_absent(&place) && is_absent(&mark) && is_absent(&other));
        fs::remove_dir(&place).unwrap();
        fs::write(&place, "").unwrap();
        assert!(!is_absent(&place) && !is_absent(&mark) && is_absent(&other));
    }
}
