//! A whole farm in one thread and in virtual time: the coordinator's scheduler and the agents' slots as they are, clients that do what the daemon's
//! dispatch does, and between them a network that delays, drops, repeats and parts. Everything follows from a seed.
//!
//! After each step: no slot is promised to two clients, none runs two actions or one of a client that it is not dealt to, nobody has more than
//! wanted, and what the coordinator keeps is bounded by who is there. Once the faults are over: everybody has a fair share, knows the agents
//! that it should, and every action was done.

#![expect(clippy::unwrap_used, reason = "all of it is a test, also what stands outside the test functions")]
#![expect(clippy::print_stdout, reason = "a failure is told with its seed")]

mod parties;
mod promises;
mod world;

use crate::world::{Faults, Size, World};

/// Seeds that once failed stay here.
const REGRESSIONS: &[u64] = &[];
/// What `make test` tries besides.
const SEEDS: std::ops::Range<u64> = 1..17;

const SMALL: Size = Size { n_agents: 24, n_clients: 6, n_slots: 3, rough_s: 40 };
const MIDDLE: Size = Size { n_agents: 300, n_clients: 30, n_slots: 4, rough_s: 12 };
const LARGE: Size = Size { n_agents: 10_000, n_clients: 1_000, n_slots: 8, rough_s: 30 };

/// Another seed than those that stand here.
fn given() -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a switch of this test; not a setting of any program")]
    let seed = std::env::var("BUILDBEE_SIM_SEED").ok()?;
    Some(seed.parse().expect("a number"))
}

fn run(size: Size, faults: Faults, seed: u64) -> World {
    println!("{size:?} seed {seed} (BUILDBEE_SIM_SEED={seed} tries it again)");
    let mut world = World::new(size, faults, seed);
    world.rough();
    world.calm();
    println!("{}", world.summary());
    world
}

#[test]
fn a_farm_bears_what_networks_clocks_and_machines_do() {
    let seeds: Vec<u64> = given().map_or_else(|| REGRESSIONS.iter().copied().chain(SEEDS).collect(), |seed| vec![seed]);
    for seed in seeds {
        let world = run(SMALL, Faults::MANY, seed);
        assert!(world.n_done() > 100, "too little happened to tell anything");
    }
}

#[test]
fn a_farm_of_which_nobody_knows_all_agents_bears_it_too() {
    run(MIDDLE, Faults::SOME, given().unwrap_or(1));
}

#[test]
fn a_quiet_farm_loses_nothing() {
    let world = run(SMALL, Faults::NONE, 7);
    assert_eq!(world.n_local(), 0, "with no fault there is no reason to run anything locally");
}

#[test]
#[ignore = "some minutes and some hundred MB; run by tests/bench/coordinator"]
fn ten_thousand_agents_and_a_thousand_clients() {
    run(LARGE, Faults::SOME, given().unwrap_or(1));
}
