//! An agent's disk is full.

use std::fs;

use buildbee_tests::disk::SmallDisk;
use buildbee_tests::farm::Farm;
use buildbee_tests::network::skipped;

use crate::build::{Build, options};

/// Room for a toolchain and some results.
const ROOM: &str = "256m";

#[test]
fn a_full_disk_is_that_agents_trouble_alone() {
    let mut farm = Farm::up(options());
    farm.agents[0].take();
    let (place, aside) = (farm.path("desk0"), farm.path("aside"));
    fs::rename(&place, &aside).unwrap();
    fs::create_dir(&place).unwrap();
    let Some(disk) = SmallDisk::mount_at(&place, ROOM) else { return skipped("mounting a small disk needs root") };
    for entry in fs::read_dir(&aside).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), place.join(entry.file_name())).unwrap();
    }
    farm.start_agent(0);
    farm.wait_for_agents(2);
    let mut build = Build::new(farm);
    let running = build.start();
    disk.fill();
    build.finish(running);
    build.stats();
    build.farm.agents[0].take();
    drop(disk);
}
