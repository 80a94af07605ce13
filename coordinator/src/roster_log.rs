//! What members are told of the roster: nothing if they hold it, what has changed since if that is remembered, else the whole.
//!
//! At ten thousand members the whole is 360 KB, and each newcomer changes it for everybody. Pure; the caller brings the current roster.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::Bytes;
use buildbee_proto::limits::MAX_ROSTER_CHANGES;
use buildbee_proto::membership::{Roster, Signed};
use buildbee_proto::peer::PeerId;
use buildbee_proto::roster_news::{RosterChange, RosterNews};

/// Versions whose changes are remembered.
const MAX_VERSIONS: usize = 256;

/// The current roster, and who stood differently before.
#[derive(Debug, Default)]
pub struct RosterLog {
    current: Option<Arc<Signed<Roster>>>,
    /// Its canonical bytes, once somebody has asked for them.
    whole: Option<Bytes>,
    /// For each version but the first, the one before it and who changed with it. Oldest first, without gaps.
    changes: VecDeque<(u64, Vec<PeerId>)>,
}

impl RosterLog {
    /// What to tell a member that holds version `held` where `current` is the roster now.
    pub fn news(&mut self, current: &Arc<Signed<Roster>>, held: u64) -> Option<RosterNews> {
        self.turn_to(current);
        let version = current.value.version;
        if held >= version {
            return None;
        }
        Some(match self.change(current, held) {
            Some(change) => RosterNews::Change(change),
            None => RosterNews::Whole(self.whole.get_or_insert_with(|| Bytes(current.to_canonical())).clone()),
        })
    }

    fn turn_to(&mut self, current: &Arc<Signed<Roster>>) {
        let is_known = self.current.as_ref().is_some_and(|known| known.value.version == current.value.version);
        if is_known {
            return;
        }
        match &self.current {
            Some(before) if before.value.version < current.value.version => {
                let changed = current.value.changed_since(&before.value);
                if changed.len() > MAX_ROSTER_CHANGES {
                    self.changes.clear();
                } else {
                    self.changes.push_back((before.value.version, changed));
                }
            }
            _ => self.changes.clear(),
        }
        if self.changes.len() > MAX_VERSIONS {
            self.changes.pop_front();
        }
        self.current = Some(Arc::clone(current));
        self.whole = None;
    }

    fn change(&self, current: &Signed<Roster>, held: u64) -> Option<RosterChange> {
        let since = self.changes.iter().position(|(from, _)| *from == held)?;
        let mut changed = BTreeSet::new();
        for (_, peers) in self.changes.iter().skip(since) {
            changed.extend(peers.iter().copied());
            if changed.len() > MAX_ROSTER_CHANGES {
                return None;
            }
        }
        Some(RosterChange {
            from: held,
            to: current.value.version,
            standings: changed.into_iter().map(|peer| current.value.standing(peer)).collect(),
            signature: Bytes(current.seal()),
        })
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::peer::{Role, Signature};

    use super::*;

    fn roster(version: u64, members: std::ops::Range<u32>) -> Arc<Signed<Roster>> {
        let peer = |n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            PeerId(id)
        };
        let members = members.map(|n| (peer(n), Role::Agent)).collect();
        let value = Roster { farm: peer(9_999), version, members, revoked: vec![] };
        Arc::new(Signed { value, signature: Signature([u8::try_from(version % 251).unwrap(); 64]), warrant: None })
    }

    #[test]
    fn who_holds_a_version_that_was_current_is_told_what_changed_since() {
        let mut log = RosterLog::default();
        let held: Vec<_> = (1..6).map(|version| roster(u64::from(version) * 10, 0..100 + version)).collect();
        for current in &held {
            assert_eq!(log.news(current, current.value.version), None);
            assert_eq!(log.news(current, 1000), None, "a newer one than here");
        }
        let current = &held[4];
        for older in &held[..4] {
            let news = log.news(current, older.value.version).unwrap();
            assert!(matches!(&news, RosterNews::Change(change) if change.standings.len() < 6));
            assert_eq!(news.resolve(Some(older)).unwrap(), **current);
        }
        for unknown in [0, 11, 49] {
            let news = log.news(current, unknown).unwrap();
            assert!(matches!(news, RosterNews::Whole(_)));
            assert_eq!(news.resolve(None).unwrap(), **current);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut log = RosterLog::default();
        for version in 1..2_000_u32 {
            log.news(&roster(version.into(), 0..version % 7), 0);
        }
        assert_eq!(log.changes.len(), MAX_VERSIONS);
        let current = roster(2_000, 0..1);
        assert!(matches!(log.news(&current, 1), Some(RosterNews::Whole(_))));
        assert!(matches!(log.news(&current, 1_990), Some(RosterNews::Change(_))));
        let large = roster(2_001, 0..3_000);
        assert!(matches!(log.news(&large, 2_000), Some(RosterNews::Whole(_))), "so much is told whole");
    }
}
