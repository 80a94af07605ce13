//! Runs the same action once when several clients want it at the same time.

use std::sync::Arc;

use buildbee_p2p::tasks::Tasks;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};

use super::{Done, Executor, Job, Running, Watch};
use crate::flight::{Flights, Passenger};

/// Times that an action is run again because another client's attempt at it failed.
const MAX_TRIES: usize = 3;

/// Shares runs of `inner`. A run ends early only when nobody waits for it any more.
#[derive(Debug)]
pub struct Deduplicated<E> {
    inner: Arc<E>,
    running: Flights<Digest, Result<Done, WireError>>,
}

impl<E: Executor + 'static> Deduplicated<E> {
    /// For offices where everybody rebuilds the same header's dependants at ten in the morning.
    pub fn new(inner: E, tasks: Tasks) -> Self {
        Self { inner: Arc::new(inner), running: Flights::new("action", tasks) }
    }

    fn board(&self, job: &Arc<Job>) -> Passenger<Digest, Result<Done, WireError>> {
        self.running.join(job.digest, |cancel, progress| {
            let (inner, job) = (Arc::clone(&self.inner), Arc::clone(job));
            async move { inner.run(&job, &Watch { progress, cancel }).await }
        })
    }
}

impl<E: Executor + 'static> Executor for Deduplicated<E> {
    fn run<'a>(&'a self, job: &'a Arc<Job>, watch: &'a Watch) -> Running<'a> {
        Box::pin(async move {
            // Whoever says that a result must not be kept wants a run of their own.
            if job.action.do_not_cache {
                return self.inner.run(job, watch).await;
            }
            let mut n_tries = 0;
            loop {
                n_tries += 1;
                let mut passenger = self.board(job);
                let mut standing = passenger.standing();
                let landed = loop {
                    tokio::select! {
                        landed = passenger.landed() => break landed,
                        Ok(()) = standing.changed() => {
                            let now = standing.borrow_and_update().clone();
                            watch.progress.follow(now);
                        }
                        () = watch.cancel.cancelled() => {
                            // Only then is nothing of it left, which is what the caller's slot stands for.
                            passenger.leave().await;
                            return Err(WireError::new(ErrorCode::Cancelled, Retry::SameAgent, "cancelled"));
                        }
                    }
                };
                match landed {
                    Some(Ok(done)) => return Ok(done),
                    // What another client lacked, ours may have.
                    Some(Err(error)) if may_differ(&error) && !passenger.pilot && n_tries < MAX_TRIES => {}
                    Some(Err(error)) => return Err(error),
                    None => return Err(WireError::new(ErrorCode::Internal, Retry::OtherAgent, "the run failed")),
                }
            }
        })
    }
}

fn may_differ(error: &WireError) -> bool {
    matches!(error.code, ErrorCode::MissingBlob | ErrorCode::Cancelled)
}
