//! How `explain` looks: a line or two for each of many actions, all that is known for one.

use std::fmt::Write as _;

use super::{clean, clean_lines, plural, seconds, size};
use crate::cli::documents::{Difference, Explained, ExplainedAction, Miss};
use crate::journal::stages::STAGES;

/// Where nothing was found.
const NOTHING: &str = "no such action since the daemon started\n";

/// The last actions, shortly.
pub fn brief(explained: &Explained) -> String {
    if explained.actions.is_empty() {
        return NOTHING.to_owned();
    }
    let mut out = String::new();
    for action in &explained.actions {
        out.push_str(&headline(action));
        if let Some(why) = why(action) {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "    {why}");
        }
    }
    out
}

/// All that is known.
pub fn full(explained: &Explained) -> String {
    if explained.actions.is_empty() {
        return NOTHING.to_owned();
    }
    explained.actions.iter().map(full_action).collect::<Vec<_>>().join("\n")
}

fn full_action(action: &ExplainedAction) -> String {
    let mut out = headline(action);
    if let Some(why) = why(action) {
        row(&mut out, "reason", &why);
    }
    if let Some(hint) = &action.hint {
        row(&mut out, "hint", &clean(hint));
    }
    if let Some(miss) = &action.miss {
        missed(&mut out, miss);
    }
    row(&mut out, "compiler", &clean(&action.compiler));
    row(&mut out, "folder", &clean(&action.cwd));
    if !action.output.is_empty() {
        row(&mut out, "output", &clean(&action.output));
    }
    if !action.added_arguments.is_empty() {
        row(&mut out, "added", &clean(&action.added_arguments.join(" ")));
    }
    if let Some(reason) = &action.directory {
        row(&mut out, "sharing", &clean(&format!("not with other folders: {reason}")));
    }
    if let Some(inputs) = &action.inputs {
        let absent = plural(inputs.absent, "name");
        let text = format!("{}, {}; {absent} looked for in vain", plural(inputs.files, "file"), size(inputs.bytes));
        row(&mut out, "inputs", &text);
    }
    if action.sent_bytes + action.received_bytes > 0 {
        let (sent, received) = (size(action.sent_bytes), size(action.received_bytes));
        row(&mut out, "network", &format!("{sent} sent with the action, {received} of its result received"));
    }
    let stages: Vec<String> = (STAGES.iter())
        .filter_map(|(_, name)| Some(format!("{name} {}", milliseconds(*action.stages_ms.get(*name)?))))
        .collect();
    if !stages.is_empty() {
        row(&mut out, "time", &format!("{} ms", stages.join(", ")));
    }
    if let Some(digest) = &action.action {
        row(&mut out, "action", &clean(digest));
    }
    out
}

fn headline(action: &ExplainedAction) -> String {
    let what = [&action.source, &action.output, &action.compiler].into_iter().find(|name| !name.is_empty());
    let what = what.map_or_else(String::new, |name| clean(name));
    let agent = action.agent.as_deref().map_or_else(String::new, |agent| format!(" by {}", clean(agent)));
    format!("{what}: {}{agent} in {}\n", clean(&action.r#where), seconds(action.wall_ms))
}

fn why(action: &ExplainedAction) -> Option<String> {
    match (action.reason.as_deref(), action.text.is_empty()) {
        (Some(reason), true) => Some(clean(reason)),
        // A hint of the text's own stands in a row of its own, or is replaced by the reason's.
        (Some(reason), false) => {
            let text = action.text.split_once("\nhint: ").map_or(action.text.as_str(), |(text, _)| text);
            Some(format!("{}: {}", clean(reason), clean_lines(text)))
        }
        (None, true) => None,
        (None, false) => Some(clean_lines(&action.text)),
    }
}

fn missed(out: &mut String, miss: &Miss) {
    let text = match miss.because.as_str() {
        "first-time" => "no compile of this source is remembered".to_owned(),
        "command-changed" => "differs from the nearest compile of this source before:".to_owned(),
        "inputs-changed" => "the same command as before, but what it reads differs:".to_owned(),
        "not-kept" => "the same as before, but no result was kept: it failed, or made room for others".to_owned(),
        "forgotten" => "what was before is forgotten".to_owned(),
        other => clean(other),
    };
    row(out, "miss", &text);
    for difference in &miss.differences {
        row(out, "", &format!("  {}", told(difference)));
    }
    if miss.more > 0 {
        row(out, "", &format!("  and {} more", miss.more));
    }
}

fn told(difference: &Difference) -> String {
    let Difference { kind, name, was, now } = difference;
    let (kind, name) = (clean(&kind.replace('-', " ")), clean(name));
    let subject = if name.is_empty() { kind.clone() } else { format!("{kind} {name}") };
    let (was, now) = (was.as_deref().map(clean), now.as_deref().map(clean));
    match (kind.as_str(), was, now) {
        ("source" | "input", Some(_), Some(_)) => format!("{subject} has other content"),
        ("input", None, _) => format!("{subject} was not read before"),
        ("input", _, None) => format!("{subject} is not read any more"),
        ("twin", ..) => format!("{name} is another one of several files of equal content, or of another age"),
        ("absence", None, _) => format!("{name} is looked for now, in vain"),
        ("absence", _, None) => format!("{name} was looked for before, in vain"),
        (_, Some(was), Some(now)) => format!("{subject}: {now} (was {was})"),
        (_, None, Some(now)) if name.is_empty() => format!("{subject} added: {now}"),
        (_, Some(was), None) if name.is_empty() => format!("{subject} removed: {was}"),
        (_, None, Some(now)) => format!("{subject}: {now} (was not set)"),
        (_, Some(was), None) => format!("{subject}: not set (was {was})"),
        (_, None, None) => subject,
    }
}

/// Three places below a millisecond's tenth tell nothing.
fn milliseconds(time: f64) -> String {
    format!("{time:.1}")
}

fn row(out: &mut String, name: &str, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "    {}", format!("{name:<9} {text}").trim_end());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(actions: &serde_json::Value) -> Explained {
        serde_json::from_value(json!({ "actions": actions })).unwrap()
    }

    #[test]
    fn many_actions_take_a_line_or_two() {
        let actions = json!([
            {"at_unix": 1, "source": "a.c", "output": "a.o", "compiler": "/usr/bin/gcc", "where": "remote", "agent": "desk",
             "reason": null, "text": "", "wall_ms": 120, "action": "x"},
            {"source": "", "output": "prog", "compiler": "/usr/bin/gcc", "where": "local", "agent": null, "reason": "link",
             "text": "it links\nhint: no", "wall_ms": 2000},
        ]);
        insta::assert_snapshot!(brief(&of(&actions)), @r"
        a.c: remote by desk in 0.120 s
        prog: local in 2.000 s
            link: it links
        ");
        assert_eq!(brief(&Explained::default()), NOTHING);
        assert_eq!(full(&Explained::default()), NOTHING);
    }

    #[test]
    fn one_action_is_told_whole() {
        let actions = json!([{
            "source": "src/a.c", "output": "a.o", "cwd": "/p", "compiler": "/usr/bin/gcc", "where": "remote", "agent": "desk",
            "reason": null, "text": "", "hint": null, "wall_ms": 812, "action": "blake3:00", "added_arguments": ["-fdiagnostics-color=always"],
            "inputs": {"files": 312, "bytes": 4_300_000, "absent": 1}, "sent_bytes": 12_288, "received_bytes": 2048,
            "stages_ms": {"toolchain": 0.21, "run": 790.0, "transfer": 12.44},
            "miss": {"because": "command-changed", "more": 2, "differences": [
                {"kind": "argument", "name": "", "was": "-O1", "now": null},
                {"kind": "argument", "name": "", "was": null, "now": "-O2"},
                {"kind": "variable", "name": "LANG", "was": "C", "now": null},
                {"kind": "source", "name": "src/a.c", "was": "00", "now": "11"},
            ]},
        }]);
        insta::assert_snapshot!(full(&of(&actions)), @r"
        src/a.c: remote by desk in 0.812 s
            miss      differs from the nearest compile of this source before:
                        argument removed: -O1
                        argument added: -O2
                        variable LANG: not set (was C)
                        source src/a.c has other content
                        and 2 more
            compiler  /usr/bin/gcc
            folder    /p
            output    a.o
            added     -fdiagnostics-color=always
            inputs    312 files, 4.1 MiB; 1 name looked for in vain
            network   12.0 KiB sent with the action, 2.0 KiB of its result received
            time      toolchain 0.2, run 790.0, transfer 12.4 ms
            action    blake3:00
        ");
    }

    #[test]
    fn what_peers_and_files_are_called_reaches_no_terminal_raw() {
        let actions =
            json!([{"source": "a\u{1b}[2J.c", "where": "local", "reason": "x\u{7}", "text": "y\u{1b}", "wall_ms": 1}]);
        assert!(!full(&of(&actions)).contains(['\u{1b}', '\u{7}']));
    }
}
