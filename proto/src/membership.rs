//! Who belongs to a farm: tickets to join with, signed memberships, and the signed roster.
//!
//! Types and their canonical encodings only. Keys and signatures are made and checked in `buildbee_p2p::identity`.

use std::fmt::Write as _;

use thiserror::Error;

use crate::canonical::{Canonical, CanonicalError, Reader, Writer, check_ascending, from_parts, parts};
use crate::delegation::Warrant;
use crate::digest::hex;
use crate::limits::{MAX_ADDRESSES_PER_PEER, MAX_HELLO_FRAME, MAX_MEMBERS, MAX_NAME_BYTES, MAX_TICKET_USES};
use crate::peer::{PeerId, Role, Signature};

/// Seconds since the Unix epoch.
pub type UnixSeconds = u64;

fn encode_role(out: &mut Writer, role: Role) {
    out.u8(match role {
        Role::Coordinator => 0,
        Role::Agent => 1,
        Role::Client => 2,
    });
}

fn decode_role(input: &mut Reader<'_>) -> Result<Role, CanonicalError> {
    match input.u8()? {
        0 => Ok(Role::Coordinator),
        1 => Ok(Role::Agent),
        2 => Ok(Role::Client),
        _ => Err(CanonicalError::Range("role")),
    }
}

fn decode_name(input: &mut Reader<'_>) -> Result<String, CanonicalError> {
    let name = input.text()?;
    if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(CanonicalError::Range("name"));
    }
    Ok(name)
}

/// That a peer belongs to a farm. Shown first on every connection, and checked without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The farm's public key, which signs.
    pub farm: PeerId,
    /// The member.
    pub peer: PeerId,
    /// What it may do. An agent may also act as a client (the desktop's own builds).
    pub role: Role,
    /// For people: the machine's or user's name.
    pub name: String,
    /// From when.
    pub issued_at: UnixSeconds,
    /// Until when.
    pub expires_at: UnixSeconds,
}

impl Canonical for Membership {
    const TAG: [u8; 4] = *b"bbm1";

    fn encode(&self, out: &mut Writer) {
        out.raw(&self.farm.0);
        out.raw(&self.peer.0);
        encode_role(out, self.role);
        out.text(&self.name);
        out.u64(self.issued_at);
        out.u64(self.expires_at);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self {
            farm: PeerId(input.array()?),
            peer: PeerId(input.array()?),
            role: decode_role(input)?,
            name: decode_name(input)?,
            issued_at: input.u64()?,
            expires_at: input.u64()?,
        })
    }
}

/// A permission to join a farm, printed by `buildbee-coordinator invite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The farm's public key, which signs.
    pub farm: PeerId,
    /// The coordinator to join at.
    pub coordinator: PeerId,
    /// Where it listens, as `host:port`.
    pub addresses: Vec<String>,
    /// What the newcomer may do.
    pub role: Role,
    /// When it was printed: a coordinator that lost its list no longer knows who used tickets from before.
    pub issued_at: UnixSeconds,
    /// The last moment to join.
    pub expires_at: UnixSeconds,
    /// How many machines it lets in: 1 to `MAX_TICKET_USES`.
    pub uses: u32,
    /// Tells tickets apart, so that uses can be counted.
    pub nonce: [u8; 16],
}

impl Canonical for Ticket {
    const TAG: [u8; 4] = *b"bbt2";

    fn encode(&self, out: &mut Writer) {
        out.raw(&self.farm.0);
        out.raw(&self.coordinator.0);
        out.list(&self.addresses, |out, address| out.text(address));
        encode_role(out, self.role);
        out.u64(self.issued_at);
        out.u64(self.expires_at);
        out.u32(self.uses);
        out.raw(&self.nonce);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let ticket = Self {
            farm: PeerId(input.array()?),
            coordinator: PeerId(input.array()?),
            addresses: input.list(MAX_ADDRESSES_PER_PEER, Reader::text)?,
            role: decode_role(input)?,
            issued_at: input.u64()?,
            expires_at: input.u64()?,
            uses: input.u32()?,
            nonce: input.array()?,
        };
        if (1..=MAX_TICKET_USES).contains(&ticket.uses) { Ok(ticket) } else { Err(CanonicalError::Range("uses")) }
    }
}

/// Who was sent away. Held by every member; the higher version wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// The farm's public key, which signs.
    pub farm: PeerId,
    /// Grows with each change.
    pub version: u64,
    /// Enrolled members and their roles, sorted by peer.
    pub members: Vec<(PeerId, Role)>,
    /// Peers whose memberships count no more, sorted.
    pub revoked: Vec<PeerId>,
}

impl Roster {
    /// Whether `peer` is an agent of the farm, and was not sent away.
    pub fn has_agent(&self, peer: &PeerId) -> bool {
        self.role_of(peer) == Some(Role::Agent)
    }

    /// Whether `peer` is one of those who build or lend, and was not sent away.
    pub fn has_peer(&self, peer: &PeerId) -> bool {
        matches!(self.role_of(peer), Some(Role::Agent | Role::Client))
    }

    fn role_of(&self, peer: &PeerId) -> Option<Role> {
        let at = self.members.binary_search_by_key(peer, |(member, _)| *member).ok()?;
        self.revoked.binary_search(peer).is_err().then(|| self.members[at].1)
    }
}

impl Canonical for Roster {
    const TAG: [u8; 4] = *b"bbr1";

    fn encode(&self, out: &mut Writer) {
        out.raw(&self.farm.0);
        out.u64(self.version);
        out.list(&self.members, |out, (peer, role)| {
            out.raw(&peer.0);
            encode_role(out, *role);
        });
        out.list(&self.revoked, |out, peer| out.raw(&peer.0));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let roster = Self {
            farm: PeerId(input.array()?),
            version: input.u64()?,
            members: input.list(MAX_MEMBERS, |input| Ok((PeerId(input.array()?), decode_role(input)?)))?,
            revoked: input.list(MAX_MEMBERS, |input| Ok(PeerId(input.array()?)))?,
        };
        check_ascending(&roster.members, "members", |(peer, _)| peer)?;
        check_ascending(&roster.revoked, "revoked peers", |peer| peer)?;
        Ok(roster)
    }
}

/// A value with the farm's signature, or that of a key that signs for it, over its canonical encoding. Decoding does not check the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    /// What was signed.
    pub value: T,
    /// By the farm's key, or by the one that signs for it.
    pub signature: Signature,
    /// That the latter may. `None`: the farm's own key signed.
    pub warrant: Option<Warrant>,
}

impl<T: Canonical> Canonical for Signed<T> {
    /// The inner tag with its version digit replaced by `s`, so that signed bytes and their envelope never look alike.
    const TAG: [u8; 4] = [T::TAG[0], T::TAG[1], T::TAG[2], b's'];

    fn encode(&self, out: &mut Writer) {
        out.raw(&T::TAG);
        self.value.encode(out);
        self.encode_seal(out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let found = input.array::<4>()?;
        if found != T::TAG {
            return Err(CanonicalError::Tag { expected: T::TAG, found });
        }
        let value = T::decode(input)?;
        Self::decode_sealed(value, input)
    }
}

impl<T> Signed<T> {
    /// The signature, and the warrant behind it if there is one: without one, the bytes are those of versions that know of none.
    pub fn seal(&self) -> Vec<u8> {
        parts(|out| self.encode_seal(out))
    }

    /// `value` with a [`seal`](Self::seal). Nothing is checked.
    pub fn with_seal(value: T, seal: &[u8]) -> Result<Self, CanonicalError> {
        from_parts(seal, |input| Self::decode_sealed(value, input))
    }

    fn encode_seal(&self, out: &mut Writer) {
        out.raw(&self.signature.0);
        if let Some(warrant) = &self.warrant {
            out.raw(&Warrant::TAG);
            warrant.encode(out);
        }
    }

    fn decode_sealed(value: T, input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let signature = Signature(input.array()?);
        if input.is_at_end() {
            return Ok(Self { value, signature, warrant: None });
        }
        let found = input.array::<4>()?;
        if found != Warrant::TAG {
            return Err(CanonicalError::Tag { expected: Warrant::TAG, found });
        }
        Ok(Self { value, signature, warrant: Some(Warrant::decode(input)?) })
    }
}

/// A text that is not a ticket.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseTicketError {
    /// It does not start with [`TICKET_PREFIX`].
    #[error("a ticket starts with \"{TICKET_PREFIX}\"")]
    Prefix,
    /// Something is missing or altered inside.
    #[error("the ticket is damaged (was it copied whole?)")]
    Damaged,
}

/// What the text of a ticket starts with.
pub const TICKET_PREFIX: &str = "buildbee-ticket-";

impl Signed<Ticket> {
    /// One word that can be pasted: hexadecimal with a checksum, so that a cut copy is told from a forged one.
    pub fn to_text(&self) -> String {
        let bytes = self.to_canonical();
        let mut text = format!("{TICKET_PREFIX}{}", hex(&bytes));
        // Writing to a String cannot fail.
        let _ = write!(text, "{}", hex(&blake3::hash(&bytes).as_bytes()[..4]));
        text
    }

    /// The ticket in `text`; white space around it is ignored. The signature is not checked here.
    pub fn from_text(text: &str) -> Result<Self, ParseTicketError> {
        let digits = text.trim().strip_prefix(TICKET_PREFIX).ok_or(ParseTicketError::Prefix)?.as_bytes();
        if digits.len() % 2 != 0 || digits.len() > 2 * MAX_HELLO_FRAME {
            return Err(ParseTicketError::Damaged);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let bytes: Option<Vec<u8>> =
            digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? * 16 + digit(pair[1])?)).collect();
        let bytes = bytes.ok_or(ParseTicketError::Damaged)?;
        let (body, check) = bytes.split_last_chunk::<4>().ok_or(ParseTicketError::Damaged)?;
        if blake3::hash(body).as_bytes()[..4] != check[..] {
            return Err(ParseTicketError::Damaged);
        }
        Self::from_canonical(body).map_err(|_| ParseTicketError::Damaged)
    }
}
