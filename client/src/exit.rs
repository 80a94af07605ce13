//! Exit codes of the command line and the errors that lead to them.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | something outside is wrong: no daemon, no network, a full disk; or `doctor` found a failure |
//! | 2 | the command line or a setting is wrong: the user's to mend |
//!
//! `farm up` and `run` have their command's exit code instead once that has run.

use std::fmt;

use crate::wrapper::output;

/// All went well.
pub const SUCCESS: u8 = 0;
/// Something outside is wrong.
pub const ENVIRONMENT: u8 = 1;
/// The user asked for something that can't be.
pub const USER: u8 = 2;

/// An error on its way out of the program. The text ends with a `hint:` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to exit with.
    pub code: u8,
    /// What to print after `error: `.
    pub text: String,
}

impl Failure {
    /// The user's to mend.
    pub fn user(error: impl fmt::Display) -> Self {
        Self { code: USER, text: error.to_string() }
    }

    /// Not of the user's making.
    pub fn environment(error: impl fmt::Display) -> Self {
        Self { code: ENVIRONMENT, text: error.to_string() }
    }

    /// Prints it on standard error. The code to exit with.
    pub fn report(&self) -> u8 {
        output::write_all(std::io::stderr(), format!("error: {}\n", self.text).as_bytes());
        self.code
    }
}
