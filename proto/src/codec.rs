//! Messages to bytes and back. The only file that names the serialiser.
//!
//! The serialiser (bincode 2.0.1 through serde) is no longer maintained, so it is confined here: pinned, bounded on every decode, refused
//! trailing bytes, never used for a digest. Types it carries hold no zero-sized list elements (a count of them costs nothing to claim
//! and for ever to walk), no recursion, no maps, no floats; their lists and texts are read by the functions of `bounded.rs`.

use std::fmt;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::limits::MAX_LOCAL_FRAME;

/// Bytes of the length that precedes each frame (`u32`, little-endian, of the body alone).
pub const FRAME_HEADER_BYTES: usize = 4;

/// A message: what stands in one frame.
pub trait Message: Serialize + DeserializeOwned {
    /// Largest body in bytes, checked before any allocation. At most [`MAX_LOCAL_FRAME`].
    const MAX_BYTES: usize;
}

/// Why a message could not be written or read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    /// The frame is larger than its kind allows.
    #[error("frame of {found} bytes, {max} are allowed")]
    TooLarge {
        /// Size of the body.
        found: usize,
        /// [`Message::MAX_BYTES`].
        max: usize,
    },
    /// The bytes are not this message.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// The message ends before the frame does.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

/// The serialiser counts every integer against its limit with its full width, and writes small ones in one byte: a true body may count
/// for eight times its length.
const CLAIM_FACTOR: usize = 8;
/// Tiers of the limit, by the length of the body.
const SMALL_BODY_BYTES: usize = 64 << 10;
const MIDDLE_BODY_BYTES: usize = 1 << 20;
const LARGEST_BODY_BYTES: usize = MAX_LOCAL_FRAME;

type Config<const MAX: usize> = Configuration<LittleEndian, Varint, Limit<MAX>>;

/// A whole frame: header and body.
pub fn to_frame<M: Message>(message: &M) -> Result<Vec<u8>, CodecError> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    bincode::serde::encode_into_std_write(message, &mut frame, bincode::config::standard())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    let body = frame.len() - FRAME_HEADER_BYTES;
    let length = check_length(body, M::MAX_BYTES)?;
    frame[..FRAME_HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

fn check_length(body: usize, max: usize) -> Result<u32, CodecError> {
    match u32::try_from(body) {
        Ok(length) if body <= max => Ok(length),
        _ => Err(CodecError::TooLarge { found: body, max }),
    }
}

/// Length of the body that follows `header`, if `M` may be that large. Call before allocating for it.
pub fn body_length<M: Message>(header: [u8; FRAME_HEADER_BYTES]) -> Result<usize, CodecError> {
    let length = u32::from_le_bytes(header) as usize;
    check_length(length, M::MAX_BYTES).map(|_| length)
}

/// The message whose body is exactly `body`.
pub fn from_body<M: Message>(body: &[u8]) -> Result<M, CodecError> {
    check_length(body.len(), M::MAX_BYTES)?;
    // The serialiser's limit is a type parameter: take the smallest tier that holds this body. It is the second line of defence, for
    // a type that was written without `bounded`: what a lying length can claim is bounded by it.
    let decoded = if body.len() <= SMALL_BODY_BYTES {
        bincode::serde::decode_from_slice(body, Config::<{ CLAIM_FACTOR * SMALL_BODY_BYTES }>::default_tier())
    } else if body.len() <= MIDDLE_BODY_BYTES {
        bincode::serde::decode_from_slice(body, Config::<{ CLAIM_FACTOR * MIDDLE_BODY_BYTES }>::default_tier())
    } else {
        bincode::serde::decode_from_slice(body, Config::<{ CLAIM_FACTOR * LARGEST_BODY_BYTES }>::default_tier())
    };
    let (message, used): (M, usize) = decoded.map_err(|error| CodecError::Malformed(error.to_string()))?;
    match body.len() - used {
        0 => Ok(message),
        n => Err(CodecError::Trailing(n)),
    }
}

trait Tier {
    fn default_tier() -> Self;
}

impl<const MAX: usize> Tier for Config<MAX> {
    fn default_tier() -> Self {
        bincode::config::standard().with_limit::<MAX>()
    }
}

/// Bytes that the serialiser copies at once, where a `Vec<u8>` would go one by one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        // Borrowed from the frame, then copied: `deserialize_byte_buf` would allocate what the length claims before looking.
        deserializer.deserialize_bytes(BytesVisitor)
    }
}
