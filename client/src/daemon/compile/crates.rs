//! The same for a Rust crate: its result is kept for what the compiler was seen to use, and where no result holds, it runs.

use std::sync::Arc;
use std::time::Duration;

use buildbee_proto::codec::Bytes;
use buildbee_proto::local::{LocalOutcome, LocalReply};

use super::super::cache::Hit;
use super::super::crates::keep::{Before, Unkept};
use super::super::crates::plan::{CratePlan, Prepared, caller};
use super::super::invocation::Checked;
use super::super::link::LinkError;
use super::super::plan::Planned;
use super::Session;
use crate::journal::stages::Stage;
use crate::journal::{Record, Where, Why};

/// The reason's code where rustc goes on with an earlier session.
const INCREMENTAL: &str = "incremental";

/// Whether what a run makes is of use to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

impl Session {
    pub(super) async fn plan_crate(&self, call: Checked) -> Planned {
        let rustcs = &self.context.rustcs;
        let late = |call: &Checked| {
            let text = "the first look at the compiler is not finished yet".to_owned();
            Planned::local(call, "toolchain-late", text)
        };
        let compiler = match tokio::time::timeout(self.patience(), rustcs.identify(caller(&call))).await {
            Ok(Ok(compiler)) => compiler,
            Ok(Err(error)) => return Planned::local(&call, error.code(), error.to_string()),
            Err(_) => return late(&call),
        };
        let prepared = match Prepared::new(call, compiler, self.context.settings.paths) {
            Ok(prepared) => prepared,
            Err(planned) => return planned,
        };
        let linker = match prepared.link_question() {
            Some(question) => {
                let look = rustcs.linker(prepared.compiler(), question);
                match tokio::time::timeout(self.patience(), look).await {
                    Ok(Ok(linker)) => Some(linker),
                    Ok(Err(error)) => return Planned::local(prepared.call(), error.code(), error.to_string()),
                    Err(_) => return late(prepared.call()),
                }
            }
            None => None,
        };
        let (context, record) = (Arc::clone(&self.context), prepared.call().record());
        self.clock.ended(Stage::Toolchain);
        let planning = tokio::task::spawn_blocking(move || prepared.plan(&context, linker));
        let interrupted = |_| Planned::Local(Box::new(record), ("input-unreadable".into(), "interrupted".into()));
        let planned = planning.await.unwrap_or_else(interrupted);
        self.clock.ended(Stage::Manifest);
        planned
    }

    pub(super) async fn finish_crate(&self, plan: Arc<CratePlan>, hit: Arc<Hit>) -> Result<(), LinkError> {
        let (context, placed, made) = (Arc::clone(&self.context), Arc::clone(&plan), Arc::clone(&hit));
        let placing = tokio::task::spawn_blocking(move || {
            placed.put_in_place(&made, &context.cache).map_err(|error| error.to_string())?;
            placed.reply(&made).ok_or_else(|| "its messages could not be spelled anew".to_owned())
        });
        match placing.await.unwrap_or_else(|_| Err("interrupted".to_owned())) {
            Ok(reply) => {
                self.clock.ended(Stage::Place);
                let action = Some(hit.signed.result.action.to_string());
                self.context.ended(Record { action, ..plan.record() }, &self.clock, Where::Cached, None);
                self.link.send(&reply).await
            }
            Err(error) => {
                tracing::info!(error, "a result could not be put in place");
                self.make_crate(plan).await
            }
        }
    }

    /// No result is known: has the wrapper run the compiler, and keeps what comes of it.
    pub(super) async fn make_crate(&self, plan: Arc<CratePlan>) -> Result<(), LinkError> {
        if plan.goes_on(&self.context.sessions) {
            let why =
                (INCREMENTAL.to_owned(), "rustc goes on where it left off at its last run for this crate".to_owned());
            return self.run_crate(plan, why, Keep::No).await;
        }
        let (code, text) = if self.context.farm.is_none() {
            ("no-farm", "this machine has not joined a farm")
        } else {
            ("crate-stays", "crates are cached, but not made by agents yet")
        };
        let why = (code.to_owned(), text.to_owned());
        if plan.call.strict {
            return self.pass(plan.record(), (format!("strict:{}", why.0), why.1)).await;
        }
        self.run_crate(plan, why, Keep::Yes).await
    }

    async fn run_crate(&self, plan: Arc<CratePlan>, why: Why, keep: Keep) -> Result<(), LinkError> {
        plan.listed.at("local");
        self.clock.ended(Stage::Wait);
        let before = plan.before();
        let reply = LocalReply::RunLocally {
            reason: why.0.clone(),
            report: true,
            extra_arguments: plan.request.added_arguments.clone(),
            extra_env: Vec::new(),
            recorder: self
                .context
                .recorder
                .as_ref()
                .filter(|_| keep == Keep::Yes)
                .map(|path| path.display().to_string()),
            strict_failure: false,
        };
        self.link.send(&reply).await?;
        let outcome = self.link.outcome().await?;
        self.clock.ran(Duration::from_millis(outcome.wall_ms));
        let (exit_code, record) = (outcome.exit_code.unwrap_or(1), plan.record());
        if keep == Keep::Yes
            && let Err(unkept) = self.keep_crate(plan, outcome, before).await
        {
            self.context.journal.noted(unkept.code());
            tracing::info!(source = record.source, %unkept, "a crate's result is not kept");
        }
        self.clock.ended(Stage::Place);
        self.context.ended(record, &self.clock, Where::Local, Some(why));
        self.link.send(&LocalReply::Done { exit_code, stdout: Bytes::default(), stderr: Bytes::default() }).await
    }

    async fn keep_crate(&self, plan: Arc<CratePlan>, outcome: LocalOutcome, before: Before) -> Result<(), Unkept> {
        let context = Arc::clone(&self.context);
        let keep = move || {
            let recorder = context.recorder.as_deref().ok_or(Unkept::Unseen)?;
            if let Some(log) = &outcome.record {
                plan.note_session(&context.sessions, &log.0);
            }
            plan.keep(&context, &outcome, &before, recorder)
        };
        // A panic in there loses a cache entry, not the compile.
        tokio::task::spawn_blocking(keep).await.unwrap_or(Err(Unkept::Nothing))
    }
}
