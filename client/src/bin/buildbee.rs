//! The `buildbee` executable: stands before a compiler, or hands words like `stats` to `buildbee-cli`.
//!
//! It must start within a millisecond, so it is built from the wrapper's modules alone and not from the library, whose dependencies
//! it must not link.

use std::process::ExitCode;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

#[path = "../wrapper/mod.rs"]
pub mod wrapper;

/// What the wrapper shares with the front-end for rustc: nothing but the standard library behind it.
#[path = "../rust"]
pub mod rust {
    pub mod build_script;
    pub mod locate;
    pub mod respell;
    pub mod roots;
    pub mod script;
}

use wrapper::base_dir::add_prefix_map;
use wrapper::become_compiler::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, become_command_line, become_compiler};
use wrapper::notice::Notice;
use wrapper::output::complain;
use wrapper::program::{self, Compiler, NotFound, OwnFile, Request};
use wrapper::rust_paths::{add_flags, add_prefix_maps};
use wrapper::session::{self, Ending};
use wrapper::settings::{Mode, WrapperSettings};
use wrapper::{signals, socket, stand_in, start};

/// More wrappers than this below each other are two copies of this program that take each other for the compiler.
const MAX_NESTING: u32 = 8;

/// Exit status where `BUILDBEE=strict` forbids what would be done.
const EXIT_STRICT: u8 = 1;

fn main() -> ExitCode {
    let settings = WrapperSettings::from_environment();
    if let Some(script) = stand_in::script(std::env::args_os()) {
        return stand_in_for(&settings, &script);
    }
    match program::request(std::env::args_os()) {
        Request::CommandLine(arguments) => give_up(become_command_line(&start::command_line_program(), arguments)),
        Request::Compiler { name, arguments, masquerade } => {
            let own = OwnFile::of_this_process();
            match program::find(&name, arguments, masquerade, settings.path.as_deref(), own) {
                Ok(compiler) => compile(&settings, compiler),
                Err(problem) => give_up(not_found(&name.to_string_lossy(), problem)),
            }
        }
    }
}

fn compile(settings: &WrapperSettings, mut compiler: Compiler) -> ExitCode {
    if settings.nesting > MAX_NESTING {
        return give_up((
            EXIT_NOT_FOUND,
            format!(
                "{}: this is another buildbee, not a compiler\nhint: keep one copy of buildbee in PATH",
                compiler.program.display()
            ),
        ));
    }
    if settings.mode == Mode::Off {
        return give_up(become_compiler(&compiler, settings.nesting));
    }
    if settings.nesting > 0 {
        // Below a script that is watched, too, all of a build has one kind of paths.
        return become_named(settings, compiler);
    }
    if let (Some(base), Ok(cwd)) = (&settings.base_dir, std::env::current_dir()) {
        add_prefix_map(&mut compiler, base, &cwd);
    }
    let ending = match socket::path(settings).and_then(|path| start::connect_or_start(&path, true)) {
        #[expect(clippy::disallowed_methods, reason = "the compiler's environment is part of the question")]
        Ok(stream) => session::compile(
            stream,
            &compiler,
            std::env::vars_os(),
            settings.nesting,
            settings.temporary_dir.as_deref(),
            Notice::new(settings.may_complain),
        ),
        Err(socket::SocketError::Nobody { .. }) => Ending::RunAlone("no-daemon"),
        Err(error) => {
            if settings.may_complain {
                complain(&error.to_string());
            }
            Ending::RunAlone("no-daemon")
        }
    };
    match ending {
        Ending::Exit(code) => ExitCode::from(exit_byte(code)),
        Ending::Signal(signal) => die_by(signal),
        Ending::Forbidden(reason) => strict_failure(&reason),
        Ending::RunAlone(reason) if settings.mode == Mode::Strict => strict_failure(reason),
        Ending::BecomeCompiler | Ending::RunAlone(_) => become_named(settings, compiler),
    }
}

/// Becomes the compiler, with the arguments that the daemon would have added.
fn become_named(settings: &WrapperSettings, mut compiler: Compiler) -> ExitCode {
    if let Ok(cwd) = std::env::current_dir() {
        #[expect(clippy::disallowed_methods, reason = "the compiler's environment is part of the question")]
        let variable = |name: &str| std::env::var_os(name);
        add_flags(&mut compiler, &cwd, &variable);
        add_prefix_maps(&mut compiler, &cwd, &variable);
    }
    give_up(become_compiler(&compiler, settings.nesting))
}

fn stand_in_for(settings: &WrapperSettings, script: &Compiler) -> ExitCode {
    match stand_in::ask(settings, script) {
        Some(Ending::Exit(code)) => ExitCode::from(exit_byte(code)),
        Some(Ending::Signal(signal)) => die_by(signal),
        _ => give_up(stand_in::become_script(script)),
    }
}

/// Prints why there was nothing to become.
fn give_up((code, message): (u8, String)) -> ExitCode {
    complain(&message);
    ExitCode::from(code)
}

fn not_found(name: &str, problem: NotFound) -> (u8, String) {
    match problem {
        NotFound::Missing => (
            EXIT_NOT_FOUND,
            format!(
                "{name}: command not found\nhint: it is neither a compiler in PATH nor a buildbee command; `buildbee help` lists those"
            ),
        ),
        NotFound::NotExecutable => (
            EXIT_NOT_EXECUTABLE,
            format!("{name}: not an executable file\nhint: name a compiler, as in `buildbee gcc -c x.c`"),
        ),
    }
}

fn strict_failure(reason: &str) -> ExitCode {
    give_up((
        EXIT_STRICT,
        format!(
            "strict: would run locally: {}\nhint: `buildbee explain` says more; unset BUILDBEE to allow local runs",
            reason.strip_prefix("strict:").unwrap_or(reason).trim().escape_debug()
        ),
    ))
}

/// What the system keeps of an exit code is its low byte: a failure must stay one.
fn exit_byte(code: i32) -> u8 {
    match code.to_le_bytes()[0] {
        0 if code != 0 => 1,
        byte => byte,
    }
}

/// Ends as the compiler did, without a second core file.
fn die_by(signal: Signal) -> ExitCode {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    signals::die_by(signal);
    // Still here: the signal is ignored.
    ExitCode::from(exit_byte(128 + signal as i32))
}
