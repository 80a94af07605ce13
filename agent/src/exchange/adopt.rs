//! Takes in results that other agents announce, and [entries](buildbee_proto::entry) of members' other tools: checks who ran and signed them,
//! stores them with their blobs, which come along or are fetched.
//!
//! What comes with all it needs is stored at once, and the announcer is told so. What has to be fetched waits its turn, one result at a time: it
//! is not urgent, and must not compete with inputs of actions; the announcer asks again. Not here: whether this agent is responsible for the
//! key, which is the announcer's judgement; the store's size bounds what a zealous one can do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buildbee_p2p::identity::verify_result;
use buildbee_p2p::node::Node;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::entry::Entry;
use buildbee_proto::limits::MAX_OUTPUT_BYTES;
use buildbee_proto::membership::Roster;
use buildbee_proto::outcome::{ActionResult, SignedResult};
use buildbee_proto::peer::PeerId;
use buildbee_store::{PutError, Store};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::blobs_of;
use super::cache::complete_result;
use super::fetch::{FetchError, Fetcher, Sources};
use super::kept::Kept;

/// Announcements that may wait.
const MAX_WAITING: usize = 64;
/// How far the clocks of two members may be apart. An entry from the future would be the newest until then.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(24 * 3600);

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

/// Why a result was not taken in.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// Somebody made it up.
    #[error("its signature does not hold")]
    Forged,
    /// No sandbox of a member's made it.
    #[error("it did not run in an agent's sandbox")]
    Untrusted,
    /// It would be the newest for long.
    #[error("it was put in the future: the clock of one of the two machines is wrong")]
    Future,
    /// Failures may have any cause.
    #[error("the program failed, which is not kept")]
    Failure,
    /// It is larger than any action's outputs may be.
    #[error("its outputs are too large")]
    TooLarge,
    /// Too many wait.
    #[error("too many announcements are waiting")]
    Busy,
    /// Its blobs did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The store did not take it.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The agent is stopping.
    #[error("storing it ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl AdoptError {
    /// Whether the same announcement may be heard with more luck later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Put(error) => !matches!(error, PutError::Mismatch { .. }),
            Self::Busy | Self::Fetch(_) | Self::Task(_) => true,
            Self::Forged | Self::Untrusted | Self::Future | Self::Failure | Self::TooLarge => false,
        }
    }
}

/// What became of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is stored, with all its blobs.
    Stored,
    /// Its blobs are to be fetched.
    Waits,
}

/// Takes results in. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Adopter {
    node: Node,
    store: Store,
    kept: Kept,
    waiting: mpsc::Sender<Announced>,
}

/// Into `store`; what has to be fetched goes to [`adopt_task`], by the queue that is returned.
pub fn adopter(node: Node, store: Store, kept: Kept) -> (Adopter, mpsc::Receiver<Announced>) {
    let (waiting, queue) = mpsc::channel(MAX_WAITING);
    (Adopter { node, store, kept, waiting }, queue)
}

/// Fetches what waits until `stop`.
pub async fn adopt_task(
    adopter: Adopter,
    fetcher: Fetcher,
    mut waiting: mpsc::Receiver<Announced>,
    stop: CancellationToken,
) {
    while let Some(Some(one)) = stop.run_until_cancelled(waiting.recv()).await {
        let (action, by) = (one.result.result.action, one.by);
        match stop.run_until_cancelled(adopter.fetch(&fetcher, one)).await {
            Some(Ok(())) => tracing::debug!(action = %action.short(), peer = %by.short(), "result taken in"),
            Some(Err(error)) => {
                tracing::debug!(action = %action.short(), peer = %by.short(), %error, "result not taken in");
            }
            None => return,
        }
    }
}

impl Adopter {
    /// Stores what is announced if all of it is here, and notes it otherwise.
    pub async fn adopt(&self, announced: Announced) -> Result<Adopted, AdoptError> {
        let blobs = self.check(&announced)?;
        let came_along = announced.blobs.len() == blobs.len();
        if !came_along && !self.store.missing(&blobs).is_empty() {
            self.waiting.try_send(announced).map_err(|_| AdoptError::Busy)?;
            #[cfg(debug_assertions)]
            buildbee_store::fault::point("put-off");
            return Ok(Adopted::Waits);
        }
        self.put(announced, blobs).await?;
        Ok(Adopted::Stored)
    }

    /// The blobs that it needs, if it may be kept.
    fn check(&self, announced: &Announced) -> Result<Vec<Digest>, AdoptError> {
        let result = &announced.result.result;
        if result.exit_code != 0 {
            return Err(AdoptError::Failure);
        }
        let (runner, entry) = (result.provenance.peer, Entry::of(result));
        let is_trusted =
            runner == announced.by || self.node.roster().is_some_and(|roster| counts(&roster.value, result));
        if !is_trusted || !(result.provenance.sandboxed || entry.is_some()) {
            return Err(AdoptError::Untrusted);
        }
        if entry.is_some_and(|entry| entry.put_at_ms > latest_ms()) {
            return Err(AdoptError::Future);
        }
        let blobs = blobs_of(result);
        let n_bytes = blobs.iter().fold(0u64, |sum, digest| sum.saturating_add(digest.size_bytes));
        if n_bytes > MAX_OUTPUT_BYTES {
            return Err(AdoptError::TooLarge);
        }
        Ok(blobs)
    }

    async fn fetch(&self, fetcher: &Fetcher, announced: Announced) -> Result<(), AdoptError> {
        let blobs = self.check(&announced)?;
        let _pin = self.store.pin(blobs.iter().copied());
        fetcher.fetch(&blobs, &Sources { origin: announced.by, likely: Vec::new() }).await?;
        #[cfg(debug_assertions)]
        buildbee_store::fault::point("fetched");
        self.put(Announced { blobs: Vec::new(), ..announced }, blobs).await
    }

    /// Stores a result whose blobs came along or are here.
    async fn put(&self, announced: Announced, blobs: Vec<Digest>) -> Result<(), AdoptError> {
        let (store, kept, roster) = (self.store.clone(), self.kept.clone(), self.node.roster());
        let putting = tokio::task::spawn_blocking(move || {
            let Announced { result, blobs: contents, .. } = announced;
            let action = result.result.action;
            // What was made by somebody who was sent away since has to make room.
            let stays = |known: &SignedResult| {
                let is_trusted = roster.as_ref().is_none_or(|roster| counts(&roster.value, &known.result));
                is_trusted && !replaces(&result.result, &known.result)
            };
            if complete_result(&store, &action).is_some_and(|known| stays(&known)) {
                return Ok(());
            }
            if !verify_result(&result) {
                return Err(AdoptError::Forged);
            }
            let _pin = store.pin(blobs.iter().copied());
            // Each is checked.
            blobs.iter().zip(&contents).try_for_each(|(digest, content)| store.put_expected(digest, &content.0))?;
            #[cfg(debug_assertions)]
            buildbee_store::fault::point("blobs-adopted");
            store.put_result(&result)?;
            #[cfg(debug_assertions)]
            buildbee_store::fault::point("result-adopted");
            kept.result(&action);
            Ok(())
        });
        putting.await?
    }
}

/// Whether it comes from somebody whose word counts for what it is.
fn counts(roster: &Roster, result: &ActionResult) -> bool {
    let by = &result.provenance.peer;
    roster.has_agent(by) || Entry::of(result).is_some() && roster.has_peer(by)
}

/// Of one action any result will do; of entries with one name the newest counts.
fn replaces(new: &ActionResult, known: &ActionResult) -> bool {
    match (Entry::of(new), Entry::of(known)) {
        (Some(new), Some(known)) => new.is_newer_than(&known),
        _ => false,
    }
}

/// When an entry may have been put at the latest: clocks differ.
fn latest_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from((now + MAX_CLOCK_DIFFERENCE).as_millis()).unwrap_or(u64::MAX)
}
