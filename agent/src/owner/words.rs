//! What `buildbee-agent pause`, `resume`, `status` and `history` say to a person or a program. Returns texts; prints nothing.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::json;
use thiserror::Error;

use super::history::{self, Entry};
use super::pause::{self, Status, unix_seconds};
use crate::cli::{HistoryArguments, PauseArguments, PlaceArguments, StatusArguments};
use crate::config::{ConfigError, Settings};
use crate::state::{StateDir, StateError};

/// Why there is nothing to say.
#[derive(Debug, Error)]
pub enum WordsError {
    /// The settings are of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state folder is of no use.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file in it is of no use.
    #[error("{}: {source}\nhint: run this as the user that the agent runs as, or give --state-dir", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Can't be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

fn state(place: &PlaceArguments) -> Result<StateDir, WordsError> {
    Ok(StateDir::open(&Settings::load_places(place, None)?.state_dir)?)
}

/// Begins a pause at `now`.
pub fn pause(arguments: &PauseArguments, now: SystemTime) -> Result<String, WordsError> {
    let file = state(&arguments.place)?.pause();
    let end = pause::end_of(now, arguments.length);
    pause::begin(&file, end).map_err(|source| WordsError::File { file, source })?;
    Ok(format!("paused {}", shown_end(end)))
}

fn shown_end(end: SystemTime) -> String {
    if pause::is_endless(end) {
        "until `buildbee-agent resume`".to_owned()
    } else {
        format!("until {}", history::shown(unix_seconds(end)))
    }
}

/// Ends it.
pub fn resume(place: &PlaceArguments) -> Result<String, WordsError> {
    let file = state(place)?.pause();
    pause::end(&file).map_err(|source| WordsError::File { file, source })?;
    Ok("lends again, as its mode says".to_owned())
}

/// How the agent stands at `now`.
pub fn status(arguments: &StatusArguments, now: SystemTime) -> Result<String, WordsError> {
    let state = state(&arguments.place)?;
    let file = state.status();
    let status = Status::read(&file).map_err(|source| WordsError::File { file, source })?;
    let paused = pause::until(&state.pause()).filter(|end| *end > now);
    if arguments.json {
        let until = paused.map(unix_seconds);
        return Ok(serde_json::to_string_pretty(&json!({ "agent": status, "paused_until": until }))?);
    }
    let mut text = match status {
        None => "no agent runs here".to_owned(),
        Some(Status { mode, lent, slots, why, since, .. }) => {
            let for_time = Duration::from_secs(unix_seconds(now).saturating_sub(since));
            let for_time = humantime::format_duration(for_time);
            format!("lends {lent} of {slots} slots (mode {mode}), for {for_time}: {why}")
        }
    };
    if let Some(end) = paused {
        // Writing to a String cannot fail.
        let _ = write!(text, "\npaused {}", shown_end(end));
    }
    Ok(text)
}

/// Who used this machine until `now`.
pub fn history(arguments: &HistoryArguments, now: SystemTime) -> Result<String, WordsError> {
    let first = arguments.since.map_or(0, |since| unix_seconds(now).saturating_sub(since.as_secs()));
    let mut entries = history::read(state(&arguments.place)?.path());
    entries.retain(|entry| entry.at >= first);
    if arguments.actions {
        entries.reverse();
        return if arguments.json { Ok(serde_json::to_string_pretty(&entries)?) } else { Ok(lines(&entries)) };
    }
    let shares = history::shares(&entries);
    if arguments.json {
        return Ok(serde_json::to_string_pretty(&shares)?);
    }
    let mut text = format!("{:>8}  {:>12}  {:16}  client", "actions", "processor", "last");
    for share in shares {
        let (cpu, last) = (seconds(share.cpu_ms), history::shown(share.last));
        let _ = write!(text, "\n{:>8}  {cpu:>12}  {last:16}  {}", share.n_actions, share.client);
    }
    Ok(text)
}

fn lines(entries: &[Entry]) -> String {
    let line = |entry: &Entry| {
        let (at, cpu) = (history::shown(entry.at), seconds(entry.cpu_ms));
        let end = if entry.exit.is_some() { "" } else { "  (taken back, or ended)" };
        format!("{at}  {cpu:>9}  {:12}  {}  {}{end}", entry.action, entry.client, entry.what)
    };
    entries.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}
