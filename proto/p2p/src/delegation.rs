//! Whether a signature counts as the farm's: its own key made it, or one that has the farm's warrant for now.
//!
//! Pure: time and roster come in as arguments. A warrant names the farm, holds for `MAX_DELEGATION_SECONDS` at most, and falls with its time
//! or with the signer's revocation; so does all that the signer signed. Not here: what a signer may sign (`admission.rs`, `node.rs`).

use buildbee_proto::canonical::Canonical;
use buildbee_proto::delegation::{Delegation, MAX_DELEGATION_SECONDS, Warrant};
use buildbee_proto::membership::{Roster, Signed, UnixSeconds};
use buildbee_proto::peer::PeerId;
use thiserror::Error;

use crate::admission::{EXPIRY_TOLERANCE, ISSUE_TOLERANCE};
use crate::identity::{Identity, verify};

/// Why a signature is not the farm's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// Signature or warrant do not hold.
    #[error("the signature does not hold")]
    Forged,
    /// The warrant begins later, or is over.
    #[error(
        "the key that signed it may not sign for the farm now (from {issued_at} to {expires_at} seconds of Unix time)"
    )]
    Time {
        /// When the warrant begins.
        issued_at: UnixSeconds,
        /// When it ends.
        expires_at: UnixSeconds,
    },
    /// The signer was sent away.
    #[error("the key that signed it was revoked")]
    Revoked,
}

/// Whether the farm stands behind `signed` at `now`, as far as `roster` tells.
pub fn verify_for<T: Canonical>(
    farm: PeerId,
    signed: &Signed<T>,
    roster: Option<&Roster>,
    now: UnixSeconds,
) -> Result<(), SignatureError> {
    if !verify_ever(farm, signed) {
        return Err(SignatureError::Forged);
    }
    let Some(Warrant { delegation, .. }) = &signed.warrant else { return Ok(()) };
    let Delegation { signer, issued_at, expires_at, .. } = *delegation;
    if now.saturating_add(ISSUE_TOLERANCE) < issued_at || now > expires_at.saturating_add(EXPIRY_TOLERANCE) {
        return Err(SignatureError::Time { issued_at, expires_at });
    }
    if roster.is_some_and(|roster| roster.revoked.binary_search(&signer).is_ok()) {
        return Err(SignatureError::Revoked);
    }
    Ok(())
}

/// Whether the farm has ever stood behind `signed`: for what was checked when it came, and was kept since.
pub fn verify_ever<T: Canonical>(farm: PeerId, signed: &Signed<T>) -> bool {
    let Some(Warrant { delegation, signature }) = &signed.warrant else {
        return verify(farm, &signed.value, &signed.signature);
    };
    let seconds = delegation.expires_at.saturating_sub(delegation.issued_at);
    delegation.farm == farm
        && (1..=MAX_DELEGATION_SECONDS).contains(&seconds)
        && verify(farm, delegation, signature)
        && verify(delegation.signer, &signed.value, &signed.signature)
}

/// What signs for a farm: its own key, or another that has a warrant.
#[derive(Clone, Debug)]
pub struct Signer {
    key: Identity,
    warrant: Option<Warrant>,
}

impl Signer {
    /// The farm's own key.
    pub fn own(key: Identity) -> Self {
        Self { key, warrant: None }
    }

    /// A key that has the farm's warrant. `None` if it is another key's.
    pub fn warranted(key: Identity, warrant: Warrant) -> Option<Self> {
        let holds = warrant.delegation.signer == key.peer()
            && verify(warrant.delegation.farm, &warrant.delegation, &warrant.signature);
        holds.then_some(Self { key, warrant: Some(warrant) })
    }

    /// The farm.
    pub fn farm(&self) -> PeerId {
        self.warrant.as_ref().map_or_else(|| self.key.peer(), |warrant| warrant.delegation.farm)
    }

    /// The warrant, unless the key is the farm's own.
    pub fn warrant(&self) -> Option<&Warrant> {
        self.warrant.as_ref()
    }

    /// The farm's own key, if this is it.
    pub fn own_key(&self) -> Option<&Identity> {
        self.warrant.is_none().then_some(&self.key)
    }

    /// `value` with the farm's signature.
    pub fn signed<T: Canonical>(&self, value: T) -> Signed<T> {
        Signed { warrant: self.warrant.clone(), ..self.key.signed(value) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixSeconds = 1_800_000_000;
    const DAY: UnixSeconds = 24 * 60 * 60;

    fn roster(farm: PeerId, revoked: Vec<PeerId>) -> Roster {
        Roster { farm, version: 3, members: vec![], revoked }
    }

    fn delegation(farm: &Identity, signer: PeerId) -> Delegation {
        Delegation { farm: farm.peer(), signer, issued_at: NOW, expires_at: NOW + 30 * DAY }
    }

    fn warrant(farm: &Identity, delegation: Delegation) -> Warrant {
        Warrant { signature: farm.sign(&delegation), delegation }
    }

    fn signed(farm: &Identity, key: &Identity, delegation: Delegation) -> Signed<Roster> {
        let signed = key.signed(roster(farm.peer(), vec![]));
        Signed { warrant: Some(warrant(farm, delegation)), ..signed }
    }

    #[test]
    fn a_warranted_signature_counts_for_its_time() {
        let (farm, key) = (Identity::generate(), Identity::generate());
        let signer = Signer::warranted(key.clone(), warrant(&farm, delegation(&farm, key.peer()))).unwrap();
        assert_eq!((signer.farm(), signer.own_key().is_none()), (farm.peer(), true));
        let good = signer.signed(roster(farm.peer(), vec![]));
        let end = NOW + 30 * DAY;
        for (at, counts) in [
            (NOW - ISSUE_TOLERANCE - 1, false),
            (NOW, true),
            (end + EXPIRY_TOLERANCE, true),
            (end + EXPIRY_TOLERANCE + 1, false),
            (u64::MAX, false),
        ] {
            assert_eq!(verify_for(farm.peer(), &good, None, at).is_ok(), counts, "{at}");
        }
        let strict = roster(farm.peer(), vec![key.peer()]);
        assert_eq!(verify_for(farm.peer(), &good, Some(&strict), NOW), Err(SignatureError::Revoked));
    }

    #[test]
    fn nobody_makes_a_warrant_but_the_farm() {
        let (farm, key, thief) = (Identity::generate(), Identity::generate(), Identity::generate());
        let check = |signed: &Signed<Roster>| verify_for(farm.peer(), signed, None, NOW);
        let good = signed(&farm, &key, delegation(&farm, key.peer()));
        assert_eq!(check(&good), Ok(()));
        assert_eq!(check(&Signed { warrant: None, ..good.clone() }), Err(SignatureError::Forged));
        // A signer's own signature under a warrant is no warrant.
        let onward = Signed {
            warrant: Some(warrant(&key, delegation(&farm, thief.peer()))),
            ..thief.signed(roster(farm.peer(), vec![]))
        };
        assert_eq!(check(&onward), Err(SignatureError::Forged));
        let stolen = signed(&farm, &thief, delegation(&farm, key.peer()));
        assert_eq!(check(&stolen), Err(SignatureError::Forged));
        let other = Identity::generate();
        assert_eq!(check(&signed(&other, &key, delegation(&other, key.peer()))), Err(SignatureError::Forged));
        let mut longer = good.clone();
        longer.warrant.as_mut().unwrap().delegation.expires_at += 1;
        assert_eq!(check(&longer), Err(SignatureError::Forged));
        let endless = Delegation { expires_at: NOW + MAX_DELEGATION_SECONDS + 1, ..delegation(&farm, key.peer()) };
        assert_eq!(check(&signed(&farm, &key, endless)), Err(SignatureError::Forged), "even by the farm's key");
        assert!(Signer::warranted(thief, warrant(&farm, delegation(&farm, key.peer()))).is_none());
    }

    proptest! {
        #[test]
        fn no_flipped_bit_is_taken(bit in 0_usize..8 * 400) {
            let (farm, key) = (Identity::generate(), Identity::generate());
            let mut bytes = signed(&farm, &key, delegation(&farm, key.peer())).to_canonical();
            let bit = bit % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            let taken = Signed::<Roster>::from_canonical(&bytes)
                .is_ok_and(|signed| verify_for(farm.peer(), &signed, None, NOW).is_ok());
            prop_assert!(!taken);
        }
    }
}
