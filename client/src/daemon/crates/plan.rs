//! What a Rust compile comes to before anything runs: the front-end's word, the question with every path in its place, and the result that
//! holds, if there is one.
//!
//! Blocks, like [`plan`](super::super::plan): one thread does all that a hit needs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;

use super::super::cache::Hit;
use super::super::context::{Context, RunningEntry};
use super::super::invocation::Checked;
use super::super::plan::{Planned, read_arguments};
use super::read_set::{Candidate, Spelling};
use super::sessions::{Sessions, UnderWay, is_of};
use crate::compiler::places::absolute;
use crate::doubles::rustc::RustDouble;
use crate::doubles::rustc::twins::StandIns;
use crate::journal::Record;
use crate::journal::question::Question;
use crate::rust::decide::{Machine, RustInvocation, decide};
use crate::rust::request::{Extern, RustDecision, RustDriver, RustOutputKind, RustRequest};
use crate::rust::roots::{PathSetting, RootKind, Roots};
use crate::toolchain::parts::Parts;
use crate::toolchain::rust::{Caller, LinkQuestion, LinkerParts, RustCompiler};

/// The entry of a manifest that says: this crate's outputs hold real paths, ask with those. No action has this name, since an action's bytes begin
/// otherwise.
const STAYS: &[u8] = b"results stay where they were made";

/// What stands fixed once the front-end has decided.
#[derive(Clone, Debug)]
pub struct CratePlan {
    /// What the wrapper sent.
    pub call: Arc<Checked>,
    /// What the front-end made of it.
    pub request: Arc<RustRequest>,
    /// What compiles.
    pub compiler: Arc<RustCompiler>,
    /// What it links with, if it does.
    pub linker: Option<Arc<LinkerParts>>,
    /// What agents run in the compiler's place, where they are of another architecture.
    pub double: Option<Arc<RustDouble>>,
    /// What agents are given then in place of libraries that only this machine can load, by content.
    pub twins: Arc<StandIns>,
    /// Where paths stand in this crate's results.
    pub roots: Roots,
    /// Where its results are known.
    pub key: Digest,
    /// Its place among the actions under way.
    pub listed: Arc<RunningEntry>,
    /// Content of the entry file, and of each extern by place in the request.
    content: Contents,
}

#[derive(Clone, Debug)]
struct Contents {
    source: Digest,
    externs: Arc<[Option<Digest>]>,
}

/// What marks a question whose results are known under another.
pub fn stays() -> Digest {
    Digest::of(STAYS)
}

/// A call that the front-end has understood.
#[derive(Debug)]
pub struct Prepared {
    call: Checked,
    request: Arc<RustRequest>,
    compiler: Arc<RustCompiler>,
}

/// Who asks, for the toolchain to be found.
pub fn caller(call: &Checked) -> Caller<'_> {
    let value = |name: &str| call.env.iter().find(|(known, _)| known == name).map(|(_, value)| OsStr::new(value));
    Caller {
        program: &call.program,
        cwd: &call.cwd,
        home: value("HOME"),
        rustup_home: value("RUSTUP_HOME"),
        rustup_toolchain: value("RUSTUP_TOOLCHAIN"),
        target: target(&call.argv),
    }
}

/// What `--target` says; a specification is known by its stem.
fn target(argv: &[String]) -> Option<&str> {
    let mut words = argv.iter();
    let named = words.by_ref().find_map(|word| match word.strip_prefix("--target") {
        Some("") => Some(None),
        Some(value) => value.strip_prefix('=').map(Some),
        None => None,
    })?;
    let named = match named {
        Some(named) => named,
        None => words.next()?,
    };
    match named.strip_suffix(".json") {
        Some(path) => path.rsplit('/').next(),
        None => Some(named),
    }
}

impl Prepared {
    /// Asks the front-end about `call`, made to `compiler`; `Err` with what it comes to where no result can be kept.
    pub fn new(call: Checked, compiler: Arc<RustCompiler>, paths: PathSetting) -> Result<Self, Planned> {
        let paths = call.paths(paths);
        let read = |path: &Path| read_arguments(&call.cwd.join(path));
        let driver = if call.program.ends_with("clippy-driver") { RustDriver::Clippy } else { RustDriver::Rustc };
        let asked = RustInvocation {
            driver,
            argv: &call.argv,
            env: &call.env,
            cwd: &call.cwd,
            sysroot: Some(&compiler.sysroot),
            paths,
            stderr_is_terminal: call.stderr_is_terminal,
        };
        let machine = Machine { read: &read, exists: &|path: &Path| path.exists(), processor: &|| None };
        match decide(&asked, &machine) {
            RustDecision::Compile(request) => Ok(Self { request: Arc::from(request), call, compiler }),
            RustDecision::Local(reason) => Err(Planned::local(&call, reason.code(), reason.to_string())),
        }
    }

    /// What has to be known of the linker; `None` where none is started.
    pub fn link_question(&self) -> Option<LinkQuestion<'_>> {
        self.request.links.then(|| LinkQuestion {
            linker: self.request.linker.as_deref(),
            cwd: &self.call.cwd,
            arguments: &self.request.link_arguments,
            search: self.call.search(),
        })
    }

    /// The compiler.
    pub fn compiler(&self) -> &Arc<RustCompiler> {
        &self.compiler
    }

    /// The call.
    pub fn call(&self) -> &Checked {
        &self.call
    }

    /// The call, to begin anew.
    pub fn into_call(self) -> Checked {
        self.call
    }

    /// What it comes to, with what it links with.
    pub fn plan(self, context: &Arc<Context>, linker: Option<Arc<LinkerParts>>) -> Planned {
        let mut plan = match self.bare(context, linker) {
            Ok(plan) => plan,
            Err(planned) => return planned,
        };
        let candidates = plan.ask(context);
        match look_up(context, &mut plan, candidates) {
            Some(hit) => Planned::CrateHit(Box::new(plan), hit),
            None => Planned::CrateMiss(Box::new(plan)),
        }
    }

    /// The same before any result is looked for, and without a question.
    pub fn bare(self, context: &Arc<Context>, linker: Option<Arc<LinkerParts>>) -> Result<CratePlan, Planned> {
        let Self { call, request, compiler, .. } = self;
        let content = match contents(context, &call, &request) {
            Ok(content) => content,
            Err(text) => return Err(Planned::local(&call, "input-unreadable", text)),
        };
        let outputs = request.outputs.iter().map(|output| call.cwd.join(&output.path)).collect();
        let listed = Arc::new(context.runs(request.source.clone(), outputs));
        let (roots, call, key) = (request.roots.clone(), Arc::new(call), Digest::of(b""));
        Ok(CratePlan {
            call,
            request,
            compiler,
            linker,
            double: None,
            twins: Arc::default(),
            roots,
            key,
            listed,
            content,
        })
    }
}

fn contents(context: &Context, call: &Checked, request: &RustRequest) -> Result<Contents, String> {
    let digest = |path: &Path| match context.hashes.hash(&call.cwd.join(path)) {
        Ok(hashed) => Ok(hashed.digest),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    };
    let of_extern = |it: &Extern| it.path.as_deref().map(digest).transpose();
    let externs = request.externs.iter().map(of_extern).collect::<Result<Vec<_>, _>>()?;
    Ok(Contents { source: digest(&request.source)?, externs: externs.into() })
}

fn look_up(context: &Context, plan: &mut CratePlan, candidates: Arc<Vec<Candidate>>) -> Option<Arc<Hit>> {
    let mut candidates = candidates;
    if plan.roots.are_placed() && candidates.iter().any(|candidate| candidate.action == stays()) {
        *plan = plan.at_real_places();
        candidates = plan.ask(context);
    }
    let spelling = plan.spelling();
    let known = context.cache.known();
    let candidate =
        candidates.iter().find(|candidate| candidate.action != stays() && candidate.holds(&spelling, known))?;
    context.cache.crate_result(&candidate.action)
}

impl CratePlan {
    /// Puts the question and returns the results that it had.
    fn ask(&mut self, context: &Context) -> Arc<Vec<Candidate>> {
        let question = self.question();
        self.key = question.digest();
        context.journal.asked(&self.call.cwd.join(&self.request.source), self.key, question);
        context.cache.crate_candidates(&self.key)
    }

    /// The same, with real paths in its results.
    #[must_use]
    pub fn at_real_places(&self) -> Self {
        let mut plan = Self { roots: self.roots.at_real_places(), ..self.clone() };
        plan.key = plan.question().digest();
        plan
    }

    /// The same, to be run by a double on agents. The question is the same: both make the same.
    #[must_use]
    pub fn for_double(&self, double: Arc<RustDouble>) -> Self {
        Self { double: Some(double), ..self.clone() }
    }

    /// The same, with these twins of libraries. The question is the same.
    #[must_use]
    pub fn with_twins(&self, twins: StandIns) -> Self {
        Self { twins: Arc::new(twins), ..self.clone() }
    }

    /// How the caller spells what a read set holds.
    pub fn spelling(&self) -> Spelling<'_> {
        Spelling::new(&self.roots, &self.call.env, &self.call.odd)
    }

    fn question(&self) -> Question {
        let places = self.roots.places();
        let text = |path: &Path| places.path(path).to_string_lossy().into_owned();
        let request = &self.request;
        // The front-end gave them their places; where this crate's paths stay, so do those.
        let from_places = request.roots.reals();
        let argument = |argument: &String| {
            if self.roots.are_placed() { argument.clone() } else { from_places.text(argument) }
        };
        let mut arguments: Vec<String> = request.key_arguments.iter().map(argument).collect();
        for (it, digest) in request.externs.iter().zip(&*self.content.externs) {
            if let Some(digest) = digest {
                arguments.push(format!("extern {} {digest}", it.name));
            }
        }
        if !self.roots.are_placed()
            && let Some(sysroot) = self.roots.real(RootKind::Sysroot)
        {
            arguments.push(format!("sysroot {}", sysroot.display()));
        }
        Question {
            toolchain: self.parts().id.to_string(),
            compiler: text(&self.compiler.place),
            directory: text(&self.call.cwd),
            logical_directory: String::new(),
            source: text(&request.source),
            content: self.content.source,
            outputs: request.outputs.iter().map(|output| text(&output.path)).collect(),
            env: request.env.iter().map(|(name, value)| (name.clone(), places.text(value))).collect(),
            on_terminal: false,
            arguments,
        }
    }

    /// What it needs of the system.
    pub fn parts(&self) -> &Arc<Parts> {
        self.linker.as_ref().map_or(&self.compiler.parts, |linker| &linker.parts)
    }

    /// For the journal.
    pub fn record(&self) -> Record {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let main = |kind| self.request.outputs.iter().find(|output| output.what == kind);
        let output =
            [RustOutputKind::Executable, RustOutputKind::Library, RustOutputKind::Metadata].into_iter().find_map(main);
        let output = output.map(|output| text(&output.path)).unwrap_or_default();
        Record {
            cwd: text(&self.call.cwd),
            added_arguments: self.request.added_arguments.clone(),
            question: Some(self.key),
            run: self.call.run.clone(),
            ..Record::of(&text(&self.request.source), &output, &text(&self.call.program))
        }
    }

    /// A path of the command line, absolute.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        absolute(&self.call.cwd, path)
    }

    /// Whether rustc would go on where it left off at its last run for this crate. What it makes of that is right, but may differ from what it
    /// makes from nothing.
    pub fn goes_on(&self, known: &Sessions) -> bool {
        let Some(folder) = &self.request.incremental else { return false };
        let Ok(sessions) = fs::read_dir(self.absolute(folder)) else { return false };
        let output = self.first_output();
        let is_own = |name: &OsStr| is_of(name, &self.request.crate_name);
        sessions.flatten().any(|session| is_own(&session.file_name()) && !known.is_anothers(&session.path(), &output))
    }

    /// Says that this compile may write a session from now on.
    pub fn begins<'a>(&self, known: &'a Sessions) -> Option<UnderWay<'a>> {
        let folder = self.absolute(self.request.incremental.as_deref()?);
        Some(known.begin(folder, &self.request.crate_name, self.first_output()))
    }

    /// Remembers the session that a run with this log left behind.
    pub fn note_session(&self, known: &Sessions, log: &[u8]) {
        if let Some(folder) = &self.request.incremental {
            known.note(&self.absolute(folder), log, &self.first_output());
        }
    }

    /// What tells this crate from others of its name, in one target folder.
    fn first_output(&self) -> PathBuf {
        self.request.outputs.first().map(|output| self.absolute(&output.path)).unwrap_or_default()
    }
}
