//! Cables are pulled.

use buildbee_tests::farm::Farm;

use crate::build::{Build, options};

#[test]
fn a_client_that_is_cut_off_builds_alone_and_finds_back() {
    let Some(farm) = Farm::up_in_namespaces(options()) else { return };
    let build = Build::new(farm);
    let running = build.start();
    build.farm.network().unwrap().set_link("laptop", false);
    build.finish(running);
    let stats = build.stats();
    assert!(stats["remote"].as_u64() > Some(0) && stats["local"].as_u64() > Some(0), "{stats}");
    build.farm.network().unwrap().set_link("laptop", true);
    build.farm.wait_for_agents(2);
}

#[test]
fn an_agent_that_is_cut_off_is_passed_over() {
    let Some(farm) = Farm::up_in_namespaces(options()) else { return };
    let build = Build::new(farm);
    let running = build.start();
    build.farm.network().unwrap().set_link("desk0", false);
    build.finish(running);
    build.stats();
}
