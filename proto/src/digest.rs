//! The only name of content: a hash function, its 32 bytes, and the content's length in bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Hash functions a digest can be made with. Order is the wire format: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DigestFunction {
    /// BLAKE3, the farm's own (default length, 32 bytes).
    Blake3,
    /// SHA-256, for foreign clients of the Remote Execution API. Never made by buildbee itself.
    Sha256,
}

/// Names immutable bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest {
    /// How `hash` was made.
    pub function: DigestFunction,
    /// The hash itself.
    pub hash: [u8; 32],
    /// Length of the content in bytes.
    pub size_bytes: u64,
}

/// A text that is not a digest.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not a digest: {0:?} (expected 64 hexadecimal digits, a dash and a length in bytes)")]
pub struct ParseDigestError(String);

impl Digest {
    /// The BLAKE3 digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self::from_blake3(blake3::hash(content), content.len() as u64)
    }

    /// A digest from a finished BLAKE3 hash over `size_bytes` bytes.
    pub fn from_blake3(hash: blake3::Hash, size_bytes: u64) -> Self {
        Self { function: DigestFunction::Blake3, hash: *hash.as_bytes(), size_bytes }
    }

    /// The hash as 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        hex(&self.hash)
    }

    /// The first 12 hexadecimal digits, for logs.
    pub fn short(&self) -> String {
        hex(&self.hash[..6])
    }
}

/// `bytes` as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 32 bytes from exactly 64 hexadecimal digits.
pub(crate) fn unhex32(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.function {
            DigestFunction::Blake3 => "",
            DigestFunction::Sha256 => "sha256:",
        };
        write!(f, "{prefix}{}-{}", self.hex(), self.size_bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let error = || ParseDigestError(text.chars().take(100).collect());
        let (function, rest) = match text.strip_prefix("sha256:") {
            Some(rest) => (DigestFunction::Sha256, rest),
            None => (DigestFunction::Blake3, text),
        };
        let (hash, size) = rest.split_once('-').ok_or_else(error)?;
        let hash = unhex32(hash).ok_or_else(error)?;
        // `parse` takes a sign too.
        if !size.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error());
        }
        let size_bytes = size.parse().map_err(|_| error())?;
        Ok(Self { function, hash, size_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let digest = Digest::of(b"bee");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let foreign = Digest { function: DigestFunction::Sha256, ..digest };
        assert_eq!(foreign.to_string().parse::<Digest>().unwrap(), foreign);
    }

    #[test]
    fn bad_text_is_refused() {
        for text in ["", "-", "00-1", "zz-3", &format!("{}-x", "0".repeat(64)), &format!("{}é-1", "0".repeat(62))] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
