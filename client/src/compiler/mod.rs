//! C and C++ front-end: what a compiler command line means, and whether it can be run elsewhere.
//!
//! Everything here is pure: arguments, environment and folder come in as values, the one callback is how a response file is read.
//! Nothing here runs a compiler, looks at a file or knows the farm. House rule: what is not understood runs locally, with the reason.
//!
//! Start at [`decide::decide`]; [`depfile`] and [`detect`] are used beside it.

pub mod arg_table;
pub mod decide;
pub mod depfile;
pub mod detect;
pub mod environment;
pub mod flag_words;
pub mod language;
pub mod native;
pub mod outputs;
mod parse;
pub mod places;
mod profile;
pub mod reason;
pub mod request;
pub mod response_file;
mod sub_arguments;
mod terminal;
pub mod time_words;

#[cfg(test)]
mod arg_table_tests;
#[cfg(test)]
mod decide_tests;
#[cfg(test)]
mod depfile_tests;
#[cfg(test)]
mod real_compiler_tests;
