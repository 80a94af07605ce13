//! One try of one action on one agent: submit, listen for signs of life, receive and check what came of it.
//!
//! Cancelled by dropping the future: the stream is reset and the agent stops. Places nothing and stores nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buildbee_p2p::frames::{FrameError, read_message, write_message};
use buildbee_p2p::identity::verify_result;
use buildbee_p2p::node::{Node, OpenError, PeerStream};
use buildbee_proto::canonical::{Canonical, CanonicalError};
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, WireError};
use buildbee_proto::execute::{ActionRequest, ActionUpdate, Supply};
use buildbee_proto::limits::MAX_OBSERVED_BYTES;
use buildbee_proto::observed::Observed;
use buildbee_proto::outcome::{ActionResult, OutputFile, SignedResult};
use buildbee_proto::path::RelPath;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::along::{Along, Sent};
use super::board::{Pick, Went};
use super::job::Job;
use super::lender::Lender;
use crate::inputs::discover::OutputPlace;

/// From opening the stream to `Accepted`, and longer while the agent takes bytes, behind which the request waits.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(1);
/// Between two signs of life: a word, or bytes that the agent takes from here.
const PROGRESS_DEADLINE: Duration = Duration::from_millis(1400);
/// Between two words, while the agent takes bytes: a link that is full of these lets words through late.
const WORD_DEADLINE: Duration = Duration::from_secs(20);
/// Between two pieces of a result.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(2);
/// From `Accepted`, or from when the agent last took something from here, to the end of the result: the action's own limit, and time to
/// fetch from other agents what it lacks. A toolchain may take hours on a slow link.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// A peer that sends content slower than this is as good as gone.
const LEAST_BYTES_PER_SECOND: u64 = 128 << 10;
/// Largest result that is taken into memory; larger ones run locally.
pub const MAX_RESULT_CONTENT_BYTES: u64 = 512 << 20;
/// For sending an agent what it lacks of an offer: this, and time for its bytes.
const SUPPLY_DEADLINE: Duration = Duration::from_secs(10);

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

impl RemoteResult {
    /// What the agent saw the program ask for; `None` where that is not known.
    pub fn observed(&self) -> Option<Observed> {
        let digest = self.signed.result.observed.filter(|digest| digest.size_bytes <= MAX_OBSERVED_BYTES as u64)?;
        Observed::from_canonical(self.blobs.get(&digest)?).ok()
    }
}

/// An output that came before the rest.
#[derive(Clone, Debug)]
pub struct EarlyOutput {
    /// As the result will name it.
    pub file: OutputFile,
    /// Its content.
    pub content: Vec<u8>,
    /// What the program had said on standard error by then.
    pub stderr: Vec<u8>,
    /// What the agent had seen the program ask for by then; `None` where that is not known.
    pub observed: Option<Vec<u8>>,
    /// Who made it.
    pub agent: PeerId,
}

/// Which output is wanted early, by its place among the job's, and who hears of it. Nobody hears of it twice.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its place.
    pub output: u32,
    /// Who makes it.
    pub agent: PeerId,
    /// Where it goes. Must be listened to: the attempt waits for that.
    pub heard: mpsc::Sender<EarlyOutput>,
}

/// Largest output that is taken early.
const MAX_EARLY_BYTES: u64 = 256 << 20;

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
    /// It had begun, and gave the action back: its owner wants the machine.
    #[error("handed back: {0}")]
    HandedBack(WireError),
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
            Self::HandedBack(_) => "agent-handed-back",
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

impl AttemptError {
    /// What it says of the agent.
    pub fn went(&self) -> Went {
        match self {
            Self::Refused(error) => match error.code {
                ErrorCode::Busy | ErrorCode::Lease => Went::Busy,
                ErrorCode::MissingBlob | ErrorCode::Limit | ErrorCode::Cancelled => Went::Well,
                _ => Went::Badly,
            },
            _ => Went::Badly,
        }
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
    /// Runs `job` at `pick`. What is sent early is told if it is wished for.
    pub async fn run(&self, pick: &Pick, job: &Job, wish: Option<&Wish>) -> Result<RemoteResult, AttemptError> {
        // By place: what stands in one folder is alike, and packs better side by side.
        let mut files: Vec<_> = job.inputs.files.iter().collect();
        files.sort_unstable_by_key(|(_, path)| path.as_os_str());
        let along = self.sent.along(pick.peer, &job.inputs.tree, files.into_iter().map(|(digest, _)| digest));
        let mut attempt = [0; 16];
        // Without random numbers the id is constant, and the agent takes a second attempt for the first: let it fail instead.
        getrandom::fill(&mut attempt).map_err(|_| AttemptError::BadResult("no random numbers"))?;
        let unasked = along.unasked.clone();
        // Mostly nothing: no thread is asked for that.
        let inline = if unasked.is_empty() {
            Vec::new()
        } else {
            self.reading(move |lender| Along::contents(&unasked, lender)).await?
        };
        let request = ActionRequest {
            attempt,
            token: pick.token,
            action: Bytes(job.action_bytes.clone()),
            command: Bytes(job.command_bytes.clone()),
            toolchain: Bytes(job.parts.toolchain.to_canonical()),
            offered: along.offered.clone(),
            inline,
            early: wish.map(|wish| wish.output),
        };
        let since = Instant::now();
        let last_moved = || self.lender.last_moved(&pick.peer).unwrap_or(since).max(since);
        let submitting = self.submit(pick.peer, &request);
        let (mut stream, flags) = while_moving(ACCEPT_DEADLINE, &last_moved, submitting).await??;
        let unasked_bytes = n_bytes(&request.inline);
        drop(request);
        let sent_bytes = unasked_bytes + self.supply(&mut stream, along, &flags).await?;
        let accepted = Instant::now();
        let last_moved = || self.lender.last_moved(&pick.peer).unwrap_or(accepted).max(accepted);
        let mut listening = std::pin::pin!(listen(&mut stream, job, wish, sent_bytes, &last_moved));
        let made = loop {
            match tokio::time::timeout_at(last_moved() + ATTEMPT_DEADLINE, &mut listening).await {
                Ok(made) => break made?,
                // More was taken meanwhile.
                Err(_) if last_moved().elapsed() < ATTEMPT_DEADLINE => {}
                Err(_) => return Err(AttemptError::Silent),
            }
        };
        let maker = made.signed.result.provenance.peer;
        let roster = self.node.roster();
        if maker != pick.peer && roster.is_some_and(|roster| !roster.value.has_agent(&maker)) {
            return Err(AttemptError::BadResult("it was made by no agent of the farm"));
        }
        Ok(made)
    }

    /// Reads files as `read` says, off the event loop.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Lender) -> T + Send + 'static,
    ) -> Result<T, AttemptError> {
        let lender = self.lender.clone();
        tokio::task::spawn_blocking(move || read(&lender)).await.map_err(|_| AttemptError::BadResult("interrupted"))
    }

    /// Sends what the agent lacks of what was offered: `flags` say which, or nothing where that is none. How many bytes that was.
    async fn supply(&self, stream: &mut PeerStream, along: Along, flags: &[bool]) -> Result<u64, AttemptError> {
        if flags.is_empty() {
            along.arrived(&[], &Supply::default());
            return Ok(0);
        }
        let lacking = along.lacking(flags).ok_or(AttemptError::BadResult("it lacks what was not offered"))?;
        let read = move |lender: &Lender| (lacking.supply(lender), lacking.digests);
        let (supply, lacking) = self.reading(read).await?;
        let n_bytes = n_bytes(&supply.blobs) + supply.alike.as_ref().map_or(0, |alike| alike.frame.0.len() as u64);
        let patience = SUPPLY_DEADLINE + Duration::from_secs(n_bytes / LEAST_BYTES_PER_SECOND);
        let sending = tokio::time::timeout(patience, write_message(stream, &supply));
        sending.await.map_err(|_| AttemptError::Silent)??;
        along.arrived(&lacking, &supply);
        Ok(n_bytes)
    }

    /// A stream with the request accepted on it, and what the agent said that it lacks.
    async fn submit(&self, peer: PeerId, request: &ActionRequest) -> Result<(PeerStream, Vec<bool>), AttemptError> {
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
                Ok(Some(ActionUpdate::Accepted)) => return Ok((stream, Vec::new())),
                Ok(Some(ActionUpdate::Lacks(flags))) => return Ok((stream, flags)),
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
}

fn n_bytes(blobs: &[Bytes]) -> u64 {
    blobs.iter().map(|blob| blob.0.len() as u64).sum()
}

async fn listen(
    stream: &mut PeerStream,
    job: &Job,
    wish: Option<&Wish>,
    sent_bytes: u64,
    last_moved: &(dyn Fn() -> Instant + Sync),
) -> Result<RemoteResult, AttemptError> {
    let mut early: Option<(OutputFile, Vec<u8>)> = None;
    loop {
        match next_word(stream, last_moved).await? {
            Some(ActionUpdate::Running(_) | ActionUpdate::Accepted | ActionUpdate::Lacks(_)) => {}
            Some(ActionUpdate::Early { output, mode, stderr, observed }) => {
                let place = |wish: &Wish| Some(job.outputs.get(wish.output as usize)?.place.clone());
                let Some((wish, path)) = wish.and_then(|wish| Some((wish, place(wish)?))).filter(|_| early.is_none())
                else {
                    return Err(AttemptError::BadResult("it sends what was not wanted early"));
                };
                if !(1..=MAX_EARLY_BYTES).contains(&output.size_bytes) {
                    return Err(AttemptError::BadResult("what it sends early is empty or too large"));
                }
                let content = tokio::time::timeout(transfer_time(output.size_bytes), read_blob(stream, &output)).await;
                let content = content.map_err(|_| AttemptError::Silent)??;
                let file = OutputFile { path, digest: output, mode: mode & 0o7777 };
                early = Some((file.clone(), stderr.0.clone()));
                let observed = observed.map(|bytes| bytes.0);
                // Who wished may have changed their mind.
                drop(
                    wish.heard.send(EarlyOutput { file, content, stderr: stderr.0, observed, agent: wish.agent }).await,
                );
            }
            Some(ActionUpdate::Failed(error)) if error.code == ErrorCode::Busy => {
                return Err(AttemptError::HandedBack(error));
            }
            Some(ActionUpdate::Failed(error)) => return Err(AttemptError::Refused(error)),
            Some(ActionUpdate::Finished { result, blobs }) => {
                let signed = SignedResult::from_canonical(&result.0)?;
                check(&signed, job)?;
                let blobs = receive(stream, &signed, &blobs).await?;
                if let Some((file, stderr)) = &early {
                    goes_on(&signed.result, &blobs, file, stderr).map_err(AttemptError::BadResult)?;
                }
                return Ok(RemoteResult { signed, blobs, sent_bytes });
            }
            None => return Err(AttemptError::Gone),
        }
    }
}

/// What the agent says next. It may stay silent for as long as it takes bytes that it fetches.
async fn next_word(
    stream: &mut PeerStream,
    last_moved: &(dyn Fn() -> Instant + Sync),
) -> Result<Option<ActionUpdate>, AttemptError> {
    Ok(while_moving(PROGRESS_DEADLINE, last_moved, read_message::<ActionUpdate, _>(stream)).await??)
}

/// What comes of `waited`, if that is within `silence`, or while the agent takes bytes.
async fn while_moving<T>(
    silence: Duration,
    last_moved: &(dyn Fn() -> Instant + Sync),
    waited: impl Future<Output = T>,
) -> Result<T, AttemptError> {
    let mut waited = std::pin::pin!(waited);
    let since = Instant::now();
    let patience = || {
        let moved = last_moved();
        // What moved before is no sign.
        let moving = if moved > since { moved + PROGRESS_DEADLINE } else { since };
        (since + silence).max(moving).min(since + WORD_DEADLINE)
    };
    loop {
        match tokio::time::timeout_at(patience(), &mut waited).await {
            Ok(came) => return Ok(came),
            Err(_) if patience() > Instant::now() => {}
            Err(_) => return Err(AttemptError::Silent),
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
    if result.content().any(|digest| digest.size_bytes == 0 && digest != Digest::of(b"")) {
        return Err("it names empty content by another name");
    }
    Ok(())
}

/// Whether `result` is that of the run that made `early` and had said `stderr` by then.
fn goes_on(
    result: &ActionResult,
    blobs: &BTreeMap<Digest, Vec<u8>>,
    early: &OutputFile,
    stderr: &[u8],
) -> Result<(), &'static str> {
    if result.exit_code == 0 && !result.outputs.contains(early) {
        return Err("it is not what was sent early");
    }
    let said = blobs.get(&result.stderr).map_or(&[][..], Vec::as_slice);
    if said.starts_with(stderr) { Ok(()) } else { Err("it says something else than early") }
}

/// How long content of `n_bytes` may take, once it comes.
pub fn transfer_time(n_bytes: u64) -> Duration {
    TRANSFER_DEADLINE + Duration::from_secs(n_bytes / LEAST_BYTES_PER_SECOND)
}

/// Blobs that a result names, without repetitions. Empty ones are never sent.
pub fn named(signed: &SignedResult) -> BTreeMap<Digest, Vec<u8>> {
    signed.result.content().filter(|digest| digest.size_bytes > 0).map(|digest| (digest, Vec::new())).collect()
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
