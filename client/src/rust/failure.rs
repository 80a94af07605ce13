//! Whether a compile that failed would fail again if nothing that it read has changed: by what it says. A fault of the code is found again; a
//! full disk, a linker that was killed or a macro that gave up may not be.

use serde_json::Value;

/// The exit status of a rustc that has found errors. It ends with others where it fails itself.
pub const EXIT_CODE: i32 = 1;

/// Whether these messages (JSON lines, or text for people) tell of errors in the code, and of nothing else that went wrong.
///
/// Only errors that rustc has a code or a lint's name for: macros and linkers have none. rustc checks all of a crate before it makes code, so
/// where there is such an error nothing was made that could have failed.
pub fn is_certain(messages: &[u8]) -> bool {
    let Ok(messages) = std::str::from_utf8(messages) else { return false };
    // What the system said of a file may be another thing the next time.
    if messages.contains("os error") {
        return false;
    }
    let mut n_errors = 0;
    for line in messages.lines() {
        match verdict(line) {
            Verdict::Error => n_errors += 1,
            Verdict::Other => {}
            Verdict::Doubt => return false,
        }
    }
    n_errors > 0
}

enum Verdict {
    /// An error in the code.
    Error,
    /// A warning, or a part of another message.
    Other,
    /// Something else went wrong, perhaps.
    Doubt,
}

fn verdict(line: &str) -> Verdict {
    if line.starts_with('{') {
        return serde_json::from_str(line).map_or(Verdict::Doubt, |message: Value| of_json(&message));
    }
    if line.starts_with("error[E") {
        return Verdict::Error;
    }
    // The end of all errors counts none. Whatever else begins at the left edge, but for notes, is no part of a message.
    let is_part = line.is_empty()
        || line.starts_with([' ', '.'])
        || line.starts_with(|first: char| first.is_ascii_digit())
        || [
            "error: aborting due to ",
            "warning: ",
            "note: ",
            "help: ",
            "For more information about ",
            "Some errors have ",
        ]
        .iter()
        .any(|start| line.starts_with(start));
    if is_part { Verdict::Other } else { Verdict::Doubt }
}

fn of_json(message: &Value) -> Verdict {
    let Some(level) = message.get("level").and_then(Value::as_str) else { return Verdict::Other };
    let text = message.get("message").and_then(Value::as_str).unwrap_or_default();
    match level {
        "error" if message.get("code").is_some_and(|code| code.get("code").is_some_and(Value::is_string)) => {
            Verdict::Error
        }
        "error" if text.starts_with("aborting due to ") => Verdict::Other,
        "warning" | "note" | "help" | "failure-note" => Verdict::Other,
        _ => Verdict::Doubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(level: &str, code: Option<&str>, message: &str) -> String {
        let code = code.map(|code| serde_json::json!({ "code": code, "explanation": null }));
        serde_json::json!({ "$message_type": "diagnostic", "level": level, "code": code, "message": message })
            .to_string()
            + "\n"
    }

    #[test]
    fn errors_with_codes_are_found_again() {
        let artifact = "{\"$message_type\":\"artifact\",\"artifact\":\"x.d\",\"emit\":\"dep-info\"}\n";
        let end = json("error", None, "aborting due to 1 previous error");
        for messages in [
            json("error", Some("E0554"), "`#![feature]` may not be used on the stable release channel") + &end,
            artifact.to_owned() + &json("warning", Some("dead_code"), "never used") + &json("error", Some("E0308"), "mismatched"),
            json("error", Some("unused_variables"), "unused variable: `x`") + &end,
            "error[E0554]: `#![feature]` may not be used on the stable release channel\n --> src/lib.rs:1:1\n  |\n1 | #![feature(x)]\n  | ^^^\n\n\
             error: aborting due to 1 previous error\n\nFor more information about this error, try `rustc --explain E0554`.\n".to_owned(),
        ] {
            assert!(is_certain(messages.as_bytes()), "{messages}");
        }
    }

    #[test]
    fn whatever_else_goes_wrong_is_not() {
        let known = json("error", Some("E0308"), "mismatched types");
        for messages in [
            String::new(),
            json("warning", Some("dead_code"), "never used"),
            json("error", None, "linking with `cc` failed: exit status: 1"),
            known.clone() + &json("error", None, "proc macro panicked"),
            known.clone() + &json("error: internal compiler error", None, "no luck"),
            known.clone() + &json("error", Some("E0583"), "couldn't read x.rs: Too many open files (os error 24)"),
            known.clone() + "LLVM ERROR: out of memory\n",
            known + "{\"level\":\n",
            "error[E0308]: mismatched types\nerror: could not write x: No space left on device\n".to_owned(),
            "error[E0308]: mismatched types\n\nthread 'rustc' panicked at x.rs\n".to_owned(),
            "error: expected expression, found `=`\n --> src/lib.rs:1:1\n".to_owned(),
        ] {
            assert!(!is_certain(messages.as_bytes()), "{messages}");
        }
        assert!(!is_certain(b"error[E0308]: \xff"));
    }
}
