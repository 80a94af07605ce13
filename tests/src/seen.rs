//! What a command did, as far as anybody can see: exit status, words, files.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use crate::project::{Files, outputs};

/// All that a command does.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// Exit status, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Every file in its folder.
    pub files: Files,
}

/// Runs `command` and looks at what it did in `folder`.
///
/// # Panics
///
/// When it can't be started.
pub fn see(command: &mut Command, folder: &Path) -> Seen {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let status: ExitStatus = output.status;
    Seen {
        code: status.code(),
        signal: status.signal(),
        stdout: without_temporary_names(&output.stdout),
        stderr: without_temporary_names(&output.stderr),
        files: files(folder),
    }
}

fn files(folder: &Path) -> Files {
    let mut files = outputs(folder, &[""]);
    for (listing, _) in
        files.values_mut().filter(|(content, _)| content.windows(LISTING.len()).any(|part| part == LISTING))
    {
        *listing = without_temporary_names(listing).into_bytes();
    }
    files
}

/// Heads each page of an assembler's listing, before the name of the file that it assembled.
const LISTING: &[u8] = b"GAS LISTING ";

/// Compilers name their temporary files at random, six characters after `cc`, in a folder that may be the wrapper's own.
fn without_temporary_names(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut clean = String::new();
    let mut rest = text.as_ref();
    while let Some(at) = rest.find("/tmp/cc") {
        clean.push_str(&rest[..at]);
        clean.push_str("/tmp/cc");
        let after = &rest[at + "/tmp/cc".len()..];
        rest = after.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric());
    }
    clean.push_str(rest);
    clean
}
