//! rustc as a toolchain: from the program that cargo names to files, their digests and their places in an action.
//!
//! [`identify`] recognises compilers and remembers them; [`proxy`] finds the compiler behind rustup's stand-in; [`sysroot`] lists the files
//! that compiling needs, which stand at one place for everybody; [`linker`] lists what a link needs besides, at its own places. What a
//! command line means is [`crate::rust`]'s to say, and which files a crate reads too.

pub mod error;
pub mod identify;
pub mod library;
pub mod linker;
pub mod proxy;
pub mod sysroot;

pub use error::RustError;
pub use identify::{
    Caller, LinkQuestion, LinkerParts, RustCompiler, RustToolchains, describe, identify_bare, identify_linker, targets,
};
