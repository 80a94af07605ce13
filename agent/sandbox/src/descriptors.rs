//! Packets with descriptors over Unix sockets, and memory files. Knows nothing of what they mean.

#![expect(
    unsafe_code,
    reason = "received descriptors are bare numbers, and closing a range of them has no safe wrapper"
)]

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use buildbee_proto::codec::{FRAME_HEADER_BYTES, Message, from_body, to_frame};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::wire::{MAX_DESCRIPTORS, MAX_PACKET_BYTES};

/// Two connected sockets of whole packets, closed on exec.
pub(crate) fn packet_pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Lets the runtime watch `socket`. Needs a tokio runtime with I/O.
pub(crate) fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and is given away to live as long as the watch.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
}

/// Sends `message` with `descriptors` as one packet. Never blocks: [`Errno::EAGAIN`] if there is no room.
pub(crate) fn send<M: Message>(socket: BorrowedFd<'_>, message: &M, descriptors: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let packet = to_frame(message).map_err(|_| Errno::EMSGSIZE)?;
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&packet)], control, flags, None).map(|_| ())
}

/// What came in on a socket.
#[derive(Debug)]
pub(crate) enum Packet<M> {
    /// The other side has closed or shut its end.
    Closed,
    /// Bytes that are no such message.
    Malformed,
    /// A message with its descriptors, which are closed on exec.
    Message(M, Vec<OwnedFd>),
}

/// The next packet. Never blocks: [`Errno::EAGAIN`] if there is none.
pub(crate) fn receive<M: Message>(socket: BorrowedFd<'_>) -> nix::Result<Packet<M>> {
    let mut buffer = [0; MAX_PACKET_BYTES + FRAME_HEADER_BYTES];
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for control in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    let (length, truncated) = (received.bytes, received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC));
    if length == 0 {
        return Ok(Packet::Closed);
    }
    if truncated || length < FRAME_HEADER_BYTES {
        return Ok(Packet::Malformed);
    }
    Ok(from_body(&buffer[FRAME_HEADER_BYTES..length])
        .map_or(Packet::Malformed, |message| Packet::Message(message, descriptors)))
}

/// A file in memory that holds `content`, to be read from its beginning.
pub(crate) fn memory_file(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}

/// All of a memory file, if it is not larger than `max_bytes`.
pub(crate) fn read_memory_file(file: OwnedFd, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::from(file).take(max_bytes as u64 + 1).read_to_end(&mut content)?;
    if content.len() > max_bytes { Err(Errno::EFBIG.into()) } else { Ok(content) }
}

/// Closes every descriptor from `first` on, whoever opened it. For a program that has opened none of its own yet.
pub(crate) fn close_from(first: u32) -> nix::Result<()> {
    // SAFETY: no `OwnedFd` exists yet whose number this could take away.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(|_| ())
}

/// Closes every descriptor above the three streams but `kept`, in a copy of a process that will use none of its others any more.
pub(crate) fn close_all_but(kept: BorrowedFd<'_>) -> nix::Result<()> {
    let kept = kept.as_raw_fd().unsigned_abs();
    let close = |first: u32, last: u32| {
        if first > last {
            return Ok(());
        }
        // SAFETY: whatever owns these numbers is of the process that was copied, and is never used or dropped here.
        Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(|_| ())
    };
    close(3, kept.saturating_sub(1))?;
    close(kept.saturating_add(1), u32::MAX)
}

/// Borrows all of `owned`.
pub(crate) fn borrow_all(owned: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    owned.iter().map(AsFd::as_fd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Launch;

    #[test]
    fn descriptors_travel_with_their_packet() {
        let (left, right) = packet_pair().unwrap();
        assert_eq!(receive::<Launch>(right.as_fd()).unwrap_err(), Errno::EAGAIN);
        let file = memory_file("test", b"content").unwrap();
        send(left.as_fd(), &Launch { n_filters: 1 }, &[file.as_fd()]).unwrap();
        let Packet::Message(message, descriptors) = receive::<Launch>(right.as_fd()).unwrap() else { panic!() };
        assert_eq!(message, Launch { n_filters: 1 });
        let [received] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
        let mut content = String::new();
        File::from(received).read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        drop(left);
        assert!(matches!(receive::<Launch>(right.as_fd()).unwrap(), Packet::Closed));
    }

    #[test]
    fn nonsense_is_malformed() {
        let (left, right) = packet_pair().unwrap();
        for bytes in [vec![0; 3], vec![0xff; 4], vec![0xff; 100], vec![0; 2 * MAX_PACKET_BYTES]] {
            let flags = MsgFlags::empty();
            sendmsg::<()>(left.as_raw_fd(), &[IoSlice::new(&bytes)], &[], flags, None).unwrap();
            assert!(matches!(receive::<Launch>(right.as_fd()).unwrap(), Packet::Malformed));
        }
    }
}
