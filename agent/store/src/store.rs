//! The shared handle: opening, room, eviction, putting finished files in place, taking bad ones away.
//!
//! Locks: the index's is held for memory work only, never across the disk. A stripe (one of a few locks, by digest) orders whatever
//! changes the file of one digest: moving it into place, deleting it. A stripe may be held while taking the index, never the other way.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::digest::{Digest, DigestFunction};

use crate::entry::{Key, Kind, Twin, Worth};
use crate::error::{OpenError, PutError};
use crate::index::{Index, MAX_ENTRIES};
use crate::inode::Defect;
use crate::lasting::{sync_all, sync_folder};
use crate::layout::{Family, Layout, remove_any};
use crate::lock::DirLock;
use crate::packs::{Packs, Place};
use crate::pins::Pin;
use crate::recency::Recency;
use crate::recover::{self, Recovery, mark_closed};
use crate::temporary::Temporary;

/// Locks that order changes to files.
const N_STRIPES: usize = 64;
/// Changes in the order of use that are gathered before they are written to the journal.
pub(crate) const JOURNAL_BATCH: u64 = 4096;

/// Entries that are looked at under one lock of the index.
pub(crate) const PAGE: usize = 8192;

/// What a written file survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A loss of power: file and folder are synchronised before a put returns.
    Sync,
    /// As [`Lazy`](Self::Lazy), but for results that [`Store::make_last`] was asked for.
    Asked,
    /// The end of the process. After a loss of power, what was written last may be missing, and is never wrong.
    Lazy,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that blobs, executables and records may take, counted in blocks of 4096 bytes a file at least. The journal comes on top
    /// (up to 150 bytes an entry).
    pub max_bytes: u64,
    /// What a put survives.
    pub durability: Durability,
}

/// What is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Room taken.
    pub bytes: u64,
    /// Room allowed.
    pub max_bytes: u64,
    /// Blobs.
    pub blobs: usize,
    /// Action results.
    pub results: usize,
    /// Manifests.
    pub manifests: usize,
    /// Files found bad and dropped since the start, without those found at the start.
    pub n_bad: u64,
    /// Entries evicted since the start.
    pub n_evicted: u64,
}

/// What clearing took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Blobs and records that are gone.
    pub n_entries: usize,
    /// Pinned blobs that stay.
    pub n_pinned: usize,
}

/// An open store. Clones share it; it closes with the last of them.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    durability: Durability,
    index: Mutex<Index>,
    /// Places that are given up once what is elsewhere now lasts.
    pub(crate) superseded: Mutex<Vec<(Key, Place)>>,
    stripes: [Mutex<()>; N_STRIPES],
    journal: Mutex<Recency>,
    pub(crate) packs: Mutex<Packs>,
    /// Payloads up to this length go there.
    pub(crate) max_packed_bytes: Option<u64>,
    /// Random: tells this process's temporary files from those of an earlier one.
    run: u64,
    next_temporary: AtomicU64,
    pub(crate) n_bad: AtomicU64,
    n_evicted: AtomicU64,
    /// Last, so that everything else is closed when another process may come in.
    _lock: DirLock,
}

impl Store {
    /// Opens the store in `dir`, making it if there is none, and puts it in order: leftovers of a crash go, files that can be seen to
    /// be bad without reading them go, and what is over the size goes.
    pub fn open(dir: &Path, options: &Options) -> Result<(Self, Recovery), OpenError> {
        Self::open_as(dir, options, false)
    }

    /// The same, but from here on small entries share files, except for those put as linkable. That is much cheaper to write; a blob gets
    /// its own file when somebody wants to have it as one. The two packs that are being written may come on top of the size (at
    /// most 32 MiB).
    pub fn open_packed(dir: &Path, options: &Options) -> Result<(Self, Recovery), OpenError> {
        Self::open_as(dir, options, true)
    }

    fn open_as(dir: &Path, options: &Options, packs_small: bool) -> Result<(Self, Recovery), OpenError> {
        let layout = Layout { dir: dir.to_owned() };
        layout.recognise()?;
        layout.create_dir()?;
        let lock = DirLock::acquire(&layout)?;
        // Another process may have made or upgraded it since.
        layout.recognise()?;
        let n_replaced = layout.prepare()?;
        let run = getrandom::u64().map_err(|error| OpenError::io(dir, dir, io::Error::other(error.to_string())))?;
        let mut index = Index::new(options.max_bytes, MAX_ENTRIES);
        let mut packs = Packs::new(&layout, options.max_bytes, options.durability);
        let (journal, mut recovery) = recover::recover(&layout, &mut index, &mut packs)?;
        recovery.n_dropped += n_replaced;
        let inner = Inner {
            layout,
            durability: options.durability,
            index: Mutex::new(index),
            superseded: Mutex::default(),
            stripes: std::array::from_fn(|_| Mutex::new(())),
            journal: Mutex::new(journal),
            max_packed_bytes: packs_small.then(|| packs.max_payload_bytes()),
            packs: Mutex::new(packs),
            run,
            next_temporary: AtomicU64::new(0),
            n_bad: AtomicU64::new(0),
            n_evicted: AtomicU64::new(0),
            _lock: lock,
        };
        let store = Self { inner: Arc::new(inner) };
        // The size may have been lowered. What can't be reserved now is refused put by put.
        drop(store.inner.reserve(0));
        Ok((store, recovery))
    }

    /// Whether the blob is there. *In memory.* Its content may not have been checked since the start: a later read can still find it bad.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.inner.index().contains(&Key::blob(*digest))
    }

    /// Those of `digests` that are not there, in the order given. *In memory.*
    pub fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let index = self.inner.index();
        digests.iter().filter(|digest| !index.contains(&Key::blob(**digest))).copied().collect()
    }

    /// Protects blobs from eviction while the guard lives. *In memory.* Pin first, then ask what is missing.
    pub fn pin(&self, digests: impl IntoIterator<Item = Digest>) -> Pin {
        Pin::new(self.clone(), digests.into_iter().collect())
    }

    /// Counts blobs as used that are worth as much, as far as they are here. *In memory.*
    pub fn use_as(&self, digests: impl IntoIterator<Item = Digest>, worth: Worth) {
        self.inner.touch_as(digests.into_iter().map(Key::blob), worth);
    }

    /// What is in the store. *In memory.*
    pub fn usage(&self) -> Usage {
        let index = self.inner.index();
        Usage {
            bytes: index.used_bytes(),
            max_bytes: index.cap_bytes(),
            blobs: index.count(Kind::Blob),
            results: index.count(Kind::Result),
            manifests: index.count(Kind::Manifest),
            n_bad: self.inner.n_bad.load(Ordering::Relaxed),
            n_evicted: self.inner.n_evicted.load(Ordering::Relaxed),
        }
    }

    /// Deletes everything that is not pinned.
    pub fn clear(&self) -> Cleared {
        let mut cleared = Cleared::default();
        let mut gone = Vec::new();
        {
            let mut index = self.inner.index();
            let mut next = Some(0);
            while let Some(at) = next {
                let (keys, following) = index.keys_from(at, PAGE);
                for key in keys {
                    if index.is_pinned(&key) {
                        cleared.n_pinned += 1;
                    } else if index.remove(&key) {
                        gone.push(key);
                    }
                }
                next = following;
            }
        }
        cleared.n_entries = gone.len();
        self.inner.delete(&gone);
        self.inner.bury();
        self.inner.flush_journal(JOURNAL_BATCH);
        cleared
    }
}

/// Room promised to a writer; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    inner: Arc<Inner>,
    pub(crate) bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.inner.index().release(self.bytes);
    }
}

impl Inner {
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stripe(&self, key: &Key) -> MutexGuard<'_, ()> {
        let at = usize::from(key.digest.hash[1]) % N_STRIPES;
        self.stripes[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn temporary(&self) -> Temporary {
        Temporary::new(&self.layout.tmp(), self.run, self.next_temporary.fetch_add(1, Ordering::Relaxed))
    }

    /// Promises room, evicting what has to go for it.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, PutError> {
        let reserved = self.index().reserve(bytes);
        let victims =
            reserved.map_err(|full| PutError::Full { needed_bytes: full.needed_bytes, cap_bytes: full.cap_bytes })?;
        let reservation = Reservation { inner: Arc::clone(self), bytes };
        if !victims.is_empty() {
            tracing::debug!(n = victims.len(), "evicting the least recently used");
            self.n_evicted.fetch_add(victims.len() as u64, Ordering::Relaxed);
            self.delete(&victims);
            self.bury();
            self.flush_journal(JOURNAL_BATCH);
        }
        Ok(reservation)
    }

    /// Deletes the files of entries that the index has forgotten, unless one has come back meanwhile.
    fn delete(&self, gone: &[Key]) {
        for key in gone {
            #[cfg(any(test, debug_assertions))]
            crate::fault::point("before-delete");
            let _stripe = self.stripe(key);
            if !self.index().contains(key) {
                self.delete_files(key);
            }
        }
    }

    /// Forgets and deletes one entry. True if there was one.
    pub(crate) fn remove(&self, key: &Key) -> bool {
        let removed = self.index().remove(key);
        if removed {
            self.delete(&[*key]);
            self.bury();
        }
        removed
    }

    /// The executable goes first: without its blob it is a leftover that the next start removes.
    fn delete_files(&self, key: &Key) {
        if key.kind == Kind::Blob {
            delete_file(&self.layout.file(Family::Executables, &key.digest));
            #[cfg(any(test, debug_assertions))]
            crate::fault::point("half-deleted");
        }
        delete_file(&self.layout.entry(key));
    }

    /// Moves a finished, sealed file into place and enters it in the index.
    pub(crate) fn install(
        &self,
        mut temporary: Temporary,
        family: Family,
        key: &Key,
        reservation: Reservation,
    ) -> Result<(), PutError> {
        let path = self.layout.file(family, &key.digest);
        let charge_bytes = reservation.bytes;
        let stripe = self.stripe(key);
        if self.settled(family, key) {
            return Ok(());
        }
        #[cfg(any(test, debug_assertions))]
        crate::fault::point("before-rename");
        let lasts = self.sync_before_replacing(key, temporary.path());
        let lasts = lasts.map_err(|error| PutError::io(temporary.path(), error))?;
        let new_folder = temporary.move_to(&path).map_err(|error| PutError::io(&path, error))?;
        #[cfg(any(test, debug_assertions))]
        crate::fault::point("after-rename");
        if (lasts || self.durability == Durability::Sync)
            && let Err(error) = sync_parents(&path, if new_folder { 2 } else { 1 })
        {
            if !self.index().contains(key) {
                delete_file(&path);
            }
            return Err(error);
        }
        // One lock for both, so that the room is never counted twice nor not at all.
        let mut index = self.index();
        let mut reservation = reservation;
        index.release(std::mem::take(&mut reservation.bytes));
        match family {
            Family::Executables => index.set_twin(key, Twin::Present { verified: true }),
            Family::Blobs | Family::Results | Family::Manifests | Family::Hints => {
                index.insert(*key, charge_bytes, true);
            }
        }
        drop(index);
        drop(stripe);
        self.bury();
        self.flush_journal(JOURNAL_BATCH);
        Ok(())
    }

    /// Whether the new file is not wanted: somebody else was faster, or the blob of an executable is gone.
    fn settled(&self, family: Family, key: &Key) -> bool {
        let mut index = self.index();
        let entry = index.get(key);
        let settled = match family {
            Family::Blobs => entry.is_some_and(|entry| entry.verified),
            Family::Executables => entry.is_none_or(|entry| entry.twin == Twin::Present { verified: true }),
            Family::Results | Family::Manifests | Family::Hints => false,
        };
        if settled {
            index.touch(key);
        }
        settled
    }

    /// Makes a finished file survive what it has to.
    pub(crate) fn sync_file(&self, file: &File) -> io::Result<()> {
        match self.durability {
            Durability::Sync => sync_all(file),
            Durability::Asked | Durability::Lazy => Ok(()),
        }
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// Takes away a file that is not what it should be. True if it was: false means that a good one has taken its place, or that it
    /// was evicted while it was being looked at.
    pub(crate) fn drop_bad(&self, family: Family, key: &Key, defect: &Defect) -> bool {
        if family != Family::Executables && self.place(key).is_some() {
            return self.drop_packed(key, defect);
        }
        let path = self.layout.file(family, &key.digest);
        let _stripe = self.stripe(key);
        let now = fs::symlink_metadata(&path).ok().map(|found| found.ino());
        let replaced = match defect {
            Defect::Gone => now.is_some(),
            Defect::Bad { inode, .. } => inode.is_some() && now.is_some() && now != *inode,
            Defect::Io(_) => true,
        };
        if replaced {
            return false;
        }
        let known = {
            let mut index = self.index();
            match family {
                Family::Executables => {
                    let known = index.get(key).is_some_and(|entry| entry.twin != Twin::Absent);
                    index.set_twin(key, Twin::Absent);
                    known
                }
                Family::Blobs | Family::Results | Family::Manifests | Family::Hints => index.remove(key),
            }
        };
        if !known {
            return false;
        }
        tracing::warn!(path = %path.display(), %defect, "dropped a bad file from the store");
        self.n_bad.fetch_add(1, Ordering::Relaxed);
        match family {
            Family::Executables => delete_file(&path),
            Family::Blobs | Family::Results | Family::Manifests | Family::Hints => self.delete_files(key),
        }
        true
    }

    /// Notes use of entries. True if all of them are there.
    pub(crate) fn touch(&self, keys: impl IntoIterator<Item = Key>) -> bool {
        self.touch_as(keys, Worth::Input)
    }

    /// The same of such as are worth as much.
    pub(crate) fn touch_as(&self, keys: impl IntoIterator<Item = Key>, worth: Worth) -> bool {
        let mut all = true;
        {
            let mut index = self.index();
            for key in keys {
                all &= index.touch_as(&key, worth);
            }
        }
        self.flush_journal(JOURNAL_BATCH);
        all
    }

    /// Writes the order of use to the journal if at least `batch` changes have gathered. If another thread is at it, it will do.
    pub(crate) fn flush_journal(&self, batch: u64) {
        if self.index().n_unflushed() < batch {
            return;
        }
        let Ok(mut journal) = self.journal.try_lock() else { return };
        // Taken even if it can't be written: the next batch is everything then.
        let written = {
            let mut index = self.index();
            if journal.wants_all(index.len()) {
                index.begin_all();
                drop(index);
                // A page at a time: what is used meanwhile comes with the next batch, too.
                journal.write_all(|tick| self.index().used_from(tick, PAGE))
            } else {
                let recent = index.take_recent();
                drop(index);
                journal.note(&recent)
            }
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the order of use is kept in memory only for now");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.flush_journal(1);
        mark_closed(&self.layout);
    }
}

/// Makes a file's name last: the folder that it is in, and that one's if it is new.
fn sync_parents(path: &Path, n_levels: usize) -> Result<(), PutError> {
    for folder in path.ancestors().skip(1).take(n_levels) {
        sync_folder(folder).map_err(|error| PutError::io(folder, error))?;
    }
    Ok(())
}

/// What can't be deleted is found again at the next start.
pub(crate) fn delete_file(path: &Path) {
    if let Err(error) = remove_any(path) {
        tracing::warn!(path = %path.display(), %error, "a file of the store can't be deleted");
    }
}

/// Whether this store can check content against such a digest.
pub(crate) fn supported(digest: &Digest) -> Result<(), PutError> {
    match digest.function {
        DigestFunction::Blake3 => Ok(()),
        DigestFunction::Sha256 => Err(PutError::Unsupported { digest: *digest }),
    }
}
