//! The journal of use: which entry was used when, kept so that eviction is as wise after a start as before it.
//!
//! A hint and nothing more. It is written in batches, may be behind, lost or garbage, and is then made anew from the files' change
//! times. It never says what the store holds. It is a plain file of checksummed pages and not a database on purpose: an embedded
//! database takes its own file at its word, and ends the process over a flipped byte (tried: redb does, in its destructor).
//!
//! Layout: [`HEADER`], then pages of a row count (`u32`, little-endian), a BLAKE3 checksum over count and rows, and the rows. A later
//! row for the same entry counts; a position of zero, which older versions wrote, says that the entry was gone. Reading stops at the first page that is not whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use buildbee_proto::digest::{Digest, DigestFunction};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::entry::{Key, Kind, Use, Worth};
use crate::index::MAX_ENTRIES;
use crate::layout::remove_any;

const HEADER: &[u8] = b"buildbee-recency 1\n";
const CHECKSUM_BYTES: usize = 32;
/// Length of a row.
pub(crate) const ROW_BYTES: usize = 50;
/// Rows of one page: bounds the memory that reading takes.
const MAX_PAGE_ROWS: usize = 8192;
/// Rows that are read at most: live ones, and as many that are out of date.
const MAX_ROWS: usize = 4 * MAX_ENTRIES;
/// The file is written anew once it has this many rows, and [`STALE_FACTOR`] times as many as there are entries.
const MIN_ROWS_TO_COMPACT: usize = 64 << 10;
const STALE_FACTOR: usize = 3;
/// A row's first byte has the kind in the lower bits and the worth in the upper.
const WORTH_SHIFT: u8 = 4;
const KIND_MASK: u8 = 0x0f;
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

impl Recency {
    /// Reads the journal, row by row, later ones of an entry after earlier ones. Nothing is written before the first batch. True: it was
    /// there, and not all of it was of use.
    pub(crate) fn open(path: &Path, remember: &mut dyn FnMut(&Use)) -> (Self, bool) {
        let mut journal = Self { path: path.to_owned(), file: None, n_rows: 0 };
        let mut damaged = false;
        let opened = OpenOptions::new().read(true).append(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
        let read = opened.and_then(|file| {
            journal.n_rows = read_pages(&file, remember)?;
            Ok(file)
        });
        match read {
            Ok(file) => journal.file = Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the order of use is lost in part, and guessed from file times");
                damaged = true;
            }
        }
        (journal, damaged)
    }

    /// Whether the next batch has to be everything.
    pub(crate) fn wants_all(&self, n_entries: usize) -> bool {
        self.file.is_none() || self.n_rows > MIN_ROWS_TO_COMPACT.max(n_entries.saturating_mul(STALE_FACTOR))
    }

    /// Writes the file anew, with these positions only: `from` tells some of them, by order of use, beginning at a tick.
    pub(crate) fn write_all(&mut self, mut from: impl FnMut(u64) -> Vec<Use>) -> io::Result<()> {
        self.file = None;
        let new = self.path.with_extension("new");
        remove_any(&new)?;
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(HEADER)?;
        let (mut tick, mut n_rows) = (0, 0);
        loop {
            let page = from(tick);
            let Some(last) = page.last() else { break };
            tick = last.tick.saturating_add(1);
            n_rows += page.len();
            append(&mut file, &page)?;
            // What is used while this goes on would never end.
            if n_rows > MAX_ENTRIES {
                break;
            }
        }
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_dir()) {
            remove_any(&self.path)?;
        }
        fs::rename(&new, &self.path)?;
        self.file = Some(file);
        self.n_rows = n_rows;
        Ok(())
    }

    /// Notes changes.
    pub(crate) fn note(&mut self, recent: &[Use]) -> io::Result<()> {
        // Put back only after success: behind a page that is not whole, nothing is read any more.
        let Some(mut file) = self.file.take() else { return Ok(()) };
        append(&mut file, recent)?;
        self.n_rows = self.n_rows.saturating_add(recent.len());
        self.file = Some(file);
        Ok(())
    }
}

fn append(file: &mut File, recent: &[Use]) -> io::Result<()> {
    for page in recent.chunks(MAX_PAGE_ROWS) {
        let count = u32::try_from(page.len()).unwrap_or(u32::MAX).to_le_bytes();
        let body: Vec<u8> = page.iter().flat_map(to_row).collect();
        let mut head = count.to_vec();
        head.extend(checksum(count, &body));
        file.write_all(&head)?;
        #[cfg(any(test, debug_assertions))]
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

/// Tells `remember` as much as is whole; the number of rows read, or an error for what is not whole.
fn read_pages(file: &File, remember: &mut dyn FnMut(&Use)) -> io::Result<usize> {
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
            remember(&from_row(row).ok_or_else(|| damaged("a row that this program never wrote"))?);
        }
    }
}

fn damaged(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn to_row(used: &Use) -> [u8; ROW_BYTES] {
    let Use { key, tick, worth } = used;
    let mut row = [0; ROW_BYTES];
    row[0] = key.kind.to_byte() | worth.to_byte() << WORTH_SHIFT;
    row[1] = match key.digest.function {
        DigestFunction::Blake3 => 0,
        DigestFunction::Sha256 => 1,
    };
    row[2..34].copy_from_slice(&key.digest.hash);
    row[34..42].copy_from_slice(&key.digest.size_bytes.to_le_bytes());
    row[42..].copy_from_slice(&tick.to_le_bytes());
    row
}

fn from_row(row: &[u8]) -> Option<Use> {
    let first = *row.first()?;
    let kind = Kind::from_byte(first & KIND_MASK)?;
    let worth = Worth::from_byte(first >> WORTH_SHIFT)?;
    let function = match row.get(1)? {
        0 => DigestFunction::Blake3,
        1 => DigestFunction::Sha256,
        _ => return None,
    };
    let hash = row.get(2..34)?.try_into().ok()?;
    let size_bytes = u64::from_le_bytes(row.get(34..42)?.try_into().ok()?);
    let tick = u64::from_le_bytes(row.get(42..)?.try_into().ok()?);
    let key = Key { kind, digest: Digest { function, hash, size_bytes } };
    (tick < MAX_TICK).then_some(Use { key, tick, worth })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn uses(n: u32) -> Vec<Use> {
        let key = |n: u32| Key::blob(Digest::of(&n.to_le_bytes()));
        (0..n).map(|n| Use { key: key(n), tick: u64::from(n) + 1, worth: Worth::Input }).collect()
    }

    fn open(path: &Path) -> (Recency, HashMap<Key, u64>, bool) {
        let mut ticks = HashMap::new();
        let (journal, damaged) = Recency::open(path, &mut |used| {
            ticks.insert(used.key, used.tick);
        });
        (journal, ticks, damaged)
    }

    fn write_all(journal: &mut Recency, uses: &[Use]) {
        let page = |tick| uses.iter().filter(|used| used.tick >= tick).take(1000).copied().collect();
        journal.write_all(page).unwrap();
    }

    #[test]
    fn rows_round_trip() {
        for kind in [Kind::Blob, Kind::Result, Kind::Manifest, Kind::Hints] {
            for worth in [Worth::Input, Worth::Output, Worth::Toolchain] {
                for function in [DigestFunction::Blake3, DigestFunction::Sha256] {
                    let key = Key { kind, digest: Digest { function, ..Digest::of(b"bee") } };
                    let used = Use { key, tick: 5, worth };
                    assert_eq!(from_row(&to_row(&used)), Some(used));
                }
            }
        }
        assert_eq!(from_row(&[9; ROW_BYTES]), None);
        assert_eq!(from_row(&[0x30; ROW_BYTES]), None);
        assert_eq!(from_row(&[0xff; ROW_BYTES]), None);
        assert_eq!(from_row(&[]), None);
    }

    #[test]
    fn notes_are_read_again_and_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let uses = uses(20_000);
        let (mut journal, ..) = open(&path);
        assert!(journal.wants_all(0));
        write_all(&mut journal, &uses);
        journal.note(&[Use { tick: 30_000, ..uses[1] }]).unwrap();
        let (mut journal, ticks, damaged) = open(&path);
        assert!(!damaged && !journal.wants_all(20_000));
        assert_eq!(ticks.len(), 20_000);
        assert_eq!((ticks[&uses[0].key], ticks[&uses[1].key]), (1, 30_000));
        for _ in 0..4 {
            journal.note(&uses).unwrap();
        }
        assert!(journal.wants_all(20_000));
        write_all(&mut journal, &uses[..10]);
        assert_eq!(open(&path).1.len(), 10);
        assert!(fs::metadata(&path).unwrap().len() < 1000);
    }

    #[test]
    fn a_torn_end_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let uses = uses(2);
        let (mut journal, ..) = open(&path);
        write_all(&mut journal, &uses[..1]);
        let whole = fs::metadata(&path).unwrap().len();
        journal.note(&uses[1..]).unwrap();
        let full = fs::read(&path).unwrap();
        for end in whole + 1..full.len() as u64 {
            fs::write(&path, &full[..usize::try_from(end).unwrap()]).unwrap();
            let (journal, ticks, damaged) = open(&path);
            assert_eq!(ticks, HashMap::from([(uses[0].key, 1)]));
            assert!(damaged && journal.wants_all(1), "it is written anew before anything is added");
        }
    }
}
