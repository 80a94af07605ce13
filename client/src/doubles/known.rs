//! What the daemon knows of doubles: finds one for a compiler, proves it once, and remembers what came of it.
//!
//! One look at a time for a compiler and a language: a build's first hundred compiles wait for one, or run here meanwhile. A look that found
//! nothing, or met trouble, is repeated after a while; a verdict stands.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::digest::Digest;
use buildbee_proto::double::Double;
use buildbee_proto::toolchain::ToolchainId;
use serde_json::json;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use super::ask::{self, Identity};
use super::machine::Machine;
use super::memory::{Memory, Subject, Verdict};
use super::pair::{Dressed, Group, Pair};
use super::probes::VERSION;
use super::prove::{Failure, Proof, dress};
use super::rustc::RustDouble;
use super::rustc::twins::{Shelf, Twin};
use crate::compiler::request::DriverLanguage;
use crate::daemon::context::Context;
use crate::dispatch::farm::Farm;
use crate::journal::Why;
use crate::toolchain::Compiler;

/// Compilers and languages remembered; beyond it the memory starts over.
const MAX_KNOWN: usize = 128;
/// After this long, agents are asked again where nothing was found.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(20);
/// Doubles that are proved for one compiler.
const MAX_CANDIDATES: usize = 4;

/// A pair that counts, and whether both compress with the same libraries.
#[derive(Clone, Debug)]
pub struct Proved {
    /// The pair.
    pub pair: Arc<Pair>,
    /// See [`Identity::compresses_as`].
    pub same_libraries: bool,
}

/// What came of a look.
#[derive(Clone, Debug)]
pub(super) enum Known<T> {
    /// A pair that counts.
    Proved(T),
    /// None, for a while.
    Refused {
        /// Why.
        why: Why,
        /// Until when.
        until: Instant,
    },
}

/// Looks by what is looked for, each made by one and waited for by all who want the same.
#[derive(Debug)]
pub(super) struct Looks<K, T>(Mutex<HashMap<K, Cell<T>>>);

type Cell<T> = Arc<Turn<Option<Known<T>>>>;

impl<K, T> Default for Looks<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T: Clone> Looks<K, T> {
    // The map is whole at every point where a panic could strike.
    fn cell(&self, key: K) -> Cell<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN && !known.contains_key(&key) {
            known.clear();
        }
        Arc::clone(known.entry(key).or_default())
    }

    /// What is known, or what comes of `look`. Dropped early, nothing is remembered.
    pub(super) async fn of(&self, key: K, look: impl Future<Output = Known<T>>) -> Result<T, Why> {
        let cell = self.cell(key);
        let mut known = cell.lock().await;
        let still_counts = |known: &Known<T>| match known {
            Known::Proved(_) => true,
            Known::Refused { until, .. } => Instant::now() < *until,
        };
        if !known.as_ref().is_some_and(still_counts) {
            *known = Some(look.await);
        }
        match known.as_ref() {
            Some(Known::Proved(proved)) => Ok(proved.clone()),
            Some(Known::Refused { why, .. }) => Err(why.clone()),
            None => Err(("no-double".to_owned(), "nothing was found out".to_owned())),
        }
    }
}

/// For whose compiler a double is wanted, and where it is proved.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The daemon's.
    pub context: &'a Arc<Context>,
    /// Whose agents have doubles.
    pub farm: &'a Farm,
    /// This machine's own.
    pub compiler: &'a Arc<Compiler>,
    /// As which it was called.
    pub driver: DriverLanguage,
    /// What it compiles.
    pub group: Group,
}

type Key = (ToolchainId, Group);
/// State and text by compiler and language.
type Listed = BTreeMap<(String, String), (&'static str, String)>;

/// Knows doubles.
#[derive(Debug)]
pub struct Doubles {
    pub(super) memory: Memory,
    known: Looks<Key, Proved>,
    /// This machine's compilers that are doubles themselves.
    pub(super) owns: Looks<ToolchainId, Arc<Dressed>>,
    pub(super) rustcs: Looks<ToolchainId, Arc<RustDouble>>,
    /// For each rustc, the double that builds macros for the agents' host.
    pub(super) linking: Looks<ToolchainId, Arc<RustDouble>>,
    pub(super) twins: Looks<(Digest, ToolchainId), Arc<Twin>>,
    pub(super) shelf: Shelf,
    /// For listings: by compiler and language, what it came to.
    listed: Mutex<Listed>,
}

impl Doubles {
    /// With verdicts from earlier, and a folder for twins of libraries, which is emptied.
    pub fn new(memory: Memory, twins: PathBuf) -> Self {
        Self {
            memory,
            known: Looks::default(),
            owns: Looks::default(),
            rustcs: Looks::default(),
            linking: Looks::default(),
            twins: Looks::default(),
            shelf: Shelf::new(twins),
            listed: Mutex::default(),
        }
    }

    // As above.
    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `program`'s pair in a language listed so.
    pub(super) fn list(&self, program: &Path, language: &str, state: &'static str, text: &str) {
        let mut listed = self.listed();
        if listed.len() >= MAX_KNOWN {
            listed.clear();
        }
        listed.insert((program.display().to_string(), language.to_owned()), (state, text.to_owned()));
    }

    /// Lists and notes that there is none for now. Another may be added meanwhile; verdicts on those that there are, are remembered beside.
    pub(super) fn refused<T>(&self, program: &Path, language: &str, code: &str, text: String) -> Known<T> {
        tracing::info!(compiler = %program.display(), language, code, text, "no double");
        self.list(program, language, "refused", &text);
        Known::Refused { why: (code.to_owned(), text), until: Instant::now() + ASK_AGAIN }
    }

    /// The rows of `status --json`.
    pub fn status(&self) -> serde_json::Value {
        let rows: Vec<_> = (self.listed().iter())
            .map(|((compiler, language), (state, text))| {
                json!({ "compiler": compiler, "language": language, "state": state, "text": text })
            })
            .collect();
        json!(rows)
    }

    /// The double of `compiler` in `group`, proved, or why there is none. Takes as long as that takes; dropped early, nothing is remembered.
    pub async fn of(&self, asked: Asked<'_>) -> Result<Proved, Why> {
        let Asked { compiler, group, .. } = asked;
        let look = async {
            self.list(&compiler.program, group.word(), "proving", "");
            Box::pin(self.look(asked)).await
        };
        self.known.of((compiler.parts.id, group), look).await
    }

    async fn look(&self, asked: Asked<'_>) -> Known<Proved> {
        let Asked { farm, compiler, driver, group, .. } = asked;
        let refused = |code: &str, text: String| self.refused(&compiler.program, group.word(), code, text);
        let identity = match ask::identity(compiler, driver).await {
            Ok(identity) => identity,
            Err(text) => return refused("double-trouble", text),
        };
        let told = ask::agents(farm).await;
        let suiting: Vec<Double> = told.iter().filter(|double| identity.suits(double)).cloned().collect();
        if suiting.is_empty() {
            return refused("no-double", none_suits(&identity, &told));
        }
        let mut last = Failure::Trouble(String::new());
        for double in suiting.into_iter().take(MAX_CANDIDATES) {
            let label = double.label();
            match self.prove(asked, &identity, double).await {
                Ok(pair) => {
                    tracing::info!(compiler = %compiler.program.display(), group = group.word(), label, "a double is proved");
                    self.list(
                        &compiler.program,
                        group.word(),
                        "proved",
                        &format!("{} ({})", pair.dressed.double.program, label),
                    );
                    let same_libraries = identity.compresses_as(&pair.dressed.double);
                    return Known::Proved(Proved { pair: Arc::new(pair), same_libraries });
                }
                Err(Failure::Unlike(text)) => last = Failure::Unlike(format!("{label}: {text}")),
                Err(Failure::Trouble(text)) => last = Failure::Trouble(format!("{label}: {text}")),
            }
        }
        match last {
            Failure::Unlike(text) => refused("double-unlike", text),
            Failure::Trouble(text) => refused("double-trouble", text),
        }
    }

    async fn prove(&self, asked: Asked<'_>, identity: &Identity, double: Double) -> Result<Pair, Failure> {
        let Asked { context, farm, compiler, driver, group } = asked;
        let dressed = dress(compiler, identity, double, group).await?;
        let subject = subject(compiler, &dressed, group);
        match self.memory.verdict(&subject) {
            Some(Verdict::Alike { machine }) => {
                if let Some(machine) = Machine::from_text(&machine) {
                    return Ok(Pair::new(dressed, machine, &compiler.program));
                }
            }
            Some(Verdict::Unlike { why }) => return Err(Failure::Unlike(why)),
            None => {}
        }
        let proof = Proof { context, farm, compiler, driver, identity, dressed: &dressed, group };
        let outcome = Box::pin(proof.run()).await;
        let verdict = match &outcome {
            Ok(pair) => Verdict::Alike { machine: pair.machine.text() },
            Err(Failure::Unlike(why)) => Verdict::Unlike { why: why.clone() },
            Err(Failure::Trouble(_)) => return outcome,
        };
        self.memory.keep(subject, verdict);
        outcome
    }
}

fn subject(compiler: &Compiler, dressed: &Dressed, group: Group) -> Subject {
    Subject {
        compiler: compiler.parts.id.to_string(),
        double: dressed.double.digest().to_string(),
        group: group.word().to_owned(),
        probes: VERSION,
        arguments: dressed.front.iter().chain(&dressed.folders).cloned().collect(),
    }
}

/// Why none of those that agents have `told` of may be `identity`'s.
pub(super) fn none_suits(identity: &Identity, told: &[Double]) -> String {
    let mut labels: Vec<String> = told.iter().map(Double::label).collect();
    labels.sort();
    labels.dedup();
    let wanted = identity.label();
    if labels.is_empty() {
        format!(
            "no agent runs this machine's programs, and none has a double of {wanted}\n\
             hint: on an agent, `buildbee-agent toolchain add COMPILER` adds a cross compiler of that version"
        )
    } else {
        format!("agents have doubles of {}, and none of {wanted}", labels.join(", "))
    }
}
