//! How the daemon's documents look on a screen, and printing them. Pure but for [`print()`].
//!
//! Names, addresses and texts in a document may come from peers: control characters never reach the terminal. Colour is not used.

pub mod explain;
pub mod toolchain;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use serde_json::Value;

use crate::cli::documents::{CacheCleared, CacheCollected, CacheUsage, CacheVerified, Entries, Farm, Peers, Status};
use crate::cli::links::Report;
use crate::cli::shell::{self, Shell};
use crate::journal::Stats;
use crate::wrapper::output;

/// Prints to standard output. A reader that left is no error.
pub fn print(text: &str) {
    output::write_all(std::io::stdout(), text.as_bytes());
}

/// A document for scripts.
pub fn json(document: &Value) -> String {
    format!("{document:#}\n")
}

/// `status`.
pub fn status(status: &Status) -> String {
    let mut out = String::new();
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_s));
    line(&mut out, "daemon", &format!("version {}, process {}, up {uptime}", clean(&status.version), status.pid));
    line(&mut out, "socket", &clean(&status.socket));
    match &status.farm {
        Some(known) => farm(&mut out, known),
        None => line(&mut out, "farm", "none; `buildbee join TICKET` joins one"),
    }
    match &status.cache {
        Some(usage) => line(&mut out, "cache", cache_usage(usage).trim_end()),
        None => line(&mut out, "cache", "none"),
    }
    let slots = status.local_slots;
    let local = format!("{} of {} slots busy, racing {}", slots.busy, slots.total, clean(&status.racing));
    line(&mut out, "local", &local);
    line(&mut out, "running", &plural(status.running.len() as u64, "action"));
    let rows = status.running.iter().map(|run| vec![clean(&run.source), clean(&run.r#where), seconds(run.for_ms)]);
    table(&mut out, &["SOURCE", "WHERE", "FOR"], &rows.collect::<Vec<_>>());
    entries(&mut out, &status.entries);
    for double in &status.doubles {
        let text = double.text.lines().next().map_or_else(String::new, |text| format!(": {}", clean(text)));
        let what = format!("{} ({}) {}{text}", clean(&double.compiler), clean(&double.language), clean(&double.state));
        line(&mut out, "double", &what);
    }
    for warning in &status.warnings {
        line(&mut out, "warning", &clean_lines(warning));
    }
    out
}

/// Nothing where nobody uses it.
fn entries(out: &mut String, entries: &Entries) {
    let Entries { http, asked, found, found_at_peers, put, untold } = entries;
    if http.is_none() && asked + put == 0 {
        return;
    }
    let place = http.as_ref().map_or_else(String::new, |address| format!("http://{}/, ", clean(address)));
    let mut text = format!("{place}{found} of {asked} found ({found_at_peers} at peers), {put} put");
    if *untold > 0 {
        let _ = write!(text, ", {untold} not at peers yet");
    }
    line(out, "ccache", &text);
}

fn farm(out: &mut String, farm: &Farm) {
    let id: String = clean(&farm.id).chars().take(12).collect();
    line(out, "farm", &format!("{id}, as {} {}", clean(&farm.role), quoted(&farm.name)));
    if let Some(coordinator) = &farm.coordinator {
        let address = coordinator.address.as_deref().map_or_else(|| "no address".to_owned(), clean);
        line(out, "coordinator", &format!("{address}, {}", connected(coordinator.connected)));
    }
    let n_connected = farm.agents.iter().filter(|agent| agent.connected).count();
    line(out, "agents", &format!("{n_connected} of {} connected", farm.agents.len()));
    let rows = farm.agents.iter().map(|agent| {
        vec![
            clean(&agent.name),
            connected(agent.connected).to_owned(),
            agent.slots.to_string(),
            agent.leased.to_string(),
            agent.toolchains.to_string(),
            agent.address.as_deref().map_or_else(String::new, clean),
        ]
    });
    table(out, &["AGENT", "STATE", "SLOTS", "LEASED", "TOOLCHAINS", "ADDRESS"], &rows.collect::<Vec<_>>());
    for one in &farm.sending {
        line(out, "sending", &toolchain::sending(one));
    }
}

/// `stats`, and the summary of `farm up`.
pub fn stats(stats: &Stats) -> String {
    let mut out = String::new();
    let total = stats.cached + stats.remote + stats.local;
    line(&mut out, "actions", &total.to_string());
    for (name, count) in [("cached", stats.cached), ("remote", stats.remote), ("local", stats.local)] {
        line(&mut out, name, &share(count, total));
    }
    line(&mut out, "sent", &size(stats.bytes_sent));
    line(&mut out, "received", &size(stats.bytes_received));
    if stats.saved_ms > 0 {
        line(&mut out, "saved", &format!("{} of compilers' time", duration(stats.saved_ms)));
    }
    table(&mut out, &["AGENT", "ACTIONS"], &counts(&stats.agents));
    table(&mut out, &["REASON", "COUNT"], &counts(&stats.reasons));
    out
}

/// Largest first.
fn counts(counts: &BTreeMap<String, u64>) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
    rows.into_iter().map(|(name, count)| vec![clean(name), count.to_string()]).collect()
}

fn share(count: u64, total: u64) -> String {
    match (count * 100).checked_div(total) {
        Some(percent) => format!("{count} ({percent} %)"),
        None => count.to_string(),
    }
}

/// `peers`.
pub fn peers(peers: &Peers) -> String {
    if peers.peers.is_empty() {
        return "no peers; `buildbee status` tells whether this user has joined a farm\n".to_owned();
    }
    let mut out = String::new();
    let rows = peers.peers.iter().map(|peer| {
        vec![
            clean(&peer.name),
            clean(&peer.role),
            connected(peer.connected).to_owned(),
            peer.address.as_deref().map_or_else(String::new, clean),
            clean(&peer.peer).chars().take(12).collect(),
        ]
    });
    table(&mut out, &["NAME", "ROLE", "STATE", "ADDRESS", "PEER"], &rows.collect::<Vec<_>>());
    out
}

/// `cache usage`.
pub fn cache_usage(usage: &CacheUsage) -> String {
    let CacheUsage { dir, bytes, max_bytes, blobs, results, .. } = usage;
    format!(
        "{} of {} in {}: {}, {}\n",
        size(*bytes),
        size(*max_bytes),
        clean(dir),
        plural(*blobs, "file"),
        plural(*results, "result")
    )
}

/// `cache verify`.
pub fn cache_verified(verified: &CacheVerified) -> String {
    let CacheVerified { blobs, bytes, bad, results } = verified;
    let mut out = format!("read {} ({}) and {}\n", plural(*blobs, "file"), size(*bytes), plural(*results, "result"));
    match bad.len() {
        0 => out.push_str("all good\n"),
        n => {
            let _ = writeln!(out, "{n} damaged, dropped:");
            for entry in bad {
                let _ = writeln!(out, "    {}", clean(entry));
            }
        }
    }
    out
}

/// `cache gc`.
pub fn cache_collected(collected: &CacheCollected) -> String {
    let CacheCollected { results, manifests, evicted, bytes } = *collected;
    let of_no_use = plural(results + manifests, "record");
    format!("removed {of_no_use} of no use and {evicted} not used for long; {} freed\n", size(bytes))
}

/// `cache clear`.
pub fn cache_cleared(cleared: &CacheCleared) -> String {
    let kept = match cleared.in_use {
        0 => String::new(),
        n => format!("; kept {n} that running actions need"),
    };
    let entries = if cleared.cleared == 1 { "entry" } else { "entries" };
    format!("removed {} {entries}{kept}\n", cleared.cleared)
}

/// `install-links`. `late`: what is found before the links, or the folder itself where it is not in `PATH`.
pub fn links_installed(report: &Report, folder: &Path, wrapper: &Path, late: Option<&Path>) -> String {
    let (shown, wrapper) = (clean(&folder.display().to_string()), clean(&wrapper.display().to_string()));
    let n_done = plural(report.done.len() as u64, "link");
    let mut out = format!("{n_done} to {wrapper} in {shown}: {}\n", report.done.join(", "));
    for name in &report.left {
        let _ = writeln!(out, "left alone: {shown}/{name} is not a link to buildbee");
    }
    if !report.left.is_empty() {
        out.push_str("hint: choose an empty folder; --force replaces links of other wrappers, and nothing else\n");
    }
    if report.done.is_empty() {
        return out;
    }
    match late {
        None => out.push_str("they stand in PATH before the compilers: nothing more to do\n"),
        Some(late) => {
            let why = if late == folder { "is not in PATH" } else { "comes too late in PATH" };
            let word = shell::quoted(Shell::Sh, &shown);
            let _ = write!(out, "{shown} {why}; put it first:\n    export PATH={word}:\"$PATH\"\n");
        }
    }
    out
}

/// `install-links --remove`.
pub fn links_removed(report: &Report, folder: &Path) -> String {
    let n_done = plural(report.done.len() as u64, "link");
    format!("removed {n_done} to buildbee from {}\n", clean(&folder.display().to_string()))
}

/// A name, then what it is.
fn line(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "{name:<11} {value}");
}

/// Columns as wide as their widest cell. Nothing where there are no rows.
fn table(out: &mut String, header: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            std::iter::once(&header).chain(rows).map(|row| row[column].chars().count()).max().unwrap_or_default()
        })
        .collect();
    for row in std::iter::once(&header).chain(rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "    {}", cells.join("  ").trim_end());
    }
}

fn connected(connected: bool) -> &'static str {
    if connected { "connected" } else { "not connected" }
}

pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
}

/// To tenths of a second, then to seconds.
fn duration(milliseconds: u64) -> String {
    if milliseconds < 60_000 {
        return format!("{}.{} s", milliseconds / 1000, milliseconds / 100 % 10);
    }
    humantime::format_duration(Duration::from_secs(milliseconds / 1000)).to_string()
}

/// What `run` says at the end.
pub fn run(stats: &Stats, wall_ms: u64) -> String {
    let total = stats.cached + stats.remote + stats.local;
    let wall = duration(wall_ms);
    if total == 0 {
        return format!("buildbee: no compile came this way in {wall}; does the build use CC, CXX or RUSTC_WRAPPER?\n");
    }
    let Stats { cached, remote, local, .. } = stats;
    let mut out =
        format!("buildbee: {}: {cached} cached, {remote} remote, {local} local; {wall}", plural(total, "action"));
    if stats.saved_ms > 0 {
        let _ = write!(out, ", {} of compilers' time saved", duration(stats.saved_ms));
    }
    out.push('\n');
    // The most frequent reason alone: `stats` has them all.
    if let Some((reason, count)) = stats.reasons.iter().max_by_key(|(name, count)| (**count, std::cmp::Reverse(*name)))
        && *local > 0
    {
        let _ = writeln!(out, "buildbee: local mostly for {} ({count}); `buildbee explain` says more", clean(reason));
    }
    out
}

pub(crate) fn plural(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", clean(text))
}

/// Without control characters, which could make a terminal do anything.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// The same for texts of several lines, the later ones indented.
fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n            ")
}

#[cfg(test)]
#[path = "ui_tests.rs"]
mod tests;
