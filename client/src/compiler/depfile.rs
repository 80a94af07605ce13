//! Reads what `-M` and `-MD` write: make rules, in the one dialect that gcc and clang share.
//!
//! White space and `#` in names come with a backslash (backslashes before white space doubled), `$` doubled; a line goes on after a
//! backslash. Everything else stands for itself. Not a reader for makefiles.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use thiserror::Error;

/// Largest dependency file that is read, in bytes.
pub const MAX_DEPFILE_BYTES: usize = 16 << 20;
/// Most names in one.
pub const MAX_DEPFILE_NAMES: usize = 200_000;

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Left of the colon.
    pub targets: Vec<PathBuf>,
    /// Right of it; empty for the phony rules of `-MP`.
    pub prerequisites: Vec<PathBuf>,
}

/// Why a dependency file is not understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DepfileError {
    /// More than [`MAX_DEPFILE_BYTES`] or [`MAX_DEPFILE_NAMES`].
    #[error("dependency file is too large ({bytes} bytes)")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A rule without a colon or a target.
    #[error("no rule in line {line} of the dependency file")]
    NoRule {
        /// First is 1.
        line: usize,
    },
}

/// All rules, in order.
pub fn parse(content: &[u8]) -> Result<Vec<Rule>, DepfileError> {
    if content.len() > MAX_DEPFILE_BYTES {
        return Err(DepfileError::TooLarge { bytes: content.len() });
    }
    let mut rules = Vec::new();
    let mut rule = Partial::default();
    let mut n_names = 0;
    let mut line = 1;
    let mut lexer = Lexer { rest: content, line: 1 };
    while let Some(token) = lexer.next_token(rule.colon) {
        match token {
            Token::Name(name) => {
                n_names += 1;
                if n_names > MAX_DEPFILE_NAMES {
                    return Err(DepfileError::TooLarge { bytes: content.len() });
                }
                let side = if rule.colon { &mut rule.rule.prerequisites } else { &mut rule.rule.targets };
                side.push(PathBuf::from(OsString::from_vec(name)));
            }
            Token::Colon => rule.colon = true,
            Token::LineEnd => {
                rules.extend(rule.finish(line)?);
                rule = Partial::default();
                line = lexer.line;
            }
        }
    }
    rules.extend(rule.finish(line)?);
    Ok(rules)
}

/// The files that the rules depend on, each once, in order of appearance.
pub fn prerequisites(rules: Vec<Rule>) -> Vec<PathBuf> {
    let mut seen = std::collections::HashSet::new();
    rules.into_iter().flat_map(|rule| rule.prerequisites).filter(|path| seen.insert(path.clone())).collect()
}

#[derive(Default)]
struct Partial {
    rule: Rule,
    colon: bool,
}

impl Partial {
    fn finish(self, line: usize) -> Result<Option<Rule>, DepfileError> {
        match (self.rule.targets.is_empty(), self.colon) {
            (true, false) => Ok(None),
            (false, true) => Ok(Some(self.rule)),
            _ => Err(DepfileError::NoRule { line }),
        }
    }
}

enum Token {
    Name(Vec<u8>),
    Colon,
    LineEnd,
}

struct Lexer<'a> {
    rest: &'a [u8],
    line: usize,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

impl Lexer<'_> {
    fn advance(&mut self, n_bytes: usize) {
        self.rest = self.rest.get(n_bytes..).unwrap_or_default();
    }

    /// Bytes of a backslash with the line break behind it, or 0.
    fn continuation(&self) -> usize {
        match self.rest {
            [b'\\', b'\n', ..] => 2,
            [b'\\', b'\r', b'\n', ..] => 3,
            _ => 0,
        }
    }

    fn next_token(&mut self, after_colon: bool) -> Option<Token> {
        loop {
            let continuation = self.continuation();
            if continuation > 0 {
                self.line += 1;
                self.advance(continuation);
                continue;
            }
            match *self.rest.first()? {
                byte if is_blank(byte) => self.advance(1),
                b'\n' => {
                    self.line += 1;
                    self.advance(1);
                    return Some(Token::LineEnd);
                }
                b':' if !after_colon && self.ends_targets() => {
                    self.advance(1);
                    return Some(Token::Colon);
                }
                _ => return Some(Token::Name(self.name(after_colon))),
            }
        }
    }

    /// Whether the colon here is the rule's, and none within a name.
    fn ends_targets(&self) -> bool {
        self.rest.get(1).is_none_or(|byte| is_blank(*byte) || *byte == b'\n')
    }

    fn name(&mut self, after_colon: bool) -> Vec<u8> {
        let mut name = Vec::new();
        while let Some(byte) = self.rest.first().copied() {
            match byte {
                b'\n' => break,
                _ if is_blank(byte) || self.continuation() > 0 => break,
                b':' if !after_colon && self.ends_targets() => break,
                b'$' if self.rest.get(1) == Some(&b'$') => {
                    name.push(b'$');
                    self.advance(2);
                }
                b'\\' => self.backslashes(&mut name),
                _ => {
                    name.push(byte);
                    self.advance(1);
                }
            }
        }
        name
    }

    /// Takes a run of backslashes and, where they escape it, what follows.
    fn backslashes(&mut self, name: &mut Vec<u8>) {
        let n_run = self.rest.iter().take_while(|byte| **byte == b'\\').count();
        let next = self.rest.get(n_run).copied();
        let n_kept = match next {
            Some(b' ' | b'\t') => n_run / 2,
            // The last one escapes, or continues the line.
            Some(b'#' | b'\n') => n_run - 1,
            _ => n_run,
        };
        name.extend(std::iter::repeat_n(b'\\', n_kept));
        match next {
            Some(byte @ (b' ' | b'\t')) if n_run % 2 == 1 => {
                name.push(byte);
                self.advance(n_run + 1);
            }
            Some(b'#') => {
                name.push(b'#');
                self.advance(n_run + 1);
            }
            Some(b'\n') => self.advance(n_run - 1),
            _ => self.advance(n_run),
        }
    }
}
