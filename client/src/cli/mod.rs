//! The command line `buildbee-cli`, reached as `buildbee status` and so on.
//!
//! [`arguments`] says what can be asked, [`ask`] puts questions to the daemon, [`documents`] are its answers; how they look is
//! [`crate::ui`]'s job.

pub mod arguments;
mod around;
pub mod ask;
pub mod background;
pub mod documents;
mod explain;
pub mod join;
pub mod links;
pub mod programs;
mod run;
pub mod shell;
mod toolchain;
mod warm;

pub use run::main;
