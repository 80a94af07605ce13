//! Really runs an action: inputs and toolchain made present, a folder made of them, the program run in the sandbox, its outputs taken
//! into the store, the result signed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use buildbee_p2p::identity::Identity;
use buildbee_proto::action::{RECORDED, STDERR_TERMINAL, TARGET_PROPERTY};
use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::execute::Stage;
use buildbee_proto::limits::MAX_RECORD_BYTES;
use buildbee_proto::observed::Observed;
use buildbee_proto::outcome::{ActionResult, Provenance};
use buildbee_proto::path::RelPath;
use buildbee_sandbox::attempt::{Completed, Exit, Prepared, SandboxError};
use buildbee_sandbox::cleanup::{CleanupError, remove_scratch};
use buildbee_sandbox::launcher::Launcher;
use buildbee_sandbox::spec::{Limits, SandboxSpec};
use buildbee_store::{Pin, PutError, Store};
use tokio::sync::watch;

use super::{Done, Executor, Job, Origin, Running, Watch, early, recorded};
use crate::exchange::fetch::{Fetcher, Sources};
use crate::exchange::small::Small;
use crate::lease::slots::Slots;
use crate::owner::gate::{Gate, handed_back};
use crate::recorder::Recorder;
use crate::standing::Early;
use crate::toolchain::{Present, Toolchains};
use crate::workspace::assembled::Assembled;
use crate::workspace::collect::{Collected, collect};
use crate::workspace::folders::{Folder, Folders};
use crate::workspace::materialise::{MaterialiseError, materialise};
use crate::workspace::tree;

/// Agents that are known to hold toolchains, newest knowledge.
pub type Holders = watch::Receiver<Arc<Vec<buildbee_proto::control::AgentInfo>>>;

/// What runs need besides the action.
pub struct Parts {
    /// Signs results.
    pub identity: Identity,
    /// Where content is.
    pub store: Store,
    /// What of it is in memory.
    pub small: Small,
    /// Where missing content comes from.
    pub fetcher: Fetcher,
    /// What programs run on.
    pub toolchains: Toolchains,
    /// What runs them.
    pub launcher: Launcher,
    /// Who has which toolchain.
    pub holders: Holders,
    /// Where actions run.
    pub folders: Folders,
    /// What notes programs' questions; `None` where its library is missing.
    pub recorder: Option<Recorder>,
    /// How much of this agent is at work.
    pub slots: Slots,
    /// What has not begun is not begun while the machine's owner wants it.
    pub gate: Gate,
    /// What any action may use; its own timeout shortens the time.
    pub limits: Limits,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("folders", &self.folders).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The bottom of the stack.
#[derive(Debug)]
pub struct Sandboxed {
    parts: Parts,
}

impl Sandboxed {
    /// Runs with these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    async fn execute(&self, job: &Arc<Job>, watch: &Watch) -> Result<Done, WireError> {
        check_platform(job)?;
        let mut n_lost = 0;
        loop {
            match Box::pin(self.execute_once(job, watch)).await {
                // An input turned out to be bad when it was linked, and is gone from the store: it comes anew.
                Err(error) if is_lost(&error) && n_lost < tree::MAX_LOST => n_lost += 1,
                ended => return ended,
            }
        }
    }

    async fn execute_once(&self, job: &Arc<Job>, watch: &Watch) -> Result<Done, WireError> {
        let Parts { store, small, fetcher, toolchains, .. } = &self.parts;
        watch.progress.at(Stage::Fetching);
        let sources = self.sources(job);
        // One after the other: while a toolchain comes, actions are often done elsewhere, and what they read need not follow.
        let fetching = Box::pin(async {
            let toolchain = toolchains.present(&job.toolchain, fetcher, &sources).await?;
            let inputs = tree::load(store, small, fetcher, &sources, job.action.input_root).await?;
            Ok::<_, WireError>((toolchain, inputs))
        });
        let (toolchain, inputs) = tokio::select! {
            fetched = fetching => fetched?,
            () = watch.cancel.cancelled() => return Err(cancelled()),
            () = self.parts.gate.closed() => return Err(handed_back()),
        };
        // What lists a folder sees its names in the order in which they came.
        let mut folder = self.parts.folders.fresh(inputs.skeleton(), !job.action.is_recorded());
        let result = Box::pin(self.execute_in(&mut folder, job, watch, toolchain, inputs)).await;
        // The sandbox is gone whatever the result: it is not cancelled half way, and says so only when nothing is left of it.
        self.parts.folders.discard(folder).await;
        result
    }

    fn sources(&self, job: &Job) -> Sources {
        let known = self.parts.holders.borrow();
        let holds = |info: &&buildbee_proto::control::AgentInfo| info.offer.toolchains.contains(&job.action.toolchain);
        Sources { origin: job.client, likely: known.iter().filter(holds).map(|info| info.peer).collect() }
    }

    async fn execute_in(
        &self,
        folder: &mut Folder,
        job: &Arc<Job>,
        watch: &Watch,
        toolchain: Arc<Present>,
        inputs: tree::Tree,
    ) -> Result<Done, WireError> {
        let spec = self.spec(folder, job, &toolchain);
        let (layers, upper) = (spec.layers.clone(), spec.upper());
        let (store, shared, launcher) = (self.parts.store.clone(), Arc::clone(&toolchain), self.parts.launcher.clone());
        let place =
            Place { inputs: folder.inputs.clone(), in_memory: folder.in_memory, stands: folder.assembled.take() };
        let stays = folder.stays;
        let (prepared, assembled) = blocking(move || {
            let failed = |error| WireError::new(ErrorCode::Storage, Retry::OtherAgent, format!("workspace: {error}"));
            std::fs::create_dir_all(&spec.scratch).map_err(failed)?;
            let assembled = assemble(&store, &inputs, place, &|digest| shared.contents().contains(digest))?;
            let prepared = launcher.prepare(&spec).map_err(|error| sandbox_error(&error));
            Ok::<_, WireError>((prepared, assembled.filter(|_| stays)))
        })
        .await??;
        folder.assembled = assembled;
        let prepared = prepared?;
        if !self.parts.gate.is_open() {
            return Err(handed_back());
        }
        watch.progress.at(Stage::Executing);
        let completed =
            self.launch(prepared, (upper, &layers), job, watch).await.map_err(|error| sandbox_error(&error))?;
        let exit_code = exit_code(completed.exit)?;
        watch.progress.at(Stage::Collecting);
        let (store, small) = (self.parts.store.clone(), self.parts.small.clone());
        let (job, identity) = (Arc::clone(job), self.parts.identity.clone());
        let done = blocking(move || {
            let collected = collect(&store, &small, &completed.upper, &layers, &job.command)?;
            let known = (exit_code == 0 && job.action.is_recorded())
                .then(|| recorded::collect(&completed.upper, &layers, &job.command));
            let observed = known.and_then(|known| {
                known.inspect_err(|why| tracing::debug!(%why, "what the program asked for is not known")).ok()
            });
            finish(&store, &small, &identity, &job, &completed, (exit_code, observed), collected)
        })
        .await?;
        drop(toolchain);
        done
    }

    /// Runs the program, and hands out what is wanted early.
    async fn launch(
        &self,
        prepared: Prepared,
        (upper, layers): (PathBuf, &[PathBuf]),
        job: &Arc<Job>,
        watch: &Watch,
    ) -> Result<Completed, SandboxError> {
        let (launcher, cancel) = (&self.parts.launcher, watch.cancel.clone());
        let Some(output) = &job.early else { return launcher.run_prepared(prepared, cancel, None).await };
        let (listener, written) = early::listener(output);
        let release = async {
            // Ends without it when the listener is dropped, with the program's standard error.
            let Ok(stderr) = written.await else { return };
            let (store, output) = (self.parts.store.clone(), output.clone());
            let (job, layers) = (Arc::clone(job), layers.to_vec());
            let take = move || {
                let early = early::take(&store, &upper, &output, stderr)?;
                let asked = || recorded::collect(&upper, &layers, &job.command).ok();
                let asked = job.action.is_recorded().then(asked).flatten().map(|observed| observed.to_canonical());
                // More than a message holds is not worth telling early.
                let observed = asked.filter(|observed| observed.len() <= MAX_RECORD_BYTES);
                Ok::<_, PutError>(early.map(|early| Early { observed, ..early }))
            };
            match blocking(take).await {
                Ok(Ok(Some(early))) => watch.progress.early(early),
                Ok(Ok(None)) => tracing::debug!("an output that was announced is not there yet"),
                Ok(Err(error)) => tracing::warn!(%error, "an output can't be handed out early"),
                Err(error) => tracing::error!(%error, "an output can't be handed out early"),
            }
        };
        let (completed, ()) = tokio::join!(launcher.run_prepared(prepared, cancel, Some(listener)), release);
        completed
    }

    fn spec(&self, folder: &Folder, job: &Job, toolchain: &Present) -> SandboxSpec {
        let command = &job.command;
        let parents = command.output_files.iter().chain(&command.output_directories);
        let mut make_directories: Vec<RelPath> =
            parents.filter_map(RelPath::split_last).map(|(parent, _)| parent).collect();
        make_directories.sort_unstable();
        make_directories.dedup();
        let mut limits = self.parts.limits;
        if job.action.timeout_ms > 0 {
            limits.wall = limits.wall.min(Duration::from_millis(job.action.timeout_ms));
        }
        let mut spec = SandboxSpec {
            layers: vec![folder.inputs.clone(), toolchain.root().to_owned()],
            scratch: folder.scratch.clone(),
            argv: command.argv.clone(),
            env: command.env.clone(),
            working_directory: command.working_directory.clone(),
            make_directories,
            stderr_is_terminal: job.action.wants_terminal(),
            job_tokens: takes_tokens(&command.argv).then(|| self.parts.slots.n_idle()),
            limits,
        };
        if let Some(recorder) = self.parts.recorder.as_ref().filter(|_| job.action.is_recorded()) {
            recorded::set_up(&mut spec, recorder);
        }
        spec
    }
}

impl Executor for Sandboxed {
    fn run<'a>(&'a self, job: &'a Arc<Job>, watch: &'a Watch) -> Running<'a> {
        Box::pin(self.execute(job, watch))
    }
}

/// Where inputs come to stand.
struct Place {
    inputs: PathBuf,
    in_memory: bool,
    stands: Option<Assembled>,
}

/// Has `place` hold `tree`. Contents that are `apart` are not the store's own inodes.
fn assemble(
    store: &Store,
    tree: &tree::Tree,
    place: Place,
    apart: &dyn Fn(&Digest) -> bool,
) -> Result<Option<Assembled>, MaterialiseError> {
    if !place.in_memory {
        return materialise(store, tree, apart, &place.inputs).map(|_| None);
    }
    // No link leads from the store's disk into memory: all are copies.
    let Some(stands) = place.stands else { return Assembled::make(store, tree, place.inputs).map(Some) };
    match stands.turn_into(store, tree) {
        Err(MaterialiseError::Io { path, source }) => {
            tracing::warn!(?path, %source, "inputs that stood are made anew");
            let failed = |error: CleanupError| MaterialiseError::Io { path: error.path, source: error.source };
            remove_scratch(&place.inputs).map_err(failed)?;
            Assembled::make(store, tree, place.inputs).map(Some)
        }
        turned => turned.map(Some),
    }
}

/// Whether a command asks a jobserver before it starts a thread. Without one rustc starts as many as it has work for.
fn takes_tokens(argv: &[String]) -> bool {
    let program = argv.first().and_then(|program| program.rsplit('/').next());
    program.is_some_and(|name| matches!(name, "rustc" | "rustdoc" | "clippy-driver"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, WireError> {
    let failed = |error| WireError::new(ErrorCode::Internal, Retry::OtherAgent, error);
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

/// Of what an action needs something was lost before it began: [`TreeError::Lost`](tree::TreeError::Lost) and its like.
fn is_lost(error: &WireError) -> bool {
    error.code == ErrorCode::Storage && error.retry == Retry::SameAgent
}

fn cancelled() -> WireError {
    WireError::new(ErrorCode::Cancelled, Retry::SameAgent, "cancelled")
}

/// Every agent has a terminal for standard error, records where it can, and compiles for whatever its toolchain does; no other property is
/// known beyond the host type, which the toolchain names.
fn check_platform(job: &Job) -> Result<(), WireError> {
    let unknown = |(name, value): &&(String, String)| {
        name != TARGET_PROPERTY && ![STDERR_TERMINAL, RECORDED].contains(&(name.as_str(), value.as_str()))
    };
    match job.action.platform.iter().find(unknown) {
        None => Ok(()),
        Some((name, value)) => {
            let why = format!("this agent does not have the property {name}={value}");
            Err(WireError::new(ErrorCode::Toolchain, Retry::OtherAgent, why))
        }
    }
}

/// The exit code, where the program came to an end of its own. bubblewrap reports a signal and an exit code above 128 alike, and a
/// signal may be the fault of this machine's memory, so that the client had better run it itself.
fn exit_code(exit: Exit) -> Result<i32, WireError> {
    let limit = |why: String| Err(WireError::new(ErrorCode::Limit, Retry::Never, why));
    match exit {
        Exit::Code(code) => Ok(code),
        Exit::Signal(signal) => limit(format!("the program was ended by signal {signal}")),
        Exit::TimedOut => limit("the program took too long".to_owned()),
        Exit::OutputTooLarge => limit("the program printed too much".to_owned()),
    }
}

fn sandbox_error(error: &SandboxError) -> WireError {
    let (code, retry) = match error {
        SandboxError::Cancelled => return cancelled(),
        SandboxError::Plan(_) | SandboxError::Directories(_) => (ErrorCode::Invalid, Retry::Never),
        SandboxError::Full => (ErrorCode::Busy, Retry::OtherAgent),
        _ => (ErrorCode::Sandbox, Retry::OtherAgent),
    };
    WireError::new(code, retry, error)
}

fn finish(
    store: &Store,
    small: &Small,
    identity: &Identity,
    job: &Job,
    completed: &Completed,
    (exit_code, observed): (i32, Option<Observed>),
    collected: Collected,
) -> Result<Done, WireError> {
    let mut pins = collected.pins;
    let stdout = keep(store, small, &completed.stdout, &mut pins)?;
    let stderr = keep(store, small, &completed.stderr, &mut pins)?;
    let observed = observed.map(|observed| keep(store, small, &observed.to_canonical(), &mut pins)).transpose()?;
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let provenance = Provenance {
        peer: identity.peer(),
        sandboxed: true,
        wall_ms: milliseconds(completed.usage.wall),
        cpu_ms: milliseconds(completed.usage.cpu),
        peak_memory_bytes: completed.usage.peak_memory_bytes,
    };
    let result = ActionResult {
        action: job.digest,
        exit_code,
        outputs: collected.outputs,
        stdout,
        stderr,
        observed,
        provenance,
    };
    Ok(Done { result: Arc::new(identity.sign_result(result)), origin: Origin::Ran, pins: Arc::new(pins) })
}

fn keep(store: &Store, small: &Small, stream: &[u8], pins: &mut Vec<Pin>) -> Result<Digest, WireError> {
    let digest = Digest::of(stream);
    pins.push(store.pin([digest]));
    let failed = |error| WireError::new(ErrorCode::Storage, Retry::OtherAgent, error);
    store.put_expected(&digest, stream).map_err(failed)?;
    small.keep(digest, stream);
    Ok(digest)
}
