//! Runs one command in bubblewrap over an overlay of read-only layers, and tells what became of it.
//!
//! The agent describes a command as plain data ([`spec`]), which a pure function turns into mount options and bubblewrap
//! arguments ([`plan`]). [`launcher`] is the agent's asynchronous handle. It never forks: it hands the plan over a socket to
//! the helper program of this crate ([`zygote`]), single-threaded and started once, which forks one process for each command ahead of
//! time, in its own `namespaces` and with what all commands share (`world`). With the command, that process mounts the overlay and turns into bubblewrap (`launch`). Because the
//! process that forks never writes a file and the process that writes files never forks, no forked child can hold a file open
//! for writing that another one is about to execute.
//!
//! What this crate does not do: bring inputs or toolchains into place, collect outputs, decide what may run.
//!
//! The only crate of the workspace with `unsafe` code: `launch`, `world`, `narrow` and `descriptors`, each block with its reason.

pub mod attempt;
pub mod cleanup;
mod descriptors;
mod directories;
mod hold;
pub mod idle_group;
mod jobserver;
mod launch;
pub mod launcher;
mod namespaces;
mod narrow;
pub mod plan;
pub mod probe;
mod seccomp;
pub mod spec;
mod status;
mod terminal;
mod wire;
mod world;
pub mod zygote;
