//! Arbitrary values that keep the rules of their types: sorted lists, names that are names.

pub(crate) mod content;
pub(crate) mod messages;
