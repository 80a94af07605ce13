//! What people get wrong, and what is wrong with their machines: each time a clear message with a hint, the right exit status, a build
//! that succeeds where it can, and nothing lost.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod agent;
mod arguments;
mod cache;
mod clock;
mod coordinator;
mod daemon;
mod files;
mod odd;
mod place;
mod settings;
mod tickets;
