//! Where runs hear that the owner wants the machine.

use buildbee_proto::error::{ErrorCode, Retry, WireError};
use tokio::sync::watch;

use super::core::Phase;

/// Cheap to clone; all clones hear the same.
#[derive(Clone, Debug)]
pub struct Gate(watch::Receiver<Phase>);

impl Gate {
    /// Open until something else is said.
    pub fn new() -> (watch::Sender<Phase>, Self) {
        let (say, hear) = watch::channel(Phase::Lend);
        (say, Self(hear))
    }

    /// Whether work may go on.
    pub fn is_open(&self) -> bool {
        *self.0.borrow() == Phase::Lend
    }

    /// Waits until nothing may go on. Cancel-safe.
    pub async fn closed(&self) {
        self.wait_for(|phase| phase != Phase::Lend).await;
    }

    /// Waits until what runs is to be handed back. Cancel-safe.
    pub async fn handed_back(&self) {
        self.wait_for(|phase| phase == Phase::HandBack).await;
    }

    async fn wait_for(&self, wanted: impl Fn(Phase) -> bool) {
        let mut phase = self.0.clone();
        // Nobody is left to say anything: the agent stops, which is said elsewhere.
        if phase.wait_for(|phase| wanted(*phase)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a client is told of an action that is handed back.
pub fn handed_back() -> WireError {
    WireError::new(ErrorCode::Busy, Retry::OtherAgent, "the owner of this machine wants it")
}
