//! The rules of the list.

use buildbee_proto::limits::{MAX_MEMBERS, MAX_NAME_BYTES};
use buildbee_proto::membership::{Roster, Ticket, UnixSeconds};
use buildbee_proto::peer::{PeerId, Role};
use proptest::prelude::*;

use super::register::{EnrolError, MEMBERSHIP_SECONDS, Member, REMEMBER_SECONDS, Register, RevokeError, clean_name};

const NOW: UnixSeconds = 1_800_000_000;

fn peer(n: u8) -> PeerId {
    PeerId([n; 32])
}

fn ticket(nonce: u8) -> Ticket {
    Ticket {
        farm: peer(200),
        coordinator: peer(201),
        addresses: vec![],
        role: Role::Agent,
        issued_at: NOW,
        expires_at: NOW + 100,
        uses: 1,
        nonce: [nonce; 16],
    }
}

#[test]
fn a_ticket_lets_one_peer_in_once_and_the_same_peer_again() {
    let mut register = Register::default();
    let membership = register.enrol(&ticket(1), peer(1), "desk-7", NOW).unwrap();
    assert_eq!(membership.name, "desk-7");
    assert_eq!(membership.expires_at, NOW + MEMBERSHIP_SECONDS);
    assert_eq!(register.enrol(&ticket(1), peer(2), "desk-8", NOW), Err(EnrolError::Used));
    assert!(register.enrol(&ticket(1), peer(1), "desk-7", NOW + 50).is_ok());
    assert_eq!(register.roster(peer(200)).members, [(peer(1), Role::Agent)]);
}

#[test]
fn a_ticket_lets_in_as_many_as_it_says() {
    let mut register = Register::default();
    let three = Ticket { uses: 3, ..ticket(1) };
    for n in [1, 2, 2, 3, 1] {
        assert!(register.enrol(&three, peer(n), "", NOW).is_ok());
    }
    assert_eq!(register.enrol(&three, peer(4), "", NOW), Err(EnrolError::Used));
    assert!(register.enrol(&three, peer(3), "", NOW + 1).is_ok(), "who is in may ask again");
}

#[test]
fn a_ticket_that_was_called_back_lets_nobody_in() {
    let mut register = Register::default();
    let three = Ticket { uses: 3, ..ticket(1) };
    register.enrol(&three, peer(1), "", NOW).unwrap();
    register.revoke_ticket(&three, NOW).unwrap();
    register.revoke_ticket(&three, NOW).unwrap();
    assert_eq!(register.used_tickets.len(), 2);
    for n in [1, 2] {
        assert_eq!(register.enrol(&three, peer(n), "", NOW), Err(EnrolError::TicketRevoked));
    }
    assert_eq!(register.roster(peer(200)).members.len(), 1, "who joined before stays");
    assert!(register.enrol(&ticket(2), peer(2), "", NOW).is_ok());
}

#[test]
fn a_lost_list_lets_nobody_in_until_a_member_has_brought_it_back() {
    let mut before = Register::default();
    for n in 1..5 {
        before.enrol(&ticket(n), peer(n), "desk", NOW).unwrap();
    }
    let old = before.roster(peer(200));
    before.revoke(&peer(4).to_string(), NOW).unwrap();
    let new = before.roster(peer(200));
    let later = NOW + 50;
    let mut register = Register::lost(true, later);
    let fresh = |nonce| Ticket { issued_at: later, ..ticket(nonce) };
    assert_eq!(register.enrol(&fresh(10), peer(10), "", later), Err(EnrolError::Recovering));
    assert!(!register.adopt(peer(1), Role::Agent, "desk-1", later));
    assert_eq!(register.renew(peer(200), peer(1), later), None);
    assert!(register.merge(&old, later));
    assert!(!register.merge(&old, later), "no news the second time");
    assert!(register.roster_version >= later && register.roster_version > new.version);
    assert_eq!(register.enrol(&ticket(11), peer(11), "", later), Err(EnrolError::BeforeLoss));
    assert!(register.enrol(&fresh(10), peer(10), "", later).is_ok());
    // Whoever knows more comes later, and with a lower version.
    let version = register.roster_version;
    assert!(register.merge(&new, later));
    assert!(register.roster_version > version);
    assert_eq!(register.roster(peer(200)).revoked, [peer(4)]);
    assert_eq!(register.roster(peer(200)).members.len(), 4);
    assert!(!register.merge(&old, later), "nobody is pardoned");
    assert!(register.adopt(peer(1), Role::Agent, "desk-1", later));
    assert_eq!(register.get(peer(1)).unwrap().name, "desk-1");
    assert!(!register.adopt(peer(4), Role::Agent, "desk-4", later));
    assert!(register.adopt(peer(20), Role::Client, "joined after the last roster that is left", later));
    assert!(!register.adopt(peer(21), Role::Coordinator, "hive", later));
    assert!(Register::lost(false, later).enrol(&fresh(1), peer(1), "", later).is_ok());
}

#[test]
fn a_roster_of_a_coordinator_that_knew_nothing_brings_nothing_back() {
    let nothing = Register::lost(true, NOW).roster(peer(200));
    assert_eq!(nothing.version, 0);
    let mut register = Register::lost(true, NOW);
    assert!(!register.merge(&nothing, NOW + 1));
    assert_eq!(register.enrol(&ticket(1), peer(1), "", NOW + 1), Err(EnrolError::Recovering));
}

#[test]
fn an_old_list_is_made_good_by_a_newer_roster() {
    let mut register = Register::default();
    register.enrol(&ticket(1), peer(1), "desk", NOW).unwrap();
    let backup = register.clone();
    register.enrol(&ticket(2), peer(2), "desk", NOW).unwrap();
    register.revoke(&peer(1).to_string(), NOW).unwrap();
    let (shown, mut register) = (register.roster(peer(200)), backup);
    assert!(register.merge(&shown, NOW + 9));
    assert_eq!(
        (register.roster(peer(200)).members, register.roster(peer(200)).revoked),
        (shown.members, shown.revoked)
    );
    assert_eq!(register.enrol(&ticket(3), peer(3), "", NOW + 9), Err(EnrolError::BeforeLoss));
}

#[test]
fn a_membership_is_renewed_for_members_alone() {
    let mut register = Register::default();
    register.enrol(&ticket(1), peer(1), "desk", NOW).unwrap();
    let version = register.roster_version;
    assert_eq!(register.renew(peer(200), peer(1), NOW + 1), None, "just now");
    let later = NOW + MEMBERSHIP_SECONDS / 2;
    let renewed = register.renew(peer(200), peer(1), later).unwrap();
    assert_eq!((renewed.issued_at, renewed.expires_at), (later, later + MEMBERSHIP_SECONDS));
    assert_eq!((renewed.role, renewed.name.as_str()), (Role::Agent, "desk"));
    assert_eq!(register.roster_version, version, "nobody else has to know");
    assert_eq!(register.renew(peer(200), peer(2), later), None);
    register.revoke("desk", later).unwrap();
    assert_eq!(register.renew(peer(200), peer(1), later + 100), None);
}

#[test]
fn an_expired_ticket_is_refused_to_the_second() {
    let mut register = Register::default();
    assert!(register.enrol(&ticket(1), peer(1), "", NOW + 100).is_ok());
    assert_eq!(register.enrol(&ticket(2), peer(2), "", NOW + 101), Err(EnrolError::Expired));
    assert_eq!(register.enrol(&ticket(3), peer(2), "", u64::MAX), Err(EnrolError::Expired));
}

#[test]
fn a_used_ticket_stays_used_when_the_clock_jumps_back() {
    let mut register = Register::default();
    register.enrol(&ticket(1), peer(1), "", NOW).unwrap();
    assert_eq!(register.enrol(&ticket(2), peer(2), "", NOW + 3_600), Err(EnrolError::Expired));
    assert_eq!(register.enrol(&ticket(1), peer(2), "", NOW), Err(EnrolError::Used));
}

#[test]
fn nobody_becomes_a_coordinator_by_ticket() {
    let coordinator = Ticket { role: Role::Coordinator, ..ticket(1) };
    let result = Register::default().enrol(&coordinator, peer(1), "", NOW);
    assert_eq!(result, Err(EnrolError::Role { role: Role::Coordinator }));
}

#[test]
fn a_revoked_peer_does_not_come_back() {
    let mut register = Register::default();
    register.enrol(&ticket(1), peer(1), "desk-7", NOW).unwrap();
    let before = register.roster_version;
    assert_eq!(register.revoke("desk-7", NOW + 1).unwrap().peer, peer(1));
    assert_eq!(register.roster_version, before + 1);
    assert_eq!(register.roster(peer(200)).revoked, [peer(1)]);
    assert_eq!(register.enrol(&ticket(2), peer(1), "desk-7", NOW + 2), Err(EnrolError::Revoked));
    register.revoke(&peer(1).to_string(), NOW + 3).unwrap();
    assert_eq!(register.roster_version, before + 1, "revoking twice changes nothing");
}

#[test]
fn names_that_are_not_one_member_revoke_nobody() {
    let mut register = Register::default();
    register.enrol(&ticket(1), peer(1), "desk", NOW).unwrap();
    register.enrol(&ticket(2), peer(2), "desk", NOW).unwrap();
    assert!(matches!(register.revoke("desk", NOW), Err(RevokeError::Ambiguous { peers, .. }) if peers.len() == 2));
    assert!(matches!(register.revoke("nobody", NOW), Err(RevokeError::Unknown { .. })));
    assert_eq!(register.revoke(&peer(2).short(), NOW).unwrap().peer, peer(2));
    assert_eq!(register.revoke("desk", NOW).unwrap().peer, peer(1), "the one that is left");
}

#[test]
fn old_things_are_forgotten_but_not_too_early() {
    let mut register = Register::default();
    register.enrol(&ticket(1), peer(1), "a", NOW).unwrap();
    register.revoke("a", NOW).unwrap();
    register.forget_expired(NOW + MEMBERSHIP_SECONDS);
    assert_eq!((register.members.len(), register.used_tickets.len()), (1, 0));
    register.forget_expired(NOW + MEMBERSHIP_SECONDS + REMEMBER_SECONDS + 1);
    assert!(register.members.is_empty());
}

#[test]
fn a_farm_has_a_bound() {
    let mut register = Register::default();
    for n in 0..MAX_MEMBERS {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let peer = PeerId(id);
        let (issued_at, expires_at) = (NOW, NOW + 10);
        register.put(Member {
            peer,
            role: Role::Client,
            name: "x".to_owned(),
            issued_at,
            expires_at,
            revoked_at: None,
        });
    }
    assert!(register.is_sound());
    assert_eq!(register.enrol(&ticket(1), peer(9), "", NOW), Err(EnrolError::Full { max: MAX_MEMBERS }));
}

#[test]
fn a_roster_alone_brings_the_list_back() {
    let mut register = Register::default();
    for n in 1..4 {
        register.enrol(&ticket(n), peer(n), "x", NOW).unwrap();
    }
    register.revoke(&peer(2).to_string(), NOW).unwrap();
    let roster = register.roster(peer(200));
    let again = Register::from_roster(&roster, NOW);
    assert_eq!(again.roster(peer(200)), roster);
    assert!(again.is_sound());
}

proptest! {
    #[test]
    fn names_are_bounded_visible_and_never_empty(name in any::<String>(), long in "\\PC{0,400}") {
        for name in [name, long] {
            let clean = clean_name(&name, peer(1));
            prop_assert!(!clean.is_empty() && clean.len() <= MAX_NAME_BYTES);
            prop_assert!(!clean.chars().any(char::is_control));
        }
    }

    #[test]
    fn rosters_may_come_back_in_any_order(
        rosters in proptest::collection::vec(
            (1_u64..9, proptest::collection::btree_set(0_u8..9, 0..6), proptest::collection::btree_set(0_u8..9, 0..4)),
            1..5,
        ),
        seed: u64,
    ) {
        let rosters: Vec<Roster> = rosters
            .into_iter()
            .map(|(version, members, revoked)| Roster {
                farm: peer(200),
                version,
                members: members.difference(&revoked).map(|n| (peer(*n), Role::Agent)).collect(),
                revoked: revoked.into_iter().map(peer).collect(),
            })
            .collect();
        let merged = |order: &[usize]| {
            let mut register = Register::lost(true, NOW);
            for index in order {
                register.merge(&rosters[*index], NOW);
            }
            let Roster { members, revoked, version, .. } = register.roster(peer(200));
            assert!(register.is_sound() && rosters.iter().all(|roster| version > roster.version));
            (members, revoked)
        };
        let mut order: Vec<usize> = (0..rosters.len()).collect();
        let first = merged(&order);
        let n = order.len();
        order.rotate_left(usize::try_from(seed % n as u64).unwrap());
        order.reverse();
        prop_assert_eq!(merged(&order), first.clone());
        prop_assert!(rosters.iter().all(|roster| roster.revoked.iter().all(|peer| first.1.contains(peer))));
    }

    #[test]
    fn the_list_stays_sound_and_is_stored_and_read_back(
        steps in proptest::collection::vec((0_u8..8, 0_u8..8, any::<bool>(), 0_u64..200), 0..40),
    ) {
        let mut register = Register::default();
        let mut version = register.roster_version;
        for (nonce, who, revoke, later) in steps {
            if revoke {
                let _ = register.revoke(&peer(who).to_string(), NOW + later);
            } else {
                let _ = register.enrol(&ticket(nonce), peer(who), "name", NOW + later);
            }
            prop_assert!(register.roster_version >= version);
            version = register.roster_version;
        }
        prop_assert!(register.is_sound());
        let text = serde_json::to_string(&register).unwrap();
        prop_assert_eq!(serde_json::from_str::<Register>(&text).unwrap(), register);
    }
}
