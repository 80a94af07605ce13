//! Answers cache streams: which result an action has, where a compile was done in another folder, announcements of both for keys that this
//! agent is responsible for, who has an action run, and which results may be here at all.
//!
//! A result is only named if all its blobs are here, and its announcement only answered with [`CacheReply::Kept`] when it is stored with them
//! ([`adopt`](super::adopt)) and outlives a loss of power ([`lasting`](super::lasting)); what comes on the stream meanwhile is not held up. Here is no result, no failure and no absence ever remembered as an answer.

use std::time::Duration;

use buildbee_p2p::frames::{read_body, read_header, write_message};
use buildbee_p2p::node::Sender;
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::entry::Entry;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::exchange::{AWAIT_INTERVAL_MS, CacheReply, CacheRequest, FilterMark, FilterUpdate};
use buildbee_proto::hint::Hint;
use buildbee_proto::limits::MAX_ANNOUNCED_BYTES;
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::{PeerId, Role};
use buildbee_store::Store;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::adopt::{Adopted, Adopter, Announced};
use super::blobs_of;
use super::kept::Kept;
use super::lasting::Lasting;
use crate::doubles::Doubles;
use crate::room::{Place, Room, kibibytes};

/// How long a stream may stay without a request.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request may take to arrive, once it has begun to.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(10);
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Memory for requests that arrive or are answered at once, in KiB; further ones wait. One may have `MAX_CACHE_FRAME` bytes.
const MAX_ARRIVING_KIB: u32 = 64 << 10;
/// What one peer may have of it.
const MAX_ARRIVING_KIB_EACH: u32 = 16 << 10;
/// How long an announcer waits for the disk here. Less than it waits at all, for several.
const LASTING_DEADLINE: Duration = Duration::from_secs(2);
/// Requests of one stream that are answered while the first of them waits for the disk.
const MAX_UNANSWERED: usize = 32;

/// Results that were read and not yet looked after; further ones are not.
const MAX_READ: usize = 1024;
/// A store that is fuller than this, in percent, takes no old results to replace such as are used.
const FULL_PERCENT: u64 = 88;

/// Answers from one store. Clones share the queue.
#[derive(Clone, Debug)]
pub struct CacheServer {
    store: Store,
    adopter: Adopter,
    lasting: Lasting,
    kept: Kept,
    read: mpsc::Sender<Digest>,
    doubles: Doubles,
    arriving: Room,
}

/// An answer that is given in its turn.
enum Answer {
    Now(CacheReply),
    /// Once the result lasts.
    Kept(oneshot::Receiver<bool>),
}

impl Answer {
    async fn reply(self) -> CacheReply {
        match self {
            Self::Now(reply) => reply,
            Self::Kept(lasts) => match timeout(LASTING_DEADLINE, lasts).await {
                Ok(Ok(true)) => CacheReply::Kept,
                // It is stored, and the announcer asks again.
                _ => CacheReply::Noted,
            },
        }
    }
}

impl CacheServer {
    /// Answers from `store`, and tells of `doubles`; what is taken in is made to last by `lasting`. The actions whose results are read come out
    /// of the queue that is returned.
    pub fn new(
        store: Store,
        (adopter, lasting): (Adopter, Lasting),
        kept: Kept,
        doubles: Doubles,
    ) -> (Self, mpsc::Receiver<Digest>) {
        let (read, was_read) = mpsc::channel(MAX_READ);
        let arriving = Room::new(MAX_ARRIVING_KIB, MAX_ARRIVING_KIB_EACH);
        (Self { store, adopter, lasting, kept, read, doubles, arriving }, was_read)
    }

    /// Serves one stream until its other end is done with it or something fails.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, from: &Sender, stream: S) {
        let (mut requests, mut replies) = tokio::io::split(stream);
        let (answers, mut answered) = mpsc::channel::<(Answer, Option<Place>)>(MAX_UNANSWERED);
        let reading = async move {
            while let Some((request, place)) = self.request(from.peer(), &mut requests).await {
                let answer = self.answer(from, request).await;
                // What only waits for the disk takes no room any more.
                let place = place.filter(|_| matches!(answer, Answer::Now(_)));
                if answers.send((answer, place)).await.is_err() {
                    return;
                }
            }
        };
        let writing = async move {
            while let Some((answer, _place)) = answered.recv().await {
                let reply = answer.reply().await;
                if !matches!(timeout(WRITE_DEADLINE, write_message(&mut replies, &reply)).await, Ok(Ok(()))) {
                    return;
                }
                #[cfg(debug_assertions)]
                if reply == CacheReply::Kept {
                    buildbee_store::fault::point("kept-said");
                }
            }
            // Its end of the stream may be gone already: nobody is left to tell.
            drop(timeout(WRITE_DEADLINE, replies.shutdown()).await);
        };
        // Nothing more is read once nothing can be answered.
        let mut writing = std::pin::pin!(writing);
        tokio::select! {
            () = &mut writing => return,
            () = reading => {}
        }
        writing.await;
    }

    /// The next request, and the room that it takes until it is answered.
    async fn request<S: AsyncRead + Unpin>(
        &self,
        from: PeerId,
        stream: &mut S,
    ) -> Option<(CacheRequest, Option<Place>)> {
        let length = timeout(IDLE_DEADLINE, read_header::<CacheRequest, _>(stream)).await.ok()?.ok()??;
        let arriving = async {
            let place = self.arriving.take(from, kibibytes(length)).await;
            read_body(stream, length).await.map(|request| (request, place))
        };
        timeout(ARRIVAL_DEADLINE, arriving).await.ok()?.ok()
    }

    async fn answer(&self, from: &Sender, request: CacheRequest) -> Answer {
        Answer::Now(match request {
            CacheRequest::Announce { result, blobs } => return self.announced(from, &result, blobs).await,
            CacheRequest::Find { action } => CacheReply::Found(self.find(action).await),
            CacheRequest::Hints { key } => CacheReply::Hints(self.hints(key).await),
            CacheRequest::Hint { key, hint } => {
                self.add_hint(key, hint).await;
                CacheReply::Noted
            }
            CacheRequest::Holds { actions } => CacheReply::Held(self.holds(actions).await),
            CacheRequest::Claim { action, nonce } => match self.find(action).await {
                Some(found) => CacheReply::Found(Some(found)),
                None if self.kept.claims().claim(action, (from.peer(), nonce)) => CacheReply::Claimed,
                None => CacheReply::Coming,
            },
            CacheRequest::Await { action } => self.awaited(action).await,
            CacheRequest::Release { claims } => {
                for (action, nonce) in &claims {
                    self.kept.claims().release(action, (from.peer(), *nonce));
                }
                CacheReply::Noted
            }
            CacheRequest::Doubles => CacheReply::Doubles(self.doubles.told()),
            CacheRequest::Filter { known } => {
                let kept = self.kept.clone();
                // An empty answer is one of another filter: it is asked for anew.
                let made = tokio::task::spawn_blocking(move || kept.filter(known)).await;
                let nothing =
                    |_| FilterUpdate { mark: FilterMark { epoch: 0, n_added: 0 }, whole: None, added: Vec::new() };
                CacheReply::Filter(made.unwrap_or_else(nothing))
            }
        })
    }

    /// Waits for the end of somebody's run.
    async fn awaited(&self, action: Digest) -> CacheReply {
        let Some(mut over) = self.kept.claims().waiter(&action) else {
            return CacheReply::Found(self.find(action).await);
        };
        match timeout(Duration::from_millis(AWAIT_INTERVAL_MS), over.changed()).await {
            // However it ended.
            Ok(_) => CacheReply::Found(self.find(action).await),
            Err(_) => CacheReply::Coming,
        }
    }

    /// Which of these need not be brought here.
    async fn holds(&self, actions: Vec<Digest>) -> Vec<bool> {
        let usage = self.store.usage();
        if usage.bytes > usage.max_bytes / 100 * FULL_PERCENT {
            return vec![true; actions.len()];
        }
        let store = self.store.clone();
        let n_actions = actions.len();
        let looking = move || actions.iter().map(|action| is_complete(&store, action)).collect();
        tokio::task::spawn_blocking(looking).await.unwrap_or_else(|_| vec![true; n_actions])
    }

    async fn find(&self, action: Digest) -> Option<Bytes> {
        if !self.store.has_result(&action) {
            return None;
        }
        let store = self.store.clone();
        let found = tokio::task::spawn_blocking(move || complete_result(&store, &action)).await;
        let found = found.ok().flatten()?;
        // Whether others have it, too, is looked at some time.
        let _ = self.read.try_send(action);
        Some(Bytes(found.to_canonical()))
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
        match added {
            Ok(Ok(())) => self.kept.hints(&key),
            Ok(Err(error)) => tracing::debug!(key = %key.short(), %error, "a hint is not kept"),
            Err(_) => {}
        }
    }

    async fn announced(&self, from: &Sender, result: &Bytes, blobs: Vec<Bytes>) -> Answer {
        let refused = |code, error: &dyn std::fmt::Display| {
            Answer::Now(CacheReply::Refused(WireError::new(code, Retry::Never, error)))
        };
        let Sender::Member { peer, role, .. } = from else {
            return refused(ErrorCode::Refused, &"only members announce results");
        };
        if blobs.iter().map(|blob| blob.0.len()).sum::<usize>() > MAX_ANNOUNCED_BYTES {
            return refused(ErrorCode::Invalid, &"too much is announced at once");
        }
        let result = match SignedResult::from_canonical(&result.0) {
            Ok(result) => result,
            Err(error) => return refused(ErrorCode::Invalid, &error),
        };
        // Of clients no result counts, but what their own tools keep here.
        let is_own_entry = || Entry::of(&result.result).is_some_and(|entry| entry.by == *peer);
        if *role != Role::Agent && !is_own_entry() {
            return refused(ErrorCode::Refused, &"only agents announce results of actions");
        }
        #[cfg(debug_assertions)]
        buildbee_store::fault::point("announced");
        let (action, mut named) = (result.result.action, blobs_of(&result.result));
        let is_entry = Entry::of(&result.result).is_some();
        match self.adopter.adopt(Announced { by: *peer, result, blobs }).await {
            Ok(Adopted::Stored) => {
                if is_entry {
                    // Of two values the newer one stays, and the other is of no use.
                    named.retain(|blob| self.store.contains(blob));
                }
                Answer::Kept(self.lasting.ask(action, named))
            }
            Ok(Adopted::Waits) => Answer::Now(CacheReply::Noted),
            Err(error) => {
                tracing::debug!(action = %action.short(), peer = %peer.short(), %error, "result not taken in");
                let (code, retry) = if error.may_pass() {
                    (ErrorCode::Busy, Retry::SameAgent)
                } else {
                    (ErrorCode::Invalid, Retry::Never)
                };
                Answer::Now(CacheReply::Refused(WireError::new(code, retry, error)))
            }
        }
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

/// The same question where nobody wants the result: it does not count as used. Touches the disk.
fn is_complete(store: &Store, action: &Digest) -> bool {
    let found = store.peek_result(action).ok().flatten();
    found.is_some_and(|found| store.missing(&blobs_of(&found.result)).is_empty())
}
