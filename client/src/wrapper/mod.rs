//! The millisecond path: what `buildbee gcc …` (or a link named `gcc`) does before and after the daemon is asked.
//!
//! Asks the daemon, prints what it answers, or becomes the compiler. Knows nothing of compilers, farms or caches: whatever is not
//! plain sailing ends in running the compiler, exactly as if this program were not there.
//!
//! This folder is compiled twice: into the small `buildbee` executable, which therefore links neither an async runtime nor the
//! peer-to-peer stack nor a command line parser, and into the library, where the command line uses [`socket`], [`start`] and
//! [`link`] to talk to the same daemon.

pub mod base_dir;
pub mod become_compiler;
pub mod leftovers;
pub mod link;
pub mod links;
pub mod notice;
pub mod output;
pub mod program;
pub mod promise;
pub mod recording;
pub mod rust_paths;
pub mod session;
pub mod settings;
pub mod signals;
pub mod silence;
pub mod socket;
pub mod stand_in;
pub mod start;
pub mod supervised;
pub mod terminal;
pub mod tree_kill;
