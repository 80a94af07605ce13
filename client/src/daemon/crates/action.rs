//! A crate's compile as an action that any agent can run. Blocks: it reads what the action is given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use buildbee_proto::action::RECORDED;
use buildbee_proto::digest::Digest;
use buildbee_store::Store;
use memchr::memmem;

use super::super::context::Context;
use super::beyond::Beyond;
use super::by_content::CrateFiles;
use super::closure::stem;
use super::inputs::{CrateInputError, Memory, gather};
use super::needs::has_macros;
use super::plan::CratePlan;
use crate::dispatch::job::{Job, Recipe};
use crate::inputs::discover::Inputs;
use crate::inputs::filehash::Hashed;
use crate::journal::Why;
use crate::rust::env::may_go_along;
use crate::rust::roots::Side;
use crate::rust::scan::scan;

/// Where programs are looked for that no linker starts.
pub const PLAIN_SEARCH: &str = "/usr/bin:/bin";
/// What stands in every source that names a variable.
const NAMES_VARIABLE: &str = "env!";

/// An action, and how things stood when it was put together.
#[derive(Debug)]
pub struct CrateJob {
    /// As agents know it.
    pub job: Arc<Job>,
    /// Variables that it is given.
    pub variables: BTreeSet<String>,
    /// What was known of the crate.
    pub beyond: Beyond,
    /// How often agents made it before, and lacked something.
    pub n_rounds: u8,
    /// Inputs that are younger than this may not be what was sent.
    pub(super) start: SystemTime,
}

impl CrateJob {
    /// The content of every file that it is given, by place.
    pub(super) fn given(&self) -> BTreeMap<&PathBuf, Digest> {
        self.job.inputs.guards.iter().map(|(path, hashed)| (path, hashed.digest)).collect()
    }
}

/// The reason's code where a compile needs macros that agents can't load.
pub const MACROS: &str = "proc-macro";

/// A library that a compile loads or looks into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub digest: Digest,
}

impl Library {
    /// Its file's name, for people.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().display().to_string()
    }
}

/// Libraries among `inputs` that hold macros: a double can't load what this machine's rustc loads.
fn with_macros(inputs: &Inputs, known: &CrateFiles) -> Vec<Library> {
    let libraries = inputs.guards.iter().filter(|(path, _)| path.extension().is_some_and(|ending| ending == "so"));
    let loaded = libraries.filter(|(path, hashed)| {
        let has_macros = known.have_macros.of(path, &hashed.digest, has_macros);
        has_macros.unwrap_or(true)
    });
    loaded.map(|(path, hashed)| Library { path: path.clone(), digest: hashed.digest }).collect()
}

impl CratePlan {
    /// The action, or why no agent can run it. `n_rounds` as in [`CrateJob`].
    pub fn job(&self, context: &Context, n_rounds: u8) -> Result<CrateJob, Why> {
        let start = SystemTime::now();
        if let Some(reason) = &self.request.here_only {
            return Err((reason.code().to_owned(), reason.to_string()));
        }
        let Some(store) = context.cache.store() else {
            return Err(("no-cache".to_owned(), "there is no cache to tell what it needs".to_owned()));
        };
        let beyond = Beyond::recall(store, self);
        if beyond.stays == Some(self.key) {
            let text = "what an agent made of it the last time was not what a run here makes";
            return Err(("stays".to_owned(), text.to_owned()));
        }
        let inputs = self.inputs(context, store, &beyond)?;
        if self.double.is_some()
            && let Some(library) = (with_macros(&inputs, &context.crate_files).into_iter())
                .find(|library| !self.twins.contains_key(&library.digest))
        {
            let text = format!("it uses macros of {}, which runs on this machine only", library.name());
            return Err((MACROS.to_owned(), text));
        }
        let mut env = self.variables(context, &inputs.guards, &beyond);
        let variables = env.keys().cloned().collect();
        env.insert("PATH".to_owned(), self.search().to_owned());
        let (program, front, parts) = match &self.double {
            Some(double) => (double.program(), double.front(&self.request), &double.parts),
            None => (self.compiler.place.as_path(), self.compiler.arguments.clone(), self.parts()),
        };
        let arguments: Vec<String> = front.into_iter().chain(self.placed_arguments()).collect();
        let working_directory = self.roots.places().path(&self.call.cwd);
        let recipe = Recipe {
            program,
            arguments: &arguments,
            env,
            working_directory: &working_directory,
            platform: vec![(RECORDED.0.to_owned(), RECORDED.1.to_owned())],
        };
        let job = Job::of(Arc::clone(parts), recipe, inputs);
        let job = job.map_err(|error| ("unusual-path".to_owned(), error.to_string()))?;
        Ok(CrateJob { job: Arc::new(job), variables, beyond, n_rounds, start })
    }

    fn inputs(&self, context: &Context, store: &Store, beyond: &Beyond) -> Result<Inputs, Why> {
        let memory = Memory { hashes: &context.hashes, files: &context.crate_files, store };
        gather(self, memory, beyond).map_err(|error: CrateInputError| (error.code().to_owned(), error.to_string()))
    }

    /// Libraries that it needs and no double can load: those with macros. Of a compile that is to be made for the double's own host, all of
    /// them.
    pub fn foreign_libraries(&self, context: &Context) -> Result<Vec<Library>, Why> {
        let Some(store) = context.cache.store() else {
            return Err(("no-cache".to_owned(), "there is no cache to tell what it needs".to_owned()));
        };
        let inputs = self.inputs(context, store, &Beyond::recall(store, self))?;
        if !self.is_for_doubles_host() {
            return Ok(with_macros(&inputs, &context.crate_files));
        }
        let is_library = |path: &Path| path.file_name().and_then(|name| stem(name.to_str()?)).is_some();
        let libraries = inputs.guards.iter().filter(|(path, _)| is_library(path));
        Ok(libraries.map(|(path, hashed)| Library { path: path.clone(), digest: hashed.digest }).collect())
    }

    /// Whether what is made is for the agents, and not for this machine.
    pub fn is_for_doubles_host(&self) -> bool {
        self.double.as_ref().is_some_and(|double| double.links())
    }

    /// `PATH` in the sandbox.
    pub(super) fn search(&self) -> &str {
        if self.double.is_some() {
            return PLAIN_SEARCH;
        }
        self.linker.as_ref().map_or(PLAIN_SEARCH, |linker| linker.search.as_str())
    }

    /// The command's arguments in the spelling of the sandbox.
    fn placed_arguments(&self) -> Vec<String> {
        let request = &self.request;
        if self.roots == request.roots {
            return request.action_arguments.clone();
        }
        // The front-end gave them their places; this crate's paths stay.
        let from_places = request.roots.reals();
        let words = request.key_arguments.iter().map(|argument| from_places.text(argument));
        self.roots.flags(Side::Sandbox).into_iter().chain(words).collect()
    }

    /// Variables that go along: what cargo says, what the sources name, and what earlier compiles asked for.
    fn variables(&self, context: &Context, files: &[(PathBuf, Hashed)], beyond: &Beyond) -> BTreeMap<String, String> {
        let mut names: BTreeSet<String> = beyond.env.clone();
        let named = |text: &[u8]| {
            let names = memmem::find(text, NAMES_VARIABLE.as_bytes()).map(|_| scan(text).variables);
            Arc::new(names.unwrap_or_default())
        };
        for (path, hashed) in files.iter().filter(|(path, _)| path.extension().is_some_and(|suffix| suffix == "rs")) {
            // One that can't be read any more is found changed in any case.
            if let Ok(found) = context.crate_files.variables.of(path, &hashed.digest, named) {
                names.extend(found.iter().cloned());
            }
        }
        let places = self.roots.places();
        let declared = self.request.env.iter();
        let more = self.call.env.iter().filter(|(name, _)| names.contains(name) && may_go_along(name));
        let mut env = BTreeMap::new();
        for (name, value) in declared.chain(more) {
            // The first of a name is what `getenv` gives.
            env.entry(name.clone()).or_insert_with(|| places.text(value));
        }
        env
    }
}
