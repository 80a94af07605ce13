//! Front-end for rustc: what its command line means, where its paths stand, and what of its output is a path.
//!
//! Everything here is pure: arguments, environment and folder come in as values, callbacks say what is in a response file and what exists.
//! Nothing here runs a compiler, knows the farm or the daemon. House rule: what is not understood runs locally, with the reason.
//!
//! Start at [`decide::decide`].

pub mod build_script;
pub mod decide;
pub mod dep_info;
pub mod env;
pub mod failure;
mod link_arguments;
pub mod locate;
pub mod messages;
pub mod option_table;
mod outputs;
mod parse;
mod placing;
pub mod reason;
pub mod request;
pub mod respell;
pub mod response_file;
pub mod roots;
pub mod scan;
pub mod script;
mod unstable_table;

#[cfg(test)]
mod decide_tests;
#[cfg(test)]
mod real_compiler_tests;
