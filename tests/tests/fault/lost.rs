//! The coordinator's disk is gone for good: the farm goes on from its key and what members hold, and nobody joins again.

use std::fs;

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::membership::{Roster, Signed};
use buildbee_tests::farm::{Farm, Options};
use serde_json::Value;

fn members(farm: &Farm) -> Vec<(String, bool)> {
    let listed = farm.must_run(&mut farm.coordinator_command(&["members", "--json"]));
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let mut members: Vec<_> = (listed.iter())
        .map(|member| (member["name"].as_str().unwrap().to_owned(), !member["revoked_at"].is_null()))
        .collect();
    members.sort();
    members
}

/// Compiles one more file on the farm.
fn built(farm: &Farm, name: &str) {
    let project = farm.path("project");
    fs::create_dir_all(&project).unwrap();
    fs::write(project.join(format!("{name}.c")), format!("int {name};\n")).unwrap();
    let before = farm.counts();
    farm.must_run(farm.client("buildbee").args(["gcc", "-c", &format!("{name}.c")]).current_dir(&project));
    assert_eq!(farm.counts().1, before.1 + 1, "{name}.c was to be compiled by the farm\n{}", farm.logs());
}

fn in_touch(farm: &Farm) -> bool {
    farm.json(&["status"])["farm"]["coordinator"]["connected"] == true
}

#[test]
fn a_farm_outlives_its_coordinators_disk() {
    let mut farm = Farm::up(Options { n_agents: 2, n_slots: 1, ..Options::default() });
    drop(farm.second_client("spy"));
    farm.must_run(&mut farm.coordinator_command(&["revoke", "spy"]));
    built(&farm, "before");
    let unused = farm.invite("client");
    let key = farm.path("farm.key");
    farm.must_run(&mut farm.coordinator_command(&["key", "export", key.to_str().unwrap()]));
    // All that is left afterwards is what members heard.
    let roster = farm.path("desk0/roster");
    farm.wait("a roster with the revocation", || {
        let roster = fs::read(&roster).ok().and_then(|bytes| Signed::<Roster>::from_canonical(&bytes).ok());
        roster.is_some_and(|roster| roster.value.revoked.len() == 1)
    });
    let gone = farm.path("coordinator");
    farm.coordinator = None;
    fs::remove_dir_all(&gone).unwrap();
    built(&farm, "without");
    // Most are not there at the moment.
    farm.agents[1] = None;
    farm.must_run(farm.client("buildbee").arg("stop"));

    let folder = farm.path("again");
    farm.move_coordinator(&folder);
    let ready: Value = serde_json::from_slice(&fs::read(farm.path("desk0.ready")).unwrap()).unwrap();
    let agent = ready["addresses"][0].as_str().unwrap().to_owned();
    // One agent is named; it tells everybody else, when they come.
    let words = ["key", "import", key.to_str().unwrap(), "--member", &agent];
    farm.must_run(&mut farm.coordinator_command(&words));
    farm.start_coordinator();
    farm.start_agent(1);
    farm.wait("the client", || in_touch(&farm));
    farm.wait_for_agents(2);
    let expected = [("desk0", false), ("desk1", false), ("laptop", false)].map(|(name, gone)| (name.to_owned(), gone));
    farm.wait("the list of members", || {
        let listed = members(&farm);
        let named: Vec<_> = listed.iter().filter(|(_, revoked)| !revoked).cloned().collect();
        named == expected && listed.len() == 4
    });
    built(&farm, "after");
    // It can do all that the lost one could; what was printed by that one lets nobody in.
    let refused =
        farm.laptop.command("buildbee").env("BUILDBEE_STATE_DIR", farm.path("other")).args(["join", &unused]).output();
    assert!(!refused.unwrap().status.success());
    drop(farm.second_client("newcomer"));
    // And is found at its new place by those who start anew, and without being told where they are.
    fs::remove_file(folder.join("meet")).unwrap();
    farm.coordinator = None;
    farm.start_coordinator();
    farm.start_agent(1);
    let n_before = farm.log_of(0).matches("in touch with the coordinator").count();
    farm.start_agent(0);
    farm.wait("an agent that started anew", || {
        farm.log_of(0).matches("in touch with the coordinator").count() > n_before
    });
    farm.must_run(farm.client("buildbee").arg("stop"));
    farm.wait("a daemon that started anew", || in_touch(&farm));
    farm.wait_for_agents(2);
    built(&farm, "anew");
}
