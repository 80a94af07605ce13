//! From a compiler's path to the toolchain that it is part of.
//!
//! [`identify`] recognises compilers and remembers them by what the kernel says of their files; [`capture`] makes the list of files
//! that a compiler needs; [`outboard`] takes closures from stores such as Nix's instead; [`double`] packs one for agents; [`shadows`] notices
//! files that would be part of it if they appeared. Making a toolchain present elsewhere is the
//! agent's job.

pub mod capture;
pub mod double;
pub mod identify;
pub mod native;
pub mod outboard;
pub mod parts;
pub mod rust;
pub mod shadows;
pub mod speech;

pub use identify::{Compiler, IdentifyError, Toolchains};
pub use parts::Parts;
