//! Who is connected and admitted right now: what [`crate::node::Node::peers`] shows.

use buildbee_proto::peer::{PeerId, Role};

/// A peer that is connected and has proven its membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedPeer {
    /// Who.
    pub peer: PeerId,
    /// What its membership allows it.
    pub role: Role,
    /// Its name for people.
    pub name: String,
    /// The far end of its newest connection, as `host:port`. Where the peer dialled us this is not where it listens.
    pub address: String,
    /// Which stay of it this is: grows each time that a peer comes, and is another one after it was away, however short.
    pub stay: u64,
}

/// The connected and admitted peers, sorted by peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTable(pub Vec<ConnectedPeer>);

impl PeerTable {
    /// The entry of `peer`, if it is there.
    pub fn get(&self, peer: PeerId) -> Option<&ConnectedPeer> {
        self.0.binary_search_by_key(&peer, |entry| entry.peer).ok().map(|index| &self.0[index])
    }

    /// Whether `peer` is connected and admitted.
    pub fn contains(&self, peer: PeerId) -> bool {
        self.get(peer).is_some()
    }
}
