//! What survives a loss of power: synchronising files and folders, and results that somebody was told of as kept.
//!
//! A store of [`Durability::Asked`] writes lazily, and makes results last when it is asked to, many at a time: a pack is synchronised once for
//! all of them, and without holding up those who write to it. What was promised so stays promised: an entry in a pack whose content got a
//! file of its own, or of which there is a newer one, is given up only when that lasts, too.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use buildbee_proto::digest::Digest;
use nix::errno::Errno;

use crate::entry::{Key, Kind, Promise};
use crate::error::{PutError, is_one_of};
use crate::packs::Place;
use crate::store::{Durability, Inner, Store};

/// How often it is looked where an entry is that is being moved.
const MAX_LOOKS: usize = 4;
/// Entries that are kept twice until the newer one lasts; then that is seen to.
const MAX_SUPERSEDED: usize = 1024;

/// Makes the content of a file, and what is needed to read it, last.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    #[cfg(any(test, debug_assertions))]
    if crate::fault::synced_file(file)? {
        return Ok(());
    }
    file.sync_data()
}

/// The same with its mode and time.
pub(crate) fn sync_all(file: &File) -> io::Result<()> {
    #[cfg(any(test, debug_assertions))]
    if crate::fault::synced_file(file)? {
        return Ok(());
    }
    file.sync_all()
}

/// Makes the names in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(any(test, debug_assertions))]
    if crate::fault::synced_folder(folder)? {
        return Ok(());
    }
    File::open(folder)?.sync_all()
}

impl Store {
    /// Makes results last, each given as its action and its blobs: whether all of it is here, and survives a loss of power from now on.
    /// Takes as long as the disk takes, once for all of them. Nothing is known of any after an error.
    pub fn make_last(&self, results: &[(Digest, Vec<Digest>)]) -> Result<Vec<bool>, PutError> {
        let keys = |(action, blobs): &(Digest, Vec<Digest>)| {
            let result = Key { kind: Kind::Result, digest: *action };
            // Blobs without content are nowhere.
            let blobs = blobs.iter().filter(|blob| blob.size_bytes > 0);
            blobs.copied().map(Key::blob).chain([result]).collect::<Vec<Key>>()
        };
        let wanted: HashSet<Key> = results.iter().flat_map(keys).collect();
        self.inner.make_last(wanted)?;
        let index = self.inner.index();
        let lasts = |key: &Key| index.get(key).is_some_and(|entry| entry.promise == Promise::Given);
        Ok(results.iter().map(|result| keys(result).iter().all(lasts)).collect())
    }
}

impl Inner {
    // Whole values are put in and taken out.
    pub(crate) fn superseded(&self) -> MutexGuard<'_, Vec<(Key, Place)>> {
        self.superseded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the places that are dead; those that stay until what replaced them lasts are noted.
    pub(crate) fn take_dead(&self) -> Vec<Place> {
        let (mut dead, superseded) = {
            let mut index = self.index();
            (index.take_dead(), index.take_superseded())
        };
        if self.durability() != Durability::Asked {
            dead.extend(superseded.into_iter().map(|(_, place)| place));
        } else if !superseded.is_empty() {
            self.superseded().extend(superseded);
        }
        dead
    }

    /// Sees to it that not too much is kept twice. Takes the packs' lock.
    pub(crate) fn settle_superseded(&self) {
        let n_superseded = self.superseded().len();
        if n_superseded > MAX_SUPERSEDED
            && let Err(error) = self.make_last(HashSet::new())
        {
            tracing::warn!(%error, n_superseded, "what was replaced can't be given up");
        }
    }

    /// Makes `wanted` last, as far as it is here, and gives up what was superseded.
    pub(crate) fn make_last(&self, wanted: HashSet<Key>) -> Result<(), PutError> {
        let superseded = std::mem::take(&mut *self.superseded());
        let wanted: HashSet<Key> = wanted.into_iter().chain(superseded.iter().map(|(key, _)| *key)).collect();
        if let Err(error) = self.make_all_last(&wanted) {
            self.superseded().extend(superseded);
            return Err(error);
        }
        #[cfg(any(test, debug_assertions))]
        crate::fault::point("lasting");
        let places: Vec<Place> = superseded.into_iter().map(|(_, place)| place).collect();
        if !places.is_empty() {
            self.lock_packs().bury(&places);
        }
        Ok(())
    }

    fn make_all_last(&self, wanted: &HashSet<Key>) -> Result<(), PutError> {
        for _ in 0..MAX_LOOKS {
            let (mut packed, mut files) = (Vec::new(), Vec::new());
            {
                let index = self.index();
                for key in wanted {
                    match index.get(key) {
                        Some(entry) if entry.promise == Promise::Given => {}
                        Some(entry) => match entry.place {
                            Some(place) => packed.push((*key, place)),
                            None => files.push(*key),
                        },
                        None => {}
                    }
                }
            }
            if packed.is_empty() && files.is_empty() {
                break;
            }
            let places: Vec<Place> = packed.iter().map(|(_, place)| *place).collect();
            self.sync_packs(&places)?;
            let synced = self.sync_files(&files)?;
            let mut index = self.index();
            for (key, place) in packed {
                // Else it was moved meanwhile.
                if index.get(&key).is_some_and(|entry| entry.place == Some(place)) {
                    index.set_promised(&key);
                }
            }
            drop(index);
            for (key, inode) in synced {
                self.promise_file(&key, inode);
            }
        }
        Ok(())
    }

    /// Synchronises the packs in which these places are, while others write to them.
    fn sync_packs(&self, places: &[Place]) -> Result<(), PutError> {
        let failed = |error| PutError::io(&self.layout.packs(), error);
        let to_sync = self.lock_packs().to_sync(places).map_err(failed)?;
        for (n_done, one) in to_sync.iter().enumerate() {
            if let Err(error) = one.sync() {
                self.lock_packs().failed(&to_sync[n_done..]);
                return Err(failed(error));
            }
        }
        self.lock_packs().synced(&to_sync);
        Ok(())
    }

    /// Synchronises files, and the folders that name them. Which inode each was.
    fn sync_files(&self, keys: &[Key]) -> Result<Vec<(Key, u64)>, PutError> {
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        let mut synced = Vec::with_capacity(keys.len());
        for key in keys {
            let path = self.layout.entry(key);
            match sync_path(&path) {
                Ok(inode) => {
                    // The folder itself may be new, too.
                    folders.extend(path.ancestors().skip(1).take(2).map(Path::to_owned));
                    synced.push((*key, inode));
                }
                // Evicted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    // The system would say the next time that all is well.
                    if is_one_of(&error, &[Errno::EIO]) {
                        self.remove(key);
                    }
                    return Err(PutError::io(&path, error));
                }
            }
        }
        for folder in folders {
            sync_folder(&folder).map_err(|error| PutError::io(&folder, error))?;
        }
        Ok(synced)
    }

    fn promise_file(&self, key: &Key, inode: u64) {
        let _stripe = self.stripe(key);
        let is_it = fs::symlink_metadata(self.layout.entry(key)).is_ok_and(|found| found.ino() == inode);
        let mut index = self.index();
        if is_it && index.get(key).is_some_and(|entry| entry.place.is_none()) {
            index.set_promised(key);
        }
    }

    /// Makes a file last that is about to take the place of one that was promised to. True if it does that.
    pub(crate) fn sync_before_replacing(&self, key: &Key, new: &Path) -> io::Result<bool> {
        let is_promised = |entry: crate::entry::Entry| entry.promise != Promise::None && entry.place.is_none();
        if self.durability() != Durability::Asked || !self.index().get(key).is_some_and(is_promised) {
            return Ok(false);
        }
        sync_path(new).map(|_| true)
    }

    /// The same for an entry of a pack.
    pub(crate) fn sync_place(&self, place: Place) -> Result<(), PutError> {
        if self.durability() == Durability::Asked { self.sync_packs(&[place]) } else { Ok(()) }
    }
}

fn sync_path(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    sync_all(&file)?;
    Ok(file.metadata()?.ino())
}
