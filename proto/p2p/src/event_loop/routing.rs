//! Streams on their way: ours out to admitted peers, theirs in to whoever serves them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use libp2p::swarm::{ConnectionId, Stream};
use tokio::time::Instant;

use super::entry::Standing;
use super::{EventLoop, Opening};
use crate::identity::from_libp2p;
use crate::inbound::{InboundStream, MAX_WAITING_STREAMS, Sender};
use crate::node::OpenError;
use crate::peer_stream::PeerStream;
use crate::streams::Incoming;

/// Streams that wait for the end of our own hello, on one connection.
const MAX_HELD_STREAMS: usize = 64;
/// Free places in the queue of inbound streams that are not for strangers.
const RESERVED_FOR_MEMBERS: usize = MAX_WAITING_STREAMS / 2;

impl EventLoop {
    /// A stream to an admitted peer, on its way.
    pub(super) fn on_open(&mut self, peer: PeerId, protocol: Protocol) -> Result<Opening, OpenError> {
        let entry = self.peers.get(&peer).ok_or(OpenError::NotConnected { peer })?;
        let link = entry.best_link().ok_or(OpenError::NotConnected { peer })?;
        let permit = Arc::clone(&link.opens).try_acquire_owned().map_err(|_| OpenError::Busy { peer })?;
        let opening = self.swarm.behaviour_mut().streams.open(entry.network, link.id, protocol, permit);
        Ok((opening, link.carrier.clone()))
    }

    pub(super) fn on_incoming(&mut self, incoming: Incoming) {
        let Incoming { peer, connection, protocol, stream } = incoming;
        let Some(peer) = from_libp2p(&peer) else { return };
        match protocol {
            Protocol::Hello => self.hear(peer, connection, stream),
            _ => self.route(peer, connection, protocol, stream),
        }
    }

    /// Hands a stream on, or resets it by dropping it.
    pub(super) fn route(&mut self, peer: PeerId, id: ConnectionId, protocol: Protocol, stream: Stream) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let member = entry.member.clone();
        let Some(link) = entry.link_mut(id) else { return };
        let from = match member {
            Some(member) => Sender::Member { peer, role: member.role, name: member.name },
            None if protocol == Protocol::Join => {
                let is_first = link.standing == Standing::Unknown;
                if !self.accept_joins || !is_first || self.inbound.capacity() <= RESERVED_FOR_MEMBERS {
                    return;
                }
                link.standing = Standing::Joining;
                Sender::Stranger { peer }
            }
            None if link.dialled && link.hello_running => {
                if link.held.len() < MAX_HELD_STREAMS {
                    link.held.push((protocol, stream));
                }
                return;
            }
            None => {
                let address = link.address.clone();
                if self.complaints.worth_a_line(peer, Instant::now()) {
                    tracing::warn!(
                        peer = %peer.short(), %address, protocol = protocol.id(),
                        "reset a stream of a peer that has shown no membership of this farm"
                    );
                }
                return;
            }
        };
        let stream = PeerStream::new(protocol, stream, link.carrier.clone());
        if self.inbound.try_send(InboundStream { from, protocol, stream }).is_err() {
            self.n_refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(peer = %peer.short(), protocol = protocol.id(), "too many streams wait to be served");
        }
    }
}
