//! `ccache-storage-buildbee`: what ccache (4.13 and later) starts for `CCACHE_REMOTE_STORAGE=buildbee://PROJECT`, and speaks to over a Unix socket.
//!
//! [`protocol`] reads and writes ccache's side of it (its `doc/remote_storage_helper_spec.md`, version 1), [`upstream`] is a connection to the user's
//! daemon, which is started where there is none and does the rest ([`crate::entries`]), [`serve`] ties the two together, and [`settings`] is what ccache
//! tells in the environment.
//!
//! Life: started by ccache when it finds nobody at the socket; listens, or ends at once with an error; leaves after the idle time that ccache
//! named, or at once when told to stop. Nothing of it needs a setting of buildbee's.

pub mod protocol;
pub mod serve;
pub mod settings;
pub mod upstream;

pub use serve::main;
