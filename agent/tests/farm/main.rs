//! The agent end to end: real processes, real compiler, real sandbox, real network on the loopback.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod bed;
mod content;
mod early;
mod farm;
mod first;
mod hostile;
mod large;
mod nix_sources;
mod owner;
mod process;
mod recorded;
#[cfg(debug_assertions)]
mod replication;
mod results;
mod running;
mod speed;
mod supply;
