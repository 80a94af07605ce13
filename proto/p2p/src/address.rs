//! Addresses as people write them, `host:port`, to and from libp2p's.
//!
//! `memory:N` is the in-process transport of tests. Not here: which address belongs to whom.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use buildbee_proto::limits::MAX_ADDRESSES_PER_PEER;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use thiserror::Error;

/// Longest host name in bytes.
const MAX_HOST_BYTES: usize = 253;
/// Addresses taken of one host name.
const MAX_ADDRESSES_PER_NAME: usize = 4;
/// For how long a name server may keep us waiting.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// What an address of the memory transport starts with.
const MEMORY_PREFIX: &str = "memory:";

/// Why a text is no address, or leads nowhere.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// It has no `:port`.
    #[error("address {0:?} has no port\nhint: write host:port, for example desk-7:7471 or [fd00::7]:7471")]
    NoPort(String),
    /// The port is not a number up to 65535.
    #[error(
        "address {0:?} has a port that is not a number from 0 to 65535\nhint: write host:port, for example desk-7:7471"
    )]
    BadPort(String),
    /// The host is neither a name nor an IP address.
    #[error(
        "address {0:?} has a host that is neither a name nor an IP address\n\
         hint: IPv6 addresses stand in brackets and without a zone, [fd00::7]:7471"
    )]
    BadHost(String),
    /// No such name.
    #[error("host name {host:?} can't be resolved: {reason}\nhint: check the name, or write the machine's IP address")]
    Unresolved {
        /// The name.
        host: String,
        /// What the resolver says.
        reason: String,
    },
    /// There is no address at all.
    #[error("no address is given\nhint: write at least one host:port")]
    None,
}

/// A well-formed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Within this process.
    Memory(u64),
    /// An IP address.
    Socket(SocketAddr),
    /// To be looked up.
    Name { host: String, port: u16 },
}

/// Cuts a text for an error message.
fn shown(text: &str) -> String {
    text.chars().take(MAX_HOST_BYTES + 10).collect()
}

pub(crate) fn parse(text: &str) -> Result<Address, AddressError> {
    if let Some(number) = text.strip_prefix(MEMORY_PREFIX) {
        return number.parse().map(Address::Memory).map_err(|_| AddressError::BadPort(shown(text)));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(shown(text)))?;
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressError::BadPort(shown(text)));
    }
    let port: u16 = port.parse().map_err(|_| AddressError::BadPort(shown(text)))?;
    if let Some(inside) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let ip: Ipv6Addr = inside.parse().map_err(|_| AddressError::BadHost(shown(text)))?;
        return Ok(Address::Socket(SocketAddr::new(IpAddr::V6(ip), port)));
    }
    if let Ok(ip) = host.parse::<std::net::Ipv4Addr>() {
        return Ok(Address::Socket(SocketAddr::new(IpAddr::V4(ip), port)));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_empty() || host.len() > MAX_HOST_BYTES || !host.bytes().all(allowed) {
        return Err(AddressError::BadHost(shown(text)));
    }
    Ok(Address::Name { host: host.to_owned(), port })
}

/// libp2p's form of an IP address and port.
fn from_socket(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// Our form of libp2p's address; libp2p's own where it is of another kind.
pub(crate) fn to_text(address: &Multiaddr) -> String {
    let mut parts = address.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => format!("{ip}:{port}"),
        (Some(Protocol::Ip6(ip)), Some(Protocol::Tcp(port))) => format!("[{ip}]:{port}"),
        (Some(Protocol::Memory(number)), _) => format!("{MEMORY_PREFIX}{number}"),
        _ => address.to_string(),
    }
}

/// Where one address leads. Asks the system's resolver for names, for at most a few seconds. Cancel-safe.
pub(crate) async fn resolve(text: &str) -> Result<Vec<Multiaddr>, AddressError> {
    let (host, port) = match parse(text)? {
        Address::Memory(number) => return Ok(vec![Protocol::Memory(number).into()]),
        Address::Socket(address) => return Ok(vec![from_socket(address)]),
        Address::Name { host, port } => (host, port),
    };
    let unresolved = |reason: String| AddressError::Unresolved { host: host.clone(), reason };
    match tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host.as_str(), port))).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.take(MAX_ADDRESSES_PER_NAME).map(from_socket).collect();
            if found.is_empty() { Err(unresolved("it has no address".to_owned())) } else { Ok(found) }
        }
        Ok(Err(error)) => Err(unresolved(error.to_string())),
        Err(_) => Err(unresolved("the name server does not answer".to_owned())),
    }
}

/// Where some addresses lead, in their order. Fails only if none of them leads anywhere. Cancel-safe.
pub(crate) async fn resolve_all(texts: &[String]) -> Result<Vec<Multiaddr>, AddressError> {
    let lookups = texts.iter().take(MAX_ADDRESSES_PER_PEER).map(|text| resolve(text));
    let mut first_error = None;
    let mut addresses: Vec<Multiaddr> = Vec::new();
    for result in futures::future::join_all(lookups).await {
        match result {
            Ok(found) => {
                for address in found {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    if addresses.is_empty() { Err(first_error.unwrap_or(AddressError::None)) } else { Ok(addresses) }
}

/// Why a dial failed, for people: what each address said.
pub(crate) fn explain_dial(error: &DialError) -> String {
    match error {
        DialError::Transport(failures) => {
            let each: Vec<_> = failures.iter().map(|(at, error)| format!("{}: {}", to_text(at), root(error))).collect();
            each.join("; ")
        }
        DialError::Denied { cause } => format!("too many connections ({cause})"),
        other => other.to_string(),
    }
}

/// The innermost cause, which is what a person can act on.
fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write() {
        assert_eq!(parse("memory:17"), Ok(Address::Memory(17)));
        assert_eq!(parse("10.0.0.7:7471"), Ok(Address::Socket("10.0.0.7:7471".parse().unwrap())));
        assert_eq!(parse("[::]:7471"), Ok(Address::Socket("[::]:7471".parse().unwrap())));
        assert_eq!(parse("desk-7.office:1"), Ok(Address::Name { host: "desk-7.office".to_owned(), port: 1 }));
        for (text, expected) in [
            ("", AddressError::NoPort(String::new())),
            ("desk-7", AddressError::NoPort("desk-7".to_owned())),
            ("desk-7:", AddressError::BadPort("desk-7:".to_owned())),
            ("desk-7:+1", AddressError::BadPort("desk-7:+1".to_owned())),
            ("desk-7:65536", AddressError::BadPort("desk-7:65536".to_owned())),
            ("memory:x", AddressError::BadPort("memory:x".to_owned())),
            (":1", AddressError::BadHost(":1".to_owned())),
            ("fd00::7:7471", AddressError::BadHost("fd00::7:7471".to_owned())),
            ("[fe80::1%eth0]:7471", AddressError::BadHost("[fe80::1%eth0]:7471".to_owned())),
            ("desk 7:1", AddressError::BadHost("desk 7:1".to_owned())),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, expected);
            assert!(error.to_string().contains("\nhint: "));
        }
    }

    #[tokio::test]
    async fn names_are_looked_up_and_the_rest_is_used_as_it_is() {
        assert!(!resolve("localhost:1").await.unwrap().is_empty());
        assert!(matches!(resolve("no-such-name.invalid:1").await, Err(AddressError::Unresolved { .. })));
        let some = ["no-such-name.invalid:1".to_owned(), "127.0.0.1:5".to_owned(), "127.0.0.1:5".to_owned()];
        assert_eq!(resolve_all(&some).await.unwrap().len(), 1);
        assert!(matches!(resolve_all(&some[..1]).await, Err(AddressError::Unresolved { .. })));
        assert_eq!(resolve_all(&[]).await, Err(AddressError::None));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,300}") {
            let _ = parse(&text);
        }

        #[test]
        fn ip_addresses_survive_the_round_trip(ip: IpAddr, port: u16) {
            let address = SocketAddr::new(ip, port);
            let text = to_text(&from_socket(address));
            prop_assert_eq!(parse(&text), Ok(Address::Socket(address)));
        }

        #[test]
        fn names_are_kept(host in "[a-z][a-z0-9-]{0,20}(\\.[a-z]{1,5}){0,3}", port: u16) {
            prop_assume!(host != "memory");
            prop_assert_eq!(parse(&format!("{host}:{port}")), Ok(Address::Name { host, port }));
        }
    }
}
