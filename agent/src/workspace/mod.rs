//! The folder an action sees: [`tree`] brings a Merkle tree's blobs into the store, [`materialise`] makes a folder of it, [`collect`]
//! takes what the program left into the store. Not here: running anything.

pub mod collect;
pub mod materialise;
pub mod tree;
