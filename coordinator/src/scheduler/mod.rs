//! Who may use which slot of which agent.
//!
//! [`core`] is the pure state machine (time comes in, nothing goes out but its answers), made of [`fairness`] (how many slots each
//! client may have), [`deal`] (who holds what, until when), [`matching`] (which slot next) and [`listing`] (what peers are told of each
//! other), over `agents` and `clients`, which keep them and their indexes. [`actor`] is the one task that owns it, [`handle`] what everybody else holds.

pub mod actor;
mod agents;
mod clients;
pub mod core;
pub mod deal;
pub mod fairness;
pub mod handle;
pub mod listing;
pub mod matching;

#[cfg(test)]
mod core_tests;
