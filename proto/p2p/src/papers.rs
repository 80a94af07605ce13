//! Keeps a member's papers good: the roster that others have heard of, a membership that does not run out, and where the coordinator is.
//!
//! Whoever is met is asked once (`Protocol::Papers`), so that revocations reach members that the coordinator does not, and a coordinator
//! that came back elsewhere is found through whoever found it first. While the coordinator is away, some peers are asked again and again.
//! Life: [`upkeep_task`](Papers::upkeep_task) runs beside an agent's or a client's node; [`Papers::answer`] serves others. Not here: what
//! a coordinator answers, who may be revoked, and the control stream.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::Bytes;
use buildbee_proto::limits::{MAX_ADDRESSES_PER_PEER, MAX_PAPERS_FRAME};
use buildbee_proto::membership::{Membership, Roster, Signed, UnixSeconds};
use buildbee_proto::papers::{PapersReply, PapersRequest};
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::enrolment::Enrolment;
use crate::event_loop::unix_now;
use crate::frames::{FrameError, read_message, write_message};
use crate::node::{Node, OpenError, PeerStream, check_roster};
use crate::private_file;
use crate::shares::Shares;

/// For how long one question may take, and one answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often peers are asked where the coordinator is, while it is away.
const SEARCH_INTERVAL: Duration = Duration::from_secs(4);
/// How many of them each time.
const MAX_SEARCHED: usize = 4;
/// How often the own membership is looked at.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// Questions that are answered at a time; one more is reset, and its asker asks somebody else.
const MAX_ANSWERED: usize = 8;
/// Those of one peer.
const MAX_ANSWERED_EACH: usize = 2;
/// Agents that are remembered for the next start.
const MAX_NEIGHBOURS: usize = 16;
/// Addresses of the coordinator that are tried on another member's word.
const MAX_HINTED_ADDRESSES: usize = 4;

/// Why a peer's papers are not known.
#[derive(Debug, Error)]
pub enum AskError {
    /// No stream. A peer of an older version does not know the protocol.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It took too long.
    #[error("no answer within {DEADLINE:?}")]
    Late,
    /// The stream ended first.
    #[error("the peer ended the stream without an answer")]
    Ended,
}

/// Asks `peer`.
pub async fn ask(node: &Node, peer: PeerId, request: &PapersRequest) -> Result<PapersReply, AskError> {
    let exchange = async {
        let mut stream = node.open(peer, Protocol::Papers).await?;
        write_message(&mut stream, request).await?;
        read_message::<PapersReply, _>(&mut stream).await?.ok_or(AskError::Ended)
    };
    timeout(DEADLINE, exchange).await.unwrap_or(Err(AskError::Late))
}

/// Reads one question. `None` if there is none that could be answered.
pub async fn question(stream: &mut PeerStream) -> Option<PapersRequest> {
    timeout(DEADLINE, read_message(stream)).await.ok()?.ok()?
}

/// Writes the answer to one.
pub async fn reply(stream: &mut PeerStream, reply: &PapersReply) {
    let write = async {
        write_message(stream, reply).await?;
        stream.shutdown().await.map_err(FrameError::Io)
    };
    // Whoever does not wait for the answer asks again.
    drop(timeout(DEADLINE, write).await);
}

/// The roster that an earlier run kept in `file`, if it is `farm`'s.
pub fn load_roster(file: &Path, farm: PeerId) -> Option<Signed<Roster>> {
    if fs::metadata(file).ok()?.len() > MAX_PAPERS_FRAME as u64 {
        return None;
    }
    let roster = Signed::<Roster>::from_canonical(&fs::read(file).ok()?).ok();
    let roster = roster.filter(|roster| check_roster(farm, roster).is_ok());
    if roster.is_none() {
        tracing::warn!(file = %file.display(), "the stored roster is of no use");
    }
    roster
}

/// A member's papers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Papers(Arc<Inner>);

/// Where a member keeps its papers.
#[derive(Clone, Debug)]
pub struct Files {
    /// What joining left.
    pub enrolment: PathBuf,
    /// The newest roster.
    pub roster: PathBuf,
    /// Where some agents were.
    pub neighbours: PathBuf,
}

type Neighbours = BTreeMap<PeerId, Vec<String>>;

#[derive(Debug)]
struct Inner {
    node: Node,
    files: Files,
    enrolment: Mutex<Enrolment>,
    answering: Semaphore,
    shares: Shares,
    /// Who may know where the coordinator is, and where they were.
    neighbours: watch::Sender<Neighbours>,
    /// Those of an earlier run, until it is known who is there now.
    earlier: Mutex<Neighbours>,
}

impl Papers {
    /// Of a node that was started with `enrolment`. The node stays connected to the coordinator from now on, and looks for the agents of an
    /// earlier run. Blocks on the disk.
    pub fn new(node: Node, enrolment: Enrolment, files: Files) -> Self {
        node.keep_connected(enrolment.coordinator, enrolment.addresses.clone());
        let earlier = private_file::read(&files.neighbours).ok().flatten();
        let earlier = earlier.map(|found| neighbours_in(&found.text)).unwrap_or_default();
        for (peer, addresses) in &earlier {
            node.keep_connected(*peer, addresses.clone());
        }
        let (neighbours, earlier) = (watch::Sender::new(earlier.clone()), Mutex::new(earlier));
        let (answering, shares) = (Semaphore::new(MAX_ANSWERED), Shares::new(MAX_ANSWERED_EACH));
        let enrolment = Mutex::new(enrolment);
        Self(Arc::new(Inner { node, files, enrolment, answering, shares, neighbours, earlier }))
    }

    fn enrolment(&self) -> MutexGuard<'_, Enrolment> {
        // Each change is one assignment.
        self.0.enrolment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes all agents, as the coordinator tells of them: some are remembered for a start at which the coordinator is somewhere else.
    pub fn remember<'a>(&self, agents: impl Iterator<Item = (PeerId, &'a [String])> + Clone) {
        // One exchange under the lock.
        let earlier = std::mem::take(&mut *self.0.earlier.lock().unwrap_or_else(PoisonError::into_inner));
        for gone in earlier.keys().filter(|peer| agents.clone().all(|(agent, _)| agent != **peer)) {
            self.0.node.let_go(*gone);
        }
        let own = self.0.node.peer();
        let listed: Neighbours = agents
            .filter(|(peer, addresses)| *peer != own && !addresses.is_empty())
            .map(|(peer, addresses)| (peer, addresses.iter().take(MAX_HINTED_ADDRESSES).cloned().collect()))
            .collect();
        let some = chosen(&self.0.neighbours.borrow(), listed);
        // None is no news: it may just have started.
        self.0.neighbours.send_if_modified(|known| {
            let is_news = !some.is_empty() && *known != some;
            if is_news {
                *known = some;
            }
            is_news
        });
    }

    fn has_coordinator(&self) -> bool {
        let coordinator = self.enrolment().coordinator;
        self.0.node.peers().borrow().contains(coordinator)
    }

    /// Answers `peer`'s question. Takes some seconds at most.
    pub async fn answer(&self, peer: PeerId, mut stream: PeerStream) {
        let Some(_share) = self.0.shares.take(peer) else { return };
        let Ok(_permit) = self.0.answering.try_acquire() else { return };
        let Some(PapersRequest { roster_newer_than, renew: _ }) = question(&mut stream).await else { return };
        let roster = self.0.node.roster().filter(|roster| roster.value.version > roster_newer_than);
        let coordinator = if self.has_coordinator() { self.enrolment().addresses.clone() } else { Vec::new() };
        let roster = roster.map(|roster| Bytes(roster.to_canonical()));
        reply(&mut stream, &PapersReply { roster, coordinator, membership: None }).await;
    }

    /// Asks, and keeps what comes of it, until `stop`.
    pub async fn upkeep_task(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.upkeep()).await;
    }

    async fn upkeep(&self) {
        let node = &self.0.node;
        let (mut peers, mut rosters) = (node.peers(), node.rosters());
        let mut neighbours = self.0.neighbours.subscribe();
        let coordinator = self.enrolment().coordinator;
        let mut asked = BTreeSet::new();
        let (mut search_at, mut renewal_at) = (Instant::now() + SEARCH_INTERVAL, Instant::now() + RENEWAL_INTERVAL);
        loop {
            let news = rosters.has_changed().unwrap_or(false).then(|| rosters.borrow_and_update().clone()).flatten();
            if let Some(roster) = news {
                self.keep(&self.0.files.roster, roster.to_canonical(), "the roster").await;
            }
            let table = peers.borrow_and_update().clone();
            let now = Instant::now();
            asked.retain(|peer| table.contains(*peer));
            if renewal_at <= now {
                renewal_at = now + RENEWAL_INTERVAL;
                if is_due(&self.enrolment().membership.value, unix_now()) {
                    asked.remove(&coordinator);
                }
            }
            if search_at <= now {
                search_at = now + SEARCH_INTERVAL;
                if !table.contains(coordinator) {
                    for peer in some_of(&asked, super::event_loop::random()) {
                        asked.remove(&peer);
                    }
                }
            }
            let strangers: Vec<_> = table.0.iter().map(|entry| entry.peer).filter(|peer| asked.insert(*peer)).collect();
            futures::future::join_all(strangers.chunks(strangers.len().div_ceil(MAX_SEARCHED).max(1)).map(
                |some| async move {
                    for peer in some {
                        self.consult(*peer, *peer == coordinator).await;
                    }
                },
            ))
            .await;
            tokio::select! {
                changed = peers.changed() => if changed.is_err() { return },
                changed = neighbours.changed() => if changed.is_ok() {
                    let text = text_of(&neighbours.borrow_and_update());
                    self.keep(&self.0.files.neighbours, text.into_bytes(), "agents' addresses").await;
                } else {
                    return;
                },
                changed = rosters.changed() => if changed.is_ok() { rosters.mark_changed() } else { return },
                () = tokio::time::sleep_until(search_at.min(renewal_at)) => {}
            }
        }
    }

    async fn consult(&self, peer: PeerId, is_coordinator: bool) {
        let roster_newer_than = self.0.node.roster().map_or(0, |roster| roster.value.version);
        let renew = is_coordinator && is_due(&self.enrolment().membership.value, unix_now());
        let reply = match ask(&self.0.node, peer, &PapersRequest { roster_newer_than, renew }).await {
            Ok(reply) => reply,
            Err(error) => return tracing::debug!(peer = %peer.short(), %error, "its papers are not known"),
        };
        if let Some(bytes) = &reply.roster {
            self.take_roster(peer, is_coordinator, &bytes.0);
        }
        if is_coordinator {
            let told = self.told(&reply.coordinator);
            let renewed = reply.membership.is_some_and(|bytes| self.take_membership(&bytes.0));
            if told || renewed {
                self.save().await;
            }
        } else if !reply.coordinator.is_empty() && !self.has_coordinator() {
            let Enrolment { coordinator, addresses, .. } = self.enrolment().clone();
            let hinted = reply.coordinator.iter().take(MAX_HINTED_ADDRESSES);
            self.0.node.keep_connected(coordinator, first_of(hinted.chain(&addresses)));
        }
    }

    fn take_roster(&self, peer: PeerId, is_coordinator: bool, bytes: &[u8]) {
        let Ok(roster) = Signed::<Roster>::from_canonical(bytes) else {
            return tracing::warn!(peer = %peer.short(), "a malformed roster came");
        };
        let node = &self.0.node;
        if let Err(error) = if is_coordinator { node.set_roster(roster) } else { node.hear_roster(roster) } {
            tracing::warn!(peer = %peer.short(), %error, "a roster came that is of no use");
        }
    }

    /// The coordinator says where it is. Whether that is news.
    fn told(&self, addresses: &[String]) -> bool {
        if addresses.is_empty() {
            return false;
        }
        let mut enrolment = self.enrolment();
        // Those from before may be names that outlive an address.
        let addresses = first_of(addresses.iter().chain(&enrolment.addresses));
        let is_news = addresses != enrolment.addresses;
        if is_news {
            enrolment.addresses = addresses;
            self.0.node.keep_connected(enrolment.coordinator, enrolment.addresses.clone());
        }
        is_news
    }

    /// Whether a new membership was taken.
    fn take_membership(&self, bytes: &[u8]) -> bool {
        let Ok(membership) = Signed::<Membership>::from_canonical(bytes) else { return false };
        let role = self.enrolment().membership.value.role;
        if membership.value.role != role {
            tracing::warn!("the coordinator gives a membership of another kind; it is not taken");
            return false;
        }
        match self.0.node.set_membership(membership.clone()) {
            Ok(()) => {
                tracing::info!(until = membership.value.expires_at, "this machine's membership was renewed");
                self.enrolment().membership = membership;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the coordinator gives a membership of no use");
                false
            }
        }
    }

    async fn save(&self) {
        let (enrolment, file) = (self.enrolment().clone(), self.0.files.enrolment.clone());
        let saved = tokio::task::spawn_blocking(move || enrolment.save(&file)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the membership can't be kept for the next start");
        }
    }

    async fn keep(&self, file: &Path, bytes: Vec<u8>, what: &str) {
        let file = file.to_owned();
        let kept = tokio::task::spawn_blocking(move || private_file::replace(&file, &bytes)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, what, "not kept for the next start");
        }
    }
}

/// The agents to remember of those that are `listed`: the ones that are known first, so that little is written.
fn chosen(known: &Neighbours, listed: Neighbours) -> Neighbours {
    let (mut some, others): (Neighbours, Neighbours) =
        listed.into_iter().partition(|(peer, _)| known.contains_key(peer));
    some.extend(others.into_iter().take(MAX_NEIGHBOURS.saturating_sub(some.len())));
    some
}

/// One agent a line, its addresses behind it.
fn text_of(neighbours: &Neighbours) -> String {
    neighbours.iter().fold(String::new(), |text, (peer, addresses)| format!("{text}{peer} {}\n", addresses.join(" ")))
}

/// What was kept. Lines that are none are left out: nothing depends on any of them.
fn neighbours_in(text: &str) -> Neighbours {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let peer = words.next()?.parse().ok()?;
        Some((peer, words.take(MAX_HINTED_ADDRESSES).map(str::to_owned).collect()))
    };
    text.lines().filter_map(line).take(MAX_NEIGHBOURS).collect()
}

/// Whether half of a membership's time is over.
fn is_due(membership: &Membership, now: UnixSeconds) -> bool {
    let whole = membership.expires_at.saturating_sub(membership.issued_at);
    membership.expires_at.saturating_sub(now) < whole / 2
}

/// The first of `addresses`, each once.
fn first_of<'a>(addresses: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut first: Vec<String> = Vec::new();
    for address in addresses {
        if first.len() < MAX_ADDRESSES_PER_PEER && !first.contains(address) {
            first.push(address.clone());
        }
    }
    first
}

/// `MAX_SEARCHED` of `peers`, other ones each time.
fn some_of(peers: &BTreeSet<PeerId>, random: u64) -> Vec<PeerId> {
    let n = u64::try_from(peers.len()).unwrap_or(u64::MAX).max(1);
    let skip = usize::try_from(random % n).unwrap_or(0);
    peers.iter().cycle().skip(skip).take(MAX_SEARCHED.min(peers.len())).copied().collect()
}

#[cfg(test)]
mod tests {
    use buildbee_proto::peer::Role;
    use proptest::prelude::*;

    use super::*;

    fn membership(issued_at: u64, expires_at: u64) -> Membership {
        let (farm, peer) = (PeerId([1; 32]), PeerId([2; 32]));
        Membership { farm, peer, role: Role::Client, name: "x".to_owned(), issued_at, expires_at }
    }

    #[test]
    fn a_membership_is_renewed_from_its_middle_on() {
        let year = membership(1_000, 2_000);
        assert!(!is_due(&year, 0) && !is_due(&year, 1_500));
        assert!(is_due(&year, 1_501) && is_due(&year, 3_000));
        assert!(!is_due(&membership(5, 5), 9), "no time, no half of it");
        assert!(!is_due(&membership(9, 5), u64::MAX));
    }

    #[test]
    fn new_addresses_stand_before_old_ones_and_all_are_bounded() {
        let texts = |range: std::ops::Range<usize>| range.map(|n| format!("h:{n}")).collect::<Vec<_>>();
        let (new, old) = (texts(2..4), texts(0..30));
        let first = first_of(new.iter().chain(&old));
        assert_eq!(first.len(), MAX_ADDRESSES_PER_PEER);
        assert_eq!(first[..4], ["h:2", "h:3", "h:0", "h:1"]);
    }

    #[test]
    fn agents_are_remembered_and_odd_lines_are_left_out() {
        let some = |n| (PeerId([n; 32]), vec!["desk-7:7471".to_owned(), "[::1]:7471".to_owned()]);
        let neighbours: Neighbours = (0..3).map(some).collect();
        let text = text_of(&neighbours);
        assert_eq!(neighbours_in(&text), neighbours);
        assert_eq!(neighbours_in(&format!("x y\n\n{text}\u{1b}\n00 a:1\n")), neighbours);
        assert!(neighbours_in(&text_of(&(0..200).map(some).collect())).len() <= MAX_NEIGHBOURS);
    }

    #[test]
    fn whoever_is_remembered_is_so_while_they_are_there() {
        let some = |numbers: std::ops::Range<u8>| -> Neighbours {
            numbers.map(|n| (PeerId([n; 32]), vec![format!("desk-{n}:1")])).collect()
        };
        let first = chosen(&Neighbours::new(), some(100..200));
        assert_eq!(first, some(100..116));
        assert_eq!(chosen(&first, some(0..200)), first);
        let later = chosen(&first, some(0..110));
        assert_eq!(later.len(), MAX_NEIGHBOURS);
        assert!(some(100..110).keys().all(|peer| later.contains_key(peer)));
    }

    proptest! {
        #[test]
        fn those_that_are_asked_again_are_some_of_the_known(n in 0_u8..20, random: u64) {
            let peers: BTreeSet<_> = (0..n).map(|n| PeerId([n; 32])).collect();
            let some: BTreeSet<_> = some_of(&peers, random).into_iter().collect();
            prop_assert!(some.is_subset(&peers));
            prop_assert_eq!(some.len(), peers.len().min(MAX_SEARCHED));
        }
    }
}
