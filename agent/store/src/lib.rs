//! The one on-disk store of a farm's machine: blobs by digest, signed action results by action, manifests and hints by key.
//!
//! The agent and the client's daemon each open one. All calls are synchronous and may touch the disk: async callers go through
//! `spawn_blocking`, except for the calls that say *in memory*. A [`Store`] is a cheap clone of one shared handle.
//!
//! What it promises:
//! - Bytes handed out are the bytes that were named. Content is checked when it is written and again at its first use after each
//!   start; an inode whose mode, size or modification time is not as the store left it is not trusted either. Bad content is dropped,
//!   logged, counted, and then simply missing.
//! - It opens after a crash or a loss of power at any instant. Files are the truth: each appears under its name by one rename, complete but
//!   for a loss of power, which its size or its content shows. What is only in the recency journal (which blob was used last) may be lost;
//!   the worst that follows is a poorer choice at eviction. What outlives a loss of power is what was asked for ([`Durability`]).
//! - It stays within its size, never evicts what is pinned, and answers a full disk with an error to the one call that met it.
//!
//! On disk, below the store's folder (mode 0700):
//! - `format`: name and version of this layout. `lock`: held while a process has the store open; names its pid.
//! - `blobs/ab/<hex>-<size>`: read-only inodes (0444), one fixed modification time. `executables/ab/…`: the same content as a second
//!   inode (0555), made when somebody first needs to run it.
//! - `results/ab/<digest>`, `manifests/ab/<digest>`, `hints/ab/<digest>`: canonical bytes behind a checksum.
//! - `packs/<number>`: where the store was opened by [`Store::open_packed`], small blobs and records, appended one after the other.
//! - `tmp/`: files being written. `recency`: order of use. `opened`: the boot in which it was last open, or that it was closed.
//!
//! Not here: checking signatures (callers do, before use), fetching what is missing, compressing.

mod blobs;
mod chunk_lists;
mod collect;
mod copy;
mod entry;
mod error;
#[cfg(any(test, debug_assertions))]
pub mod fault;
mod index;
mod inode;
mod lasting;
mod layout;
mod lock;
mod order;
mod packed;
mod packs;
mod partial;
mod pins;
mod recency;
mod records;
mod recover;
mod scrub;
mod slots;
mod store;
mod temporary;
mod verify;
mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod index_tests;
#[cfg(test)]
mod many_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod packs_tests;
#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod store_tests;

pub use chunk_lists::ChunkLists;
pub use collect::Collected;
pub use entry::Worth;
pub use error::{LinkError, OpenError, PutError, ReadError};
pub use inode::sealed_time;
pub use partial::Partial;
pub use pins::Pin;
pub use records::Walk;
pub use recover::Recovery;
pub use scrub::{Scrub, Scrubbed};
pub use store::{Cleared, Durability, Options, Store, Usage};
pub use verify::{BadFile, MAX_BAD_LISTED, VerifyReport};
pub use writer::BlobWriter;
