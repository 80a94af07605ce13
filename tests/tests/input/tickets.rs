//! Tickets that let nobody in, and joining twice.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use buildbee_p2p::enrolment::Enrolment;
use buildbee_p2p::identity::Identity;
use buildbee_proto::membership::{Signed, Ticket};
use buildbee_proto::peer::Role;
use buildbee_tests::farm::{Farm, Options};

use crate::place::{Place, refused, run};

fn farm() -> Farm {
    Farm::up(Options { n_agents: 0, ..Options::default() })
}

/// The two programs that join, with a fresh place each.
fn joins(place: &Place, ticket: &str) -> [(Command, PathBuf); 2] {
    let mut client = place.buildbee(&["join", ticket]);
    client.env("BUILDBEE_STATE_DIR", place.path("client"));
    let mut agent = place.program("buildbee-agent");
    agent.args(["join", ticket, "--state-dir"]).arg(place.path("agent"));
    [(client, place.path("client/enrolment")), (agent, place.path("agent/enrolment"))]
}

fn role(index: usize) -> &'static str {
    ["client", "agent"][index]
}

/// A ticket that is good for `expires`.
fn invite(farm: &Farm, role: &str, expires: &str) -> String {
    let mut invite = farm.program("buildbee-coordinator");
    invite.args(["invite", "--role", role, "--expires", expires, "--state-dir"]).arg(farm.path("coordinator"));
    let output = farm.must_run(&mut invite);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn members(farm: &Farm) -> usize {
    let mut members = farm.program("buildbee-coordinator");
    members.args(["members", "--json", "--state-dir"]).arg(farm.path("coordinator"));
    let output = farm.must_run(&mut members);
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap().as_array().unwrap().len()
}

/// The ticket, changed and with a right checksum.
fn tampered(ticket: &str, change: impl FnOnce(&mut Ticket)) -> String {
    let mut signed = Signed::<Ticket>::from_text(ticket).unwrap();
    change(&mut signed.value);
    signed.to_text()
}

#[test]
fn text_that_is_no_ticket() {
    let place = Place::new();
    let key = Identity::generate();
    let ticket = key
        .signed(Ticket {
            farm: key.peer(),
            coordinator: key.peer(),
            addresses: vec!["127.0.0.1:1".to_owned()],
            role: Role::Agent,
            issued_at: 0,
            expires_at: u64::MAX,
            uses: 1,
            nonce: [7; 16],
        })
        .to_text();
    let cut = &ticket[..ticket.len() - 9];
    let flipped = ticket.replace(&ticket[40..44], "0000");
    assert_ne!(flipped, ticket);
    for (text, part) in [
        ("", "starts with \"buildbee-ticket-\""),
        ("please", "starts with \"buildbee-ticket-\""),
        ("buildbee-ticket-", "damaged"),
        ("buildbee-ticket-xyz", "damaged"),
        (cut, "damaged"),
        (&flipped, "damaged"),
    ] {
        for (mut join, enrolment) in joins(&place, text) {
            refused(&mut join, 2, &[part]);
            assert!(!enrolment.exists());
        }
    }
}

#[test]
fn tickets_that_are_expired_tampered_with_or_of_another_farm() {
    let farm = farm();
    let place = Place::new();
    let n_before = members(&farm);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for index in 0..2 {
        let role = role(index);
        let good = invite(&farm, role, "1h");
        let join = |ticket: &str, code: i32, parts: &[&str]| {
            let (mut command, enrolment) = joins(&place, ticket).into_iter().nth(index).unwrap();
            refused(&mut command, code, parts);
            assert!(!enrolment.exists());
        };
        let short = invite(&farm, role, "1s");
        std::thread::sleep(Duration::from_millis(2100));
        join(&short, 1, &["has expired"]);
        join(&tampered(&short, |ticket| ticket.expires_at = now + 1000), 1, &["signature does not hold"]);
        join(&tampered(&good, |ticket| ticket.nonce[0] ^= 1), 1, &["signature does not hold"]);
        // A farm that somebody made up, with this farm's coordinator in its ticket.
        let forger = Identity::generate();
        let mut foreign = Signed::<Ticket>::from_text(&good).unwrap().value;
        foreign.farm = forger.peer();
        join(&forger.signed(foreign).to_text(), 1, &["the coordinator refuses", "farm"]);
        // Another coordinator than the one that answers there.
        let mut elsewhere = Signed::<Ticket>::from_text(&good).unwrap().value;
        elsewhere.farm = forger.peer();
        elsewhere.coordinator = forger.peer();
        join(&forger.signed(elsewhere).to_text(), 1, &["answers where the ticket expects"]);
    }
    assert_eq!(members(&farm), n_before);
}

#[test]
fn a_ticket_is_good_once_and_for_what_it_says() {
    let farm = farm();
    let (first, second) = (Place::new(), Place::new());
    for index in 0..2 {
        let ticket = invite(&farm, role(index), "1h");
        let (mut join, enrolment) = joins(&first, &ticket).into_iter().nth(index).unwrap();
        assert_eq!(run(&mut join).code, Some(0));
        let before = fs::read(&enrolment).unwrap();
        let (mut again, stolen) = joins(&second, &ticket).into_iter().nth(index).unwrap();
        refused(&mut again, 1, &["the coordinator refuses", "used"]);
        assert!(!stolen.exists());
        assert_eq!(fs::read(&enrolment).unwrap(), before);
    }
    let (mut agent, _) = joins(&second, &invite(&farm, "client", "1h")).into_iter().nth(1).unwrap();
    refused(&mut agent, 2, &["the ticket is for a client"]);
}

#[test]
fn a_ticket_lets_in_as_many_as_it_says_until_it_is_called_back() {
    let farm = farm();
    let coordinator = |words: &[&str]| farm.must_run(&mut farm.coordinator_command(words)).stdout;
    let join = |ticket: &str| {
        let place = Place::new();
        let (mut join, _) = joins(&place, ticket).into_iter().next().unwrap();
        run(&mut join)
    };
    let ticket =
        String::from_utf8(coordinator(&["invite", "--uses", "3", "--address", &farm.coordinator_address()])).unwrap();
    let ticket = ticket.trim();
    assert_eq!([join(ticket).code, join(ticket).code], [Some(0), Some(0)]);
    coordinator(&["revoke", ticket]);
    let said = join(ticket);
    assert!(said.code == Some(1) && said.err.contains("was revoked") && said.err.contains("\nhint: "), "{said:?}");
    let foreign = Identity::generate();
    let ours = Signed::<Ticket>::from_text(ticket).unwrap().value;
    let forged = foreign.signed(ours).to_text();
    refused(&mut farm.coordinator_command(&["revoke", &forged]), 2, &["no ticket of this farm"]);
    refused(&mut farm.coordinator_command(&["revoke", &ticket[..40]]), 2, &["damaged"]);
}

#[test]
fn who_has_joined_may_renew_and_is_not_moved_to_another_farm() {
    let (farm, other) = (farm(), farm());
    let place = Place::new();
    for index in 0..2 {
        let join = |ticket: &str| joins(&place, ticket).into_iter().nth(index).unwrap();
        let (mut first, file) = join(&invite(&farm, role(index), "1h"));
        assert_eq!(run(&mut first).code, Some(0));
        let held = Enrolment::load(&file).unwrap().unwrap();
        let foreign = invite(&other, role(index), "1h");
        refused(&mut join(&foreign).0, 2, &["this machine belongs to farm", "the ticket is of farm"]);
        assert_eq!(Enrolment::load(&file).unwrap().unwrap(), held, "the membership is lost");
        // The ticket is not used up by that: somebody else can still join with it.
        let elsewhere = Place::new();
        assert_eq!(run(&mut joins(&elsewhere, &foreign)[index].0).code, Some(0));
        // The same farm again: a new membership for the same key.
        assert_eq!(run(&mut join(&invite(&farm, role(index), "1h")).0).code, Some(0));
        let renewed = Enrolment::load(&file).unwrap().unwrap();
        assert_eq!(renewed.membership.value.peer, held.membership.value.peer);
        // A damaged membership is named, and joining again mends it.
        fs::write(&file, "buildbee-enrolment-1\nmembership 00\n").unwrap();
        if index == 1 {
            let mut serve = place.program("buildbee-agent");
            serve.args(["serve", "--no-mdns", "--listen", "127.0.0.1:0", "--state-dir"]).arg(place.path("agent"));
            refused(&mut serve, 1, &["enrolment", "damaged in line 2"]);
        }
        assert_eq!(run(&mut join(&invite(&farm, role(index), "1h")).0).code, Some(0));
        assert_eq!(Enrolment::load(&file).unwrap().unwrap().membership.value.peer, held.membership.value.peer);
    }
}
