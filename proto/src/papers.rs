//! Papers streams: any two members ask each other for the newest roster and where the coordinator is; the coordinator renews memberships.
//!
//! One question and one answer a stream. What comes is believed by its signature (rosters, memberships) or only tried (addresses: whoever
//! answers there still has to prove the coordinator's key).

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::codec::{Bytes, Message};
use crate::limits::{MAX_ADDRESS_BYTES, MAX_ADDRESSES_PER_PEER, MAX_PAPERS_FRAME};

/// What one member asks of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PapersRequest {
    /// Rosters up to this version are no news.
    pub roster_newer_than: u64,
    /// Whether the asker wants a new membership. Only coordinators give any.
    pub renew: bool,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PapersReply {
    /// The signed roster (canonical bytes), if it is news.
    pub roster: Option<Bytes>,
    /// Where the coordinator can be reached, as `host:port`, if the answerer is it or is connected to it.
    #[serde(deserialize_with = "bounded::texts::<_, MAX_ADDRESSES_PER_PEER, MAX_ADDRESS_BYTES>")]
    pub coordinator: Vec<String>,
    /// The asker's new signed membership (canonical bytes).
    pub membership: Option<Bytes>,
}

impl Message for PapersRequest {
    const MAX_BYTES: usize = MAX_PAPERS_FRAME;
}
impl Message for PapersReply {
    const MAX_BYTES: usize = MAX_PAPERS_FRAME;
}
