//! Dependency files as rustc writes them: what they say, and the same in another spelling.
//!
//! rustc's format, from `rustc_interface::passes::write_out_deps`: rules `TARGET: FILE FILE…`, where the target is written as it is and blanks in files
//! have a backslash; a rule without a target's files for each file (`FILE:`); `# env-dep:NAME[=VALUE]` with backslashes and line breaks of the value
//! escaped; `# checksum:HASH file_len:N FILE`.

use std::path::{Path, PathBuf};

use super::respell::Respell;

/// What a dependency file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DepInfo {
    /// Every file that was read, in order, as spelled; none twice.
    pub files: Vec<PathBuf>,
    /// Every variable that the source asked for, with its value if it is set.
    pub variables: Vec<(String, Option<String>)>,
}

/// Why a text is not one of rustc's dependency files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DepInfoError {
    /// Paths that are not UTF-8 are not followed.
    #[error("dependency file is not UTF-8")]
    NotUtf8,
    /// A line of no known form.
    #[error("dependency file has an unknown line: {0}")]
    UnknownLine(String),
}

/// A line.
enum Line<'a> {
    Empty,
    /// Target and files, the files escaped.
    Rule(&'a str, &'a str),
    /// An escaped file.
    File(&'a str),
    /// Name and escaped value.
    Variable(&'a str, Option<&'a str>),
    /// What stands before the file, and the escaped file.
    Checksum(&'a str, &'a str),
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Result<Self, DepInfoError> {
        let unknown = || DepInfoError::UnknownLine(line.chars().take(200).collect());
        if line.is_empty() {
            return Ok(Self::Empty);
        }
        if let Some(variable) = line.strip_prefix("# env-dep:") {
            return Ok(match variable.split_once('=') {
                Some((name, value)) => Self::Variable(name, Some(value)),
                None => Self::Variable(variable, None),
            });
        }
        if line.starts_with("# checksum:") {
            let (at, _) = line.match_indices(' ').nth(2).ok_or_else(unknown)?;
            let (before, file) = line.split_at_checked(at + 1).ok_or_else(unknown)?;
            return Ok(Self::Checksum(before, file));
        }
        if line.starts_with('#') {
            return Err(unknown());
        }
        if let Some(file) = line.strip_suffix(':') {
            return Ok(Self::File(file));
        }
        line.split_once(": ").map(|(target, files)| Self::Rule(target, files)).ok_or_else(unknown)
    }
}

impl DepInfo {
    /// Reads a dependency file.
    pub fn parse(text: &[u8]) -> Result<Self, DepInfoError> {
        let text = std::str::from_utf8(text).map_err(|_| DepInfoError::NotUtf8)?;
        let mut found = Self::default();
        let mut seen = std::collections::HashSet::new();
        let mut add = |file: &str| {
            let file = PathBuf::from(unescape_file(file));
            if seen.insert(file.clone()) {
                found.files.push(file);
            }
        };
        for line in text.lines() {
            match Line::of(line)? {
                Line::Empty | Line::Checksum(..) => {}
                Line::Rule(_, files) => files_of(files).for_each(&mut add),
                Line::File(file) => add(file),
                Line::Variable(name, value) => {
                    found.variables.push((name.to_owned(), value.map(unescape_value)));
                }
            }
        }
        Ok(found)
    }
}

impl Respell {
    /// A dependency file with every path and value in the other spelling, and not a byte changed elsewhere.
    pub fn dep_info(&self, text: &[u8]) -> Result<Vec<u8>, DepInfoError> {
        let text = std::str::from_utf8(text).map_err(|_| DepInfoError::NotUtf8)?;
        let mut out = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
            match Line::of(body)? {
                Line::Empty => {}
                Line::Rule(target, files) => {
                    out.push_str(&self.spelled(target, str::to_owned, str::to_owned));
                    out.push(':');
                    for file in files_of(files) {
                        out.push(' ');
                        out.push_str(&self.file(file));
                    }
                }
                Line::File(file) => {
                    out.push_str(&self.file(file));
                    out.push(':');
                }
                Line::Variable(_, None) => out.push_str(body),
                Line::Variable(name, Some(value)) => {
                    let plain = unescape_value(value);
                    let other = self.text(&plain);
                    let value = if other == plain { value.to_owned() } else { escape_value(&other) };
                    out.extend(["# env-dep:", name, "=", &value]);
                }
                Line::Checksum(before, file) => {
                    out.push_str(before);
                    out.push_str(&self.file(file));
                }
            }
            out.push_str(end);
        }
        Ok(out.into_bytes())
    }

    fn file(&self, escaped: &str) -> String {
        self.spelled(escaped, unescape_file, |plain| plain.replace(' ', "\\ "))
    }

    /// What stands there, if nothing is to change.
    fn spelled(&self, written: &str, read: impl Fn(&str) -> String, write: impl Fn(&str) -> String) -> String {
        let plain = read(written);
        let other = self.path(Path::new(&plain));
        if other == Path::new(&plain) { written.to_owned() } else { write(&other.to_string_lossy()) }
    }
}

/// The escaped files of a rule: parted by blanks that have no backslash before them.
fn files_of(files: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(files);
    std::iter::from_fn(move || {
        let text = rest?;
        let bytes = text.as_bytes();
        let ends = |at: &usize| bytes.get(*at) == Some(&b' ') && (*at == 0 || bytes.get(*at - 1) != Some(&b'\\'));
        let end = (0..bytes.len()).find(ends);
        rest = end.and_then(|at| text.get(at + 1..));
        end.map_or(Some(text), |at| text.get(..at))
    })
}

fn unescape_file(escaped: &str) -> String {
    escaped.replace("\\ ", " ")
}

fn escape_value(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape_value(escaped: &str) -> String {
    let mut value = String::with_capacity(escaped.len());
    let mut characters = escaped.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some(other) => value.push(other),
                None => value.push('\\'),
            },
            (other, false) => value.push(other),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by rustc 1.95.
    const WRITTEN: &str = "/home/a/t/out dir/y.d: src/lib.rs src/sp\\ ace.rs /home/a/t/out\\ dir/gen.rs\n\n\
        /home/a/t/out dir/liby.rmeta: src/lib.rs src/sp\\ ace.rs /home/a/t/out\\ dir/gen.rs\n\n\
        src/lib.rs:\nsrc/sp\\ ace.rs:\n/home/a/t/out\\ dir/gen.rs:\n\n\
        # env-dep:MISSING\n# env-dep:MULTI=a\\\\b\\nc=d e\n# env-dep:OUT_DIR=/home/a/t/out dir\n\
        # checksum:blake3=9171 file_len:163 src/lib.rs\n# checksum:blake3=1fbe file_len:29 /home/a/t/out\\ dir/gen.rs\n";

    fn respell(from: &str, to: &str) -> Respell {
        Respell::new([(from, to)].into_iter())
    }

    #[test]
    fn what_rustc_writes_is_read() {
        let read = DepInfo::parse(WRITTEN.as_bytes()).unwrap();
        assert_eq!(read.files, ["src/lib.rs", "src/sp ace.rs", "/home/a/t/out dir/gen.rs"].map(PathBuf::from));
        let value = |text: &str| Some(text.to_owned());
        let variables = [("MISSING", None), ("MULTI", value("a\\b\nc=d e")), ("OUT_DIR", value("/home/a/t/out dir"))];
        assert_eq!(read.variables, variables.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn every_path_is_spelled_anew() {
        let placed = respell("/home/a/t", "/buildbee.d/target").dep_info(WRITTEN.as_bytes()).unwrap();
        let placed = String::from_utf8(placed).unwrap();
        assert_eq!(placed, WRITTEN.replace("/home/a/t", "/buildbee.d/target"));
        let spaced = respell("/buildbee.d/target", "/srv/b b").dep_info(placed.as_bytes()).unwrap();
        let spaced = String::from_utf8(spaced).unwrap();
        assert!(spaced.starts_with("/srv/b b/out dir/y.d: src/lib.rs src/sp\\ ace.rs /srv/b\\ b/out\\ dir/gen.rs\n"));
        assert!(spaced.contains("\n/srv/b\\ b/out\\ dir/gen.rs:\n") && spaced.contains("OUT_DIR=/srv/b b/out dir\n"));
        assert_eq!(respell("/srv/b b", "/home/a/t").dep_info(spaced.as_bytes()).unwrap(), WRITTEN.as_bytes());
    }

    #[test]
    fn strange_lines_are_refused() {
        for text in ["# new: x", "words", "x\ny: z"] {
            assert!(matches!(respell("/a", "/b").dep_info(text.as_bytes()), Err(DepInfoError::UnknownLine(_))));
            assert!(DepInfo::parse(text.as_bytes()).is_err());
        }
        assert_eq!(DepInfo::parse(b"\xff"), Err(DepInfoError::NotUtf8));
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same(
            files in prop::collection::vec("(/home/a b|/home/a bc|src)/[a-z .:]{1,8}[a-z]", 1..5),
            value in "(/home/a b)?[a-z\\\\\n\r =]{0,8}",
        ) {
            let escaped: Vec<String> = files.iter().map(|file| file.replace(' ', "\\ ")).collect();
            let text = format!(
                "/home/a b/x.d: {}\n\n{}:\n\n# env-dep:X={}\n",
                escaped.join(" "),
                escaped.join(":\n"),
                escape_value(&value),
            );
            let there = respell("/home/a b", "/buildbee.d/workspace").dep_info(text.as_bytes()).unwrap();
            let back = respell("/buildbee.d/workspace", "/home/a b").dep_info(&there).unwrap();
            prop_assert_eq!(String::from_utf8(back).unwrap(), text);
            let read = DepInfo::parse(&there).unwrap();
            prop_assert!(read.files.iter().all(|file| !file.starts_with("/home/a b")));
            prop_assert_eq!(read.variables.len(), 1);
        }

        #[test]
        fn no_text_is_too_strange(text in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = respell("/a", "/b").dep_info(&text);
            let _ = DepInfo::parse(&text);
        }
    }
}
