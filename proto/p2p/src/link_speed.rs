//! How fast the network under a connection is, as the kernel sees it: the rate at which the far end was last seen to acknowledge bytes
//! (`tcpi_delivery_rate`, `net/ipv4/tcp_rate.c` of Linux), asked for through `sock_diag(7)`, which any user may.
//!
//! Our own writes say little of it: windows swallow a megabyte at once, and a far end whose processors are busy reads late on the fastest
//! of links. Not here: what is made of it ([`crate::worth`]).

use std::io;
use std::net::{IpAddr, SocketAddr};

use libp2p::Multiaddr;
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

/// What one answer of the kernel may take, in bytes: it writes no longer ones (`NLMSG_GOODSIZE`, `netlink_dump`).
const ANSWER_BYTES: usize = 32 << 10;
/// Answers that are read: a few hundred sockets.
const MAX_ANSWERS: usize = 16;
/// Where `tcpi_delivery_rate` stands in `struct tcp_info` (`linux/tcp.h`), since Linux 4.9.
const RATE_AT: usize = 160;
/// What the kernel takes for "whichever socket has these ends".
const ANY_SOCKET: [u8; 8] = [0xff; 8];

/// The ends of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Not known of connections that we dialled.
    near: Option<SocketAddr>,
    far: SocketAddr,
}

impl Ends {
    /// The ends of a connection, unless it is none of TCP.
    pub(crate) fn of(endpoint: &ConnectedPoint) -> Option<Self> {
        Some(match endpoint {
            ConnectedPoint::Dialer { address, .. } => Self { near: None, far: socket_address(address)? },
            ConnectedPoint::Listener { local_addr, send_back_addr } => {
                Self { near: Some(socket_address(local_addr)?), far: socket_address(send_back_addr)? }
            }
        })
    }
}

fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((ip, port).into()),
        _ => None,
    }
}

/// Bytes that the link carries in a second; of several connections between the same ends the highest rate. `None` where nothing was
/// measured yet. Takes 30 µs where both ends are known, else 200 µs: all sockets are looked through.
pub(crate) fn rate(ends: Ends) -> io::Result<Option<u64>> {
    // Asking for port 0 would match any.
    if ends.far.port() == 0 {
        return Ok(None);
    }
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    // The kernel has answered by the time that the request is sent.
    socket.set_non_blocking(true)?;
    socket.send(&request(ends), 0)?;
    let mut best = None;
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    for _ in 0..MAX_ANSWERS {
        answer.clear();
        let n_bytes = match socket.recv(&mut answer, 0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            received => received?,
        };
        let Some(rates) = rates(ends, answer.get(..n_bytes).unwrap_or_default()) else { break };
        best = best.max(rates.max);
        if rates.is_last {
            break;
        }
    }
    Ok(best)
}

fn request(ends: Ends) -> Vec<u8> {
    let is_v4 = ends.far.is_ipv4();
    let mut socket_id = if is_v4 { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.cookie = ANY_SOCKET;
    socket_id.destination_port = ends.far.port();
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    match ends.near {
        Some(near) => {
            socket_id.source_address = near.ip();
            socket_id.source_port = near.port();
            socket_id.destination_address = ends.far.ip();
        }
        None => header.flags |= NLM_F_DUMP,
    }
    let request = InetRequest {
        family: if is_v4 { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: StateFlags::ESTABLISHED,
        socket_id,
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// What one answer says.
#[derive(Debug, Default)]
struct Rates {
    max: Option<u64>,
    is_last: bool,
}

/// `None` if the answer is an error or makes no sense.
fn rates(ends: Ends, mut answer: &[u8]) -> Option<Rates> {
    let mut rates = Rates { max: None, is_last: ends.near.is_some() };
    while !answer.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(answer).ok()?;
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                if response.header.socket_id.destination_address == ends.far.ip() {
                    rates.max = rates.max.max(delivery_rate(&response));
                }
            }
            NetlinkPayload::Done(_) => rates.is_last = true,
            _ => return None,
        }
        let length = usize::try_from(message.header.length).ok()?.checked_next_multiple_of(4)?;
        answer = answer.get(length.max(1)..).unwrap_or_default();
    }
    Some(rates)
}

fn delivery_rate(response: &InetResponse) -> Option<u64> {
    response.nlas.iter().find_map(|nla| {
        let Nla::TcpInfo(info) = nla else { return None };
        let rate = u64::from_ne_bytes(*info.get(RATE_AT..)?.first_chunk()?);
        (rate > 0).then_some(rate)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_connections_of_tcp_have_ends() {
        let of = |text: &str| socket_address(&text.parse().unwrap());
        assert_eq!(of("/ip4/10.0.0.1/tcp/7/p2p-circuit"), Some(([10, 0, 0, 1], 7).into()));
        assert_eq!(of("/ip6/::1/tcp/7"), Some("[::1]:7".parse().unwrap()));
        for text in ["/memory/7", "/ip4/10.0.0.1/udp/7", "/dns4/desk/tcp/7", "/ip4/10.0.0.1"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn the_kernel_knows_the_rate_of_a_connection_by_either_end() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            // A machine may lack one of the families.
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let far = listener.local_addr().unwrap();
            let mut near = TcpStream::connect(far).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            let writing = std::thread::spawn(move || {
                near.write_all(&vec![7; 1 << 20]).unwrap();
                near
            });
            accepted.read_exact(&mut vec![0; 1 << 20]).unwrap();
            let near = writing.join().unwrap();
            let dialled = Ends { near: None, far };
            let listened = Ends { near: Some(near.local_addr().unwrap()), far };
            for ends in [dialled, listened] {
                // Nothing is that slow within a machine.
                assert!(rate(ends).unwrap().is_some_and(|rate| rate > 1 << 20), "{ends:?}");
            }
            let gone = Ends { near: Some(near.local_addr().unwrap()), far: ([127, 0, 0, 2], far.port()).into() };
            assert_eq!(rate(gone).unwrap_or(None), None);
        }
    }
}
