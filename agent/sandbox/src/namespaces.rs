//! The namespaces of one command that need not know the command: user, mounts, IPC, and a network of [`crate::world`]. Called in a process
//! of its own.
//!
//! Made before the command is there. The rest (processes, control groups, a second user namespace that has no right over these) is
//! bubblewrap's.

use std::os::fd::BorrowedFd;

use nix::sched::{CloneFlags, setns};

use crate::launch::step;
use crate::wire::{Step, StepFailure};
use crate::world::become_owner;

/// Leaves the helper's namespaces for new ones, and for `network`. The caller must have one thread.
pub(crate) fn enter(network: BorrowedFd<'_>) -> Result<(), StepFailure> {
    // Only as the owner of the helper's user namespace may it go there.
    setns(network, CloneFlags::CLONE_NEWNET).map_err(step(Step::Network))?;
    become_owner(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
}
