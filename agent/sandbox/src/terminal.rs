//! A terminal without a screen: what a program prints on it, exactly as it printed it.
//!
//! Programs print other text where they find a terminal (colour, links, lines trimmed to its width). The width is not set here: programs
//! that look for it do so on standard input, which is none, or in `COLUMNS`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::{self, Receiver};

use crate::descriptors;

/// Our end of a stream that a command writes.
#[derive(Debug)]
pub(crate) enum Stream {
    /// The other end is a pipe.
    Pipe(Receiver),
    /// The other end is a terminal.
    Terminal(AsyncFd<OwnedFd>),
}

impl Stream {
    /// A pipe: the command's end, and ours.
    pub(crate) fn pipe() -> io::Result<(OwnedFd, Self)> {
        let (writer, reader) = pipe::pipe()?;
        Ok((writer.into_blocking_fd()?, Self::Pipe(reader)))
    }

    /// A terminal that changes nothing of what is printed: the command's end, and ours. Needs a tokio runtime with I/O.
    pub(crate) fn terminal() -> io::Result<(OwnedFd, Self)> {
        let common = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(common | OFlag::O_NONBLOCK)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let theirs = open(ptsname_r(&master)?.as_str(), common, Mode::empty())?;
        let mut settings = tcgetattr(&theirs)?;
        cfmakeraw(&mut settings);
        tcsetattr(&theirs, SetArg::TCSANOW, &settings)?;
        let ours = master.as_fd().try_clone_to_owned()?;
        Ok((theirs, Self::Terminal(descriptors::watch(ours, Interest::READABLE)?)))
    }

    /// Reads some bytes. 0: the command's ends are all closed. Cancel-safe.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(reader) => tokio::io::AsyncReadExt::read(reader, buffer).await,
            Self::Terminal(master) => {
                let read = master.async_io(Interest::READABLE, |fd| Ok(nix::unistd::read(fd.as_fd(), buffer)?)).await;
                match read {
                    // How a terminal says that nobody has it open any more.
                    Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(0),
                    read => read,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IsTerminal, Write};

    use super::*;

    #[tokio::test]
    async fn what_is_printed_on_a_terminal_comes_out_unchanged() {
        let (theirs, mut ours) = Stream::terminal().unwrap();
        let mut theirs = File::from(theirs);
        assert!(theirs.is_terminal());
        let text = b"one\ntwo\r\n\x1b[01mthree\x03\x04\n";
        theirs.write_all(text).unwrap();
        drop(theirs);
        let (mut read, mut buffer) = (Vec::new(), [0; 7]);
        loop {
            match ours.read(&mut buffer).await.unwrap() {
                0 => break,
                n => read.extend_from_slice(&buffer[..n]),
            }
        }
        assert_eq!(read, text);
    }
}
