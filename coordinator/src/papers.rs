//! What members tell the coordinator of the farm, and it them: rosters it has lost, memberships anew, and where it listens.
//!
//! Life: [`Papers::consult_task`] asks everybody who connects for a roster that is news, and dials the members that were named at the start
//! while nobody is there; [`Papers::answer`] serves a stream. A coordinator whose list was lost tells nobody its roster before it has
//! asked them for theirs, or a revocation that they alone know of would be overwritten. Not here: what follows from a roster
//! (`crate::membership::recovery`).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_p2p::node::{ConnectedPeer, Node, OpenError, PeerStream};
use buildbee_p2p::papers::{AskError, ask, question, reply};
use buildbee_p2p::shares::Shares;
use buildbee_p2p::tasks::Tasks;
use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::Bytes;
use buildbee_proto::membership::{Roster, Signed};
use buildbee_proto::papers::{PapersReply, PapersRequest};
use buildbee_proto::peer::{PeerId, Role};
use tokio::sync::Semaphore;

use crate::clock::unix_now;
use crate::membership::farm::{Farm, FarmError};

/// Members that are asked at a time. Others wait.
const MAX_CONSULTED: usize = 16;
/// Streams that are answered at a time; one more is reset, and its opener asks again. Each may write to the disk.
const MAX_ANSWERED: usize = 8;
/// Those of one member.
const MAX_ANSWERED_EACH: usize = 2;
/// How often a member is asked that does not answer. After that it hears nothing until it connects anew.
const MAX_CONSULTATIONS: usize = 3;
const CONSULTATION_PAUSE: Duration = Duration::from_secs(1);
/// How often named members are dialled while nobody is there.
const MEETING_INTERVAL: Duration = Duration::from_secs(3);

/// The coordinator's side. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Papers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    farm: Arc<Farm>,
    node: Node,
    /// Where members reach this coordinator.
    addresses: Vec<String>,
    /// Whether the list of members was lost once.
    was_lost: AtomicBool,
    /// Who has been asked since they connected. Bounded by the node's connections.
    consulted: Mutex<HashSet<PeerId>>,
    answering: Semaphore,
    shares: Shares,
}

impl Papers {
    /// Of `farm`'s coordinator, which members reach at `addresses`. Blocks on the disk.
    pub fn new(farm: Arc<Farm>, node: Node, addresses: Vec<String>) -> Result<Self, FarmError> {
        let was_lost = AtomicBool::new(farm.was_lost()?);
        let (answering, shares) = (Semaphore::new(MAX_ANSWERED), Shares::new(MAX_ANSWERED_EACH));
        let consulted = Mutex::default();
        Ok(Self(Arc::new(Inner { farm, node, addresses, was_lost, consulted, answering, shares })))
    }

    fn consulted(&self) -> MutexGuard<'_, HashSet<PeerId>> {
        // Nothing that holds the lock can leave the set half changed.
        self.0.consulted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `peer` may hear the roster: it has said what it knows, or there is nothing that it could know.
    pub fn may_be_told(&self, peer: PeerId) -> bool {
        !self.0.was_lost.load(Ordering::Relaxed) || self.consulted().contains(&peer)
    }

    /// Answers a member's question. Takes some seconds at most.
    pub async fn answer(&self, peer: PeerId, role: Role, name: &str, mut stream: PeerStream) {
        let Some(_share) = self.0.shares.take(peer) else { return };
        let Ok(_permit) = self.0.answering.try_acquire() else { return };
        let Some(PapersRequest { roster_newer_than: _, renew }) = question(&mut stream).await else { return };
        let (farm, name) = (Arc::clone(&self.0.farm), name.to_owned());
        let vouched = tokio::task::spawn_blocking(move || farm.vouch(peer, role, &name, renew, unix_now())).await;
        let membership = match vouched {
            Ok(Ok(vouched)) => {
                self.publish(vouched.roster);
                vouched.membership.map(|membership| Bytes(membership.to_canonical()))
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a member could not be written down");
                None
            }
            Err(_) => None,
        };
        // The roster goes over the control stream, where it is known who has been asked.
        let answer = PapersReply { roster: None, coordinator: self.0.addresses.clone(), membership };
        reply(&mut stream, &answer).await;
    }

    fn publish(&self, roster: Option<Signed<Roster>>) {
        let Some(roster) = roster else { return };
        if let Err(error) = self.0.node.set_roster(roster) {
            tracing::error!(%error, "the own roster is not taken: this is a bug");
        }
    }

    /// Asks whoever connects, until the node stops; dials `members` while nobody is there.
    pub async fn consult_task(self, members: Vec<String>, tasks: Tasks) {
        let (mut peers, stop) = (self.0.node.peers(), tasks.token());
        let permits = Arc::new(Semaphore::new(MAX_CONSULTED));
        let mut asked: HashSet<PeerId> = HashSet::new();
        loop {
            let table = peers.borrow_and_update().clone();
            asked.retain(|peer| table.contains(*peer));
            self.consulted().retain(|peer| table.contains(*peer));
            if table.0.is_empty() {
                for member in &members {
                    if let Err(error) = self.0.node.meet(member).await {
                        tracing::warn!(%member, %error, "a member that was named can't be dialled");
                    }
                }
            }
            for peer in table.0.iter().map(|entry| entry.peer).filter(|peer| asked.insert(*peer)) {
                let (papers, permits, stop) = (self.clone(), Arc::clone(&permits), stop.clone());
                tasks.spawn("consult", async move {
                    let Ok(_permit) = permits.acquire().await else { return };
                    stop.run_until_cancelled(papers.consult(peer)).await;
                });
            }
            tokio::select! {
                changed = peers.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(MEETING_INTERVAL), if table.0.is_empty() && !members.is_empty() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn consult(&self, peer: PeerId) {
        // Whoever lost their list can learn from old rosters, too.
        let was_lost = self.0.was_lost.load(Ordering::Relaxed);
        let known = self.0.node.roster().map_or(0, |roster| roster.value.version);
        let request = PapersRequest { roster_newer_than: if was_lost { 0 } else { known }, renew: false };
        for _ in 0..MAX_CONSULTATIONS {
            match ask(&self.0.node, peer, &request).await {
                Ok(PapersReply { roster: Some(bytes), .. }) => self.learn(peer, &bytes.0).await,
                // Of an older version: there is nothing to wait for.
                Ok(_) | Err(AskError::Open(OpenError::Unsupported { .. })) => {}
                Err(error) => {
                    tracing::debug!(peer = %peer.short(), %error, "its roster is not known");
                    tokio::time::sleep(CONSULTATION_PAUSE).await;
                    continue;
                }
            }
            if self.0.node.peers().borrow().contains(peer) {
                self.consulted().insert(peer);
            }
            return self.adopt(|entry| entry.peer == peer).await;
        }
    }

    /// Writes members down that are connected, and that the list does not know, or not by name.
    async fn adopt(&self, which: impl Fn(&ConnectedPeer) -> bool) {
        let table = self.0.node.peers().borrow().clone();
        let members: Vec<ConnectedPeer> = table.0.iter().filter(|entry| which(entry)).cloned().collect();
        let farm = Arc::clone(&self.0.farm);
        let adopt = move || {
            let now = unix_now();
            let vouch = |member: ConnectedPeer| farm.vouch(member.peer, member.role, &member.name, false, now);
            members.into_iter().map(vouch).collect::<Result<Vec<_>, FarmError>>()
        };
        match tokio::task::spawn_blocking(adopt).await {
            Ok(Ok(vouched)) => vouched.into_iter().for_each(|vouched| self.publish(vouched.roster)),
            Ok(Err(error)) => tracing::error!(%error, "members could not be written down"),
            Err(_) => {}
        }
    }

    async fn learn(&self, peer: PeerId, bytes: &[u8]) {
        let Ok(roster) = Signed::<Roster>::from_canonical(bytes) else {
            return tracing::warn!(peer = %peer.short(), "sent a malformed roster");
        };
        let version = roster.value.version;
        let farm = Arc::clone(&self.0.farm);
        match tokio::task::spawn_blocking(move || farm.merge(&roster, unix_now())).await {
            Ok(Ok(None)) | Err(_) => {}
            Ok(Ok(merged)) => {
                self.0.was_lost.store(true, Ordering::Relaxed);
                let n_members = merged.as_ref().map_or(0, |roster| roster.value.members.len());
                tracing::warn!(
                    peer = %peer.short(), version, n_members,
                    "a member knew more of the farm than this coordinator's folder: the list of members is whole again"
                );
                self.publish(merged);
                // Those who came before there was a list.
                self.adopt(|_| true).await;
            }
            Ok(Err(error)) => tracing::warn!(peer = %peer.short(), %error, "a roster is not taken"),
        }
    }
}
