//! The life of one compile: decide, look it up, find its inputs, look again, run it somewhere, put the outputs in place.
//!
//! Whatever goes wrong on the way ends in a local run with a reason. The order of looking is the order of cost: the manifest (a few
//! `stat`s), the action's result here, the action's result at peers, an agent, this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::local::{Invocation, LocalReply};
use buildbee_proto::outcome::SignedResult;
use tokio::time::Instant;

use super::cache::{Hit, ManifestKey};
use super::context::{Context, RunningEntry, unix_now};
use super::execute::{Ended, Executor};
use super::invocation::Checked;
use super::link::{LinkError, WrapperLink};
use super::local_result::LocalRun;
use super::placement::{Existing, Placed, place};
use crate::compiler::decide::decide;
use crate::compiler::request::{CompileRequest, CompilerFamily, Decision, Invocation as Asked};
use crate::config::Racing;
use crate::dispatch::job::Job;
use crate::dispatch::lender::Source;
use crate::dispatch::lookup;
use crate::journal::{Record, Where, Why};
use crate::toolchain::Compiler;

/// How long a compile may wait for the first look at its compiler, and then for its inputs, where a farm would run it.
const FARM_PATIENCE: Duration = Duration::from_secs(1);
/// The same without a farm: what is gained is a cache entry.
const CACHE_PATIENCE: Duration = Duration::from_secs(5);
/// The same where nothing may run here by choice.
const MEASURED_PATIENCE: Duration = Duration::from_secs(120);

/// One compile under way.
#[derive(Debug)]
pub struct Session {
    context: Arc<Context>,
    link: WrapperLink,
    started: Instant,
}

/// What stands fixed once the front-end has decided.
#[derive(Debug)]
struct Plan {
    call: Checked,
    request: Arc<CompileRequest>,
    compiler: Arc<Compiler>,
    key: Digest,
    listed: RunningEntry,
}

impl Session {
    /// For one connection.
    pub fn new(context: Arc<Context>, link: WrapperLink) -> Self {
        Self { context, link, started: Instant::now() }
    }

    /// Answers the wrapper. Ends early, without a word, when the wrapper goes away.
    pub async fn run(self, invocation: Invocation) -> Result<(), LinkError> {
        let gone = self.link.gone().clone();
        tokio::select! {
            done = self.answer(invocation) => done,
            () = gone.cancelled() => Err(LinkError::Gone),
        }
    }

    async fn answer(&self, invocation: Invocation) -> Result<(), LinkError> {
        let call = match Checked::new(&invocation) {
            Ok(call) => call,
            Err(text) => return self.pass(&Record::of("", "", ""), ("not-utf8".into(), text)).await,
        };
        let (plan, hit) = match self.plan(call).await {
            Ok(planned) => planned,
            Err((call, why)) => return self.pass(&call.record(), why).await,
        };
        if let Some(hit) = hit {
            return self.finish_cached(&plan, hit, None).await;
        }
        let look = self.context.discovery.inputs(&plan.compiler, &plan.request, &plan.call.env, &plan.call.cwd);
        let inputs = match tokio::time::timeout(self.patience(), look).await {
            Ok(inputs) => inputs.map_err(|error| (error.code().to_owned(), error.to_string())),
            Err(_) => Err(("inputs-late".to_owned(), "finding what it reads took too long".to_owned())),
        };
        let job = inputs.and_then(|inputs| {
            Job::new(Arc::clone(&plan.compiler), &plan.request, inputs, &plan.call.cwd)
                .map_err(|error| ("unusual-path".to_owned(), error.to_string()))
        });
        match job {
            Ok(job) => self.with_job(&plan, job).await,
            Err(why) => self.pass(&plan.record(), why).await,
        }
    }

    /// Front-end and toolchain, and what the manifest leads to.
    async fn plan(&self, call: Checked) -> Result<(Plan, Option<Hit>), (Checked, Why)> {
        let Some(named) = call.named() else {
            let text = format!("{} is not the name of a compiler that is known here", call.program.display());
            return Err((call, ("unknown-compiler".into(), text)));
        };
        let compiler = match self.compiler(&call).await {
            Ok(compiler) => compiler,
            Err(why) => return Err((call, why)),
        };
        let asked = Asked {
            family: compiler.family,
            driver: named,
            argv: &call.argv,
            env: &call.env,
            cwd: &call.cwd,
            stderr_is_terminal: call.stderr_is_terminal,
            columns: call.columns,
        };
        let cwd = call.cwd.clone();
        let read = move |path: &Path| std::fs::read(cwd.join(path));
        let request = match decide(&asked, &read) {
            Decision::Distribute(request) => Arc::from(request),
            Decision::Local(reason) => return Err((call, (reason.code().to_owned(), reason.to_string()))),
        };
        match self.look_up(&call, &request, &compiler).await {
            Ok((key, hit)) => {
                let outputs = request.outputs.iter().map(|path| call.cwd.join(path)).collect();
                let listed = self.context.runs(request.source.clone(), outputs);
                Ok((Plan { call, request, compiler, key, listed }, hit))
            }
            Err(error) => {
                let text = format!("cannot read {}: {error}", request.source.display());
                Err((call, ("input-unreadable".into(), text)))
            }
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
            Ok(Ok(Err(error))) => Err(("unknown-compiler".into(), error.to_string())),
            Ok(Err(_)) => Err(("unknown-compiler".into(), "the look at it was cut off".into())),
            Err(_) => Err(("toolchain-late".into(), "the first look at the compiler is not finished yet".into())),
        }
    }

    /// The manifest's key, and the result that it leads to with the files as they are. Both in one blocking task: each costs several
    /// switches between threads, which are the larger part of a hit.
    async fn look_up(
        &self,
        call: &Checked,
        request: &CompileRequest,
        compiler: &Compiler,
    ) -> std::io::Result<(Digest, Option<Hit>)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut words = vec![text(&compiler.program), text(&call.cwd), text(&request.source)];
        words.push(request.logical_directory.as_deref().map(text).unwrap_or_default());
        words.extend(request.outputs.iter().map(|path| text(path)));
        words.extend(request.env.iter().map(|(name, value)| format!("{name}={value}")));
        words.push(String::new());
        words.extend(request.key_arguments.iter().cloned());
        let toolchain = compiler.id.to_string();
        let (hashes, cache, source) =
            (self.context.hashes.clone(), self.context.cache.clone(), call.cwd.join(&request.source));
        let looking = tokio::task::spawn_blocking(move || {
            let key = ManifestKey { toolchain, words, source: hashes.hash(&source)?.digest }.digest();
            let hit = cache.direct(&key);
            Ok((key, hit))
        });
        looking.await?
    }

    async fn with_job(&self, plan: &Plan, job: Job) -> Result<(), LinkError> {
        let (cache, action) = (self.context.cache.clone(), job.action);
        let known = tokio::task::spawn_blocking(move || cache.result(&action)).await.ok().flatten();
        if let Some(hit) = known {
            let (cache, key, read_set) = (self.context.cache.clone(), plan.key, job.inputs.read_set.clone());
            tokio::task::spawn_blocking(move || cache.index(&key, action, read_set)).await.ok();
            return self.finish_cached(plan, hit, None).await;
        }
        if let Some((agent, hit)) = self.at_peers(&job).await {
            self.keep(plan, &job, &hit).await;
            return self.finish_cached(plan, hit, Some(agent)).await;
        }
        let _loan = self.context.farm.as_ref().map(|farm| {
            let files = job.inputs.files.iter().map(|(digest, path)| (*digest, Source::File(path.clone())));
            let directories = job.inputs.tree.directories.iter();
            let directories = directories.map(|(digest, bytes)| (*digest, Source::Bytes(bytes.clone().into())));
            farm.lend(&plan.compiler, files.chain(directories))
        });
        let executor = Executor::new(&self.context, &self.link, &job, &plan.listed, &plan.request, plan.call.strict);
        match executor.run().await? {
            Ended::Remote { agent, result } => {
                let hit = Hit { signed: result.signed, blobs: result.blobs };
                if let Err(error) = self.put_in_place(plan, &hit).await {
                    return self.pass(&plan.record(), ("output-unwritable".into(), error)).await;
                }
                self.keep(plan, &job, &hit).await;
                self.done(plan.record(), &hit, Where::Remote, Some(agent), Some(job.action)).await
            }
            Ended::Local { why, outcome } => {
                if plan.listed.contested() {
                    self.context.journal.noted("output-contested");
                } else {
                    let run = LocalRun { plan_key: plan.key, job: &job, outcome: &outcome };
                    run.keep(&self.context).await;
                }
                let record = Record { action: Some(job.action.to_string()), ..plan.record() };
                self.journal(record, Where::Local, Some(why));
                let reply = LocalReply::Done {
                    exit_code: outcome.exit_code.unwrap_or(1),
                    stdout: Bytes::default(),
                    stderr: Bytes::default(),
                };
                self.link.send(&reply).await
            }
            Ended::Forbidden { why } => self.pass(&plan.record(), why).await,
        }
    }

    async fn at_peers(&self, job: &Job) -> Option<(String, Hit)> {
        let farm = self.context.farm.as_ref()?;
        let (roster, responsive) = (farm.roster()?, farm.responsive_agents());
        let (peer, found) = lookup::find(farm.node(), &roster.value, &responsive, job).await?;
        let received = found.blobs.values().map(|content| content.len() as u64).sum();
        self.context.journal.moved(0, received);
        Some((farm.name_of(&peer), Hit { signed: found.signed, blobs: found.blobs }))
    }

    async fn keep(&self, plan: &Plan, job: &Job, hit: &Hit) {
        let (cache, index) = (self.context.cache.clone(), (plan.key, job.inputs.read_set.clone()));
        let (signed, blobs): (SignedResult, _) = (hit.signed.clone(), hit.blobs.clone());
        tokio::task::spawn_blocking(move || cache.keep(&signed, &blobs, index)).await.ok();
    }

    async fn finish_cached(&self, plan: &Plan, hit: Hit, agent: Option<String>) -> Result<(), LinkError> {
        if !plan.request.accepts_stderr(content(&hit, &hit.signed.result.stderr)) {
            let text = "its warnings would look different on this terminal or in this language".to_owned();
            return self.pass(&plan.record(), ("messages".into(), text)).await;
        }
        if let Err(error) = self.put_in_place(plan, &hit).await {
            return self.pass(&plan.record(), ("output-unwritable".into(), error)).await;
        }
        let action = hit.signed.result.action;
        self.done(plan.record(), &hit, Where::Cached, agent, Some(action)).await
    }

    async fn put_in_place(&self, plan: &Plan, hit: &Hit) -> Result<(), String> {
        let files: Vec<(PathBuf, Vec<u8>, u32, Existing)> = (hit.signed.result.outputs.iter())
            .map(|file| {
                let (path, mode) = (file.path.to_absolute(), file.mode & !plan.call.umask);
                let existing = plan.existing(&path);
                (path, content(hit, &file.digest).to_vec(), mode, existing)
            })
            .collect();
        let placing = tokio::task::spawn_blocking(move || {
            let placed: Vec<Placed<'_>> = (files.iter())
                .map(|(path, content, mode, existing)| Placed {
                    path: path.clone(),
                    content,
                    mode: *mode,
                    existing: *existing,
                })
                .collect();
            place(&placed).map_err(|error| error.to_string())
        });
        placing.await.unwrap_or_else(|_| Err("interrupted".to_owned()))
    }

    async fn done(
        &self,
        record: Record,
        hit: &Hit,
        place: Where,
        agent: Option<String>,
        action: Option<Digest>,
    ) -> Result<(), LinkError> {
        let record = Record { agent, action: action.map(|action| action.to_string()), ..record };
        self.journal(record, place, None);
        let result = &hit.signed.result;
        let reply = LocalReply::Done {
            exit_code: result.exit_code,
            stdout: Bytes(content(hit, &result.stdout).to_vec()),
            stderr: Bytes(content(hit, &result.stderr).to_vec()),
        };
        self.link.send(&reply).await
    }

    /// Has the wrapper become the compiler.
    async fn pass(&self, record: &Record, why: Why) -> Result<(), LinkError> {
        let reply = LocalReply::RunLocally {
            reason: why.0.clone(),
            report: false,
            extra_arguments: Vec::new(),
            strict_failure: why.0.starts_with("strict:"),
        };
        self.journal(record.clone(), Where::Local, Some(why));
        self.link.send(&reply).await
    }

    fn journal(&self, record: Record, place: Where, why: Option<Why>) {
        let (reason, text) = match why {
            Some((reason, text)) => (Some(reason), text),
            None => (None, String::new()),
        };
        let wall_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.context.journal.ended(Record { at_unix: unix_now(), r#where: place, reason, text, wall_ms, ..record });
    }
}

impl Plan {
    fn record(&self) -> Record {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Record::of(&text(&self.request.source), &text(&self.request.object), &text(&self.compiler.program))
    }

    /// What the compiler does with an output that is there already. An output is no symlink, so its last name is as spelled.
    fn existing(&self, output: &Path) -> Existing {
        match self.compiler.family {
            _ if output.file_name() != self.request.object.file_name() => Existing::Kept,
            CompilerFamily::Gcc => Existing::EmptyKept,
            CompilerFamily::Clang => Existing::Replaced,
        }
    }
}

/// Content of `digest` in a hit; empty content is never stored.
fn content<'a>(hit: &'a Hit, digest: &Digest) -> &'a [u8] {
    hit.blobs.get(digest).map_or(&[], Vec::as_slice)
}
