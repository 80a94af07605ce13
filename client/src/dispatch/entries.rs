//! Entries of other tools' caches ([`buildbee_proto::entry`]) at the peers responsible for them: asks for one, fetches its value, tells of one.
//!
//! Who answers is believed nothing: what is an entry, whose word counts and which is the newest is [`crate::entries`]' to say, and a value is what
//! its digest says.

use std::sync::Arc;
use std::time::Duration;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::Retry;
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::filter::of_result;
use buildbee_proto::limits::MAX_ANNOUNCED_BYTES;
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::first;

use super::farm::Farm;
use super::lender::Source;
use super::lookup::{DEADLINE, News, fetch, whom};

/// A peer says within this time that it stores an entry, or that it is going to.
const TOLD_DEADLINE: Duration = Duration::from_secs(3);
/// Pause before peers are asked whether they have it by now; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(30);
/// How often they are told: for some 4 s.
const MAX_ROUNDS: u32 = 8;

/// What the peers that may have the entry under `key` say it is. Never an error: who does not answer has nothing.
pub async fn ask(farm: &Farm, key: &Digest) -> Vec<(PeerId, SignedResult)> {
    farm.settled().await;
    let Some(roster) = farm.roster() else { return Vec::new() };
    let (streams, filters, responsive) = (farm.cache_streams(), farm.filters(), farm.responsive_agents());
    filters.update(streams, &responsive);
    // Nothing else finds what was put since the last news.
    let peers = whom(&roster.value, &responsive, filters, (key, News::Count), of_result(key));
    let asked = peers.into_iter().map(|peer| async move {
        let request = [CacheRequest::Find { action: *key }];
        (peer, tokio::time::timeout(DEADLINE, streams.ask(peer, &request)).await)
    });
    let mut found = Vec::new();
    for (peer, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(Ok(replies)) => {
                filters.answers(&peer);
                let results = replies.into_iter().filter_map(|reply| match reply {
                    CacheReply::Found(Some(bytes)) => SignedResult::from_canonical(&bytes.0).ok(),
                    _ => None,
                });
                found.extend(results.map(|result| (peer, result)));
            }
            Ok(Err(error)) => tracing::debug!(peer = %peer.short(), %error, "a peer could not be asked for an entry"),
            Err(_) => filters.silent(peer),
        }
    }
    found
}

/// The value that `signed` names, from `peer`.
pub async fn value(farm: &Farm, peer: PeerId, signed: SignedResult, value: &Digest) -> Option<Vec<u8>> {
    let fetched = fetch(farm.node(), peer, signed).await;
    let fetched =
        fetched.inspect_err(|error| tracing::debug!(peer = %peer.short(), %error, "an entry's value did not come"));
    fetched.ok()?.blobs.remove(value)
}

/// Tells those who should keep an entry that are there now. True once all of them store it.
pub async fn tell(farm: &Farm, signed: &SignedResult, value: Option<(Digest, Arc<[u8]>)>) -> bool {
    let key = signed.result.action;
    let small = value.as_ref().filter(|(_, content)| content.len() <= MAX_ANNOUNCED_BYTES);
    let blobs =
        small.map(|(_, content)| Bytes(content.to_vec())).into_iter().filter(|blob| !blob.0.is_empty()).collect();
    let request = [CacheRequest::Announce { result: Bytes(signed.to_canonical()), blobs }];
    // What does not come along is fetched from here.
    let _loan = farm.lend_blobs(value.map(|(digest, content)| (digest, Source::Bytes(content))));
    let (mut done, mut n_kept) = (Vec::new(), 0);
    let mut pause = FIRST_PAUSE;
    for _ in 0..MAX_ROUNDS {
        let Some(roster) = farm.roster() else { return false };
        let responsive = farm.responsive_agents();
        let holders = first(&key, &roster.value, |peer| responsive.contains(peer));
        let (streams, request) = (farm.cache_streams(), &request);
        let telling = holders
            .into_iter()
            .filter(|peer| !done.contains(peer))
            .map(|peer| async move { (peer, tokio::time::timeout(TOLD_DEADLINE, streams.ask(peer, request)).await) });
        let told = futures::future::join_all(telling).await;
        let mut all = true;
        for (peer, answer) in told {
            match answer.ok().and_then(Result::ok).and_then(|replies| replies.into_iter().next()) {
                Some(CacheReply::Kept) => {
                    done.push(peer);
                    n_kept += 1;
                }
                Some(CacheReply::Refused(error)) if error.retry == Retry::Never => {
                    tracing::info!(peer = %peer.short(), key = %key.short(), %error, "an entry is refused");
                    done.push(peer);
                }
                _ => all = false,
            }
        }
        if all {
            return n_kept > 0;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    false
}
