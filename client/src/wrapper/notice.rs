//! A line on the terminal that says what a compile waits for, and is gone before anything else is printed.
//!
//! Only where standard error is a terminal, so that it is in nobody's log, and not below cargo's build scripts, which take any word for the compiler's.

use std::io::IsTerminal;

use super::output::write_all;

/// At the beginning of the line, which is cleared from there on.
const CLEAR: &str = "\r\x1b[K";

/// What was said last.
#[derive(Debug, Default)]
pub struct Notice {
    may_speak: bool,
    is_shown: bool,
}

impl Notice {
    /// Speaks if it may, and somebody looks.
    pub fn new(may_complain: bool) -> Self {
        Self { may_speak: may_complain && std::io::stderr().is_terminal(), is_shown: false }
    }

    /// Shows `text` in place of what was shown; an empty one clears it.
    pub fn show(&mut self, text: &str) {
        if text.is_empty() {
            self.clear();
        } else if self.may_speak {
            self.is_shown = true;
            write_all(std::io::stderr(), line(text).as_bytes());
        }
    }

    /// As if nothing had been said.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            write_all(std::io::stderr(), CLEAR.as_bytes());
        }
    }
}

/// Control characters in it are another's.
fn line(text: &str) -> String {
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    format!("{CLEAR}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_controls_nothing() {
        assert_eq!(line("gcc\u{1b}[2J to\ndesk"), "\r\u{1b}[Kgcc[2J todesk");
    }

    #[test]
    fn who_may_not_speak_has_nothing_to_clear() {
        let mut notice = Notice::default();
        notice.show("text");
        assert!(!notice.is_shown);
    }
}
