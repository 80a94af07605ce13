//! Keys: the one a peer proves itself with, and the one a farm signs memberships with.
//!
//! Not here: what is signed (`buildbee_proto`), and who is believed (`admission.rs`, for connections).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use buildbee_proto::canonical::Canonical;
use buildbee_proto::membership::Signed;
use buildbee_proto::outcome::{ActionResult, SignedResult};
use buildbee_proto::peer::{PeerId, Signature};
use libp2p::identity::{Keypair, ed25519};
use thiserror::Error;

use crate::private_file;

/// What a key file starts with.
const KEY_PREFIX: &str = "buildbee-key-1 ";
/// Code (0, identity) and length of the multihash that a libp2p peer id of an ed25519 key is, then the header of the key's
/// protocol buffer: type ed25519, 32 bytes.
const PEER_ID_HEADER: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file can't be read or written.
    #[error("key file {}: {source}\nhint: the folder must exist and belong to the user that this program runs as", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others may read the key.
    #[error("key file {} has mode {mode:04o}: others can read it\nhint: chmod 600 {}", file.display(), file.display())]
    Mode {
        /// Which file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is not a key.
    #[error(
        "key file {} is damaged\nhint: restore it from a backup, or remove it and join the farm again under a new identity",
        file.display()
    )]
    Damaged {
        /// Which file.
        file: PathBuf,
    },
}

/// An ed25519 key pair.
#[derive(Clone)]
pub struct Identity(ed25519::Keypair);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the secret half.
        write!(f, "Identity({})", self.peer().short())
    }
}

impl Identity {
    /// The identity kept in `file`; a new one is made, and the file with it, where there is none. The folder must exist.
    pub fn load_or_create(file: &Path) -> Result<Self, IdentityError> {
        let io = |source| IdentityError::Io { file: file.to_owned(), source };
        if let Some(found) = Self::load(file)? {
            return Ok(found);
        }
        let fresh = Self::generate();
        if private_file::create(file, &format!("{}\n", fresh.to_secret_text())).map_err(io)? {
            return Ok(fresh);
        }
        // Another process was quicker: its key is the one.
        Self::load(file)?.ok_or_else(|| io(io::Error::from(io::ErrorKind::NotFound)))
    }

    /// Keeps this identity in `file`, where there is none yet or this one.
    pub fn keep(&self, file: &Path) -> Result<(), IdentityError> {
        let io = |source| IdentityError::Io { file: file.to_owned(), source };
        if private_file::create(file, &format!("{}\n", self.to_secret_text())).map_err(io)?
            || Self::load(file)?.is_some_and(|held| held.peer() == self.peer())
        {
            return Ok(());
        }
        Err(io(io::Error::from(io::ErrorKind::AlreadyExists)))
    }

    /// The secret half, in one line: what a key file holds.
    pub fn to_secret_text(&self) -> String {
        let mut seed = [0; 32];
        seed.copy_from_slice(self.0.secret().as_ref());
        // Written and read as if it were a peer id, which has the same size and form.
        format!("{KEY_PREFIX}{}", PeerId(seed))
    }

    /// The identity whose secret half is in `text`, in the form of [`to_secret_text`](Self::to_secret_text).
    pub fn from_secret_text(text: &str) -> Option<Self> {
        parse_key(text)
    }

    fn load(file: &Path) -> Result<Option<Self>, IdentityError> {
        let read = private_file::read(file).map_err(|source| IdentityError::Io { file: file.to_owned(), source })?;
        let Some(found) = read else { return Ok(None) };
        if found.is_open_to_others() {
            return Err(IdentityError::Mode { file: file.to_owned(), mode: found.mode });
        }
        parse_key(&found.text).map(Some).ok_or_else(|| IdentityError::Damaged { file: file.to_owned() })
    }

    /// A new identity that is kept nowhere.
    pub fn generate() -> Self {
        Self(ed25519::Keypair::generate())
    }

    /// The public half.
    pub fn peer(&self) -> PeerId {
        PeerId(self.0.public().to_bytes())
    }

    /// A signature over the canonical encoding of `value`.
    pub fn sign<T: Canonical>(&self, value: &T) -> Signature {
        let bytes = self.0.sign(&value.to_canonical());
        // An ed25519 signature is 64 bytes; a shorter one would be padded to one that verifies nowhere.
        let mut signature = [0; 64];
        for (to, from) in signature.iter_mut().zip(bytes) {
            *to = from;
        }
        Signature(signature)
    }

    /// `value` with this identity's signature.
    pub fn signed<T: Canonical>(&self, value: T) -> Signed<T> {
        let signature = self.sign(&value);
        Signed { value, signature, warrant: None }
    }

    /// A result with this identity's signature. It verifies only if its provenance names this peer.
    pub fn sign_result(&self, result: ActionResult) -> SignedResult {
        let signature = self.sign(&result);
        SignedResult { result, signature }
    }

    pub(crate) fn to_libp2p(&self) -> Keypair {
        Keypair::from(self.0.clone())
    }
}

fn parse_key(text: &str) -> Option<Identity> {
    let seed: PeerId = text.strip_prefix(KEY_PREFIX)?.trim_end().parse().ok()?;
    let secret = ed25519::SecretKey::try_from_bytes(seed.0).ok()?;
    Some(Identity(ed25519::Keypair::from(secret)))
}

/// Whether `signature` over `value` was made by `signer`.
pub fn verify<T: Canonical>(signer: PeerId, value: &T, signature: &Signature) -> bool {
    ed25519::PublicKey::try_from_bytes(&signer.0).is_ok_and(|key| key.verify(&value.to_canonical(), &signature.0))
}

/// Whether `signature` over `bytes` was made by `signer`: for what others than the farm have signed.
pub fn verify_bytes(signer: PeerId, bytes: &[u8], signature: &[u8]) -> bool {
    ed25519::PublicKey::try_from_bytes(&signer.0).is_ok_and(|key| key.verify(bytes, signature))
}

/// Whether the farm's own key signed the value. See [`crate::delegation`] for what others may sign.
pub fn verify_signed<T: Canonical>(farm: PeerId, signed: &Signed<T>) -> bool {
    signed.warrant.is_none() && verify(farm, &signed.value, &signed.signature)
}

/// Whether the peer that a result's provenance names signed it.
pub fn verify_result(signed: &SignedResult) -> bool {
    verify(signed.result.provenance.peer, &signed.result, &signed.signature)
}

/// Our id as libp2p's. `None` if the bytes are not a point on the curve.
pub(crate) fn to_libp2p(peer: PeerId) -> Option<libp2p::PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&peer.0).ok()?;
    Some(libp2p::identity::PublicKey::from(key).to_peer_id())
}

/// libp2p's id as ours. `None` if its key is not ed25519.
pub(crate) fn from_libp2p(peer: &libp2p::PeerId) -> Option<PeerId> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&PEER_ID_HEADER)?;
    Some(PeerId(key.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use buildbee_proto::membership::Roster;

    use super::*;

    #[test]
    fn peer_ids_convert_both_ways() {
        let identity = Identity::generate();
        let theirs = to_libp2p(identity.peer()).unwrap();
        assert_eq!(theirs, identity.to_libp2p().public().to_peer_id());
        assert_eq!(from_libp2p(&theirs), Some(identity.peer()));
        assert_eq!(from_libp2p(&libp2p::PeerId::random()), None, "a hashed id names no ed25519 key");
    }

    #[test]
    fn key_file_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let first = Identity::load_or_create(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Identity::load_or_create(&file).unwrap().peer(), first.peer());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left behind");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        Identity::load_or_create(&file).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::load_or_create(&file).unwrap_err();
            assert!(matches!(error, IdentityError::Mode { .. }), "{error}");
            assert!(error.to_string().contains("\nhint: chmod 600"), "{error}");
        }
    }

    #[test]
    fn damaged_keys_are_told_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        for text in ["", "buildbee-key-1 ", "buildbee-key-1 12", "buildbee-key-2 00", &"0".repeat(100)] {
            let _ = fs::remove_file(&file);
            assert!(private_file::create(&file, text).unwrap());
            assert!(matches!(Identity::load_or_create(&file), Err(IdentityError::Damaged { .. })), "{text:?}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn processes_that_start_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let peers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Identity::load_or_create(&file).unwrap().peer())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(peers.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn signatures_hold_for_the_signer_and_the_value_alone() {
        let farm = Identity::generate();
        let roster = Roster { farm: farm.peer(), version: 1, members: vec![], revoked: vec![] };
        let mut signed = farm.signed(roster);
        assert!(verify_signed(farm.peer(), &signed));
        assert!(!verify_signed(Identity::generate().peer(), &signed));
        assert!(!verify_signed(PeerId([0xff; 32]), &signed), "not even a key");
        signed.value.version = 2;
        assert!(!verify_signed(farm.peer(), &signed));
    }
}
