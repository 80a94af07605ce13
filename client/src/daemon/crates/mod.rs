//! Compiles of Rust crates: their results are kept and compared with every path in its place (see [`roots`](crate::rust::roots)), and spelled
//! anew for whoever receives them.
//!
//! [`plan`] says what a call comes to, [`read_set`] what must be as it was, [`keep`] stores what a run here left behind, [`place`] puts a result
//! where cargo looks for it. [`action`] is what an agent is given, by [`inputs`], and [`verdict`] whether what it made is what a run here would have
//! left; [`early`] hands out metadata before the end. Who runs what, and when, is [`compile`](super::compile)'s.

pub mod action;
pub mod beyond;
pub mod by_content;
pub mod clippy;
pub mod closure;
pub mod early;
pub mod inputs;
pub mod keep;
pub mod needs;
pub mod package;
pub mod place;
pub mod plan;
pub mod read_set;
pub mod seen;
pub mod sessions;
pub mod verdict;
