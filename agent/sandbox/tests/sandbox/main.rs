//! The sandbox for real: the helper, bubblewrap and programs of this machine.
//!
//! Everything here runs as root and as an ordinary user alike. To run it as another user, copy this test program and the
//! helper, side by side, to where that user can read them.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare itself has failed")]

mod compiler;
mod confinement;
mod ending;
mod holding;
mod limits;
mod place;
mod programs;
mod robustness;
