//! Where in a settings file something is wrong, told alike by every program that reads one.
//!
//! Pure text. Not here: which keys there are, reading the file, and the parser (each program's `config.rs`).

/// What a parser complains of, as an error shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, in one line; names the key if the line has one.
    pub message: String,
}

impl Complaint {
    /// From what the parser says of byte `at` of `text`.
    pub fn new(text: &str, at: usize, message: &str) -> Self {
        let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
        let line = before.split(|byte| *byte == b'\n').count();
        let message = message.trim().replace('\n', "; ");
        // The parser names a key that it does not know, but not the key of a value that it can't use.
        let key = text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map_or("", |(key, _)| key.trim());
        let named = key.is_empty() || message.contains(&format!("`{key}`"));
        Self { line, message: if named { message } else { format!("{key}: {message}") } }
    }
}

/// Where `key` is set, counted from 1, if it is.
pub fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let sets = |line: &str| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
    text.lines().position(sets).map(|index| index + 1)
}

/// An annotated file with its keys at work, for holding it against the defaults: in it every key stands as `#key = value`, and a
/// comment starts with `# `.
pub fn uncommented(annotated: &str) -> String {
    let lines = annotated.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase()) => rest,
        _ => line,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_line_and_key_once() {
        let text = "a = 1\n\nbee = x\n";
        assert_eq!(Complaint::new(text, 7, "no\nvalue "), Complaint { line: 3, message: "bee: no; value".to_owned() });
        assert_eq!(Complaint::new(text, 7, "unknown `bee`").message, "unknown `bee`");
        assert_eq!(Complaint::new(text, 0, "bad").line, 1);
        assert_eq!(Complaint::new("a = ä\n", 5, "inside a letter").line, 1);
        assert_eq!(Complaint::new(text, usize::MAX, "bad"), Complaint { line: 4, message: "bad".to_owned() });
        assert_eq!(Complaint::new("", 0, "empty"), Complaint { line: 1, message: "empty".to_owned() });
    }

    #[test]
    fn keys_are_found_by_their_whole_name() {
        let text = "cache_size_limit = 1\n# cache_size = 2\n  cache_size=3\n";
        assert_eq!(line_of_key(text, "cache_size"), Some(3));
        assert_eq!(line_of_key(text, "cache"), None);
    }

    #[test]
    fn keys_of_an_annotated_file_are_put_to_work() {
        assert_eq!(uncommented("# Words.\n#key = 1\n#\n\nx"), "# Words.\nkey = 1\n#\n\nx\n");
    }
}
