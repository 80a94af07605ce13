//! The same for a build script that the wrapper stands in for: a result that holds, or a run here that is watched.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use buildbee_proto::codec::Bytes;
use buildbee_proto::local::LocalReply;

use super::super::cache::Hit;
use super::super::invocation::Checked;
use super::super::link::LinkError;
use super::super::scripts::plan::{Found, ScriptPlan, find, record};
use super::super::scripts::unsound::Unsound;
use super::Session;
use crate::journal::stages::Stage;
use crate::journal::{Record, Where, Why};

impl Session {
    pub(super) async fn run_script(&self, call: Checked) -> Result<(), LinkError> {
        let (context, record) = (Arc::clone(&self.context), record(&call));
        let looking = tokio::task::spawn_blocking(move || find(&context, call));
        let interrupted = |_| Found::Plain(("input-unreadable".to_owned(), "interrupted".to_owned()));
        let found = looking.await.unwrap_or_else(interrupted);
        self.clock.ended(Stage::Manifest);
        match found {
            Found::Hit(plan, hit) => self.finish_script(Arc::from(plan), hit).await,
            Found::Miss(plan) => self.watch_script(Arc::from(plan)).await,
            Found::Plain(why) => self.pass(record, why).await,
        }
    }

    async fn finish_script(&self, plan: Arc<ScriptPlan>, hit: Arc<Hit>) -> Result<(), LinkError> {
        let action = Some(hit.signed.result.action.to_string());
        let record = Record { action, saved_ms: hit.took_ms(), ..plan.record() };
        let context = Arc::clone(&self.context);
        let placing = tokio::task::spawn_blocking(move || {
            let reply = plan.reply(&hit).ok_or_else(|| "its words could not be spelled anew".to_owned())?;
            plan.put_in_place(&hit, &context.cache).map_err(|error| error.to_string())?;
            Ok(reply)
        });
        match placing.await.unwrap_or_else(|_| Err("interrupted".to_owned())) {
            Ok(reply) => {
                self.clock.ended(Stage::Place);
                self.context.ended(record, &self.clock, Where::Cached, None);
                self.link.send(&reply).await
            }
            Err(text) => self.pass(record, ("output-unwritable".to_owned(), text)).await,
        }
    }

    async fn watch_script(&self, plan: Arc<ScriptPlan>) -> Result<(), LinkError> {
        let Some(recorder) = self.context.recorder.clone() else {
            let unseen = Unsound::Unseen;
            return self.pass(plan.record(), (unseen.code().to_owned(), unseen.to_string())).await;
        };
        plan.listed.at("local");
        let start = SystemTime::now();
        let new: Why = ("script-new".to_owned(), "no run of it is known with all that it reads as it is".to_owned());
        let reply = LocalReply::RunLocally {
            reason: new.0.clone(),
            report: true,
            extra_arguments: Vec::new(),
            extra_env: Vec::new(),
            recorder: Some(recorder.display().to_string()),
            strict_failure: false,
            own_temporary_dir: true,
        };
        self.link.send(&reply).await?;
        let outcome = self.link.outcome().await?;
        self.clock.ran(Duration::from_millis(outcome.wall_ms));
        let (record, exit_code) = (plan.record(), outcome.exit_code.unwrap_or(1));
        let context = Arc::clone(&self.context);
        let keeping = tokio::task::spawn_blocking(move || plan.keep(&context, &outcome, start, &recorder));
        // A panic in there loses a cache entry, not the run.
        let why = match keeping.await.unwrap_or(Err(Unsound::Incomplete)) {
            Ok(()) => new,
            Err(unsound) => (unsound.code().to_owned(), unsound.to_string()),
        };
        self.clock.ended(Stage::Place);
        self.context.ended(record, &self.clock, Where::Local, Some(why));
        self.link.send(&LocalReply::Done { exit_code, stdout: Bytes::default(), stderr: Bytes::default() }).await
    }
}
