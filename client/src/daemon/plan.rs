//! What a compile comes to before anything runs: the front-end's word, the key under which its results are known, and the result that
//! holds, if there is one.
//!
//! Blocks (it stats, and reads what has changed), so that one thread does all that a hit needs without handing it on. Waits for nobody: the
//! toolchain is known here. Starts a compiler only to learn what `native` is and how one out of a store speaks, once.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::limits::MAX_COMMAND_BYTES;

use super::cache::Hit;
use super::context::{Context, RunningEntry};
use super::crates::plan::CratePlan;
use super::execute::Run;
use super::invocation::Checked;
use super::placement::{Content, PlaceError, Placed, place};
use crate::compiler::decide::decide_on;
use crate::compiler::outputs::Existing;
use crate::compiler::request::{CompileRequest, Decision, Invocation as Asked};
use crate::dispatch::attempt::RemoteResult;
use crate::dispatch::job::Job;
use crate::journal::question::Question;
use crate::journal::{Record, Why};
use crate::rust::build_script::{self, Renamed};
use crate::rust::locate::Surroundings;
use crate::toolchain::Compiler;
use crate::wrapper::base_dir::prefix_map;
use crate::wrapper::settings::BASE_DIR_VARIABLE;

/// What stands fixed once the front-end has decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the wrapper sent.
    pub call: Arc<Checked>,
    /// What the front-end made of it.
    pub request: Arc<CompileRequest>,
    /// What compiles.
    pub compiler: Arc<Compiler>,
    /// Where its results are known.
    pub key: Digest,
    /// Its place among the actions under way.
    pub listed: Arc<RunningEntry>,
    source: Digest,
}

/// What a call comes to.
#[derive(Debug)]
pub enum Planned {
    /// A result is known that holds, and whose messages can be shown.
    Hit(Box<Plan>, Arc<Hit>),
    /// None is.
    Miss(Box<Plan>),
    /// The same for a Rust crate: a result that holds.
    CrateHit(Box<CratePlan>, Arc<Hit>),
    /// None is known.
    CrateMiss(Box<CratePlan>),
    /// The wrapper is to run the compiler.
    Local(Box<Record>, Why),
}

impl Planned {
    /// For a call that needs no compiler to be known.
    pub fn local(call: &Checked, code: &str, text: String) -> Self {
        Self::Local(Box::new(call.record()), (code.to_owned(), text))
    }

    /// Why the wrapper is to run the compiler, if it is.
    pub fn why(&self) -> Option<String> {
        if let Self::Local(_, (_, text)) = self { Some(text.clone()) } else { None }
    }

    /// For a program that is no compiler by its name.
    pub fn no_compiler(call: &Checked) -> Self {
        Self::Local(Box::new(call.record()), call.no_compiler())
    }
}

/// A file of arguments, cut where it is longer than any that is accepted. A pipe is left for the compiler: what is read from it is gone.
pub(super) fn read_arguments(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::new();
    File::open(path)?.take(MAX_COMMAND_BYTES as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// What `call`, made to `compiler`, comes to.
pub fn plan(context: &Arc<Context>, call: Checked, compiler: Arc<Compiler>) -> Planned {
    let Some(driver) = call.named() else { return Planned::no_compiler(&call) };
    let renamed = renamed(context, &call, &compiler);
    let argv = match renamed.flags.as_slice() {
        [] => Cow::Borrowed(call.argv.as_slice()),
        flags => Cow::Owned([flags, &call.argv].concat()),
    };
    let asked = Asked {
        family: compiler.family,
        driver,
        argv: &argv,
        env: &call.env,
        cwd: &call.cwd,
        stderr_is_terminal: call.stderr_is_terminal,
        columns: call.columns,
        locale: if compiler.is_stored {
            context.speech.of(&compiler, &call.env)
        } else {
            context.locales.spoken(&call.env)
        },
        variables: &compiler.variables,
    };
    let read = |path: &Path| read_arguments(&call.cwd.join(path));
    let native = |options: &[String]| context.natives.read(&compiler, options);
    let request: Arc<CompileRequest> = match decide_on(&asked, &read, &native) {
        Decision::Distribute(request) => Arc::new(request.mapped(renamed.flags, renamed.folders)),
        Decision::Local(reason) => {
            // The wrapper adds them by itself.
            let record = Record { added_arguments: renamed.flags, ..call.record() };
            return Planned::Local(Box::new(record), (reason.code().to_owned(), reason.to_string()));
        }
    };
    let source = call.cwd.join(&request.source);
    let content = match context.hashes.hash(&source) {
        Ok(hashed) => hashed.digest,
        Err(error) => {
            let text = format!("cannot read {}: {error}", request.source.display());
            return Planned::local(&call, "input-unreadable", text);
        }
    };
    let question = question(&call, &request, &compiler, content);
    let key = question.digest();
    context.journal.asked(&source, key, question);
    let outputs = request.outputs.iter().map(|output| call.cwd.join(&output.path)).collect();
    let listed = context.runs(request.source.clone(), outputs);
    let (call, listed) = (Arc::new(call), Arc::new(listed));
    let plan = Plan { call, request, compiler, key, listed, source: content };
    look_up(context, plan)
}

/// The folders that get names in what is made below one of cargo's build scripts; none for any other compile. Where the compiler can't be told so
/// they are none either.
fn renamed(context: &Context, call: &Checked, compiler: &Compiler) -> Renamed {
    let variable = |wanted: &str| call.env.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let renamed = build_script::renamed(&Surroundings {
        arguments: &call.argv,
        cwd: &call.cwd,
        variable: &variable,
        sysroot: None,
        setting: call.paths(context.settings.paths),
        exists: &|path| path.exists(),
    });
    renamed.filter(|_| compiler.takes_prefix_maps).unwrap_or_default()
}

/// Whether a result for `plan` is known that can be shown.
fn look_up(context: &Context, plan: Plan) -> Planned {
    let known = context.cache.direct(&plan.key);
    let is_known = known.is_some();
    if let Some(hit) = known.filter(|hit| plan.accepts(hit)) {
        return Planned::Hit(Box::new(plan), hit);
    }
    // A run here printed on the terminal, so that it may be known by that alone.
    let Some(there) = plan.on_terminal() else {
        return if is_known {
            Planned::Local(Box::new(plan.record()), other_messages())
        } else {
            Planned::Miss(Box::new(plan))
        };
    };
    match context.cache.direct(&there.key) {
        Some(hit) => Planned::Hit(Box::new(there), hit),
        None if is_known => {
            there.ask(context);
            Planned::Miss(Box::new(there))
        }
        None => Planned::Miss(Box::new(plan)),
    }
}

/// Why a result that is right is not enough.
pub fn other_messages() -> Why {
    ("messages".to_owned(), "its warnings would look different on this terminal or in this language".to_owned())
}

fn question(call: &Checked, request: &CompileRequest, compiler: &Compiler, content: Digest) -> Question {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Question {
        toolchain: compiler.parts.id.to_string(),
        compiler: text(&compiler.program),
        directory: text(&call.cwd),
        logical_directory: request.logical_directory.as_deref().map(text).unwrap_or_default(),
        source: text(&request.source),
        content,
        outputs: request.outputs.iter().map(|output| text(&output.path)).collect(),
        env: request.env.clone(),
        on_terminal: request.stderr_is_terminal,
        arguments: request.key_arguments.clone(),
    }
}

impl Plan {
    /// The same compile, printing on a terminal like the user's; `None` where that is not what keeps its messages from being shown.
    pub fn on_terminal(&self) -> Option<Self> {
        let request = Arc::new(self.request.on_terminal()?);
        let key = question(&self.call, &request, &self.compiler, self.source).digest();
        let (call, compiler, listed) = (Arc::clone(&self.call), Arc::clone(&self.compiler), Arc::clone(&self.listed));
        Some(Self { call, request, compiler, key, listed, source: self.source })
    }

    /// Tells the journal what is asked, for it to compare with.
    pub fn ask(&self, context: &Context) {
        let question = question(&self.call, &self.request, &self.compiler, self.source);
        context.journal.asked(&self.call.cwd.join(&self.request.source), self.key, question);
    }

    /// For the journal.
    pub fn record(&self) -> Record {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Record {
            cwd: text(&self.call.cwd),
            added_arguments: self.added_by_wrapper().into_iter().chain(self.request.added_arguments.clone()).collect(),
            question: Some(self.key),
            run: self.call.run.clone(),
            ..Record::of(&text(&self.request.source), &text(&self.request.object), &text(&self.compiler.program))
        }
    }

    fn added_by_wrapper(&self) -> Option<String> {
        let (_, base) = self.call.env.iter().find(|(name, _)| name == BASE_DIR_VARIABLE)?;
        let argument = prefix_map(Path::new(base), &self.call.cwd)?;
        self.call.argv.first().filter(|first| argument.as_os_str() == first.as_str()).cloned()
    }

    /// Whether the messages of `hit` are those that a local run would show here.
    pub fn accepts(&self, hit: &Hit) -> bool {
        self.request.accepts_stderr(hit.content(&hit.signed.result.stderr))
    }

    /// What an executor has to know.
    pub fn run<'a>(
        &'a self,
        job: &Job,
        objection: &'a (dyn Fn(&RemoteResult) -> Option<Why> + Send + Sync),
    ) -> Run<'a> {
        let reason = self.request.here_only.as_ref().map(|reason| (reason.code().to_owned(), reason.to_string()));
        let symlink = job.through_symlink.then(|| {
            let text = "the working directory is reached through a symlink (PWD)";
            ("logical-directory".to_owned(), text.to_owned())
        });
        Run {
            added_arguments: &self.request.added_arguments,
            recorder: None,
            // gcc and clang remove what they have begun.
            may_lose: true,
            here_only: reason.or(symlink),
            can_print_otherwise: self.request.terminal.is_some(),
            objection,
            early: None,
        }
    }

    /// Puts the outputs of `hit` where the compiler would have left them. Blocks.
    pub fn put_in_place(&self, hit: &Hit) -> Result<(), PlaceError> {
        let files: Vec<Placed<'_>> = (hit.signed.result.outputs.iter())
            .map(|file| {
                let path = file.path.to_absolute();
                let existing = self.existing(&path);
                Placed {
                    path,
                    content: Content::Bytes(hit.content(&file.digest)),
                    mode: file.mode & !self.call.umask,
                    existing,
                }
            })
            .collect();
        place(&files)
    }

    /// What the compiler does with an output that is there already. An output is no symlink, so its last name is as spelled.
    fn existing(&self, output: &Path) -> Existing {
        let spelled = self.request.outputs.iter().find(|known| known.path.file_name() == output.file_name());
        spelled.map_or(Existing::Kept, |known| known.existing)
    }
}
