//! Tells the peers responsible for a portable key where the compile was done before. ([`lookup`](super::lookup) asks them.)
//!
//! Nobody believes a hint, and nobody waits for one to be kept: what fails here is a hint less. Hints of one moment travel together, since a
//! message costs a tiny compile more than what is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::CacheRequest;
use buildbee_proto::hint::Hint;
use buildbee_proto::membership::Roster;
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::keepers;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::cache_streams::CacheStreams;
use super::farm::Farm;

/// A peer notes what it is told at once within this time, or is passed over.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long others are waited for that may go along.
const GATHERED_FOR: Duration = Duration::from_millis(100);
/// Told at once.
const MAX_TOLD: usize = 64;
/// Hints that may wait; what comes then is not told of.
const MAX_WAITING: usize = 1024;

type Told = (Digest, Hint);

/// Where hints are handed in.
#[derive(Clone, Debug)]
pub struct Hints(mpsc::Sender<Told>);

/// The other end of [`Hints`], for [`hints_task`].
#[derive(Debug)]
pub struct ToTell(mpsc::Receiver<Told>);

/// A queue for hints.
pub fn hints() -> (Hints, ToTell) {
    let (queue, waiting) = mpsc::channel(MAX_WAITING);
    (Hints(queue), ToTell(waiting))
}

impl Hints {
    /// Has the keepers of `key` told soon. Never waits.
    pub fn tell(&self, key: Digest, hint: Hint) {
        if self.0.try_send((key, hint)).is_err() {
            tracing::debug!("too many results are being told of; one is not");
        }
    }
}

/// Tells of what is handed in until `stop`, and then of what still waits.
pub async fn hints_task(farm: Farm, ToTell(mut queue): ToTell, stop: CancellationToken) {
    let mut is_over = false;
    while !is_over {
        let mut told = Vec::new();
        match stop.run_until_cancelled(queue.recv()).await {
            Some(None) => return,
            Some(Some(first)) => told.push(first),
            None => is_over = true,
        }
        let until = Instant::now() + GATHERED_FOR;
        while told.len() < MAX_TOLD {
            match stop.run_until_cancelled(timeout_at(until, queue.recv())).await {
                Some(Ok(Some(next))) => told.push(next),
                Some(Ok(None) | Err(_)) => break,
                None => match queue.try_recv() {
                    Ok(next) => told.push(next),
                    Err(_) => break,
                },
            }
        }
        if let Some(roster) = farm.roster() {
            let by_peer = by_peer(told, &roster.value, &farm.responsive_agents());
            join_all(by_peer.into_iter().map(|(peer, requests)| tell(farm.cache_streams(), peer, requests))).await;
        }
    }
}

/// Who of `responsive` is told what.
fn by_peer(told: Vec<Told>, roster: &Roster, responsive: &[PeerId]) -> BTreeMap<PeerId, Vec<CacheRequest>> {
    let mut by_peer: BTreeMap<PeerId, Vec<CacheRequest>> = BTreeMap::new();
    for (key, hint) in told {
        for peer in keepers(&key, roster).into_iter().filter(|peer| responsive.contains(peer)) {
            by_peer.entry(peer).or_default().push(CacheRequest::Hint { key, hint: hint.clone() });
        }
    }
    by_peer
}

async fn tell(streams: &CacheStreams, peer: PeerId, requests: Vec<CacheRequest>) {
    match timeout(DEADLINE, streams.ask(peer, &requests)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(peer = %peer.short(), %error, "a peer could not be told of results"),
        Err(_) => tracing::debug!(peer = %peer.short(), "a peer took too long to note results"),
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::peer::Role;

    use super::*;

    #[test]
    fn each_keeper_is_told_of_its_own() {
        let peers: Vec<PeerId> = (0..5).map(|n| PeerId([n; 32])).collect();
        let members = peers.iter().map(|peer| (*peer, Role::Agent)).collect();
        let roster = Roster { farm: PeerId([9; 32]), version: 1, members, revoked: Vec::new() };
        let keys: Vec<Digest> = (0u8..40).map(|n| Digest::of(&[n])).collect();
        let told: Vec<Told> = keys.iter().map(|key| (*key, Hint { roots: Vec::new(), action: *key })).collect();
        let responsive = &peers[1..];
        let by_peer = by_peer(told, &roster, responsive);
        assert!(by_peer.keys().all(|peer| responsive.contains(peer)));
        for peer in responsive {
            let expected: Vec<Digest> =
                keys.iter().copied().filter(|key| keepers(key, &roster).contains(peer)).collect();
            let told: Vec<Digest> = by_peer[peer]
                .iter()
                .map(|request| match request {
                    CacheRequest::Hint { key, .. } => *key,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(told, expected);
        }
    }
}
