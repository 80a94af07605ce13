//! Answers cache streams: which result an action has, where a compile was done in another folder, and announcements of both for keys that
//! this agent is responsible for.
//!
//! A result is only named if all its blobs are here. Announcements are noted in a bounded queue; [`adopt`](super::adopt) works it off.

use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::Sender;
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::hint::Hint;
use buildbee_proto::limits::MAX_ANNOUNCED_BYTES;
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::{PeerId, Role};
use buildbee_store::Store;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::blobs_of;
use crate::doubles::Doubles;

/// How long a stream may stay without a request.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// A result that a peer wants kept here.
#[derive(Clone, Debug)]
pub struct Announced {
    /// Who has its blobs.
    pub by: PeerId,
    /// Not checked yet.
    pub result: SignedResult,
    /// What it says are all blobs of the result, or nothing.
    pub blobs: Vec<Bytes>,
}

/// Answers from one store. Clones share the queue.
#[derive(Clone, Debug)]
pub struct CacheServer {
    store: Store,
    announced: mpsc::Sender<Announced>,
    doubles: Doubles,
}

impl CacheServer {
    /// Answers from `store` and tells of `doubles`; announcements go to `announced`.
    pub fn new(store: Store, announced: mpsc::Sender<Announced>, doubles: Doubles) -> Self {
        Self { store, announced, doubles }
    }

    /// Serves one stream until its other end is done with it or something fails.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, from: &Sender, mut stream: S) {
        while let Ok(Ok(Some(request))) = timeout(IDLE_DEADLINE, read_message::<CacheRequest, _>(&mut stream)).await {
            let reply = match request {
                CacheRequest::Find { action } => CacheReply::Found(self.find(action).await),
                CacheRequest::Announce { result, blobs } => match self.note(from, &result, blobs) {
                    Ok(()) => CacheReply::Noted,
                    Err(error) => CacheReply::Refused(error),
                },
                CacheRequest::Hints { key } => CacheReply::Hints(self.hints(key).await),
                CacheRequest::Hint { key, hint } => {
                    self.add_hint(key, hint).await;
                    CacheReply::Noted
                }
                CacheRequest::Doubles => CacheReply::Doubles(self.doubles.told()),
            };
            if !matches!(timeout(WRITE_DEADLINE, write_message(&mut stream, &reply)).await, Ok(Ok(()))) {
                return;
            }
        }
        // Its end of the stream may be gone already: nobody is left to tell.
        drop(timeout(WRITE_DEADLINE, stream.shutdown()).await);
    }

    async fn find(&self, action: Digest) -> Option<Bytes> {
        if !self.store.has_result(&action) {
            return None;
        }
        let store = self.store.clone();
        let found = tokio::task::spawn_blocking(move || complete_result(&store, &action)).await;
        found.ok().flatten().map(|signed| Bytes(signed.to_canonical()))
    }

    async fn hints(&self, key: Digest) -> Vec<Hint> {
        if !self.store.has_hints(&key) {
            return Vec::new();
        }
        let store = self.store.clone();
        let found = tokio::task::spawn_blocking(move || store.hints(&key).ok().flatten()).await;
        found.ok().flatten().map(|hints| hints.entries).unwrap_or_default()
    }

    /// A hint that can't be kept is one that nobody gets; the store's size bounds what a zealous peer can do.
    async fn add_hint(&self, key: Digest, hint: Hint) {
        let store = self.store.clone();
        let added = tokio::task::spawn_blocking(move || store.add_hint(&key, hint)).await;
        if let Ok(Err(error)) = added {
            tracing::debug!(key = %key.short(), %error, "a hint is not kept");
        }
    }

    fn note(&self, from: &Sender, result: &Bytes, blobs: Vec<Bytes>) -> Result<(), WireError> {
        let Sender::Member { peer, role: Role::Agent, .. } = from else {
            return Err(WireError::new(ErrorCode::Refused, Retry::Never, "only agents announce results"));
        };
        if blobs.iter().map(|blob| blob.0.len()).sum::<usize>() > MAX_ANNOUNCED_BYTES {
            return Err(WireError::new(ErrorCode::Invalid, Retry::Never, "too much is announced at once"));
        }
        let result = SignedResult::from_canonical(&result.0)
            .map_err(|error| WireError::new(ErrorCode::Invalid, Retry::Never, error))?;
        self.announced
            .try_send(Announced { by: *peer, result, blobs })
            .map_err(|_| WireError::new(ErrorCode::Busy, Retry::SameAgent, "too many announcements are waiting"))
    }
}

/// The result of `action`, if the store has it with all its blobs. Touches the disk.
pub fn complete_result(store: &Store, action: &Digest) -> Option<SignedResult> {
    let found = match store.result(action) {
        Ok(found) => found?,
        Err(error) => {
            tracing::warn!(action = %action.short(), %error, "a result can't be read");
            return None;
        }
    };
    store.missing(&blobs_of(&found.result)).is_empty().then_some(found)
}
