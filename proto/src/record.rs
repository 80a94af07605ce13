//! The log that `buildbee-recorder` writes in a compiler and all that it starts, as bytes. [`crate::observed`] says what it means.
//!
//! A file of fixed size, mapped by all of them. Sixteen bytes of header: [`MAGIC`] and the offset of the first free byte, little-endian.
//! Then records at multiples of four bytes: a word with the kind in its top byte and the length of the content below, then the content.
//! Whoever starts the run makes the file ([`header`], then zeros up to [`MAX_RECORD_BYTES`]) and names it in [`VARIABLE`].
//!
//! The log is written by processes that may do what they like to it (a macro is code in the compiler). Whoever tampers with it deceives
//! those who use the same macro, and those get from it whatever code it makes anyway; so nothing is signed or hidden here, and all that
//! is asked of the reader is that it stays within bounds.

use crate::limits::MAX_RECORD_BYTES;
use crate::observed::NotKnown;

/// The first eight bytes: the format, and its version.
pub const MAGIC: [u8; 8] = *b"bbrec\0\0\x01";
/// Before the records.
pub const HEADER_BYTES: usize = 16;
/// The environment variable that names the log.
pub const VARIABLE: &str = "BUILDBEE_RECORD";
/// The recorder's file name.
pub const LIBRARY: &str = "libbuildbee_recorder.so";

const WORD_BYTES: usize = 4;

/// The header of an empty log.
pub fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (magic, next) = header.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    next.copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
    header
}

/// How many bytes of a log are to be kept, which is all of it if not everything fitted. `None` if that is no header.
pub fn used_bytes(header: &[u8]) -> Option<usize> {
    let (magic, rest) = header.split_first_chunk::<8>()?;
    let next = usize::try_from(u64::from_le_bytes(*rest.first_chunk::<8>()?)).ok()?;
    (*magic == MAGIC && next >= HEADER_BYTES).then_some(next.min(MAX_RECORD_BYTES))
}

/// What a record says. The recorder has the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process has loaded the recorder; content: its program.
    Started,
    /// A program is about to be started.
    Starting,
    /// It was not.
    NotStarted,
    /// A variable was asked for.
    Variable,
    /// A file was opened so that it could be read.
    Read,
    /// Something was seen to be there.
    Seen,
    /// A symlink's target was read, or a path's real name asked for.
    Link,
    /// Nothing was there.
    Absent,
    /// A folder was opened.
    Listed,
    /// Something is about to be made.
    Making,
    /// It was not.
    NotMade,
    /// Something was made, or written without reading.
    Made,
    /// Something was removed.
    Removed,
    /// Something was given another name.
    Taken,
    /// A library was loaded that refers to `environ`.
    Walker,
    /// A socket was made.
    Network,
    /// The time of day was asked for; content: by which function, in which program.
    Clock,
    /// Something was asked that the recorder does not follow.
    Unrecorded,
}

impl Kind {
    const TABLE: [(u8, Self); 18] = [
        (b'S', Self::Started),
        (b'X', Self::Starting),
        (b'x', Self::NotStarted),
        (b'V', Self::Variable),
        (b'O', Self::Read),
        (b'P', Self::Seen),
        (b'K', Self::Link),
        (b'A', Self::Absent),
        (b'L', Self::Listed),
        (b'm', Self::Making),
        (b'n', Self::NotMade),
        (b'M', Self::Made),
        (b'U', Self::Removed),
        (b'T', Self::Taken),
        (b'E', Self::Walker),
        (b'N', Self::Network),
        (b'C', Self::Clock),
        (b'?', Self::Unrecorded),
    ];

    /// The letter that stands for it.
    pub fn letter(self) -> u8 {
        Self::TABLE.iter().find(|(_, kind)| *kind == self).map_or(b'?', |(letter, _)| *letter)
    }
}

/// The records of a log in the order in which they were begun. Ends after the first error.
pub fn records(log: &[u8]) -> impl Iterator<Item = Result<(Kind, &[u8]), NotKnown>> {
    let mut rest = match log.split_first_chunk::<8>().map(|(_, rest)| rest).and_then(<[u8]>::first_chunk::<8>) {
        None => Err(NotKnown::Malformed),
        Some(_) if log.get(..MAGIC.len()) != Some(&MAGIC) => Err(NotKnown::Malformed),
        Some(next) => match usize::try_from(u64::from_le_bytes(*next)) {
            Ok(next) if next > MAX_RECORD_BYTES => Err(NotKnown::Overflow),
            Ok(next) => log.get(HEADER_BYTES..next).ok_or(NotKnown::Malformed),
            Err(_) => Err(NotKnown::Overflow),
        },
    };
    std::iter::from_fn(move || {
        let left = match std::mem::replace(&mut rest, Ok(&[])) {
            Ok([]) => return None,
            Ok(left) => left,
            Err(error) => return Some(Err(error)),
        };
        let record = next_record(left);
        Some(record.map(|(kind, content, left)| {
            rest = Ok(left);
            (kind, content)
        }))
    })
}

fn next_record(left: &[u8]) -> Result<(Kind, &[u8], &[u8]), NotKnown> {
    let (word, left) = left.split_first_chunk::<WORD_BYTES>().ok_or(NotKnown::Malformed)?;
    let word = u32::from_le_bytes(*word);
    if word == 0 {
        return Err(NotKnown::Torn);
    }
    let [letter, high, middle, low] = word.to_be_bytes();
    let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).map_err(|_| NotKnown::Malformed)?;
    let kind = Kind::TABLE.iter().find(|(known, _)| *known == letter).ok_or(NotKnown::Malformed)?.1;
    let content = left.get(..length).ok_or(NotKnown::Malformed)?;
    let left = left.get(length.next_multiple_of(WORD_BYTES)..).ok_or(NotKnown::Malformed)?;
    Ok((kind, content, left))
}

/// A log with these records, for tests: what the recorder would have written.
pub fn log_of(records: &[(Kind, &[u8])]) -> Vec<u8> {
    let mut log = header().to_vec();
    for (kind, content) in records {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX) & 0xff_ffff;
        log.extend_from_slice(&(u32::from(kind.letter()) << 24 | length).to_le_bytes());
        log.extend_from_slice(content);
        log.resize(log.len().next_multiple_of(WORD_BYTES), 0);
    }
    let next = (log.len() as u64).to_le_bytes();
    log.splice(MAGIC.len()..HEADER_BYTES, next);
    log
}
