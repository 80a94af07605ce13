//! `buildbee farm up`: a throw-away farm on this machine around one command.
//!
//! The farm is made of the real executables beside this one: a coordinator, agents, and a client daemon of its own, with keys, caches,
//! sockets and logs in one temporary folder. Life: [`run`] sets all of it up (`members.rs`), waits until the daemon sees the agents, runs
//! the command, prints what became of its actions, and takes everything down, also when a signal comes in between.
//!
//! What is not done: a farm that survives its command, or one on several machines.

mod error;
mod folder;
mod members;

use std::process::Command;
use std::time::{Duration, Instant};

use buildbee_proto::local::AdminCall;

use self::error::FarmError;
use self::folder::Folder;
use self::members::{Members, Plan};
use crate::cli::arguments::FarmUp;
use crate::cli::ask::{Start, ask};
use crate::cli::documents::{self, Status};
use crate::exit::Failure;
use crate::guest::{self, Ended};
use crate::journal::Stats;
use crate::ui;
use crate::wrapper::signals::Signals;
use crate::wrapper::{output, tree_kill};

/// How long agents may take until the client's daemon sees them and their slots.
const VISIBLE_TIME: Duration = Duration::from_secs(10);

/// Pause between two looks at that.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Runs the command with a farm around it. What to exit with: the command's code, if it ran.
pub fn run(up: &FarmUp) -> Result<u8, Failure> {
    let signals = Signals::take_over().map_err(|error| Failure::from(FarmError::Signals(error)))?;
    // The daemon is started by wrappers far below and outlives them; it is ended here.
    tree_kill::adopt_orphans();
    let folder = Folder::make()?;
    let mut members = Members::default();
    let outcome = with_farm(up, &folder, &mut members, &signals);
    if outcome.as_ref().is_err_and(FarmError::is_a_members)
        && let Some(log) = members.last_words(&folder)
    {
        output::write_all(std::io::stderr(), format!("{}\n", log.trim_end()).as_bytes());
    }
    members.take_down(&folder);
    if matches!(&outcome, Ok(Ended { interrupted: true, .. }) | Err(FarmError::Interrupted(_))) {
        tree_kill::end_descendants();
    }
    let removed = if up.keep {
        folder.keep();
        Ok(())
    } else {
        folder.remove()
    };
    match outcome {
        Ok(Ended { code, .. }) => removed.map(|()| code).map_err(Failure::from),
        Err(FarmError::Interrupted(signal)) => Ok(guest::code_of_signal(signal)),
        Err(error) => Err(error.into()),
    }
}

fn with_farm(up: &FarmUp, folder: &Folder, members: &mut Members, signals: &Signals) -> Result<Ended, FarmError> {
    let plan = Plan::new(up);
    members.start(plan, folder, signals)?;
    wait_until_visible(plan, folder, signals)?;
    let Some((program, arguments)) = up.command.split_first() else { return Ok(Ended { code: 0, interrupted: false }) };
    let mut command = Command::new(program);
    let ended = guest::run(folder.client(command.args(arguments)), signals)?;
    say_summary(folder);
    Ok(ended)
}

/// The client's daemon has connections to all agents, and knows of slots.
fn wait_until_visible(plan: Plan, folder: &Folder, signals: &Signals) -> Result<(), FarmError> {
    let deadline = Instant::now() + VISIBLE_TIME;
    loop {
        let status = ask(&folder.socket(), AdminCall::Status, Start::Never)
            .map_err(|error| FarmError::Daemon(error.to_string()))
            .map(|json| documents::parse(&json).and_then(|document| serde_json::from_value::<Status>(document).ok()))?;
        let agents = status.and_then(|status| status.farm).map(|farm| farm.agents).unwrap_or_default();
        let n_ready = agents.iter().filter(|agent| agent.connected && agent.slots > 0).count();
        if n_ready >= usize::from(plan.n_agents) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(FarmError::Invisible { ready: n_ready, wanted: plan.n_agents });
        }
        signals.take().map_or(Ok(()), |signal| Err(FarmError::Interrupted(signal)))?;
        std::thread::sleep(LOOK_PAUSE);
    }
}

fn say_summary(folder: &Folder) {
    let stats = ask(&folder.socket(), AdminCall::Stats { zero: false }, Start::Never)
        .ok()
        .and_then(|json| serde_json::from_value::<Stats>(documents::parse(&json)?).ok());
    let text = stats.map_or_else(
        || "farm: the daemon is gone, and its counts with it\n".to_owned(),
        |stats| format!("farm: what became of the actions\n{}", ui::stats(&stats)),
    );
    output::write_all(std::io::stderr(), text.as_bytes());
}
