//! The hand-written encoding of everything that is hashed or signed.
//!
//! Rules: integers are little-endian and of fixed width; texts, byte strings and lists carry a `u32` count; an optional value is a `0`
//! or `1` byte and the value; each top-level value starts with its four-byte tag, which says its kind and version, so that bytes signed
//! as one kind can never be read as another. There is exactly one encoding of a value, and decoding refuses everything else: unknown
//! tags, wrong order, trailing bytes. Golden vectors in `proto/golden/` hold the bytes still.
//!
//! This is not the wire serialiser ([`crate::codec`]); a change there cannot change a digest.

use thiserror::Error;

use crate::digest::{Digest, DigestFunction};
use crate::path::{PathComponent, PathError, RelPath};

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CanonicalError {
    /// The bytes end before the value does.
    #[error("bytes end early at offset {0}")]
    Truncated(usize),
    /// The value ends before the bytes do.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
    /// The tag is another kind's, or of a version that this program does not know.
    #[error("tag {found:02x?} where {expected:02x?} was expected")]
    Tag {
        /// What this program reads.
        expected: [u8; 4],
        /// What the bytes say.
        found: [u8; 4],
    },
    /// A count or a byte outside its range.
    #[error("{0} is out of range")]
    Range(&'static str),
    /// A text that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A path or name that is none.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A list that must be sorted and free of repetitions is not.
    #[error("{0} are not sorted, or one stands twice")]
    Order(&'static str),
}

/// A value with exactly one encoding.
pub trait Canonical: Sized {
    /// Kind and version of the encoding.
    const TAG: [u8; 4];

    /// Writes everything after the tag.
    fn encode(&self, out: &mut Writer);

    /// Reads everything after the tag.
    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError>;

    /// The whole encoding.
    fn to_canonical(&self) -> Vec<u8> {
        let mut out = Writer { bytes: Self::TAG.to_vec() };
        self.encode(&mut out);
        out.bytes
    }

    /// The value that `bytes` encode. `bytes` must be bounded by the caller; memory used is a small multiple of their length.
    fn from_canonical(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let mut input = Reader { bytes, at: 0 };
        let found = input.array::<4>()?;
        if found != Self::TAG {
            return Err(CanonicalError::Tag { expected: Self::TAG, found });
        }
        let value = Self::decode(&mut input)?;
        match bytes.len() - input.at {
            0 => Ok(value),
            n => Err(CanonicalError::Trailing(n)),
        }
    }

    /// Digest of the encoding: the value's name.
    fn digest(&self) -> Digest {
        Digest::of(&self.to_canonical())
    }
}

/// Canonical parts without a tag: no content, but what is compared with content.
pub(crate) fn parts(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer { bytes: Vec::new() };
    write(&mut out);
    out.bytes
}

/// What `read` makes of canonical parts without a tag, which must be read to their end.
pub(crate) fn from_parts<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, CanonicalError>,
) -> Result<T, CanonicalError> {
    let mut input = Reader { bytes, at: 0 };
    let value = read(&mut input)?;
    match bytes.len() - input.at {
        0 => Ok(value),
        n => Err(CanonicalError::Trailing(n)),
    }
}

/// Appends canonical parts.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two choices.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Four bytes, two's complement.
    pub fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes of a fixed length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A count. Lists longer than `u32::MAX` cannot be built: every list type has a far smaller bound.
    pub fn count(&mut self, n: usize) {
        self.u32(u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.count(text.len());
        self.raw(text.as_bytes());
    }

    /// A digest.
    pub fn digest(&mut self, digest: &Digest) {
        self.u8(match digest.function {
            DigestFunction::Blake3 => 0,
            DigestFunction::Sha256 => 1,
        });
        self.raw(&digest.hash);
        self.u64(digest.size_bytes);
    }

    /// A path.
    pub fn path(&mut self, path: &RelPath) {
        self.text(path.as_str());
    }

    /// A list of anything.
    pub fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        for item in items {
            each(self, item);
        }
    }

    /// Perhaps a value.
    pub fn option<T>(&mut self, value: Option<&T>, each: impl FnOnce(&mut Self, &T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            each(self, value);
        }
    }
}

/// Takes canonical parts off the front.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], CanonicalError> {
        let end = self.at.checked_add(n).ok_or(CanonicalError::Range("length"))?;
        let part = self.bytes.get(self.at..end).ok_or(CanonicalError::Truncated(self.at))?;
        self.at = end;
        Ok(part)
    }

    /// Whether everything was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Bytes of a fixed length.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CanonicalError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, CanonicalError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two choices.
    pub fn bool(&mut self) -> Result<bool, CanonicalError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CanonicalError::Range("flag")),
        }
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, CanonicalError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Four bytes, two's complement.
    pub fn i32(&mut self) -> Result<i32, CanonicalError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, CanonicalError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A text.
    pub fn text(&mut self) -> Result<String, CanonicalError> {
        let n = self.u32()? as usize;
        let bytes = self.take(n)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| CanonicalError::Utf8)
    }

    /// A digest.
    pub fn digest(&mut self) -> Result<Digest, CanonicalError> {
        let function = match self.u8()? {
            0 => DigestFunction::Blake3,
            1 => DigestFunction::Sha256,
            _ => return Err(CanonicalError::Range("digest function")),
        };
        Ok(Digest { function, hash: self.array()?, size_bytes: self.u64()? })
    }

    /// A file name.
    pub fn component(&mut self) -> Result<PathComponent, CanonicalError> {
        Ok(PathComponent::try_from(self.text()?)?)
    }

    /// A path.
    pub fn path(&mut self) -> Result<RelPath, CanonicalError> {
        Ok(RelPath::try_from(self.text()?)?)
    }

    /// A list of at most `max` items. Memory is taken as items are read, never ahead of the bytes that are there.
    pub fn list<T>(
        &mut self,
        max: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, CanonicalError>,
    ) -> Result<Vec<T>, CanonicalError> {
        let n = self.u32()? as usize;
        if n > max {
            return Err(CanonicalError::Range("count"));
        }
        // Every item takes at least one byte, so a count beyond the bytes left is a lie found before any item is read.
        if n > self.bytes.len() - self.at {
            return Err(CanonicalError::Truncated(self.at));
        }
        let mut items = Vec::new();
        for _ in 0..n {
            items.push(each(self)?);
        }
        Ok(items)
    }

    /// Perhaps a value.
    pub fn option<T>(
        &mut self,
        each: impl FnOnce(&mut Self) -> Result<T, CanonicalError>,
    ) -> Result<Option<T>, CanonicalError> {
        if self.bool()? { each(self).map(Some) } else { Ok(None) }
    }
}

/// Refuses a list that is not strictly ascending by `key`.
pub(crate) fn check_ascending<T, K: Ord + ?Sized>(
    items: &[T],
    what: &'static str,
    key: impl Fn(&T) -> &K,
) -> Result<(), CanonicalError> {
    if items.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])) { Ok(()) } else { Err(CanonicalError::Order(what)) }
}
