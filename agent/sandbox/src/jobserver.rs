//! Where a command asks before it starts a thread: a pipe that holds one byte for each that it may start, of the kind that GNU make gives
//! to its children ("POSIX Jobserver Interaction" in make's manual) and cargo to rustc. Each command has its own, so that one which is
//! killed takes nobody's tokens along.

use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, write};

/// Where the command finds the pipe's ends: far from all that bubblewrap is handed.
const READ_END: i32 = 100;
const WRITE_END: i32 = 101;
/// Tokens of one command: what fits into a pipe in any case (`PIPE_BUF`).
const MAX_TOKENS: u16 = 4096;

/// How the command is told.
pub(crate) fn announcement() -> String {
    format!("-j --jobserver-auth={READ_END},{WRITE_END}")
}

/// Makes the pipe of the program that this process is about to become.
pub(crate) fn open(n_tokens: u16) -> io::Result<()> {
    let (read, tokens) = pipe2(OFlag::O_CLOEXEC)?;
    let content = vec![b'+'; usize::from(n_tokens.min(MAX_TOKENS))];
    if !content.is_empty() {
        write(&tokens, &content)?;
    }
    for (end, number) in [(read, READ_END), (tokens, WRITE_END)] {
        // Copies that are not closed on exec; nothing else has these numbers, or the command would be told of it.
        if fcntl(&end, FcntlArg::F_DUPFD(number))? != number {
            return Err(Errno::EBUSY.into());
        }
    }
    Ok(())
}
