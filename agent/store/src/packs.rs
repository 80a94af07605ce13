//! Small entries, many to a file: appended to packs, since to make a file costs far more than what is in it.
//!
//! A pack is two files: `packs/<number>.bytes` holds payloads one after the other, `packs/<number>.heads` a head of [`HEAD_BYTES`] for each,
//! in the same order, so that opening a store reads heads alone. A head comes after its payload. It is written once, with a checksum over
//! itself, its pack and its place; only its first byte changes, when the entry is removed. Payloads are not checked here but by whoever
//! reads them, each time. Of two entries of one name the later one counts: the higher pack, then the later head.
//!
//! After a crash the last head of a pack may be torn: it is cut off. A head that is damaged costs its own entry. A pack of which a quarter
//! is dead is swept: what lives in it is appended elsewhere, and the files go. Where somebody was promised that an entry lasts, what it was
//! appended to is synchronised before that.
//!
//! Lock order: a stripe, then the packs, then the index.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use buildbee_proto::digest::{Digest, DigestFunction};
use nix::errno::Errno;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::entry::{Key, Kind};
use crate::error::is_one_of;
use crate::lasting::{sync_data, sync_folder};
use crate::layout::{Layout, remove_any};
use crate::store::Durability;

/// Length of a head.
const HEAD_BYTES: usize = 64;
/// Of it, what the checksum covers begins behind the state and ends here.
const NAMED_BYTES: usize = 52;
const HEADS: &str = ".heads";
const BYTES: &str = ".bytes";
const LIVE: u8 = b'+';
const DEAD: u8 = b'-';
/// A pack has at most this size, and this share of the store's.
const MAX_PACK_BYTES: u64 = 16 << 20;
const PACKS_PER_STORE: u64 = 16;
/// Larger entries are files of their own; so is what takes a quarter of a pack.
const MAX_PACKED_BYTES: u64 = 256 << 10;
/// A pack is swept once one of so many of its bytes is dead.
const SWEEP_SHARE: u64 = 4;

/// Where an entry's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pack: u32,
    /// Which of the pack's heads is its own.
    head: u32,
    /// Offset of the payload.
    at: u32,
    length: u32,
}

impl Place {
    fn end(self) -> u64 {
        u64::from(self.at) + u64::from(self.length)
    }

    fn entry_bytes(self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.length)
    }

    /// Room that it counts for: what may be dead beside it is counted with it, so that packs stay within the store's size but for the one
    /// that is being written.
    pub(crate) fn charge_bytes(self) -> u64 {
        charge_bytes(u64::from(self.length))
    }
}

/// The same for a payload that has no place yet.
pub(crate) fn charge_bytes(length: u64) -> u64 {
    let bytes = length.saturating_add(HEAD_BYTES as u64);
    bytes.saturating_add(bytes / (SWEEP_SHARE - 1) + 1)
}

#[derive(Clone, Copy, Debug, Default)]
struct Pack {
    /// Heads.
    n_heads: u32,
    /// Payloads.
    n_bytes: u64,
    /// Both, of what lives.
    live_bytes: u64,
    /// Heads that were synchronised, with what they stand for.
    n_lasting: u32,
    /// Synchronising it has failed: whether what is in it lasts will never be known.
    is_broken: bool,
    /// When it was last written to, as far as the start has shown.
    changed: (i64, i64),
}

impl Pack {
    fn total_bytes(self) -> u64 {
        u64::from(self.n_heads) * HEAD_BYTES as u64 + self.n_bytes
    }

    fn wants_sweep(self) -> bool {
        self.total_bytes().saturating_sub(self.live_bytes) * SWEEP_SHARE > self.total_bytes()
    }
}

/// An entry found in a pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    pub(crate) key: Key,
    pub(crate) place: Place,
}

/// The packs of a folder.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// By number, how many of the two files there are.
    by_number: BTreeMap<u32, u8>,
    /// Heads that they have by their lengths.
    pub(crate) n_heads: u64,
    /// What was no pack, and is gone.
    n_damaged: usize,
}

/// What was wrong with packs at the start.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Heads that were torn, and are cut off.
    pub(crate) n_torn: usize,
    /// Entries with a damaged head, and files that were no packs; these are gone.
    pub(crate) n_damaged: usize,
}

/// The files of one pack.
#[derive(Debug)]
struct Files {
    heads: File,
    bytes: File,
}

/// A pack that is to be synchronised up to some head.
#[derive(Debug)]
pub(crate) struct ToSync {
    number: u32,
    n_heads: u32,
    files: Files,
    /// Whose name may not last yet.
    is_new: bool,
    dir: PathBuf,
}

impl ToSync {
    /// Payloads first: a head never lasts without what it stands for.
    pub(crate) fn sync(&self) -> io::Result<()> {
        sync_data(&self.files.bytes)?;
        sync_data(&self.files.heads)?;
        if self.is_new { sync_folder(&self.dir) } else { Ok(()) }
    }
}

/// All packs of a store.
#[derive(Debug)]
pub(crate) struct Packs {
    dir: PathBuf,
    by_number: BTreeMap<u32, Pack>,
    /// The pack that is written to.
    current: Option<(u32, Files)>,
    next: u32,
    pack_bytes: u64,
    durability: Durability,
}

impl Packs {
    pub(crate) fn new(layout: &Layout, max_bytes: u64, durability: Durability) -> Self {
        let pack_bytes = (max_bytes / PACKS_PER_STORE).min(MAX_PACK_BYTES);
        Self { dir: layout.packs(), by_number: BTreeMap::new(), current: None, next: 0, pack_bytes, durability }
    }

    /// The longest payload that shares a file with others.
    pub(crate) fn max_payload_bytes(&self) -> u64 {
        MAX_PACKED_BYTES.min((self.pack_bytes / 4).saturating_sub(HEAD_BYTES as u64))
    }

    fn open(&self, number: u32) -> io::Result<Files> {
        Ok(Files {
            heads: open(&heads_path(&self.dir, number), true)?,
            bytes: open(&bytes_path(&self.dir, number), true)?,
        })
    }

    /// Which packs there are. What is none is removed.
    pub(crate) fn list(&self) -> io::Result<Listed> {
        let mut listed = Listed::default();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let (name, metadata) = (entry.file_name(), entry.metadata());
            let number = name.to_str().and_then(number_of);
            if let Some((number, metadata)) = number.zip(metadata.ok().filter(fs::Metadata::is_file)) {
                *listed.by_number.entry(number).or_insert(0) += 1;
                let is_heads = name.as_bytes().ends_with(HEADS.as_bytes());
                listed.n_heads += if is_heads { metadata.len() / HEAD_BYTES as u64 } else { 0 };
            } else {
                remove_any(&entry.path())?;
                listed.n_damaged += 1;
            }
        }
        Ok(listed)
    }

    /// Reads what the packs say that they hold, and hands it to `found`: lowest pack first, in the order in which it was put. All of it
    /// counts as living.
    pub(crate) fn scan(&mut self, listed: Listed, found: &mut dyn FnMut(Packed)) -> io::Result<Scanned> {
        let mut scanned = Scanned { n_damaged: listed.n_damaged, n_torn: 0 };
        for (number, n_files) in listed.by_number {
            self.next = number + 1;
            let read =
                if n_files == 2 { self.scan_one(number, &mut scanned, found) } else { Err(Errno::ENOENT.into()) };
            match read {
                Ok(()) => {}
                // Half of a pack that was being made or removed.
                Err(error) if is_one_of(&error, &[Errno::ENOENT]) => {
                    scanned.n_torn += 1;
                    self.remove(number)?;
                }
                Err(error) if is_one_of(&error, &[Errno::EACCES, Errno::EPERM, Errno::ELOOP, Errno::EIO]) => {
                    tracing::warn!(pack = number, %error, "dropped a pack that can't be read");
                    scanned.n_damaged += 1;
                    self.remove(number)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(scanned)
    }

    fn scan_one(&mut self, number: u32, scanned: &mut Scanned, found: &mut dyn FnMut(Packed)) -> io::Result<()> {
        let files = self.open(number)?;
        let (heads, metadata) = (read_heads(&files.heads)?, files.bytes.metadata()?);
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        let mut n_heads = 0;
        let mut n_bytes = 0;
        let mut live_bytes = 0;
        for head in heads.chunks(HEAD_BYTES) {
            let Ok(head) = <&[u8; HEAD_BYTES]>::try_from(head) else {
                scanned.n_torn += 1;
                files.heads.set_len(u64::from(n_heads) * HEAD_BYTES as u64)?;
                break;
            };
            match parse(head, number, n_heads) {
                Some(entry) if entry.place.end() <= metadata.len() => {
                    n_bytes = n_bytes.max(entry.place.end());
                    if head[0] == LIVE {
                        live_bytes += entry.place.entry_bytes();
                        found(entry);
                    }
                }
                _ => scanned.n_damaged += 1,
            }
            n_heads += 1;
        }
        // A payload whose head was not written any more is written over.
        self.by_number.insert(number, Pack { n_heads, n_bytes, live_bytes, changed, ..Pack::default() });
        Ok(())
    }

    /// When what is at `place` was last written to, or something beside it.
    pub(crate) fn changed(&self, place: Place) -> (i64, i64) {
        self.by_number.get(&place.pack).map_or((0, 0), |pack| pack.changed)
    }

    /// After what does not live any more was buried: removes packs in which nothing does, and goes on with the last one.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        let empty: Vec<u32> = self.by_number.iter().filter(|(_, pack)| pack.live_bytes == 0).map(|(n, _)| *n).collect();
        empty.into_iter().try_for_each(|number| self.remove(number))?;
        if let Some((&number, pack)) = self.by_number.last_key_value()
            && pack.total_bytes() < self.pack_bytes / 2
        {
            self.current = Some((number, self.open(number)?));
        }
        Ok(())
    }

    /// Appends an entry. Nothing of it counts after an error.
    pub(crate) fn append(&mut self, key: &Key, payload: &[&[u8]]) -> io::Result<Place> {
        let length = u32::try_from(payload.iter().map(|part| part.len()).sum::<usize>())
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let number = self.current_for(HEAD_BYTES as u64 + u64::from(length))?;
        let pack = self.by_number.get(&number).copied().unwrap_or_default();
        // Bounded by `MAX_PACK_BYTES`.
        let at = u32::try_from(pack.n_bytes).unwrap_or(u32::MAX);
        let place = Place { pack: number, head: pack.n_heads, at, length };
        let Some((_, files)) = &self.current else { return Err(io::ErrorKind::NotFound.into()) };
        // After an error the next entry is written over what stands there of this one.
        files.write(&head(key, place), payload, place)?;
        if self.durability == Durability::Sync {
            sync_data(&files.bytes)?;
            sync_data(&files.heads)?;
        }
        let pack = self.by_number.entry(number).or_default();
        pack.n_heads += 1;
        pack.n_bytes += u64::from(length);
        pack.live_bytes += place.entry_bytes();
        Ok(place)
    }

    /// The pack that has room for so much; made, if there is none.
    fn current_for(&mut self, entry_bytes: u64) -> io::Result<u32> {
        if let Some((number, files)) = &self.current
            && self.by_number.get(number).is_some_and(|pack| pack.total_bytes() + entry_bytes <= self.pack_bytes)
            // Somebody may have emptied the folder.
            && files.heads.metadata()?.nlink() > 0
        {
            return Ok(*number);
        }
        self.current = None;
        let number = self.next;
        let make = |path: &Path| OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        let bytes = bytes_path(&self.dir, number);
        let bytes = make(&bytes).or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            fs::create_dir(&self.dir)?;
            make(&bytes)
        })?;
        // A number that was tried is not tried again.
        self.next += 1;
        let heads = make(&heads_path(&self.dir, number))?;
        if self.durability == Durability::Sync {
            sync_folder(&self.dir)?;
        }
        self.by_number.insert(number, Pack::default());
        self.current = Some((number, Files { heads, bytes }));
        Ok(number)
    }

    /// Marks entries as removed, and removes packs in which nothing lives any more.
    pub(crate) fn bury(&mut self, dead: &[Place]) {
        for place in dead {
            if let Some(pack) = self.by_number.get_mut(&place.pack) {
                pack.live_bytes = pack.live_bytes.saturating_sub(place.entry_bytes());
            }
        }
        for place in dead {
            let Some(pack) = self.by_number.get(&place.pack) else { continue };
            let done = if pack.live_bytes == 0 { self.remove(place.pack) } else { self.mark(*place) };
            if let Err(error) = done {
                // It may come back at the next start, and is what it was.
                tracing::warn!(pack = place.pack, %error, "an entry can't be removed from its pack");
            }
        }
    }

    fn mark(&self, place: Place) -> io::Result<()> {
        #[cfg(any(test, debug_assertions))]
        crate::fault::point("before-mark");
        let at = u64::from(place.head) * HEAD_BYTES as u64;
        match &self.current {
            Some((number, files)) if *number == place.pack => files.heads.write_all_at(&[DEAD], at),
            _ => open(&heads_path(&self.dir, place.pack), true)?.write_all_at(&[DEAD], at),
        }
    }

    /// The heads go first: without them the rest is a leftover that the next start removes.
    fn remove(&mut self, number: u32) -> io::Result<()> {
        if self.current.as_ref().is_some_and(|(current, _)| *current == number) {
            self.current = None;
        }
        self.by_number.remove(&number);
        remove_any(&heads_path(&self.dir, number))?;
        #[cfg(any(test, debug_assertions))]
        crate::fault::point("half-removed");
        remove_any(&bytes_path(&self.dir, number))
    }

    /// A pack that is worth sweeping.
    pub(crate) fn to_sweep(&self) -> Option<u32> {
        let current = self.current.as_ref().map(|(number, _)| *number);
        self.by_number.iter().find(|(number, pack)| Some(**number) != current && pack.wants_sweep()).map(|(n, _)| *n)
    }

    /// Moves what `lives` to the end of the current pack, tells `moved`, and removes the pack. After an error the rest stays.
    pub(crate) fn sweep(
        &mut self,
        number: u32,
        lives: impl Fn(&Packed) -> bool,
        mut moved: impl FnMut(&Packed, Place),
    ) -> io::Result<()> {
        let (mut left, mut taken) = (Vec::new(), Vec::new());
        let mut all = || -> io::Result<()> {
            let files = self.open(number)?;
            let heads = read_heads(&files.heads)?;
            for (head, at) in heads.as_chunks().0.iter().zip(0..) {
                let Some(entry) = parse(head, number, at).filter(&lives) else { continue };
                let payload = match read_at(&files.bytes, entry.place) {
                    // It is missing when it is next looked for.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                    payload => payload?,
                };
                let place = self.append(&entry.key, &[&payload])?;
                moved(&entry, place);
                left.push(entry.place);
                taken.push(place);
            }
            // Some of it may have been promised to last.
            if self.durability == Durability::Asked {
                let to_sync = self.to_sync(&taken)?;
                to_sync.iter().try_for_each(ToSync::sync)?;
                self.synced(&to_sync);
            }
            #[cfg(any(test, debug_assertions))]
            crate::fault::point("swept-in");
            Ok(())
        };
        match all() {
            // Its folder was emptied: what was in it is missing when it is next looked for.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                // So that they don't come back when what they were moved to is removed.
                self.bury(&left);
                return Err(error);
            }
            Ok(()) => {}
        }
        #[cfg(any(test, debug_assertions))]
        crate::fault::point("swept");
        self.remove(number)
    }
}

/// What lasts.
impl Packs {
    /// The packs that have to be synchronised before what is at `places` lasts. None for a place that is not any more.
    pub(crate) fn to_sync(&self, places: &[Place]) -> io::Result<Vec<ToSync>> {
        let mut numbers: Vec<u32> =
            places.iter().filter(|place| !self.lasts(**place)).map(|place| place.pack).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let known = numbers.into_iter().filter_map(|number| Some((number, *self.by_number.get(&number)?)));
        known
            .map(|(number, pack)| {
                if pack.is_broken {
                    return Err(Errno::EIO.into());
                }
                let files = match &self.current {
                    Some((current, files)) if *current == number => files.try_clone()?,
                    _ => self.open(number)?,
                };
                Ok(ToSync { number, n_heads: pack.n_heads, files, is_new: pack.n_lasting == 0, dir: self.dir.clone() })
            })
            .collect()
    }

    /// They were.
    pub(crate) fn synced(&mut self, done: &[ToSync]) {
        for ToSync { number, n_heads, .. } in done {
            if let Some(pack) = self.by_number.get_mut(number) {
                pack.n_lasting = pack.n_lasting.max(*n_heads);
            }
        }
    }

    /// They could not be: the system forgets what it failed to write, and would say that all is well the next time.
    pub(crate) fn failed(&mut self, left: &[ToSync]) {
        for ToSync { number, .. } in left {
            if let Some(pack) = self.by_number.get_mut(number) {
                pack.is_broken = true;
            }
            if self.current.as_ref().is_some_and(|(current, _)| current == number) {
                self.current = None;
            }
        }
    }

    /// Whether it does.
    pub(crate) fn lasts(&self, place: Place) -> bool {
        self.by_number.get(&place.pack).is_some_and(|pack| place.head < pack.n_lasting)
    }
}

impl Files {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { heads: self.heads.try_clone()?, bytes: self.bytes.try_clone()? })
    }

    /// Writes one entry. In tests it may end half-way.
    fn write(&self, head: &[u8; HEAD_BYTES], payload: &[&[u8]], place: Place) -> io::Result<()> {
        let mut at = u64::from(place.at);
        for part in payload {
            self.bytes.write_all_at(part, at)?;
            at += part.len() as u64;
            #[cfg(any(test, debug_assertions))]
            crate::fault::point("payload-written");
        }
        let at = u64::from(place.head) * HEAD_BYTES as u64;
        #[cfg(any(test, debug_assertions))]
        {
            self.heads.write_all_at(&head[..HEAD_BYTES / 2], at)?;
            crate::fault::point("half-packed");
        }
        self.heads.write_all_at(head, at)
    }
}

/// The payload at `place`, unchecked.
pub(crate) fn read(layout: &Layout, place: Place) -> io::Result<Vec<u8>> {
    read_at(&open(&bytes_path(&layout.packs(), place.pack), false)?, place)
}

fn read_at(file: &File, place: Place) -> io::Result<Vec<u8>> {
    let mut payload = vec![0; place.length as usize];
    file.read_exact_at(&mut payload, place.at.into())?;
    Ok(payload)
}

/// All heads of a pack. There can't be more than fill it.
fn read_heads(mut file: &File) -> io::Result<Vec<u8>> {
    let mut heads = Vec::new();
    file.by_ref().take(MAX_PACK_BYTES).read_to_end(&mut heads)?;
    Ok(heads)
}

fn heads_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number}{HEADS}"))
}

fn bytes_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number}{BYTES}"))
}

/// The number of the pack that a file of this name belongs to.
fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(HEADS).or_else(|| name.strip_suffix(BYTES))?;
    digits.parse::<u32>().ok().filter(|number| number.to_string() == digits && *number < u32::MAX)
}

fn open(path: &Path, writable: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(writable).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)
}

/// ```text
/// 0   state: '+' or '-'
/// 1   kind, digest function, zero
/// 4   u32  length of the payload
/// 8   u64  size of the digest
/// 16  hash
/// 48  u32  offset of the payload
/// 52  checksum
/// ```
fn head(key: &Key, place: Place) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[0] = LIVE;
    head[1] = key.kind.to_byte();
    head[2] = match key.digest.function {
        DigestFunction::Blake3 => 0,
        DigestFunction::Sha256 => 1,
    };
    head[4..8].copy_from_slice(&place.length.to_le_bytes());
    head[8..16].copy_from_slice(&key.digest.size_bytes.to_le_bytes());
    head[16..48].copy_from_slice(&key.digest.hash);
    head[48..NAMED_BYTES].copy_from_slice(&place.at.to_le_bytes());
    let sum = checksum(&head, place.pack, place.head);
    head[NAMED_BYTES..].copy_from_slice(&sum);
    head
}

fn checksum(head: &[u8; HEAD_BYTES], pack: u32, at: u32) -> [u8; HEAD_BYTES - NAMED_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"buildbee-pack 1");
    hasher.update(&pack.to_le_bytes());
    hasher.update(&at.to_le_bytes());
    hasher.update(&head[1..NAMED_BYTES]);
    let mut sum = [0; HEAD_BYTES - NAMED_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// What the head at `at` says, if it was written there.
fn parse(head: &[u8; HEAD_BYTES], pack: u32, at: u32) -> Option<Packed> {
    if head[NAMED_BYTES..] != checksum(head, pack, at) {
        return None;
    }
    let function = match head[2] {
        0 => DigestFunction::Blake3,
        1 => DigestFunction::Sha256,
        _ => return None,
    };
    let word = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let length = word(4)?;
    let size_bytes = u64::from_le_bytes(head[8..16].try_into().ok()?);
    let digest = Digest { function, hash: head[16..48].try_into().ok()?, size_bytes };
    let kind = Kind::from_byte(head[1])?;
    // A blob is as long as it is named, and of a kind that can be checked.
    let fits = kind != Kind::Blob || (size_bytes == u64::from(length) && function == DigestFunction::Blake3);
    let place = Place { pack, head: at, at: word(48)?, length };
    fits.then_some(Packed { key: Key { kind, digest }, place })
}
