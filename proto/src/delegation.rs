//! That a key signs for the farm for some time, so that the farm's own key can be kept offline.
//!
//! A warrant stands behind the signature of whatever its signer signed. It is signed by the farm's key itself: a type that holds no further
//! warrant, so that a chain of three can't be written down. Types and encodings only; who is believed is `buildbee_p2p::delegation`.

use crate::canonical::{Canonical, CanonicalError, Reader, Writer};
use crate::membership::UnixSeconds;
use crate::peer::{PeerId, Signature};

/// Longest time that a key may sign for a farm, in seconds: 400 days. Nobody believes a longer one, whoever signed it.
pub const MAX_DELEGATION_SECONDS: UnixSeconds = 400 * 24 * 60 * 60;

/// Who signs for the farm, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The farm's public key, which signs this.
    pub farm: PeerId,
    /// The key that signs for it.
    pub signer: PeerId,
    /// From when.
    pub issued_at: UnixSeconds,
    /// Until when: also the end of all that the signer signed.
    pub expires_at: UnixSeconds,
}

impl Canonical for Delegation {
    const TAG: [u8; 4] = *b"bbd1";

    fn encode(&self, out: &mut Writer) {
        out.raw(&self.farm.0);
        out.raw(&self.signer.0);
        out.u64(self.issued_at);
        out.u64(self.expires_at);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let delegation = Self {
            farm: PeerId(input.array()?),
            signer: PeerId(input.array()?),
            issued_at: input.u64()?,
            expires_at: input.u64()?,
        };
        let is_bounded = delegation
            .expires_at
            .checked_sub(delegation.issued_at)
            .is_some_and(|seconds| (1..=MAX_DELEGATION_SECONDS).contains(&seconds));
        if is_bounded { Ok(delegation) } else { Err(CanonicalError::Range("time of a delegation")) }
    }
}

/// A delegation with the signature of the farm's key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warrant {
    /// What was signed.
    pub delegation: Delegation,
    /// By the farm's key.
    pub signature: Signature,
}

impl Canonical for Warrant {
    const TAG: [u8; 4] = *b"bbds";

    fn encode(&self, out: &mut Writer) {
        self.delegation.encode(out);
        out.raw(&self.signature.0);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self { delegation: Delegation::decode(input)?, signature: Signature(input.array()?) })
    }
}
