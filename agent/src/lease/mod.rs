//! Slots: who may run how much here, and what the coordinator is told of it.
//!
//! [`core`] decides, without clock or network; [`slots`] is the handle that sessions use; [`actor`] talks to the coordinator.

pub mod actor;
pub mod core;
pub mod load;
pub mod slots;
