//! The same for a Rust crate: its result is kept for what the compiler was seen to use, and where no result holds, an agent runs it, or the wrapper.

use std::sync::Arc;
use std::time::Duration;

use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::local::{LocalOutcome, LocalReply};
use buildbee_proto::outcome::{OutputFile, ReadSet};

use super::super::cache::Hit;
use super::super::context::Context;
use super::super::crates::action::{CrateJob, MACROS};
use super::super::crates::beyond::Beyond;
use super::super::crates::keep::{Before, Unkept};
use super::super::crates::plan::{CratePlan, Prepared, caller, stays};
use super::super::crates::verdict::{Objection, REAL_PATHS};
use super::super::execute::{EarlyRun, Ended, Executor, Run};
use super::super::invocation::Checked;
use super::super::link::LinkError;
use super::super::peers;
use super::super::plan::{Planned, other_messages};
use super::Session;
use super::ready::{double, with_twins};
use crate::dispatch::attempt::RemoteResult;
use crate::dispatch::lender::Source;
use crate::dispatch::lookup::{News, Wanted};
use crate::journal::stages::Stage;
use crate::journal::{Record, Where, Why};

/// The reason's code where rustc goes on with an earlier session.
const INCREMENTAL: &str = "incremental";

/// How often an agent is given what it lacked, for one compile, before that is run here.
const MAX_ROUNDS: u8 = 3;

/// Whether what a run makes is of use to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

/// Where a result comes from, and what of it is in place.
struct Place {
    of: Where,
    released: Option<OutputFile>,
}

/// How the wrapper's run went.
struct LocalRun {
    outcome: LocalOutcome,
    before: Before,
    record: Record,
    why: Why,
}

impl Session {
    pub(super) async fn plan_crate(&self, call: Checked) -> Planned {
        let rustcs = &self.context.rustcs;
        let late = |call: &Checked| {
            let text = "the first look at the compiler is not finished yet".to_owned();
            Planned::local(call, "toolchain-late", text)
        };
        let compiler = match tokio::time::timeout(self.patience(), rustcs.identify(caller(&call))).await {
            Ok(Ok(compiler)) => compiler,
            Ok(Err(error)) => return Planned::local(&call, error.code(), error.to_string()),
            Err(_) => return late(&call),
        };
        let prepared = match Prepared::new(call, compiler, self.context.settings.paths) {
            Ok(prepared) => prepared,
            Err(planned) => return planned,
        };
        let linker = match prepared.link_question() {
            Some(question) => {
                let look = rustcs.linker(prepared.compiler(), question);
                match tokio::time::timeout(self.patience(), look).await {
                    Ok(Ok(linker)) => Some(linker),
                    Ok(Err(error)) => return Planned::local(prepared.call(), error.code(), error.to_string()),
                    Err(_) => return late(prepared.call()),
                }
            }
            None => None,
        };
        let (context, record) = (Arc::clone(&self.context), prepared.call().record());
        self.clock.ended(Stage::Toolchain);
        let planning = tokio::task::spawn_blocking(move || prepared.plan(&context, linker));
        let interrupted = |_| Planned::Local(Box::new(record), ("input-unreadable".into(), "interrupted".into()));
        let planned = planning.await.unwrap_or_else(interrupted);
        self.clock.ended(Stage::Manifest);
        planned
    }

    pub(super) async fn finish_crate(&self, plan: Arc<CratePlan>, hit: Arc<Hit>) -> Result<(), LinkError> {
        let (context, placed, made) = (Arc::clone(&self.context), Arc::clone(&plan), Arc::clone(&hit));
        let placing = tokio::task::spawn_blocking(move || {
            placed.put_in_place(&made, &context.cache, None).map_err(|error| error.to_string())?;
            placed.stand_in(&context);
            placed.remember_recipe(&context, &made);
            placed.reply(&made).ok_or_else(|| "its messages could not be spelled anew".to_owned())
        });
        match placing.await.unwrap_or_else(|_| Err("interrupted".to_owned())) {
            Ok(reply) => {
                self.clock.ended(Stage::Place);
                let action = Some(hit.signed.result.action.to_string());
                let record = Record { action, saved_ms: hit.took_ms(), ..plan.record() };
                self.context.ended(record, &self.clock, Where::Cached, None);
                self.link.send(&reply).await
            }
            Err(error) => {
                tracing::info!(error, "a result could not be put in place");
                self.make_crate(plan).await
            }
        }
    }

    /// No result is known: has the wrapper run the compiler, and keeps what comes of it.
    pub(super) async fn make_crate(&self, plan: Arc<CratePlan>) -> Result<(), LinkError> {
        if plan.goes_on(&self.context.sessions) {
            let why =
                (INCREMENTAL.to_owned(), "rustc goes on where it left off at its last run for this crate".to_owned());
            return self.run_crate(plan, None, why, Keep::No).await;
        }
        let _under_way = plan.begins(&self.context.sessions);
        if self.context.farm.is_none() {
            return self
                .here(plan, None, ("no-farm".to_owned(), "this machine has not joined a farm".to_owned()))
                .await;
        }
        self.make_elsewhere(plan, 0).await
    }

    /// Has an agent run it, if there is a way. Agents have lacked something `n_rounds` times.
    async fn make_elsewhere(&self, plan: Arc<CratePlan>, n_rounds: u8) -> Result<(), LinkError> {
        let plan = match Box::pin(double(self, &plan)).await {
            Ok(Some(double)) => Arc::new(plan.for_double(double)),
            Ok(None) => plan,
            Err(why) => return self.here(plan, None, why).await,
        };
        let (plan, given) = match self.given(&plan, n_rounds).await {
            Err(why) if why.0 == MACROS => match Box::pin(with_twins(self, &plan)).await {
                Ok(plan) => (Arc::clone(&plan), self.given(&plan, n_rounds).await),
                Err(why) => (plan, Err(why)),
            },
            given => (plan, given),
        };
        self.clock.ended(Stage::Inputs);
        match given {
            Ok(given) => self.with_crate_job(plan, Arc::new(given)).await,
            Err(why) => self.here(plan, None, why).await,
        }
    }

    async fn given(&self, plan: &Arc<CratePlan>, n_rounds: u8) -> Result<CrateJob, Why> {
        let (context, wanted) = (Arc::clone(&self.context), Arc::clone(plan));
        let look = tokio::task::spawn_blocking(move || wanted.job(&context, n_rounds));
        look.await.unwrap_or_else(|_| Err(("input-unreadable".to_owned(), "interrupted".to_owned())))
    }

    /// Runs it here, in the stead of an agent that was `given` it, if one was.
    async fn here(&self, plan: Arc<CratePlan>, given: Option<Arc<CrateJob>>, why: Why) -> Result<(), LinkError> {
        if plan.call.strict {
            return self.pass(plan.record(), (format!("strict:{}", why.0), why.1)).await;
        }
        self.run_crate(plan, given, why, Keep::Yes).await
    }

    async fn with_crate_job(&self, plan: Arc<CratePlan>, given: Arc<CrateJob>) -> Result<(), LinkError> {
        let job = &given.job;
        let record =
            Record { action: Some(job.action.to_string()), inputs: Some(job.inputs.counts()), ..plan.record() };
        let (cache, action) = (self.context.cache.clone(), job.action);
        let mut known = tokio::task::spawn_blocking(move || cache.crate_result(&action)).await.ok().flatten();
        let mut agent = None;
        if known.is_none() {
            let wanted = Wanted { action: &job.action, outputs: &job.outputs };
            if let (Some((name, hit)), _) = peers::ask(&self.context, wanted, None, News::AreCaught).await {
                (known, agent) = (Some(hit), Some(name));
            }
        }
        self.clock.ended(Stage::Lookup);
        match known {
            Some(hit) => {
                let received_bytes = if agent.is_some() { hit.size() } else { 0 };
                let record = Record { agent, received_bytes, ..record };
                self.take_crate(plan, given, hit, record, Place { of: Where::Cached, released: None }).await
            }
            None => self.run_crate_somewhere(plan, given, record).await,
        }
    }

    async fn run_crate_somewhere(
        &self,
        plan: Arc<CratePlan>,
        given: Arc<CrateJob>,
        record: Record,
    ) -> Result<(), LinkError> {
        let job = &given.job;
        let _loan = self.context.farm.as_ref().map(|farm| {
            let files = job.inputs.files.iter().map(|(digest, path)| (*digest, Source::File(path.clone())));
            let directories = job.inputs.tree.directories.iter();
            let directories = directories.map(|(digest, bytes)| (*digest, Source::Bytes(Arc::clone(bytes))));
            farm.lend(&job.parts, files.chain(directories))
        });
        let objection = |result: &RemoteResult| {
            let content = |digest: &Digest| result.blobs.get(digest).map_or(&[][..], Vec::as_slice);
            plan.double.as_ref()?.objection_to_result(&result.signed.result, &content)
        };
        let recorder = self.recorder(Keep::Yes);
        let run = Run {
            added_arguments: &plan.request.added_arguments,
            // rustc tidies nothing up, and what is its own stands in the record alone.
            may_lose: recorder.is_some(),
            recorder,
            here_only: None,
            can_print_otherwise: false,
            // What else it comes to is looked at by a thread, when it is here: that takes time.
            objection: &objection,
            early: self.early(&plan, &given),
        };
        let before = plan.before();
        let executor = Executor::new(&self.context, &self.link, job, &plan.listed, &run, &self.clock, plan.call.strict);
        match executor.run().await? {
            Ended::Remote { agent, result } => {
                self.clock.ran(Duration::from_millis(result.signed.result.provenance.wall_ms));
                let sent_bytes = result.sent_bytes;
                let hit = Arc::new(Hit::from(*result));
                let record = Record { agent: Some(agent), sent_bytes, received_bytes: hit.size(), ..record };
                let released = executor.released().cloned();
                self.take_crate(plan, given, hit, record, Place { of: Where::Remote, released }).await
            }
            Ended::Shared { agent, result } => {
                let hit = Arc::new(Hit::from(*result));
                let record = Record { agent: Some(agent), received_bytes: hit.size(), ..record };
                self.take_crate(plan, given, hit, record, Place { of: Where::Cached, released: None }).await
            }
            Ended::Local { why, outcome } => {
                self.clock.ran(Duration::from_millis(outcome.wall_ms));
                // The agent failed where this machine did not: it may have lacked something.
                let disagreed = (why.0 == "compile-failed" && outcome.exit_code == Some(0)).then_some(given);
                self.ran_here(plan, disagreed, LocalRun { outcome, before, record, why }, Keep::Yes).await
            }
            Ended::Unshown { .. } => self.pass(record, other_messages()).await,
            Ended::Forbidden { why } => self.pass(record, why).await,
        }
    }

    /// Puts in place what an agent made, if it is what a run here would have left, and keeps it for the question.
    async fn take_crate(
        &self,
        plan: Arc<CratePlan>,
        given: Arc<CrateJob>,
        hit: Arc<Hit>,
        record: Record,
        place: Place,
    ) -> Result<(), LinkError> {
        let Place { of: place, released } = place;
        let is_promised = released.is_some();
        let n_rounds = given.n_rounds;
        if let Some(farm) = &self.context.farm {
            farm.made(&hit.signed.result);
        }
        let record = Record { saved_ms: hit.took_ms(), ..record };
        let (context, placed, asked) = (Arc::clone(&self.context), Arc::clone(&plan), Arc::clone(&given));
        let taking = tokio::task::spawn_blocking(move || take(&context, &placed, &asked, &hit, released.as_ref()));
        let interrupted = |_| Err((("output-unwritable".to_owned(), "interrupted".to_owned()), None));
        let (why, again) = match taking.await.unwrap_or_else(interrupted) {
            Ok(reply) => {
                self.clock.ended(Stage::Place);
                self.context.ended(record, &self.clock, place, None);
                return self.link.send(&reply).await;
            }
            Err((why, again)) => (why, again),
        };
        match again {
            // Where cargo has gone on already, nothing is tried any more.
            Some(plan) if n_rounds < MAX_ROUNDS && !is_promised => {
                self.context.journal.noted(&why.0);
                tracing::info!(source = %plan.request.source.display(), code = why.0, text = why.1, "made again elsewhere");
                Box::pin(self.make_elsewhere(plan, n_rounds + 1)).await
            }
            _ => self.here(plan, Some(given), why).await,
        }
    }

    /// What is done with the metadata as soon as it is written. That of a double waits for the end: should this machine have to take its place, it
    /// need not make the same.
    fn early(&self, plan: &Arc<CratePlan>, given: &Arc<CrateJob>) -> Option<EarlyRun> {
        if plan.double.is_some() {
            return None;
        }
        let output = plan.early_output(&given.job)?;
        let (context, given, racer) = (Arc::clone(&self.context), Arc::clone(given), Arc::clone(plan));
        let plan = Arc::clone(plan);
        Some(EarlyRun {
            output,
            release: Arc::new(move |early| plan.release(&context, &given, early)),
            was_told: Arc::new(move |stderr, file| racer.has_told(stderr, file)),
        })
    }

    fn recorder(&self, keep: Keep) -> Option<String> {
        self.context.recorder.as_ref().filter(|_| keep == Keep::Yes).map(|path| path.display().to_string())
    }

    async fn run_crate(
        &self,
        plan: Arc<CratePlan>,
        given: Option<Arc<CrateJob>>,
        why: Why,
        keep: Keep,
    ) -> Result<(), LinkError> {
        plan.listed.at("local");
        self.clock.ended(Stage::Wait);
        let before = plan.before();
        let reply = LocalReply::RunLocally {
            reason: why.0.clone(),
            report: true,
            extra_arguments: plan.request.added_arguments.clone(),
            extra_env: Vec::new(),
            recorder: self.recorder(keep),
            strict_failure: false,
            own_temporary_dir: true,
        };
        self.link.send(&reply).await?;
        let outcome = self.link.outcome().await?;
        self.clock.ran(Duration::from_millis(outcome.wall_ms));
        let record = plan.record();
        self.ran_here(plan, given, LocalRun { outcome, before, record, why }, keep).await
    }

    /// Keeps what the wrapper's run made, and what it was seen to use, if an agent was `given` the same in vain.
    async fn ran_here(
        &self,
        plan: Arc<CratePlan>,
        given: Option<Arc<CrateJob>>,
        run: LocalRun,
        keep: Keep,
    ) -> Result<(), LinkError> {
        let LocalRun { outcome, before, record, why } = run;
        let exit_code = outcome.exit_code.unwrap_or(1);
        let made = (exit_code == 0 && plan.is_stood_in_for(&self.context)).then(|| Arc::clone(&plan));
        if keep == Keep::Yes
            && let Err(unkept) = self.keep_crate(plan, given, outcome, before).await
        {
            self.context.journal.noted(unkept.code());
            tracing::info!(source = record.source, %unkept, "a crate's result is not kept");
        }
        if let Some(plan) = made {
            let context = Arc::clone(&self.context);
            tokio::task::spawn_blocking(move || plan.stand_in(&context)).await.ok();
        }
        self.clock.ended(Stage::Place);
        self.context.ended(record, &self.clock, Where::Local, Some(why));
        self.link.send(&LocalReply::Done { exit_code, stdout: Bytes::default(), stderr: Bytes::default() }).await
    }

    async fn keep_crate(
        &self,
        plan: Arc<CratePlan>,
        given: Option<Arc<CrateJob>>,
        outcome: LocalOutcome,
        before: Before,
    ) -> Result<(), Unkept> {
        let context = Arc::clone(&self.context);
        let keep = move || {
            let recorder = context.recorder.as_deref().ok_or(Unkept::Unseen)?;
            if let Some(log) = &outcome.record {
                plan.note_session(&context.sessions, &log.0);
            }
            let kept = plan.keep(&context, &outcome, &before, recorder);
            if let Some(given) = given.filter(|_| outcome.exit_code == Some(0)) {
                let lacking = kept.as_ref().map(|seen| plan.not_given(&given, seen)).unwrap_or_default();
                plan.learn(&context, &given, lacking);
            }
            kept.map(drop)
        };
        // A panic in there loses a cache entry, not the compile.
        tokio::task::spawn_blocking(keep).await.unwrap_or(Err(Unkept::Nothing))
    }
}

/// Judges what an agent made, puts it in place and keeps it. What the wrapper is told, or why it does not count; and how an agent may do better.
fn take(
    context: &Context,
    plan: &Arc<CratePlan>,
    given: &CrateJob,
    hit: &Hit,
    released: Option<&OutputFile>,
) -> Result<LocalReply, (Why, Option<Arc<CratePlan>>)> {
    let seen = match plan.verdict(given, hit) {
        Ok(seen) => seen,
        Err(Objection { why, .. }) if why.0 == REAL_PATHS && plan.roots.are_placed() => {
            context.cache.index(&plan.key, stays(), &ReadSet::default());
            return Err((why, Some(Arc::new(plan.at_real_places()))));
        }
        Err(Objection { why, lacking }) => {
            let is_of_use = *lacking != Beyond::default() && plan.learn(context, given, *lacking);
            return Err((why, is_of_use.then(|| Arc::clone(plan))));
        }
    };
    let unwritable = |text: String| (("output-unwritable".to_owned(), text), None);
    let reply = plan.reply(hit).ok_or_else(|| unwritable("its messages could not be spelled anew".to_owned()))?;
    plan.put_in_place(hit, &context.cache, released).map_err(|error| unwritable(error.to_string()))?;
    if let Err(unkept) = plan.keep_made(context, given, hit, &seen) {
        context.journal.noted(unkept.code());
        tracing::info!(source = %plan.request.source.display(), %unkept, "a crate's result is not kept");
    }
    plan.stand_in(context);
    Ok(reply)
}
