//! One action stream: reads the request, admits it, runs it, says how it goes, sends the result and its blobs.
//!
//! Life cycle: [`Sessions::serve`] is one task a stream. The attempt itself is a run of its own under [`Flights`], so that the same
//! attempt sent twice runs once; it holds the slot, and ends when the last stream that waits for it is gone. Not here: how an action
//! is run ([`executor`](crate::executor)), what a slot is ([`lease`](crate::lease)).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use buildbee_p2p::frames::{read_body, read_header, write_message};
use buildbee_p2p::tasks::Tasks;
use buildbee_proto::action::{Action, Command};
use buildbee_proto::canonical::{Canonical, CanonicalError};
use buildbee_proto::codec::{Bytes, to_frame};
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::execute::{ActionRequest, ActionUpdate, PROGRESS_INTERVAL_MS, Stage};
use buildbee_proto::limits::{MAX_COMMAND_BYTES, MAX_INLINE_BYTES};
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::PeerId;
use buildbee_proto::toolchain::Toolchain;
use buildbee_store::{Pin, Store};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use crate::exchange::arriving::Arriving;
use crate::exchange::blobs_of;
use crate::exchange::pump::{Framing, PumpError, flush, write_blobs};
use crate::exchange::small::{MAX_SMALL_BYTES, Small};
use crate::executor::{Done, Executor, Job, Origin, Watch};
use crate::flight::{Flights, Passenger};
use crate::lease::core::AttemptId;
use crate::lease::slots::{SlotGuard, Slots};
use crate::owner::gate::{Gate, handed_back};
use crate::owner::history::{Entry, History};
use crate::owner::pause::unix_seconds;
use crate::room::{Room, kibibytes};
use crate::standing::Early;
use crate::supply::Lack;

/// How long the request may take to arrive.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Memory for requests that arrive at once, in KiB; further ones wait. One may have [`MAX_ACTION_FRAME`](buildbee_proto::limits::MAX_ACTION_FRAME)
/// bytes.
const MAX_ARRIVING_KIB: u32 = 128 << 10;
/// What one client may have of it.
const MAX_ARRIVING_KIB_EACH: u32 = 48 << 10;
/// How long one update may take to leave.
const UPDATE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a client may take to close its end after the last byte.
const LINGER: Duration = Duration::from_secs(5);
/// Outputs of one action that leave within that time on any network.
const LITTLE_BYTES: u64 = 64 << 10;
/// Results of ended attempts that are remembered, for clients that ask again.
const MAX_REMEMBERED: usize = 256;
/// What held a slot for less, and came to nothing, is not worth a line of the history.
const MIN_NOTED: Duration = Duration::from_secs(1);
/// Blobs sent along with one action, in number.
const MAX_INLINE: usize = 16_384;

type Key = (PeerId, AttemptId);
type Outcome = Result<Done, WireError>;

/// Serves action streams. Clones share attempts and slots.
#[derive(Clone, Debug)]
pub struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    small: Small,
    coming: Arriving,
    terms: Terms,
    executor: Arc<dyn Executor>,
    attempts: Flights<Key, Outcome>,
    ended: Arc<Ended>,
    arriving: Room,
}

/// On what terms this machine lends.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How much.
    pub slots: Slots,
    /// Until its owner wants it.
    pub gate: Gate,
    /// Who had what.
    pub history: History,
    /// Who gets nothing, by name or id.
    pub blocked: Arc<[String]>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Client<'a> {
    peer: PeerId,
    name: &'a str,
}

/// The last results, without anything that keeps their blobs.
#[derive(Debug, Default)]
struct Ended(Mutex<VecDeque<(Key, Arc<SignedResult>)>>);

impl Ended {
    // A push or a look: nothing can be left half done under the lock.
    fn find(&self, key: &Key) -> Option<Arc<SignedResult>> {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.iter().find(|(each, _)| each == key).map(|(_, result)| Arc::clone(result))
    }

    fn remember(&self, key: Key, result: Arc<SignedResult>) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() >= MAX_REMEMBERED {
            ended.pop_front();
        }
        ended.push_back((key, result));
    }
}

/// A request whose parts are the ones they say they are.
struct Checked {
    attempt: AttemptId,
    token: Option<buildbee_proto::lease::SlotToken>,
    job: Arc<Job>,
    offered: Vec<Digest>,
    inline: Vec<Bytes>,
}

impl Sessions {
    /// Admits on `terms`, runs on `executor`. What comes along goes to `small` or `store`, and results come from either.
    pub fn new(
        store: Store,
        small: Small,
        coming: Arriving,
        terms: Terms,
        executor: Arc<dyn Executor>,
        tasks: Tasks,
    ) -> Self {
        let attempts = Flights::new("attempt", tasks);
        Self {
            inner: Arc::new(Inner {
                store,
                small,
                coming,
                terms,
                executor,
                attempts,
                ended: Arc::default(),
                arriving: Room::new(MAX_ARRIVING_KIB, MAX_ARRIVING_KIB_EACH),
            }),
        }
    }

    /// Serves one stream of `client`, whom people know by `name`, to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(&self, client: PeerId, name: &str, stream: S) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let arriving = async {
            let Some(length) = read_header::<ActionRequest, _>(&mut reader).await? else { return Ok(None) };
            let _place = self.inner.arriving.take(client, kibibytes(length)).await;
            read_body::<ActionRequest, _>(&mut reader, length).await.map(Some)
        };
        let request = match timeout(REQUEST_DEADLINE, arriving).await {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                tracing::debug!(client = %client.short(), %error, "action stream failed");
                return;
            }
            Err(_) => {
                tracing::debug!(client = %client.short(), "a request did not arrive in time");
                return;
            }
        };
        let sent = match self.inner.attempt(Client { peer: client, name }, request, &mut reader, &mut writer).await {
            Ok(sent) => sent,
            Err(error) => send(&mut writer, &ActionUpdate::Failed(error)).await,
        };
        if sent {
            // The end is only clean once the client has seen it: dropping the stream earlier may cut its last bytes off.
            drop(timeout(LINGER, writer.shutdown()).await);
            drop(timeout(LINGER, ended(&mut reader)).await);
        }
    }
}

impl Inner {
    /// Whether all was said that was to be said. An error is still to be said.
    async fn attempt<R, W>(
        &self,
        from: Client<'_>,
        request: ActionRequest,
        reader: &mut R,
        writer: &mut W,
    ) -> Result<bool, WireError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let client = from.peer;
        let mut checked = check(client, request)?;
        self.terms.check(from)?;
        let key = (client, checked.attempt);
        if let Some(result) = self.ended.find(&key) {
            return Ok(send(writer, &ActionUpdate::Accepted).await && self.finish(&result, writer).await);
        }
        // Before the run starts, which would fetch what the client is about to send.
        let lack = Lack::of(std::mem::take(&mut checked.offered), &self.store, &self.coming);
        let mut passenger = self.board(key, from.name, checked)?;
        if !send(writer, &lack.as_ref().map_or(ActionUpdate::Accepted, Lack::told)).await {
            return Ok(false);
        }
        if let Some(lack) = lack
            && !supplied(lack, (self.store.clone(), self.small.clone()), reader, writer).await
        {
            tracing::debug!(client = %client.short(), "what the client offered did not come");
            return Ok(false);
        }
        match follow(&self.store, &self.small, &mut passenger, reader, writer).await {
            None => {
                tracing::debug!(client = %client.short(), "the client is gone");
                Ok(false)
            }
            Some(outcome) => {
                let done = outcome?;
                Ok(self.finish(&done.result, writer).await)
            }
        }
    }

    /// Joins the run of an attempt, or takes a slot and starts it.
    fn board(&self, key: Key, name: &str, checked: Checked) -> Result<Passenger<Key, Outcome>, WireError> {
        let mut refused = None;
        let passenger = self.attempts.join(key, |cancel, progress| {
            let slot = self.terms.slots.admit(key.0, checked.token, checked.attempt);
            if let Err(error) = &slot {
                refused = Some(error.clone());
            }
            let (store, small) = (self.store.clone(), self.small.clone());
            let (executor, ended) = (Arc::clone(&self.executor), Arc::clone(&self.ended));
            let (terms, name) = (self.terms.clone(), name.to_owned());
            async move {
                let slot = slot?;
                let watch = Watch { progress, cancel };
                let job = Arc::clone(&checked.job);
                let started = Instant::now();
                let outcome = run(&store, &small, executor, checked, &watch, (slot, &terms.gate)).await;
                terms.note(name, &job, &outcome, started.elapsed());
                if let Ok(done) = &outcome {
                    ended.remember(key, Arc::clone(&done.result));
                }
                outcome
            }
        });
        match refused {
            Some(error) => Err(error),
            None => Ok(passenger),
        }
    }

    async fn finish<W: AsyncWrite + Unpin>(&self, result: &SignedResult, writer: &mut W) -> bool {
        let blobs = blobs_of(&result.result);
        let n_bytes = blobs.iter().fold(0u64, |sum, digest| sum.saturating_add(digest.size_bytes));
        let update = ActionUpdate::Finished { result: Bytes(result.to_canonical()), blobs: blobs.clone() };
        let written = async {
            let frame = to_frame(&update)?;
            timeout(UPDATE_DEADLINE, writer.write_all(&frame)).await.map_err(|_| PumpError::Late)??;
            write_blobs(&self.store, &self.small, blobs, Framing::Raw, writer).await?;
            // A little leaves with the stream's end, in one packet.
            if n_bytes > LITTLE_BYTES { flush(writer).await } else { Ok(()) }
        };
        match written.await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(action = %result.result.action.short(), %error, "outputs were not sent");
                false
            }
        }
    }
}

async fn run(
    store: &Store,
    small: &Small,
    executor: Arc<dyn Executor>,
    checked: Checked,
    watch: &Watch,
    (slot, gate): (SlotGuard, &Gate),
) -> Outcome {
    let Checked { job, inline, .. } = checked;
    let pins = put_inline(store, small, inline).await?;
    let mut running = executor.run(&job, watch);
    let outcome = tokio::select! {
        outcome = &mut running => outcome,
        () = gate.handed_back() => {
            watch.cancel.cancel();
            // Whatever else it says of having been ended, that is why.
            running.await.map_err(|_| handed_back())
        }
    };
    drop(pins);
    // Before anybody hears of the result, so that who then asks for the same slot gets it.
    drop(slot);
    outcome
}

impl Terms {
    fn check(&self, from: Client<'_>) -> Result<(), WireError> {
        let id = from.peer.to_string();
        if self.blocked.iter().any(|blocked| blocked == from.name || *blocked == id) {
            return Err(WireError::new(
                ErrorCode::Refused,
                Retry::OtherAgent,
                "this machine does not lend to this client",
            ));
        }
        Ok(())
    }

    /// Notes what was run for a client, not what was there already. What was ended before its own end counts with its time by the clock, or
    /// nobody would know of work that is taken back again and again.
    fn note(&self, client: String, job: &Job, outcome: &Outcome, held: Duration) {
        let (exit, cpu_ms, wall_ms) = match outcome {
            Ok(done) if done.origin == Origin::Ran => {
                let result = &done.result.result;
                (Some(result.exit_code), result.provenance.cpu_ms, result.provenance.wall_ms)
            }
            Err(_) if held >= MIN_NOTED => {
                let held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
                (None, held_ms, held_ms)
            }
            Ok(_) | Err(_) => return,
        };
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let program = job.command.argv.first().map_or_else(String::new, |program| last(program));
        let output = job.command.output_files.first().map_or_else(String::new, |path| last(&path.to_string()));
        self.history.note(Entry {
            at: unix_seconds(SystemTime::now()),
            client,
            peer: job.client.to_string(),
            what: format!("{program} {output}"),
            action: job.digest.short(),
            exit,
            cpu_ms,
            wall_ms,
        });
    }
}

/// A few small blobs, as they come along unasked, stay in memory; more goes to the store.
async fn put_inline(store: &Store, small: &Small, inline: Vec<Bytes>) -> Result<Option<Pin>, WireError> {
    if inline.iter().map(|bytes| bytes.0.len()).sum::<usize>() <= MAX_SMALL_BYTES {
        for bytes in inline {
            small.keep(Digest::of(&bytes.0), &bytes.0);
        }
        return Ok(None);
    }
    let store = store.clone();
    let putting = tokio::task::spawn_blocking(move || store_inline(&store, inline)).await;
    putting.map_err(|error| WireError::new(ErrorCode::Internal, Retry::OtherAgent, error))?.map(Some)
}

fn store_inline(store: &Store, inline: Vec<Bytes>) -> Result<Pin, WireError> {
    let named: Vec<(Digest, Bytes)> = inline.into_iter().map(|bytes| (Digest::of(&bytes.0), bytes)).collect();
    let pin = store.pin(named.iter().map(|(digest, _)| *digest));
    for (digest, bytes) in named {
        if !store.contains(&digest) {
            let failed = |error| WireError::new(ErrorCode::Storage, Retry::OtherAgent, error);
            store.put_linkable(&digest, &bytes.0).map_err(failed)?;
        }
    }
    Ok(pin)
}

/// Takes in what the client offered, and says meanwhile that it is at work. Whether it came.
async fn supplied<R, W>(lack: Lack, (store, small): (Store, Small), reader: &mut R, writer: &mut W) -> bool
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut ticks = progress_ticks();
    let mut supply = std::pin::pin!(lack.supplied(store, small, reader));
    loop {
        tokio::select! {
            came = &mut supply => return came,
            _ = ticks.tick() => {
                if !send(writer, &ActionUpdate::Running(Stage::Fetching)).await {
                    return false;
                }
            }
        }
    }
}

fn progress_ticks() -> Interval {
    let mut ticks = interval(Duration::from_millis(PROGRESS_INTERVAL_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

/// Says how it goes until the run has landed, and sends what is wanted early. `None`: the client is gone.
async fn follow<R, W>(
    store: &Store,
    small: &Small,
    passenger: &mut Passenger<Key, Outcome>,
    reader: &mut R,
    writer: &mut W,
) -> Option<Outcome>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut ticks = progress_ticks();
    let mut gone = std::pin::pin!(ended(reader));
    let mut standing = passenger.standing();
    let mut is_early_sent = false;
    loop {
        let (stage, early) = {
            let now = standing.borrow_and_update();
            (now.stage, now.early.clone().filter(|_| !is_early_sent))
        };
        if let Some(early) = early {
            is_early_sent = true;
            if !send_early(store, small, &early, writer).await {
                return None;
            }
        }
        tokio::select! {
            biased;
            landed = passenger.landed() => {
                let died = || Err(WireError::new(ErrorCode::Internal, Retry::OtherAgent, "the attempt failed"));
                return Some(landed.unwrap_or_else(died));
            }
            () = &mut gone => return None,
            Ok(()) = standing.changed() => {}
            _ = ticks.tick() => {
                if !send(writer, &ActionUpdate::Running(stage)).await {
                    return None;
                }
            }
        }
    }
}

async fn send_early<W: AsyncWrite + Unpin>(store: &Store, small: &Small, early: &Early, writer: &mut W) -> bool {
    let update = ActionUpdate::Early {
        output: early.output,
        mode: early.mode,
        stderr: Bytes(early.stderr.clone()),
        observed: early.observed.clone().map(Bytes),
    };
    send(writer, &update).await
        && write_blobs(store, small, vec![early.output], Framing::Raw, writer).await.is_ok()
        && flush(writer).await.is_ok()
}

/// Returns when nothing more comes: the client closed or dropped its end, or said what it must not say.
async fn ended<R: AsyncRead + Unpin>(reader: &mut R) {
    let mut byte = [0];
    // Any outcome ends the session: end, error, or a byte that is no part of the protocol.
    drop(reader.read(&mut byte).await);
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, update: &ActionUpdate) -> bool {
    matches!(timeout(UPDATE_DEADLINE, write_message(writer, update)).await, Ok(Ok(())))
}

fn check(client: PeerId, request: ActionRequest) -> Result<Checked, WireError> {
    let invalid = |why: String| WireError::new(ErrorCode::Invalid, Retry::Never, why);
    for (what, bytes) in [("action", &request.action), ("command", &request.command), ("toolchain", &request.toolchain)]
    {
        if bytes.0.len() > MAX_COMMAND_BYTES {
            return Err(invalid(format!("the {what} is too large")));
        }
    }
    let n_inline_bytes: usize = request.inline.iter().map(|bytes| bytes.0.len()).sum();
    if n_inline_bytes > MAX_INLINE_BYTES || request.inline.len() > MAX_INLINE {
        return Err(invalid("too much is sent along".to_owned()));
    }
    let malformed = |what: &'static str| move |error: CanonicalError| invalid(format!("{what} is malformed: {error}"));
    let action = Action::from_canonical(&request.action.0).map_err(malformed("action"))?;
    let command = Command::from_canonical(&request.command.0).map_err(malformed("command"))?;
    let toolchain = Toolchain::from_canonical(&request.toolchain.0).map_err(malformed("toolchain"))?;
    if Digest::of(&request.command.0) != action.command {
        return Err(invalid("the command is not the one that the action names".to_owned()));
    }
    if Digest::of(&request.toolchain.0) != action.toolchain.0 {
        return Err(invalid("the toolchain is not the one that the action names".to_owned()));
    }
    let digest = Digest::of(&request.action.0);
    // An unknown place is nobody's harm: everything comes at the end.
    let early = request.early.and_then(|at| command.output_files.get(at as usize).cloned());
    let job = Arc::new(Job { digest, action, command, toolchain, client, early });
    Ok(Checked {
        attempt: request.attempt,
        token: request.token,
        job,
        offered: request.offered,
        inline: request.inline,
    })
}
