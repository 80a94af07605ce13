//! Doubles: compilers of the agents' architecture that make, byte for byte, what this machine's compiler makes.
//!
//! A board's compiler does not run on a desktop. Its double does: another build of the same compiler for the same target, that an agent's
//! owner added. Nobody is believed: before a pair is used, both are asked the same questions about themselves ([`gcc`], [`clang`]), and both compile
//! the same probes ([`probes`]), the double in an agent's sandbox, just as it would later ([`prove`]). Any difference refuses the pair, with
//! the reason; what no probe could show (options that look at more than what was compared) stays here too ([`options`]). Headers are
//! always this machine's: a double has none of its own.
//!
//! Rust has its own way ([`rustc`]). Where this machine's compiler is a double itself, its results are of use to boards, and theirs to it ([`own`]). Verdicts are remembered by both identities ([`memory`]). [`Doubles`] is what the daemon asks.

pub mod ask;
pub mod clang;
pub mod gcc;
pub mod known;
pub mod machine;
pub mod memory;
pub mod options;
pub mod own;
pub mod pair;
pub mod probes;
pub mod prove;
pub mod rustc;

pub use known::Doubles;
pub use pair::Pair;
