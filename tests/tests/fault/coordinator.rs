//! The coordinator dies, and comes back knowing nothing.

use std::time::{Duration, Instant};

use buildbee_tests::farm::Farm;

use crate::build::{Build, options};

/// A coordinator that comes back is whole again within its heartbeat of 2 s; the rest is for a busy machine.
const WHOLE_AGAIN: Duration = Duration::from_secs(6);

#[test]
fn a_dead_coordinator_is_not_missed() {
    let mut build = Build::new(Farm::up(options()));
    let running = build.start();
    build.farm.coordinator.take();
    build.finish(running);
    build.stats();
}

#[test]
fn a_coordinator_that_comes_back_empty_is_whole_within_a_heartbeat() {
    let mut build = Build::new(Farm::up(options()));
    let running = build.start();
    build.farm.coordinator.take();
    build.farm.start_coordinator();
    let started = Instant::now();
    build.farm.wait("leases", || {
        let status = build.farm.json(&["status"]);
        let leased = status["farm"]["agents"]
            .as_array()
            .is_some_and(|agents| agents.len() == 2 && agents.iter().any(|agent| agent["leased"].as_u64() > Some(0)));
        status["farm"]["coordinator"]["connected"] == true && leased
    });
    assert!(started.elapsed() < WHOLE_AGAIN, "it took {:?}\n{}", started.elapsed(), build.farm.logs());
    build.finish(running);
    build.stats();
}
