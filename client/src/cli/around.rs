//! `buildbee run`: a build with the variables of `buildbee env`, and a line at its end that says what became of its compiles.
//!
//! The compiles tell whose they are by one more variable, so another build of the same user is not counted.

use std::ffi::OsString;
use std::process::Command;
use std::time::Instant;

use buildbee_proto::local::{AdminCall, RUN_VARIABLE};

use super::ask::{Start, ask};
use super::programs;
use super::run::no_own_place;
use super::shell::{self, Set, Variables};
use crate::config::{self, Settings};
use crate::exit::{Failure, SUCCESS};
use crate::guest;
use crate::journal::Stats;
use crate::ui;
use crate::wrapper::output;
use crate::wrapper::signals::Signals;

/// Runs `command`. What to exit with: its own code.
pub(super) fn run(settings: &Settings, command: &[OsString]) -> Result<u8, Failure> {
    let Some((program, arguments)) = command.split_first() else { return Ok(SUCCESS) };
    let signals = Signals::take_over().map_err(|error| {
        Failure::environment(format!(
            "cannot receive signals: {error}\nhint: the system may be out of file descriptors"
        ))
    })?;
    let wrapper = programs::wrapper().map_err(|error| no_own_place(&error))?;
    let now = config::shell_variables();
    let Set { before_path, variables } = shell::set(&now, &wrapper, None).map_err(Failure::user)?;
    let id = new_id();
    let mut guest = Command::new(program);
    guest.args(arguments).envs(variables).env(RUN_VARIABLE, &id);
    if !before_path.is_empty() {
        guest.env("PATH", joined(&before_path, &now));
    }
    let started = Instant::now();
    let ended = guest::run(&mut guest, &signals)?;
    let wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    // No daemon: no compile came to one, or it has crashed. Either way nothing is known.
    let asked = ask(&settings.socket, AdminCall::RunStats { run: id }, Start::Never).ok();
    let stats = asked.and_then(|json| serde_json::from_str::<Stats>(&json).ok()).unwrap_or_default();
    output::write_all(std::io::stderr(), ui::run(&stats, wall_ms).as_bytes());
    Ok(ended.code)
}

/// `PATH` with folders before it.
fn joined(before: &[std::path::PathBuf], now: &Variables) -> OsString {
    let mut path = OsString::new();
    // The one that was put there last stands first.
    for folder in before.iter().rev() {
        path.push(folder);
        path.push(":");
    }
    path.push(&now.path);
    path
}

/// A word that no other run has.
fn new_id() -> String {
    let mut bytes = [0_u8; 8];
    // Without random numbers: two runs are hardly begun by one process.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = u64::from(std::process::id()).to_le_bytes();
    }
    format!("{:016x}", u64::from_le_bytes(bytes))
}
