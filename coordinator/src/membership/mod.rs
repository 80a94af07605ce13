//! Who belongs to the farm.
//!
//! [`register`] holds the rules as pure functions over a plain list, [`recovery`] those by which it comes back when it was lost; [`farm`]
//! keeps that list, the keys and the signed roster in the state folder; [`key_file`] is what is kept elsewhere. Not here: connections, and
//! whether a member is present.

pub mod farm;
#[cfg(test)]
mod farm_tests;
pub mod key_file;
pub mod mandate;
pub mod recovery;
pub mod register;
#[cfg(test)]
mod register_tests;
