//! Who is not of the farm, or no longer, gets nothing; and an action gets what it declared and nothing else. Real processes.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod crowd;
mod door;
mod inside;
mod member;
mod revoked;
mod strangers;
