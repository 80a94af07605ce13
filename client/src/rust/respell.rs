//! Writes one folder's name in the place of another's, in paths and in texts.

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
        let mut at = 0;
        let mut done = 0;
        while let Some(slash) = text.get(at..).and_then(|rest| rest.find('/')) {
            at += slash;
            match self.starting_at(text, at) {
                Some((from, to)) => {
                    out.push_str(&text[done..at]);
                    out.push_str(to);
                    at += from.len();
                    done = at;
                }
                None => at += 1,
            }
        }
        out.push_str(&text[done..]);
        out
    }

    /// The folder that begins at this byte of the text, which is a slash.
    fn starting_at(&self, text: &str, at: usize) -> Option<(&str, &str)> {
        if text[..at].chars().next_back().is_some_and(|last| last == '/' || in_name(last)) {
            return None;
        }
        let rest = &text[at..];
        let found = self.pairs.iter().find(|(from, _)| {
            rest.strip_prefix(from.as_str()).is_some_and(|after| !after.chars().next().is_some_and(in_name))
        });
        found.map(|(from, to)| (from.as_str(), to.as_str()))
    }
}

/// Whether a character can be part of a file's name without quotes.
fn in_name(character: char) -> bool {
    character.is_alphanumeric() || !character.is_ascii() || matches!(character, '.' | '_' | '-' | '+' | '@' | '~' | '%')
}
