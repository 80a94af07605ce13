//! Asks the peers that may hold an action's result for it, and where the same compile was done elsewhere.
//!
//! Which peers those are their filters say; where a peer's filter is not known it is asked if it is responsible. Whoever answers is believed nothing: a
//! result counts if an agent of the farm signed it for this very action, and its blobs if they are what their digests say.

use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::identity::verify_result;
use buildbee_p2p::node::Node;
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{BlobHeader, BlobRequest, CacheReply, CacheRequest};
use buildbee_proto::filter::{of_hints, of_result};
use buildbee_proto::hint::Hint;
use buildbee_proto::limits::MAX_BLOBS_PER_REQUEST;
use buildbee_proto::membership::Roster;
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::{RESULT_COPIES, ranked};
use buildbee_proto::version::Protocol;

use super::attempt::{AttemptError, MAX_RESULT_CONTENT_BYTES, RemoteResult, fits, named, read_blob, transfer_time};
use super::farm::Farm;
use super::filters::{Filters, Says};
use crate::inputs::discover::OutputPlace;

/// A peer answers within this time, or is passed over, and not asked for a while.
pub(super) const DEADLINE: Duration = Duration::from_millis(250);
/// Peers that are asked one question. One in four thousand says "perhaps" and has nothing.
const MAX_ASKED: usize = 4;

/// An action whose result is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its digest.
    pub action: &'a Digest,
    /// Its outputs, sorted.
    pub outputs: &'a [OutputPlace],
}

/// Whether what came since the last update of a filter counts, so that who should have it is asked in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing else would find it: results that hints lead to, and what other tools keep.
    Count,
    /// Nothing else would find it, but it may be overlooked for a moment: hints.
    MayBeLate,
    /// The claim on the action finds it.
    AreCaught,
}

/// What peers answered.
#[derive(Debug, Default)]
pub struct Answers {
    /// The result, with the id of the peer that keeps it.
    pub found: Option<(PeerId, RemoteResult)>,
    /// Where the same compile was done in other folders, without repetitions.
    pub hints: Vec<Hint>,
}

impl Answers {
    fn note(&mut self, hints: Vec<Hint>) {
        for hint in hints {
            if !self.hints.contains(&hint) {
                self.hints.push(hint);
            }
        }
    }
}

/// What one peer is asked: for a result, for hints, or for both.
struct Questions {
    peer: PeerId,
    requests: Vec<CacheRequest>,
}

/// Asks the peers that may have an action's result for it, and those that may have hints for `hints_for` where that is named. Never an error:
/// what can't be had is a miss.
pub async fn ask(farm: &Farm, roster: &Roster, wanted: Wanted<'_>, hints_for: Option<&Digest>, news: News) -> Answers {
    let (streams, filters, responsive) = (farm.cache_streams(), farm.filters(), farm.responsive_agents());
    filters.update(streams, &responsive);
    let asked = questions(roster, &responsive, filters, (wanted.action, news), hints_for);
    let asked = asked.into_iter().map(|Questions { peer, requests }| async move {
        (peer, tokio::time::timeout(DEADLINE, streams.ask(peer, &requests)).await)
    });
    let mut answers = Answers::default();
    let mut signed = Vec::new();
    for (peer, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(Ok(replies)) => {
                filters.answers(&peer);
                for reply in replies {
                    match reply {
                        CacheReply::Found(Some(bytes)) => signed.push((peer, bytes)),
                        CacheReply::Hints(more) => answers.note(more),
                        CacheReply::Refused(error) => {
                            tracing::debug!(peer = %peer.short(), %error, "a peer does not answer");
                        }
                        _ => {}
                    }
                }
            }
            Ok(Err(error)) => tracing::debug!(peer = %peer.short(), %error, "a peer could not be asked for a result"),
            Err(_) => {
                tracing::debug!(peer = %peer.short(), "a peer did not answer in time");
                filters.silent(peer);
            }
        }
    }
    for (peer, bytes) in signed {
        if let Some(result) = take(farm.node(), roster, peer, &bytes, wanted).await {
            answers.found = Some((peer, result));
            break;
        }
    }
    answers
}

/// The result in `bytes` with its content from `peer`, if it is what is `wanted` and all of it is good.
pub async fn take(
    node: &Node,
    roster: &Roster,
    peer: PeerId,
    bytes: &Bytes,
    wanted: Wanted<'_>,
) -> Option<RemoteResult> {
    match SignedResult::from_canonical(&bytes.0) {
        Ok(signed) if acceptable(&signed, roster, wanted) => {
            let fetched = fetch(node, peer, signed).await;
            let refused = |error| tracing::warn!(peer = %peer.short(), %error, "a cached result could not be fetched");
            fetched.map_err(refused).ok()
        }
        _ => {
            tracing::warn!(peer = %peer.short(), "refused a cached result that is not properly signed");
            None
        }
    }
}

/// Who of `responsive` may have what `fingerprint` stands for: by their filters, or else because they should have it.
pub(super) fn whom(
    roster: &Roster,
    responsive: &[PeerId],
    filters: &Filters,
    (key, news): (&Digest, News),
    fingerprint: u64,
) -> Vec<PeerId> {
    let order: Vec<PeerId> = ranked(key, responsive.iter().copied().filter(|peer| roster.has_agent(peer)));
    let asked = order.iter().enumerate().filter(|(place, peer)| match filters.say(peer, fingerprint) {
        Says::Perhaps => true,
        Says::No => news != News::AreCaught && *place < RESULT_COPIES,
        Says::FreshNo => news == News::Count && *place < RESULT_COPIES,
        Says::Silent => false,
        Says::Nothing => *place < RESULT_COPIES,
    });
    asked.map(|(_, peer)| *peer).take(MAX_ASKED).collect()
}

/// Who of `responsive` is asked what: keepers of the result first.
fn questions(
    roster: &Roster,
    responsive: &[PeerId],
    filters: &Filters,
    (action, news): (&Digest, News),
    hints_for: Option<&Digest>,
) -> Vec<Questions> {
    let whom = |key, news, fingerprint| whom(roster, responsive, filters, (key, news), fingerprint).into_iter();
    let finds = whom(action, news, of_result(action)).map(|peer| (peer, CacheRequest::Find { action: *action }));
    let hints = hints_for.into_iter().flat_map(|key| {
        whom(key, News::MayBeLate, of_hints(key)).map(|peer| (peer, CacheRequest::Hints { key: *key }))
    });
    let mut asked: Vec<Questions> = Vec::new();
    for (peer, request) in finds.chain(hints) {
        match asked.iter_mut().find(|known| known.peer == peer) {
            Some(known) => known.requests.push(request),
            None => asked.push(Questions { peer, requests: vec![request] }),
        }
    }
    asked
}

/// Good are results of this very action that succeeded in the sandbox of an agent of this farm.
fn acceptable(signed: &SignedResult, roster: &Roster, wanted: Wanted<'_>) -> bool {
    let result = &signed.result;
    result.exit_code == 0
        && fits(result, wanted.action, wanted.outputs).is_ok()
        && roster.has_agent(&result.provenance.peer)
        && verify_result(signed)
}

/// All content that `signed` names, from `peer`.
pub(super) async fn fetch(node: &Node, peer: PeerId, signed: SignedResult) -> Result<RemoteResult, AttemptError> {
    let n_bytes = named(&signed).keys().map(|digest| digest.size_bytes).fold(0u64, u64::saturating_add);
    if n_bytes > MAX_RESULT_CONTENT_BYTES {
        return Err(AttemptError::BadResult("it is too large"));
    }
    let reading = Box::pin(fetch_all(node, peer, signed));
    tokio::time::timeout(transfer_time(n_bytes), reading).await.map_err(|_| AttemptError::Silent)?
}

async fn fetch_all(node: &Node, peer: PeerId, signed: SignedResult) -> Result<RemoteResult, AttemptError> {
    let mut blobs = named(&signed);
    let digests: Vec<Digest> = blobs.keys().copied().collect();
    let mut stream = node.open(peer, Protocol::Blob).await?;
    for batch in digests.chunks(MAX_BLOBS_PER_REQUEST) {
        write_message(&mut stream, &BlobRequest::Get(batch.to_vec())).await?;
        for digest in batch {
            match tokio::time::timeout(DEADLINE * 4, read_message::<BlobHeader, _>(&mut stream)).await {
                Ok(Ok(Some(BlobHeader::Found))) => {
                    let content = read_blob(&mut stream, digest).await?;
                    blobs.insert(*digest, content);
                }
                Ok(Ok(Some(BlobHeader::Refused(error)))) => return Err(AttemptError::Refused(error)),
                Ok(Ok(Some(BlobHeader::Missing) | None)) => return Err(AttemptError::Gone),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(AttemptError::Silent),
            }
        }
    }
    Ok(RemoteResult { signed, blobs, sent_bytes: 0 })
}

#[cfg(test)]
mod tests {
    use buildbee_proto::peer::Role;
    use buildbee_proto::responsible::{in_order, keepers};

    use super::*;

    #[test]
    fn a_peer_is_asked_once_for_all_that_it_may_know() {
        let peers: Vec<PeerId> = (0..5).map(|n| PeerId([n; 32])).collect();
        let members = peers.iter().map(|peer| (*peer, Role::Agent)).collect();
        let roster = Roster { farm: PeerId([9; 32]), version: 1, members, revoked: Vec::new() };
        let (action, key) = (Digest::of(b"action"), Digest::of(b"key"));
        let asked = questions(&roster, &peers, &Filters::default(), (&action, News::AreCaught), Some(&key));
        for peer in &peers {
            let expected = [(keepers(&action, &roster), true), (keepers(&key, &roster), false)];
            let expected: Vec<bool> =
                expected.into_iter().filter(|(keepers, _)| keepers.contains(peer)).map(|(_, find)| find).collect();
            let found: Vec<&Questions> = asked.iter().filter(|questions| questions.peer == *peer).collect();
            assert!(found.len() <= 1);
            let requests = found.iter().flat_map(|questions| &questions.requests);
            let found: Vec<bool> = requests.map(|request| matches!(request, CacheRequest::Find { .. })).collect();
            assert_eq!(found, expected);
        }
        let without = in_order(&action, &roster)[0];
        let responsive: Vec<PeerId> = peers.iter().copied().filter(|peer| *peer != without).collect();
        let asked = questions(&roster, &responsive, &Filters::default(), (&action, News::AreCaught), None);
        assert!(asked.iter().all(|questions| questions.peer != without), "who does not respond is not asked");
        assert_eq!(asked.len(), RESULT_COPIES, "the next one is");
        let finds = questions(&roster, &peers, &Filters::default(), (&action, News::AreCaught), None);
        assert!(finds.iter().all(|questions| questions.requests.len() == 1));
        assert_eq!(finds.len(), keepers(&action, &roster).len());
    }
}
