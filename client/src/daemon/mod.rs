//! The user's daemon: answers wrappers and the command line until nobody has asked for a while.
//!
//! Life: [`run`] takes the lock (a second daemon leaves at once), opens the cache, joins the farm if the user is enrolled, and listens.
//! A thread at the [`door`] hears each request and answers it where nothing has to be waited for, as for a hit; every other connection is
//! one task, and [`compile`] is what most of them do. The daemon leaves when told, when idle, or when its socket is taken
//! away. It keeps nothing that a crash could spoil: outputs are renamed into place, the store checks itself, the rest is memory.

pub mod admin;
pub mod cache;
pub mod compile;
pub mod context;
pub mod crates;
pub mod door;
pub mod elsewhere;
pub mod execute;
pub mod invocation;
pub mod link;
pub mod listener;
pub mod local_result;
pub mod peers;
pub mod placement;
pub mod plan;
pub mod recent;
pub mod recorder;
pub mod scripts;
pub mod speaking;
pub mod start;
pub mod toolchains;
pub mod view;
pub mod warm;

pub use start::{DaemonError, run};
