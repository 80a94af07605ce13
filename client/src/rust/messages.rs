//! rustc's messages in another spelling: JSON lines (`--error-format=json`) and text for people. Only what is respelled changes; every other
//! byte, escapes too, stays as rustc wrote it. Source text that a message shows is not rustc's, and stays.

use super::respell::Respell;

/// Why messages can't be respelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessagesError {
    /// Paths that are not UTF-8 are not followed.
    #[error("messages are not UTF-8")]
    NotUtf8,
}

/// Members whose text is the source's or the manual's.
const QUOTED: [&str; 2] = ["text", "explanation"];

/// Whether messages speak of a file that rustc wrote beside them (the whole name of a long type): a result without that file would be less.
pub fn name_written_file(messages: &[u8]) -> bool {
    memchr::memmem::find(messages, b"long-type-").is_some()
}

impl Respell {
    /// What a compiler wrote to its standard error.
    pub fn messages(&self, messages: &[u8]) -> Result<Vec<u8>, MessagesError> {
        let messages = std::str::from_utf8(messages).map_err(|_| MessagesError::NotUtf8)?;
        if self.is_identity() {
            return Ok(messages.as_bytes().to_vec());
        }
        let mut out = String::with_capacity(messages.len());
        for line in messages.split_inclusive('\n') {
            match self.json(line) {
                Some(line) => out.push_str(&line),
                None => out.push_str(&self.shown_line(line)),
            }
        }
        Ok(out.into_bytes())
    }

    /// A line of text for people.
    fn shown_line(&self, line: &str) -> String {
        if shows_source(line) { line.to_owned() } else { self.text(line) }
    }

    /// A line that is one JSON object; `None` where it is none.
    fn json(&self, line: &str) -> Option<String> {
        if !line.starts_with('{') || !line.trim_end().ends_with('}') {
            return None;
        }
        let mut out = String::with_capacity(line.len());
        let mut rest = line;
        // The last string, if it may be a member's name.
        let mut name = String::new();
        while let Some(open) = rest.find('"') {
            let (before, string) = rest.split_at_checked(open + 1)?;
            out.push_str(before);
            let decoded = Decoded::of(string)?;
            let is_name = string.get(decoded.raw_bytes + 1..)?.trim_start().starts_with(':');
            let is_quoted = before.trim_start().starts_with(':') && QUOTED.contains(&name.as_str());
            let raw = string.get(..decoded.raw_bytes)?;
            if is_name || is_quoted {
                out.push_str(raw);
            } else {
                self.string(raw, &decoded, &mut out)?;
            }
            out.push('"');
            name = if is_name { decoded.text } else { String::new() };
            rest = string.get(decoded.raw_bytes + 1..)?;
        }
        out.push_str(rest);
        Some(out)
    }

    /// The inside of a JSON string.
    fn string(&self, raw: &str, decoded: &Decoded, out: &mut String) -> Option<()> {
        let mut done = 0;
        let mut line_start = 0;
        for line in decoded.text.split_inclusive('\n') {
            let found = if shows_source(line) { Vec::new() } else { self.found(line) };
            for (range, to) in found {
                let start = *decoded.offsets.get(line_start + range.start)?;
                out.push_str(raw.get(done..start)?);
                let quoted = serde_json::to_string(to).ok()?;
                out.push_str(quoted.strip_prefix('"')?.strip_suffix('"')?);
                done = *decoded.offsets.get(line_start + range.end)?;
            }
            line_start += line.len();
        }
        out.push_str(raw.get(done..)?);
        Some(())
    }
}

/// A JSON string without its quotes.
struct Decoded {
    text: String,
    /// Of each byte of the text, and of its end: where it comes from.
    offsets: Vec<usize>,
    /// Up to the closing quote.
    raw_bytes: usize,
}

impl Decoded {
    /// Reads up to the closing quote.
    fn of(raw: &str) -> Option<Self> {
        let mut text = String::new();
        let mut offsets = Vec::new();
        let mut at = 0;
        loop {
            let character = raw.get(at..)?.chars().next()?;
            let (decoded, n_bytes) = match character {
                '"' => {
                    offsets.push(at);
                    return Some(Self { text, offsets, raw_bytes: at });
                }
                '\\' => escape(raw.get(at + 1..)?)?,
                other => (other, other.len_utf8()),
            };
            text.push(decoded);
            offsets.resize(text.len(), at);
            at += n_bytes;
        }
    }
}

/// What follows a backslash: the character, and the bytes of the whole escape.
fn escape(rest: &str) -> Option<(char, usize)> {
    let simple = match rest.chars().next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'u' => return unicode(rest),
        other @ ('"' | '\\' | '/') => other,
        _ => return None,
    };
    Some((simple, 2))
}

/// `uXXXX`, or two of them for one character.
fn unicode(rest: &str) -> Option<(char, usize)> {
    let unit = |text: &str| text.get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok());
    let first = unit(rest.get(1..)?)?;
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Some((character, 6));
    }
    let second = unit(rest.get(5..)?.strip_prefix("\\u")?)?;
    let character = char::decode_utf16([first, second]).next()?.ok()?;
    Some((character, 12))
}

/// Whether a line of a message for people shows a line of source: its number, then a bar, or a sign of a suggested change.
fn shows_source(line: &str) -> bool {
    let mut plain = Plain { rest: line };
    let mut next = plain.find(|character| *character != ' ');
    let is_numbered = next.is_some_and(|character| character.is_ascii_digit());
    while next.is_some_and(|character| character.is_ascii_digit()) {
        next = plain.next();
    }
    let blank = next == Some(' ');
    let sign = if blank { plain.find(|character| *character != ' ') } else { next };
    is_numbered && blank && matches!(sign, Some('|' | '+' | '-' | '~'))
}

/// The characters of a line without its colours.
struct Plain<'a> {
    rest: &'a str,
}

impl Iterator for Plain<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        while let Some(colour) = self.rest.strip_prefix("\u{1b}[") {
            let end = colour.find(|character: char| character.is_ascii_alphabetic())?;
            self.rest = colour.get(end + 1..)?;
        }
        let next = self.rest.chars().next()?;
        self.rest = self.rest.get(next.len_utf8()..)?;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::rust::roots::{PathSetting, RootKind, Roots};

    fn roots() -> Roots {
        let folders = [(RootKind::Workspace, "/home/a \"b\"/w"), (RootKind::Target, "/home/a \"b\"/w/target")];
        Roots::new(PathSetting::Portable, folders.map(|(kind, folder)| (kind, Path::new(folder))))
    }

    fn shown(messages: &str) -> String {
        String::from_utf8(roots().shown().messages(messages.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn notifications_and_diagnostics_get_real_paths() {
        assert_eq!(
            shown(
                "{\"$message_type\":\"artifact\",\"artifact\":\"/buildbee.d/target/debug/libx.rmeta\",\"emit\":\"metadata\"}\n"
            ),
            "{\"$message_type\":\"artifact\",\"artifact\":\"/home/a \\\"b\\\"/w/target/debug/libx.rmeta\",\"emit\":\"metadata\"}\n"
        );
        let rendered = "{\"rendered\":\"\\u001b[1m--> \\u001b[0m/buildbee/target/gen.rs:1:22\\n\\u001b[94m1\\u001b[0m \\u001b[1m|\\u001b[0m \\\"/proc/self/cwd/x\\\"\\n = see /proc/self/cwd/y\\u00e9.\"}";
        let expected = rendered
            .replace("/buildbee/target", "/home/a \\\"b\\\"/w/target")
            .replace("see /proc/self/cwd", "see /home/a \\\"b\\\"/w");
        assert_eq!(shown(rendered), expected, "paths, but not the source");
    }

    #[test]
    fn text_of_the_source_stays() {
        let line = "{\"spans\":[{\"file_name\":\"src/a.rs\",\"text\":[{\"text\":\"open(\\\"/proc/self/cwd/x\\\")\",\"highlight_start\":1}]}]}\n";
        assert_eq!(shown(line), line);
        assert_eq!(shown("12 | x(\"/proc/self/cwd/x\")\n"), "12 | x(\"/proc/self/cwd/x\")\n");
        assert_eq!(shown("  --> /proc/self/cwd/x:1\n"), "  --> /home/a \"b\"/w/x:1\n");
    }

    #[test]
    fn linkers_and_macros_speak_plainly() {
        let text = "note: cc -L/buildbee.d/target/debug -o /buildbee.d/target/x\n{ not json /buildbee.d/workspace/y\n";
        let real =
            "note: cc -L/home/a \"b\"/w/target/debug -o /home/a \"b\"/w/target/x\n{ not json /home/a \"b\"/w/y\n";
        assert_eq!(shown(text), real);
        assert_eq!(roots().shown().messages(b"\xff"), Err(MessagesError::NotUtf8));
        assert!(name_written_file(b"written to '/x/long-type-12.txt'") && !name_written_file(b"long type"));
    }

    fn respelled(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::String(text) => roots().shown().text(text).into(),
            serde_json::Value::Array(values) => values.iter().map(respelled).collect(),
            serde_json::Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), respelled(value))).collect()
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn a_line_of_json_is_spelled_string_by_string(
            strings in prop::collection::vec("(/buildbee.d/target|/proc/self/cwd|/x)?[a-z/\"\\\\\n\u{1b}é𝄞: {}]{0,10}", 1..6),
            number in any::<i32>(),
        ) {
            let line = serde_json::json!({ "a": &strings, "b": { "name": number, "x\"y": strings.first() } }).to_string();
            let changed = shown(&line);
            let read: serde_json::Value = serde_json::from_str(&changed).unwrap();
            prop_assert_eq!(read, respelled(&serde_json::from_str(&line).unwrap()));
        }

        #[test]
        fn there_and_back_is_the_same(strings in prop::collection::vec("(/home/a \"b\"/w(/target)?)?[a-z/\" \\\\\n\u{1b}é]{0,10}", 1..6)) {
            let line = serde_json::json!({ "a": &strings }).to_string() + "\n";
            let placed = roots().places().messages(line.as_bytes()).unwrap();
            prop_assert_eq!(shown(std::str::from_utf8(&placed).unwrap()), line);
        }

        #[test]
        fn no_bytes_are_too_strange(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = shown(&format!("{{{text}}}"));
            let _ = shown(&format!("{{\"{text}\"}}\n{text}"));
            let _ = roots().shown().messages(&bytes);
        }
    }
}
