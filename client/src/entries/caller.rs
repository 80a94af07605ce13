//! Whose connection one on loopback is, so that no other user of this machine puts or reads entries in this one's name.
//!
//! The kernel is asked for that one socket by its ends (`sock_diag(7)`), which takes some 30 µs; where a kernel lacks that, its table of all sockets
//! is read (`proc(5)`, `/proc/net/tcp`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

/// What one answer of the kernel may take, in bytes.
const ANSWER_BYTES: usize = 32 << 10;
/// What the kernel takes for "whichever socket has these ends".
const ANY_SOCKET: [u8; 8] = [0xff; 8];
/// The most that is read of the table of sockets, in bytes: a hundred thousand of them.
const MAX_TABLE_BYTES: u64 = 16 << 20;

/// The user whose socket is at `near`, connected to `far`, both on this machine. `None`: nobody's, any more.
pub fn owner(near: SocketAddr, far: SocketAddr) -> io::Result<Option<u32>> {
    match asked(near, far) {
        Ok(uid) => Ok(Some(uid)),
        Err(error) => {
            tracing::trace!(%error, "the kernel does not say whose a socket is");
            listed(near, far)
        }
    }
}

fn asked(near: SocketAddr, far: SocketAddr) -> io::Result<u32> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    // The kernel has answered by the time that the request is sent.
    socket.set_non_blocking(true)?;
    socket.send(&request(near, far), 0)?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    let n_bytes = socket.recv(&mut answer, 0)?;
    let answer = answer.get(..n_bytes).unwrap_or_default();
    let message = NetlinkMessage::<SockDiagMessage>::deserialize(answer).map_err(io::Error::other)?;
    match message.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
            let found = &response.header.socket_id;
            let is_it = found.source_port == near.port() && found.destination_port == far.port();
            is_it.then_some(response.header.uid).ok_or_else(|| io::ErrorKind::NotFound.into())
        }
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn request(near: SocketAddr, far: SocketAddr) -> Vec<u8> {
    let is_v4 = near.is_ipv4();
    let mut socket_id = if is_v4 { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.cookie = ANY_SOCKET;
    (socket_id.source_address, socket_id.source_port) = (near.ip(), near.port());
    (socket_id.destination_address, socket_id.destination_port) = (far.ip(), far.port());
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let request = InetRequest {
        family: if is_v4 { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn listed(near: SocketAddr, far: SocketAddr) -> io::Result<Option<u32>> {
    let table = if near.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    let table = BufReader::new(File::open(table)?.take(MAX_TABLE_BYTES));
    let (near, far) = (spelled(near), spelled(far));
    for line in table.lines().skip(1) {
        let line = line?;
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next() == Some(&near) && words.next() == Some(&far) {
            // State, queues, timer, retransmissions, user.
            return Ok(words.nth(4).and_then(|uid| uid.parse().ok()));
        }
    }
    Ok(None)
}

/// As the table has an address: words of four bytes as numbers of this machine.
fn spelled(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (words, _) = bytes.as_chunks::<4>();
    let words: Vec<String> = words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect();
    format!("{}:{:04X}", words.concat(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_says_whose_a_connection_is() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            // A machine may lack one of the families.
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_accepted, near) = listener.accept().unwrap();
            let far = listener.local_addr().unwrap();
            let own = nix::unistd::getuid().as_raw();
            assert_eq!(owner(near, far).unwrap(), Some(own));
            assert_eq!(listed(near, far).unwrap(), Some(own), "{}", spelled(near));
            drop(caller);
            let nobody = SocketAddr::new(near.ip(), 1);
            assert_eq!(owner(nobody, far).unwrap(), None);
        }
    }
}
