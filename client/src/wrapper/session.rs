//! The conversation about one compile: from the question to the way in which this process ends.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use buildbee_proto::codec::{Bytes, CodecError};
use buildbee_proto::local::{Invocation, LocalCall, LocalReply};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};

use super::link::{Link, LinkError};
use super::notice::Notice;
use super::output::write_all;
use super::program::Compiler;
use super::promise::{Promise, unprinted};
use super::recording;
use super::supervised::{self, Extra};

/// How this process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code; everything was printed.
    Exit(i32),
    /// By this signal, as the compiler did.
    Signal(Signal),
    /// As the compiler: the daemon says so, and will not hear of it.
    BecomeCompiler,
    /// As the compiler, because the daemon can't be relied on. The reason is a stable word.
    RunAlone(&'static str),
    /// With a failure, because `strict` forbids the local run that the daemon wants.
    Forbidden(String),
}

/// Asks the daemon behind `stream` and does what it says.
pub fn compile(
    stream: UnixStream,
    compiler: &Compiler,
    environment: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    nesting: u32,
    temporary_dir: Option<&Path>,
    notice: Notice,
) -> Ending {
    let Ok(cwd) = std::env::current_dir() else { return Ending::RunAlone("no-working-directory") };
    let mut link = Link::new(stream).telling(notice);
    let invocation = invocation(compiler, &cwd, environment);
    let preloaded = recording::value(&invocation.env, recording::PRELOAD).map(OsStr::to_owned);
    let mut reply = link.send(LocalCall::Compile(invocation)).and_then(|()| link.receive_first_result());
    let mut promise = None;
    let mut alone = Extra::default();
    if let Ok(LocalReply::Print { stderr, metadata, extra_arguments }) = reply {
        alone.arguments = extra_arguments;
        write_all(std::io::stderr(), &stderr.0);
        promise = Some(Promise::given(stderr.0, metadata.0));
        reply = link.receive_result();
    }
    let ending = match reply {
        Ok(LocalReply::Done { exit_code, stdout, stderr }) => {
            write_all(std::io::stdout(), &stdout.0);
            let printed = promise.as_ref().map_or(&[][..], |promise| &promise.printed);
            write_all(std::io::stderr(), unprinted(&stderr.0, printed));
            return Ending::Exit(exit_code);
        }
        Ok(LocalReply::RunLocally { reason, strict_failure: true, .. }) => return Ending::Forbidden(reason),
        Ok(LocalReply::RunLocally { report: false, .. }) => Ending::BecomeCompiler,
        Ok(LocalReply::RunLocally { extra_arguments, extra_env, recorder, own_temporary_dir, .. }) => {
            let extra = Extra { arguments: extra_arguments, env: extra_env, recorder, preloaded, own_temporary_dir };
            return supervised::run(Some(link), compiler, &extra, promise, nesting, temporary_dir);
        }
        Ok(LocalReply::WrongVersion { .. }) => Ending::RunAlone("daemon-version"),
        Ok(
            LocalReply::Working
            | LocalReply::Cancel
            | LocalReply::Admin { .. }
            | LocalReply::Print { .. }
            | LocalReply::Entries
            | LocalReply::Waiting { .. },
        ) => Ending::RunAlone("daemon-protocol"),
        Err(error) => Ending::RunAlone(reason_word(&error)),
    };
    match promise {
        // The compiler would say again what was printed, and nobody would look at its metadata.
        Some(promise) => supervised::run(None, compiler, &alone, Some(promise), nesting, temporary_dir),
        None => ending,
    }
}

fn reason_word(error: &LinkError) -> &'static str {
    match error {
        LinkError::Closed | LinkError::Io(_) => "daemon-gone",
        LinkError::Silent => "daemon-silent",
        LinkError::Codec(CodecError::TooLarge { .. }) => "too-large",
        LinkError::Codec(_) => "daemon-protocol",
    }
}

fn invocation(
    compiler: &Compiler,
    cwd: &Path,
    environment: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Invocation {
    let bytes = |text: &OsStr| Bytes(text.as_bytes().to_vec());
    let stderr_is_terminal = std::io::stderr().is_terminal();
    Invocation {
        program: bytes(compiler.program.as_os_str()),
        argv: compiler.argv.iter().map(|argument| bytes(argument)).collect(),
        env: environment
            .map(|(name, value)| {
                let mut entry = name.into_vec();
                entry.push(b'=');
                entry.extend_from_slice(value.as_bytes());
                Bytes(entry)
            })
            .collect(),
        cwd: bytes(cwd.as_os_str()),
        umask: current_umask(),
        stdout_is_terminal: std::io::stdout().is_terminal(),
        stderr_is_terminal,
        columns: columns(),
    }
}

/// It can only be read by setting it. This process has one thread.
fn current_umask() -> u32 {
    let mask = umask(Mode::from_bits_truncate(0o077));
    umask(mask);
    mask.bits()
}

/// Compilers that look for a width look there.
fn columns() -> Option<u16> {
    rustix::termios::tcgetwinsize(std::io::stdin()).ok().map(|size| size.ws_col)
}
