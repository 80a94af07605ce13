//! Builds during which something of the farm dies, freezes, fills up or is cut off: they end green, with the objects of a plain build,
//! and no single action is held up for long.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod agents;
mod build;
mod coordinator;
mod daemon;
mod disk;
mod lost;
mod network;
mod owner;
mod results;
mod run;
