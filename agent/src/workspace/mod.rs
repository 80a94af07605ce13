//! The folder an action sees: [`folders`] has a place for it (in [`memory`] if possible) and removes it, [`tree`] brings a Merkle tree's blobs into the store,
//! [`materialise`] makes a folder of it, [`collect`] takes what the program left into the store. Not here: running anything.

pub mod assembled;
pub mod collect;
pub mod folders;
pub mod materialise;
pub mod memory;
pub mod tree;
