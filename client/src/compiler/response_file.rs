//! `@file` arguments, replaced by what is in the file, as gcc and clang both do it.
//!
//! Where the two differ (empty arguments, unfinished quotes, byte order marks) nothing is guessed: the command runs locally.

use std::io;
use std::path::{Path, PathBuf};

use buildbee_proto::limits::{MAX_ARGUMENTS, MAX_COMMAND_BYTES};

use super::reason::{Reason, ReasonKind};

/// Reads a response file; the path is absolute.
pub type ReadFile<'a> = dyn Fn(&Path) -> io::Result<Vec<u8>> + 'a;

/// Files that one command may name, nested ones counted: a file that names itself ends here.
const MAX_RESPONSE_FILES: usize = 64;

/// The arguments with every `@file` replaced. Relative names are below `cwd`, nested ones too.
pub fn expand(argv: &[String], cwd: &Path, read: &ReadFile<'_>) -> Result<Vec<String>, Reason> {
    let mut expanded = Vec::with_capacity(argv.len());
    let mut bytes = 0;
    let mut n_files = 0;
    // Arguments still to look at, the next one last.
    let mut pending: Vec<String> = argv.iter().rev().cloned().collect();
    while let Some(argument) = pending.pop() {
        bytes += argument.len() + 1;
        if expanded.len() >= MAX_ARGUMENTS || bytes > MAX_COMMAND_BYTES {
            return Err(ReasonKind::TooManyArguments.into());
        }
        let Some(name) = argument.strip_prefix('@').filter(|name| !name.is_empty()) else {
            expanded.push(argument);
            continue;
        };
        let unreadable = || Reason::about(ReasonKind::ResponseFileUnreadable, argument.clone());
        n_files += 1;
        if n_files > MAX_RESPONSE_FILES || name.contains('\0') {
            return Err(unreadable());
        }
        let path: PathBuf = cwd.join(name);
        let content = read(&path).map_err(|_| unreadable())?;
        if content.len() > MAX_COMMAND_BYTES {
            return Err(ReasonKind::TooManyArguments.into());
        }
        let content = String::from_utf8(content).map_err(|_| unreadable())?;
        let arguments = split(&content).ok_or_else(unreadable)?;
        if pending.len() + arguments.len() > MAX_ARGUMENTS {
            return Err(ReasonKind::TooManyArguments.into());
        }
        pending.extend(arguments.into_iter().rev());
    }
    Ok(expanded)
}

/// Splits as the GNU rules say: white space separates, both quotes group, a backslash takes the next character as it is, also within
/// quotes. `None` where compilers differ.
pub(crate) fn split(content: &str) -> Option<Vec<String>> {
    if content.starts_with('\u{feff}') || content.contains('\0') {
        return None;
    }
    let mut arguments = Vec::new();
    let mut current: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = content.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (_, '\\') => match characters.next()? {
                // A continued line to newer clang, a line break to gcc.
                '\n' | '\r' => return None,
                escaped => current.get_or_insert_default().push(escaped),
            },
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                current.get_or_insert_default();
            }
            (None, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}') => arguments.extend(current.take()),
            _ => current.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return None;
    }
    arguments.extend(current);
    (!arguments.iter().any(String::is_empty)).then_some(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn quoting() {
        assert_eq!(split("-DX=\"a b\" '-DY=c\\\\d' e\\ f\n\tg"), Some(texts(&["-DX=a b", "-DY=c\\d", "e f", "g"])));
        assert_eq!(split("  \n"), Some(vec![]));
        for odd in ["a \"\"", "'a", "a\\", "\u{feff}a", "a\0b", "a\\\nb"] {
            assert_eq!(split(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn nested_and_bounded() {
        let read = |path: &Path| match path.to_str() {
            Some("/w/a") => Ok(b"-c @sub/b x.c".to_vec()),
            Some("/w/sub/b") => Ok(b"-O2".to_vec()),
            Some("/w/self") => Ok(b"@self @self".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let expand = |list: &[&str]| expand(&texts(list), Path::new("/w"), &read);
        assert_eq!(expand(&["@a", "-g", "@"]), Ok(texts(&["-c", "-O2", "x.c", "-g", "@"])));
        assert_eq!(expand(&["@self"]).map_err(|reason| reason.code()), Err("response-file-unreadable"));
        assert_eq!(
            expand(&["@none"]).map_err(|reason| reason.to_string()),
            Err("a response file cannot be read reliably: @none".into())
        );
    }
}
