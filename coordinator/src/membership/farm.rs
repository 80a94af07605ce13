//! The farm as the state folder holds it: its key, this coordinator's key, the list of members, and the roster signed from it.
//!
//! Every change reads the list, changes it and writes it back under the folder's lock, so several processes may do so at once. The list
//! (`members.json`) is written before the roster (`roster.bin`); a crash between the two is made good by the next [`Farm::open`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use buildbee_p2p::identity::{Identity, IdentityError, verify_signed};
use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::limits::MAX_MEMBERS;
use buildbee_proto::membership::{Membership, Roster, Signed, Ticket, UnixSeconds};
use buildbee_proto::peer::{PeerId, Role};
use thiserror::Error;

use super::register::{EnrolError, FORMAT, Member, Register, RevokeError};
use crate::state_dir::{StateDir, StateError, StateLock};

const FARM_KEY: &str = "farm.key";
const PEER_KEY: &str = "node.key";
const REGISTER: &str = "members.json";
const ROSTER: &str = "roster.bin";
/// Where the coordinator listens, or listened last, for `invite`. Plain text; worth nothing if lost.
const LISTENING: &str = "listening";
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
    key: Identity,
    identity: Identity,
    is_new: bool,
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
        let is_new = !state.file(FARM_KEY).exists();
        let key = Identity::load_or_create(&state.file(FARM_KEY))?;
        let identity = Identity::load_or_create(&state.file(PEER_KEY))?;
        let farm = Self { state, key, identity, is_new };
        farm.mend(now)?;
        Ok(farm)
    }

    /// Makes list and roster agree again after a crash between them, or after either was lost.
    fn mend(&self, now: UnixSeconds) -> Result<(), FarmError> {
        let stored = self.read_roster()?;
        let is_listed = self.read_register()?.is_some();
        let mut register = self.register(now)?;
        let roster = register.roster(self.id());
        if stored.as_ref().is_some_and(|stored| stored.value == roster) && is_listed {
            return Ok(());
        }
        if let Some(stored) = stored.filter(|stored| stored.value != roster) {
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
        self.key.peer()
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
        self.key.signed(Membership {
            farm: self.id(),
            peer: self.identity.peer(),
            role: Role::Coordinator,
            name: super::register::clean_name(name, self.identity.peer()),
            issued_at: now,
            expires_at: now.saturating_add(OWN_MEMBERSHIP_SECONDS),
        })
    }

    /// A ticket to join this farm with. `nonce` must be random.
    pub fn invite(
        &self,
        role: Role,
        addresses: Vec<String>,
        expires_at: UnixSeconds,
        nonce: [u8; 16],
    ) -> Signed<Ticket> {
        let coordinator = self.identity.peer();
        self.key.signed(Ticket { farm: self.id(), coordinator, addresses, role, expires_at, nonce })
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
        if !verify_signed(self.id(), ticket) {
            return Err(EnrolError::Forged.into());
        }
        let _lock = self.state.lock()?;
        let mut register = self.register(now)?;
        let membership = register.enrol(&ticket.value, peer, name, now)?;
        let roster = self.write(&register)?;
        Ok(Enrolled { membership: self.key.signed(membership), roster })
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
        Ok(roster.filter(|roster| roster.value.farm == self.id() && verify_signed(self.id(), roster)))
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
        let register: Register = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        if register.is_sound() { Ok(Some(register)) } else { Err(damaged("it breaks its own rules".to_owned())) }
    }

    /// Writes the list, then the roster that follows from it. The lock is held by the caller.
    fn write(&self, register: &Register) -> Result<Signed<Roster>, FarmError> {
        let mut text = serde_json::to_string_pretty(register)
            .map_err(|error| FarmError::Damaged { file: self.state.file(REGISTER), reason: error.to_string() })?;
        text.push('\n');
        self.state.replace(REGISTER, text.as_bytes())?;
        let roster = self.key.signed(register.roster(self.id()));
        self.state.replace(ROSTER, &roster.to_canonical())?;
        Ok(roster)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOW: UnixSeconds = 1_800_000_000;

    fn farm(folder: &Path) -> Farm {
        Farm::open(folder, NOW).unwrap()
    }

    fn ticket(farm: &Farm, nonce: u8) -> Signed<Ticket> {
        farm.invite(Role::Client, vec!["127.0.0.1:7470".to_owned()], NOW + 100, [nonce; 16])
    }

    fn enrol_error(result: Result<Enrolled, FarmError>) -> EnrolError {
        match result {
            Err(FarmError::Enrol(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_farm_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = farm(folder.path());
        let again = farm(folder.path());
        assert!(first.is_new() && !again.is_new());
        assert_eq!((first.id(), first.identity().peer()), (again.id(), again.identity().peer()));
        assert_ne!(first.id(), first.identity().peer());
        let membership = again.own_membership("box", NOW);
        assert!(verify_signed(first.id(), &membership));
    }

    #[test]
    fn a_member_is_let_in_and_known_to_other_processes() {
        let folder = tempfile::tempdir().unwrap();
        let (serving, command) = (farm(folder.path()), farm(folder.path()));
        let newcomer = Identity::generate().peer();
        let enrolled = serving.enrol(&ticket(&command, 1), newcomer, "board\u{1b}[31m", NOW).unwrap();
        assert!(verify_signed(serving.id(), &enrolled.membership));
        assert_eq!(enrolled.membership.value.name, "board[31m");
        assert_eq!(command.read_roster().unwrap().unwrap(), enrolled.roster);
        assert_eq!(command.revoke("board[31m", NOW).unwrap().peer, newcomer);
        let roster = serving.read_roster().unwrap().unwrap();
        assert!(roster.value.version > enrolled.roster.value.version);
        assert_eq!(roster.value.revoked, [newcomer]);
        assert_eq!(enrol_error(serving.enrol(&ticket(&command, 2), newcomer, "x", NOW)), EnrolError::Revoked);
    }

    #[test]
    fn foreign_tampered_expired_and_used_tickets_let_nobody_in() {
        let (folder, other_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (farm, other) = (farm(folder.path()), farm(other_folder.path()));
        let newcomer = Identity::generate().peer();
        let expected = EnrolError::OtherFarm { expected: farm.id(), found: other.id() };
        assert_eq!(enrol_error(farm.enrol(&ticket(&other, 1), newcomer, "x", NOW)), expected);
        let mut renamed = ticket(&other, 1);
        renamed.value.farm = farm.id();
        assert_eq!(enrol_error(farm.enrol(&renamed, newcomer, "x", NOW)), EnrolError::Forged);
        let mut tampered = ticket(&farm, 1);
        tampered.value.role = Role::Agent;
        assert_eq!(enrol_error(farm.enrol(&tampered, newcomer, "x", NOW)), EnrolError::Forged);
        assert_eq!(enrol_error(farm.enrol(&ticket(&farm, 1), newcomer, "x", NOW + 101)), EnrolError::Expired);
        assert!(farm.members().unwrap().is_empty());
        farm.enrol(&ticket(&farm, 1), newcomer, "x", NOW).unwrap();
        let second = Identity::generate().peer();
        let reopened = Farm::open(folder.path(), NOW).unwrap();
        assert_eq!(enrol_error(reopened.enrol(&ticket(&farm, 1), second, "y", NOW)), EnrolError::Used);
    }

    #[test]
    fn a_crash_between_list_and_roster_is_made_good() {
        let folder = tempfile::tempdir().unwrap();
        let first = farm(folder.path());
        first.enrol(&ticket(&first, 1), PeerId([1; 32]), "a", NOW).unwrap();
        let old = fs::read(folder.path().join(ROSTER)).unwrap();
        let newer = first.enrol(&ticket(&first, 2), PeerId([2; 32]), "b", NOW).unwrap().roster;
        fs::write(folder.path().join(ROSTER), old).unwrap();
        let mended = farm(folder.path()).read_roster().unwrap().unwrap();
        assert_eq!(mended.value.members, newer.value.members);
        assert!(mended.value.version > newer.value.version);
        fs::write(folder.path().join(ROSTER), b"torn").unwrap();
        assert_eq!(first.read_roster().unwrap(), None);
    }

    #[test]
    fn a_lost_list_comes_back_from_the_roster_and_a_lost_roster_from_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let first = farm(folder.path());
        first.enrol(&ticket(&first, 1), PeerId([1; 32]), "a", NOW).unwrap();
        first.enrol(&ticket(&first, 2), PeerId([2; 32]), "b", NOW).unwrap();
        first.revoke("b", NOW).unwrap();
        let before = first.read_roster().unwrap().unwrap();
        fs::remove_file(folder.path().join(REGISTER)).unwrap();
        assert_eq!(farm(folder.path()).read_roster().unwrap().unwrap().value, before.value);
        fs::remove_file(folder.path().join(ROSTER)).unwrap();
        assert_eq!(farm(folder.path()).read_roster().unwrap().unwrap().value, before.value);
    }

    #[test]
    fn damaged_and_newer_lists_are_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(farm(folder.path()));
        let file = folder.path().join(REGISTER);
        for (text, expected) in
            [("{", "is damaged"), ("{\"format\":2}", "format 2"), ("{\"format\":1}", "missing field")]
        {
            fs::write(&file, text).unwrap();
            let error = Farm::open(folder.path(), NOW).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("\nhint: "), "{error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn changes_from_two_processes_are_both_kept() {
        let folder = tempfile::tempdir().unwrap();
        let farms = [farm(folder.path()), farm(folder.path())];
        std::thread::scope(|scope| {
            for (index, farm) in farms.iter().enumerate() {
                scope.spawn(move || {
                    for n in 0..10 {
                        let n = u8::try_from(index).unwrap() * 100 + n;
                        farm.enrol(&ticket(farm, n), PeerId([n; 32]), "x", NOW).unwrap();
                    }
                });
            }
        });
        let roster = farms[0].read_roster().unwrap().unwrap().value;
        assert_eq!(roster.members.len(), 20);
        assert_eq!(roster.version, 21);
    }
}
