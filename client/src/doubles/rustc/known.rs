//! Finds the double of a rustc, proves it once, and remembers what came of it: [`Doubles`] for crates.

use std::sync::Arc;

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::double::Double;

use super::RustDouble;
use super::identity::{FAMILY, difference, identity};
use super::probes::VERSION;
use super::prove::RustProof;
use crate::daemon::context::Context;
use crate::dispatch::farm::Farm;
use crate::doubles::ask::{self, Identity};
use crate::doubles::known::{Doubles, Known, none_suits};
use crate::doubles::machine::Machine;
use crate::doubles::memory::{Subject, Verdict};
use crate::doubles::prove::Failure;
use crate::journal::Why;
use crate::toolchain::rust::RustCompiler;

/// Doubles that are proved for one compiler.
const MAX_CANDIDATES: usize = 4;

/// For whose rustc a double is wanted, and where it is proved.
#[derive(Clone, Copy, Debug)]
pub struct RustAsked<'a> {
    /// The daemon's.
    pub context: &'a Arc<Context>,
    /// Whose agents have doubles.
    pub farm: &'a Farm,
    /// This machine's own, with what it compiles for.
    pub compiler: &'a Arc<RustCompiler>,
}

impl RustAsked<'_> {
    fn target(&self) -> &str {
        self.compiler.target.as_deref().unwrap_or(&self.compiler.host)
    }

    /// What it is called in listings.
    fn language(&self) -> String {
        format!("Rust for {}", self.target())
    }

    fn subject(&self, double: &Double) -> Subject {
        Subject {
            compiler: self.compiler.parts.id.to_string(),
            double: double.digest().to_string(),
            group: FAMILY.to_owned(),
            probes: VERSION,
            arguments: vec![self.target().to_owned()],
        }
    }
}

impl Doubles {
    /// The double of a rustc, proved, or why there is none. Takes as long as that takes; dropped early, nothing is remembered.
    pub async fn of_rustc(&self, asked: RustAsked<'_>) -> Result<Arc<RustDouble>, Why> {
        let look = async {
            self.list(&asked.compiler.program, &asked.language(), "proving", "");
            Box::pin(self.look_for_rustc(asked)).await
        };
        self.rustcs.of(asked.compiler.parts.id, look).await
    }

    async fn look_for_rustc(&self, asked: RustAsked<'_>) -> Known<Arc<RustDouble>> {
        let (program, language) = (&asked.compiler.program, asked.language());
        let refused = |code: &str, text: String| self.refused(program, &language, code, text);
        let identity = match identity(asked.compiler, asked.target()) {
            Ok(identity) => identity,
            Err(text) => return refused("double-trouble", text),
        };
        let told = ask::agents(asked.farm).await;
        let suiting: Vec<&Double> = told.iter().filter(|double| identity.suits(double)).collect();
        if suiting.is_empty() {
            return refused("no-double", no_rustc(&identity, &told));
        }
        let mut last = Failure::Trouble(String::new());
        for double in suiting.into_iter().take(MAX_CANDIDATES) {
            let label = double.label();
            match self.prove_rustc(asked, &identity, double).await {
                Ok(machine) => {
                    tracing::info!(compiler = %program.display(), language, label, "a double is proved");
                    self.list(program, &language, "proved", &label);
                    let double = RustDouble { machine: Some(machine), ..RustDouble::new(double.clone()) };
                    return Known::Proved(Arc::new(double));
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

    async fn prove_rustc(
        &self,
        asked: RustAsked<'_>,
        identity: &Identity,
        double: &Double,
    ) -> Result<Machine, Failure> {
        if let Some(text) = difference(identity, double) {
            return Err(Failure::Unlike(text));
        }
        let subject = asked.subject(double);
        match self.memory.verdict(&subject) {
            Some(Verdict::Alike { machine }) => {
                if let Some(machine) = Machine::from_text(&machine) {
                    return Ok(machine);
                }
            }
            Some(Verdict::Unlike { why }) => return Err(Failure::Unlike(why)),
            None => {}
        }
        let RustAsked { context, farm, compiler } = asked;
        let double = Arc::new(RustDouble::new(double.clone()));
        let outcome = Box::pin(RustProof { context, farm, compiler, double: &double }.run()).await;
        let verdict = match &outcome {
            Ok(machine) => Verdict::Alike { machine: machine.text() },
            Err(Failure::Unlike(why)) => Verdict::Unlike { why: why.clone() },
            Err(Failure::Trouble(_)) => return outcome,
        };
        self.memory.keep(subject, verdict);
        outcome
    }
}

/// Why none of those that agents have told of is it: another version, another target, or none of rustc at all.
fn no_rustc(identity: &Identity, told: &[Double]) -> String {
    let rustcs: Vec<Double> = told.iter().filter(|double| double.driver == FAMILY).cloned().collect();
    if rustcs.is_empty() {
        let (target, version) = (&identity.target, &identity.version);
        return format!(
            "no agent runs this machine's programs, and none has a double of {}\n\
             hint: on an agent's machine, with rustc {version}: `rustup target add {target}`, then `buildbee-agent toolchain add` with that rustc",
            identity.label()
        );
    }
    let with_library = rustcs.iter().any(|double| double.version == identity.version);
    let text = none_suits(identity, &rustcs);
    if with_library {
        format!(
            "{text}: it lacks the library of that target\nhint: `rustup target add {}` on the agent's machine, and add it again",
            identity.target
        )
    } else {
        text
    }
}
