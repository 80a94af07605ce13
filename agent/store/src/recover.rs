//! Opening after anything: walks the folders, believes only what it sees there, and removes what can't be good. Reads no content.
//!
//! To look at each of millions of files takes longer than to read their names, so a store that knows that no power was lost since it was
//! last open goes by the names of blobs.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use buildbee_proto::digest::{Digest, DigestFunction};

use crate::entry::{Key, Kind, Twin};
use crate::error::OpenError;
use crate::index::Index;
use crate::inode;
use crate::layout::{Family, Layout, charge_bytes, ensure_folder, remove_any, shard_name};
use crate::packed::check;
use crate::packs::{self, Packed, Packs, Place};
use crate::recency::{ROW_BYTES, Recency};
use crate::slots::Room;

/// Files that a store has at least, by its journal, when their looks are not worth the time that it takes to see them all.
const N_MANY: u64 = 200_000;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What stands in the file that names the boot in which the store was last open, once it is closed.
const CLOSED: &str = "closed";

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

/// Fills the index from the folders and the journal.
pub(crate) fn recover(layout: &Layout, index: &mut Index, packs: &mut Packs) -> Result<(Recency, Recovery), OpenError> {
    let failed = |path: &Path, error| OpenError::io(&layout.dir, path, error);
    let mut recovery = Recovery::default();
    let tmp = layout.tmp();
    for entry in fs::read_dir(&tmp).map_err(|error| failed(&tmp, error))? {
        remove_found(&entry.map_err(|error| failed(&tmp, error))?);
        recovery.n_temporary += 1;
    }
    index.expect(usize::try_from(n_noted(layout)).unwrap_or(usize::MAX));
    let glance = if is_intact(layout) { Glance::AtNames } else { Glance::AtAll };
    for family in [Family::Blobs, Family::Results, Family::Manifests, Family::Hints] {
        let glance = if family == Family::Blobs { glance } else { Glance::AtAll };
        recovery.n_dropped += scan(layout, family, glance, &mut |key, charge_bytes| {
            index.found(key, charge_bytes, None);
        })?;
    }
    take_packed(layout, index, packs, &mut recovery).map_err(|error| failed(&layout.packs(), error))?;
    let mut at = 0;
    let (journal, damaged) = Recency::open(&layout.recency(), &mut |used| at = index.remember(used, at));
    recovery.order_rebuilt = damaged;
    index.arrange();
    recovery.n_dropped += append_unknown(layout, index, packs)?;
    let mut twins = Vec::new();
    recovery.n_dropped += scan(layout, Family::Executables, Glance::AtAll, &mut |key, _| twins.push(key))?;
    for twin in twins {
        if index.contains(&twin) {
            index.set_twin(&twin, Twin::Present { verified: false });
        } else {
            // The blob went first, or never came.
            remove_logged(&layout.file(Family::Executables, &twin.digest));
            recovery.n_dropped += 1;
        }
    }
    recovery.blobs = index.count(Kind::Blob);
    recovery.results = index.count(Kind::Result);
    recovery.manifests = index.count(Kind::Manifest);
    recovery.bytes = index.used_bytes();
    note_opened(layout, &boot());
    Ok((journal, recovery))
}

/// Adds what is in packs, in place of files of the same name: those are older, or have the same content.
fn take_packed(layout: &Layout, index: &mut Index, packs: &mut Packs, recovery: &mut Recovery) -> io::Result<()> {
    let mut earlier: HashMap<Key, Vec<Place>> = HashMap::new();
    let listed = packs.list()?;
    index.expect(usize::try_from(listed.n_heads).unwrap_or(usize::MAX));
    let scanned = packs.scan(listed, &mut |Packed { key, place }| match index.found(key, 0, Some(place)) {
        Some(Room::Pack(before)) => earlier.entry(key).or_default().push(before),
        Some(Room::File { .. }) => remove_logged(&layout.entry(&key)),
        Some(Room::Free) | None => {}
    })?;
    recovery.n_temporary += scanned.n_torn;
    recovery.n_dropped += scanned.n_damaged;
    let is_good =
        |key: &Key, place: Place| packs::read(layout, place).is_ok_and(|payload| check(key, &payload).is_ok());
    let mut dead = index.take_dead();
    for (key, places) in earlier {
        // Power was lost before the last one was whole, perhaps, and the one before it was still there for that.
        let Some(last) = index.get(&key).and_then(|entry| entry.place).filter(|last| !is_good(&key, *last)) else {
            continue;
        };
        if let Some(place) = places.into_iter().rev().find(|place| is_good(&key, *place)) {
            index.found(key, 0, Some(place));
            dead.retain(|dead| *dead != place);
            dead.push(last);
        }
    }
    index.take_dead();
    // Else they would come back once their successors are removed.
    packs.bury(&dead);
    packs.settle()
}

/// What of each file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Glance {
    /// Size, mode and time, too.
    AtAll,
    /// Of blobs, a torn one shows when it is first used.
    AtNames,
}

/// Whether all that was given a name in a store of many files can be expected to be whole: no power was lost since it was last open.
fn is_intact(layout: &Layout) -> bool {
    let opened = fs::read_to_string(layout.opened()).unwrap_or_default();
    let lasted = opened.trim_end() == CLOSED || (!opened.trim().is_empty() && opened.trim_end() == boot().trim_end());
    lasted && n_noted(layout) >= N_MANY
}

/// Rows of the journal: at least as many entries as there were, or nearly so.
fn n_noted(layout: &Layout) -> u64 {
    fs::metadata(layout.recency()).map_or(0, |found| found.len() / ROW_BYTES as u64)
}

fn boot() -> String {
    fs::read_to_string(BOOT_ID).unwrap_or_default()
}

/// Says that all was written, as far as the system has heard of it.
pub(crate) fn mark_closed(layout: &Layout) {
    note_opened(layout, CLOSED);
}

/// A wrong note costs a look at each file, or lets a torn one be found when it is used.
fn note_opened(layout: &Layout, text: &str) {
    let path = layout.opened();
    let written = remove_any(&path).and_then(|()| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())
    });
    if let Err(error) = written {
        tracing::debug!(path = %path.display(), %error, "the store's next start takes a closer look");
    }
}

/// Puts what the journal does not know behind the rest: it came or was used after its last page. How many files turned out to be bad.
fn append_unknown(layout: &Layout, index: &mut Index, packs: &Packs) -> Result<usize, OpenError> {
    let mut unknown = Vec::new();
    let mut n_dropped = 0;
    for (key, place) in index.not_remembered() {
        if let Some(place) = place {
            unknown.push((packs.changed(place), key));
            continue;
        }
        let family = Family::of(key.kind);
        let path = layout.entry(&key);
        match fs::symlink_metadata(&path).map(|found| (blemish(&found, family, &key), found)) {
            Ok((None, found)) => unknown.push(((found.ctime(), found.ctime_nsec()), key)),
            Ok((Some(reason), _)) => {
                drop_bad(&path, reason);
                index.remove(&key);
                n_dropped += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => drop(index.remove(&key)),
            Err(error) => return Err(OpenError::io(&layout.dir, &path, error)),
        }
    }
    unknown.sort_by_key(|(changed, _)| *changed);
    for (_, key) in &unknown {
        index.append(key);
    }
    Ok(n_dropped)
}

/// Tells `found` which files there are, and what room each takes. How many were dropped.
fn scan(layout: &Layout, family: Family, glance: Glance, found: &mut dyn FnMut(Key, u64)) -> Result<usize, OpenError> {
    let failed = |path: &Path, error| OpenError::io(&layout.dir, path, error);
    let top = layout.family(family);
    let mut n_dropped = 0;
    for shard in fs::read_dir(&top).map_err(|error| failed(&top, error))? {
        let shard = shard.map_err(|error| failed(&top, error))?;
        let (folder, name) = (shard.path(), shard.file_name());
        // Replaces what is no folder, a symlink too, and opens what is closed to us.
        n_dropped += usize::from(ensure_folder(&folder).map_err(|error| failed(&folder, error))?);
        for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
            let entry = entry.map_err(|error| failed(&folder, error))?;
            match look(&entry, family, &name, glance) {
                Ok(Ok((key, charge_bytes))) => found(key, charge_bytes),
                Ok(Err(reason)) => {
                    drop_bad(&entry.path(), reason);
                    n_dropped += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&entry.path(), error)),
            }
        }
    }
    Ok(n_dropped)
}

/// Whether a file can be what its name says, as far as shows from outside.
fn look(
    entry: &DirEntry,
    family: Family,
    shard: &OsStr,
    glance: Glance,
) -> io::Result<Result<(Key, u64), &'static str>> {
    let name = entry.file_name();
    let text = name.to_str().filter(|text| is_written_so(text));
    let Some(digest) = text.and_then(|text| text.parse::<Digest>().ok()).filter(|digest| *shard == *shard_name(digest))
    else {
        return Ok(Err("not a name of this store's"));
    };
    let key = Key { kind: family.kind(), digest };
    if key.kind == Kind::Blob && digest.function != DigestFunction::Blake3 {
        return Ok(Err("its content can't be checked"));
    }
    if glance == Glance::AtNames {
        let is_file = entry.file_type()?.is_file();
        return Ok(is_file.then(|| (key, charge_bytes(digest.size_bytes))).ok_or("not a regular file"));
    }
    // Of the entry itself: symlinks are not followed.
    let metadata = entry.metadata()?;
    Ok(match blemish(&metadata, family, &key) {
        None => Ok((key, charge_bytes(metadata.len()))),
        Some(reason) => Err(reason),
    })
}

/// Whether a name that is a digest's is the one that this store would give it: to write it again for comparison takes as long as to read it.
fn is_written_so(text: &str) -> bool {
    let size = text.rsplit('-').next().unwrap_or_default();
    !text.bytes().any(|byte| byte.is_ascii_uppercase()) && (size == "0" || !size.starts_with('0'))
}

fn blemish(metadata: &Metadata, family: Family, key: &Key) -> Option<&'static str> {
    let size_bytes = (key.kind == Kind::Blob).then_some(key.digest.size_bytes);
    inode::blemish(metadata, family.mode(), size_bytes)
}

fn drop_bad(path: &Path, reason: &str) {
    tracing::warn!(path = %path.display(), reason, "dropped a bad file from the store");
    remove_logged(path);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_name() {
        for size_bytes in [0, 1, 10, u64::MAX] {
            for function in [DigestFunction::Blake3, DigestFunction::Sha256] {
                let digest = Digest { function, hash: [0xab; 32], size_bytes };
                let text = digest.to_string();
                let (hash, size) = text.split_once('-').unwrap();
                let others = [text.to_uppercase(), format!("{hash}-0{size}"), hash.to_uppercase() + "-" + size];
                for name in others.iter().chain([&text]).filter(|name| name.parse::<Digest>() == Ok(digest)) {
                    assert_eq!(is_written_so(name), *name == text, "{name}");
                }
            }
        }
    }
}
