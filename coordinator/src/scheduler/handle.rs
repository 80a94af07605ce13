//! What the rest of the program holds of the scheduler: a clone-able, bounded way to its one task.

use buildbee_proto::control::{AgentDesired, AgentState, ClientDesired, ClientState};
use buildbee_proto::peer::PeerId;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::core::Counts;
use super::core::overview::Overview;

/// Calls that may wait for the scheduler; further callers wait before they are put into the queue.
pub const MAX_WAITING_CALLS: usize = 256;

/// The scheduler's task has ended: the program is stopping.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the scheduler has stopped")]
pub struct Stopped;

/// One call.
#[derive(Debug)]
pub(super) enum Call {
    Agent { peer: PeerId, state: AgentState, reply: oneshot::Sender<AgentDesired> },
    Client { peer: PeerId, state: ClientState, reply: oneshot::Sender<ClientDesired> },
    Gone { peer: PeerId },
    Counts { reply: oneshot::Sender<Counts> },
    Overview { reply: oneshot::Sender<Overview> },
}

/// A handle on the scheduler. All calls are cancel-safe: one that is dropped half way may or may not have been taken in, which the
/// next synchronisation puts right.
#[derive(Clone, Debug)]
pub struct SchedulerHandle {
    pub(super) calls: mpsc::Sender<Call>,
}

impl SchedulerHandle {
    /// Synchronises an agent.
    pub async fn agent(&self, peer: PeerId, state: AgentState) -> Result<AgentDesired, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call::Agent { peer, state, reply }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Synchronises a client.
    pub async fn client(&self, peer: PeerId, state: ClientState) -> Result<ClientDesired, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call::Client { peer, state, reply }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Says that a peer went away.
    pub async fn gone(&self, peer: PeerId) -> Result<(), Stopped> {
        self.calls.send(Call::Gone { peer }).await.map_err(|_| Stopped)
    }

    /// How much the scheduler knows.
    pub async fn counts(&self) -> Result<Counts, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call::Counts { reply }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// What the scheduler knows, for people. Costs it a copy: not for every request that anybody may make.
    pub async fn overview(&self) -> Result<Overview, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call::Overview { reply }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
