//! Who is not of the farm, or no longer, gets nothing; and an action gets what it declared and nothing else. Real processes.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::print_stdout, reason = "a seed is no good if nobody sees it")]

mod assault;
mod crowd;
mod door;
mod inside;
mod member;
mod revoked;
mod rogue;
mod strangers;
