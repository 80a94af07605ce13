//! Answers from the store where it can, keeps and announces what was run where it may.
//!
//! Only results of programs that exited with 0 are kept: a failure may be this machine's, and is quick to have again. Not here: results
//! on other peers; the client asks for those itself.

use std::sync::Arc;

use buildbee_p2p::identity::verify_result;
use buildbee_p2p::node::Node;
use buildbee_proto::peer::PeerId;
use buildbee_store::Store;

use super::{Done, Executor, Job, Origin, Running, Watch};
use crate::exchange::announce::Announcer;
use crate::exchange::blobs_of;
use crate::exchange::cache::complete_result;
use crate::exchange::kept::Kept;

/// Puts a store before `inner`.
#[derive(Debug)]
pub struct Cached<E> {
    inner: E,
    store: Store,
    announcer: Announcer,
    others: Kept,
    node: Node,
}

impl<E: Executor> Cached<E> {
    /// For actions that were run before. New results are announced by `announcer`, and `others` hear that they are here; `node` knows who is
    /// an agent still.
    pub fn new(inner: E, store: Store, announcer: Announcer, others: Kept, node: Node) -> Self {
        Self { inner, store, announcer, others, node }
    }

    /// What an agent made that was sent away since is made anew.
    fn trusts(&self, maker: &PeerId) -> bool {
        *maker == self.node.peer() || self.node.roster().is_some_and(|roster| roster.value.has_agent(maker))
    }

    async fn kept(&self, job: &Job) -> Option<Done> {
        if !self.store.has_result(&job.digest) {
            return None;
        }
        let (store, action) = (self.store.clone(), job.digest);
        let looking = tokio::task::spawn_blocking(move || {
            let found = complete_result(&store, &action)?;
            let blobs = blobs_of(&found.result);
            let pin = store.pin(blobs.iter().copied());
            // Pinned too late if one of them was evicted in between.
            let usable = store.missing(&blobs).is_empty() && verify_result(&found);
            usable.then(|| Done { result: Arc::new(found), origin: Origin::Kept, pins: Arc::new(vec![pin]) })
        });
        let done = looking.await.ok().flatten()?;
        self.trusts(&done.result.result.provenance.peer).then_some(done)
    }

    async fn keep(&self, done: &Done) {
        let (store, result) = (self.store.clone(), Arc::clone(&done.result));
        let put = tokio::task::spawn_blocking(move || store.put_result(&result)).await;
        match put {
            Ok(Ok(())) => {
                self.others.result(&done.result.result.action);
                self.announcer.announce(Arc::clone(&done.result));
            }
            Ok(Err(error)) => tracing::warn!(%error, "a result was not kept"),
            Err(error) => tracing::error!(%error, "keeping a result failed"),
        }
    }
}

impl<E: Executor> Executor for Cached<E> {
    fn run<'a>(&'a self, job: &'a Arc<Job>, watch: &'a Watch) -> Running<'a> {
        Box::pin(async move {
            if job.action.do_not_cache {
                return self.inner.run(job, watch).await;
            }
            if let Some(done) = self.kept(job).await {
                return Ok(done);
            }
            let done = self.inner.run(job, watch).await?;
            if done.result.result.exit_code == 0 {
                self.keep(&done).await;
            }
            Ok(done)
        })
    }
}
