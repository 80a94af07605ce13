//! Agents die, freeze, and come back with nothing.

use std::fs;

use buildbee_tests::farm::Farm;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::build::{Build, options};

#[test]
fn a_dead_agent_is_replaced_by_the_other() {
    let mut build = Build::new(Farm::up(options()));
    let running = build.start();
    build.farm.agents[0].take();
    build.finish(running);
    build.stats();
}

#[test]
fn without_agents_the_build_goes_on_here() {
    let mut build = Build::new(Farm::up(options()));
    let running = build.start();
    build.farm.agents[0].take();
    build.farm.agents[1].take();
    build.finish(running);
    let stats = build.stats();
    assert!(stats["local"].as_u64() > Some(0), "{stats}");
}

#[test]
fn a_frozen_agent_is_passed_over_and_taken_back() {
    let build = Build::new(Farm::up(options()));
    let running = build.start();
    build.farm.agents[0].as_ref().unwrap().signal(Signal::SIGSTOP);
    build.finish(running);
    build.stats();
    build.farm.agents[0].as_ref().unwrap().signal(Signal::SIGCONT);
    build.farm.wait_for_agents(2);
}

#[test]
fn frozen_agents_hold_nothing_up() {
    let build = Build::new(Farm::up(options()));
    let running = build.start();
    for agent in build.farm.agents.iter().flatten() {
        agent.signal(Signal::SIGSTOP);
    }
    build.finish(running);
    build.stats();
}

#[test]
fn an_agent_that_comes_back_empty_is_filled_again() {
    let mut build = Build::new(Farm::up(options()));
    let running = build.start();
    build.farm.agents[0].take();
    for folder in ["store", "toolchains"] {
        let _ = fs::remove_dir_all(build.farm.path("desk0").join(folder));
    }
    build.farm.start_agent(0);
    build.finish(running);
    build.stats();
    build.farm.wait_for_agents(2);
}

#[test]
fn a_dead_sandbox_process_costs_a_run_and_not_the_build() {
    let build = Build::new(Farm::up(options()));
    let running = build.start();
    let agent = build.farm.agents[0].as_ref().unwrap().pid();
    let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap_or_default();
    let of_all_threads = fs::read_dir(format!("/proc/{agent}/task"))
        .unwrap()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all: String = of_all_threads.fold(children, |all, more| format!("{all} {more}"));
    let mut n_killed = 0;
    for pid in all.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.starts_with("buildbee-sandb") && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
            n_killed += 1;
        }
    }
    assert!(n_killed > 0, "no sandbox process among {all:?}");
    build.finish(running);
    build.stats();
    // It is there again.
    build.farm.wait_for_agents(2);
}
