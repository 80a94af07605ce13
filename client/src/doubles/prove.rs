//! Proves a pair: asks both compilers the same, and has both compile the probes, the double in the sandbox of an agent. Any difference
//! refuses the pair; trouble on the way (no agent, no time) is no verdict.
//!
//! A probe goes the way of any compile: the front-end decides, its inputs are found, its action is the one that a compile would have.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use buildbee_proto::action::TARGET_PROPERTY;
use buildbee_proto::digest::Digest;
use buildbee_proto::double::Double;
use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::RelPath;
use futures::StreamExt as _;
use tokio::time::Instant;

use super::ask::{self, Identity};
use super::gcc::{self, Kind, Question};
use super::machine::Machine;
use super::pair::{Dressed, Group, Pair};
use super::probes::{self, MADE, Probe, SOURCES};
use super::{clang, pair};
use crate::compiler::decide::decide;
use crate::compiler::request::{CompileRequest, CompilerFamily, Decision, DriverLanguage, Invocation};
use crate::daemon::context::Context;
use crate::dispatch::attempt::RemoteResult;
use crate::dispatch::board::Went;
use crate::dispatch::farm::{Farm, Found};
use crate::dispatch::job::{Job, Recipe};
use crate::dispatch::lender::Source;
use crate::inputs::discover::Inputs;
use crate::inputs::recorded::SettledFolders;
use crate::inputs::tree::TreeBuilder;
use crate::toolchain::Compiler;
use crate::toolchain::parts::Parts;

/// Questions and probes under way at once.
const AT_ONCE: usize = 3;
/// How long an agent may be waited for, for each.
const AGENT_PATIENCE: Duration = Duration::from_secs(120);
/// Agents tried for each.
const MAX_TRIED: usize = 3;
/// How often a wait for an agent looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Of a difference, that much is shown.
const MAX_SHOWN: usize = 160;
/// The file that questions are about.
pub(crate) const NOTHING: &str = "nothing";

/// Why there is no pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// They differ, and how.
    Unlike(String),
    /// It could not be found out.
    Trouble(String),
}

/// What is to be proved.
#[derive(Debug)]
pub struct Proof<'a> {
    /// Everything of the daemon's.
    pub context: &'a Arc<Context>,
    /// Where the double runs.
    pub farm: &'a Farm,
    /// This machine's.
    pub compiler: &'a Arc<Compiler>,
    /// By its name.
    pub driver: DriverLanguage,
    /// What it says that it is.
    pub identity: &'a Identity,
    /// Its double.
    pub dressed: &'a Dressed,
    /// In which languages.
    pub group: Group,
}

/// `double` with the arguments that make it look where `compiler` looks. Starts the compiler once.
pub async fn dress(compiler: &Compiler, identity: &Identity, double: Double, group: Group) -> Result<Dressed, Failure> {
    let folder = folder()?;
    let language = group.option_name();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let question = match compiler.family {
        CompilerFamily::Gcc => words(&format!("-E -v -x {language} {NOTHING}")),
        CompilerFamily::Clang => words(&format!("-### -c -x {language} {NOTHING} -o {NOTHING}.o")),
    };
    let output = ask::run(&compiler.program, &question, folder.path(), &[]).await.map_err(Failure::Trouble)?;
    let told = String::from_utf8_lossy(&output.stderr);
    let canonical = |path: &Path| fs::canonicalize(path).ok();
    let (front, folders) = match compiler.family {
        CompilerFamily::Gcc => gcc::folders(&told, &canonical).map(|folders| (Vec::new(), folders)),
        CompilerFamily::Clang => clang::dress(&told, &identity.target),
    }
    .ok_or_else(|| Failure::Unlike("the folders that it searches by itself can't be told to another".to_owned()))?;
    let (toolchain, id) = (double.toolchain.clone(), double.toolchain.id());
    let parts = Arc::new(Parts { toolchain, id, files: Vec::new(), directories: Vec::new() });
    Ok(Dressed { parts, family: compiler.family, double, target: identity.target.clone(), front, folders })
}

fn folder() -> Result<tempfile::TempDir, Failure> {
    let made = tempfile::Builder::new().prefix("buildbee-probes-").tempdir();
    let made = made.and_then(|folder| fs::write(folder.path().join(NOTHING), "\n").map(|()| folder));
    made.map_err(|error| Failure::Trouble(format!("no folder for probes: {error}")))
}

impl Proof<'_> {
    /// The pair, or why it is none.
    pub async fn run(&self) -> Result<Pair, Failure> {
        let folder = folder()?;
        let root = fs::canonicalize(folder.path()).map_err(|error| Failure::Trouble(error.to_string()))?;
        let _wish = self.farm.wish();
        let questions = match self.compiler.family {
            CompilerFamily::Gcc => gcc::questions(self.group),
            CompilerFamily::Clang => clang::questions(self.group),
        };
        let asking: Vec<_> = questions.iter().map(|question| Box::pin(self.ask(question, &root))).collect();
        let mut answers = futures::stream::iter(asking).buffered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            answer?;
        }
        drop(answers);
        if self.group == Group::Assembler {
            self.make_assembler(&root).await?;
        }
        let same_libraries = self.identity.compresses_as(&self.dressed.double);
        let probes = probes::probes(self.group, self.compiler.family, same_libraries);
        let probing: Vec<_> =
            probes.iter().enumerate().map(|(at, probe)| Box::pin(self.probe(at, probe, &root))).collect();
        let mut outcomes = futures::stream::iter(probing).buffered(AT_ONCE);
        let mut machine = None;
        while let Some(outcome) = outcomes.next().await {
            machine = machine.or(outcome?);
        }
        let machine = machine.ok_or_else(|| Failure::Unlike("its objects are of no known kind".to_owned()))?;
        Ok(pair::Pair::new(self.dressed.clone(), machine, &self.compiler.program))
    }

    /// Asks both, and compares.
    async fn ask(&self, question: &Question, root: &Path) -> Result<(), Failure> {
        let Dressed { front, folders, double, .. } = self.dressed;
        let arguments: Vec<String> = if question.is_compile {
            front.iter().chain(&question.arguments).chain(folders).cloned().collect()
        } else {
            question.arguments.clone()
        };
        let inputs = nothing(root, folders).map_err(Failure::Trouble)?;
        let env = [("LC_ALL", "C"), ("PATH", double.search.as_str())];
        let program = self.dressed.program();
        let recipe = Recipe {
            program: &program,
            arguments: &arguments,
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            working_directory: root,
            platform: vec![(TARGET_PROPERTY.to_owned(), self.dressed.target.clone())],
        };
        let job = Job::of(Arc::clone(&self.dressed.parts), recipe, inputs);
        let job = job.map_err(|error| Failure::Trouble(error.to_string()))?;
        let here = ask::run(&self.compiler.program, &question.arguments, root, &[]);
        let (here, there) = tokio::join!(here, Box::pin(on_agent(self.farm, &job)));
        let (here, there) = (here.map_err(Failure::Trouble)?, there?);
        let about = question.arguments.join(" ");
        let text = |digest: &Digest| String::from_utf8_lossy(content(&there, digest)).into_owned();
        let (stdout, stderr) = (text(&there.signed.result.stdout), text(&there.signed.result.stderr));
        if question.kind == Kind::Compile {
            let told = gcc::own_folders(&stderr).unwrap_or_default();
            let own = told.iter().find(|path| !folders.iter().any(|folder| Path::new(folder) == path.as_path()));
            if let Some(own) = own {
                return Err(Failure::Unlike(format!("it has headers of its own, in {}", own.display())));
            }
        }
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let here = gcc::comparable(question.kind, &lossy(&here.stdout), &lossy(&here.stderr));
        let there = gcc::comparable(question.kind, &stdout, &stderr);
        match (here, there) {
            (Some(here), Some(there)) if here == there => Ok(()),
            (Some(here), Some(there)) => Err(Failure::Unlike(difference(&about, &here, &there))),
            (None, _) => Err(Failure::Unlike(format!("this machine's compiler does not answer {about}"))),
            (_, None) => Err(Failure::Unlike(format!("its double does not answer {about}"))),
        }
    }

    /// Assembler of this machine's, for both to assemble.
    async fn make_assembler(&self, root: &Path) -> Result<(), Failure> {
        write_sources(root).map_err(Failure::Trouble)?;
        let arguments = ["-O2", "-S", "-x", "c", "probe.c", "-o", MADE].map(str::to_owned);
        let output = ask::run(&self.compiler.program, &arguments, root, &[]).await.map_err(Failure::Trouble)?;
        if output.status.success() { Ok(()) } else { Err(fails_here("probe.c", &output)) }
    }

    /// Compiles one probe on both sides, and compares all that is left. For which machine its object is, if it leaves one.
    async fn probe(&self, at: usize, probe: &Probe, root: &Path) -> Result<Option<Machine>, Failure> {
        let folder = root.join(at.to_string());
        let made = fs::create_dir(&folder).map_err(|error| error.to_string());
        made.and_then(|()| write_sources(&folder)).map_err(Failure::Trouble)?;
        if probe.source == MADE {
            fs::copy(root.join(MADE), folder.join(MADE)).map_err(|error| Failure::Trouble(error.to_string()))?;
        }
        let request = Arc::new(self.request(probe, &folder)?);
        let env = [("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())];
        let looking = Box::pin(self.context.discovery.inputs(self.compiler, &request, &env, &folder));
        let inputs = looking.await.map_err(|error| Failure::Trouble(error.to_string()))?;
        let job = Job::for_double(self.dressed, &request, inputs, &folder);
        let job = job.map_err(|error| Failure::Trouble(error.to_string()))?;
        let mut env = request.env.clone();
        env.push(("PWD".to_owned(), folder.to_string_lossy().into_owned()));
        let here = ask::run(&self.compiler.program, &request.argv, &folder, &env);
        let (here, there) = tokio::join!(here, Box::pin(on_agent(self.farm, &job)));
        let (here, there) = (here.map_err(Failure::Trouble)?, there?);
        if !here.status.success() {
            return Err(fails_here(probe.source, &here));
        }
        compare(probe, &request, &folder, &here, &there)
    }

    fn request(&self, probe: &Probe, folder: &Path) -> Result<CompileRequest, Failure> {
        let output = if probe.arguments.starts_with("-S") { "probe.s" } else { "probe.o" };
        let argv: Vec<String> =
            probe.arguments.split(' ').chain(["-o", output, probe.source]).map(str::to_owned).collect();
        let invocation = Invocation {
            family: self.compiler.family,
            driver: self.driver,
            argv: &argv,
            env: &[],
            cwd: folder,
            stderr_is_terminal: false,
            columns: None,
            locale: None,
            variables: &[],
        };
        match decide(&invocation, &|_| Err(std::io::ErrorKind::NotFound.into())) {
            Decision::Distribute(request) => Ok(*request),
            Decision::Local(reason) => Err(Failure::Unlike(format!("a probe can't leave this machine: {reason}"))),
        }
    }
}

/// Has an agent run `job`.
pub(super) async fn on_agent(farm: &Farm, job: &Job) -> Result<RemoteResult, Failure> {
    let files = job.inputs.files.iter().map(|(digest, path)| (*digest, Source::File(path.clone())));
    let directories = job.inputs.tree.directories.iter();
    let directories = directories.map(|(digest, bytes)| (*digest, Source::Bytes(Arc::clone(bytes))));
    let _loan = farm.lend(&job.parts, files.chain(directories));
    let (since, mut tried) = (Instant::now(), Vec::new());
    let mut last = "no agent can be reached".to_owned();
    loop {
        match farm.seat(&job.parts, &tried, &HashMap::new()) {
            Found::Seat(mut seat) if tried.len() < MAX_TRIED => {
                match farm.attempts().run(&seat.pick, job, None).await {
                    Ok(result) => {
                        seat.went(Went::Well);
                        return Ok(result);
                    }
                    Err(error) => {
                        let went = error.went();
                        seat.went(went);
                        last = format!("{}: {error}", seat.pick.name);
                        if went != Went::Busy {
                            tried.push(seat.pick.peer);
                        }
                    }
                }
            }
            Found::Full if since.elapsed() < AGENT_PATIENCE => farm.changed(LOOK_AGAIN).await,
            Found::Full => return Err(Failure::Trouble("all agents were busy for too long".to_owned())),
            Found::Seat(_) | Found::Nobody => return Err(Failure::Trouble(last)),
        }
        if since.elapsed() > AGENT_PATIENCE {
            return Err(Failure::Trouble(last));
        }
    }
}

/// Whether both left the same.
fn compare(
    probe: &Probe,
    request: &CompileRequest,
    folder: &Path,
    here: &Output,
    there: &RemoteResult,
) -> Result<Option<Machine>, Failure> {
    let result = &there.signed.result;
    let about = format!("{} {}", probe.arguments, probe.source);
    let said = String::from_utf8_lossy(content(there, &result.stderr)).into_owned();
    if result.exit_code != 0 {
        let line = shown(said.lines().next().unwrap_or_default());
        return Err(Failure::Unlike(format!("its double fails at {about}: {line}")));
    }
    if said.as_bytes() != here.stderr || content(there, &result.stdout) != here.stdout {
        return Err(Failure::Unlike(difference(&about, &String::from_utf8_lossy(&here.stderr), &said)));
    }
    let mut machine = None;
    for output in &request.outputs {
        let path = folder.join(&output.path);
        let place = RelPath::from_absolute(&path).map_err(|error| Failure::Trouble(error.to_string()))?;
        let made = result.outputs.iter().find(|file| file.path == place).map(|file| content(there, &file.digest));
        let own = fs::read(&path).ok();
        if let Some(own) = same(&output.path, &about, own.as_deref(), made)? {
            machine = machine.or(Machine::of(own));
        }
    }
    Ok(machine)
}

/// The output `name` of `about`, if both have left it; an error if what they left is not the same.
pub(super) fn same<'a>(
    name: &Path,
    about: &str,
    own: Option<&'a [u8]>,
    made: Option<&[u8]>,
) -> Result<Option<&'a [u8]>, Failure> {
    let name = name.display();
    match (own, made) {
        (Some(own), Some(made)) if own == made => Ok(Some(own)),
        (None, None) => Ok(None),
        (Some(own), Some(made)) => {
            let at = own.iter().zip(made).take_while(|(one, other)| one == other).count();
            let (own, made) = (own.len(), made.len());
            let text = format!("{name} of {about} differs from byte {at} on ({own} bytes here, {made} there)");
            Err(Failure::Unlike(text))
        }
        (Some(_), None) => Err(Failure::Unlike(format!("its double leaves no {name} at {about}"))),
        (None, Some(_)) => Err(Failure::Unlike(format!("its double alone leaves {name} at {about}"))),
    }
}

pub(super) fn content<'a>(result: &'a RemoteResult, digest: &Digest) -> &'a [u8] {
    result.blobs.get(digest).map_or(&[], Vec::as_slice)
}

fn write_sources(folder: &Path) -> Result<(), String> {
    SOURCES.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text)).map_err(|error| error.to_string())
}

pub(super) fn fails_here(source: &str, output: &Output) -> Failure {
    let said = String::from_utf8_lossy(&output.stderr);
    Failure::Unlike(format!("{source} does not compile here: {}", shown(said.lines().next().unwrap_or_default())))
}

/// What a question sees: a file and empty folders, since gcc fails where it finds none to look in.
pub(crate) fn nothing(root: &Path, folders: &[String]) -> Result<Inputs, String> {
    let path = root.join(NOTHING);
    let bytes = fs::read(&path).map_err(|error| error.to_string())?;
    let digest = Digest::of(&bytes);
    let place = RelPath::from_absolute(&path).map_err(|error| error.to_string())?;
    let mut tree = TreeBuilder::default();
    tree.file(&place, digest, false).map_err(|error| error.to_string())?;
    // Options among them, and folders that are spelled by way of others, are no places.
    for folder in folders.iter().filter_map(|folder| RelPath::from_absolute(Path::new(folder)).ok()) {
        tree.directory(&folder).map_err(|error| error.to_string())?;
    }
    Ok(Inputs {
        read_set: ReadSet::default(),
        folders: SettledFolders::default(),
        listed: false,
        tree: Arc::new(tree.finish()),
        files: BTreeMap::from([(digest, path)]),
        guards: Vec::new(),
        outputs: Vec::new(),
        logical_directory: PathBuf::from(root),
    })
}

pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|symbol| !symbol.is_control()).take(MAX_SHOWN).collect()
}

/// The first lines in which two answers differ.
pub(super) fn difference(about: &str, here: &str, there: &str) -> String {
    let (mut ours, mut theirs) = (here.lines(), there.lines());
    loop {
        match (ours.next(), theirs.next()) {
            (Some(one), Some(other)) if one == other => {}
            (None, None) => return format!("they answer {about} differently"),
            (one, other) => {
                let show =
                    |line: Option<&str>| line.map_or_else(|| "nothing".to_owned(), |line| around(line, one, other));
                return format!("{about}: here {:?}, there {:?}", show(one), show(other));
            }
        }
    }
}

/// A line from a little before the place where two begin to differ.
fn around(line: &str, one: Option<&str>, other: Option<&str>) -> String {
    let same =
        one.unwrap_or_default().chars().zip(other.unwrap_or_default().chars()).take_while(|(a, b)| a == b).count();
    shown(&line.chars().skip(same.saturating_sub(MAX_SHOWN / 4)).collect::<String>()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_where_it_begins() {
        let long = "x".repeat(500);
        let text = difference("-v", &format!("same\n{long}A"), &format!("same\n{long}B"));
        assert!(text.starts_with("-v: here \"x") && text.contains("xA\"") && text.contains("xB\""), "{text}");
        assert!(text.len() < 250, "{text}");
        assert_eq!(difference("-v", "a\nb", "a"), "-v: here \"b\", there \"nothing\"");
    }
}
