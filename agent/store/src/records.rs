//! Action results, manifests and hints: small records of canonical bytes behind a checksum, each in a file of its own, checked at every read.
//!
//! Signatures are not checked here: whoever uses a result checks it first, wherever it comes from.

use std::io::{Read, Write};

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::hint::{Hint, Hints};
use buildbee_proto::limits::MAX_RESULT_BYTES;
use buildbee_proto::manifest::Manifest;
use buildbee_proto::outcome::SignedResult;

use crate::entry::{Key, Kind, Worth};
use crate::error::{PutError, ReadError};
use crate::inode::{self, Defect};
use crate::layout::{Family, charge_bytes};
use crate::store::Store;

/// Length of the BLAKE3 checksum that stands first.
const CHECKSUM_BYTES: usize = 32;
/// No record file is longer.
const MAX_FILE_BYTES: u64 = (MAX_RESULT_BYTES + CHECKSUM_BYTES) as u64;

/// Over name and content, so that a record under another's name is as bad as a torn one.
fn checksum(key: &Key, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(Family::of(key.kind).name().as_bytes());
    hasher.update(key.digest.to_string().as_bytes());
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

/// Everything that a result names.
fn blobs_of(result: &SignedResult) -> impl Iterator<Item = Key> {
    result.result.content().map(Key::blob)
}

/// How far a walk over all results is: [`Store::results_from`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk(u64);

impl Walk {
    /// Before the first.
    pub const START: Self = Self(u64::MAX);

    /// Whether there are no more.
    pub fn is_over(self) -> bool {
        self.0 == 0
    }
}

impl Store {
    /// Keeps the result of an action, in place of an older one.
    pub fn put_result(&self, result: &SignedResult) -> Result<(), PutError> {
        self.put_record(Key { kind: Kind::Result, digest: result.result.action }, &result.to_canonical())?;
        let mut index = self.inner.index();
        blobs_of(result).for_each(|blob| index.raise(&blob, Worth::Output));
        Ok(())
    }

    /// The result of `action`, if there is one. Its blobs count as used too; whether they are all here is another question
    /// ([`missing`](Self::missing)).
    pub fn result(&self, action: &Digest) -> Result<Option<SignedResult>, ReadError> {
        let key = Key { kind: Kind::Result, digest: *action };
        let Some(result) = self.record::<SignedResult>(&key)? else { return Ok(None) };
        if result.result.action != *action {
            let defect = Defect::Bad { reason: "a result of another action", inode: None };
            self.inner.drop_bad(Family::Results, &key, &defect);
            return Ok(None);
        }
        self.inner.touch_as(blobs_of(&result).chain([key]), Worth::Output);
        Ok(Some(result))
    }

    /// The same without counting it as used: for looks at what nobody has asked for.
    pub fn peek_result(&self, action: &Digest) -> Result<Option<SignedResult>, ReadError> {
        let found = self.record::<SignedResult>(&Key { kind: Kind::Result, digest: *action })?;
        Ok(found.filter(|result| result.result.action == *action))
    }

    /// At most `n_most` actions that there are results of, the latest used first, and where to go on. What is used during a walk may be
    /// left out of it. *In memory.*
    pub fn results_from(&self, walk: Walk, n_most: usize) -> (Vec<Digest>, Walk) {
        let (actions, next) = self.inner.index().used_before(walk.0, Kind::Result, n_most);
        (actions, Walk(next))
    }

    /// All actions that there are results of, in no order. *In memory.*
    pub fn results(&self) -> Vec<Digest> {
        self.inner.index().digests(Kind::Result)
    }

    /// All keys that there are hints for, in no order. *In memory.*
    pub fn hint_keys(&self) -> Vec<Digest> {
        self.inner.index().digests(Kind::Hints)
    }

    /// Whether there is a result of `action`. *In memory.* It may still be found bad when it is read.
    pub fn has_result(&self, action: &Digest) -> bool {
        self.inner.index().contains(&Key { kind: Kind::Result, digest: *action })
    }

    /// Whether there are hints for `key`. *In memory.* They may still be found bad when they are read.
    pub fn has_hints(&self, key: &Digest) -> bool {
        self.inner.index().contains(&Key { kind: Kind::Hints, digest: *key })
    }

    /// Counts a result that the caller has kept as used, with its blobs. False if one of them is not here any more; blobs without
    /// content don't count. *In memory.*
    pub fn use_result(&self, result: &SignedResult) -> bool {
        let key = Key { kind: Kind::Result, digest: result.result.action };
        self.inner.touch_as(blobs_of(result).filter(|blob| blob.digest.size_bytes > 0).chain([key]), Worth::Output)
    }

    /// Forgets the result of `action`. True if there was one.
    pub fn remove_result(&self, action: &Digest) -> bool {
        self.inner.remove(&Key { kind: Kind::Result, digest: *action })
    }

    /// Keeps the manifest for `key`, in place of an older one.
    pub fn put_manifest(&self, key: &Digest, manifest: &Manifest) -> Result<(), PutError> {
        self.put_record(Key { kind: Kind::Manifest, digest: *key }, &manifest.to_canonical())
    }

    /// The manifest for `key`, if there is one.
    pub fn manifest(&self, key: &Digest) -> Result<Option<Manifest>, ReadError> {
        let key = Key { kind: Kind::Manifest, digest: *key };
        let manifest = self.record(&key)?;
        self.inner.touch([key]);
        Ok(manifest)
    }

    /// The same without counting it as used.
    pub(crate) fn peek_manifest(&self, key: &Digest) -> Result<Option<Manifest>, ReadError> {
        self.record(&Key { kind: Kind::Manifest, digest: *key })
    }

    /// Counts a manifest that the caller has kept as used. False if it is not here any more. *In memory.*
    pub fn use_manifest(&self, key: &Digest) -> bool {
        self.inner.touch([Key { kind: Kind::Manifest, digest: *key }])
    }

    /// Adds `hint` to those for `key`. Of two at the same time one may be lost, as a hint may.
    pub fn add_hint(&self, key: &Digest, hint: Hint) -> Result<(), PutError> {
        let mut hints = self.hints(key).ok().flatten().unwrap_or_default();
        if hints.entries.first() == Some(&hint) {
            return Ok(());
        }
        hints.remember(hint);
        self.put_record(Key { kind: Kind::Hints, digest: *key }, &hints.to_canonical())
    }

    /// The hints for `key`, if there are any.
    pub fn hints(&self, key: &Digest) -> Result<Option<Hints>, ReadError> {
        let key = Key { kind: Kind::Hints, digest: *key };
        let hints = self.record(&key)?;
        self.inner.touch([key]);
        Ok(hints)
    }

    fn put_record(&self, key: Key, payload: &[u8]) -> Result<(), PutError> {
        if payload.len() > MAX_RESULT_BYTES {
            return Err(PutError::RecordTooLarge { size_bytes: payload.len(), max_bytes: MAX_RESULT_BYTES });
        }
        if self.inner.packs(payload.len() + CHECKSUM_BYTES) {
            return self.inner.put_packed(&key, &[&checksum(&key, payload), payload]);
        }
        let family = Family::of(key.kind);
        let reservation = self.inner.reserve(charge_bytes((payload.len() + CHECKSUM_BYTES) as u64))?;
        let temporary = self.inner.temporary();
        let write = || {
            let mut file = temporary.create()?;
            file.write_all(&checksum(&key, payload))?;
            #[cfg(any(test, debug_assertions))]
            crate::fault::point("record-half-written");
            file.write_all(payload)?;
            inode::seal(&file, family.mode())?;
            self.inner.sync_file(&file)
        };
        write().map_err(|error| PutError::io(temporary.path(), error))?;
        self.inner.install(temporary, family, &key, reservation)
    }

    fn record<R: Canonical>(&self, key: &Key) -> Result<Option<R>, ReadError> {
        if !self.inner.index().contains(key) {
            return Ok(None);
        }
        match self.inspect_record(key) {
            Ok(record) => Ok(Some(record)),
            Err(Defect::Io(error)) => Err(ReadError::io(&self.inner.layout.entry(key), error)),
            Err(defect) => {
                self.inner.drop_bad(Family::of(key.kind), key, &defect);
                Ok(None)
            }
        }
    }

    /// Reads a record, or says what is wrong with it.
    pub(crate) fn inspect_record<R: Canonical>(&self, key: &Key) -> Result<R, Defect> {
        let (content, inode) = match self.inner.packed(key)? {
            Some(content) => (content, None),
            None => self.record_file(key)?,
        };
        let bad = |reason| Defect::Bad { reason, inode };
        let payload = payload(key, &content).map_err(bad)?;
        R::from_canonical(payload).map_err(|error| {
            tracing::debug!(%error, "record can't be decoded");
            bad("of an unknown encoding")
        })
    }

    fn record_file(&self, key: &Key) -> Result<(Vec<u8>, Option<u64>), Defect> {
        let file = inode::open(&self.inner.layout.entry(key), Family::of(key.kind).mode(), None)?;
        let inode = Some(std::os::unix::fs::MetadataExt::ino(&file.metadata().map_err(Defect::Io)?));
        let mut content = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(Defect::Io)?;
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(Defect::Bad { reason: "larger than any record", inode });
        }
        Ok((content, inode))
    }
}

/// What stands behind the checksum of a record, if that holds.
pub(crate) fn payload<'a>(key: &Key, content: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let (sum, payload) = content.split_at_checked(CHECKSUM_BYTES).ok_or("torn")?;
    if sum == checksum(key, payload) { Ok(payload) } else { Err("checksum does not match") }
}
