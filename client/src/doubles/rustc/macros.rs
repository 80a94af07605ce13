//! Finds the double that builds macros for the agents' host, and proves with it that macros come out alike: [`Doubles`] for crates that use macros.
//!
//! What is proved: a library of macros that was built by that double, under the identity of the one that this machine built, is taken by the double of
//! this machine's rustc, and what that makes with it is what this machine makes with its own, to the byte.

use std::fs;
use std::sync::Arc;

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::double::Double;

use super::RustDouble;
use super::identity::{identity, links_for};
use super::known::RustAsked;
use super::probes::{MACRO_SOURCES, MACRO_USER, MACRO_VERSION, MACROS, line};
use super::prove::{CRATES, RustProof, write_sources};
use super::twins::TwinMaker;
use crate::doubles::ask::{self, Identity};
use crate::doubles::known::{Doubles, Known};
use crate::doubles::memory::{Subject, Verdict};
use crate::doubles::prove::{Failure, shown};
use crate::journal::Why;

impl Doubles {
    /// The double that builds macros for the host of `double`, which compiles what uses them; proved, or why there is none. Takes as long as that takes;
    /// dropped early, nothing is remembered.
    pub async fn for_macros(&self, asked: RustAsked<'_>, double: &Arc<RustDouble>) -> Result<Arc<RustDouble>, Why> {
        let look = async {
            self.list(&asked.compiler.program, LANGUAGE, "proving", "");
            Box::pin(self.look_for_linking(asked, double)).await
        };
        self.linking.of(asked.compiler.parts.id, look).await
    }

    async fn look_for_linking(&self, asked: RustAsked<'_>, double: &Arc<RustDouble>) -> Known<Arc<RustDouble>> {
        let program = &asked.compiler.program;
        let refused = |text: String| self.refused(program, LANGUAGE, "proc-macro", text);
        let identity = match identity(asked.compiler, &double.double.target) {
            Ok(identity) => identity,
            Err(text) => return refused(text),
        };
        let told = ask::agents(asked.farm).await;
        let Some(linking) = told.iter().find(|linking| links_for(&identity, &double.double, linking)) else {
            return refused(no_linking(&identity));
        };
        match self.prove_macros(asked, double, linking).await {
            Ok(linking) => {
                self.list(program, LANGUAGE, "proved", &linking.double.label());
                Known::Proved(linking)
            }
            Err(Failure::Unlike(text) | Failure::Trouble(text)) => refused(format!("{}: {text}", linking.label())),
        }
    }

    async fn prove_macros(
        &self,
        asked: RustAsked<'_>,
        double: &Arc<RustDouble>,
        linking: &Double,
    ) -> Result<Arc<RustDouble>, Failure> {
        let RustAsked { context, farm, compiler } = asked;
        let subject = Subject {
            compiler: compiler.parts.id.to_string(),
            double: double.double.digest().to_string(),
            group: LANGUAGE.to_owned(),
            probes: MACRO_VERSION,
            arguments: vec![linking.digest().to_string()],
        };
        let machine = double.machine.ok_or_else(|| Failure::Trouble("its double is not proved yet".to_owned()))?;
        let linking = Arc::new(RustDouble::new(linking.clone()));
        match self.memory.verdict(&subject) {
            Some(Verdict::Alike { .. }) => return Ok(linking),
            Some(Verdict::Unlike { why }) => return Err(Failure::Unlike(why)),
            None => {}
        }
        let proof = RustProof { context, farm, compiler, double };
        let verdict = match Box::pin(proof.macros(&linking)).await {
            Ok(()) => Verdict::Alike { machine: machine.text() },
            Err(Failure::Unlike(why)) => Verdict::Unlike { why },
            Err(trouble) => return Err(trouble),
        };
        self.memory.keep(subject, verdict.clone());
        match verdict {
            Verdict::Alike { .. } => Ok(linking),
            Verdict::Unlike { why } => Err(Failure::Unlike(why)),
        }
    }
}

/// What it is called in listings.
const LANGUAGE: &str = "Rust's macros";

fn no_linking(identity: &Identity) -> String {
    format!(
        "no agent has rustc {} with a linker, to build macros for itself\n\
         hint: on an agent's machine that has a C compiler, `buildbee-agent toolchain add` with that rustc",
        identity.version
    )
}

impl RustProof<'_> {
    /// Has macros built here and by `linking`, and what uses them compiled with either.
    async fn macros(&self, linking: &Arc<RustDouble>) -> Result<(), Failure> {
        let trouble = |error: std::io::Error| Failure::Trouble(error.to_string());
        let folder = tempfile::Builder::new().prefix("buildbee-probes-").tempdir().map_err(trouble)?;
        let root = fs::canonicalize(folder.path()).map_err(trouble)?;
        write_sources(&root, &MACRO_SOURCES).map_err(trouble)?;
        let crates = root.join(CRATES);
        fs::create_dir(&crates).map_err(trouble)?;
        let argv = line(&MACROS, CRATES, CRATES);
        let plan = self.plan(&argv, &root)?;
        let here = self.run_here(&plan, &argv, &root).await?;
        if !here.status.success() {
            let said = String::from_utf8_lossy(&here.stderr);
            let line = shown(said.lines().next().unwrap_or_default());
            return Err(Failure::Trouble(format!("macros can't be built here: {line}")));
        }
        let asked = RustAsked { context: self.context, farm: self.farm, compiler: self.compiler };
        let twin = TwinMaker { asked, linking }.of_probe(plan).await;
        let twins = twin.and_then(|twin| twin.stand_ins(&crates));
        let twins = twins.map_err(|text| Failure::Trouble(format!("a probe's macros: {text}")))?;
        let user = self.probe(&MACRO_USER, "out", &root, twins);
        Box::pin(user).await.map(|_| ())
    }
}
