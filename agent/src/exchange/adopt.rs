//! Takes in results that other agents announce: checks who ran and signed them, stores them with their blobs, which come along or are
//! fetched.
//!
//! One task, one result at a time: this is not urgent, and must not compete with inputs of actions. Not here: whether this agent is
//! responsible for the key, which is the announcer's judgement; the store's size bounds what a zealous one can do.

use buildbee_p2p::identity::verify_result;
use buildbee_p2p::node::Node;
use buildbee_proto::limits::MAX_OUTPUT_BYTES;
use buildbee_store::{PutError, Store};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::blobs_of;
use super::cache::{Announced, complete_result};
use super::fetch::{FetchError, Fetcher, Sources};

/// Announcements that may wait.
pub const MAX_ANNOUNCED: usize = 64;

/// Why a result was not taken in.
#[derive(Debug, Error)]
enum AdoptError {
    #[error("its signature does not hold")]
    Forged,
    #[error("it did not run in an agent's sandbox")]
    Untrusted,
    #[error("the program failed, which is not kept")]
    Failure,
    #[error("there is a result of this action already")]
    Present,
    #[error("its outputs are too large")]
    TooLarge,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Put(#[from] PutError),
    #[error("storing it ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Works announcements off until `stop`.
pub async fn adopt_task(
    node: Node,
    store: Store,
    fetcher: Fetcher,
    mut announced: mpsc::Receiver<Announced>,
    stop: CancellationToken,
) {
    while let Some(Some(one)) = stop.run_until_cancelled(announced.recv()).await {
        let action = one.result.result.action;
        let by = one.by;
        match stop.run_until_cancelled(adopt(&node, &store, &fetcher, one)).await {
            Some(Ok(())) => tracing::debug!(action = %action.short(), peer = %by.short(), "result taken in"),
            Some(Err(error)) => {
                tracing::debug!(action = %action.short(), peer = %by.short(), %error, "result not taken in");
            }
            None => return,
        }
    }
}

async fn adopt(node: &Node, store: &Store, fetcher: &Fetcher, announced: Announced) -> Result<(), AdoptError> {
    let Announced { by, result: signed, blobs: contents } = announced;
    let result = &signed.result;
    if result.exit_code != 0 {
        return Err(AdoptError::Failure);
    }
    let runner = result.provenance.peer;
    let enrolled = || node.roster().is_some_and(|roster| roster.value.has_agent(&runner));
    if !result.provenance.sandboxed || !(runner == by || enrolled()) {
        return Err(AdoptError::Untrusted);
    }
    if !verify_result(&signed) {
        return Err(AdoptError::Forged);
    }
    let (looking, action) = (store.clone(), result.action);
    if store.has_result(&action)
        && tokio::task::spawn_blocking(move || complete_result(&looking, &action)).await?.is_some()
    {
        return Err(AdoptError::Present);
    }
    let blobs = blobs_of(result);
    let n_bytes = blobs.iter().fold(0u64, |sum, digest| sum.saturating_add(digest.size_bytes));
    if n_bytes > MAX_OUTPUT_BYTES {
        return Err(AdoptError::TooLarge);
    }
    let _pin = store.pin(blobs.iter().copied());
    let came_along = contents.len() == blobs.len();
    if !came_along {
        fetcher.fetch(&blobs, &Sources { origin: by, likely: Vec::new() }).await?;
    }
    let store = store.clone();
    let putting = tokio::task::spawn_blocking(move || {
        if came_along {
            // Each is checked.
            blobs.iter().zip(&contents).try_for_each(|(digest, content)| store.put_expected(digest, &content.0))?;
        }
        store.put_result(&signed)
    });
    Ok(putting.await??)
}
