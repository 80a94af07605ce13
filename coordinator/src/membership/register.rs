//! The list of members and used tickets, and the rules by which it changes.
//!
//! Pure: the time comes in, nothing is read or written. Signatures are checked by the caller ([`super::farm`]), before.

use buildbee_proto::limits::{MAX_MEMBERS, MAX_NAME_BYTES};
use buildbee_proto::membership::{Membership, Roster, Ticket, UnixSeconds};
use buildbee_proto::peer::{PeerId, Role};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the stored form.
pub const FORMAT: u32 = 2;
/// For how long a membership holds, in seconds: a year.
pub const MEMBERSHIP_SECONDS: UnixSeconds = 365 * 24 * 60 * 60;
/// For how long something expired is remembered, in seconds: clocks differ, and jump.
pub(super) const REMEMBER_SECONDS: UnixSeconds = 24 * 60 * 60;
/// Used tickets remembered until they expire.
pub const MAX_USED_TICKETS: usize = 16_384;

/// One member, present or past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Who.
    #[serde(with = "as_text")]
    pub peer: PeerId,
    /// What it may do.
    #[serde(with = "as_role")]
    pub role: Role,
    /// For people.
    pub name: String,
    /// When it joined, or joined again.
    pub issued_at: UnixSeconds,
    /// Until when its membership holds.
    pub expires_at: UnixSeconds,
    /// When it was sent away.
    pub revoked_at: Option<UnixSeconds>,
}

/// A ticket that somebody joined with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsedTicket {
    /// Its nonce, as hexadecimal digits.
    nonce: String,
    /// By whom: the same peer may ask again, when the answer got lost. The farm itself, if the ticket was called back.
    #[serde(with = "as_text")]
    peer: PeerId,
    expires_at: UnixSeconds,
}

/// The list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of the roster that follows from it; grows with each change. 0 while nothing is known of a farm that was lost.
    pub roster_version: u64,
    /// When the list was lost, or found to be an old one, and began to come back from members. Tickets from before count no more.
    #[serde(default)]
    pub recovered_at: Option<UnixSeconds>,
    /// Sorted by peer.
    pub(super) members: Vec<Member>,
    pub(super) used_tickets: Vec<UsedTicket>,
}

/// Why a ticket does not let somebody in.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EnrolError {
    /// It is of another farm.
    #[error("the ticket is for farm {}, this is farm {}\nhint: ask this farm's coordinator for a ticket: buildbee-coordinator invite", found.short(), expected.short())]
    OtherFarm {
        /// This farm.
        expected: PeerId,
        /// The ticket's.
        found: PeerId,
    },
    /// The farm's key did not sign it.
    #[error("the ticket's signature does not hold\nhint: ask for a new ticket: buildbee-coordinator invite")]
    Forged,
    /// It is over.
    #[error("the ticket has expired\nhint: ask for a new ticket: buildbee-coordinator invite")]
    Expired,
    /// Others joined with it.
    #[error(
        "the ticket was used before\nhint: a ticket lets in as many machines as it says, one if it says nothing; ask for a new one: buildbee-coordinator invite"
    )]
    Used,
    /// It was called back.
    #[error("the ticket was revoked\nhint: ask for a new ticket: buildbee-coordinator invite")]
    TicketRevoked,
    /// Nobody knows any more who used it.
    #[error(
        "the ticket is from before this farm's coordinator was lost\nhint: ask for a new ticket: buildbee-coordinator invite"
    )]
    BeforeLoss,
    /// The list of members has not come back yet.
    #[error(
        "this farm's coordinator was lost, and no member has brought the list of members back yet\nhint: start a machine that belongs to the farm; if there is none left: buildbee-coordinator key import FILE --no-members"
    )]
    Recovering,
    /// The peer was sent away.
    #[error(
        "this machine's membership was revoked\nhint: ask the farm's owner; a machine let in again needs a new key"
    )]
    Revoked,
    /// Nobody may become that by a ticket.
    #[error("nobody can join as {role}\nhint: ask for a ticket as client or agent")]
    Role {
        /// What the ticket says.
        role: Role,
    },
    /// No room.
    #[error(
        "the farm is full ({max} members)\nhint: revoke members that left: buildbee-coordinator members, then revoke"
    )]
    Full {
        /// The bound.
        max: usize,
    },
    /// Too many tickets used and not expired.
    #[error("too many tickets were used in a short time ({max})\nhint: try again later")]
    TooManyTickets {
        /// The bound.
        max: usize,
    },
}

/// Why nobody is revoked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RevokeError {
    /// No such member.
    #[error("no member {wanted:?}\nhint: buildbee-coordinator members lists them")]
    Unknown {
        /// As given.
        wanted: String,
    },
    /// More than one.
    #[error("more than one member is called {wanted:?}: {}\nhint: name one by its peer id", peers.join(", "))]
    Ambiguous {
        /// As given.
        wanted: String,
        /// Who.
        peers: Vec<String>,
    },
    /// No room, and none can be made without letting somebody back in.
    #[error(
        "{max} members are revoked, and all of their memberships would still hold\nhint: start a farm with a new key in a new state folder and invite everybody again"
    )]
    Full {
        /// The bound.
        max: usize,
    },
    /// Too many tickets used and not expired.
    #[error("too many tickets are in use ({max})\nhint: tickets that expire soon need no revoking; try again later")]
    TooManyTickets {
        /// The bound.
        max: usize,
    },
    /// The ticket is not this farm's.
    #[error("the ticket is no ticket of this farm\nhint: revoke it at the coordinator that printed it")]
    ForeignTicket,
}

impl Default for Register {
    fn default() -> Self {
        Self { format: FORMAT, roster_version: 1, recovered_at: None, members: Vec::new(), used_tickets: Vec::new() }
    }
}

impl Register {
    /// Calls a ticket back: nobody joins with it any more. Who has stays.
    pub fn revoke_ticket(&mut self, ticket: &Ticket, now: UnixSeconds) -> Result<(), RevokeError> {
        self.forget_expired(now);
        let nonce = nonce_text(ticket.nonce);
        if self.used_tickets.iter().any(|used| used.nonce == nonce && used.peer == ticket.farm) {
            return Ok(());
        }
        if self.used_tickets.len() >= MAX_USED_TICKETS {
            return Err(RevokeError::TooManyTickets { max: MAX_USED_TICKETS });
        }
        self.used_tickets.push(UsedTicket { nonce, peer: ticket.farm, expires_at: ticket.expires_at });
        Ok(())
    }

    /// What can be known from a roster alone, for a coordinator that lost its list: names and times are gone, nobody else is.
    pub fn from_roster(roster: &Roster, now: UnixSeconds) -> Self {
        let member = |peer: PeerId, role, revoked_at| Member {
            peer,
            role,
            name: peer.short(),
            issued_at: now,
            expires_at: now.saturating_add(MEMBERSHIP_SECONDS),
            revoked_at,
        };
        let present = roster.members.iter().map(|(peer, role)| member(*peer, *role, None));
        let revoked = roster.revoked.iter().map(|peer| member(*peer, Role::Client, Some(now)));
        let mut register = Self { roster_version: roster.version, ..Self::default() };
        // Whoever stands in both lists is revoked.
        for entry in present.chain(revoked) {
            register.put(entry);
        }
        register
    }

    /// All members, present and past, sorted by peer.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member, present or past.
    pub fn get(&self, peer: PeerId) -> Option<&Member> {
        self.members.binary_search_by_key(&peer, |member| member.peer).ok().map(|index| &self.members[index])
    }

    pub(super) fn put(&mut self, member: Member) {
        match self.members.binary_search_by_key(&member.peer, |member| member.peer) {
            Ok(index) => self.members[index] = member,
            Err(index) => self.members.insert(index, member),
        }
    }

    /// Lets `peer` in with a ticket whose signature holds. `peer` is the id that the connection proved.
    pub fn enrol(
        &mut self,
        ticket: &Ticket,
        peer: PeerId,
        name: &str,
        now: UnixSeconds,
    ) -> Result<Membership, EnrolError> {
        self.forget_expired(now);
        if now > ticket.expires_at {
            return Err(EnrolError::Expired);
        }
        if self.is_recovering() {
            return Err(EnrolError::Recovering);
        }
        if self.recovered_at.is_some_and(|at| ticket.issued_at < at) {
            return Err(EnrolError::BeforeLoss);
        }
        if ticket.role == Role::Coordinator {
            return Err(EnrolError::Role { role: ticket.role });
        }
        if self.get(peer).is_some_and(|member| member.revoked_at.is_some()) {
            return Err(EnrolError::Revoked);
        }
        if self.get(peer).is_none() && self.n_present() >= MAX_MEMBERS {
            return Err(EnrolError::Full { max: MAX_MEMBERS });
        }
        self.use_ticket(ticket, peer)?;
        let member = Member {
            peer,
            role: ticket.role,
            name: clean_name(name, peer),
            issued_at: now,
            expires_at: now.saturating_add(MEMBERSHIP_SECONDS),
            revoked_at: None,
        };
        let Member { name, expires_at, .. } = member.clone();
        self.put(member);
        self.roster_version += 1;
        Ok(Membership { farm: ticket.farm, peer, role: ticket.role, name, issued_at: now, expires_at })
    }

    /// Counts a use, unless `peer` has used the ticket before: the answer may have got lost.
    fn use_ticket(&mut self, ticket: &Ticket, peer: PeerId) -> Result<(), EnrolError> {
        let nonce = nonce_text(ticket.nonce);
        let users = || self.used_tickets.iter().filter(|used| used.nonce == nonce).map(|used| used.peer);
        if users().any(|user| user == ticket.farm) {
            return Err(EnrolError::TicketRevoked);
        }
        if users().any(|user| user == peer) {
            return Ok(());
        }
        if u32::try_from(users().count()).is_ok_and(|n| n < ticket.uses) {
            if self.used_tickets.len() >= MAX_USED_TICKETS {
                return Err(EnrolError::TooManyTickets { max: MAX_USED_TICKETS });
            }
            self.used_tickets.push(UsedTicket { nonce, peer, expires_at: ticket.expires_at });
            return Ok(());
        }
        Err(EnrolError::Used)
    }

    /// Sends a member away, named by its id, the beginning of it (as listings show it), or its name. Who it was; nothing changes if it
    /// was sent away before.
    pub fn revoke(&mut self, wanted: &str, now: UnixSeconds) -> Result<Member, RevokeError> {
        self.forget_expired(now);
        let mut member = self.find(wanted)?.clone();
        if member.revoked_at.is_none() {
            if self.members.len() - self.n_present() >= MAX_MEMBERS {
                return Err(RevokeError::Full { max: MAX_MEMBERS });
            }
            member.revoked_at = Some(now);
            self.put(member.clone());
            self.roster_version += 1;
        }
        Ok(member)
    }

    fn find(&self, wanted: &str) -> Result<&Member, RevokeError> {
        if let Some(member) = wanted.parse().ok().and_then(|peer| self.get(peer)) {
            return Ok(member);
        }
        let matches = |member: &&Member| member.name == wanted || member.peer.short() == wanted;
        let mut found: Vec<&Member> = self.members.iter().filter(matches).collect();
        if found.iter().any(|member| member.revoked_at.is_none()) {
            found.retain(|member| member.revoked_at.is_none());
        }
        match found[..] {
            [] => Err(RevokeError::Unknown { wanted: wanted.to_owned() }),
            [member] => Ok(member),
            _ => {
                let peers = found.iter().map(|member| member.peer.to_string()).collect();
                Err(RevokeError::Ambiguous { wanted: wanted.to_owned(), peers })
            }
        }
    }

    /// The roster that follows.
    pub fn roster(&self, farm: PeerId) -> Roster {
        let present = self.members.iter().filter(|member| member.revoked_at.is_none());
        let revoked = self.members.iter().filter(|member| member.revoked_at.is_some());
        Roster {
            farm,
            version: self.roster_version,
            members: present.map(|member| (member.peer, member.role)).take(MAX_MEMBERS).collect(),
            revoked: revoked.map(|member| member.peer).take(MAX_MEMBERS).collect(),
        }
    }

    pub(super) fn n_present(&self) -> usize {
        self.members.iter().filter(|member| member.revoked_at.is_none()).count()
    }

    /// Drops what has no meaning any more: used tickets and memberships that could not be shown again anyway.
    pub(super) fn forget_expired(&mut self, now: UnixSeconds) {
        let over = |expires_at: UnixSeconds| now > expires_at.saturating_add(REMEMBER_SECONDS);
        self.used_tickets.retain(|used| !over(used.expires_at));
        self.members.retain(|member| !over(member.expires_at));
    }

    /// Whether the list, read from a file, keeps its own rules.
    pub fn is_sound(&self) -> bool {
        let sorted = self.members.windows(2).all(|pair| pair[0].peer < pair[1].peer);
        let n_revoked = self.members.len() - self.n_present();
        sorted
            && self.n_present() <= MAX_MEMBERS
            && n_revoked <= MAX_MEMBERS
            && self.used_tickets.len() <= MAX_USED_TICKETS
    }
}

fn nonce_text(nonce: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(nonce))
}

/// A name that can be shown on a terminal: no control characters, bounded, never empty.
pub fn clean_name(name: &str, peer: PeerId) -> String {
    let visible: String = name.chars().filter(|character| !character.is_control()).collect();
    let mut clean = String::new();
    for character in visible.trim().chars() {
        if clean.len() + character.len_utf8() > MAX_NAME_BYTES {
            break;
        }
        clean.push(character);
    }
    if clean.is_empty() { peer.short() } else { clean }
}

mod as_text {
    use buildbee_proto::peer::PeerId;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(peer: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(peer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PeerId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

mod as_role {
    use buildbee_proto::peer::Role;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the serialiser's signature")]
    pub(super) fn serialize<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(role)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "agent" => Ok(Role::Agent),
            "client" => Ok(Role::Client),
            other => Err(de::Error::unknown_variant(other, &["agent", "client"])),
        }
    }
}
