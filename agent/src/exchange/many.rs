//! Brings many small blobs: from agents what they have or are about to have, from the origin the rest, which each agent asks for in an order
//! of its own ([`pull`](super::pull)). So of several that begin together each brings a part, and finds the others' parts with them.
//!
//! Before a batch is asked of the origin, agents are asked for it; from then on it is certain to come, and they are told so when they ask.
//! Deadlines count silence. A stream that fails is opened anew as long as something came since the last failure. Not here: taking in what
//! comes ([`receive`](super::receive)).
//!
//! Life cycle: [`Many::bring`] runs all of it in the caller's own task; dropping it drops its streams.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::{Node, PeerStream};
use buildbee_proto::digest::Digest;
use buildbee_proto::error::ErrorCode;
use buildbee_proto::exchange::{BlobHave, BlobRequest};
use buildbee_proto::limits::MAX_BLOBS_PER_REQUEST;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use buildbee_store::Store;
use futures::future::{BoxFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::BufReader;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::arriving::Claim;
use super::receive::{Faults, SourceFault, get_batch};

/// How long agents may think about one batch.
const HAVE_DEADLINE: Duration = Duration::from_millis(200);
/// Failures of an agent, one after the other, after which it is not asked any more.
const MAX_AGENT_FAULTS: u32 = 3;
/// Times that agents are asked for the same: they may be slow to get what they said is coming.
const MAX_ASKS: u32 = 6;
/// How long opening a stream may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// Streams at once to one source.
const STREAMS_PER_SOURCE: usize = 3;
/// Bytes of one batch, unless a single blob has more: what two agents that begin together may both ask for.
const BATCH_BYTES: u64 = 1 << 20;
const READ_BUFFER_BYTES: usize = 64 << 10;

type Stream = BufReader<PeerStream>;

/// What they are brought with.
pub(super) struct Many<'a> {
    pub(super) node: &'a Node,
    pub(super) store: &'a Store,
    pub(super) claim: &'a Claim,
    pub(super) origin: PeerId,
    /// Hears of agents that failed.
    pub(super) note: &'a (dyn Fn(PeerId, &SourceFault) + Sync),
    agents: Vec<Agent>,
    /// Streams that wait for the next request. As many as were in use at once.
    idle: Mutex<HashMap<PeerId, Vec<Stream>>>,
}

struct Agent {
    peer: PeerId,
    turns: Semaphore,
    n_faults: Mutex<u32>,
}

/// Blobs to be had from wherever they are.
struct Batch {
    digests: Vec<Digest>,
    n_asks: u32,
}

/// What an agent has of a batch.
struct Share {
    agent: usize,
    batch: Batch,
}

enum Step {
    /// Who has what of a batch, and what nobody has.
    SharedOut {
        shares: Vec<Share>,
        rest: Vec<Digest>,
    },
    /// What did not come of a share.
    FromAgent(Batch),
    FromOrigin(Result<(), SourceFault>),
}

impl Agent {
    // A count: nothing can be left half done under the lock.
    fn n_faults(&self) -> MutexGuard<'_, u32> {
        self.n_faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Many<'a> {
    /// From `agents` and `origin`.
    pub(super) fn new(
        (node, store): (&'a Node, &'a Store),
        claim: &'a Claim,
        (origin, agents): (PeerId, Vec<PeerId>),
        note: &'a (dyn Fn(PeerId, &SourceFault) + Sync),
    ) -> Self {
        let agent = |peer| Agent { peer, turns: Semaphore::new(STREAMS_PER_SOURCE), n_faults: Mutex::default() };
        let agents = agents.into_iter().map(agent).collect();
        Self { node, store, claim, origin, note, agents, idle: Mutex::default() }
    }

    /// Returns when all of `digests` is in the store; they are brought in their order. An error is the origin's or the store's.
    pub(super) async fn bring(&self, digests: &[Digest]) -> Result<(), SourceFault> {
        let mut todo: VecDeque<Batch> =
            batches(digests).into_iter().map(|digests| Batch { digests, n_asks: 0 }).collect();
        // At most one for each batch.
        let mut steps: FuturesUnordered<BoxFuture<'_, Step>> = FuturesUnordered::new();
        let mut n_busy = 0;
        loop {
            while n_busy < STREAMS_PER_SOURCE
                && let Some(batch) = todo.pop_front()
            {
                n_busy += 1;
                steps.push(Box::pin(self.share_out(batch)));
            }
            match steps.next().await {
                None => return Ok(()),
                Some(Step::SharedOut { shares, rest }) => {
                    for share in shares {
                        steps.push(Box::pin(self.take_share(share)));
                    }
                    if rest.is_empty() {
                        n_busy -= 1;
                    } else {
                        steps.push(Box::pin(async move { Step::FromOrigin(self.ask_origin(&rest).await) }));
                    }
                }
                Some(Step::FromAgent(left)) if left.digests.is_empty() => {}
                Some(Step::FromAgent(left)) => todo.push_back(left),
                Some(Step::FromOrigin(result)) => {
                    result?;
                    n_busy -= 1;
                }
            }
        }
    }

    async fn share_out(&self, batch: Batch) -> Step {
        let is_asked = |agent: &Agent| batch.n_asks < MAX_ASKS && *agent.n_faults() < MAX_AGENT_FAULTS;
        let asked = self.agents.iter().enumerate().filter(|(_, agent)| is_asked(agent));
        let asked: Vec<usize> = asked.map(|(at, _)| at).collect();
        let answers = join_all(asked.iter().map(|&at| self.ask(at, &batch.digests))).await;
        let n_asks = batch.n_asks + 1;
        let share = |agent| Share { agent, batch: Batch { digests: Vec::new(), n_asks } };
        let mut shares: Vec<Share> = asked.into_iter().map(share).collect();
        let mut rest = Vec::new();
        for (n, digest) in batch.digests.iter().enumerate() {
            // The one with the smallest share so far, so that several carry what several have.
            let having = answers.iter().enumerate().filter(|(_, answer)| answer.get(n).is_some_and(|has| *has));
            match having.map(|(at, _)| at).min_by_key(|&at| total_bytes(&shares[at].batch.digests)) {
                Some(at) => shares[at].batch.digests.push(*digest),
                None => rest.push(*digest),
            }
        }
        self.claim.make_certain(&rest);
        shares.retain(|share| !share.batch.digests.is_empty());
        Step::SharedOut { shares, rest }
    }

    /// Which of `digests` an agent has; nothing if it does not say so in time.
    async fn ask(&self, at: usize, digests: &[Digest]) -> Vec<bool> {
        let Some(agent) = self.agents.get(at) else { return Vec::new() };
        let answered = match self.take_idle(agent.peer) {
            // It may have been ended meanwhile.
            Some(stream) => self.ask_on(agent.peer, stream, digests).await,
            None => None,
        };
        let answered = match answered {
            Some(present) => Some(present),
            None => match timeout(HAVE_DEADLINE, self.open(agent.peer)).await {
                Ok(Ok(stream)) => self.ask_on(agent.peer, stream, digests).await,
                _ => None,
            },
        };
        let mut n_faults = agent.n_faults();
        *n_faults = if answered.is_some() { 0 } else { *n_faults + 1 };
        answered.unwrap_or_default()
    }

    async fn ask_on(&self, peer: PeerId, mut stream: Stream, digests: &[Digest]) -> Option<Vec<bool>> {
        let asking = async {
            write_message(stream.get_mut(), &BlobRequest::Have(digests.to_vec())).await.ok()?;
            read_message::<BlobHave, _>(&mut stream).await.ok()?
        };
        let answer = timeout(HAVE_DEADLINE, asking).await.ok()??;
        self.keep_idle(peer, stream);
        Some(answer.present)
    }

    /// What some agents have comes from them; whatever fails is asked for again.
    async fn take_share(&self, share: Share) -> Step {
        let Share { agent, mut batch } = share;
        if let Some(agent) = self.agents.get(agent) {
            // Never closed.
            let _turn = agent.turns.acquire().await;
            if let Err(fault) = self.get(agent.peer, batch.digests.clone()).await {
                (self.note)(agent.peer, &fault);
                if !matches!(&fault, SourceFault::Refused(error) if error.code == ErrorCode::Busy) {
                    *agent.n_faults() = MAX_AGENT_FAULTS;
                }
            }
        }
        batch.digests = self.store.missing(&batch.digests);
        Step::FromAgent(batch)
    }

    async fn ask_origin(&self, digests: &[Digest]) -> Result<(), SourceFault> {
        let mut left = self.store.missing(digests);
        let mut faults = Faults::default();
        while let Some(first) = left.first().copied() {
            let n_before = left.len();
            let got = self.get(self.origin, left).await;
            left = self.store.missing(digests);
            match got {
                Ok(()) => return left.first().map_or(Ok(()), |digest| Err(SourceFault::Lost(*digest))),
                Err(fault) if fault.is_final() => return Err(fault),
                Err(fault) => {
                    let Some(pause) = faults.one_more(left.len() < n_before) else { return Err(fault) };
                    tracing::debug!(blob = %first.short(), %fault, "the origin is asked again");
                    sleep(pause).await;
                }
            }
        }
        Ok(())
    }

    /// Gets what `peer` has of `digests`.
    async fn get(&self, peer: PeerId, digests: Vec<Digest>) -> Result<(), SourceFault> {
        let mut stream = match self.take_idle(peer) {
            Some(stream) => stream,
            None => self.open(peer).await?,
        };
        get_batch(self.store, &mut stream, digests, &|landed| self.claim.landed(landed)).await?;
        self.keep_idle(peer, stream);
        Ok(())
    }

    async fn open(&self, peer: PeerId) -> Result<Stream, SourceFault> {
        let opened = timeout(OPEN_DEADLINE, self.node.open(peer, Protocol::Blob)).await;
        let stream = opened.map_err(|_| SourceFault::Late)?.map_err(|error| SourceFault::Open(error.to_string()))?;
        Ok(BufReader::with_capacity(READ_BUFFER_BYTES, stream))
    }

    // Pushes and pops: nothing can be left half done under the lock.
    fn idle(&self) -> MutexGuard<'_, HashMap<PeerId, Vec<Stream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self, peer: PeerId) -> Option<Stream> {
        self.idle().get_mut(&peer)?.pop()
    }

    fn keep_idle(&self, peer: PeerId, stream: Stream) {
        self.idle().entry(peer).or_default().push(stream);
    }
}

pub(super) fn total_bytes(digests: &[Digest]) -> u64 {
    digests.iter().fold(0, |sum, digest| sum.saturating_add(digest.size_bytes))
}

/// `digests` in requests of a reasonable size.
fn batches(digests: &[Digest]) -> Vec<Vec<Digest>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut n_bytes = 0u64;
    for digest in digests {
        let sum = n_bytes.saturating_add(digest.size_bytes);
        if batch.len() == MAX_BLOBS_PER_REQUEST || (sum > BATCH_BYTES && !batch.is_empty()) {
            batches.push(std::mem::take(&mut batch));
            n_bytes = 0;
        }
        n_bytes = n_bytes.saturating_add(digest.size_bytes);
        batch.push(*digest);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_in_number_and_bytes() {
        let small: Vec<Digest> = (0..1000u32).map(|n| Digest::of(&n.to_le_bytes())).collect();
        let cut = batches(&small);
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 256, 232]);
        let giant = Digest { size_bytes: u64::MAX, ..small[0] };
        assert_eq!(batches(&[giant, giant, small[0]]).len(), 3);
        assert!(batches(&[]).is_empty());
    }
}
