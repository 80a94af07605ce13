//! The way out that always works: this process becomes the program that was asked for.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::program::Compiler;
use super::settings::NESTED_VARIABLE;
use crate::rust::locate::leading_words;

/// Exit status of a program that can't be executed, as shells have it.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;

/// Exit status of a program that is not there, as shells have it.
pub const EXIT_NOT_FOUND: u8 = 127;

/// The compiler as a command, under its own name, marked as nested. `extra` stands before the user's arguments, but behind the compiler's path
/// that cargo gives clippy's driver.
pub fn command(compiler: &Compiler, extra: &[String], nesting: u32) -> Command {
    let mut command = Command::new(&compiler.program);
    if let Some((own_name, arguments)) = compiler.argv.split_first() {
        let n_leading = leading_words(&compiler.program, arguments).unwrap_or_default();
        let (leading, arguments) = arguments.split_at(n_leading.min(arguments.len()));
        command.arg0(own_name).args(leading).args(extra).args(arguments);
    }
    command.env(NESTED_VARIABLE, nesting.saturating_add(1).to_string());
    command
}

/// Becomes the compiler. Returns only where that fails, with what to exit with and what to say.
pub fn become_compiler(compiler: &Compiler, nesting: u32) -> (u8, String) {
    let error = command(compiler, &[], nesting).exec();
    failure(&compiler.program, &error)
}

/// Becomes the command line.
pub fn become_command_line(program: &Path, arguments: Vec<OsString>) -> (u8, String) {
    let error = Command::new(program).args(arguments).exec();
    let (code, text) = failure(program, &error);
    (code, format!("{text}\nhint: {} belongs in the same folder as buildbee; install both", program.display()))
}

/// What to exit with and what to say where a program can't be executed.
pub fn failure(program: &Path, error: &io::Error) -> (u8, String) {
    let code = if error.kind() == io::ErrorKind::NotFound { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE };
    (code, format!("{}: {error}", program.display()))
}
