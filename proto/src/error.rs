//! Errors as peers tell each other: a code to act on, whether to try again, and a text for people. Never a Rust error.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::limits::MAX_ERROR_TEXT_BYTES;

/// What went wrong. Order is the wire format: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// No free slot, draining, or the owner is back.
    Busy,
    /// The lease is not, or no longer, this peer's.
    Lease,
    /// The request breaks a limit or makes no sense.
    Invalid,
    /// A blob that is needed can be had from nobody.
    MissingBlob,
    /// The toolchain can't run here.
    Toolchain,
    /// The sandbox could not be set up.
    Sandbox,
    /// The program ran into a limit (time, memory, output).
    Limit,
    /// The disk is full or failing.
    Storage,
    /// The requester went away.
    Cancelled,
    /// A bug.
    Internal,
    /// Not a member, not in that role, or the ticket is not good.
    Refused,
}

/// Whether the same request can succeed later or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Retry {
    /// It will fail everywhere: run locally.
    Never,
    /// The same agent may take it in a moment.
    SameAgent,
    /// Another agent may take it.
    OtherAgent,
}

/// An error that crossed the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// What to act on.
    pub code: ErrorCode,
    /// What to do next.
    pub retry: Retry,
    /// For people: one line, at most [`MAX_ERROR_TEXT_BYTES`].
    #[serde(deserialize_with = "bounded::text::<_, MAX_ERROR_TEXT_BYTES>")]
    pub message: String,
}

impl WireError {
    /// An error with its text cut to the bound.
    pub fn new(code: ErrorCode, retry: Retry, message: impl fmt::Display) -> Self {
        let mut message = message.to_string();
        if message.len() > MAX_ERROR_TEXT_BYTES {
            let end = (0..=MAX_ERROR_TEXT_BYTES).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
            message.truncate(end);
        }
        Self { code, retry, message }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A peer's text may hold anything: control characters must not reach a terminal.
        for character in self.message.chars().take(MAX_ERROR_TEXT_BYTES) {
            let shown = if character.is_control() { ' ' } else { character };
            write!(f, "{shown}")?;
        }
        Ok(())
    }
}

impl std::error::Error for WireError {}
