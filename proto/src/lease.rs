//! Slot tokens: the right to run one action at a time on one agent, minted by that agent and dealt out by the coordinator.
//!
//! Only the agent that minted a token decides whether it is good, on its own monotonic clock, so an empty coordinator, a second one by
//! mistake or a clock that jumps can't create a slot twice.

use serde::{Deserialize, Serialize};

use crate::peer::PeerId;

/// One slot of one run of one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotToken {
    /// Who minted it.
    pub agent: PeerId,
    /// Random number of that agent's run: tokens of an earlier run are void.
    pub boot_id: u64,
    /// Counts up with each token minted in that run.
    pub counter: u64,
}

/// What an agent reports of one of its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// The slot's current token.
    pub token: SlotToken,
    /// Who holds it, if it is dealt out.
    pub dealt_to: Option<PeerId>,
    /// For how long it still is, in milliseconds. After that the slot is open to direct requests.
    pub expires_in_ms: u32,
    /// Whether an action runs in it.
    pub busy: bool,
}

/// A token dealt to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// What to show to the agent.
    pub token: SlotToken,
    /// For how long it can be counted on, in milliseconds; renewed by the next synchronisation.
    pub expires_in_ms: u32,
}
