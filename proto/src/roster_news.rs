//! The roster on its way to a member: whole, or as what has changed since the one that the member holds.
//!
//! A change names everybody whose standing is not what it was and carries the farm's signature of the roster that comes of it. So nobody has
//! to be trusted for it: what it makes is signed, or it is nothing, and the member asks for the whole. The signature is checked by whoever
//! takes the roster (`buildbee_p2p::node::Node::set_roster`), not here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bounded;
use crate::canonical::{Canonical as _, CanonicalError};
use crate::codec::Bytes;
use crate::limits::{MAX_MEMBERS, MAX_ROSTER_CHANGES};
use crate::membership::{Roster, Signed};
use crate::peer::{PeerId, Role};

/// A newer roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RosterNews {
    /// The signed roster, canonical bytes.
    Whole(Bytes),
    /// What makes it of an older one.
    Change(RosterChange),
}

/// What makes one roster of an older one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterChange {
    /// Version that it goes on from.
    pub from: u64,
    /// Version that comes of it.
    pub to: u64,
    /// Everybody who stands differently. At most `MAX_ROSTER_CHANGES`.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_ROSTER_CHANGES>")]
    pub standings: Vec<Standing>,
    /// The farm's signature of what comes of it: 64 bytes, and the warrant of the key that signs for the farm if there is one.
    pub signature: Bytes,
}

/// How a peer stands with the farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Who.
    pub peer: PeerId,
    /// What it may do, if it is a member.
    pub role: Option<Role>,
    /// Whether it was sent away.
    pub revoked: bool,
}

/// Why no roster comes of the news.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NewsError {
    /// The bytes are no roster.
    #[error("it is malformed: {0}")]
    Malformed(#[from] CanonicalError),
    /// The change is one of another roster.
    #[error("it goes on from version {from}, version {held} is held")]
    OtherVersion {
        /// What the change goes on from.
        from: u64,
        /// What is held; 0: nothing.
        held: u64,
    },
    /// The signature is none, or the roster would be too large.
    #[error("it breaks its bounds")]
    Bounds,
}

impl RosterNews {
    /// The roster that comes of it where `held` is held.
    pub fn resolve(&self, held: Option<&Signed<Roster>>) -> Result<Signed<Roster>, NewsError> {
        match self {
            Self::Whole(bytes) => Ok(Signed::from_canonical(&bytes.0)?),
            Self::Change(change) => change.applied(held),
        }
    }
}

impl RosterChange {
    fn applied(&self, held: Option<&Signed<Roster>>) -> Result<Signed<Roster>, NewsError> {
        let other = NewsError::OtherVersion { from: self.from, held: held.map_or(0, |held| held.value.version) };
        let held = &held.filter(|held| held.value.version == self.from).ok_or(other)?.value;
        let mut members: BTreeMap<PeerId, Role> = held.members.iter().copied().collect();
        let mut revoked: BTreeSet<PeerId> = held.revoked.iter().copied().collect();
        for standing in &self.standings {
            match standing.role {
                Some(role) => members.insert(standing.peer, role),
                None => members.remove(&standing.peer),
            };
            if standing.revoked {
                revoked.insert(standing.peer)
            } else {
                revoked.remove(&standing.peer)
            };
        }
        if members.len() > MAX_MEMBERS || revoked.len() > MAX_MEMBERS {
            return Err(NewsError::Bounds);
        }
        let (members, revoked) = (members.into_iter().collect(), revoked.into_iter().collect());
        let value = Roster { farm: held.farm, version: self.to, members, revoked };
        Signed::with_seal(value, &self.signature.0).map_err(|_| NewsError::Bounds)
    }
}

impl Roster {
    /// Everybody who stands differently in `self` than in `older`, in order.
    pub fn changed_since(&self, older: &Self) -> Vec<PeerId> {
        let members = |roster: &Self| roster.members.iter().copied().collect::<BTreeSet<_>>();
        let revoked = |roster: &Self| roster.revoked.iter().copied().collect::<BTreeSet<_>>();
        let roles = &members(self) ^ &members(older);
        let sent_away = &revoked(self) ^ &revoked(older);
        roles.into_iter().map(|(peer, _)| peer).chain(sent_away).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How `peer` stands.
    pub fn standing(&self, peer: PeerId) -> Standing {
        let found = self.members.binary_search_by_key(&peer, |(member, _)| *member);
        Standing {
            peer,
            role: found.ok().map(|at| self.members[at].1),
            revoked: self.revoked.binary_search(&peer).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::peer::Signature;

    fn roster(version: u64, members: &BTreeMap<u8, bool>, revoked: &BTreeSet<u8>) -> Roster {
        let peer = |n: &u8| PeerId([*n; 32]);
        let role = |is_agent: &bool| if *is_agent { Role::Agent } else { Role::Client };
        Roster {
            farm: peer(&200),
            version,
            members: members.iter().map(|(n, is_agent)| (peer(n), role(is_agent))).collect(),
            revoked: revoked.iter().map(peer).collect(),
        }
    }

    fn change(older: &Roster, newer: &Roster) -> RosterNews {
        RosterNews::Change(RosterChange {
            from: older.version,
            to: newer.version,
            standings: newer.changed_since(older).into_iter().map(|peer| newer.standing(peer)).collect(),
            signature: Bytes(vec![7; 64]),
        })
    }

    fn any_roster(version: u64) -> impl Strategy<Value = Roster> {
        let members = proptest::collection::btree_map(0_u8..12, any::<bool>(), 0..10);
        let revoked = proptest::collection::btree_set(0_u8..12, 0..5);
        (members, revoked).prop_map(move |(members, revoked)| roster(version, &members, &revoked))
    }

    proptest! {
        #[test]
        fn a_change_makes_exactly_the_newer_roster(older in any_roster(3), newer in any_roster(9)) {
            let held = Signed { value: older.clone(), signature: Signature([1; 64]), warrant: None };
            let made = change(&older, &newer).resolve(Some(&held)).unwrap();
            prop_assert_eq!(made.to_canonical(), Signed { value: newer, signature: Signature([7; 64]), warrant: None }.to_canonical());
        }
    }

    #[test]
    fn a_change_of_another_roster_is_none() {
        let members: BTreeMap<u8, bool> = [(1, true), (2, false)].into();
        let (older, newer) = (roster(3, &members, &BTreeSet::new()), roster(4, &members, &[2].into()));
        let held = Signed { value: newer.clone(), signature: Signature([1; 64]), warrant: None };
        let news = change(&older, &newer);
        assert_eq!(news.resolve(Some(&held)), Err(NewsError::OtherVersion { from: 3, held: 4 }));
        assert_eq!(news.resolve(None), Err(NewsError::OtherVersion { from: 3, held: 0 }));
        let RosterNews::Change(mut short) = news else { panic!("a change") };
        short.signature = Bytes(vec![7; 63]);
        let held = Signed { value: older, signature: Signature([1; 64]), warrant: None };
        assert_eq!(RosterNews::Change(short).resolve(Some(&held)), Err(NewsError::Bounds));
    }
}
