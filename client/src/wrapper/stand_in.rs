//! Standing in for a build script: cargo starts this program under the script's name, and the script's own program is beside it (the daemon has
//! put both there, where `build_scripts` is set). The daemon is asked as for a compile; whatever it does not answer ends in the script's program,
//! started exactly as cargo would have.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::become_compiler::failure;
use super::link::MAX_SILENCE;
use super::notice::Notice;
use super::program::Compiler;
use super::session::{self, Ending};
use super::settings::{Mode, WrapperSettings};
use super::socket;
use crate::rust::script::program_behind;

/// The script's program and what it is started with, if this process stands in for one. No system call is made for another name.
pub fn script(mut argv: impl Iterator<Item = OsString>) -> Option<Compiler> {
    let own_name = argv.next()?;
    program_behind(Path::new(&own_name))?;
    let program = program_behind(&std::fs::read_link("/proc/self/exe").ok()?).filter(|program| program.is_file())?;
    Some(Compiler { program, argv: std::iter::once(own_name).chain(argv).collect() })
}

/// Asks a daemon that is there. `None`: the script's program is to be started.
pub fn ask(settings: &WrapperSettings, script: &Compiler) -> Option<Ending> {
    if settings.mode == Mode::Off || settings.nesting > 0 {
        return None;
    }
    let stream = socket::connect_to(&socket::path(settings).ok()?, MAX_SILENCE).ok()?;
    #[expect(clippy::disallowed_methods, reason = "the script's environment is part of the question")]
    let variables = std::env::vars_os();
    let ending = session::compile(
        stream,
        script,
        variables,
        settings.nesting,
        settings.temporary_dir.as_deref(),
        Notice::default(),
    );
    matches!(ending, Ending::Exit(_) | Ending::Signal(_)).then_some(ending)
}

/// Becomes the script's program. Returns only where that fails, with what to exit with and what to say.
pub fn become_script(script: &Compiler) -> (u8, String) {
    let mut command = Command::new(&script.program);
    if let Some((own_name, arguments)) = script.argv.split_first() {
        command.arg0(own_name).args(arguments);
    }
    failure(&script.program, &command.exec())
}
