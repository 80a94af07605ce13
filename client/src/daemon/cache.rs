//! The user's own cache: direct-mode manifests, results and their content, in the same store as an agent's.
//!
//! A cache that can't be opened or written is reported once and done without: builds go on. Blocks; call off the event loop.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use buildbee_p2p::identity::{Identity, verify_result};
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::hint::Hint;
use buildbee_proto::local::LocalReply;
use buildbee_proto::manifest::ManifestEntry;
use buildbee_proto::outcome::{OutputFile, ReadSet, SignedResult};
use buildbee_proto::peer::PeerId;
use buildbee_store::{Pin, PutError, Store};

use super::crates::place::is_dep_info;
use super::crates::read_set::Candidate;
use super::recent::Recent;
use crate::dispatch::attempt::{MAX_RESULT_CONTENT_BYTES, RemoteResult, named};
use crate::inputs::discover::Inputs;
use crate::inputs::filehash::FileHashes;
use crate::inputs::recorded::{self, Known, Recorded};

/// Memory for results, with their content, that were used last.
const RECENT_RESULT_BYTES: usize = 16 << 20;
/// Memory for manifests that were used last.
const RECENT_MANIFEST_BYTES: usize = 24 << 20;

/// Messages and dependency files of a crate are read into memory up to this size each.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// A result with its content.
#[derive(Debug)]
pub struct Hit {
    /// What it says.
    pub signed: SignedResult,
    /// Content of everything that it names.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
}

impl From<RemoteResult> for Hit {
    fn from(made: RemoteResult) -> Self {
        Self { signed: made.signed, blobs: made.blobs }
    }
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

    /// What the compiler took where it ran, in milliseconds: processor time where that is known.
    pub fn took_ms(&self) -> u64 {
        let provenance = &self.signed.result.provenance;
        if provenance.cpu_ms > 0 { provenance.cpu_ms } else { provenance.wall_ms }
    }

    /// What the wrapper is told.
    pub fn reply(&self) -> LocalReply {
        let result = &self.signed.result;
        let stream = |digest| Bytes(self.content(digest).to_vec());
        LocalReply::Done { exit_code: result.exit_code, stdout: stream(&result.stdout), stderr: stream(&result.stderr) }
    }
}

/// The cache is full or failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotKept;

/// A manifest, ready to be checked: actions with what they read, newest first.
type Candidates = Vec<(Digest, Recorded)>;

/// The cache. Cheap to clone.
///
/// What is remembered was verified when it came from the store, and counts for as long as the store still has it.
#[derive(Clone, Debug)]
pub struct LocalCache {
    store: Option<Store>,
    own: PeerId,
    known: Known,
    results: Arc<Recent<Hit>>,
    manifests: Arc<Recent<Candidates>>,
    crates: Arc<Recent<Vec<Candidate>>>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl LocalCache {
    /// Over `store`, or over nothing.
    pub fn new(store: Option<Store>, identity: &Identity, hashes: FileHashes) -> Self {
        Self {
            store,
            own: identity.peer(),
            known: Known { hashes, ..Known::default() },
            results: Arc::new(Recent::new(RECENT_RESULT_BYTES)),
            manifests: Arc::new(Recent::new(RECENT_MANIFEST_BYTES)),
            crates: Arc::new(Recent::new(RECENT_MANIFEST_BYTES)),
            trouble: Arc::default(),
        }
    }

    /// The store, if there is one.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// A result that holds for `key` with the files as they are now.
    pub fn direct(&self, key: &Digest) -> Option<Arc<Hit>> {
        let candidates = self.candidates(key)?;
        let (action, _) = candidates.iter().find(|(_, read)| read.holds(&self.known))?;
        self.result(action)
    }

    fn candidates(&self, key: &Digest) -> Option<Arc<Candidates>> {
        let store = self.store.as_ref()?;
        if let Some(candidates) = self.manifests.get(key)
            && store.use_manifest(key)
        {
            return Some(candidates);
        }
        let manifest = store.manifest(key).ok()??;
        let candidates: Candidates =
            manifest.entries.iter().map(|entry| (entry.action, Recorded::new(&entry.read_set))).collect();
        let bytes = candidates.iter().map(|(_, read)| read.bytes()).sum();
        let candidates = Arc::new(candidates);
        self.manifests.put(*key, Arc::clone(&candidates), bytes);
        Some(candidates)
    }

    /// What is known of files.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// What is known for a crate's question, newest first. Empty where nothing is.
    pub fn crate_candidates(&self, key: &Digest) -> Arc<Vec<Candidate>> {
        let Some(store) = &self.store else { return Arc::default() };
        if let Some(candidates) = self.crates.get(key)
            && store.use_manifest(key)
        {
            return candidates;
        }
        let Ok(Some(manifest)) = store.manifest(key) else { return Arc::default() };
        let entries = manifest.entries.into_iter();
        let candidates: Vec<_> = entries.map(|entry| Candidate::new(entry.action, entry.read_set)).collect();
        let bytes = candidates.iter().map(Candidate::bytes).sum();
        let candidates = Arc::new(candidates);
        self.crates.put(*key, Arc::clone(&candidates), bytes);
        candidates
    }

    /// The result of a crate's `action` with its messages and dependency files; what else it names is in the store.
    pub fn crate_result(&self, action: &Digest) -> Option<Arc<Hit>> {
        let store = self.store.as_ref()?;
        if let Some(hit) = self.results.get(action)
            && store.use_result(&hit.signed)
        {
            return Some(hit);
        }
        let signed = store.result(action).ok()??;
        if signed.result.action != *action || !self.trusts(&signed) {
            return None;
        }
        let result = &signed.result;
        if !result.outputs.iter().all(|file| file.digest.size_bytes == 0 || store.contains(&file.digest)) {
            return None;
        }
        let is_text = |file: &&OutputFile| is_dep_info(&file.path);
        let texts = result.outputs.iter().filter(is_text).map(|file| file.digest);
        let mut blobs = BTreeMap::new();
        for digest in
            texts.chain([result.stdout, result.stderr]).chain(result.observed).filter(|digest| digest.size_bytes > 0)
        {
            blobs.insert(digest, store.read(&digest, MAX_TEXT_BYTES).ok()??);
        }
        let bytes = size_of::<Hit>() + blobs.values().map(Vec::len).sum::<usize>();
        let hit = Arc::new(Hit { signed, blobs });
        self.results.put(*action, Arc::clone(&hit), bytes);
        Some(hit)
    }

    /// The result of `action`, whole.
    pub fn result(&self, action: &Digest) -> Option<Arc<Hit>> {
        let store = self.store.as_ref()?;
        if let Some(hit) = self.results.get(action)
            && store.use_result(&hit.signed)
        {
            return Some(hit);
        }
        let hit = Arc::new(self.stored_result(store, action)?);
        let bytes = size_of::<Hit>() + hit.blobs.values().map(Vec::len).sum::<usize>();
        self.results.put(*action, Arc::clone(&hit), bytes);
        Some(hit)
    }

    fn stored_result(&self, store: &Store, action: &Digest) -> Option<Hit> {
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
        Some(Hit { signed, blobs })
    }

    /// Results of others count only if a sandbox made them.
    fn trusts(&self, signed: &SignedResult) -> bool {
        let made = &signed.result.provenance;
        (made.sandboxed || made.peer == self.own) && verify_result(signed)
    }

    /// Whether everything that was read is as it was, and nothing that was missed has appeared.
    pub fn holds(&self, set: &ReadSet) -> bool {
        Recorded::new(set).holds(&self.known)
    }

    /// Whether nothing that was missed has appeared.
    pub fn still_lacks(&self, inputs: &Inputs) -> bool {
        recorded::still_lacks(&inputs.read_set.absent, &inputs.folders, &self.known.absences)
    }

    /// Keeps a result with its content, and that `key` leads to it with these files. A cache that is full or failing keeps nothing and
    /// says so in the log.
    pub fn keep(&self, hit: &Hit, key: &Digest, read_set: &ReadSet) {
        let Some(store) = &self.store else { return };
        let action = hit.signed.result.action;
        let keep = || -> Result<(), PutError> {
            let _pinned = store.pin(hit.blobs.keys().copied());
            for (digest, content) in &hit.blobs {
                store.put_digested(digest, content)?;
            }
            store.put_result(&hit.signed)?;
            remember(store, key, action, read_set)
        };
        self.note(keep());
        self.results.forget(&action);
        self.manifests.forget(key);
        self.crates.forget(key);
    }

    /// Puts a large file of a result in place before the rest is kept, and holds it there; see [`Store::put_pieces`]. `None` where it is not
    /// stored because of what `look` saw, an error where it can't be, which is in the log.
    pub fn keep_file(
        &self,
        file: &mut File,
        path: &Path,
        size_bytes: u64,
        look: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<(Digest, Pin)>, NotKept> {
        let store = self.store.as_ref().ok_or(NotKept)?;
        match store.put_pieces(file, path, size_bytes, look) {
            Ok(digest) => Ok(digest.map(|digest| (digest, store.pin([digest])))),
            Err(error) => {
                self.note(Err(error));
                Err(NotKept)
            }
        }
    }

    /// Notes that `key` leads to `action` with these files.
    pub fn index(&self, key: &Digest, action: Digest, read_set: &ReadSet) {
        let Some(store) = &self.store else { return };
        self.note(remember(store, key, action, read_set));
        self.manifests.forget(key);
        self.crates.forget(key);
    }

    /// Notes where the compile of `key` was done. A hint that can't be kept is one that nobody gets.
    pub fn add_hint(&self, key: &Digest, hint: Hint) {
        if let Some(Err(error)) = self.store.as_ref().map(|store| store.add_hint(key, hint)) {
            tracing::debug!(%error, "a hint is not kept");
        }
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

fn remember(store: &Store, key: &Digest, action: Digest, read_set: &ReadSet) -> Result<(), PutError> {
    let mut manifest = store.manifest(key).ok().flatten().unwrap_or_default();
    manifest.remember(ManifestEntry { action, read_set: read_set.clone() });
    store.put_manifest(key, &manifest)
}
