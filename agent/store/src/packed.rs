//! The store's use of packs: putting small entries there, reading and checking them, taking them out again.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use buildbee_proto::digest::Digest;
use nix::errno::Errno;

use crate::entry::{Key, Kind};
use crate::error::{LinkError, PutError, ReadError, is_one_of};
use crate::inode::Defect;
use crate::packs::{self, Packs, Place};
use crate::records;
use crate::store::{Inner, JOURNAL_BATCH, Store, delete_file};

/// How often an entry is looked for that is being moved from pack to pack.
const MAX_LOOKS: usize = 4;

/// What the packs have of a blob.
#[derive(Debug)]
pub(crate) enum FromPack {
    /// Nothing: it has a file of its own, or is not here.
    Elsewhere,
    /// Its bytes, checked.
    Content(Vec<u8>),
    /// Something else under its name, which is gone now.
    Dropped,
}

impl Store {
    /// What the packs have of a blob.
    pub(crate) fn read_packed(&self, digest: &Digest) -> Result<FromPack, ReadError> {
        let key = Key::blob(*digest);
        match self.inner.checked(&key) {
            Ok(None) => Ok(FromPack::Elsewhere),
            Ok(Some(content)) => {
                self.inner.touch([key]);
                Ok(FromPack::Content(content))
            }
            Err(Defect::Io(error)) => Err(ReadError::io(&self.inner.layout.packs(), error)),
            Err(defect) => {
                self.inner.drop_packed(&key, &defect);
                Ok(FromPack::Dropped)
            }
        }
    }

    /// Gives a blob that is in a pack a file of its own.
    pub(crate) fn unpack(&self, digest: &Digest) -> Result<(), LinkError> {
        // Making room for the file must not take the blob.
        let _pin = self.pin([*digest]);
        if let FromPack::Content(content) = self.read_packed(digest)? {
            self.put_file_of(digest, &content)?;
        }
        Ok(())
    }
}

/// Whether a blob, or a record with its checksum, is what it is named.
pub(crate) fn check(key: &Key, payload: &[u8]) -> Result<(), &'static str> {
    match key.kind {
        Kind::Blob if Digest::of(payload) == key.digest => Ok(()),
        Kind::Blob => Err("content is not what it is named"),
        Kind::Result | Kind::Manifest | Kind::Hints => records::payload(key, payload).map(drop),
    }
}

impl Inner {
    // A pack that was left half changed by a panic is what a crash leaves, too.
    pub(crate) fn lock_packs(&self) -> MutexGuard<'_, Packs> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file without a name that holds `content`, at its start.
    pub(crate) fn nameless(&self, content: &[u8]) -> Result<File, ReadError> {
        let temporary = self.temporary();
        let write = || {
            let mut file = temporary.create()?;
            file.write_all(content)?;
            file.rewind().map(|()| file)
        };
        write().map_err(|error| ReadError::io(temporary.path(), error))
    }

    /// Whether an entry with a payload of `length` goes to a pack.
    pub(crate) fn packs(&self, length: usize) -> bool {
        self.max_packed_bytes.is_some_and(|max_bytes| length as u64 <= max_bytes)
    }

    /// Where an entry is, if it is in a pack.
    pub(crate) fn place(&self, key: &Key) -> Option<Place> {
        self.index().get(key)?.place
    }

    /// Puts an entry into a pack, in place of an older one.
    pub(crate) fn put_packed(self: &Arc<Self>, key: &Key, payload: &[&[u8]]) -> Result<(), PutError> {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        let mut reservation = self.reserve(packs::charge_bytes(length as u64))?;
        let stripe = self.stripe(key);
        let (place, had_file) = {
            let mut packs = self.lock_packs();
            let place = packs.append(key, payload).map_err(|error| PutError::io(&self.layout.packs(), error))?;
            #[cfg(any(test, debug_assertions))]
            crate::fault::point("packed");
            let mut index = self.index();
            index.release(std::mem::take(&mut reservation.bytes));
            (place, index.insert_packed(*key, place))
        };
        if had_file {
            // The file may have been promised to last.
            self.sync_place(place)?;
            delete_file(&self.layout.entry(key));
        }
        drop(stripe);
        self.bury();
        self.flush_journal(JOURNAL_BATCH);
        Ok(())
    }

    /// What is in a pack under `key`, unchecked; `None` if it is in none.
    pub(crate) fn packed(&self, key: &Key) -> Result<Option<Vec<u8>>, Defect> {
        let mut last = Defect::Gone;
        for _ in 0..MAX_LOOKS {
            let Some(place) = self.place(key) else { return Ok(None) };
            last = match packs::read(&self.layout, place) {
                Ok(payload) => return Ok(Some(payload)),
                Err(error) if is_one_of(&error, &[Errno::ENOENT]) => Defect::Gone,
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    Defect::Bad { reason: "torn", inode: None }
                }
                Err(error) if is_one_of(&error, &[Errno::EIO]) => {
                    Defect::Bad { reason: "the disk can't read it", inode: None }
                }
                Err(error) if is_one_of(&error, &[Errno::ELOOP, Errno::EACCES, Errno::EPERM, Errno::ENOTDIR]) => {
                    Defect::Bad { reason: "its pack was replaced", inode: None }
                }
                Err(error) => return Err(Defect::Io(error)),
            };
            // Swept meanwhile: it is elsewhere.
            if self.place(key) == Some(place) {
                break;
            }
        }
        Err(last)
    }

    /// The same for a blob, or a record with its checksum, that is what it is named.
    pub(crate) fn checked(&self, key: &Key) -> Result<Option<Vec<u8>>, Defect> {
        let Some(payload) = self.packed(key)? else { return Ok(None) };
        check(key, &payload).map_err(|reason| Defect::Bad { reason, inode: None })?;
        Ok(Some(payload))
    }

    /// Drops an entry of a pack, unless it was replaced by a good one since `defect` was seen. True if it was dropped.
    pub(crate) fn drop_packed(&self, key: &Key, defect: &Defect) -> bool {
        let stripe = self.stripe(key);
        let is_bad = matches!(self.checked(key), Err(Defect::Bad { .. } | Defect::Gone));
        if !is_bad || !self.index().remove(key) {
            return false;
        }
        drop(stripe);
        tracing::warn!(kind = ?key.kind, digest = %key.digest, %defect, "dropped a bad entry from a pack");
        self.n_bad.fetch_add(1, Ordering::Relaxed);
        self.bury();
        true
    }

    /// Removes what the index has forgotten from the packs. Takes the packs' lock.
    pub(crate) fn bury(&self) {
        let dead = self.take_dead();
        self.settle_superseded();
        if dead.is_empty() {
            return;
        }
        self.lock_packs().bury(&dead);
        self.sweep();
    }

    /// Sweeps the packs that have come to hold little. Takes the packs' lock.
    pub(crate) fn sweep(&self) {
        let mut packs = self.lock_packs();
        while let Some(pack) = packs.to_sweep() {
            if !self.superseded().is_empty() {
                // Some of it may be there: nothing is given up before what replaced it lasts.
                drop(packs);
                if let Err(error) = self.make_last(HashSet::new()) {
                    tracing::warn!(pack, %error, "a pack can't be swept now");
                    return;
                }
                packs = self.lock_packs();
                continue;
            }
            let swept = packs.sweep(
                pack,
                |entry| self.place(&entry.key) == Some(entry.place),
                |entry, place| self.index().moved(&entry.key, entry.place, place),
            );
            if let Err(error) = swept {
                tracing::warn!(pack, %error, "a pack can't be swept");
                return;
            }
        }
    }
}
