//! A terminal between the compiler and the user's own, so that what it prints there can be kept: compilers print other text into a pipe.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// Gives `command` a standard error of the same kind as `user`'s, a terminal or a pipe, and returns the end to read from. `None`: it
/// writes to the user's terminal itself, because no other can be had.
pub fn stderr_like(user: &(impl io::IsTerminal + std::os::fd::AsFd), command: &mut Command) -> Option<File> {
    let pair =
        if user.is_terminal() { terminal(user) } else { io::pipe().map(|(ours, theirs)| (ours.into(), theirs.into())) };
    let Ok((ours, theirs)) = pair else {
        command.stderr(Stdio::inherit());
        return None;
    };
    command.stderr(Stdio::from(theirs));
    Some(File::from(ours))
}

/// A terminal of the same width that changes nothing of what is printed: our end, and the compiler's.
fn terminal(user: &impl std::os::fd::AsFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    let mut settings = tcgetattr(&theirs)?;
    settings.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &settings)?;
    // Without a size the compiler takes its default, as it would on the user's terminal.
    if let Ok(size) = tcgetwinsize(user) {
        let _ = tcsetwinsize(&theirs, size);
    }
    Ok((ours, theirs))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Runs `script` with standard error like `user`, and returns what it printed.
    fn printed(user: &File, script: &str) -> String {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let mut ours = stderr_like(user, &mut command).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut text = Vec::new();
        // A terminal ends with an error.
        let _ = ours.read_to_end(&mut text);
        child.wait().unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_compiler_finds_what_the_user_has() {
        let script = "if test -t 2; then echo terminal >&2; stty size <&2 >&2; else echo pipe >&2; fi";
        let (_ours, theirs) = terminal(&File::open("/dev/null").unwrap()).unwrap();
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 61, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).unwrap();
        assert_eq!(printed(&File::from(theirs), script), "terminal\n24 61\n");
        assert_eq!(printed(&File::open("/dev/null").unwrap(), script), "pipe\n");
    }
}
