//! The control stream to the coordinator: says how many slots this client could use, takes over what it answers.
//!
//! Life: one task a daemon, started by the farm; ends with its token. Without a coordinator it keeps trying, while attempts go on
//! against the slots that are dealt to nobody.

use std::time::Duration;

use buildbee_p2p::frames::{FrameError, read_message, write_message};
use buildbee_p2p::node::{OpenError, PeerStream};
use buildbee_proto::control::{ClientDesired, ClientState, ControlAnswer, ControlCall, ControlReply, ControlRequest};
use buildbee_proto::error::WireError;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::farm::Farm;

/// The coordinator answers within this time.
const REPLY_DEADLINE: Duration = Duration::from_secs(1);
/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Shortest time between two calls: wishes that change in between are one wish.
const MIN_INTERVAL: Duration = Duration::from_millis(30);
/// Longest time between two calls, whatever the coordinator says.
const MAX_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
enum SyncError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the coordinator did not answer in time")]
    Silent,
    #[error("the coordinator closed the stream")]
    Closed,
    #[error("the coordinator answered something else")]
    Protocol,
    #[error("the coordinator refused: {0}")]
    Refused(WireError),
}

/// Keeps the farm's board in step with the coordinator until `stop`.
pub async fn synchronise_task(farm: Farm, coordinator: PeerId, stop: CancellationToken) {
    loop {
        let error = tokio::select! {
            error = async {
                connected(&farm, coordinator).await;
                converse(&farm, coordinator).await
            } => error,
            () = stop.cancelled() => return,
        };
        farm.coordinator_lost();
        tracing::debug!(%error, "no coordinator");
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Waits for a connection to the coordinator.
async fn connected(farm: &Farm, coordinator: PeerId) {
    let mut peers = farm.node().peers();
    let there = peers.wait_for(|table| table.contains(coordinator));
    // An error means that the node has stopped, which the talk then says.
    let _ = there.await;
}

async fn converse(farm: &Farm, coordinator: PeerId) -> SyncError {
    let talk = async {
        let mut stream = farm.node().open(coordinator, Protocol::Control).await?;
        let mut id = 0;
        loop {
            id += 1;
            let state = farm.client_state();
            let n_wanted = state.n_wanted;
            let desired = call(&mut stream, id, state).await?;
            let next = Duration::from_millis(u64::from(desired.next_call_ms)).clamp(MIN_INTERVAL, MAX_INTERVAL);
            farm.apply(desired);
            tokio::time::sleep(MIN_INTERVAL).await;
            farm.wishes_changed(n_wanted, next).await;
        }
    };
    let ended: Result<std::convert::Infallible, SyncError> = talk.await;
    match ended {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

async fn call(stream: &mut PeerStream, id: u64, state: ClientState) -> Result<ClientDesired, SyncError> {
    let exchange = async {
        write_message(stream, &ControlRequest { id, body: ControlCall::Client(state) }).await?;
        match read_message::<ControlReply, _>(stream).await? {
            Some(ControlReply { id: echoed, body }) if echoed == id => match body {
                ControlAnswer::Client(desired) => Ok(desired),
                ControlAnswer::Error(error) => Err(SyncError::Refused(error)),
                ControlAnswer::Agent(_) => Err(SyncError::Protocol),
            },
            Some(_) => Err(SyncError::Protocol),
            None => Err(SyncError::Closed),
        }
    };
    tokio::time::timeout(REPLY_DEADLINE, exchange).await.map_err(|_| SyncError::Silent)?
}
