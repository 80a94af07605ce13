//! One try of one action on one agent: submit, listen for signs of life, receive and check what came of it.
//!
//! Cancelled by dropping the future: the stream is reset and the agent stops. Places nothing and stores nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use buildbee_p2p::frames::{FrameError, read_message, write_message};
use buildbee_p2p::identity::verify_result;
use buildbee_p2p::node::{Node, OpenError, PeerStream};
use buildbee_proto::canonical::{Canonical, CanonicalError};
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, WireError};
use buildbee_proto::execute::{ActionRequest, ActionUpdate};
use buildbee_proto::outcome::{ActionResult, SignedResult};
use buildbee_proto::path::RelPath;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::board::Pick;
use super::job::Job;
use super::lender::Lender;
use crate::inputs::discover::OutputPlace;

/// From opening the stream to `Accepted`.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(1);
/// Between two signs of life.
const PROGRESS_DEADLINE: Duration = Duration::from_millis(1800);
/// Between two pieces of a result.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(2);
/// From `Accepted` to the end of the result: the action's own limit, and time for the agent to fetch what it lacks.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// A peer that sends content slower than this is as good as gone.
const LEAST_BYTES_PER_SECOND: u64 = 128 << 10;
/// Largest result that is taken into memory; larger ones run locally.
pub const MAX_RESULT_CONTENT_BYTES: u64 = 512 << 20;
/// Blobs sent along unasked, in all: directories and small sources.
const INLINE_BYTES: usize = 1 << 20;
/// A file above this is asked for by the agent if it lacks it.
const INLINE_FILE_BYTES: u64 = 32 << 10;
/// Blobs remembered as sent to one agent; beyond it the memory starts over.
const MAX_SENT: usize = 50_000;

/// What an agent made.
#[derive(Debug)]
pub struct RemoteResult {
    /// Signed by the agent that was asked, or by the one that it has it from.
    pub signed: SignedResult,
    /// Content of everything that the result names.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// Bytes of the blobs that were sent along unasked.
    pub sent_bytes: u64,
}

/// Why nothing came of an attempt.
#[derive(Debug, Error)]
pub enum AttemptError {
    /// No stream to the agent.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It said nothing in time.
    #[error("the agent fell silent")]
    Silent,
    /// The stream broke.
    #[error(transparent)]
    Stream(#[from] FrameError),
    /// The stream ended early.
    #[error("the agent went away")]
    Gone,
    /// It said why not.
    #[error("{0}")]
    Refused(WireError),
    /// What it sent is not what it should be.
    #[error("the agent's result is not acceptable: {0}")]
    BadResult(&'static str),
    /// What it sent is malformed.
    #[error("the agent's result is malformed: {0}")]
    Malformed(#[from] CanonicalError),
}

impl AttemptError {
    /// The reason's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open(_) => "agent-unreachable",
            Self::Silent => "agent-silent",
            Self::Stream(_) | Self::Gone => "agent-lost",
            Self::BadResult(_) | Self::Malformed(_) => "agent-bad-result",
            Self::Refused(error) => match error.code {
                ErrorCode::Busy | ErrorCode::Lease => "agent-busy",
                ErrorCode::MissingBlob => "agent-missing-blob",
                ErrorCode::Toolchain => "agent-toolchain",
                ErrorCode::Sandbox => "agent-sandbox",
                ErrorCode::Limit => "agent-limit",
                ErrorCode::Storage => "agent-storage",
                ErrorCode::Invalid | ErrorCode::Refused | ErrorCode::Cancelled | ErrorCode::Internal => "agent-refused",
            },
        }
    }
}

/// Which blobs each agent was sent, so that they are not sent along again. A wrong guess costs a round trip, no more.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    by_agent: Arc<Mutex<BTreeMap<PeerId, HashSet<Digest>>>>,
}

impl Sent {
    fn is_new(&self, agent: PeerId, digest: &Digest) -> bool {
        let by_agent = self.by_agent.lock().unwrap_or_else(PoisonError::into_inner);
        by_agent.get(&agent).is_none_or(|sent| !sent.contains(digest))
    }

    fn add(&self, agent: PeerId, digests: impl Iterator<Item = Digest>) {
        let mut by_agent = self.by_agent.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = by_agent.entry(agent).or_default();
        if sent.len() >= MAX_SENT {
            sent.clear();
        }
        sent.extend(digests);
    }

    /// An agent that was away may have lost what it was sent.
    pub fn forget(&self, agent: &PeerId) {
        self.by_agent.lock().unwrap_or_else(PoisonError::into_inner).remove(agent);
    }
}

/// Everything an attempt needs besides the job.
#[derive(Clone, Debug)]
pub struct Attempts {
    /// Our end of the farm's network.
    pub node: Node,
    /// What agents may fetch from us; holds the job's inputs already.
    pub lender: Lender,
    /// What was sent along before.
    pub sent: Sent,
}

impl Attempts {
    /// Runs `job` at `pick`.
    pub async fn run(&self, pick: &Pick, job: &Job) -> Result<RemoteResult, AttemptError> {
        let inline = self.inline(pick.peer, job).await;
        let new: Vec<Digest> = inline.iter().map(|bytes| Digest::of(&bytes.0)).collect();
        let sent_bytes = inline.iter().map(|bytes| bytes.0.len() as u64).sum();
        let mut attempt = [0; 16];
        // Without random numbers the id is constant, and the agent takes a second attempt for the first: let it fail instead.
        getrandom::fill(&mut attempt).map_err(|_| AttemptError::BadResult("no random numbers"))?;
        let request = ActionRequest {
            attempt,
            token: pick.token,
            action: Bytes(job.action_bytes.clone()),
            command: Bytes(job.command_bytes.clone()),
            toolchain: Bytes(job.compiler.toolchain.to_canonical()),
            inline,
        };
        let mut stream = tokio::time::timeout(ACCEPT_DEADLINE, self.submit(pick.peer, &request))
            .await
            .map_err(|_| AttemptError::Silent)??;
        self.sent.add(pick.peer, new.into_iter());
        let made = tokio::time::timeout(ATTEMPT_DEADLINE, listen(&mut stream, job, sent_bytes));
        let made = made.await.map_err(|_| AttemptError::Silent)??;
        let maker = made.signed.result.provenance.peer;
        let roster = self.node.roster();
        if maker != pick.peer && roster.is_some_and(|roster| !roster.value.has_agent(&maker)) {
            return Err(AttemptError::BadResult("it was made by no agent of the farm"));
        }
        Ok(made)
    }

    async fn submit(&self, peer: PeerId, request: &ActionRequest) -> Result<PeerStream, AttemptError> {
        // A stream that ends before the first reply was dropped on the way in: nothing has run, so ask again.
        let mut tries = 3;
        loop {
            tries -= 1;
            let mut stream = self.node.open(peer, Protocol::Action).await?;
            let reply = match write_message(&mut stream, request).await {
                Ok(()) => read_message::<ActionUpdate, _>(&mut stream).await,
                Err(error) => Err(error),
            };
            match reply {
                Ok(Some(ActionUpdate::Accepted)) => return Ok(stream),
                Ok(Some(ActionUpdate::Failed(error))) => return Err(AttemptError::Refused(error)),
                Ok(Some(_)) => return Err(AttemptError::BadResult("it was not accepted first")),
                Ok(None) | Err(_) if tries > 0 => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(None) => return Err(AttemptError::Gone),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Directories and small files that the agent probably lacks, up to [`INLINE_BYTES`].
    async fn inline(&self, agent: PeerId, job: &Job) -> Vec<Bytes> {
        let mut room = INLINE_BYTES;
        let mut inline = Vec::new();
        for (digest, bytes) in &job.inputs.tree.directories {
            if bytes.len() <= room && self.sent.is_new(agent, digest) {
                room -= bytes.len();
                inline.push(Bytes(bytes.clone()));
            }
        }
        let small: Vec<Digest> = (job.inputs.files.keys())
            .filter(|digest| digest.size_bytes <= INLINE_FILE_BYTES && self.sent.is_new(agent, digest))
            .copied()
            .collect();
        let lender = self.lender.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut files = Vec::new();
            for digest in small {
                let size = usize::try_from(digest.size_bytes).unwrap_or(usize::MAX);
                if size > room {
                    break;
                }
                if let Some(content) = lender.content(&digest) {
                    room -= size;
                    files.push(Bytes(content.to_vec()));
                }
            }
            files
        });
        inline.extend(read.await.unwrap_or_default());
        inline
    }
}

async fn listen(stream: &mut PeerStream, job: &Job, sent_bytes: u64) -> Result<RemoteResult, AttemptError> {
    loop {
        let update = tokio::time::timeout(PROGRESS_DEADLINE, read_message::<ActionUpdate, _>(stream))
            .await
            .map_err(|_| AttemptError::Silent)??;
        match update {
            Some(ActionUpdate::Running(_) | ActionUpdate::Accepted) => {}
            Some(ActionUpdate::Failed(error)) => return Err(AttemptError::Refused(error)),
            Some(ActionUpdate::Finished { result, blobs }) => {
                let signed = SignedResult::from_canonical(&result.0)?;
                check(&signed, job)?;
                let blobs = receive(stream, &signed, &blobs).await?;
                return Ok(RemoteResult { signed, blobs, sent_bytes });
            }
            None => return Err(AttemptError::Gone),
        }
    }
}

/// What can be said of a result without its content.
fn check(signed: &SignedResult, job: &Job) -> Result<(), AttemptError> {
    fits(&signed.result, &job.action, &job.outputs).map_err(AttemptError::BadResult)?;
    if verify_result(signed) { Ok(()) } else { Err(AttemptError::BadResult("its signature is wrong")) }
}

/// Whether `result` is one of `action`, made in a sandbox, with the files that are always written and none that was not asked for;
/// `outputs` are sorted by place.
pub fn fits(result: &ActionResult, action: &Digest, outputs: &[OutputPlace]) -> Result<(), &'static str> {
    if result.action != *action {
        return Err("it is another action's");
    }
    if !result.provenance.sandboxed {
        return Err("it was not made in a sandbox");
    }
    if result.outputs.iter().any(|file| outputs.binary_search_by(|output| output.place.cmp(&file.path)).is_err()) {
        return Err("it names a file that was not asked for");
    }
    // A stale object left in place would be taken for the new one.
    let made: BTreeSet<&RelPath> = result.outputs.iter().map(|file| &file.path).collect();
    if result.exit_code == 0 && outputs.iter().any(|output| output.always && !made.contains(&output.place)) {
        return Err("it lacks a file that was asked for");
    }
    let named = result.outputs.iter().map(|file| &file.digest).chain([&result.stdout, &result.stderr]);
    if named.into_iter().any(|digest| digest.size_bytes == 0 && *digest != Digest::of(b"")) {
        return Err("it names empty content by another name");
    }
    Ok(())
}

/// How long content of `n_bytes` may take, once it comes.
pub fn transfer_time(n_bytes: u64) -> Duration {
    TRANSFER_DEADLINE + Duration::from_secs(n_bytes / LEAST_BYTES_PER_SECOND)
}

/// Blobs that a result names, without repetitions. Empty ones are never sent.
pub fn named(signed: &SignedResult) -> BTreeMap<Digest, Vec<u8>> {
    let result = &signed.result;
    let all = result.outputs.iter().map(|file| file.digest).chain([result.stdout, result.stderr]);
    all.filter(|digest| digest.size_bytes > 0).map(|digest| (digest, Vec::new())).collect()
}

async fn receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    signed: &SignedResult,
    announced: &[Digest],
) -> Result<BTreeMap<Digest, Vec<u8>>, AttemptError> {
    let mut wanted = named(signed);
    let distinct: BTreeSet<&Digest> = announced.iter().collect();
    if announced.len() != distinct.len() || !distinct.into_iter().eq(wanted.keys()) {
        return Err(AttemptError::BadResult("it announces other blobs than it names"));
    }
    if wanted.keys().map(|digest| digest.size_bytes).fold(0u64, u64::saturating_add) > MAX_RESULT_CONTENT_BYTES {
        return Err(AttemptError::BadResult("it is too large"));
    }
    let n_bytes = wanted.keys().map(|digest| digest.size_bytes).sum();
    let reading = async {
        for digest in announced {
            let content = read_blob(stream, digest).await?;
            wanted.insert(*digest, content);
        }
        Ok(wanted)
    };
    tokio::time::timeout(transfer_time(n_bytes), reading).await.map_err(|_| AttemptError::Silent)?
}

/// Reads the raw bytes of `digest` and checks them. The caller bounds its size.
pub async fn read_blob<S: AsyncRead + Unpin>(stream: &mut S, digest: &Digest) -> Result<Vec<u8>, AttemptError> {
    const PIECE: usize = 256 << 10;
    let size = usize::try_from(digest.size_bytes).map_err(|_| AttemptError::BadResult("it is too large"))?;
    let mut content = Vec::with_capacity(size.min(PIECE));
    while content.len() < size {
        let at = content.len();
        content.resize((at + PIECE).min(size), 0);
        tokio::time::timeout(TRANSFER_DEADLINE, stream.read_exact(&mut content[at..]))
            .await
            .map_err(|_| AttemptError::Silent)?
            .map_err(|_| AttemptError::Gone)?;
    }
    if Digest::of(&content) == *digest {
        Ok(content)
    } else {
        Err(AttemptError::BadResult("its bytes are not what their digest says"))
    }
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
