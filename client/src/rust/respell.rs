//! Writes one folder's name in the place of another's, in paths and in texts.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// From some folders to others, the longest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respell {
    /// Absolute, without a slash at the end; no pair that changes nothing unless it shields a folder within another.
    pairs: Vec<(String, String)>,
}

impl Respell {
    /// From pairs of absolute folders without a slash at the end.
    pub(super) fn new<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut pairs: Vec<(String, String)> = pairs.map(|(from, to)| (from.to_owned(), to.to_owned())).collect();
        pairs.sort_by(|one, two| two.0.len().cmp(&one.0.len()).then_with(|| one.cmp(two)));
        pairs.dedup();
        Self { pairs }
    }

    /// Whether nothing would ever be changed.
    pub fn is_identity(&self) -> bool {
        self.pairs.iter().all(|(from, to)| from == to)
    }

    /// A path: the same below the other folder, or as it is where it lies in none of them. Relative ones stay.
    pub fn path(&self, path: &Path) -> PathBuf {
        for (from, to) in &self.pairs {
            if let Ok(rest) = path.strip_prefix(from) {
                return if rest.as_os_str().is_empty() { PathBuf::from(to) } else { Path::new(to).join(rest) };
            }
        }
        path.to_owned()
    }

    /// A text: each folder where it stands as a whole path or as the beginning of one.
    pub fn text(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for (range, to) in self.found(text) {
            out.push_str(text.get(done..range.start).unwrap_or_default());
            out.push_str(to);
            done = range.end;
        }
        out.push_str(text.get(done..).unwrap_or_default());
        out
    }

    /// What of a text is to be replaced by what, in order.
    pub(super) fn found(&self, text: &str) -> Vec<(Range<usize>, &str)> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(slash) = text.get(at..).and_then(|rest| rest.find('/')) {
            at += slash;
            match self.starting_at(text, at) {
                Some((from, to)) => {
                    if from != to {
                        found.push((at..at + from.len(), to));
                    }
                    at += from.len();
                }
                None => at += 1,
            }
        }
        found
    }

    /// The folder that begins at this byte of the text, which is a slash.
    fn starting_at(&self, text: &str, at: usize) -> Option<(&str, &str)> {
        let (before, rest) = text.split_at_checked(at)?;
        let found = self.pairs.iter().find(|(from, _)| rest.strip_prefix(from.as_str()).is_some_and(ends_name))?;
        (is_reserved(&found.0) || starts_path(before)).then_some((found.0.as_str(), found.1.as_str()))
    }
}

/// Whether a folder's name is one that stands for nothing else, wherever it is found: behind `-L`, for example.
fn is_reserved(folder: &str) -> bool {
    RESERVED
        .iter()
        .any(|reserved| folder.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Beginnings of places and names, as [`RootKind`](super::roots::RootKind) has them.
const RESERVED: [&str; 3] = ["/buildbee.d", "/buildbee", "/proc/self/cwd"];

/// Whether an absolute path can begin behind `before`. Colour ends with a letter, but is no part of a name.
fn starts_path(before: &str) -> bool {
    let is_colour = || {
        let numbers =
            before.strip_suffix('m').map(|before| before.trim_end_matches(|c: char| c.is_ascii_digit() || c == ';'));
        numbers.is_some_and(|before| before.ends_with("\u{1b}["))
    };
    before.chars().next_back().is_none_or(|last| last != '/' && !in_name(last)) || is_colour()
}

/// Whether a name ends before `after`. A full stop ends it if a sentence ends there.
fn ends_name(after: &str) -> bool {
    let mut next = after.chars();
    match next.next() {
        Some('.') => next.next().is_none_or(|second| !in_name(second) && second != '/'),
        Some(first) => !in_name(first),
        None => true,
    }
}

/// Whether a character can be part of a file's name without quotes.
fn in_name(character: char) -> bool {
    character.is_alphanumeric() || !character.is_ascii() || matches!(character, '.' | '_' | '-' | '+' | '@' | '~' | '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_replaced() {
        let respell = Respell::new([("/w", "/buildbee.d/workspace"), ("/w/target", "/buildbee.d/target")].into_iter());
        for (text, expected) in [
            ("/w/x", "/buildbee.d/workspace/x"),
            ("see /w.", "see /buildbee.d/workspace."),
            ("/w.old", "/w.old"),
            ("/ww", "/ww"),
            ("a/w/x", "a/w/x"),
            ("//w/x", "//w/x"),
            ("\u{1b}[1m\u{1b}[94m/w/target/x:1", "\u{1b}[1m\u{1b}[94m/buildbee.d/target/x:1"),
            ("am/w/x", "am/w/x"),
            ("/w:/w/target:/w/targets", "/buildbee.d/workspace:/buildbee.d/target:/buildbee.d/workspace/targets"),
            ("`/w/x`", "`/buildbee.d/workspace/x`"),
        ] {
            assert_eq!(respell.text(text), expected);
        }
    }

    #[test]
    fn names_that_nobody_else_has_are_replaced_everywhere() {
        let respell = Respell::new([("/buildbee.d/target", "/w/t"), ("/proc/self/cwd", "/w")].into_iter());
        assert_eq!(respell.text("-L/buildbee.d/target/x"), "-L/w/t/x");
        assert_eq!(respell.text("-Wl,/proc/self/cwd/x /proc/self/cwdx"), "-Wl,/w/x /proc/self/cwdx");
    }
}
