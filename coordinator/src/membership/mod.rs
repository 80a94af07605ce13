//! Who belongs to the farm.
//!
//! [`register`] holds the rules as pure functions over a plain list; [`farm`] keeps that list, the keys and the signed roster in the
//! state folder. Not here: connections, and whether a member is present.

pub mod farm;
pub mod register;
