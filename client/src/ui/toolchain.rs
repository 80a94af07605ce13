//! How `buildbee toolchain …` looks.

use std::fmt::Write as _;

use super::{clean, duration, line, plural, size, table};
use crate::cli::documents::{CollectedToolchains, Sending, Toolchain, Toolchains, VerifiedToolchains, WarmedToolchain};

/// Digits of an id that tell it from others.
const ID_DIGITS: usize = 12;

/// One that agents fetch from here.
pub fn sending(one: &Sending) -> String {
    let left = one.left_s.map_or_else(String::new, |left_s| format!(", {left_s} s left at most"));
    format!(
        "{} to {}: {} of {}, {} of {}{left}",
        clean(&one.toolchain),
        clean(&one.agents.join(", ")),
        one.files,
        plural(one.files_total, "file"),
        size(one.bytes),
        size(one.bytes_total),
    )
}

/// `toolchain list`.
pub fn list(known: &Toolchains) -> String {
    if known.toolchains.is_empty() {
        return "no compiler was asked for since the daemon started; `buildbee toolchain warm COMPILER` looks at one\n"
            .to_owned();
    }
    let mut out = String::new();
    let rows = known.toolchains.iter().map(|one| {
        vec![
            one.id.chars().take(ID_DIGITS).collect(),
            clean(&one.program),
            one.files.to_string(),
            size(one.bytes),
            if one.agents.is_empty() { "none".to_owned() } else { clean(&one.agents.join(", ")) },
            if one.current { String::new() } else { "has changed".to_owned() },
        ]
    });
    table(&mut out, &["ID", "COMPILER", "FILES", "SIZE", "AGENTS", ""], &rows.collect::<Vec<_>>());
    out
}

/// `toolchain show`.
pub fn show(one: &Toolchain) -> String {
    let mut out = String::new();
    line(&mut out, "toolchain", &clean(&one.id));
    line(&mut out, "compiler", &clean(&one.program));
    line(&mut out, "is", &clean(&one.label));
    line(&mut out, "runs on", &clean(&one.host));
    line(&mut out, "content", &format!("{}, {}", plural(one.files, "file"), size(one.bytes)));
    let agents = if one.agents.is_empty() { "none has it".to_owned() } else { clean(&one.agents.join(", ")) };
    line(&mut out, "agents", &agents);
    if !one.current {
        line(&mut out, "state", "it has changed since; the next compile looks at it again");
    }
    let rows = one.contents.iter().map(|file| vec![size(file.bytes), clean(&file.path)]);
    table(&mut out, &["SIZE", "FILE"], &rows.collect::<Vec<_>>());
    out
}

/// `toolchain verify`.
pub fn verified(all: &VerifiedToolchains) -> String {
    let mut out = String::new();
    for one in &all.toolchains {
        let (program, files) = (clean(&one.program), plural(one.files, "file"));
        if one.n_changed == 0 {
            let _ = writeln!(out, "{program}: {files}, {}: as agents were told", size(one.bytes));
            continue;
        }
        let _ = writeln!(out, "{program}: {} of {files} not as agents were told", one.n_changed);
        for changed in &one.changed {
            let _ = writeln!(out, "    {}", clean(changed));
        }
        let _ = writeln!(out, "hint: `buildbee toolchain gc` forgets it; the next compile looks at it again");
    }
    if all.toolchains.is_empty() {
        out.push_str("no compiler was asked for since the daemon started\n");
    }
    out
}

/// `toolchain gc`.
pub fn collected(collected: &CollectedToolchains) -> String {
    match &collected.forgotten[..] {
        [] => "all toolchains that are known are as they were\n".to_owned(),
        forgotten => format!("forgot {}\n", clean(&forgotten.join(", "))),
    }
}

/// `toolchain warm`.
pub fn warmed(one: &WarmedToolchain) -> String {
    let mut out = String::new();
    let program = clean(&one.program);
    if let Some(error) = &one.error {
        let _ = writeln!(out, "{program}: {}", clean(error));
        return out;
    }
    if one.agents.is_empty() {
        let _ = writeln!(out, "{program}: no agent that could run it is there");
    }
    if let Some(error) = &one.without_linker {
        let _ =
            writeln!(out, "{program}: programs and macros will be linked here, for want of a linker: {}", clean(error));
    }
    for (name, agent) in &one.agents {
        let what = match &agent.error {
            Some(error) => clean(error),
            None if agent.had_it => "had it".to_owned(),
            None => format!("has it, after {}", duration(agent.took_ms)),
        };
        let _ = writeln!(out, "{program}: {} {what}", clean(name));
    }
    out
}
