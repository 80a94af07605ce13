//! Runs of cargo's build scripts, kept where it is certain what they made their outputs from. Off unless `build_scripts` is set.
//!
//! Cargo starts a script's program by its path in the target folder, and asks nobody. So when that program has been made, a copy of the wrapper
//! takes its name, and the program stands beside it ([`stand_in`]). The wrapper asks, as for a compile: [`plan`] looks for a result that holds,
//! [`place`] fills `OUT_DIR` with it, and where there is none the wrapper runs the program, watched by the recorder, and [`keep`] keeps what
//! came of it, if [`seen`] tells all that it used and [`tree`] all that it left. Whatever is not certain is a plain run of the program.
//!
//! Questions and results are spelled with fixed places, as those of crates are, and their read sets are of the same kind
//! ([`read_set`](super::crates::read_set)). What a script is given besides is one folder, `OUT_DIR`, which must be empty: what a run makes of an
//! earlier one's files is nobody's to foresee.

pub mod keep;
pub mod place;
pub mod plan;
pub mod seen;
pub mod stand_in;
pub mod tree;
pub mod unsound;
