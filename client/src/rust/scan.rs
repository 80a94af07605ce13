//! Which variables and files a Rust source names: `env!`, `option_env!`, `include!` and its kin, `#[path]`. A light lexer, so that comments and
//! strings say nothing; what macros put together is not seen, which is why a compile is watched besides.

use std::collections::BTreeSet;

/// What a source names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Variables of `env!("X")` and `option_env!("X")`.
    pub variables: BTreeSet<String>,
    /// Those of them whose value gets into the crate, other than to name a file that is included:
    /// `include!(concat!(env!("OUT_DIR"), "/x.rs"))` is no such use.
    pub kept_variables: BTreeSet<String>,
    /// Literal files of `include!("x")`, `include_str!`, `include_bytes!` and `#[path = "x"]`, as written.
    pub files: BTreeSet<String>,
    /// Whether a name is put together: `env!(concat!(…))`, `include!($path)`.
    pub is_computed: bool,
}

impl Mentions {
    /// What both name.
    pub fn add(&mut self, other: Self) {
        self.variables.extend(other.variables);
        self.kept_variables.extend(other.kept_variables);
        self.files.extend(other.files);
        self.is_computed |= other.is_computed;
    }
}

/// Macros that take a file's name.
const INCLUDING: [&[u8]; 3] = [b"include", b"include_bytes", b"include_str"];

/// A token, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a [u8]),
    /// The inside of a string, and whether backslashes are themselves.
    Text(&'a [u8], bool),
    Sign(u8),
}

/// Reads a source. Takes time in proportion to its length.
pub fn scan(source: &[u8]) -> Mentions {
    let mut found = Mentions::default();
    // Tokens before the one in hand, the nearest first. `include!(concat!(env!(` has nine.
    let mut before: [Token<'_>; 9] = [Token::Sign(b' '); 9];
    for token in (Lexer { rest: source }) {
        found.token(token, &before);
        before.rotate_right(1);
        before[0] = token;
    }
    found
}

/// Libraries that a source has linked by attribute, `#[link(name = "x")]`, whatever that depends on.
pub fn linked(source: &[u8]) -> BTreeSet<String> {
    if memchr::memmem::find(source, b"link(").is_none() {
        return BTreeSet::new();
    }
    let mut names = BTreeSet::new();
    // Brackets that are open since that of `link`.
    let mut depth = 0_usize;
    let mut before: [Token<'_>; 2] = [Token::Sign(b' '); 2];
    for token in (Lexer { rest: source }) {
        match token {
            Token::Sign(b'(') if depth > 0 || before[0] == Token::Word(b"link") => depth += 1,
            Token::Sign(b')') => depth = depth.saturating_sub(1),
            Token::Text(text, is_raw) if depth > 0 && before == [Token::Sign(b'='), Token::Word(b"name")] => {
                names.extend(plain(text, is_raw));
            }
            _ => {}
        }
        before = [token, before[0]];
    }
    names
}

fn opens(token: Token<'_>) -> bool {
    matches!(token, Token::Sign(b'(' | b'[' | b'{'))
}

/// Whether a macro of one of these names was just opened, as seen from `before`.
fn in_call(before: &[Token<'_>], names: &[&[u8]]) -> bool {
    match before {
        [open, Token::Sign(b'!'), Token::Word(name), ..] => opens(*open) && names.contains(name),
        _ => false,
    }
}

impl Mentions {
    fn token(&mut self, token: Token<'_>, before: &[Token<'_>; 9]) {
        let asks = in_call(before, &[b"env", b"option_env"]);
        let includes = in_call(before, &INCLUDING);
        let Token::Text(text, is_raw) = token else {
            // `include!(concat!(env!("X"), "/y"))` is followed from its variable on.
            let is_concat = includes && token == Token::Word(b"concat");
            self.is_computed |= (asks || includes) && !is_concat && token != Token::Sign(b')');
            return;
        };
        let Some(text) = plain(text, is_raw) else {
            self.is_computed |= asks || includes;
            return;
        };
        if asks {
            let named_file = in_call(&before[3..], &[b"concat"])
                && in_call(&before[6..], &INCLUDING)
                && before[2] == Token::Word(b"env");
            if !named_file {
                self.kept_variables.insert(text.clone());
            }
            self.variables.insert(text);
        } else if includes
            || matches!(before, [Token::Sign(b'='), Token::Word(b"path"), Token::Sign(b'[' | b'(' | b','), ..])
        {
            self.files.insert(text);
        } else if in_call(before, &[b"concat"]) && in_call(&before[3..], &INCLUDING) {
            self.is_computed = true;
        }
    }
}

/// What a string says; `None` where that takes more than reading.
fn plain(text: &[u8], is_raw: bool) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    if is_raw || !text.contains('\\') {
        return Some(text.to_owned());
    }
    let unquoted = text.replace("\\\\", "\u{0}").replace("\\\"", "\"");
    (!unquoted.contains('\\')).then(|| unquoted.replace('\u{0}', "\\"))
}

struct Lexer<'a> {
    rest: &'a [u8],
}

impl<'a> Lexer<'a> {
    fn take(&mut self, n_bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(n_bytes.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Up to and with the first of `end`; all, if there is none.
    fn take_to(&mut self, end: &[u8]) -> &'a [u8] {
        let at = memchr::memmem::find(self.rest, end);
        let taken = self.take(at.unwrap_or(self.rest.len()));
        self.take(end.len());
        taken
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            if self.rest.starts_with(b"/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with(b"*/") {
                depth -= 1;
                self.take(2);
            } else if self.take(1).is_empty() {
                return;
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Behind the opening quote.
    fn string(&mut self) -> Token<'a> {
        let mut length = 0;
        while let Some(byte) = self.rest.get(length) {
            match byte {
                b'"' => break,
                b'\\' => length += 2,
                _ => length += 1,
            }
        }
        let text = self.take(length);
        self.take(1);
        Token::Text(text, false)
    }

    /// Behind `r` and its kin, if a raw string follows.
    fn raw_string(&mut self) -> Option<Token<'a>> {
        let n_marks = self.rest.iter().take_while(|byte| **byte == b'#').count();
        if self.rest.get(n_marks) != Some(&b'"') {
            return None;
        }
        self.take(n_marks + 1);
        let mut end = vec![b'#'; n_marks + 1];
        if let Some(first) = end.first_mut() {
            *first = b'"';
        }
        Some(Token::Text(self.take_to(&end), true))
    }

    /// Behind `'`: a character, or a lifetime, whose name is a word like any other.
    fn character(&mut self) {
        match self.rest {
            [b'\\', ..] => {
                self.take(2);
                self.take_to(b"'");
            }
            [_, b'\'', ..] => {
                self.take(2);
            }
            [first, ..] if !first.is_ascii() => {
                let length = self.rest.iter().take(5).position(|byte| *byte == b'\'');
                self.take(length.map_or(0, |length| length + 1));
            }
            _ => {}
        }
    }

    fn word(&mut self) -> &'a [u8] {
        let in_word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_' || !byte.is_ascii();
        let length = self.rest.iter().take_while(in_word).count();
        self.take(length)
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            match self.rest {
                [] => return None,
                [b'/', b'/', ..] => {
                    self.take_to(b"\n");
                }
                [b'/', b'*', ..] => self.block_comment(),
                [b'"', ..] => {
                    self.take(1);
                    return Some(self.string());
                }
                [b'\'', ..] => {
                    self.take(1);
                    self.character();
                }
                [first, ..] if first.is_ascii_whitespace() => {
                    self.take(1);
                }
                [first, ..] if first.is_ascii_alphanumeric() || *first == b'_' || !first.is_ascii() => {
                    let word = self.word();
                    let raw = matches!(word, b"r" | b"br" | b"cr").then(|| self.raw_string()).flatten();
                    return Some(raw.unwrap_or(Token::Word(word)));
                }
                [sign, ..] => {
                    let sign = *sign;
                    self.take(1);
                    return Some(Token::Sign(sign));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables(source: &str) -> Vec<String> {
        scan(source.as_bytes()).variables.into_iter().collect()
    }

    #[test]
    fn attributes_name_libraries() {
        let text = r#"
            #[link(name = "z")] extern "C" {}
            // #[link(name = "no")]
            #[cfg_attr(all(unix, feature = "x"), link(kind = "static", name = "s"))] extern "C" {}
            #[serde(name = "no")] fn link(name: &str) {} const X: &str = "link(name = \"no\")";
        "#;
        assert_eq!(linked(text.as_bytes()), ["s".to_owned(), "z".to_owned()].into());
        assert_eq!(linked(b"#[link(name = \"open"), BTreeSet::from(["open".to_owned()]));
        assert_eq!(linked(b")) link((("), BTreeSet::new());
    }

    #[test]
    fn variables_are_found_in_code_alone() {
        let source = r##"
            const A: &str = env!("A"); // env!("COMMENT")
            const B: Option<&str> = core::option_env! [ "B" ];
            /* /* */ env!("NESTED") */
            const C: &str = "env!(\"STRING\")"; const D: &str = r#"env!("RAW") " "#; const E: char = '"'; const E2: char = '\'';
            fn f<'a>(x: &'a str) -> &'a str { env!(r"F", "is not set") }
            const G: &[u8] = b"env!(\"BYTES\")"; const H: char = 'é'; const I: &str = env! { "I" };
            fn r() { my_env!("OTHER"); env("CALL") }
        "##;
        assert_eq!(variables(source), ["A", "B", "F", "I"]);
        assert!(!scan(source.as_bytes()).is_computed);
    }

    #[test]
    fn included_files_and_their_variables() {
        let found = scan(
            br#"include!(concat!(env!("OUT_DIR"), "/gen.rs")); const X: &str = include_str!("../x.txt");
                #[path = "other.rs"] mod other; #[cfg_attr(unix, path = "unix.rs")] mod sys;
                const Y: &[u8] = std::include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/y"));"#,
        );
        assert_eq!(found.files.iter().collect::<Vec<_>>(), ["../x.txt", "other.rs", "unix.rs"]);
        assert_eq!(found.variables.iter().collect::<Vec<_>>(), ["CARGO_MANIFEST_DIR", "OUT_DIR"]);
        assert_eq!((found.kept_variables.len(), found.is_computed), (0, false));
        let kept =
            scan(br#"const D: &str = concat!(env!("OUT_DIR"), "/x"); include!(concat!(env!("OUT_DIR"), "/g"));"#);
        assert_eq!(kept.kept_variables.iter().collect::<Vec<_>>(), ["OUT_DIR"]);
    }

    #[test]
    fn names_that_are_put_together_are_told() {
        for source in [
            r#"env!(concat!("A", "B"))"#,
            "option_env!($name)",
            "include!(file!())",
            r#"include_str!(concat!("a", "b"))"#,
            r#"env!("\x41")"#,
        ] {
            assert!(scan(source.as_bytes()).is_computed, "{source}");
        }
        let mut all = scan(b"env!(\"A\")");
        all.add(scan(b"include!(X)"));
        assert!(all.is_computed && all.variables.contains("A"));
    }

    proptest! {
        #[test]
        fn no_source_is_too_strange(
            parts in prop::collection::vec(
                prop_oneof![Just("env!("), Just("\""), Just("r#"), Just("/*"), Just("*/"), Just("'"), Just("\\"), Just("//"), Just("\n"), Just("é"), Just("include!(concat!("), Just("br##\"")],
                0..20,
            ),
            bytes in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut source = parts.concat().into_bytes();
            source.extend(bytes);
            let _ = scan(&source);
        }

        #[test]
        fn a_variable_is_found_behind_any_closed_text(text in "[a-z \n]{0,10}", inside in "[a-z*'!() ]{0,10}") {
            let source = format!("/*{}*/ {text} \"{inside}\" r#\"{inside}\"# // {inside}\n env!(\"X\")", inside.replace('*', ""));
            prop_assert!(scan(source.as_bytes()).variables.contains("X"), "{}", source);
        }
    }
}
