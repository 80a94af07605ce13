//! Twins: libraries of macros, and the crates that those are made of, built once more by agents for their own host, from the same sources and with the
//! same arguments. The compiler that an agent runs for this machine loads them in place of this machine's own.
//!
//! What stays here: a crate whose making is not known ([`recipe`]), or that has changed since; one that needs something of this machine
//! besides Rust; and macros in whose sources something may come out otherwise on another kind of host. Each with the reason.
//!
//! A twin is known by the library that it stands for, and by the double that built it. Twins live as long as the daemon, in a folder of their own; built
//! results are at the agents like all others.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use buildbee_proto::digest::Digest;
use memchr::memmem;
use tokio::time::Instant;

use super::known::RustAsked;
use super::recipe::{self, Recipe};
use super::{RustDouble, macro_library, options};
use crate::daemon::cache::Hit;
use crate::daemon::context::Context;
use crate::daemon::crates::action::{CrateJob, Library, MACROS};
use crate::daemon::crates::beyond::Beyond;
use crate::daemon::crates::plan::{CratePlan, Prepared, caller};
use crate::daemon::crates::verdict::{Objection, REAL_PATHS};
use crate::daemon::invocation::Checked;
use crate::daemon::peers;
use crate::daemon::plan::Planned;
use crate::dispatch::lookup::{News, Wanted};
use crate::doubles::known::{ASK_AGAIN, Known};
use crate::doubles::prove::{Failure, on_agent, shown};
use crate::journal::Why;

/// How deep crates may need each other.
const MAX_DEPTH: usize = 64;
/// How often agents are given what a build lacked.
const MAX_ROUNDS: u8 = 3;
/// Of all twins of one daemon.
const MAX_BYTES: u64 = 256 << 20;

/// A library as agents are given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwinFile {
    /// What it is.
    pub digest: Digest,
    /// Where it is kept.
    pub path: PathBuf,
}

/// What agents are given in place of libraries of this machine, by their content.
pub type StandIns = BTreeMap<Digest, TwinFile>;

/// What one call left, made for the agents' host: libraries by the names of their files.
#[derive(Debug)]
pub struct Twin(BTreeMap<OsString, TwinFile>);

/// Where twins are kept.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    /// Bytes on it; `None` before it is first used.
    bytes: Mutex<Option<u64>>,
}

impl Shelf {
    /// In `folder`, whose content is of an earlier daemon and goes.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, bytes: Mutex::default() }
    }

    /// Puts a file there. Blocks.
    fn put(&self, content: &[u8]) -> Result<TwinFile, String> {
        let failed = |error| format!("cannot write {}: {error}", self.folder.display());
        // Counted before it is written: a panic leaves the count too high at worst.
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.is_none() {
            // One that is not there is empty enough.
            fs::remove_dir_all(&self.folder).ok();
            fs::create_dir_all(&self.folder).map_err(failed)?;
        }
        let known = bytes.unwrap_or_default();
        let digest = Digest::of(content);
        let path = self.folder.join(digest.to_string());
        let size = if path.exists() { 0 } else { digest.size_bytes };
        if known + size > MAX_BYTES {
            return Err(format!("twins of libraries take more than {MAX_BYTES} bytes"));
        }
        *bytes = Some(known + size);
        if size > 0 {
            let fresh = path.with_extension("new");
            fs::write(&fresh, content).and_then(|()| fs::rename(&fresh, &path)).map_err(failed)?;
        }
        Ok(TwinFile { digest, path })
    }
}

type Making<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Has twins built.
#[derive(Clone, Copy, Debug)]
pub struct TwinMaker<'a> {
    /// For whose rustc, and where.
    pub asked: RustAsked<'a>,
    /// What builds them.
    pub linking: &'a Arc<RustDouble>,
}

impl TwinMaker<'_> {
    /// Twins of the macros that `plan` uses, or why there are none.
    pub async fn of_macros(&self, plan: &Arc<CratePlan>) -> Result<StandIns, Why> {
        let mut twins = StandIns::new();
        for library in self.foreign(plan).await.map_err(|(_, text)| (MACROS.to_owned(), text))? {
            let twin = self.twin(library.clone(), 0).await.map_err(|text| {
                let text = format!("it uses macros of {}, which runs on this machine only: {text}", library.name());
                (MACROS.to_owned(), text)
            })?;
            twins.insert(library.digest, twin);
        }
        Ok(twins)
    }

    /// The twin of one library. Boxed: it asks for those that it is made with.
    fn twin(&self, library: Library, depth: usize) -> Making<'_, Result<TwinFile, String>> {
        Box::pin(async move {
            if depth > MAX_DEPTH {
                return Err("crates need each other too deeply".to_owned());
            }
            let doubles = &self.asked.context.doubles;
            let (context, digest) = (Arc::clone(self.asked.context), library.digest);
            let known = off(move || context.cache.store().and_then(|store| recipe::recall(store, &digest))).await?;
            let watched = self.asked.context.recorder.is_some();
            let why = if watched { "" } else { ": libbuildbee_recorder.so is missing beside buildbee-cli" };
            let (note, recipe) = known.ok_or_else(|| format!("how {} was made is not known{why}", library.name()))?;
            let look = async {
                match self.build(&recipe, depth).await {
                    Ok(twin) => Known::Proved(Arc::new(twin)),
                    Err(text) => {
                        tracing::info!(library = library.name(), text, "no twin");
                        Known::Refused { why: (MACROS.to_owned(), text), until: Instant::now() + ASK_AGAIN }
                    }
                }
            };
            let twin = doubles.twins.of((note, self.linking.parts.id), Box::pin(look)).await;
            let twin = twin.map_err(|(_, text)| text)?;
            let name = library.path.file_name().unwrap_or_default();
            twin.0.get(name).cloned().ok_or_else(|| format!("{} is not where it was made", library.name()))
        })
    }

    async fn build(&self, recipe: &Recipe, depth: usize) -> Result<Twin, String> {
        let plan = self.plan(recipe).await?;
        let mut plan = Arc::new(plan.for_double(Arc::clone(self.linking)));
        let mut n_rounds = 0;
        loop {
            let (given, hit) = Box::pin(self.made(&plan, n_rounds, depth)).await?;
            let (context, judged) = (Arc::clone(self.asked.context), Arc::clone(&plan));
            let (host, recipe) = (self.linking.double.target.clone(), recipe.clone());
            let judging = off(move || {
                judge(&context, &judged, &given, &hit)?;
                shelve(&context, &judged, &hit, &host, Some(&recipe)).map_err(Judged::Never)
            });
            let again = match judging.await? {
                Ok(twin) => return Ok(twin),
                Err(Judged::Lacking(_)) if n_rounds < MAX_ROUNDS => Arc::clone(&plan),
                Err(Judged::AtRealPlaces) if plan.roots.are_placed() => Arc::new(plan.at_real_places()),
                Err(Judged::AtRealPlaces) => return Err("its twin names folders of the agent".to_owned()),
                Err(Judged::Never(text) | Judged::Lacking(text)) => return Err(text),
            };
            (plan, n_rounds) = (again, n_rounds + 1);
        }
    }

    /// The call that made a library, if its result still holds and is that library.
    async fn plan(&self, recipe: &Recipe) -> Result<CratePlan, String> {
        let context = self.asked.context;
        let call = Checked::new(&recipe.invocation()).map_err(|(_, (_, text))| text)?;
        let compiler = context.rustcs.identify(caller(&call)).await.map_err(|error| error.to_string())?;
        if compiler.parts.toolchain.root != self.asked.compiler.parts.toolchain.root {
            return Err("another compiler made it".to_owned());
        }
        let stays = |planned: Planned| planned.why().unwrap_or_else(|| "it is not known any more".to_owned());
        let prepared = Prepared::new(call, compiler, context.settings.paths).map_err(stays)?;
        let linker = match prepared.link_question() {
            Some(question) => {
                let linker = context.rustcs.linker(prepared.compiler(), question).await;
                Some(linker.map_err(|error| error.to_string())?)
            }
            None => None,
        };
        let planning = Arc::clone(context);
        match off(move || prepared.plan(&planning, linker)).await? {
            Planned::CrateHit(plan, hit) if recipe.left(&hit) => match options::objection_to_twin(&plan.request) {
                Some(argument) => Err(format!("{} is made with {argument}", plan.request.crate_name)),
                None => Ok(*plan),
            },
            Planned::CrateHit(plan, _) | Planned::CrateMiss(plan) => {
                Err(format!("{} was made of something else than what is here now", plan.request.crate_name))
            }
            planned => Err(stays(planned)),
        }
    }

    async fn foreign(&self, plan: &Arc<CratePlan>) -> Result<Vec<Library>, Why> {
        let (context, plan) = (Arc::clone(self.asked.context), Arc::clone(plan));
        let looked = off(move || plan.foreign_libraries(&context)).await;
        looked.unwrap_or_else(|text| Err((MACROS.to_owned(), text)))
    }

    /// What an agent makes of `plan`, with twins of all libraries that it needs.
    async fn made(&self, plan: &Arc<CratePlan>, n_rounds: u8, depth: usize) -> Result<(CrateJob, Hit), String> {
        let mut twins = StandIns::new();
        for library in self.foreign(plan).await.map_err(|(_, text)| text)? {
            let twin = self.twin(library.clone(), depth + 1).await?;
            twins.insert(library.digest, twin);
        }
        self.run(&Arc::new(plan.with_twins(twins)), n_rounds).await
    }

    /// What an agent makes of `plan`, or has.
    async fn run(&self, plan: &Arc<CratePlan>, n_rounds: u8) -> Result<(CrateJob, Hit), String> {
        let RustAsked { context, farm, .. } = self.asked;
        let (planning, wanted) = (Arc::clone(context), Arc::clone(plan));
        let given = off(move || wanted.job(&planning, n_rounds)).await?.map_err(|(_, text)| text)?;
        let wanted = Wanted { action: &given.job.action, outputs: &given.job.outputs };
        let known = peers::ask(context, wanted, None, News::AreCaught).await.0;
        if let Some(hit) = known.and_then(|(_, hit)| Arc::into_inner(hit)) {
            return Ok((given, hit));
        }
        let _wish = farm.wish();
        match Box::pin(on_agent(farm, &given.job)).await {
            Ok(made) => Ok((given, Hit::from(made))),
            Err(Failure::Unlike(text) | Failure::Trouble(text)) => Err(text),
        }
    }

    /// The twin of what `plan` made, which needs no other crate: a probe. Nothing is noted of it.
    pub async fn of_probe(&self, plan: CratePlan) -> Result<Twin, String> {
        let plan = Arc::new(plan.for_double(Arc::clone(self.linking)));
        let (_, hit) = self.run(&plan, 0).await?;
        let (context, host) = (Arc::clone(self.asked.context), self.linking.double.target.clone());
        off(move || shelve(&context, &plan, &hit, &host, None)).await?
    }
}

impl Twin {
    /// What agents are given in place of what stands in `folder`. Blocks.
    pub fn stand_ins(&self, folder: &Path) -> Result<StandIns, String> {
        let of = |(name, twin): (&OsString, &TwinFile)| {
            let own = fs::read(folder.join(name)).map_err(|error| error.to_string())?;
            Ok((Digest::of(&own), twin.clone()))
        };
        self.0.iter().map(of).collect()
    }
}

async fn off<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|_| "interrupted".to_owned())
}

/// Why a build for the agents' host does not count.
enum Judged {
    Never(String),
    /// It may, given more, which is noted.
    Lacking(String),
    /// It may, with real paths in it.
    AtRealPlaces,
}

fn judge(context: &Context, plan: &CratePlan, given: &CrateJob, hit: &Hit) -> Result<(), Judged> {
    let never = Judged::Never;
    if hit.signed.result.exit_code != 0 {
        let said = String::from_utf8_lossy(hit.content(&hit.signed.result.stderr));
        let line = shown(said.lines().next().unwrap_or_default());
        return Err(never(format!("{} does not compile for agents: {line}", plan.request.crate_name)));
    }
    let seen = match plan.verdict(given, hit) {
        Ok(seen) => seen,
        Err(Objection { why, .. }) if why.0 == REAL_PATHS => return Err(Judged::AtRealPlaces),
        Err(Objection { why: (_, text), lacking }) => {
            let is_of_use = *lacking != Beyond::default() && plan.learn(context, given, *lacking);
            return Err(if is_of_use { Judged::Lacking(text) } else { Judged::Never(text) });
        }
    };
    let sent: BTreeMap<&PathBuf, Digest> =
        given.job.inputs.guards.iter().map(|(path, hashed)| (path, hashed.digest)).collect();
    for path in &seen.files {
        let now = context.hashes.hash(path).ok().map(|hashed| hashed.digest);
        let Some(now) = now.filter(|now| sent.get(path) == Some(now)) else {
            return Err(never(format!("{} changed meanwhile", path.display())));
        };
        let is_source = path.extension().is_some_and(|suffix| suffix == "rs");
        let word = is_source.then(|| context.crate_files.host_words.of(path, &now, host_word));
        match word {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(word))) => {
                return Err(never(format!("{} says {word}, which may be another on agents", path.display())));
            }
            Some(Err(error)) => return Err(never(format!("cannot read {}: {error}", path.display()))),
        }
    }
    Ok(())
}

/// Keeps the libraries among what was made, those of macros under the identity of this machine's own, which must still be what `recipe` says.
fn shelve(context: &Context, plan: &CratePlan, hit: &Hit, host: &str, recipe: Option<&Recipe>) -> Result<Twin, String> {
    let spelling = plan.spelling();
    let mut files = BTreeMap::new();
    for file in &hit.signed.result.outputs {
        let path = spelling.real(&file.path);
        let Some(suffix) = path.extension() else { continue };
        let made = hit.content(&file.digest);
        let kept = if suffix == "so" {
            let own = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            if recipe.is_some_and(|recipe| !recipe.names(&Digest::of(&own))) {
                return Err(format!("{} changed meanwhile", path.display()));
            }
            context.doubles.shelf.put(&macro_library::under_identity_of(&own, made, host)?)?
        } else if suffix == "rlib" || suffix == "rmeta" {
            context.doubles.shelf.put(made)?
        } else {
            continue;
        };
        files.insert(path.file_name().unwrap_or_default().to_owned(), kept);
    }
    if files.is_empty() { Err("its twin left no library".to_owned()) } else { Ok(Twin(files)) }
}

/// What a source's text may say that comes out otherwise on another kind of host of the same system: its architecture, and the order of hash tables that
/// draw no seed. Comments don't count.
const HOST_WORDS: [&str; 11] = [
    "target_arch",
    "target_feature",
    "target_has_atomic",
    "consts::ARCH",
    "env::consts",
    "std::arch",
    "core::arch",
    "c_char",
    "BuildHasher",
    "FxHash",
    "hashbrown",
];

/// The first of them in `text`.
fn host_word(text: &[u8]) -> Option<&'static str> {
    let before_comment = |line: &[u8]| memmem::find(line, b"//").unwrap_or(line.len());
    let code: Vec<&[u8]> = text.split(|&byte| byte == b'\n').map(|line| &line[..before_comment(line)]).collect();
    HOST_WORDS.into_iter().find(|word| code.iter().any(|line| memmem::find(line, word.as_bytes()).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_hosts_count_in_code() {
        assert_eq!(host_word(b"let a = 1; // target_arch\n/// fn printf(it: *const c_char)\n"), None);
        assert_eq!(host_word(b"fn a() {\n    if cfg!(target_arch = \"arm\") {} // so"), Some("target_arch"));
        assert_eq!(host_word(b"use std::env::consts;"), Some("env::consts"));
        assert_eq!(host_word(b"type Set = HashSet<u8, BuildHasherDefault<X>>;"), Some("BuildHasher"));
        assert_eq!(host_word(b"use std::collections::HashSet;"), None);
    }

    #[test]
    fn a_shelf_begins_empty_and_holds_each_content_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("twins");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("old"), "").unwrap();
        let shelf = Shelf::new(folder.clone());
        let one = shelf.put(b"one").unwrap();
        assert_eq!(shelf.put(b"one").unwrap(), one);
        assert_eq!(fs::read(&one.path).unwrap(), b"one");
        assert_eq!(one.digest, Digest::of(b"one"));
        assert_eq!(*shelf.bytes.lock().unwrap(), Some(3));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
}
