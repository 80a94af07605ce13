//! The journal of use: which entry was used when, kept so that eviction is as wise after a start as before it.
//!
//! A hint and nothing more. It is written in batches, may be behind, lost or garbage, and is then made anew from the files' change
//! times. It never says what the store holds. It is a plain file of checksummed pages and not a database on purpose: an embedded
//! database takes its own file at its word, and ends the process over a flipped byte (tried: redb does, in its destructor).
//!
//! Layout: [`HEADER`], then pages of a row count (`u32`, little-endian), a BLAKE3 checksum over count and rows, and the rows. A later
//! row for the same entry counts; a position of zero says that the entry is gone. Reading stops at the first page that is not whole.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use buildbee_proto::digest::{Digest, DigestFunction};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::index::{Key, Kind, MAX_ENTRIES, Recent};
use crate::layout::remove_any;

const HEADER: &[u8] = b"buildbee-recency 1\n";
const CHECKSUM_BYTES: usize = 32;
const ROW_BYTES: usize = 50;
/// Rows of one page: bounds the memory that reading takes.
const MAX_PAGE_ROWS: usize = 8192;
/// Rows that are read at most: live ones, and as many that are out of date.
const MAX_ROWS: usize = 4 * MAX_ENTRIES;
/// The file is written anew once it has this many rows, and [`STALE_FACTOR`] times as many as there are entries.
const MIN_ROWS_TO_COMPACT: usize = 64 << 10;
const STALE_FACTOR: usize = 3;
/// Positions beyond this were never counted to: the page is garbage, whatever its checksum.
const MAX_TICK: u64 = 1 << 62;

/// The journal, open for appending if it can be.
#[derive(Debug)]
pub(crate) struct Recency {
    path: PathBuf,
    /// `None` after a failure: the next batch writes the file anew.
    file: Option<File>,
    n_rows: usize,
}

/// What the journal knew.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) ticks: HashMap<Key, u64>,
    /// It was there, and not all of it was of use.
    pub(crate) damaged: bool,
}

impl Recency {
    /// Reads the journal. Nothing is written before the first batch.
    pub(crate) fn open(path: &Path) -> (Self, Remembered) {
        let mut journal = Self { path: path.to_owned(), file: None, n_rows: 0 };
        let mut remembered = Remembered::default();
        let opened = OpenOptions::new().read(true).append(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
        let read = opened.and_then(|file| {
            journal.n_rows = read_pages(&file, &mut remembered.ticks)?;
            Ok(file)
        });
        match read {
            Ok(file) => journal.file = Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the order of use is lost in part, and guessed from file times");
                remembered.damaged = true;
            }
        }
        (journal, remembered)
    }

    /// Whether the next batch has to be everything.
    pub(crate) fn wants_all(&self, n_entries: usize) -> bool {
        self.file.is_none() || self.n_rows > MIN_ROWS_TO_COMPACT.max(n_entries.saturating_mul(STALE_FACTOR))
    }

    /// Writes the file anew, with these positions only.
    pub(crate) fn write_all(&mut self, recent: &Recent) -> io::Result<()> {
        self.file = None;
        let new = self.path.with_extension("new");
        remove_any(&new)?;
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(HEADER)?;
        append(&mut file, recent)?;
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_dir()) {
            remove_any(&self.path)?;
        }
        fs::rename(&new, &self.path)?;
        self.file = Some(file);
        self.n_rows = recent.used.len();
        Ok(())
    }

    /// Notes changes.
    pub(crate) fn note(&mut self, recent: &Recent) -> io::Result<()> {
        // Put back only after success: behind a page that is not whole, nothing is read any more.
        let Some(mut file) = self.file.take() else { return Ok(()) };
        append(&mut file, recent)?;
        self.n_rows = self.n_rows.saturating_add(recent.used.len() + recent.removed.len());
        self.file = Some(file);
        Ok(())
    }
}

fn append(file: &mut File, recent: &Recent) -> io::Result<()> {
    let removed = recent.removed.iter().map(|key| (*key, 0));
    let rows: Vec<[u8; ROW_BYTES]> =
        removed.chain(recent.used.iter().copied()).map(|(key, tick)| to_row(&key, tick)).collect();
    for page in rows.chunks(MAX_PAGE_ROWS) {
        let count = u32::try_from(page.len()).unwrap_or(u32::MAX).to_le_bytes();
        let body = page.concat();
        let mut head = count.to_vec();
        head.extend(checksum(count, &body));
        file.write_all(&head)?;
        #[cfg(test)]
        crate::fault::point("half-noted");
        file.write_all(&body)?;
    }
    Ok(())
}

fn checksum(count: [u8; 4], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&count);
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

/// Fills `ticks` with as much as is whole; the number of rows read, or an error for what is not whole.
fn read_pages(file: &File, ticks: &mut HashMap<Key, u64>) -> io::Result<usize> {
    if !file.metadata()?.is_file() {
        return Err(damaged("not a regular file"));
    }
    let mut input = BufReader::new(file);
    let mut header = [0; HEADER.len()];
    input.read_exact(&mut header)?;
    if header != HEADER {
        return Err(damaged("not a journal"));
    }
    let mut n_rows = 0;
    loop {
        let mut count = [0; 4];
        // Nothing more: the end. A part of a count is found to be short below.
        match input.read(&mut count)? {
            0 => return Ok(n_rows),
            n => input.read_exact(&mut count[n..])?,
        }
        let n_page = u32::from_le_bytes(count) as usize;
        n_rows += n_page;
        if n_page > MAX_PAGE_ROWS || n_rows > MAX_ROWS {
            return Err(damaged("more rows than there can be"));
        }
        let mut sum = [0; CHECKSUM_BYTES];
        input.read_exact(&mut sum)?;
        let mut body = vec![0; n_page * ROW_BYTES];
        input.read_exact(&mut body)?;
        if sum != checksum(count, &body) {
            return Err(damaged("a page does not match its checksum"));
        }
        for row in body.chunks_exact(ROW_BYTES) {
            let (key, tick) = from_row(row).ok_or_else(|| damaged("a row that this program never wrote"))?;
            if tick == 0 {
                ticks.remove(&key)
            } else {
                ticks.insert(key, tick)
            };
        }
    }
}

fn damaged(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn to_row(key: &Key, tick: u64) -> [u8; ROW_BYTES] {
    let mut row = [0; ROW_BYTES];
    row[0] = key.kind.to_byte();
    row[1] = match key.digest.function {
        DigestFunction::Blake3 => 0,
        DigestFunction::Sha256 => 1,
    };
    row[2..34].copy_from_slice(&key.digest.hash);
    row[34..42].copy_from_slice(&key.digest.size_bytes.to_le_bytes());
    row[42..].copy_from_slice(&tick.to_le_bytes());
    row
}

fn from_row(row: &[u8]) -> Option<(Key, u64)> {
    let kind = Kind::from_byte(*row.first()?)?;
    let function = match row.get(1)? {
        0 => DigestFunction::Blake3,
        1 => DigestFunction::Sha256,
        _ => return None,
    };
    let hash = row.get(2..34)?.try_into().ok()?;
    let size_bytes = u64::from_le_bytes(row.get(34..42)?.try_into().ok()?);
    let tick = u64::from_le_bytes(row.get(42..)?.try_into().ok()?);
    (tick < MAX_TICK).then_some((Key { kind, digest: Digest { function, hash, size_bytes } }, tick))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(n: u32) -> Vec<Key> {
        (0..n).map(|n| Key::blob(Digest::of(&n.to_le_bytes()))).collect()
    }

    #[test]
    fn rows_round_trip() {
        for kind in [Kind::Blob, Kind::Result, Kind::Manifest, Kind::Hints] {
            for function in [DigestFunction::Blake3, DigestFunction::Sha256] {
                let key = Key { kind, digest: Digest { function, ..Digest::of(b"bee") } };
                assert_eq!(from_row(&to_row(&key, 5)), Some((key, 5)));
            }
        }
        assert_eq!(from_row(&[9; ROW_BYTES]), None);
        assert_eq!(from_row(&[0xff; ROW_BYTES]), None);
        assert_eq!(from_row(&[]), None);
    }

    #[test]
    fn notes_are_read_again_and_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let keys = keys(20_000);
        let (mut journal, _) = Recency::open(&path);
        assert!(journal.wants_all(0));
        let used: Vec<(Key, u64)> = keys.iter().copied().zip(1..).collect();
        journal.write_all(&Recent { used: used.clone(), removed: vec![] }).unwrap();
        journal.note(&Recent { used: vec![(keys[1], 30_000)], removed: vec![keys[0], keys[1]] }).unwrap();
        let (mut journal, remembered) = Recency::open(&path);
        assert!(!remembered.damaged && !journal.wants_all(20_000));
        assert_eq!(remembered.ticks.len(), 19_999);
        assert_eq!(remembered.ticks[&keys[1]], 30_000);
        assert!(!remembered.ticks.contains_key(&keys[0]));
        for _ in 0..4 {
            journal.note(&Recent { used: used.clone(), removed: vec![] }).unwrap();
        }
        assert!(journal.wants_all(20_000));
        journal.write_all(&Recent { used: used[..10].to_vec(), removed: vec![] }).unwrap();
        assert_eq!(Recency::open(&path).1.ticks.len(), 10);
        assert!(fs::metadata(&path).unwrap().len() < 1000);
    }

    #[test]
    fn a_torn_end_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let keys = keys(2);
        let (mut journal, _) = Recency::open(&path);
        journal.write_all(&Recent { used: vec![(keys[0], 1)], removed: vec![] }).unwrap();
        let whole = fs::metadata(&path).unwrap().len();
        journal.note(&Recent { used: vec![(keys[1], 2)], removed: vec![] }).unwrap();
        let full = fs::read(&path).unwrap();
        for end in whole + 1..full.len() as u64 {
            fs::write(&path, &full[..usize::try_from(end).unwrap()]).unwrap();
            let (journal, remembered) = Recency::open(&path);
            assert_eq!(remembered.ticks, HashMap::from([(keys[0], 1)]));
            assert!(remembered.damaged && journal.wants_all(1), "it is written anew before anything is added");
        }
    }
}
