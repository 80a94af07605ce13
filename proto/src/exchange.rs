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
    MAX_CHUNKS_PER_REQUEST, MAX_DOUBLES, MAX_FILTER_NEWS, MAX_HINTS, MAX_RESULTS_PER_REQUEST,
};

/// How often at least who is asked for a [`BlobMap`] says something, in milliseconds.
pub const MAP_INTERVAL_MS: u64 = 1000;
/// How often at least who waits for another client's run hears of it, in milliseconds.
pub const AWAIT_INTERVAL_MS: u64 = 1500;

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
    /// An agent asks a peer that should keep these results: which need not be announced to it?
    Holds {
        /// Digests of the actions.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_RESULTS_PER_REQUEST>")]
        actions: Vec<Digest>,
    },
    /// A client is about to have this action run. Asked at the first of the peers responsible for it that can be reached.
    Claim {
        /// Digest of the action.
        action: Digest,
        /// Tells this run from others of the same client.
        nonce: u64,
    },
    /// Somebody else has it run: answered when the result is here, when nobody runs it any more, or after [`AWAIT_INTERVAL_MS`].
    Await {
        /// Digest of the action.
        action: Digest,
    },
    /// These runs are over, whatever came of them.
    Release {
        /// Actions and nonces of claims.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_RESULTS_PER_REQUEST>")]
        claims: Vec<(Digest, u64)>,
    },
    /// Which results and hints may be here? Answered by one [`FilterUpdate`].
    Filter {
        /// What of the answer is known.
        known: Option<FilterMark>,
    },
    /// Which compilers can you run in place of those of other machines?
    Doubles,
}

/// How much of a filter somebody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterMark {
    /// Random; another one is another filter.
    pub epoch: u64,
    /// Entries that were added to it since it was made.
    pub n_added: u64,
}

/// A [`Filter`](crate::filter::Filter), or what is new in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterUpdate {
    /// What is known with this answer.
    pub mark: FilterMark,
    /// The whole with all that was added to it, where the one that was known is another.
    pub whole: Option<Bytes>,
    /// Otherwise fingerprints of what was added since the mark that was known. Where the list is full there is more: ask again.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FILTER_NEWS>")]
    pub added: Vec<u64>,
}

/// Answers to [`CacheRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheReply {
    /// Canonical bytes of the `SignedResult`, if there is one whose blobs are here too.
    Found(Option<Bytes>),
    /// It is noted. An announced result is not here yet: its blobs are to be fetched.
    Noted,
    /// No.
    Refused(WireError),
    /// Folders, newest first.
    Hints(#[serde(deserialize_with = "bounded::list::<_, _, MAX_HINTS>")] Vec<Hint>),
    /// The announced result is stored here with all its blobs.
    Kept,
    /// For each result, in the order asked, whether it need not be announced: it is here, or there is no room for old ones.
    Held(#[serde(deserialize_with = "bounded::list::<_, _, MAX_RESULTS_PER_REQUEST>")] Vec<bool>),
    /// Nobody else has that action run: go ahead.
    Claimed,
    /// Somebody else has that action run.
    Coming,
    /// Which results and hints may be here.
    Filter(FilterUpdate),
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
