//! How the list outlives its folder: it comes back from members, who hold rosters and memberships that the farm signed.
//!
//! Pure, as [`super::register`] is, whose rules for newcomers stand there. Not here: asking members (`crate::papers`).

use buildbee_proto::limits::MAX_MEMBERS;
use buildbee_proto::membership::{Membership, Roster, UnixSeconds};
use buildbee_proto::peer::{PeerId, Role};

use super::register::{MEMBERSHIP_SECONDS, Member, Register, clean_name};

/// A member that was given a membership within this time, in seconds, gets no other one: each costs a write to the disk.
const RENEWAL_PAUSE_SECONDS: UnixSeconds = 60;

impl Register {
    /// The list of a farm of which the key alone is left. Members bring it back ([`merge`](Self::merge)), unless there are none.
    pub fn lost(has_members: bool, now: UnixSeconds) -> Self {
        let roster_version = if has_members { 0 } else { now.max(1) };
        Self { roster_version, recovered_at: Some(now), ..Self::default() }
    }

    /// Whether nobody has brought the list back yet.
    pub fn is_recovering(&self) -> bool {
        self.roster_version == 0
    }

    /// Takes over what a roster that the farm once signed says and this list does not know. Whether there was anything.
    ///
    /// Revocations only ever come on top, so the order in which members show what they hold makes no difference in the end. The version
    /// becomes higher than any that was lost can have been: those counted changes, this one the seconds since 1970.
    pub fn merge(&mut self, roster: &Roster, now: UnixSeconds) -> bool {
        let is_newer = roster.version > self.roster_version;
        let theirs = Self::from_roster(roster, now).members;
        let mut n_revoked = self.members.len() - self.n_present();
        let mut n_present = self.n_present();
        let mut has_news = false;
        for entry in theirs {
            let known = self.get(entry.peer);
            match (known.cloned(), entry.revoked_at) {
                (Some(Member { revoked_at: Some(_), .. }), _) | (Some(_), None) => {}
                (Some(mut member), Some(_)) if n_revoked < MAX_MEMBERS => {
                    (n_revoked, n_present) = (n_revoked + 1, n_present - 1);
                    member.revoked_at = Some(now);
                    self.put(member);
                    has_news = true;
                }
                (None, None) if n_present < MAX_MEMBERS => {
                    n_present += 1;
                    self.put(entry);
                    has_news = true;
                }
                (None, Some(_)) if n_revoked < MAX_MEMBERS => {
                    n_revoked += 1;
                    self.put(entry);
                    has_news = true;
                }
                (Some(_) | None, _) => tracing::error!(peer = %entry.peer.short(), "no room for what a roster says"),
            }
        }
        if has_news || is_newer {
            self.recovered_at.get_or_insert(now);
            self.roster_version = (self.roster_version + 1).max(roster.version.saturating_add(1)).max(now);
        }
        has_news || is_newer
    }

    /// Notes a member that showed a good membership and is not known, or only by its id. Whether anything changed.
    pub fn adopt(&mut self, peer: PeerId, role: Role, name: &str, now: UnixSeconds) -> bool {
        let name = clean_name(name, peer);
        match self.get(peer).cloned() {
            Some(member) if member.revoked_at.is_none() && member.name == peer.short() && member.name != name => {
                self.put(Member { name, ..member });
                true
            }
            None if !self.is_recovering() && role != Role::Coordinator && self.n_present() < MAX_MEMBERS => {
                let expires_at = now.saturating_add(MEMBERSHIP_SECONDS);
                self.put(Member { peer, role, name, issued_at: now, expires_at, revoked_at: None });
                self.roster_version += 1;
                true
            }
            _ => false,
        }
    }

    /// A membership from now on for somebody who has one. `None` for whom there is none, and for who has got one a moment ago.
    pub fn renew(&mut self, farm: PeerId, peer: PeerId, now: UnixSeconds) -> Option<Membership> {
        let member = self.get(peer).filter(|member| member.revoked_at.is_none())?.clone();
        if self.is_recovering() || now < member.issued_at.saturating_add(RENEWAL_PAUSE_SECONDS) {
            return None;
        }
        let member = Member { issued_at: now, expires_at: now.saturating_add(MEMBERSHIP_SECONDS), ..member };
        let Member { role, name, expires_at, .. } = member.clone();
        self.put(member);
        Some(Membership { farm, peer, role, name, issued_at: now, expires_at })
    }
}
