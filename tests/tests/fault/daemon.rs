//! The client's own daemon dies or freezes.

use buildbee_tests::farm::Farm;
use nix::sys::signal::{Signal, kill};

use crate::build::{Build, options};

#[test]
fn wrappers_finish_without_the_daemon_and_start_another() {
    let build = Build::new(Farm::up(options()));
    let daemon = build.farm.daemon_pid();
    let running = build.start();
    kill(daemon, Signal::SIGKILL).unwrap();
    build.finish(running);
    let stats = build.stats();
    assert_ne!(build.farm.daemon_pid(), daemon);
    let n = ["cached", "remote", "local"].iter().filter_map(|name| stats[name].as_u64()).sum::<u64>();
    assert!(n > 0, "the next daemon saw none of the build: {stats}");
}

#[test]
fn a_frozen_daemon_is_not_waited_for() {
    let build = Build::new(Farm::up(options()));
    let daemon = build.farm.daemon_pid();
    let running = build.start();
    kill(daemon, Signal::SIGSTOP).unwrap();
    build.finish(running);
    kill(daemon, Signal::SIGCONT).unwrap();
    build.stats();
    assert_eq!(build.farm.daemon_pid(), daemon);
}
