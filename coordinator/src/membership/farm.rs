//! The farm as the state folder holds it: its key, this coordinator's key, the list of members, and the roster signed from it.
//!
//! Every change reads the list, changes it and writes it back under the folder's lock, so several processes may do so at once. The list
//! (`members.json`) is written before the roster (`roster.bin`); a crash between the two is made good by the next [`Farm::open`].

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use buildbee_p2p::delegation::{SignatureError, Signer, verify_ever, verify_for};
use buildbee_p2p::identity::{Identity, IdentityError};
use buildbee_proto::canonical::Canonical;
use buildbee_proto::limits::MAX_MEMBERS;
use buildbee_proto::membership::{Membership, Roster, Signed, Ticket, UnixSeconds};
use buildbee_proto::peer::{PeerId, Role};
use thiserror::Error;

use super::key_file::Keys;
use super::mandate::{MAX_MANDATE_BYTES, Mandate};
use super::register::{EnrolError, FORMAT, Member, Register, RevokeError};
use crate::state_dir::{StateDir, StateError, StateLock};

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;
const FARM_KEY: &str = "farm.key";
const PEER_KEY: &str = "node.key";
/// What lets another key sign, where the farm's own is kept elsewhere. It counts only where the farm's key is not.
pub(super) const MANDATE: &str = "mandate.bin";
/// For how long a member of a farm whose key is elsewhere gets no other membership, in seconds: none would hold for longer than the warrant.
const WARRANTED_RENEWAL_SECONDS: UnixSeconds = 24 * 60 * 60;
pub(super) const REGISTER: &str = "members.json";
pub(super) const ROSTER: &str = "roster.bin";
/// Where the coordinator listens, or listened last, for `invite`. Plain text; worth nothing if lost.
const LISTENING: &str = "listening";
/// Members to dial while nobody calls, one a line, from `key import`. Worth nothing once somebody has.
const MEET: &str = "meet";
/// Largest such text in bytes.
const MAX_MEET_BYTES: u64 = 16 << 10;
/// Largest such text in bytes.
const MAX_LISTENING_BYTES: u64 = 256;

/// Largest list of members in bytes: `MAX_MEMBERS` present and as many revoked with long names, and all tickets that may be remembered.
const MAX_REGISTER_BYTES: u64 = 24 << 20;
/// Largest roster in bytes: two lists of `MAX_MEMBERS`, with room.
const MAX_ROSTER_BYTES: u64 = (2 * MAX_MEMBERS * 33 + 1024) as u64;
/// For how long the coordinator's own membership holds, in seconds: ten years. It is signed anew at each start.
const OWN_MEMBERSHIP_SECONDS: UnixSeconds = 10 * 365 * 24 * 60 * 60;

/// Why the farm can't be read or changed.
#[derive(Debug, Error)]
pub enum FarmError {
    /// The folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// A key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The list is damaged.
    #[error(
        "list of members {} is damaged: {reason}\nhint: move it away; members and revocations come back from {ROSTER} beside it, names don't",
        file.display()
    )]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The list was written by a newer version of this program.
    #[error("list of members {} has format {found}, this program knows {FORMAT}\nhint: install the newer version again", file.display())]
    Newer {
        /// Which file.
        file: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The text is no key file.
    #[error(
        "this is no farm's key, or a part of it is missing\nhint: give the whole file that `buildbee-coordinator key export` wrote"
    )]
    NoKey,
    /// The farm's own key is not here.
    #[error(
        "the farm's key is not on this machine: `key delegate` took it away\nhint: it is in the file that `buildbee-coordinator key export` wrote before"
    )]
    KeyElsewhere,
    /// The warrant of the key that signs has ended.
    #[error(
        "this coordinator may no longer sign for its farm (since {expires_at} seconds of Unix time)\nhint: buildbee-coordinator key delegate FILE, with the farm's key"
    )]
    WarrantOver {
        /// When.
        expires_at: UnixSeconds,
    },
    /// The key that signs can't be used.
    #[error("file {} is damaged\nhint: buildbee-coordinator key delegate FILE, with the farm's key, or key import FILE into an empty state folder", file.display())]
    BadMandate {
        /// Which file.
        file: PathBuf,
    },
    /// The key is another farm's or coordinator's.
    #[error("state folder {} is not that of the coordinator of farm {}\nhint: name its folder with --state-dir, or make it again: buildbee-coordinator key import FILE", folder.display(), farm.short())]
    OtherKey {
        /// The folder.
        folder: PathBuf,
        /// The key's farm.
        farm: PeerId,
    },
    /// There is a farm in the folder already.
    #[error(
        "state folder {} holds farm {} already\nhint: name another one with --state-dir, or move that one away",
        folder.display(), farm.short()
    )]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// The farm in it.
        farm: PeerId,
    },
    /// A ticket is no good.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// Nobody is revoked.
    #[error(transparent)]
    Revoke(#[from] RevokeError),
}

/// The farm.
#[derive(Debug)]
pub struct Farm {
    state: StateDir,
    signer: Signer,
    /// By the farm's key, if that is elsewhere.
    own: Option<Signed<Membership>>,
    identity: Identity,
    is_new: bool,
}

/// What a member that shows up anew gets.
#[derive(Debug, Default)]
pub struct Vouched {
    /// For it.
    pub membership: Option<Signed<Membership>>,
    /// For everybody, if the list changed.
    pub roster: Option<Signed<Roster>>,
}

/// What enrolment yields.
#[derive(Debug)]
pub struct Enrolled {
    /// For the newcomer.
    pub membership: Signed<Membership>,
    /// For everybody.
    pub roster: Signed<Roster>,
}

impl Farm {
    /// The farm in `folder`; a new one is made where there is none. Blocks on the disk.
    pub fn open(folder: &Path, now: UnixSeconds) -> Result<Self, FarmError> {
        let state = StateDir::open(folder)?;
        let _lock = state.lock()?;
        // The farm's key, where it is: a delegation that was cut short left both.
        let is_delegated = !state.file(FARM_KEY).exists() && state.file(MANDATE).exists();
        let is_new = !state.file(FARM_KEY).exists() && !is_delegated;
        let identity = Identity::load_or_create(&state.file(PEER_KEY))?;
        let (signer, own) = if is_delegated {
            let damaged = || FarmError::BadMandate { file: state.file(MANDATE) };
            let (key, mandate) = read_mandate(&state)?.ok_or_else(damaged)?;
            (mandate.signer(key, &identity).ok_or_else(damaged)?, Some(mandate.membership))
        } else {
            (Signer::own(Identity::load_or_create(&state.file(FARM_KEY))?), None)
        };
        let farm = Self { state, signer, own, identity, is_new };
        farm.check_time(now)?;
        farm.mend(now)?;
        Ok(farm)
    }

    /// Makes list and roster agree again after a crash between them, or after either was lost.
    fn mend(&self, now: UnixSeconds) -> Result<(), FarmError> {
        let stored = self.read_roster()?;
        let is_listed = self.read_register()?.is_some();
        let mut register = self.register(now)?;
        if register.is_recovering() {
            return Ok(());
        }
        let roster = register.roster(self.id());
        let warrant = self.signer.warrant();
        let is_current = |stored: &Signed<Roster>| stored.value == roster && stored.warrant.as_ref() == warrant;
        if stored.as_ref().is_some_and(is_current) && is_listed {
            return Ok(());
        }
        if let Some(stored) = stored.filter(|stored| !is_current(stored)) {
            // Members may hold the stored one already: what follows must be newer than both.
            let newest = stored.value.version.max(register.roster_version);
            register.roster_version = newest.saturating_add(1);
        }
        self.write(&register).map(drop)
    }

    /// The list; what the roster says where there is no list.
    fn register(&self, now: UnixSeconds) -> Result<Register, FarmError> {
        if let Some(register) = self.read_register()? {
            return Ok(register);
        }
        Ok(self.read_roster()?.map_or_else(Register::default, |roster| Register::from_roster(&roster.value, now)))
    }

    /// The farm's public key: its name.
    pub fn id(&self) -> PeerId {
        self.signer.farm()
    }

    /// Whether it was made by this very [`open`](Self::open).
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The right to be the coordinator of this folder's farm, for as long as it is held.
    pub fn serve(&self) -> Result<StateLock, FarmError> {
        Ok(self.state.serve()?)
    }

    /// This coordinator's own identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// This coordinator's own membership.
    pub fn own_membership(&self, name: &str, now: UnixSeconds) -> Signed<Membership> {
        if let Some(own) = &self.own {
            return own.clone();
        }
        self.signer.signed(Membership {
            farm: self.id(),
            peer: self.identity.peer(),
            role: Role::Coordinator,
            name: super::register::clean_name(name, self.identity.peer()),
            issued_at: now,
            expires_at: now.saturating_add(OWN_MEMBERSHIP_SECONDS),
        })
    }

    /// A ticket to join this farm with. Farm and coordinator are filled in; the nonce must be random.
    pub fn invite(&self, ticket: Ticket) -> Signed<Ticket> {
        self.signer.signed(Ticket { farm: self.id(), coordinator: self.identity.peer(), ..ticket })
    }

    /// The farm's secrets, to be kept elsewhere.
    pub fn keys(&self) -> Result<Keys, FarmError> {
        let farm = self.signer.own_key().ok_or(FarmError::KeyElsewhere)?.clone();
        Ok(Keys { farm, coordinator: self.identity.clone() })
    }

    /// Until when this coordinator may sign, if the farm's own key is elsewhere.
    pub fn signs_until(&self) -> Option<UnixSeconds> {
        self.signer.warrant().map(|warrant| warrant.delegation.expires_at)
    }

    fn check_time(&self, now: UnixSeconds) -> Result<(), FarmError> {
        match self.signs_until() {
            Some(expires_at) if now > expires_at => Err(FarmError::WarrantOver { expires_at }),
            _ => Ok(()),
        }
    }

    /// Whether the farm stands behind a ticket or a roster now.
    fn verify<T: Canonical>(&self, signed: &Signed<T>, now: UnixSeconds) -> Result<(), FarmError> {
        let roster = if signed.warrant.is_some() { self.read_roster()? } else { None };
        let verdict = verify_for(self.id(), signed, roster.as_ref().map(|roster| &roster.value), now);
        verdict.map_err(|error| match error {
            SignatureError::Forged => EnrolError::Forged.into(),
            _ => EnrolError::Expired.into(),
        })
    }

    /// A member's membership: it ends with the warrant.
    fn signed_membership(&self, mut membership: Membership) -> Signed<Membership> {
        membership.expires_at = membership.expires_at.min(self.signs_until().unwrap_or(u64::MAX));
        self.signer.signed(membership)
    }

    /// Whether another membership would be worth the write.
    fn gives_more(&self, issued_at: UnixSeconds, now: UnixSeconds) -> bool {
        self.signer.warrant().is_none_or(|warrant| {
            issued_at < warrant.delegation.issued_at || now >= issued_at.saturating_add(WARRANTED_RENEWAL_SECONDS)
        })
    }

    /// Has a new key sign for the farm of `keys` until `expires_at`, and removes the farm's own key from the folder, whose coordinator must not
    /// run. Blocks on the disk.
    pub fn delegate(
        folder: &Path,
        keys: &Keys,
        name: &str,
        now: UnixSeconds,
        expires_at: UnixSeconds,
    ) -> Result<Self, FarmError> {
        let state = StateDir::open(folder)?;
        let lock = state.lock()?;
        let _nobody_serves_it = state.serve()?;
        let other = || FarmError::OtherKey { folder: folder.to_owned(), farm: keys.farm.peer() };
        let farm_key = state.file(FARM_KEY);
        let held = if farm_key.exists() {
            Identity::load_or_create(&farm_key)?.peer()
        } else {
            read_mandate(&state)?.ok_or_else(other)?.1.warrant.delegation.farm
        };
        let peer_key = state.file(PEER_KEY);
        let is_same = peer_key.exists() && Identity::load_or_create(&peer_key)?.peer() == keys.coordinator.peer();
        if held != keys.farm.peer() || !is_same {
            return Err(other());
        }
        let signer = Identity::generate();
        let mandate = Mandate::new(&keys.farm, &signer, &keys.coordinator, name, now, expires_at);
        // In one file with its key: no crash leaves one without the other.
        state.replace(MANDATE, &mandate.to_file(&signer))?;
        // What it takes to go on is on the disk.
        state.remove(FARM_KEY)?;
        drop(lock);
        Self::open(folder, now)
    }

    /// Makes the farm of `keys` anew in a folder without one, or with one that never had a member; its members bring the list back, unless
    /// there are none. `meet` says where some of them listen. Blocks on the disk.
    pub fn import(
        folder: &Path,
        keys: &Keys,
        has_members: bool,
        meet: &[String],
        now: UnixSeconds,
    ) -> Result<Self, FarmError> {
        let state = StateDir::open(folder)?;
        let lock = state.lock()?;
        let (farm_key, peer_key) = (state.file(FARM_KEY), state.file(PEER_KEY));
        let (signer, identity) = (Signer::own(keys.farm.clone()), keys.coordinator.clone());
        let farm = Self { signer, own: None, identity, is_new: false, state };
        // A farm whose key is elsewhere is one.
        if !farm_key.exists()
            && let Some((_, mandate)) = read_mandate(&farm.state)?
        {
            return Err(FarmError::Occupied { folder: folder.to_owned(), farm: mandate.warrant.delegation.farm });
        }
        if farm_key.exists() {
            let held = Identity::load_or_create(&farm_key)?.peer();
            let register = farm.read_register()?;
            let is_waiting = held == farm.id() && register.as_ref().is_some_and(Register::is_recovering);
            // Installing a package makes a farm that nobody wants.
            let is_unused = register.is_some_and(|register| register.members().is_empty());
            if !is_waiting && !is_unused {
                return Err(FarmError::Occupied { folder: folder.to_owned(), farm: held });
            }
            if !is_waiting {
                let _nobody_serves_it = farm.state.serve()?;
                farm.state.remove(FARM_KEY)?;
                farm.state.remove(PEER_KEY)?;
                farm.state.remove(ROSTER)?;
            }
        }
        farm.state.replace(MEET, meet.join("\n").as_bytes())?;
        // The key last: without it there is no farm.
        farm.write_register(&Register::lost(has_members, now))?;
        farm.identity.keep(&peer_key)?;
        keys.farm.keep(&farm_key)?;
        farm.mend(now)?;
        drop(lock);
        Ok(farm)
    }

    /// Whether nobody has brought the list of members back yet. Blocks on the disk.
    pub fn is_recovering(&self) -> Result<bool, FarmError> {
        Ok(self.read_register()?.is_some_and(|register| register.is_recovering()))
    }

    /// Whether the list of members was lost once, or is yet to come back. Blocks on the disk.
    pub fn was_lost(&self) -> Result<bool, FarmError> {
        Ok(self.read_register()?.is_some_and(|register| register.recovered_at.is_some()))
    }

    /// Takes over what a roster of this farm, shown by a member, says and the list does not: the new roster, if there was anything.
    /// Blocks on the disk.
    pub fn merge(&self, shown: &Signed<Roster>, now: UnixSeconds) -> Result<Option<Signed<Roster>>, FarmError> {
        if shown.value.farm != self.id() {
            return Err(EnrolError::Forged.into());
        }
        self.verify(shown, now)?;
        self.check_time(now)?;
        let _lock = self.state.lock()?;
        let mut register = self.register(now)?;
        if register.merge(&shown.value, now) { self.write(&register).map(Some) } else { Ok(None) }
    }

    /// Notes a member whose membership its connection proved, and gives it a new one if it asks. Blocks on the disk.
    pub fn vouch(
        &self,
        peer: PeerId,
        role: Role,
        name: &str,
        renew: bool,
        now: UnixSeconds,
    ) -> Result<Vouched, FarmError> {
        self.check_time(now)?;
        let _lock = self.state.lock()?;
        let mut register = self.register(now)?;
        let before = register.roster_version;
        let adopted = register.adopt(peer, role, name, now);
        let is_worth_it = register.get(peer).is_some_and(|member| self.gives_more(member.issued_at, now));
        let membership = if renew && is_worth_it { register.renew(self.id(), peer, now) } else { None };
        let membership = membership.map(|membership| self.signed_membership(membership));
        if !adopted && membership.is_none() {
            return Ok(Vouched::default());
        }
        let roster = self.write(&register)?;
        Ok(Vouched { membership, roster: (register.roster_version != before).then_some(roster) })
    }

    /// Calls a ticket of this farm back. Blocks on the disk.
    pub fn revoke_ticket(&self, ticket: &Signed<Ticket>, now: UnixSeconds) -> Result<(), FarmError> {
        if ticket.value.farm != self.id() || !verify_ever(self.id(), ticket) {
            return Err(RevokeError::ForeignTicket.into());
        }
        let _lock = self.state.lock()?;
        let mut register = self.register(now)?;
        register.revoke_ticket(&ticket.value, now)?;
        self.write_register(&register)
    }

    /// Lets `peer`, whose id its connection proved, in. Blocks on the disk.
    pub fn enrol(
        &self,
        ticket: &Signed<Ticket>,
        peer: PeerId,
        name: &str,
        now: UnixSeconds,
    ) -> Result<Enrolled, FarmError> {
        if ticket.value.farm != self.id() {
            return Err(EnrolError::OtherFarm { expected: self.id(), found: ticket.value.farm }.into());
        }
        self.verify(ticket, now)?;
        self.check_time(now)?;
        let _lock = self.state.lock()?;
        let mut register = self.register(now)?;
        let membership = register.enrol(&ticket.value, peer, name, now)?;
        let roster = self.write(&register)?;
        Ok(Enrolled { membership: self.signed_membership(membership), roster })
    }

    /// Sends a member away, named by peer id or name. Blocks on the disk.
    pub fn revoke(&self, wanted: &str, now: UnixSeconds) -> Result<Member, FarmError> {
        let _lock = self.state.lock()?;
        let mut register = self.register(now)?;
        let member = register.revoke(wanted, now)?;
        self.write(&register)?;
        Ok(member)
    }

    /// All members, present and past. Blocks on the disk.
    pub fn members(&self) -> Result<Vec<Member>, FarmError> {
        Ok(self.read_register()?.unwrap_or_default().members().to_vec())
    }

    /// The current roster, if it is there and good. Blocks on the disk.
    pub fn read_roster(&self) -> Result<Option<Signed<Roster>>, FarmError> {
        let Some(bytes) = self.state.read(ROSTER, MAX_ROSTER_BYTES)? else { return Ok(None) };
        let roster = Signed::<Roster>::from_canonical(&bytes).ok();
        Ok(roster.filter(|roster| roster.value.farm == self.id() && verify_ever(self.id(), roster)))
    }

    /// Writes down where the coordinator listens.
    pub fn note_listening(&self, address: SocketAddr) -> Result<(), FarmError> {
        Ok(self.state.replace(LISTENING, format!("{address}\n").as_bytes())?)
    }

    /// Where the coordinator listens, or listened last; `None` if it never did.
    pub fn last_listening(&self) -> Result<Option<SocketAddr>, FarmError> {
        let bytes = self.state.read(LISTENING, MAX_LISTENING_BYTES)?;
        Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok()))
    }

    /// Where members listen that are to be dialled while nobody calls.
    pub fn to_meet(&self) -> Result<Vec<String>, FarmError> {
        let bytes = self.state.read(MEET, MAX_MEET_BYTES)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }

    /// The file of the roster: it is replaced by whoever changes it.
    pub fn roster_file(&self) -> PathBuf {
        self.state.file(ROSTER)
    }

    fn read_register(&self) -> Result<Option<Register>, FarmError> {
        let Some(bytes) = self.state.read(REGISTER, MAX_REGISTER_BYTES)? else { return Ok(None) };
        let file = self.state.file(REGISTER);
        let damaged = |reason: String| FarmError::Damaged { file: file.clone(), reason };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let format = value.get("format").and_then(serde_json::Value::as_u64).and_then(|n| u32::try_from(n).ok());
        if let Some(found) = format.filter(|found| *found > FORMAT) {
            return Err(FarmError::Newer { file, found });
        }
        let mut register: Register = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        register.format = FORMAT;
        if register.is_sound() { Ok(Some(register)) } else { Err(damaged("it breaks its own rules".to_owned())) }
    }

    /// Writes the list alone. The lock is held by the caller.
    fn write_register(&self, register: &Register) -> Result<(), FarmError> {
        let mut text = serde_json::to_string_pretty(register)
            .map_err(|error| FarmError::Damaged { file: self.state.file(REGISTER), reason: error.to_string() })?;
        text.push('\n');
        Ok(self.state.replace(REGISTER, text.as_bytes())?)
    }

    /// Writes the list, then the roster that follows from it. The lock is held by the caller.
    fn write(&self, register: &Register) -> Result<Signed<Roster>, FarmError> {
        self.write_register(register)?;
        let roster = self.signer.signed(register.roster(self.id()));
        self.state.replace(ROSTER, &roster.to_canonical())?;
        Ok(roster)
    }
}

/// The key that signs and what lets it, if there are any.
fn read_mandate(state: &StateDir) -> Result<Option<(Identity, Mandate)>, FarmError> {
    let Some(bytes) = state.read(MANDATE, MAX_MANDATE_BYTES)? else { return Ok(None) };
    let file = state.file(MANDATE);
    let mode = fs::metadata(&file).map_err(|source| StateError::File { file: file.clone(), source })?.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(IdentityError::Mode { file, mode }.into());
    }
    Mandate::from_file(&bytes).map(Some).ok_or_else(|| FarmError::BadMandate { file: state.file(MANDATE) })
}
