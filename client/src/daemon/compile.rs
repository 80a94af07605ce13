//! The life of one compile that is no quick hit: find its compiler, its inputs, look again, run it somewhere, put the outputs in place.
//!
//! Whatever goes wrong on the way ends in a local run with a reason. The order of looking is the order of cost: the manifest (a few
//! `stat`s, see [`plan`](super::plan)), the action's result here, the action's result at peers, an agent, this machine.

mod crates;
mod ready;
mod scripts;

use std::sync::Arc;
use std::time::Duration;

use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::hint::Hint;
use buildbee_proto::local::{Invocation, LocalOutcome, LocalReply};

use super::cache::Hit;
use super::context::Context;
use super::elsewhere::{Elsewhere, Found};
use super::execute::{Ended, Executor};
use super::invocation::Checked;
use super::link::{LinkError, Reason, WrapperLink, run_alone};
use super::local_result::LocalRun;
use super::peers;
use super::plan::{Plan, Planned, other_messages, plan};
use super::speaking::OneSpeaks;
use crate::config::Racing;
use crate::dispatch::attempt::RemoteResult;
use crate::dispatch::job::Job;
use crate::dispatch::lender::{Loan, Source};
use crate::dispatch::lookup::{News, Wanted};
use crate::journal::stages::{Stage, StageClock};
use crate::journal::{Record, Where, Why};
use crate::portable::Obstacle;
use crate::toolchain::Compiler;
use ready::Ready;

/// How long a compile may wait for the first look at its compiler, and then for its inputs, where a farm would run it.
const FARM_PATIENCE: Duration = Duration::from_secs(1);
/// The same without a farm: what is gained is a cache entry.
const CACHE_PATIENCE: Duration = Duration::from_secs(5);
/// The same where nothing may run here by choice.
const MEASURED_PATIENCE: Duration = Duration::from_secs(120);

/// How far a compile has come when a session takes it over.
#[derive(Debug)]
pub enum Opening {
    /// Nothing was done for it yet.
    Invocation(Invocation),
    /// Nothing is known of its compiler yet.
    Call(Checked),
    /// It is known what it comes to.
    Planned(Planned),
}

/// One compile under way.
#[derive(Debug)]
pub struct Session {
    context: Arc<Context>,
    link: WrapperLink,
    clock: StageClock,
}

impl Session {
    /// For one connection; `clock` runs since its request came in.
    pub fn new(context: Arc<Context>, link: WrapperLink, clock: StageClock) -> Self {
        Self { context, link, clock }
    }

    /// Answers the wrapper. Ends early, without a word, when the wrapper goes away.
    pub async fn run(self, opening: Opening) -> Result<(), LinkError> {
        let gone = self.link.gone().clone();
        tokio::select! {
            done = self.answer(opening) => done,
            () = gone.cancelled() => Err(LinkError::Gone),
        }
    }

    async fn answer(&self, opening: Opening) -> Result<(), LinkError> {
        let planned = match opening {
            Opening::Invocation(invocation) => match Checked::new(&invocation) {
                Ok(call) if call.runs_script() => return self.run_script(call).await,
                Ok(call) => self.plan(call).await,
                Err((record, why)) => Planned::Local(record, why),
            },
            Opening::Call(call) if call.runs_script() => return self.run_script(call).await,
            Opening::Call(call) => self.plan(call).await,
            Opening::Planned(planned) => planned,
        };
        match &planned {
            Planned::Miss(plan) => self.tell(&plan.call),
            Planned::CrateMiss(plan) => self.tell(&plan.call),
            _ => {}
        }
        match planned {
            Planned::Hit(plan, hit) => {
                let record = plan.record();
                self.finish_cached(&Arc::from(plan), record, hit).await
            }
            Planned::Miss(plan) => self.find_inputs(Arc::from(plan)).await,
            Planned::CrateHit(plan, hit) => self.finish_crate(Arc::from(plan), hit).await,
            Planned::CrateMiss(plan) => self.make_crate(Arc::from(plan)).await,
            Planned::Local(record, why) => self.pass(*record, why).await,
        }
    }

    /// On a terminal the user is told of toolchains on their way to agents, which the first compiles of a farm wait for.
    fn tell(&self, call: &Checked) {
        if let Some(farm) = self.context.farm.clone().filter(|_| call.stderr_is_terminal) {
            let columns = call.columns.and_then(|columns| usize::try_from(columns).ok());
            let speaking = OneSpeaks::new(&self.context.speaking);
            self.link.tell(Reason(Box::new(move || speaking.say(farm.on_their_way(columns)))));
        }
    }

    async fn plan(&self, call: Checked) -> Planned {
        if call.compiles_crates() {
            return self.plan_crate(call).await;
        }
        if call.named().is_none() {
            return Planned::no_compiler(&call);
        }
        let compiler = match self.compiler(&call).await {
            Ok(compiler) => compiler,
            Err((code, text)) => return Planned::local(&call, &code, text),
        };
        let (context, record) = (Arc::clone(&self.context), call.record());
        self.clock.ended(Stage::Toolchain);
        let planning = tokio::task::spawn_blocking(move || plan(&context, call, compiler));
        let interrupted = |_| Planned::Local(Box::new(record), ("input-unreadable".into(), "interrupted".into()));
        let planned = planning.await.unwrap_or_else(interrupted);
        self.clock.ended(Stage::Manifest);
        planned
    }

    async fn find_inputs(&self, plan: Arc<Plan>) -> Result<(), LinkError> {
        let look = self.context.discovery.inputs(&plan.compiler, &plan.request, &plan.call.env, &plan.call.cwd);
        let inputs = match tokio::time::timeout(self.patience(), look).await {
            Ok(inputs) => inputs.map_err(|error| (error.code().to_owned(), error.to_string())),
            Err(_) => Err(("inputs-late".to_owned(), "finding what it reads took too long".to_owned())),
        };
        if inputs.as_ref().is_ok_and(|inputs| inputs.listed) {
            self.context.journal.noted("listed");
        }
        self.clock.ended(Stage::Inputs);
        let ready = match inputs {
            Ok(inputs) => Ready::of(self, &plan, inputs).await,
            Err(why) => Err(why),
        };
        match ready {
            Ok(ready) => self.with_job(&plan, ready).await,
            Err(why) => self.pass(plan.record(), why).await,
        }
    }

    /// How long a compile may be kept from running at all. Where it may run here by choice, not for long.
    fn patience(&self) -> Duration {
        let settings = &self.context.settings;
        if settings.racing == Racing::Off || settings.local_slots == 0 {
            MEASURED_PATIENCE
        } else if self.context.farm.is_some() {
            FARM_PATIENCE
        } else {
            CACHE_PATIENCE
        }
    }

    /// The compiler with its toolchain. A first look reads some hundred megabytes: where that takes too long, it goes on while the
    /// compile runs here.
    async fn compiler(&self, call: &Checked) -> Result<Arc<Compiler>, Why> {
        let toolchains = self.context.toolchains.clone();
        let (program, search) = (call.program.clone(), call.search().to_owned());
        let look = tokio::spawn(async move { toolchains.identify(&program, &search).await });
        match tokio::time::timeout(self.patience(), look).await {
            Ok(Ok(Ok(compiler))) => Ok(compiler),
            Ok(Ok(Err(error))) => Err((error.code().into(), error.to_string())),
            Ok(Err(_)) => Err(("unknown-compiler".into(), "the look at it was cut off".into())),
            Err(_) => Err(("toolchain-late".into(), "the first look at the compiler is not finished yet".into())),
        }
    }

    async fn with_job(&self, plan: &Arc<Plan>, ready: Ready) -> Result<(), LinkError> {
        let job = Arc::clone(&ready.job);
        let inputs = Some(job.inputs.counts());
        let record = Record { action: Some(job.action.to_string()), inputs, ..plan.record() };
        if let Some(hit) = self.known(plan, &job).await {
            self.clock.ended(Stage::Lookup);
            return self.finish_cached(plan, record, hit).await;
        }
        let elsewhere = Elsewhere::of(&self.context, &job, &plan.request, &plan.call.cwd);
        let found = self.at_others(&job, elsewhere.as_ref().ok()).await;
        self.clock.ended(Stage::Lookup);
        if let Some((agent, hit)) = found
            && ready.objection(&hit.signed.result, &|digest| hit.content(digest)).is_none()
            && self.still_lacks(&job).await
        {
            self.keep(plan, &job, Arc::clone(&hit)).await;
            let received_bytes = if agent.is_some() { hit.size() } else { 0 };
            return self.finish_cached(plan, Record { agent, received_bytes, ..record }, hit).await;
        }
        self.run_somewhere(plan, &ready, record, elsewhere).await
    }

    /// The result of `job`'s action, if this user's cache has it: then the plan leads to it from now on. A thread is asked only where
    /// there is something to read.
    async fn known(&self, plan: &Plan, job: &Arc<Job>) -> Option<Arc<Hit>> {
        let (cache, key, job) = (self.context.cache.clone(), plan.key, Arc::clone(job));
        if !cache.store()?.has_result(&job.action) {
            return None;
        }
        let look = move || {
            let hit = cache.result(&job.action)?;
            cache.index(&key, job.action, &job.inputs.read_set);
            Some(hit)
        };
        tokio::task::spawn_blocking(look).await.ok().flatten()
    }

    /// Has a compile run that nobody has done before.
    async fn run_somewhere(
        &self,
        plan: &Arc<Plan>,
        ready: &Ready,
        record: Record,
        elsewhere: Result<Elsewhere<'_>, Obstacle>,
    ) -> Result<(), LinkError> {
        let job = &ready.job;
        let _loan = self.lend(job);
        let (link, listed, clock) = (&self.link, &plan.listed, &self.clock);
        let objection = |result: &RemoteResult| {
            let content = |digest: &Digest| result.blobs.get(digest).map_or(&[][..], Vec::as_slice);
            let shown = plan.request.accepts_stderr(content(&result.signed.result.stderr));
            ready.objection(&result.signed.result, &content).or_else(|| (!shown).then(other_messages))
        };
        let mut run = plan.run(job, &objection);
        run.here_only = run.here_only.or_else(|| ready.barred.clone());
        let executor = Executor::new(&self.context, link, job, listed, &run, clock, plan.call.strict);
        match executor.run().await? {
            Ended::Remote { agent, result } => self.finish_remote(plan, job, record, (agent, *result), elsewhere).await,
            Ended::Shared { agent, result } => {
                let hit = Arc::new(Hit::from(*result));
                let record = Record { agent: Some(agent), received_bytes: hit.size(), ..record };
                self.finish_shared(plan, job, record, hit).await
            }
            Ended::Unshown { result } => {
                let hit = Hit::from(*result);
                if let Some(why) = ready.objection(&hit.signed.result, &|digest| hit.content(digest)) {
                    return self.pass(record, why).await;
                }
                self.keep(plan, job, Arc::new(hit)).await;
                self.show_otherwise(plan).await
            }
            Ended::Local { why, outcome } => {
                self.clock.ran(Duration::from_millis(outcome.wall_ms));
                let directory = match self.keep_local(plan, ready, &outcome).await {
                    // Its hint would be the double's.
                    Some(hit) if ready.pair.is_none() => share(elsewhere, &hit).await,
                    _ => None,
                };
                self.clock.ended(Stage::Place);
                self.context.ended(Record { directory, ..record }, &self.clock, Where::Local, Some(why));
                let reply = LocalReply::Done {
                    exit_code: outcome.exit_code.unwrap_or(1),
                    stdout: Bytes::default(),
                    stderr: Bytes::default(),
                };
                self.link.send(&reply).await
            }
            Ended::Forbidden { why } => self.pass(record, why).await,
        }
    }

    /// An agent has run it.
    async fn finish_remote(
        &self,
        plan: &Arc<Plan>,
        job: &Arc<Job>,
        record: Record,
        (agent, result): (String, RemoteResult),
        elsewhere: Result<Elsewhere<'_>, Obstacle>,
    ) -> Result<(), LinkError> {
        self.clock.ran(Duration::from_millis(result.signed.result.provenance.wall_ms));
        let sent_bytes = result.sent_bytes;
        let hit = Arc::new(Hit::from(result));
        let hint = elsewhere.and_then(|elsewhere| elsewhere.hint(&hit).map(|hint| (elsewhere, hint)));
        let leading = hint.as_ref().ok().map(|(elsewhere, hint)| (*elsewhere.key(), hint.clone()));
        if let Err(why) = self.take_over(plan, job, &hit, leading).await {
            return self.pass(record, why).await;
        }
        let directory = match hint {
            Ok((elsewhere, hint)) => {
                elsewhere.tell_peers(hint);
                None
            }
            Err(obstacle) => Some(obstacle.to_string()),
        };
        let received_bytes = hit.size();
        let record = Record { agent: Some(agent), sent_bytes, received_bytes, directory, ..record };
        self.done(record, &hit, Where::Remote).await
    }

    /// Lends agents what `job` reads.
    fn lend(&self, job: &Job) -> Option<Loan> {
        let farm = self.context.farm.as_ref()?;
        let files = job.inputs.files.iter().map(|(digest, path)| (*digest, Source::File(path.clone())));
        let directories = job.inputs.tree.directories.iter();
        let directories = directories.map(|(digest, bytes)| (*digest, Source::Bytes(Arc::clone(bytes))));
        Some(farm.lend(&job.parts, files.chain(directories)))
    }

    /// What peers hold, and what this user and they have made in other folders.
    async fn at_others(&self, job: &Job, elsewhere: Option<&Elsewhere<'_>>) -> Option<Found> {
        let same = Wanted { action: &job.action, outputs: &job.outputs };
        if let Some(elsewhere) = elsewhere
            && let Some(found) = elsewhere.in_own_cache().await
        {
            return Some(found);
        }
        match (peers::ask(&self.context, same, elsewhere.map(Elsewhere::key), News::AreCaught).await, elsewhere) {
            ((Some((agent, hit)), _), _) => Some((Some(agent), hit)),
            ((None, hints), Some(elsewhere)) => elsewhere.follow(&hints).await,
            ((None, _), None) => None,
        }
    }

    /// Whether names that the job's files look for in vain are still absent: the agent saw the files of the moment before.
    async fn still_lacks(&self, job: &Arc<Job>) -> bool {
        let (cache, job) = (self.context.cache.clone(), Arc::clone(job));
        tokio::task::spawn_blocking(move || cache.still_lacks(&job.inputs)).await.unwrap_or(false)
    }

    /// Puts what an agent made in place and keeps it, with a hint to it, unless a name that its files look for in vain has appeared since.
    /// One thread does all of it: to hand work on costs more than most of this.
    async fn take_over(
        &self,
        plan: &Arc<Plan>,
        job: &Arc<Job>,
        hit: &Arc<Hit>,
        hint: Option<(Digest, Hint)>,
    ) -> Result<(), Why> {
        let (context, plan, job, hit) = (Arc::clone(&self.context), Arc::clone(plan), Arc::clone(job), Arc::clone(hit));
        let unwritable = |text| ("output-unwritable".to_owned(), text);
        let work = move || {
            if !context.cache.still_lacks(&job.inputs) {
                return Err(inputs_changed());
            }
            plan.put_in_place(&hit).map_err(|error| unwritable(error.to_string()))?;
            context.cache.keep(&hit, &plan.key, &job.inputs.read_set);
            if let Some((key, hint)) = hint {
                context.cache.add_hint(&key, hint);
            }
            Ok(())
        };
        let interrupted = |_| Err(unwritable("interrupted".to_owned()));
        tokio::task::spawn_blocking(work).await.unwrap_or_else(interrupted)
    }

    async fn keep(&self, plan: &Plan, job: &Arc<Job>, hit: Arc<Hit>) {
        let (cache, job, key) = (self.context.cache.clone(), Arc::clone(job), plan.key);
        tokio::task::spawn_blocking(move || cache.keep(&hit, &key, &job.inputs.read_set)).await.ok();
    }

    /// Keeps what the wrapper's run made, with what it printed on the terminal as that of a run on a terminal.
    async fn keep_local(&self, plan: &Arc<Plan>, ready: &Ready, outcome: &LocalOutcome) -> Option<Hit> {
        let job = &ready.native(plan)?;
        if plan.listed.contested() {
            self.context.journal.noted("output-contested");
            return None;
        }
        if plan.request.accepts_stderr(&outcome.stderr.0) {
            return LocalRun { plan_key: plan.key, job, outcome }.keep(&self.context).await;
        }
        let plan = plan.on_terminal()?;
        let job = Job::new(&plan.compiler, &plan.request, job.inputs.clone(), &plan.call.cwd).ok()?;
        LocalRun { plan_key: plan.key, job: &Arc::new(job), outcome }.keep(&self.context).await;
        None
    }

    /// Another client had it run while this one was about to.
    async fn finish_shared(
        &self,
        plan: &Arc<Plan>,
        job: &Arc<Job>,
        record: Record,
        hit: Arc<Hit>,
    ) -> Result<(), LinkError> {
        if !self.still_lacks(job).await {
            return self.pass(record, inputs_changed()).await;
        }
        self.keep(plan, job, Arc::clone(&hit)).await;
        self.finish_cached(plan, record, hit).await
    }

    async fn finish_cached(&self, plan: &Arc<Plan>, record: Record, hit: Arc<Hit>) -> Result<(), LinkError> {
        if !plan.accepts(&hit) {
            return self.show_otherwise(plan).await;
        }
        if let Err(error) = self.put_in_place(plan, &hit).await {
            return self.pass(record, ("output-unwritable".into(), error)).await;
        }
        let record = Record { action: Some(hit.signed.result.action.to_string()), ..record };
        self.done(record, &hit, Where::Cached).await
    }

    /// The messages of a result can't be shown: makes them as they should be.
    async fn show_otherwise(&self, plan: &Plan) -> Result<(), LinkError> {
        match plan.on_terminal() {
            Some(there) => {
                there.ask(&self.context);
                Box::pin(self.find_inputs(Arc::new(there))).await
            }
            None => self.pass(plan.record(), other_messages()).await,
        }
    }

    async fn put_in_place(&self, plan: &Arc<Plan>, hit: &Arc<Hit>) -> Result<(), String> {
        let (plan, hit) = (Arc::clone(plan), Arc::clone(hit));
        let placing = tokio::task::spawn_blocking(move || plan.put_in_place(&hit).map_err(|error| error.to_string()));
        placing.await.unwrap_or_else(|_| Err("interrupted".to_owned()))
    }

    async fn done(&self, record: Record, hit: &Hit, place: Where) -> Result<(), LinkError> {
        self.clock.ended(Stage::Place);
        let record = Record { saved_ms: hit.took_ms(), ..record };
        self.context.ended(record, &self.clock, place, None);
        self.link.send(&hit.reply()).await
    }

    /// Has the wrapper become the compiler.
    async fn pass(&self, record: Record, why: Why) -> Result<(), LinkError> {
        let reply = run_alone(&why.0);
        self.context.ended(record, &self.clock, Where::Local, Some(why));
        self.link.send(&reply).await
    }
}

fn inputs_changed() -> Why {
    ("inputs-changed".to_owned(), "a file appeared that its compiler would have found".to_owned())
}

/// Leaves a hint for this user's other folders, and for nobody else, since no sandbox made it; why not, where the folder matters.
async fn share(elsewhere: Result<Elsewhere<'_>, Obstacle>, hit: &Hit) -> Option<String> {
    let shared = match elsewhere {
        Ok(elsewhere) => elsewhere.note(hit).await,
        Err(obstacle) => Err(obstacle),
    };
    shared.err().map(|obstacle| obstacle.to_string())
}
