//! The only place that knows which executors there are and how they are stacked.

use std::sync::Arc;

use buildbee_p2p::node::Node;
use buildbee_p2p::tasks::Tasks;
use buildbee_store::Store;

use crate::exchange::announce::Announcer;
use crate::exchange::kept::Kept;
use crate::executor::Executor;
use crate::executor::cached::Cached;
use crate::executor::deduplicated::Deduplicated;
use crate::executor::logged::Logged;
use crate::executor::sandboxed::{Parts, Sandboxed};

/// Every request is logged; the same action asked for twice shares one look into the store and one run.
pub fn executor(
    parts: Parts,
    store: Store,
    announcer: Announcer,
    others: Kept,
    node: Node,
    tasks: Tasks,
) -> Arc<dyn Executor> {
    let cached = Cached::new(Sandboxed::new(parts), store, announcer, others, node);
    Arc::new(Logged::new(Deduplicated::new(cached, tasks)))
}
