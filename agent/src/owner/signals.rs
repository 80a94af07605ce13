//! What is seen of the machine's owner: one narrow trait, one file for each kind of sign.
//!
//! Each looks below a root folder that is given to it, `/` but in tests. What can't be read says nothing: a server without keyboard has
//! nobody at it. Not here: what follows from it ([`core`](super::core)).

use std::fmt;
use std::fs;
use std::io;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use buildbee_p2p::tasks::Tasks;
use futures::FutureExt;

use super::history::{History, Spent};
use crate::config::{Mode, Settings};
use crate::state::StateDir;

pub mod calendar;
pub mod devices;
pub mod logind;
pub mod marks;
pub mod memory;
pub mod power;
pub mod processor;
pub mod terminals;

/// Everything that is known, each part by the last look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a sign of its own, any of which may be there")]
pub struct Seen {
    /// Somebody says that the owner is here.
    pub forced: bool,
    /// Somebody asked for a pause that is not over.
    pub paused: bool,
    /// The day's processor time is used up.
    pub spent: bool,
    /// It is not one of the hours at which to lend.
    pub out_of_hours: bool,
    /// The machine runs on battery.
    pub on_battery: bool,
    /// Some session on the machine says that it is in use.
    pub in_session: bool,
    /// When keyboard, mouse or a terminal was used last, on the watch's clock.
    pub last_input: Option<Duration>,
    /// Processor time that other programs use, in thousandths of a core.
    pub foreign_millicores: Option<u64>,
    /// Memory that programs could get.
    pub memory_available_bytes: Option<u64>,
    /// Share of the last ten seconds in which some program waited for memory, in hundredths of a percent.
    pub memory_pressure: Option<u32>,
}

impl Seen {
    /// There was input at `when`, or later.
    pub fn input(&mut self, when: Duration) {
        self.last_input = self.last_input.max(Some(when));
    }
}

/// One kind of sign.
pub trait Signal: Send + fmt::Debug {
    /// The least time from one look to the next; zero for what is looked at as often as anything.
    fn period(&self) -> Duration;

    /// Looks, and writes down what it is about. `now` never goes back. Must be quick: nothing of it may wait.
    fn look(&mut self, now: Duration, seen: &mut Seen);
}

/// Everything that is looked at in this mode. What must listen does so as one of `tasks`.
pub fn all(settings: &Settings, state: &StateDir, history: &History, tasks: &Tasks) -> Vec<Box<dyn Signal>> {
    let owner = &settings.owner;
    let owner_file = owner.file.clone().unwrap_or_else(|| state.owner_present());
    let mut all: Vec<Box<dyn Signal>> = Vec::new();
    if settings.mode == Mode::Off {
        return all;
    }
    all.push(Box::new(marks::Marks { owner_file, pause_file: state.pause() }));
    if let Some(most) = owner.daily_cpu {
        all.push(Box::new(Spent { history: history.clone(), most }));
    }
    if settings.mode == Mode::Dedicated {
        return all;
    }
    let root = &owner.system_root;
    if settings.mode == Mode::Idle {
        all.push(Box::new(terminals::Terminals::new(root)));
        all.push(Box::new(devices::Devices::new(root)));
        if owner.logind {
            let logind = logind::Logind::default();
            tasks.spawn(
                "logind",
                tasks.token().run_until_cancelled_owned(logind::logind_task(logind.clone(), root.clone())).map(drop),
            );
            all.push(Box::new(logind));
        }
    }
    all.push(Box::new(processor::Processor::new(root, std::process::id())));
    all.push(Box::new(memory::Memory::new(root)));
    all.push(Box::new(power::Power::new(root)));
    if !owner.hours.is_always() {
        all.push(Box::new(calendar::Calendar { hours: owner.hours.clone() }));
    }
    all
}

/// Largest file of the system that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A small text file of the system.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Entries of `folder` whose names `wanted` likes, `most` at most; none where it can't be read.
fn entries(folder: &Path, most: usize, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_wanted = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(&wanted);
    entries.flatten().filter(is_wanted).take(most).map(|entry| entry.path()).collect()
}
