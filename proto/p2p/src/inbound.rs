//! Streams that others opened, on their way to whoever serves them.

use buildbee_proto::peer::{PeerId, Role};
use buildbee_proto::version::Protocol;
use tokio::sync::mpsc;

use crate::peer_stream::PeerStream;

/// Streams that may wait to be served; one more is reset, and its opener tries again.
pub(crate) const MAX_WAITING_STREAMS: usize = 256;

/// Who opened a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// An admitted member of the farm.
    Member {
        /// Who, proven by its key.
        peer: PeerId,
        /// What its membership allows it.
        role: Role,
        /// Its name for people.
        name: String,
    },
    /// Anybody. Only for `Protocol::Join`, and only where joins are accepted.
    Stranger {
        /// Who, proven by its key.
        peer: PeerId,
    },
}

impl Sender {
    /// The peer, member or not.
    pub fn peer(&self) -> PeerId {
        match self {
            Self::Member { peer, .. } | Self::Stranger { peer } => *peer,
        }
    }
}

/// A stream that a peer opened to us.
#[derive(Debug)]
pub struct InboundStream {
    /// Who opened it.
    pub from: Sender,
    /// What for.
    pub protocol: Protocol,
    /// The stream.
    pub stream: PeerStream,
}

/// The streams that others open to this node.
#[derive(Debug)]
pub struct Inbound {
    pub(crate) queue: mpsc::Receiver<InboundStream>,
}

impl Inbound {
    /// The next stream; `None` once the node has stopped. Serve it in a task of its own: while nobody calls this, a bounded number of
    /// streams waits and further ones are reset. Cancel-safe.
    pub async fn next(&mut self) -> Option<InboundStream> {
        self.queue.recv().await
    }
}
