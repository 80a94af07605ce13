//! Harness of the end-to-end tests: real programs, real compilers, real sandboxes, and faults at will.
//!
//! | module | job |
//! |---|---|
//! | [`programs`] | where the built programs are |
//! | [`farm`] | a coordinator, agents and a client's daemon as processes of their own |
//! | [`faults`] | what goes wrong and when, drawn from a seed |
//! | [`disk`] | a small disk, to be filled |
//! | [`client`] | one user's side: commands that find that user's daemon; plain commands |
//! | [`processes`] | a process with all below it |
//! | [`network`] | namespaces for the members, with links that can be cut |
//! | [`cargo`] | Rust workspaces to build with cargo, and builds of them |
//! | [`project`] | C and C++ projects to build, and comparison of what came out |
//! | [`seen`] | what a command did, as far as anybody can see |
//! | [`view`] | a folder at another path, for some commands |

pub mod cargo;
pub mod client;
pub mod disk;
pub mod farm;
pub mod faults;
pub mod network;
pub mod processes;
pub mod programs;
pub mod project;
pub mod seen;
pub mod view;
