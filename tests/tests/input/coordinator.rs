//! A coordinator that can't serve says why.

use std::fs;
use std::net::TcpListener;

use buildbee_tests::farm::{Farm, Options};

use crate::place::{Place, refused, run};

#[test]
fn a_port_that_is_taken() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut serve = place.program("buildbee-coordinator");
    serve
        .args(["serve", "--no-mdns", "--status", "off", "--listen", &address, "--ready-file"])
        .arg(place.path("ready"));
    let said = run(serve.arg("--state-dir").arg(place.path("state")));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains(&format!("can't listen on {address}")) && said.err.contains("\nhint: "), "{said:?}");
    assert!(!place.path("ready").exists());
}

#[test]
fn one_state_folder_serves_one_coordinator() {
    let farm = Farm::up(Options { n_agents: 0, ..Options::default() });
    let mut second = farm.program("buildbee-coordinator");
    second
        .args(["serve", "--no-mdns", "--status", "off", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(farm.path("coordinator"));
    refused(&mut second, 1, &["another coordinator"]);
    // The first one goes on: it lets the next machine in.
    let place = Place::new();
    assert_eq!(run(&mut place.buildbee(&["join", &farm.invite("client")])).code, Some(0));
}

#[test]
fn a_list_of_members_that_is_damaged_or_newer_is_left_alone() {
    let farm = Farm::up(Options { n_agents: 0, ..Options::default() });
    let list = farm.path("coordinator/members.json");
    let before = fs::read_to_string(&list).unwrap();
    for (text, part) in [("{", "is damaged"), ("{\"format\": 99}", "format 99")] {
        fs::write(&list, text).unwrap();
        for words in [&["members"][..], &["invite", "--address", "a:1"], &["revoke", "laptop"]] {
            let mut command = farm.program("buildbee-coordinator");
            command.args(words).arg("--state-dir").arg(farm.path("coordinator"));
            refused(&mut command, 1, &["members.json", part]);
        }
        assert_eq!(fs::read_to_string(&list).unwrap(), text);
    }
    fs::write(&list, before).unwrap();
    let mut members = farm.program("buildbee-coordinator");
    assert!(run(members.arg("members").arg("--state-dir").arg(farm.path("coordinator"))).out.contains("laptop"));
}

#[test]
fn a_member_that_is_not_there_can_not_be_revoked() {
    let farm = Farm::up(Options { n_agents: 0, ..Options::default() });
    let mut revoke = farm.program("buildbee-coordinator");
    refused(revoke.args(["revoke", "nobody", "--state-dir"]).arg(farm.path("coordinator")), 2, &["nobody"]);
}
