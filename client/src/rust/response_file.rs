//! `@file` arguments, as rustc reads them: each line is one argument, nothing is quoted, and what stands in the file is not expanded again.

use std::io;
use std::path::Path;

use buildbee_proto::limits::{MAX_ARGUMENTS, MAX_COMMAND_BYTES};

use super::reason::{RustReason, RustReasonKind as Why};

/// Reads a file; the path is absolute.
pub type ReadFile<'a> = dyn Fn(&Path) -> io::Result<Vec<u8>> + 'a;

/// The arguments with every `@file` replaced. Relative names are below `cwd`.
pub fn expand(argv: &[String], cwd: &Path, read: &ReadFile<'_>) -> Result<Vec<String>, RustReason> {
    let mut expanded = Vec::with_capacity(argv.len());
    let mut bytes = 0_usize;
    let mut push = |argument: &str| {
        bytes = bytes.saturating_add(argument.len()).saturating_add(1);
        expanded.push(argument.to_owned());
        if expanded.len() > MAX_ARGUMENTS || bytes > MAX_COMMAND_BYTES {
            return Err(RustReason::from(Why::TooManyArguments));
        }
        Ok(())
    };
    for argument in argv {
        let Some(name) = argument.strip_prefix('@') else {
            push(argument)?;
            continue;
        };
        let unreadable = || RustReason::about(Why::ResponseFileUnreadable, argument);
        let content = read(&cwd.join(name)).map_err(|_| unreadable())?;
        if content.len() > MAX_COMMAND_BYTES {
            return Err(Why::TooManyArguments.into());
        }
        let content = String::from_utf8(content).map_err(|_| unreadable())?;
        for line in content.lines() {
            push(line)?;
        }
    }
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_arguments() {
        let read = |path: &Path| match path.to_str() {
            Some("/w/args") => Ok(b"--cfg\nfeature=\"a b\"\r\n\n@more".to_vec()),
            Some("/w/bad") => Ok(vec![0xff]),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let expand = |word: &str| expand(&["x".to_owned(), word.to_owned()], Path::new("/w"), &read);
        assert_eq!(expand("@args").unwrap(), ["x", "--cfg", "feature=\"a b\"", "", "@more"]);
        for word in ["@bad", "@none", "@"] {
            assert_eq!(expand(word), Err(RustReason::about(Why::ResponseFileUnreadable, word)));
        }
    }
}
