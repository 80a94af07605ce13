//! Opening after anything: walks the folders, believes only what it sees there, and removes what can't be good. Reads no content.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use buildbee_proto::digest::{Digest, DigestFunction};

use crate::error::OpenError;
use crate::index::{Index, Key, Kind, Twin};
use crate::inode;
use crate::layout::{Family, Layout, charge_bytes, ensure_folder, remove_any, shard_name};
use crate::packs::{Packed, Packs, Place};
use crate::recency::Recency;

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Blobs that are there. Their content is checked when first used.
    pub blobs: usize,
    /// Action results that are there.
    pub results: usize,
    /// Manifests that are there.
    pub manifests: usize,
    /// Room they take.
    pub bytes: u64,
    /// Files that were torn, changed, or not ours, and are gone.
    pub n_dropped: usize,
    /// Unfinished files and entries of packs of an earlier process that are gone.
    pub n_temporary: usize,
    /// The order of use was lost, at least in part, and guessed from file times.
    pub order_rebuilt: bool,
}

/// A file that may be good.
struct Found {
    key: Key,
    /// Room that it takes.
    charge_bytes: u64,
    /// In which pack, if in any.
    place: Option<Place>,
    /// When it was last written or linked: the second-best clue to its last use. Seconds and nanoseconds.
    changed: (i64, i64),
}

/// Fills the index from the folders and the journal.
pub(crate) fn recover(layout: &Layout, index: &mut Index, packs: &mut Packs) -> Result<(Recency, Recovery), OpenError> {
    let failed = |path: &Path, error| OpenError::io(&layout.dir, path, error);
    let mut recovery = Recovery::default();
    let tmp = layout.tmp();
    for entry in fs::read_dir(&tmp).map_err(|error| failed(&tmp, error))? {
        remove_found(&entry.map_err(|error| failed(&tmp, error))?);
        recovery.n_temporary += 1;
    }
    let mut found = Vec::new();
    for family in [Family::Blobs, Family::Results, Family::Manifests, Family::Hints] {
        scan(layout, family, &mut found, &mut recovery.n_dropped)?;
    }
    let in_packs = |error| failed(&layout.packs(), error);
    take_packed(layout, packs, &mut found, &mut recovery).map_err(in_packs)?;
    let (journal, remembered) = Recency::open(&layout.recency());
    recovery.order_rebuilt = remembered.damaged;
    enter(index, found, remembered.ticks);
    packs.settle().map_err(in_packs)?;
    let mut twins = Vec::new();
    scan(layout, Family::Executables, &mut twins, &mut recovery.n_dropped)?;
    for twin in twins {
        if index.contains(&twin.key) {
            index.set_twin(&twin.key, Twin::Present { verified: false });
        } else {
            // The blob went first, or never came.
            remove_logged(&layout.file(Family::Executables, &twin.key.digest));
            recovery.n_dropped += 1;
        }
    }
    recovery.blobs = index.count(Kind::Blob);
    recovery.results = index.count(Kind::Result);
    recovery.manifests = index.count(Kind::Manifest);
    recovery.bytes = index.used_bytes();
    Ok((journal, recovery))
}

/// Enters what was found: first what the journal knows, then the rest, which came or was used after its last page.
fn enter(index: &mut Index, found: Vec<Found>, mut ticks: HashMap<Key, u64>) {
    let mut seen = HashSet::new();
    let mut unknown = Vec::new();
    for file in found {
        match ticks.remove(&file.key) {
            // A position given twice is not one.
            Some(tick) if seen.insert(tick) => index.restore(file.key, file.charge_bytes, file.place, tick),
            _ => unknown.push(file),
        }
    }
    index.resume();
    index.note_gone(ticks.into_keys());
    unknown.sort_by_key(|file| file.changed);
    for file in unknown {
        match file.place {
            Some(place) => drop(index.insert_packed(file.key, place)),
            None => index.insert(file.key, file.charge_bytes, false),
        }
    }
}

/// Adds what is in packs to `found`, in place of files of the same name: those are older, or have the same content.
fn take_packed(layout: &Layout, packs: &mut Packs, found: &mut Vec<Found>, recovery: &mut Recovery) -> io::Result<()> {
    let scanned = packs.scan()?;
    recovery.n_temporary += scanned.n_torn;
    recovery.n_dropped += scanned.n_damaged;
    let mut by_key: HashMap<Key, usize> = HashMap::new();
    let mut replaced = Vec::new();
    for (at, (entry, _)) in scanned.entries.iter().enumerate() {
        packs.lives(entry.place);
        let before = by_key.insert(entry.key, at).and_then(|before| scanned.entries.get(before));
        replaced.extend(before.map(|(entry, _)| entry.place));
    }
    // Else they would come back once their successors are removed.
    packs.bury(&replaced);
    found.retain(|file| {
        let replaced = by_key.contains_key(&file.key);
        if replaced {
            remove_logged(&layout.entry(&file.key));
        }
        !replaced
    });
    let last = scanned.entries.into_iter().enumerate().filter(|(at, (entry, _))| by_key.get(&entry.key) == Some(at));
    found.extend(last.map(|(_, (Packed { key, place }, changed))| Found {
        key,
        charge_bytes: place.charge_bytes(),
        place: Some(place),
        changed,
    }));
    Ok(())
}

fn scan(layout: &Layout, family: Family, found: &mut Vec<Found>, n_dropped: &mut usize) -> Result<(), OpenError> {
    let failed = |path: &Path, error| OpenError::io(&layout.dir, path, error);
    let top = layout.family(family);
    for shard in fs::read_dir(&top).map_err(|error| failed(&top, error))? {
        let shard = shard.map_err(|error| failed(&top, error))?;
        let (folder, name) = (shard.path(), shard.file_name());
        // Replaces what is no folder, a symlink too, and opens what is closed to us.
        *n_dropped += usize::from(ensure_folder(&folder).map_err(|error| failed(&folder, error))?);
        for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
            let entry = entry.map_err(|error| failed(&folder, error))?;
            match look(&entry, family, &name) {
                Ok(Ok(file)) => found.push(file),
                Ok(Err(reason)) => {
                    tracing::warn!(path = %entry.path().display(), reason, "dropped a bad file from the store");
                    remove_found(&entry);
                    *n_dropped += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&entry.path(), error)),
            }
        }
    }
    Ok(())
}

/// Whether a file can be what its name says, as far as shows from outside.
fn look(entry: &DirEntry, family: Family, shard: &OsStr) -> io::Result<Result<Found, &'static str>> {
    let name = entry.file_name();
    let digest =
        name.to_str().and_then(|text| text.parse::<Digest>().ok().filter(|digest| digest.to_string() == *text));
    let Some(digest) = digest.filter(|digest| *shard == *shard_name(digest)) else {
        return Ok(Err("not a name of this store's"));
    };
    let key = Key { kind: family.kind(), digest };
    if key.kind == Kind::Blob && digest.function != DigestFunction::Blake3 {
        return Ok(Err("its content can't be checked"));
    }
    // Of the entry itself: symlinks are not followed.
    let metadata = entry.metadata()?;
    let size_bytes = (key.kind == Kind::Blob).then_some(digest.size_bytes);
    if let Some(reason) = inode::blemish(&metadata, family.mode(), size_bytes) {
        return Ok(Err(reason));
    }
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Ok(Ok(Found { key, charge_bytes: charge_bytes(metadata.len()), place: None, changed }))
}

fn remove_found(entry: &DirEntry) {
    remove_logged(&entry.path());
}

/// What can't be removed is not served either: it is not in the index.
fn remove_logged(path: &Path) {
    if let Err(error) = remove_any(path) {
        tracing::warn!(path = %path.display(), %error, "a bad file can't be removed");
    }
}
