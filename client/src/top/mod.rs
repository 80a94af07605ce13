//! `buildbee top`: what this user's compiles do, live.
//!
//! [`model`] keeps what was seen, [`view`] draws it into a buffer of cells (both pure), [`terminal`] asks the daemon several times a second
//! and owns the terminal. What other users do on an agent is not known here: the coordinator's status page shows that.

pub mod model;
pub mod terminal;
pub mod view;

#[cfg(test)]
mod view_tests;

pub use terminal::run;
