//! Who was sent away is cut off by everybody within seconds, and what it did without is nobody's harm.

use std::time::Duration;

use buildbee_proto::version::Protocol;
use buildbee_tests::farm::Farm;

use crate::door::{Door, SOON};
use crate::member::Member;
use crate::strangers::{built, farm};

fn revoke(farm: &Farm, name: &str) {
    let mut revoke = farm.program("buildbee-coordinator");
    revoke.args(["revoke", name, "--state-dir"]).arg(farm.path("coordinator"));
    farm.must_run(&mut revoke);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_client_is_cut_off_by_coordinator_and_agents() {
    let farm = farm(1);
    let (object, _) = built(&farm, "secret");
    let spy = Member::join(&farm, "spy", 1).await;
    let (coordinator, agent) = (Door::coordinator(&farm), Door::agent(&farm, 0));
    assert!(spy.blob(&agent, object).await.is_some());
    revoke(&farm, "spy");
    for door in [&coordinator, &agent] {
        let mut peers = spy.node.peers();
        let gone = tokio::time::timeout(SOON, peers.wait_for(|table| !table.contains(door.peer))).await;
        assert!(gone.is_ok(), "still connected\n{}", farm.logs());
        assert!(spy.connect(door).await.is_err());
        for protocol in Protocol::ALL {
            assert!(spy.node.open(door.peer, protocol).await.is_err(), "{protocol:?}");
        }
    }
    assert_eq!(spy.blob(&agent, object).await, None);
    // The others are not concerned.
    built(&farm, "after");
}

#[test]
fn builds_of_a_revoked_client_go_on_alone() {
    let farm = farm(1);
    built(&farm, "before");
    revoke(&farm, "laptop");
    farm.wait("the laptop is cut off", || {
        let agents = farm.json(&["status"])["farm"]["agents"].as_array().cloned().unwrap_or_default();
        agents.iter().all(|agent| agent["connected"] == false)
    });
    std::fs::write(farm.path("project/alone.c"), "int alone;\n").unwrap();
    let mut compile = farm.client("buildbee");
    compile.args(["gcc", "-c", "alone.c"]).current_dir(farm.path("project"));
    let output = farm.must_run(&mut compile);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let stats = farm.json(&["stats"]);
    assert_eq!((&stats["remote"], &stats["local"]), (&1.into(), &1.into()), "{stats}");
}

#[test]
fn a_revoked_agent_gets_no_more_work() {
    let farm = farm(2);
    built(&farm, "before");
    revoke(&farm, "desk1");
    let connected = || {
        let agents = farm.json(&["status"])["farm"]["agents"].as_array().cloned().unwrap_or_default();
        let names = agents.into_iter().filter(|agent| agent["connected"] == true);
        names.map(|agent| agent["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    farm.wait("desk1 is cut off", || connected() == ["desk0"]);
    let before = farm.json(&["stats"])["agents"]["desk1"].as_u64().unwrap_or(0);
    for n in 0..8 {
        built(&farm, &format!("after{n}"));
    }
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(connected(), ["desk0"], "it came back");
    assert_eq!(farm.json(&["stats"])["agents"]["desk1"].as_u64().unwrap_or(0), before);
}
