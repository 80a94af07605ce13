//! Where a compile that no cache knows runs: on an agent, here, or on both until the first is done.
//!
//! No action waits for the farm while a local slot is idle; an agent that fails is passed over for another, then for this machine; an
//! action that fails on an agent is run here before the user sees it.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use buildbee_proto::error::{ErrorCode, Retry};
use buildbee_proto::local::{LocalOutcome, LocalReply};
use buildbee_proto::outcome::OutputFile;
use buildbee_proto::peer::PeerId;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::context::{Context, RunningEntry};
use super::link::{LinkError, WrapperLink};
use crate::config::Racing;
use crate::dispatch::attempt::{AttemptError, EarlyOutput, RemoteResult, Wish};
use crate::dispatch::board::Went;
use crate::dispatch::claim::Claim;
use crate::dispatch::farm::{Farm, Found, Seat};
use crate::dispatch::job::Job;
use crate::dispatch::lookup::Wanted;
use crate::journal::Why;
use crate::journal::stages::{Stage, StageClock};

/// Agents tried before this machine.
const MAX_ATTEMPTS: usize = 3;
/// A remote action is late after this long.
const LATE: Duration = Duration::from_secs(1);
/// The longest wait for a slot anywhere, where this machine compiles too.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// The same where it has no slot of its own (`local_slots = 0`, `strict`): agents are there, and at work. A board that gave up earlier would take the
/// longest compiles of all upon itself, as all of them wait while the agents have those.
const MAX_WAIT_WITHOUT_SLOTS: Duration = Duration::from_secs(600);
/// Inputs of this size count for where an action goes.
const LARGE_INPUT_BYTES: u64 = 64 << 10;
/// How long the wish for a slot waits to hear that another client has the same action run.
const CLAIM_PATIENCE: Duration = Duration::from_millis(20);
/// How often a waiting action looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How an action ended.
#[derive(Debug)]
pub enum Ended {
    /// An agent ran it, and it succeeded.
    Remote {
        /// The agent's name.
        agent: String,
        /// What it made.
        result: Box<RemoteResult>,
    },
    /// An agent ran it, and it succeeded, but it printed what only a run on a terminal would print as the user should see it.
    Unshown {
        /// What it made.
        result: Box<RemoteResult>,
    },
    /// Another client had it run meanwhile.
    Shared {
        /// The agent that has it.
        agent: String,
        /// What it is.
        result: Box<RemoteResult>,
    },
    /// The wrapper ran it.
    Local {
        /// Why.
        why: Why,
        /// How it ended.
        outcome: LocalOutcome,
    },
    /// It may not run here (`BUILDBEE=strict`), and nowhere else it could.
    Forbidden {
        /// Why.
        why: Why,
    },
}

/// Runs one job.
#[derive(Debug)]
pub struct Executor<'a> {
    context: &'a Arc<Context>,
    link: &'a WrapperLink,
    job: &'a Job,
    listed: &'a RunningEntry,
    run: &'a Run<'a>,
    clock: &'a StageClock,
    strict: bool,
    /// The output that the build has gone on with.
    released: OnceLock<OutputFile>,
    /// Tells other clients that this one has the action run.
    claim: OnceLock<Claim>,
}

/// What a run takes and gives besides the action, by whichever front-end.
pub struct Run<'a> {
    /// Arguments that a local run gets before the user's.
    pub added_arguments: &'a [String],
    /// The library that watches a local run.
    pub recorder: Option<String>,
    /// Whether a local run that is killed because it lost a race leaves nothing behind.
    pub may_lose: bool,
    /// Why no other machine may run it, though its result can be kept.
    pub here_only: Option<Why>,
    /// Whether what a successful run printed can be shown after another run.
    pub can_print_otherwise: bool,
    /// Why a successful result of an agent is not what a local run would have left; `None`: it is.
    pub objection: &'a (dyn Fn(&RemoteResult) -> Option<Why> + Send + Sync),
    /// An output that the build waits for more than for the rest.
    pub early: Option<EarlyRun>,
}

/// See [`EarlyRun::was_told`].
pub type WasTold = dyn Fn(&[u8], &OutputFile) -> bool + Send + Sync;

/// An output that is put in place and told of before its compile's end.
pub struct EarlyRun {
    /// Its place among the job's outputs.
    pub output: u32,
    /// Puts it in place, and says what the wrapper is told; `None`: that has to wait for the end. Blocks.
    pub release: Arc<dyn Fn(EarlyOutput) -> Option<LocalReply> + Send + Sync>,
    /// Whether a run here that printed this has put the same in place, and told the build. Blocks.
    pub was_told: Arc<WasTold>,
}

impl fmt::Debug for EarlyRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyRun").field("output", &self.output).finish_non_exhaustive()
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("here_only", &self.here_only).finish_non_exhaustive()
    }
}

/// Whether a local run may yet lose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Raced {
    Yes,
    No,
}

enum Tried {
    Ended(Ended),
    Failed(AttemptError),
    /// It is somebody else's.
    Beaten,
}

impl<'a> Executor<'a> {
    /// For one job of one wrapper.
    pub fn new(
        context: &'a Arc<Context>,
        link: &'a WrapperLink,
        job: &'a Job,
        listed: &'a RunningEntry,
        run: &'a Run<'a>,
        clock: &'a StageClock,
        strict: bool,
    ) -> Self {
        Self { context, link, job, listed, run, clock, strict, released: OnceLock::new(), claim: OnceLock::new() }
    }

    /// The output that the build has gone on with, if it has.
    pub fn released(&self) -> Option<&OutputFile> {
        self.released.get()
    }

    /// Runs it somewhere.
    pub async fn run(&self) -> Result<Ended, LinkError> {
        let Some(farm) = &self.context.farm else {
            return self.local(why("no-farm", "this machine has not joined a farm"), None).await;
        };
        if let Some(why) = &self.run.here_only {
            return self.local(why.clone(), self.local_permit()).await;
        }
        if let Some(claim) = Claim::start(farm, self.job.action) {
            // Empty until now.
            drop(self.claim.set(claim));
        }
        tokio::select! {
            ended = self.run_at(farm) => ended,
            never = self.wish(farm) => match never {},
        }
    }

    /// Wishes for a slot for as long as one could be used: who waits for another client's run would keep it idle.
    async fn wish(&self, farm: &Farm) -> Infallible {
        if let Some(claim) = self.claim.get() {
            // Mostly it takes less than the wish itself.
            let _ = tokio::time::timeout(CLAIM_PATIENCE, claim.answered()).await;
        }
        loop {
            while self.is_beaten() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            let _wish = farm.wish();
            self.beaten().await;
        }
    }

    async fn run_at(&self, farm: &Farm) -> Result<Ended, LinkError> {
        let started = Instant::now();
        let mut tried: Vec<PeerId> = Vec::new();
        let held = farm.held(self.job.inputs.files.keys().filter(|digest| digest.size_bytes >= LARGE_INPUT_BYTES));
        let host = &self.job.parts.toolchain.host;
        let mut last = match farm.lends_to(host) {
            Some(false) => why("other-host", &format!("no agent runs programs of {host}, as this compiler is one")),
            _ => why("no-agents", "no agent can be reached"),
        };
        // A place in the queue for this machine's slots, while no agent has one: who races has a slot already, and must not come first for ever.
        let mut queued = None;
        loop {
            if self.is_beaten() {
                queued = None;
                if let Some(ended) = self.wait_for_other(farm).await? {
                    return Ok(ended);
                }
            }
            match farm.seat(&self.job.parts, &tried, &held) {
                Found::Seat(seat) if tried.len() < MAX_ATTEMPTS => {
                    queued = None;
                    let (peer, name) = (seat.pick.peer, seat.pick.name.clone());
                    match self.remote(farm, seat).await? {
                        Tried::Ended(ended) => return Ok(ended),
                        Tried::Beaten => {}
                        Tried::Failed(error) => {
                            tracing::info!(agent = %name, action = %self.job.action.short(), %error, "an attempt failed");
                            self.context.journal.noted(error.code());
                            last = why(error.code(), &format!("{name}: {error}"));
                            if matches!(&error, AttemptError::Refused(error) if error.retry == Retry::Never) {
                                return self.fallback(last).await;
                            }
                            let busy = matches!(&error, AttemptError::Refused(error) if error.code == ErrorCode::Busy)
                                || matches!(error, AttemptError::HandedBack(_));
                            if !busy {
                                tried.push(peer);
                            }
                        }
                    }
                }
                Found::Full if started.elapsed() < self.longest_wait() => {
                    self.listed.at("waiting for a slot");
                    let permit = queued.get_or_insert_with(|| Box::pin(self.permit_for_want_of_agents()));
                    tokio::select! {
                        biased;
                        permit = permit => {
                            let idle = why("farm-busy", "all agents are busy, this machine is not");
                            return self.local(idle, Some(permit)).await;
                        }
                        () = farm.changed(LOOK_AGAIN) => {}
                        () = self.beaten() => {}
                    }
                }
                Found::Full => return self.fallback(why("farm-busy", "all agents were busy for too long")).await,
                Found::Seat(_) | Found::Nobody => return self.fallback(last).await,
            }
        }
    }

    fn is_beaten(&self) -> bool {
        self.claim.get().is_some_and(Claim::is_beaten)
    }

    /// Returns when somebody else turns out to have the action run, and only then.
    async fn beaten(&self) {
        match self.claim.get() {
            Some(claim) => claim.beaten().await,
            None => std::future::pending().await,
        }
    }

    /// Another client has the same action run: its result is ours too. `None`: nothing comes of it. While this machine has nothing to do it
    /// does not wait for long.
    async fn wait_for_other(&self, farm: &Farm) -> Result<Option<Ended>, LinkError> {
        let Some(claim) = self.claim.get() else { return Ok(None) };
        self.listed.at("waiting for another client's run");
        let wanted = Wanted { action: &self.job.action, outputs: &self.job.outputs };
        let ended = tokio::select! {
            found = Box::pin(claim.outcome(farm, wanted)) => found.map(|(peer, result)| {
                self.received(&result);
                Ended::Shared { agent: farm.name_of(&peer), result: Box::new(result) }
            }),
            permit = self.late_permit() => {
                let idle = why("farm-busy", "another client has the same made, and this machine is idle");
                Some(self.local(idle, Some(permit)).await?)
            }
        };
        claim.end();
        Ok(ended)
    }

    /// A slot of this machine once the farm has had its time; never, where there is none.
    async fn late_permit(&self) -> OwnedSemaphorePermit {
        if self.strict || self.context.settings.local_slots == 0 {
            return std::future::pending().await;
        }
        self.permit_after(LATE).await
    }

    /// A slot of this machine; never, where it may not be used.
    async fn permit_for_want_of_agents(&self) -> OwnedSemaphorePermit {
        if self.strict {
            return std::future::pending().await;
        }
        self.permit_after(Duration::ZERO).await
    }

    async fn permit_after(&self, wait: Duration) -> OwnedSemaphorePermit {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        match Arc::clone(&self.context.local_slots).acquire_owned().await {
            Ok(permit) => permit,
            // Never closed.
            Err(_) => std::future::pending().await,
        }
    }

    fn longest_wait(&self) -> Duration {
        if self.strict || self.context.settings.local_slots == 0 { MAX_WAIT_WITHOUT_SLOTS } else { MAX_WAIT }
    }

    fn local_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.context.local_slots).try_acquire_owned().ok()
    }

    /// After the farm failed: here, unless that is forbidden.
    async fn fallback(&self, why: Why) -> Result<Ended, LinkError> {
        if self.strict {
            return Ok(Ended::Forbidden { why: (format!("strict:{}", why.0), why.1) });
        }
        let permit = self.local_permit();
        self.local(why, permit).await
    }

    async fn local(&self, why: Why, permit: Option<OwnedSemaphorePermit>) -> Result<Ended, LinkError> {
        if self.strict && self.context.farm.is_none() {
            return Ok(Ended::Forbidden { why: (format!("strict:{}", why.0), why.1) });
        }
        if let Some(claim) = self.claim.get() {
            // What is made here is nobody else's.
            claim.end();
        }
        self.listed.at("local");
        self.clock.ended(Stage::Wait);
        self.start_local(&why.0, Raced::No).await?;
        let outcome = self.link.outcome().await?;
        drop(permit);
        Ok(Ended::Local { why, outcome })
    }

    async fn start_local(&self, reason: &str, raced: Raced) -> Result<(), LinkError> {
        let reply = LocalReply::RunLocally {
            reason: reason.to_owned(),
            report: true,
            extra_arguments: self.run.added_arguments.to_vec(),
            extra_env: Vec::new(),
            recorder: self.run.recorder.clone(),
            strict_failure: false,
            // Only a race has a loser that is killed and leaves files behind.
            own_temporary_dir: raced == Raced::Yes || self.run.recorder.is_some(),
        };
        self.link.send(&reply).await
    }

    /// One attempt on one agent, raced by this machine where that is wanted.
    async fn remote(&self, farm: &Farm, mut seat: Seat) -> Result<Tried, LinkError> {
        let agent = seat.pick.name.clone();
        self.listed.at(&agent);
        self.clock.ended(Stage::Wait);
        let attempts = farm.attempts();
        let pick = seat.pick.clone();
        let (heard, mut early) = mpsc::channel(1);
        let wish = self.run.early.as_ref().map(|early| Wish { output: early.output, agent: pick.peer, heard });
        let mut attempt = std::pin::pin!(attempts.run(&pick, self.job, wish.as_ref()));
        let first = loop {
            tokio::select! {
                done = &mut attempt => break done,
                Some(output) = early.recv() => self.release(output).await?,
                () = self.beaten(), if self.released.get().is_none() => {
                    // Dropping the attempt gives the slot back.
                    return Ok(Tried::Beaten);
                }
                permit = self.race_permit(), if self.released.get().is_none() => {
                    // What it makes is in place when it is done.
                    early.close();
                    self.context.journal.noted("raced");
                    self.start_local("raced", Raced::Yes).await?;
                    let raced = tokio::select! {
                        done = &mut attempt => Err(done),
                        outcome = self.link.outcome() => Ok(outcome?),
                    };
                    let ended = match raced {
                        // Dropping the attempt stops the agent.
                        Ok(outcome) => Ok(outcome),
                        Err(done) => self.settle(&mut seat, done).await?,
                    };
                    drop(permit);
                    return Ok(Tried::Ended(match ended {
                        Ok(outcome) => Ended::Local { why: why("race-won", "this machine was faster than the agent"), outcome },
                        Err(result) => Ended::Remote { agent, result: Box::new(result) },
                    }));
                }
            }
        };
        match first {
            Ok(result) if self.good(&result) => {
                seat.went(Went::Well);
                self.received(&result);
                Ok(Tried::Ended(Ended::Remote { agent, result: Box::new(result) }))
            }
            Ok(result) => {
                seat.went(Went::Well);
                drop(seat);
                if result.signed.result.exit_code == 0 && self.run.can_print_otherwise {
                    self.received(&result);
                    return Ok(Tried::Ended(Ended::Unshown { result: Box::new(result) }));
                }
                self.confirm(&agent, &result).await.map(Tried::Ended)
            }
            Err(error) => {
                seat.went(error.went());
                Ok(Tried::Failed(error))
            }
        }
    }

    /// The agent answered while this machine was at it too: `Err` with its result if that counts, else how the local run ended.
    async fn settle(
        &self,
        seat: &mut Seat,
        done: Result<RemoteResult, AttemptError>,
    ) -> Result<Result<LocalOutcome, RemoteResult>, LinkError> {
        match done {
            Ok(result) if self.good(&result) => {
                seat.went(Went::Well);
                self.link.send(&LocalReply::Cancel).await?;
                let outcome = self.link.outcome().await?;
                // The compiler may have been done when the word came: then its files are in place, and stay.
                if outcome.exit_code.is_some() {
                    return Ok(Ok(outcome));
                }
                self.keep_told(outcome, &result).await;
                self.received(&result);
                Ok(Err(result))
            }
            // A failure of the program is being confirmed already; a failure of the agent needs no second answer.
            Ok(_) => {
                seat.went(Went::Well);
                Ok(Ok(self.link.outcome().await?))
            }
            Err(error) => {
                seat.went(error.went());
                self.context.journal.noted(error.code());
                Ok(Ok(self.link.outcome().await?))
            }
        }
    }

    /// The build has gone on with an output of the run that lost: the same stays as it is, or what was made of it meanwhile would look older.
    async fn keep_told(&self, outcome: LocalOutcome, result: &RemoteResult) {
        let Some(early) = &self.run.early else { return };
        let place =
            usize::try_from(early.output).ok().and_then(|at| self.job.outputs.get(at)).map(|output| &output.place);
        let Some(file) = result.signed.result.outputs.iter().find(|file| Some(&file.path) == place).cloned() else {
            return;
        };
        let (was_told, asked) = (Arc::clone(&early.was_told), file.clone());
        if tokio::task::spawn_blocking(move || was_told(&outcome.stderr.0, &asked)).await.unwrap_or(false) {
            // Empty: where something was released nobody races.
            drop(self.released.set(file));
        }
    }

    /// The program failed on the agent, or its messages would look different here: run it here before the user sees anything.
    async fn confirm(&self, agent: &str, result: &RemoteResult) -> Result<Ended, LinkError> {
        let code = result.signed.result.exit_code;
        let failed = || why("compile-failed", &format!("it failed on {agent} (exit status {code}); confirmed here"));
        let why = self.objection(result).unwrap_or_else(failed);
        let ended = self.local(why, None).await?;
        if let Ended::Local { outcome, .. } = &ended
            && code != 0
            && outcome.exit_code == Some(0)
        {
            self.context.journal.noted("agent-disagreed");
            tracing::warn!(agent, action = %self.job.action, "a compile failed on an agent and succeeded here");
        }
        Ok(ended)
    }

    fn good(&self, result: &RemoteResult) -> bool {
        result.signed.result.exit_code == 0 && self.objection(result).is_none()
    }

    fn objection(&self, result: &RemoteResult) -> Option<Why> {
        let result_of = &result.signed.result;
        if result_of.exit_code != 0 {
            return None;
        }
        let is_other = |released: &OutputFile| !result_of.outputs.contains(released);
        if self.released.get().is_some_and(is_other) {
            return Some(why("metadata-changed", "an agent made other metadata than the one before it"));
        }
        (self.run.objection)(result)
    }

    /// Hands on what came early, once: what another attempt sends early must be the same, which is looked at when it has ended.
    async fn release(&self, output: EarlyOutput) -> Result<(), LinkError> {
        let Some(early) = self.run.early.as_ref().filter(|_| self.released.get().is_none()) else { return Ok(()) };
        let (release, file) = (Arc::clone(&early.release), output.file.clone());
        let Ok(Some(reply)) = tokio::task::spawn_blocking(move || release(output)).await else { return Ok(()) };
        // Empty, as looked at above.
        drop(self.released.set(file));
        self.context.journal.noted("early");
        self.link.send(&reply).await
    }

    fn received(&self, result: &RemoteResult) {
        if let Some(claim) = self.claim.get() {
            claim.made();
        }
        let received = result.blobs.values().map(|content| content.len() as u64).sum();
        self.context.journal.moved(result.sent_bytes, received);
    }

    /// Ends when this machine should run the action too; never, where it should not.
    async fn race_permit(&self) -> OwnedSemaphorePermit {
        let wait = match self.context.settings.racing {
            Racing::Off => None,
            Racing::Tail => Some(LATE),
            Racing::Eager => Some(Duration::ZERO),
        };
        match wait {
            Some(wait) if self.run.may_lose && self.context.settings.local_slots > 0 && !self.strict => {
                self.permit_after(wait).await
            }
            _ => std::future::pending().await,
        }
    }
}

fn why(code: &str, text: &str) -> Why {
    (code.to_owned(), text.to_owned())
}
