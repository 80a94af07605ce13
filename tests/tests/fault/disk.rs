//! An agent's disk is full.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use buildbee_tests::farm::Farm;
use buildbee_tests::network::skipped;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::build::{Build, options};

/// Room for a toolchain and some results.
const DISK: &str = "size=256m";

/// A small disk, taken away when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount_at(place: &Path) -> Option<Self> {
        let mounted = mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(DISK));
        mounted.is_ok().then(|| Self(place.to_owned()))
    }

    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_that_agents_trouble_alone() {
    let mut farm = Farm::up(options());
    farm.agents[0].take();
    let (place, aside) = (farm.path("desk0"), farm.path("aside"));
    fs::rename(&place, &aside).unwrap();
    fs::create_dir(&place).unwrap();
    let Some(disk) = SmallDisk::mount_at(&place) else { return skipped("mounting a small disk needs root") };
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
