//! Frames over the connection to the daemon, each read bounded in time and size.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use buildbee_proto::codec::{self, CodecError, FRAME_HEADER_BYTES};
use buildbee_proto::local::{KEEPALIVE_INTERVAL_MS, LocalCall, LocalReply, LocalRequest};
use buildbee_proto::version::LOCAL_VERSION;
use thiserror::Error;

use super::notice::Notice;
use super::silence::{self, FIRST_WORD, Silence};

/// A daemon that says nothing for so long is taken for dead.
pub const MAX_SILENCE: Duration = Duration::from_millis(3 * KEEPALIVE_INTERVAL_MS);

/// Bytes read at once. Most replies fit.
const READ_BYTES: usize = 16 << 10;

/// Why the conversation is over.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The daemon hung up.
    #[error("the daemon hung up")]
    Closed,
    /// Nothing (complete) for [`MAX_SILENCE`].
    #[error("the daemon does not answer")]
    Silent,
    /// What it says is not the protocol, or what it should be told is too large for it.
    #[error("{0}")]
    Codec(#[from] CodecError),
    /// The socket failed.
    #[error("the connection to the daemon failed: {0}")]
    Io(#[from] io::Error),
}

/// The connection.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    /// Received and not yet taken.
    received: Vec<u8>,
    /// What the user is told meanwhile.
    notice: Notice,
}

impl Link {
    /// Over a connected socket, best one from [`connect_to`](super::socket::connect_to), whose reads and writes time out.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, received: Vec::new(), notice: Notice::default() }
    }

    /// The same, with what the daemon says of waiting shown by `notice`.
    #[must_use]
    pub fn telling(self, notice: Notice) -> Self {
        Self { notice, ..self }
    }

    /// Sends one request.
    pub fn send(&mut self, call: LocalCall) -> Result<(), LinkError> {
        let frame = codec::to_frame(&LocalRequest { version: LOCAL_VERSION, call })?;
        match self.stream.write_all(&frame) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(LinkError::Silent),
            Err(error) => Err(error.into()),
        }
    }

    /// The next reply, or an error at `deadline`. Bytes that trickle in do not move the deadline.
    pub fn receive(&mut self, deadline: Instant) -> Result<LocalReply, LinkError> {
        loop {
            if let Some(reply) = self.take()? {
                return Ok(reply);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LinkError::Silent);
            }
            if !self.received.is_empty() {
                self.stream.set_read_timeout(Some(left))?;
            }
            self.read_some()?;
        }
    }

    /// The same as [`receive_result`](Self::receive_result), for what was asked first: a daemon that has just been found silent is not waited for.
    pub fn receive_first_result(&mut self) -> Result<LocalReply, LinkError> {
        let asked = Instant::now();
        self.stream.set_read_timeout(Some(FIRST_WORD))?;
        let mut reply = self.receive(asked + FIRST_WORD);
        if matches!(reply, Err(LinkError::Silent)) {
            let place = self.place();
            let known = place.as_deref().map_or(Silence::Unknown, silence::look);
            if known == Silence::Recent {
                return reply;
            }
            self.stream.set_read_timeout(Some(MAX_SILENCE))?;
            reply = self.receive(asked + MAX_SILENCE);
            if let (Some(place), Silence::Past, Ok(_)) = (place, known, &reply) {
                silence::forget(&place);
            }
            self.note_silence(&reply);
        }
        match reply? {
            LocalReply::Working => {
                let reply = self.receive_result();
                self.note_silence(&reply);
                reply
            }
            LocalReply::Waiting { text } => {
                self.notice.show(&text);
                self.receive_result()
            }
            reply => Ok(reply),
        }
    }

    /// After a wait of [`MAX_SILENCE`]. Others need not wait as long.
    fn note_silence(&self, reply: &Result<LocalReply, LinkError>) {
        if let (Err(LinkError::Silent), Some(place)) = (reply, self.place()) {
            silence::note(&place);
        }
    }

    /// The daemon's socket.
    fn place(&self) -> Option<PathBuf> {
        self.stream.peer_addr().ok()?.as_pathname().map(PathBuf::from)
    }

    /// The reply to come after any number of [`LocalReply::Working`] and [`LocalReply::Waiting`], each of which buys the daemon another
    /// [`MAX_SILENCE`].
    pub fn receive_result(&mut self) -> Result<LocalReply, LinkError> {
        // Less would wake this process up for nothing.
        self.stream.set_read_timeout(Some(MAX_SILENCE))?;
        loop {
            match self.receive(Instant::now() + MAX_SILENCE) {
                Ok(LocalReply::Working) => {}
                Ok(LocalReply::Waiting { text }) => self.notice.show(&text),
                result => {
                    self.notice.clear();
                    return result;
                }
            }
        }
    }

    /// Reads what is there, waiting for it no longer than the socket's own time-out. At its end: [`LinkError::Closed`].
    pub fn read_some(&mut self) -> Result<(), LinkError> {
        let mut bytes = [0; READ_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(LinkError::Closed),
            Ok(n) => {
                self.received.extend_from_slice(&bytes[..n]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            // The socket's time-out: whether that is too long is for the caller's deadline to say.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A reply that is here already.
    pub fn take(&mut self) -> Result<Option<LocalReply>, LinkError> {
        let Some((header, rest)) = self.received.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let length = codec::body_length::<LocalReply>(*header)?;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let reply = codec::from_body(body)?;
        self.received.drain(..FRAME_HEADER_BYTES + length);
        Ok(Some(reply))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use buildbee_proto::codec::{Bytes, to_frame};

    use super::*;

    fn pair() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        (Link::new(ours), theirs)
    }

    fn done() -> LocalReply {
        LocalReply::Done { exit_code: 3, stdout: Bytes(vec![1; 70_000]), stderr: Bytes(vec![]) }
    }

    #[test]
    fn replies_arrive_whole_and_in_order_however_they_are_cut() {
        let frames = [to_frame(&LocalReply::Working).unwrap(), to_frame(&done()).unwrap()].concat();
        for piece in [1, 3, 4096, frames.len()] {
            let (mut link, mut theirs) = pair();
            let frames = frames.clone();
            let thread = std::thread::spawn(move || {
                for part in frames.chunks(piece) {
                    theirs.write_all(part).unwrap();
                }
            });
            let deadline = Instant::now() + Duration::from_secs(10);
            assert_eq!(link.receive(deadline).unwrap(), LocalReply::Working);
            assert_eq!(link.receive(deadline).unwrap(), done());
            thread.join().unwrap();
            assert!(matches!(link.receive(deadline), Err(LinkError::Closed)));
        }
    }

    #[test]
    fn silence_and_trickling_end_at_the_deadline() {
        let (mut link, mut theirs) = pair();
        let start = Instant::now();
        assert!(matches!(link.receive(start + Duration::from_millis(120)), Err(LinkError::Silent)));
        let thread = std::thread::spawn(move || {
            for byte in to_frame(&done()).unwrap() {
                if theirs.write_all(&[byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert!(matches!(link.receive(Instant::now() + Duration::from_millis(200)), Err(LinkError::Silent)));
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(link);
        thread.join().unwrap();
    }

    #[test]
    fn a_daemon_that_was_silent_a_moment_ago_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("s");
        let listener = UnixListener::bind(&place).unwrap();
        let call = || {
            let mut link = Link::new(UnixStream::connect(&place).unwrap());
            let asked = Instant::now();
            (link.receive_first_result(), asked.elapsed())
        };
        let (first, took) = call();
        assert!(matches!(first, Err(LinkError::Silent)) && took >= MAX_SILENCE, "{took:?}");
        let (second, took) = call();
        assert!(matches!(second, Err(LinkError::Silent)) && took >= FIRST_WORD, "{took:?}");
        assert_eq!(silence::look(&place), Silence::Recent);
        let before = folder.path().join("s.silent").metadata().unwrap().modified().unwrap();
        let (third, _) = call();
        assert!(matches!(third, Err(LinkError::Silent)));
        let after = folder.path().join("s.silent").metadata().unwrap().modified().unwrap();
        assert_eq!(before, after, "only who waited in full may say so");
        // Some time later it is asked again, and answers in its own time.
        let noted = std::fs::File::options().write(true).open(folder.path().join("s.silent")).unwrap();
        noted.set_modified(std::time::SystemTime::now() - silence::MEMORY).unwrap();
        let thread = std::thread::spawn(move || {
            for mut theirs in listener.incoming().skip(3).take(1).flatten() {
                for reply in [LocalReply::Working, done()] {
                    std::thread::sleep(4 * FIRST_WORD);
                    theirs.write_all(&to_frame(&reply).unwrap()).unwrap();
                }
            }
        });
        assert_eq!(call().0.unwrap(), done());
        assert_eq!(silence::look(&place), Silence::Unknown);
        thread.join().unwrap();
    }

    #[test]
    fn garbage_is_an_error_before_it_is_allocated() {
        let (mut link, mut theirs) = pair();
        theirs.write_all(&[0xff; 100]).unwrap();
        assert!(matches!(link.receive(Instant::now() + Duration::from_secs(1)), Err(LinkError::Codec(_))));
        let (mut link, mut theirs) = pair();
        theirs.write_all(&[1, 0, 0, 0, 99]).unwrap();
        assert!(matches!(link.receive(Instant::now() + Duration::from_secs(1)), Err(LinkError::Codec(_))));
    }
}
