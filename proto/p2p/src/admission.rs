//! Whether a membership that a peer shows is good.
//!
//! Pure: time, roster and the peer's proven id come in as arguments. Not here: the exchange ([`crate::hello`]).

use std::sync::Arc;

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::membership::{Membership, Roster, Signed, UnixSeconds};
use buildbee_proto::peer::{PeerId, Role};
use thiserror::Error;

use crate::delegation::{SignatureError, verify_for};

/// For how long after its end a membership still counts, in seconds: clocks of an office differ by some minutes.
pub(crate) const EXPIRY_TOLERANCE: UnixSeconds = 10 * 60;
/// How far in the future a membership may begin, in seconds: a board without a battery can wake up in yesterday.
pub(crate) const ISSUE_TOLERANCE: UnixSeconds = 24 * 60 * 60;

/// What is wrong with a membership.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AdmissionError {
    /// The bytes are no membership.
    #[error("the membership is damaged")]
    Damaged,
    /// It is of another farm.
    #[error("the membership is of another farm ({})", found.short())]
    OtherFarm {
        /// The farm it names.
        found: PeerId,
    },
    /// The farm's key did not sign it.
    #[error("the membership's signature does not hold")]
    Forged,
    /// The key that signed it does not sign for the farm now.
    #[error("the membership does not count: {0}")]
    Signer(SignatureError),
    /// The key that signed it may not sign that.
    #[error("the key that signed the membership may not: it is a coordinator's, or outlives the key's warrant")]
    BeyondWarrant,
    /// It names another peer than the one that shows it.
    #[error("the membership is of another peer ({})", named.short())]
    OtherPeer {
        /// The peer it names.
        named: PeerId,
    },
    /// It begins later.
    #[error("the membership begins in the future (at {issued_at} seconds of Unix time): one of the clocks is wrong")]
    NotYet {
        /// When it begins.
        issued_at: UnixSeconds,
    },
    /// It has ended.
    #[error("the membership has expired (at {expires_at} seconds of Unix time)")]
    Expired {
        /// When it ended.
        expires_at: UnixSeconds,
    },
    /// The roster says that it counts no more.
    #[error("the membership was revoked")]
    Revoked,
}

/// What memberships are checked against.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) farm: PeerId,
    pub(crate) roster: Option<Arc<Signed<Roster>>>,
}

impl Gate {
    pub(crate) fn is_revoked(&self, peer: PeerId) -> bool {
        self.roster.as_ref().is_some_and(|roster| roster.value.revoked.binary_search(&peer).is_ok())
    }

    /// The membership in `bytes` if `shown_by`, whose id the transport has proven, is a member now.
    pub(crate) fn check(&self, bytes: &[u8], shown_by: PeerId, now: UnixSeconds) -> Result<Membership, AdmissionError> {
        let signed = Signed::<Membership>::from_canonical(bytes).map_err(|_| AdmissionError::Damaged)?;
        self.check_signed(signed, shown_by, now)
    }

    /// As [`check`](Self::check), for a membership that is decoded already.
    pub(crate) fn check_signed(
        &self,
        signed: Signed<Membership>,
        shown_by: PeerId,
        now: UnixSeconds,
    ) -> Result<Membership, AdmissionError> {
        if signed.value.farm != self.farm {
            return Err(AdmissionError::OtherFarm { found: signed.value.farm });
        }
        let roster = self.roster.as_ref().map(|roster| &roster.value);
        verify_for(self.farm, &signed, roster, now).map_err(|error| match error {
            SignatureError::Forged => AdmissionError::Forged,
            other => AdmissionError::Signer(other),
        })?;
        if let Some(warrant) = &signed.warrant {
            // Whoever steals a signer must not become a coordinator, nor make memberships that outlive the warrant.
            if signed.value.role == Role::Coordinator || signed.value.expires_at > warrant.delegation.expires_at {
                return Err(AdmissionError::BeyondWarrant);
            }
        }
        let membership = signed.value;
        if membership.peer != shown_by {
            return Err(AdmissionError::OtherPeer { named: membership.peer });
        }
        if membership.issued_at > now.saturating_add(ISSUE_TOLERANCE) {
            return Err(AdmissionError::NotYet { issued_at: membership.issued_at });
        }
        if has_expired(&membership, now) {
            return Err(AdmissionError::Expired { expires_at: membership.expires_at });
        }
        if self.is_revoked(shown_by) {
            return Err(AdmissionError::Revoked);
        }
        Ok(membership)
    }
}

/// Whether the membership's time is over.
pub(crate) fn has_expired(membership: &Membership, now: UnixSeconds) -> bool {
    now > membership.expires_at.saturating_add(EXPIRY_TOLERANCE)
}

#[cfg(test)]
mod tests {
    use buildbee_proto::delegation::{Delegation, Warrant};
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Identity;

    const NOW: UnixSeconds = 1_800_000_000;

    fn membership(farm: &Identity, peer: PeerId) -> Membership {
        Membership {
            farm: farm.peer(),
            peer,
            role: Role::Agent,
            name: "desk-7".to_owned(),
            issued_at: NOW - 100,
            expires_at: NOW + 100,
        }
    }

    fn gate(farm: &Identity) -> Gate {
        Gate { farm: farm.peer(), roster: None }
    }

    #[test]
    fn a_good_membership_is_taken() {
        let farm = Identity::generate();
        let peer = Identity::generate().peer();
        let expected = membership(&farm, peer);
        let bytes = farm.signed(expected.clone()).to_canonical();
        assert_eq!(gate(&farm).check(&bytes, peer, NOW), Ok(expected));
    }

    #[test]
    fn each_fault_is_told_apart() {
        let farm = Identity::generate();
        let other = Identity::generate();
        let peer = Identity::generate().peer();
        let check = |signed: &Signed<Membership>, by| gate(&farm).check(&signed.to_canonical(), by, NOW);
        let good = membership(&farm, peer);

        let foreign = other.signed(membership(&other, peer));
        assert_eq!(check(&foreign, peer), Err(AdmissionError::OtherFarm { found: other.peer() }));
        let forged = other.signed(good.clone());
        assert_eq!(check(&forged, peer), Err(AdmissionError::Forged));
        let stolen = farm.signed(good.clone());
        assert_eq!(check(&stolen, other.peer()), Err(AdmissionError::OtherPeer { named: peer }));
        let mut altered = farm.signed(good.clone());
        altered.value.role = Role::Coordinator;
        assert_eq!(check(&altered, peer), Err(AdmissionError::Forged));
        let late = farm.signed(Membership { expires_at: NOW - EXPIRY_TOLERANCE - 1, ..good.clone() });
        assert!(matches!(check(&late, peer), Err(AdmissionError::Expired { .. })));
        let early = farm.signed(Membership { issued_at: NOW + ISSUE_TOLERANCE + 1, ..good.clone() });
        assert!(matches!(check(&early, peer), Err(AdmissionError::NotYet { .. })));
        let revoked = Roster { farm: farm.peer(), version: 1, members: vec![], revoked: vec![peer] };
        let strict = Gate { farm: farm.peer(), roster: Some(Arc::new(farm.signed(revoked))) };
        let bytes = farm.signed(good).to_canonical();
        assert_eq!(strict.check(&bytes, peer, NOW), Err(AdmissionError::Revoked));
    }

    #[test]
    fn a_signer_makes_neither_coordinators_nor_what_outlives_it() {
        let (farm, signer) = (Identity::generate(), Identity::generate());
        let peer = Identity::generate().peer();
        let (issued_at, expires_at) = (NOW - 200, NOW + 100);
        let delegation = Delegation { farm: farm.peer(), signer: signer.peer(), issued_at, expires_at };
        let warrant = Warrant { signature: farm.sign(&delegation), delegation };
        let check = |value: Membership, revoked: Vec<PeerId>| {
            let roster = Roster { farm: farm.peer(), version: 1, members: vec![], revoked };
            let gate = Gate { farm: farm.peer(), roster: Some(Arc::new(farm.signed(roster))) };
            gate.check_signed(Signed { warrant: Some(warrant.clone()), ..signer.signed(value) }, peer, NOW)
        };
        let good = membership(&farm, peer);
        assert_eq!(check(good.clone(), vec![]), Ok(good.clone()));
        let coordinator = Membership { role: Role::Coordinator, ..good.clone() };
        assert_eq!(check(coordinator, vec![]), Err(AdmissionError::BeyondWarrant));
        let longer = Membership { expires_at: NOW + 101, ..good.clone() };
        assert_eq!(check(longer, vec![]), Err(AdmissionError::BeyondWarrant));
        let revoked = check(good, vec![signer.peer()]);
        assert_eq!(revoked, Err(AdmissionError::Signer(SignatureError::Revoked)));
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let farm = Identity::generate();
        let peer = Identity::generate().peer();
        let good = membership(&farm, peer);
        let late = farm.signed(Membership { expires_at: NOW - EXPIRY_TOLERANCE, ..good.clone() });
        assert!(gate(&farm).check_signed(late, peer, NOW).is_ok());
        let early = farm.signed(Membership { issued_at: NOW + ISSUE_TOLERANCE, ..good.clone() });
        assert!(gate(&farm).check_signed(early, peer, NOW).is_ok());
        let endless = farm.signed(Membership { expires_at: u64::MAX, ..good });
        assert!(gate(&farm).check_signed(endless, peer, u64::MAX).is_ok());
    }

    proptest! {
        #[test]
        fn no_flipped_bit_is_taken(bit in 0_usize..8 * 180) {
            let farm = Identity::generate();
            let peer = Identity::generate().peer();
            let mut bytes = farm.signed(membership(&farm, peer)).to_canonical();
            let bit = bit % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(gate(&farm).check(&bytes, peer, NOW).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let farm = Identity::generate();
            prop_assert!(gate(&farm).check(&bytes, farm.peer(), NOW).is_err());
        }
    }
}
