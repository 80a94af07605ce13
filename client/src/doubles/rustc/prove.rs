//! Proves a pair of rustc: has both compile the probes, the double in an agent's sandbox, and compares all that is left. A probe goes the way of any
//! crate: the front-end decides, its inputs are gathered, its action is the one that a crate would have.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use buildbee_proto::codec::Bytes;
use buildbee_proto::local::Invocation;
use futures::StreamExt as _;

use super::probes::{FIRST, OTHERS, Probe, SOURCE_FOLDER, SOURCES, line};
use super::twins::StandIns;
use super::{RustDouble, archive};
use crate::daemon::context::Context;
use crate::daemon::crates::plan::{CratePlan, Prepared};
use crate::daemon::invocation::Checked;
use crate::dispatch::attempt::RemoteResult;
use crate::dispatch::farm::Farm;
use crate::doubles::ask;
use crate::doubles::machine::Machine;
use crate::doubles::prove::{Failure, content, difference, on_agent, same, shown};
use crate::rust::request::RustOutputKind;
use crate::toolchain::rust::RustCompiler;

/// Probes under way at once.
const AT_ONCE: usize = 2;
/// Where programs are looked for.
const SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Where the first probe leaves what the others use.
pub(super) const CRATES: &str = "crates";
/// What users of a compiler get as their file mode creation mask.
const UMASK: u32 = 0o022;

/// What is to be proved.
#[derive(Debug)]
pub struct RustProof<'a> {
    /// Everything of the daemon's.
    pub context: &'a Arc<Context>,
    /// Where the double runs.
    pub farm: &'a Farm,
    /// This machine's.
    pub compiler: &'a Arc<RustCompiler>,
    /// Its double.
    pub double: &'a Arc<RustDouble>,
}

impl RustProof<'_> {
    /// For which machine both make the same, or why they don't.
    pub async fn run(&self) -> Result<Machine, Failure> {
        let folder = tempfile::Builder::new().prefix("buildbee-probes-").tempdir();
        let folder = folder.map_err(|error| Failure::Trouble(format!("no folder for probes: {error}")))?;
        let root = fs::canonicalize(folder.path()).and_then(|root| write_sources(&root, &SOURCES).map(|()| root));
        let root = root.map_err(|error| Failure::Trouble(error.to_string()))?;
        let _wish = self.farm.wish();
        let mut machine = Box::pin(self.probe(&FIRST, CRATES, &root, StandIns::new())).await?;
        self.make_native(&root)?;
        let folders: Vec<String> = (0..OTHERS.len()).map(|at| format!("out{at}")).collect();
        let probing: Vec<_> = (OTHERS.iter().zip(&folders))
            .map(|(probe, folder)| Box::pin(self.probe(probe, folder, &root, StandIns::new())))
            .collect();
        let mut outcomes = futures::stream::iter(probing).buffered(AT_ONCE);
        while let Some(outcome) = outcomes.next().await {
            let found = outcome?;
            if machine.is_some() && found.is_some() && machine != found {
                return Err(Failure::Unlike("its objects are for more than one machine".to_owned()));
            }
            machine = machine.or(found);
        }
        machine.ok_or_else(|| Failure::Unlike("its objects are of no known kind".to_owned()))
    }

    /// A library of no crate's, of one object that the first probe left in its own.
    fn make_native(&self, root: &Path) -> Result<(), Failure> {
        let crates = root.join(CRATES);
        let made = fs::read(crates.join("libprobe-0123456789abcdef.rlib"));
        let made = made.map_err(|error| Failure::Trouble(format!("no probe was left: {error}")))?;
        let object = archive::objects(&made).next().ok_or_else(|| {
            let program = self.compiler.program.display();
            Failure::Unlike(format!("{program} leaves no object in a library"))
        })?;
        let library = archive::with_one("probe.o", object);
        fs::write(crates.join("libprobe.a"), library).map_err(|error| Failure::Trouble(error.to_string()))
    }

    /// Compiles one probe on both sides, and compares all that is left. For which machine its objects are, if it leaves one.
    /// The double is given `twins` of libraries.
    pub(super) async fn probe(
        &self,
        probe: &Probe,
        folder: &str,
        root: &Path,
        twins: StandIns,
    ) -> Result<Option<Machine>, Failure> {
        fs::create_dir(root.join(folder)).map_err(|error| Failure::Trouble(error.to_string()))?;
        let argv = line(probe, folder, CRATES);
        let plan = Arc::new(self.plan(&argv, root)?.with_twins(twins));
        let (context, planned) = (Arc::clone(self.context), Arc::clone(&plan));
        let given = tokio::task::spawn_blocking(move || planned.job(&context, 0)).await;
        let given = given.map_err(|error| Failure::Trouble(error.to_string()))?;
        let given = given.map_err(|(_, text)| Failure::Trouble(text))?;
        let here = self.run_here(&plan, &argv, root);
        let (here, there) = tokio::join!(here, Box::pin(on_agent(self.farm, &given.job)));
        compare(probe, &plan, &here?, &there?)
    }

    /// Runs this machine's compiler for `plan`.
    pub(super) async fn run_here(&self, plan: &CratePlan, argv: &[String], root: &Path) -> Result<Output, Failure> {
        let arguments: Vec<String> = plan.request.added_arguments.iter().chain(argv).cloned().collect();
        let env = [("PATH".to_owned(), SEARCH.to_owned())];
        ask::run(&self.compiler.program, &arguments, root, &env).await.map_err(Failure::Trouble)
    }

    pub(super) fn plan(&self, argv: &[String], root: &Path) -> Result<CratePlan, Failure> {
        let bytes = |text: &str| Bytes(text.as_bytes().to_vec());
        let invocation = Invocation {
            program: Bytes(self.compiler.program.as_os_str().as_encoded_bytes().to_vec()),
            argv: std::iter::once("rustc").chain(argv.iter().map(String::as_str)).map(bytes).collect(),
            env: vec![bytes(&format!("PATH={SEARCH}"))],
            cwd: Bytes(root.as_os_str().as_encoded_bytes().to_vec()),
            umask: UMASK,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            columns: None,
        };
        let stays = |reason: String| Failure::Unlike(format!("a probe can't leave this machine: {reason}"));
        let call = Checked::new(&invocation).map_err(|(_, (_, text))| stays(text))?;
        let prepared = Prepared::new(call, Arc::clone(self.compiler), self.context.settings.paths);
        let plan = prepared.and_then(|prepared| prepared.bare(self.context, None));
        let plan = plan.map_err(|planned| stays(planned.why().unwrap_or_default()))?;
        Ok(plan.for_double(Arc::clone(self.double)))
    }
}

pub(super) fn write_sources(root: &Path, sources: &[(&str, &str)]) -> std::io::Result<()> {
    let folder = root.join(SOURCE_FOLDER);
    fs::create_dir(&folder)?;
    sources.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))
}

/// Whether both left the same, paths in their places.
fn compare(probe: &Probe, plan: &CratePlan, here: &Output, there: &RemoteResult) -> Result<Option<Machine>, Failure> {
    let about = &format!("{} {}", probe.name, probe.arguments);
    let result = &there.signed.result;
    let first_line = |text: &[u8]| shown(String::from_utf8_lossy(text).lines().next().unwrap_or_default());
    let places = plan.roots.places();
    let said = content(there, &result.stderr);
    if !here.status.success() {
        return Err(Failure::Unlike(format!("{about} does not compile here: {}", first_line(&here.stderr))));
    }
    if result.exit_code != 0 {
        return Err(Failure::Unlike(format!("its double fails at {about}: {}", first_line(said))));
    }
    let odd = || Failure::Unlike(format!("what {about} prints can't be spelled with places"));
    let own = places.messages(&here.stderr).map_err(|_| odd())?;
    if own != said || here.stdout != content(there, &result.stdout) {
        return Err(Failure::Unlike(difference(about, &String::from_utf8_lossy(&own), &String::from_utf8_lossy(said))));
    }
    let spelling = plan.spelling();
    let mut machine = None;
    for output in &plan.request.outputs {
        let path = plan.absolute(&output.path);
        let place = spelling.place(&path);
        let made = result.outputs.iter().find(|file| Some(&file.path) == place.as_ref());
        let made = made.map(|file| content(there, &file.digest));
        let own = fs::read(&path).ok();
        let own = match own {
            Some(own) if output.what == RustOutputKind::DepInfo => Some(places.dep_info(&own).map_err(|_| odd())?),
            Some(own) if probe.draws_names() && made.is_some_and(|made| archive::have_same_objects(&own, made)) => {
                machine = machine.or(archive::machines(&own).next());
                continue;
            }
            own => own,
        };
        if let Some(own) = same(&output.path, about, own.as_deref(), made)? {
            machine = machine.or(archive::machines(own).next());
        }
    }
    Ok(machine)
}
