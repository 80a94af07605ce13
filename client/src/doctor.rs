//! `buildbee doctor`: what keeps this machine from building well, and what to do about it.

mod checks;

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::Settings;
use crate::exit::{ENVIRONMENT, SUCCESS};
use crate::ui;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could.
    Warn,
    /// Does not work.
    Fail,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub text: String,
    /// What to do, unless all is well.
    pub hint: Option<String>,
}

impl Check {
    fn new(name: &'static str, state: State, text: impl std::fmt::Display) -> Self {
        let text = text.to_string();
        // Errors of the other modules end with a line that starts so.
        match text.split_once("\nhint: ") {
            Some((text, hint)) => Self { name, state, text: text.to_owned(), hint: Some(hint.to_owned()) },
            None => Self { name, state, text, hint: None },
        }
    }

    fn ok(name: &'static str, text: impl std::fmt::Display) -> Self {
        Self::new(name, State::Ok, text)
    }

    fn warn(name: &'static str, text: impl std::fmt::Display) -> Self {
        Self::new(name, State::Warn, text)
    }

    fn fail(name: &'static str, text: impl std::fmt::Display) -> Self {
        Self::new(name, State::Fail, text)
    }
}

#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
}

/// Looks at everything and prints it. What to exit with.
pub fn run(json: bool) -> u8 {
    let checks = match Settings::load() {
        Ok(settings) => checks::all(&settings),
        Err(error) => vec![Check::fail("settings", error)],
    };
    let failed = checks.iter().any(|check| check.state == State::Fail);
    if json {
        ui::print(&ui::json(&serde_json::to_value(Report { checks }).unwrap_or_default()));
    } else {
        ui::print(&render(&checks));
    }
    if failed { ENVIRONMENT } else { SUCCESS }
}

fn render(checks: &[Check]) -> String {
    let mut out = String::new();
    for check in checks {
        let text = check.text.replace('\n', "\n      ");
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:<4}  {}: {text}", check.state.word(), check.name);
        if let Some(hint) = &check.hint {
            let _ = writeln!(out, "      hint: {hint}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_stand_below() {
        let checks = [
            Check::ok("daemon", "answers"),
            Check::fail("cache", "the disk is full\nhint: make room"),
            Check::warn("farm", "none"),
        ];
        insta::assert_snapshot!(render(&checks), @r"
        ok    daemon: answers
        FAIL  cache: the disk is full
              hint: make room
        warn  farm: none
        ");
    }
}
