//! Which agents of the roster are there, away, or gone for good, by when each was seen last. Pure; times are the wall clock's, since it must
//! outlast the agent and the machine's sleep. A clock that jumps ahead makes more copies than are needed, and nothing worse.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use buildbee_proto::limits::MAX_MEMBERS;
use buildbee_proto::membership::{Roster, UnixSeconds};
use buildbee_proto::peer::PeerId;

/// How far the notes on disk may be behind.
const NOTED_EVERY: Duration = Duration::from_secs(600);

/// Who was seen when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// At most [`MAX_MEMBERS`].
    seen: BTreeMap<PeerId, UnixSeconds>,
    noted_at: UnixSeconds,
}

impl Presence {
    /// What [`to_text`](Self::to_text) wrote. Lines that are none are left out.
    pub fn from_text(text: &str) -> Self {
        let line = |line: &str| {
            let (peer, seconds) = line.split_once(' ')?;
            Some((peer.parse().ok()?, seconds.parse().ok()?))
        };
        Self { seen: text.lines().filter_map(line).take(MAX_MEMBERS).collect(), noted_at: 0 }
    }

    /// A line an agent.
    pub fn to_text(&self) -> String {
        self.seen.iter().fold(String::new(), |mut text, (peer, seconds)| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{peer} {seconds}");
            text
        })
    }

    /// Takes over who is there now. Agents that were never seen count from now on. True if that should be written down.
    pub fn update(&mut self, now: UnixSeconds, roster: &Roster, is_here: impl Fn(&PeerId) -> bool) -> bool {
        self.seen.retain(|peer, _| roster.has_agent(peer));
        for (peer, _) in roster.members.iter().filter(|(peer, _)| roster.has_agent(peer)) {
            let seen = self.seen.entry(*peer).or_insert(now);
            if is_here(peer) {
                *seen = now;
            }
        }
        let is_due = now.abs_diff(self.noted_at) >= NOTED_EVERY.as_secs();
        if is_due {
            self.noted_at = now;
        }
        is_due
    }

    /// Whether `peer` has not been seen for at least `after`.
    pub fn is_gone(&self, peer: &PeerId, now: UnixSeconds, after: Duration) -> bool {
        self.seen.get(peer).is_some_and(|seen| now.saturating_sub(*seen) >= after.as_secs())
    }

    /// All that are gone.
    pub fn gone(&self, now: UnixSeconds, after: Duration) -> Vec<PeerId> {
        self.seen.keys().copied().filter(|peer| self.is_gone(peer, now, after)).collect()
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::peer::Role;

    use super::*;

    #[test]
    fn who_stays_away_for_long_is_gone_until_it_is_back() {
        let peer = |n| PeerId([n; 32]);
        let members = (1..4).map(|n| (peer(n), Role::Agent)).collect();
        let mut roster = Roster { farm: peer(99), version: 1, members, revoked: Vec::new() };
        let after = Duration::from_secs(100);
        let mut presence = Presence::default();
        assert!(presence.update(1000, &roster, |_| false), "first notes");
        assert!(!presence.update(1050, &roster, |known| *known == peer(2)));
        assert_eq!(presence.gone(1099, after), []);
        assert_eq!(presence.gone(1100, after), [peer(1), peer(3)], "a new member is given its time, too");
        assert_eq!(Presence::from_text(&presence.to_text()).gone(1100, after), [peer(1), peer(3)]);
        roster.revoked = vec![peer(3)];
        assert!(presence.update(1700, &roster, |known| *known == peer(1)));
        assert_eq!(presence.gone(1700, after), [peer(2)]);
        assert_eq!(Presence::from_text("x\n\u{0} 7\nabc def\n"), Presence::default());
    }
}
