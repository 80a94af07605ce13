//! A farm in one process, for tests: real nodes, real memberships, the memory transport.
//!
//! Not here: coordinator, agent or daemon; tests stack those on the nodes.

use std::time::Duration;

use buildbee_proto::membership::{Membership, Roster, Signed};
use buildbee_proto::peer::{PeerId, Role};

use crate::event_loop::unix_now;
use crate::identity::Identity;
use crate::node::{ConnectError, Inbound, Node, NodeConfig, StartError, start};

/// For how long a membership of the test bed is good.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// For how long [`Farm::connect_all`] waits for each connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// One member with its running node.
#[derive(Debug)]
pub struct Member {
    /// Its key.
    pub identity: Identity,
    /// What it shows to others.
    pub membership: Signed<Membership>,
    /// Its node.
    pub node: Node,
    /// Streams that others open to it.
    pub inbound: Inbound,
    /// Where it listens.
    pub addresses: Vec<String>,
}

/// The farm's key, and its members.
#[derive(Debug)]
pub struct Farm {
    /// Signs memberships and rosters.
    pub key: Identity,
    /// In the order in which they were added.
    pub members: Vec<Member>,
}

/// A farm of `n` members that are not connected yet: a coordinator first, then agents.
pub async fn farm(n: usize) -> Result<Farm, StartError> {
    let mut farm = Farm { key: Identity::generate(), members: Vec::new() };
    for index in 0..n {
        let role = if index == 0 { Role::Coordinator } else { Role::Agent };
        farm.add(role, &format!("member-{index}")).await?;
    }
    Ok(farm)
}

impl Farm {
    /// A good membership for `peer`.
    pub fn issue(&self, peer: PeerId, role: Role, name: &str) -> Signed<Membership> {
        let now = unix_now();
        self.key.signed(Membership {
            farm: self.key.peer(),
            peer,
            role,
            name: name.to_owned(),
            issued_at: now,
            expires_at: now + LIFETIME.as_secs(),
        })
    }

    /// A roster that revokes `revoked`.
    pub fn roster(&self, version: u64, mut revoked: Vec<PeerId>) -> Signed<Roster> {
        revoked.sort_unstable();
        let mut members: Vec<_> =
            self.members.iter().map(|member| (member.node.peer(), member.membership.value.role)).collect();
        members.sort_unstable();
        self.key.signed(Roster { farm: self.key.peer(), version, members, revoked })
    }

    /// Starts one more member on the memory transport.
    pub async fn add(&mut self, role: Role, name: &str) -> Result<&mut Member, StartError> {
        let member = self.start(Identity::generate(), role, name, &["memory:0"]).await?;
        self.members.push(member);
        let last = self.members.len() - 1;
        Ok(&mut self.members[last])
    }

    /// Starts a member that listens at `listen` and is not counted among [`members`](Self::members).
    pub async fn start(
        &self,
        identity: Identity,
        role: Role,
        name: &str,
        listen: &[&str],
    ) -> Result<Member, StartError> {
        let membership = self.issue(identity.peer(), role, name);
        let config = NodeConfig {
            identity: identity.clone(),
            membership: membership.clone(),
            roster: None,
            listen: listen.iter().map(|&address| address.to_owned()).collect(),
            mdns: false,
            accept_joins: role == Role::Coordinator,
        };
        let (node, inbound) = start(config).await?;
        let addresses = node.listening();
        Ok(Member { identity, membership, node, inbound, addresses })
    }

    /// Connects each member to all before it.
    pub async fn connect_all(&self) -> Result<(), ConnectError> {
        for (index, member) in self.members.iter().enumerate() {
            for earlier in &self.members[..index] {
                member.node.connect(earlier.node.peer(), &earlier.addresses, CONNECT_TIME).await?;
            }
        }
        Ok(())
    }

    /// Stops all members.
    pub async fn shutdown(&self) {
        for member in &self.members {
            member.node.shutdown().await;
        }
    }
}
