//! Blob and cache streams between peers. A stream may carry many requests, one after the other.
//!
//! Blobs travel raw: after a `Get`, the answer is, for each digest in the order asked, one [`BlobHeader`] frame and, if it says `Found`,
//! exactly `size_bytes` raw bytes, which the receiver hashes while reading. Large ones travel in [chunks](crate::chunk), from whoever has some
//! of them: a `Map` asks what is there, and after `Chunks` each chunk comes like a blob, with its own length.

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::chunk::ChunkValue;
use crate::codec::{Bytes, Message};
use crate::digest::Digest;
use crate::error::WireError;
use crate::hint::Hint;
use crate::limits::{
    MAX_ANNOUNCED_BLOBS, MAX_BLOB_FRAME, MAX_BLOB_MAP_FRAME, MAX_BLOBS_PER_REQUEST, MAX_CACHE_FRAME, MAX_CHUNKS,
    MAX_CHUNKS_PER_REQUEST, MAX_DOUBLES, MAX_HINTS,
};

/// How often at least who is asked for a [`BlobMap`] says something, in milliseconds.
pub const MAP_INTERVAL_MS: u64 = 1000;

/// Asks for blobs. At most `MAX_BLOBS_PER_REQUEST` digests. Order is the wire format: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobRequest {
    /// Which of these are there? Answered by one [`BlobHave`].
    Have(#[serde(deserialize_with = "bounded::list::<_, _, MAX_BLOBS_PER_REQUEST>")] Vec<Digest>),
    /// Send these.
    Get(#[serde(deserialize_with = "bounded::list::<_, _, MAX_BLOBS_PER_REQUEST>")] Vec<Digest>),
    /// What is there of a large blob? Answered by [`BlobMap`]s, the last of which is not `Working`.
    Map {
        /// Which.
        blob: Digest,
        /// How many of its chunks are known to be there: the answer leaves the values out, and waits until there are more, for
        /// [`MAP_INTERVAL_MS`] at most.
        known: Option<u32>,
    },
    /// Send these chunks of it. For each, in the order asked, there is one [`BlobHeader`] frame and, if it says `Found`, the chunk's raw bytes.
    Chunks {
        /// Of which.
        blob: Digest,
        /// Which, from 0.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_CHUNKS_PER_REQUEST>")]
        chunks: Vec<u32>,
    },
}

/// What is there of a large blob. Order is the wire format: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobMap {
    /// The file is being read; another answer follows within [`MAP_INTERVAL_MS`].
    Working,
    /// Nothing.
    Missing,
    /// This much.
    Found {
        /// The values of all its chunks, where they were asked for.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_CHUNKS>")]
        values: Vec<ChunkValue>,
        /// Which chunks are there: the bits of a [`ChunkSet`](crate::chunk::ChunkSet).
        present: Bytes,
        /// Whether the rest is on its way from who has it for sure.
        coming: bool,
    },
}

/// Answer to [`BlobRequest::Have`]: one flag a digest, in the order asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobHave {
    /// Whether each is there.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_BLOBS_PER_REQUEST>")]
    pub present: Vec<bool>,
}

/// Precedes each blob of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobHeader {
    /// Its bytes follow.
    Found,
    /// It is not here.
    Missing,
    /// The request as a whole is refused; nothing follows.
    Refused(WireError),
}

/// Asks about action results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheRequest {
    /// The signed result of this action?
    Find {
        /// Digest of the action.
        action: Digest,
    },
    /// An agent tells a peer that is responsible for the action: keep this result, with these blobs, or else fetch them from me.
    Announce {
        /// Canonical bytes of the `SignedResult`.
        result: Bytes,
        /// The contents of all distinct blobs that it names and that have any, where they are few and small; else nothing.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_ANNOUNCED_BLOBS>")]
        blobs: Vec<Bytes>,
    },
    /// Where was the same compile done in another folder?
    Hints {
        /// Digest of the action as it would be in no particular folder.
        key: Digest,
    },
    /// Here it was. From any member: a hint is believed by nobody.
    Hint {
        /// As in `Hints`.
        key: Digest,
        /// Where.
        hint: Hint,
    },
    /// Which compilers can you run in place of those of other machines?
    Doubles,
}

/// Answers to [`CacheRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheReply {
    /// Canonical bytes of the `SignedResult`, if there is one whose blobs are here too.
    Found(Option<Bytes>),
    /// The announcement is noted.
    Noted,
    /// No.
    Refused(WireError),
    /// Folders, newest first.
    Hints(#[serde(deserialize_with = "bounded::list::<_, _, MAX_HINTS>")] Vec<Hint>),
    /// Canonical bytes of each [`Double`](crate::double::Double).
    Doubles(#[serde(deserialize_with = "bounded::list::<_, _, MAX_DOUBLES>")] Vec<Bytes>),
}

impl Message for BlobRequest {
    const MAX_BYTES: usize = MAX_BLOB_FRAME;
}
impl Message for BlobHave {
    const MAX_BYTES: usize = MAX_BLOB_FRAME;
}
impl Message for BlobMap {
    const MAX_BYTES: usize = MAX_BLOB_MAP_FRAME;
}
impl Message for BlobHeader {
    const MAX_BYTES: usize = MAX_BLOB_FRAME;
}
impl Message for CacheRequest {
    const MAX_BYTES: usize = MAX_CACHE_FRAME;
}
impl Message for CacheReply {
    const MAX_BYTES: usize = MAX_CACHE_FRAME;
}
