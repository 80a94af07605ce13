//! The namespaces of one command that need not know the command: mounts, IPC, and a network of [`crate::world`]. Called in a process
//! of its own.
//!
//! Made before the command is there. They belong to the helper's user namespace, as the network does; the rest (processes, control groups,
//! and a user namespace of the command's own, which has no right over any of these) is bubblewrap's.

use std::os::fd::BorrowedFd;

use nix::sched::{CloneFlags, setns, unshare};

use crate::launch::step;
use crate::wire::{Step, StepFailure};

/// Leaves the helper's namespaces for new ones, and for `network`. The caller must have one thread.
pub(crate) fn enter(network: BorrowedFd<'_>) -> Result<(), StepFailure> {
    // Only as the owner of the helper's user namespace may it go there.
    setns(network, CloneFlags::CLONE_NEWNET).map_err(step(Step::Network))?;
    // Copies of the helper's mounts, which are private.
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC).map_err(step(Step::Namespaces))
}
