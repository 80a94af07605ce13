//! What an action reads: from a request to the files, absences and symlinks that decide its result, and to the tree that the agent sees.
//!
//! [`discover`] asks the compiler for the list of files and [`scan`]s them for names that were looked up on the way; [`resolve`]
//! follows symlinks; [`search_path`] knows where the compiler looks; [`tree`] makes the Merkle tree; [`filehash`] remembers digests.

pub mod discover;
pub mod filehash;
pub mod lookup;
pub mod resolve;
pub mod scan;
pub mod search_path;
pub mod tree;
