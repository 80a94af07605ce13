//! One line in the log for each action: what became of it and how long it took here, everything included. A log that nobody has asked to say
//! more names only those that failed.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Executor, Job, Running, Watch};

/// Logs what `inner` does.
#[derive(Debug)]
pub struct Logged<E> {
    inner: E,
}

impl<E: Executor> Logged<E> {
    /// For whoever wants to know what this machine did for others.
    pub fn new(inner: E) -> Self {
        Self { inner }
    }
}

impl<E: Executor> Executor for Logged<E> {
    fn run<'a>(&'a self, job: &'a Arc<Job>, watch: &'a Watch) -> Running<'a> {
        Box::pin(async move {
            let started = Instant::now();
            let outcome = self.inner.run(job, watch).await;
            let (action, client) = (job.digest.short(), job.client.short());
            let total_ms = started.elapsed().as_millis();
            match &outcome {
                Ok(done) => {
                    let result = &done.result.result;
                    let (exit, wall_ms) = (result.exit_code, result.provenance.wall_ms);
                    tracing::debug!(action, client, exit, wall_ms, total_ms, origin = %done.origin, "action");
                }
                Err(error) => tracing::info!(action, client, total_ms, code = ?error.code, %error, "action failed"),
            }
            outcome
        })
    }
}
