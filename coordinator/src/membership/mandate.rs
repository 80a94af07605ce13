//! What a coordinator without the farm's own key keeps beside the key that signs for the farm: its warrant, and its own membership.
//!
//! The farm's key signs the membership, since no other key makes coordinators. Pure. Not here: files.

use buildbee_p2p::delegation::Signer;
use buildbee_p2p::identity::{Identity, verify_signed};
use buildbee_proto::canonical::{Canonical, CanonicalError, Reader, Writer};
use buildbee_proto::delegation::{Delegation, Warrant};
use buildbee_proto::membership::{Membership, Signed, UnixSeconds};
use buildbee_proto::peer::Role;

use super::register::clean_name;

/// Largest such file in bytes.
pub(super) const MAX_MANDATE_BYTES: u64 = 4096;

/// What the farm's key has signed for a coordinator that goes on without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mandate {
    /// For the key that signs.
    pub warrant: Warrant,
    /// The coordinator's own.
    pub membership: Signed<Membership>,
}

impl Canonical for Mandate {
    const TAG: [u8; 4] = *b"bbg1";

    fn encode(&self, out: &mut Writer) {
        self.warrant.encode(out);
        // To the end of the bytes.
        out.raw(&self.membership.to_canonical());
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let warrant = Warrant::decode(input)?;
        let tag = Signed::<Membership>::TAG;
        match input.array::<4>()? {
            found if found == tag => Ok(Self { warrant, membership: Signed::decode(input)? }),
            found => Err(CanonicalError::Tag { expected: tag, found }),
        }
    }
}

impl Mandate {
    /// One by the farm's key `root`, for `signer` at the coordinator with key `coordinator`, from `now` until `expires_at`.
    pub fn new(
        root: &Identity,
        signer: &Identity,
        coordinator: &Identity,
        name: &str,
        now: UnixSeconds,
        expires_at: UnixSeconds,
    ) -> Self {
        let (farm, peer, issued_at) = (root.peer(), coordinator.peer(), now);
        let delegation = Delegation { farm, signer: signer.peer(), issued_at, expires_at };
        let name = clean_name(name, peer);
        let membership = Membership { farm, peer, role: Role::Coordinator, name, issued_at, expires_at };
        Self { warrant: Warrant { signature: root.sign(&delegation), delegation }, membership: root.signed(membership) }
    }

    /// The bytes of a file that also holds `key`, the secret key that it is for: no crash leaves one without the other.
    pub(super) fn to_file(&self, key: &Identity) -> Vec<u8> {
        let mut bytes = key.to_secret_text().into_bytes();
        bytes.push(b'\n');
        bytes.extend(self.to_canonical());
        bytes
    }

    /// Key and mandate in such a file. Whether they belong together is not checked.
    pub(super) fn from_file(bytes: &[u8]) -> Option<(Identity, Self)> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let key = Identity::from_secret_text(std::str::from_utf8(&bytes[..end]).ok()?)?;
        Some((key, Self::from_canonical(&bytes[end + 1..]).ok()?))
    }

    /// What signs, if all this is for `key`, at the coordinator with key `coordinator`, and signed by the farm.
    pub fn signer(&self, key: Identity, coordinator: &Identity) -> Option<Signer> {
        let membership = &self.membership.value;
        let signer = Signer::warranted(key, self.warrant.clone())?;
        let is_own = membership.peer == coordinator.peer()
            && membership.role == Role::Coordinator
            && membership.farm == signer.farm()
            && verify_signed(signer.farm(), &self.membership);
        is_own.then_some(signer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_good_for_one_key_at_one_coordinator() {
        let [root, key, coordinator, other] = [(); 4].map(|()| Identity::generate());
        let mandate = Mandate::new(&root, &key, &coordinator, "box", 1_000, 2_000);
        let bytes = mandate.to_file(&key);
        assert!(bytes.len() as u64 <= MAX_MANDATE_BYTES);
        let (read_key, read) = Mandate::from_file(&bytes).unwrap();
        assert_eq!((read_key.peer(), &read), (key.peer(), &mandate));
        assert_eq!(read.signer(key.clone(), &coordinator).unwrap().farm(), root.peer());
        assert!(read.signer(other.clone(), &coordinator).is_none());
        assert!(read.signer(key.clone(), &other).is_none());
        let foreign = Mandate::new(&other, &key, &coordinator, "box", 1_000, 2_000);
        let mixed = Mandate { membership: foreign.membership, ..mandate };
        assert!(mixed.signer(key, &coordinator).is_none());
        for cut in 0..bytes.len() {
            assert!(Mandate::from_file(&bytes[..cut]).is_none());
        }
    }
}
