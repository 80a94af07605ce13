//! What an action reads: from a request to the files, absences and symlinks that decide its result, and to the tree that the agent sees.
//!
//! [`discover`] finds the files: it has one [`look`] at them, which [`scan`]s each for what it includes ([`aliases`] over all of them), follows names
//! through the [`search_path`] ([`lookup`], which [`followed`] spares most of the work) and paths through symlinks ([`resolve`]); [`tree`] makes the Merkle tree; [`filehash`] remembers digests.
//!
//! [`recorded`] looks at them again, for a hit; [`absences`] remembers what is not there, [`devices`] whose times count.

pub mod absences;
pub mod aliases;
pub mod devices;
pub mod discover;
pub mod filehash;
pub mod followed;
pub mod hash_many;
mod lasting;
pub mod look;
pub mod lookup;
pub mod recorded;
pub mod resolve;
pub mod scan;
pub mod search_path;
pub mod tree;
pub mod twins;
