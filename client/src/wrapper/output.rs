//! Writing to the terminal or pipe that the caller handed over: all bytes, or quietly none.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes all of `bytes`. A reader that went away is not an error: the compiler's exit status is what counts.
///
/// Standard streams may be shared with a program that made them non-blocking, so a full pipe is waited for.
pub fn write_all(to: impl AsFd, mut bytes: &[u8]) {
    let to = to.as_fd();
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(0) => return,
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                // Whatever poll says, the next write tells.
                let _ = poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(_) => return,
        }
    }
}

/// A message of the wrapper itself, on standard error.
pub fn complain(message: &str) {
    write_all(std::io::stderr(), format!("buildbee: {message}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn everything_arrives_through_a_non_blocking_pipe() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let sent: Vec<u8> = (0..2_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let expected = sent.clone();
        let thread = std::thread::spawn(move || write_all(writer.as_fd(), &sent));
        let mut found = Vec::new();
        reader.read_to_end(&mut found).unwrap();
        thread.join().unwrap();
        assert!(found == expected);
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        write_all(writer.as_fd(), &vec![0; 100_000]);
    }
}
