//! The state folder's farm.

use std::fs;
use std::path::Path;

use buildbee_p2p::delegation::verify_for;
use buildbee_p2p::identity::{Identity, verify_signed};
use buildbee_proto::membership::{Signed, Ticket, UnixSeconds};
use buildbee_proto::peer::{PeerId, Role};

use super::farm::{Enrolled, Farm, FarmError, MANDATE, REGISTER, ROSTER};
use super::key_file::Keys;
use super::register::EnrolError;

const NOW: UnixSeconds = 1_800_000_000;

fn farm(folder: &Path) -> Farm {
    Farm::open(folder, NOW).unwrap()
}

fn ticket(farm: &Farm, nonce: u8) -> Signed<Ticket> {
    let addresses = vec!["127.0.0.1:7470".to_owned()];
    let (role, nobody) = (Role::Client, PeerId([0; 32]));
    let (issued_at, expires_at) = (NOW, NOW + 100);
    let nonce = [nonce; 16];
    farm.invite(Ticket { farm: nobody, coordinator: nobody, addresses, role, issued_at, expires_at, uses: 1, nonce })
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
    for (text, expected) in [("{", "is damaged"), ("{\"format\":3}", "format 3"), ("{\"format\":2}", "missing field")] {
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

/// What a coordinator's folder can't be without: the text of its keys.
#[test]
fn a_farm_whose_folder_is_gone_comes_back_from_its_keys_and_a_member() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = farm(folder.path());
    for n in 1..4 {
        first.enrol(&ticket(&first, n), PeerId([n; 32]), "desk", NOW).unwrap();
    }
    let old = first.read_roster().unwrap().unwrap();
    first.revoke(&PeerId([3; 32]).to_string(), NOW).unwrap();
    let shown = first.read_roster().unwrap().unwrap();
    let (text, id, peer) = (first.keys().unwrap().to_text(), first.id(), first.identity().peer());
    let (unused, later) = (ticket(&first, 9), NOW + 10);
    drop((first, folder));

    let again = Farm::import(elsewhere.path(), &Keys::from_text(&text).unwrap(), true, &[], later).unwrap();
    assert_eq!((again.id(), again.identity().peer()), (id, peer));
    assert!(
        again.was_lost().unwrap() && again.read_roster().unwrap().is_none(),
        "nothing is said before anything is known"
    );
    drop(again);
    let again = Farm::open(elsewhere.path(), later).unwrap();
    assert!(!again.is_new() && again.read_roster().unwrap().is_none());
    let stranger = Identity::generate().peer();
    assert_eq!(enrol_error(again.enrol(&unused, stranger, "x", later)), EnrolError::Recovering);
    let forged = Identity::generate().signed(shown.value.clone());
    assert!(again.merge(&forged, later).is_err());
    again.merge(&old, later).unwrap().unwrap();
    let merged = again.merge(&shown, later).unwrap().unwrap();
    assert!(verify_signed(id, &merged) && merged.value.version > shown.value.version);
    assert_eq!((&merged.value.members, &merged.value.revoked), (&shown.value.members, &shown.value.revoked));
    assert_eq!(again.read_roster().unwrap().unwrap(), merged);
    assert!(again.merge(&shown, later).unwrap().is_none());
    assert_eq!(enrol_error(again.enrol(&unused, stranger, "x", later)), EnrolError::BeforeLoss);
    let vouched = again.vouch(PeerId([1; 32]), Role::Client, "desk-1", true, later + 100).unwrap();
    let membership = vouched.membership.unwrap();
    assert!(verify_signed(id, &membership) && membership.value.name == "desk-1");
    assert!(vouched.roster.is_none(), "nobody else is concerned");
    assert!(again.vouch(PeerId([3; 32]), Role::Client, "desk-3", true, later + 100).unwrap().membership.is_none());
}

#[test]
fn keys_are_imported_into_an_empty_folder_only() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, other) = (farm(folder.path()), farm(elsewhere.path()));
    for farm in [&first, &other] {
        farm.enrol(&ticket(farm, 1), PeerId([1; 32]), "x", NOW).unwrap();
    }
    let error = Farm::import(elsewhere.path(), &first.keys().unwrap(), true, &[], NOW).unwrap_err();
    assert!(matches!(&error, FarmError::Occupied { farm, .. } if *farm == other.id()), "{error}");
    let error = Farm::import(folder.path(), &first.keys().unwrap(), true, &[], NOW).unwrap_err();
    assert!(error.to_string().contains("\nhint: "), "{error}");
    // Somebody waits in vain for members, and says that there are none.
    let empty = tempfile::tempdir().unwrap();
    Farm::import(empty.path(), &first.keys().unwrap(), true, &[], NOW).unwrap();
    let again = Farm::import(empty.path(), &first.keys().unwrap(), false, &[], NOW).unwrap();
    assert!(again.read_roster().unwrap().unwrap().value.members.is_empty());
    again.enrol(&ticket(&again, 1), PeerId([1; 32]), "x", NOW).unwrap();
    assert!(Farm::import(empty.path(), &first.keys().unwrap(), false, &[], NOW).is_err(), "it has members now");
    // What installing the coordinator left is in nobody's way, unless it runs.
    let fresh = tempfile::tempdir().unwrap();
    let unused = farm(fresh.path());
    let serving = unused.serve().unwrap();
    assert!(Farm::import(fresh.path(), &first.keys().unwrap(), true, &[], NOW).is_err());
    drop(serving);
    let meet = ["desk-7:7471".to_owned(), "desk-8:7471".to_owned()];
    Farm::import(fresh.path(), &first.keys().unwrap(), true, &meet, NOW).unwrap();
    let again = farm(fresh.path());
    assert_eq!((again.id(), again.to_meet().unwrap()), (first.id(), meet.to_vec()));
    assert!(again.is_recovering().unwrap() && first.to_meet().unwrap().is_empty());
}

#[test]
fn a_coordinator_goes_on_without_the_farms_key_for_some_time() {
    const DAY: UnixSeconds = 24 * 60 * 60;
    let folder = tempfile::tempdir().unwrap();
    let first = farm(folder.path());
    let (keys, id, peer) = (first.keys().unwrap(), first.id(), first.identity().peer());
    let before = first.enrol(&ticket(&first, 1), PeerId([1; 32]), "desk-1", NOW).unwrap();
    let end = NOW + 30 * DAY;
    let farm = Farm::delegate(folder.path(), &keys, "box", NOW, end).unwrap();
    assert!(!folder.path().join("farm.key").exists());
    assert_eq!((farm.id(), farm.identity().peer(), farm.signs_until()), (id, peer, Some(end)));
    assert!(!farm.is_new());
    assert!(matches!(farm.keys(), Err(FarmError::KeyElsewhere)));
    assert!(verify_signed(id, &farm.own_membership("box", NOW)), "by the farm's key itself");
    let roster = farm.read_roster().unwrap().unwrap();
    assert!(roster.warrant.is_some() && roster.value.version > before.roster.value.version);
    assert_eq!(roster.value.members, before.roster.value.members);

    // Tickets from before count, memberships end with the warrant.
    let late = farm.enrol(&ticket(&first, 2), PeerId([2; 32]), "desk-2", NOW).unwrap();
    assert_eq!(late.membership.value.expires_at, end);
    let new = farm.enrol(&ticket(&farm, 3), PeerId([3; 32]), "desk-3", NOW).unwrap();
    assert!(verify_for(id, &new.membership, Some(&new.roster.value), NOW).is_ok());
    let renew = |farm: &Farm, now| farm.vouch(PeerId([3; 32]), Role::Client, "desk-3", true, now).unwrap().membership;
    assert!(renew(&farm, NOW + 3_600).is_none(), "it would hold no longer");
    assert!(renew(&farm, NOW + DAY).is_some(), "an answer may have been lost");

    // Again before it is over, by another key; what the one before signed goes on.
    let again = Farm::delegate(folder.path(), &keys, "box", NOW + 20 * DAY, end + 20 * DAY).unwrap();
    assert!(again.read_roster().unwrap().unwrap().value.version > new.roster.value.version);
    assert_eq!(renew(&again, NOW + 20 * DAY + 1).unwrap().value.expires_at, end + 20 * DAY);
    let error = Farm::open(folder.path(), end + 20 * DAY + 1).unwrap_err();
    assert!(matches!(error, FarmError::WarrantOver { .. }), "{error}");
    assert!(Farm::delegate(folder.path(), &keys, "box", end + 21 * DAY, end + 40 * DAY).is_ok(), "never too late");
}

#[test]
fn a_signing_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let keys = farm(folder.path()).keys().unwrap();
    Farm::delegate(folder.path(), &keys, "box", NOW, NOW + 30 * 24 * 60 * 60).unwrap();
    let file = folder.path().join(MANDATE);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        Farm::open(folder.path(), NOW),
        Err(FarmError::Identity(buildbee_p2p::identity::IdentityError::Mode { .. }))
    ));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Farm::open(folder.path(), NOW).is_ok());
}

#[test]
fn a_delegation_is_for_the_folder_of_its_farm() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (own, other) = (farm(folder.path()), farm(elsewhere.path()));
    let end = NOW + 1_000_000;
    let refused = Farm::delegate(folder.path(), &other.keys().unwrap(), "box", NOW, end).unwrap_err();
    assert!(matches!(refused, FarmError::OtherKey { .. }) && refused.to_string().contains("\nhint: "));
    assert!(folder.path().join("farm.key").exists(), "nothing was done");
    let serving = own.serve().unwrap();
    assert!(Farm::delegate(folder.path(), &own.keys().unwrap(), "box", NOW, end).is_err(), "it runs");
    drop(serving);
    Farm::delegate(folder.path(), &own.keys().unwrap(), "box", NOW, end).unwrap();
    let occupied = Farm::import(folder.path(), &other.keys().unwrap(), true, &[], NOW).unwrap_err();
    assert!(matches!(occupied, FarmError::Occupied { .. }), "{occupied}");
    fs::write(folder.path().join(MANDATE), "x").unwrap();
    assert!(matches!(Farm::open(folder.path(), NOW), Err(FarmError::BadMandate { .. })));
    assert!(!folder.path().join("farm.key").exists(), "no new farm in its place");
}
