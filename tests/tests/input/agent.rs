//! An agent that can't lend says why, and does not.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use buildbee_p2p::identity::Identity;
use buildbee_proto::membership::Ticket;
use buildbee_proto::peer::{PeerId, Role};
use buildbee_tests::farm::{Farm, Options};

use crate::cache::{format_file, newer};
use crate::place::{Place, explains, refused, run};

fn serve(place: &Place, words: &[&str]) -> Command {
    let mut serve = place.program("buildbee-agent");
    serve.args(["serve", "--no-mdns", "--config", "/dev/null", "--ready-file"]).arg(place.path("ready"));
    serve.arg("--state-dir").arg(place.path("state")).args(words);
    serve
}

/// An agent's place, joined to a farm that need not be there any more.
fn joined() -> Place {
    let farm = Farm::up(Options { n_agents: 0, ..Options::default() });
    let place = Place::new();
    let mut join = place.program("buildbee-agent");
    join.args(["join", &farm.invite("agent"), "--config", "/dev/null", "--state-dir"]).arg(place.path("state"));
    assert_eq!(run(&mut join).code, Some(0));
    place
}

#[test]
fn one_that_has_not_joined() {
    let place = Place::new();
    refused(&mut serve(&place, &[]), 1, &["has not joined a farm", "buildbee-agent join TICKET"]);
    assert!(!place.path("ready").exists());
}

#[test]
fn a_state_folder_that_can_not_be_used() {
    let Some(place) = Place::ordinary() else { return };
    let file = place.write("state", "a file\n");
    refused(&mut serve(&place, &[]), 1, &["state folder", file.to_str().unwrap()]);
    let mut join = place.program("buildbee-agent");
    let ticket = Identity::generate().signed(ticket()).to_text();
    refused(join.args(["join", &ticket, "--config", "/dev/null", "--state-dir"]).arg(&file), 1, &["state folder"]);
    let mut doctor = place.program("buildbee-agent");
    let said = run(doctor.args(["doctor", "--config", "/dev/null", "--state-dir"]).arg(&file));
    assert_eq!(said.code, Some(1));
    explains(&said.out, &["problem state folder: ", file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "a file\n");
}

fn ticket() -> Ticket {
    Ticket {
        farm: PeerId([1; 32]),
        coordinator: PeerId([2; 32]),
        addresses: vec!["127.0.0.1:1".to_owned()],
        role: Role::Agent,
        issued_at: 0,
        expires_at: u64::MAX,
        uses: 1,
        nonce: [7; 16],
    }
}

#[test]
fn a_port_that_is_taken() {
    let place = joined();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&mut serve(&place, &["--listen", &address]), 1, &["can't listen on", &address]);
    assert!(!place.path("ready").exists());
}

#[test]
fn one_state_folder_serves_one_agent() {
    let farm = Farm::up(Options { n_agents: 1, ..Options::default() });
    let mut second = farm.program("buildbee-agent");
    second.args(["serve", "--no-mdns", "--config", "/dev/null", "--listen", "127.0.0.1:0", "--state-dir"]);
    refused(second.arg(farm.path("desk0")), 1, &["is in use", "by process"]);
    // The first one goes on.
    farm.wait_for_agents(1);
    assert_eq!(farm.json(&["status"])["farm"]["agents"][0]["connected"], true);
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let place = joined();
    let mut check = serve(&place, &["--listen", "127.0.0.1:99999"]);
    // The store is opened before the address is looked at; what matters is that it is there now.
    run(&mut check);
    let format = format_file(&place, "state/store");
    let text = fs::read_to_string(&format).unwrap();
    fs::write(&format, newer(&text)).unwrap();
    let before = place.snapshot("state");
    refused(&mut serve(&place, &["--listen", "127.0.0.1:0"]), 1, &["has format", "upgrade"]);
    assert_eq!(place.snapshot("state"), before);
}

#[test]
fn without_bubblewrap_nothing_is_lent() {
    let place = joined();
    let config = place.write("agent.toml", "bwrap = \"/nonexistent/bwrap\"\n");
    let mut lend = place.program("buildbee-agent");
    lend.args(["serve", "--no-mdns", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
    lend.arg("--ready-file").arg(place.path("ready")).arg("--state-dir").arg(place.path("state"));
    refused(&mut lend, 1, &["can't run actions in a sandbox", "bubblewrap"]);
    assert!(!place.path("ready").exists());
    let mut doctor = place.program("buildbee-agent");
    let said = run(doctor.args(["doctor", "--config"]).arg(&config).arg("--state-dir").arg(place.path("state")));
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("problem sandbox: ") && said.out.contains("\nhint: "), "{said:?}");
    assert!(said.out.contains("ok      membership: "), "{said:?}");
}

#[test]
fn doctors_say_what_is_wrong_and_what_is_not() {
    let place = joined();
    let doctor = |words: &[&str]| {
        let mut doctor = place.program("buildbee-agent");
        run(doctor.args(["doctor", "--config", "/dev/null", "--state-dir"]).arg(place.path("state")).args(words))
    };
    let well = doctor(&[]);
    assert_eq!(well.code, Some(0), "{well:?}");
    assert_eq!(well.out.lines().filter(|line| line.starts_with("ok ")).count(), 4, "{well:?}");
    let findings: serde_json::Value = serde_json::from_str(&doctor(&["--json"]).out).unwrap();
    assert!(findings.as_array().unwrap().iter().all(|finding| finding["ok"] == true), "{findings}");
    let key = place.path("state/enrolment");
    fs::remove_file(&key).unwrap();
    let said = doctor(&[]);
    assert_eq!(said.code, Some(1));
    explains(&said.out, &["problem membership: none"]);

    // The client's: without a farm it warns, which is no failure.
    let client = run(&mut place.buildbee(&["doctor"]));
    assert_eq!(client.code, Some(0), "{client:?}");
    assert!(client.out.contains("warn  membership: ") && client.out.contains("hint: "), "{client:?}");
    place.write("bin/none", "");
    fs::set_permissions(place.path("bin"), fs::Permissions::from_mode(0o755)).unwrap();
    let client = run(place.buildbee(&["doctor"]).env("PATH", place.path("bin")));
    assert_eq!(client.code, Some(1));
    assert!(client.out.contains("FAIL  compilers: none in PATH\n      hint: "), "{client:?}");
    let bad = run(place.buildbee(&["doctor", "--json"]).env("BUILDBEE_RACING", "fast"));
    let checks: serde_json::Value = serde_json::from_str(&bad.out).unwrap();
    assert_eq!((bad.code, &checks["checks"][0]["state"]), (Some(1), &"fail".into()), "{bad:?}");
    assert!(checks["checks"][0]["hint"].is_string());
}
