//! Where others can reach this machine, for tickets that name no address.
//!
//! A guess from the network interfaces; `--address` and the `addresses` setting are the way to say it for certain.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use thiserror::Error;

/// Addresses put into a ticket when none is given.
const MAX_GUESSED_ADDRESSES: usize = 4;
/// What interfaces of containers and virtual machines on this machine are called: nobody else reaches those addresses.
const INTERNAL_INTERFACES: [&str; 5] = ["docker", "br-", "veth", "virbr", "lxc"];

/// No address can be guessed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GuessError {
    /// There is no interface but the loopback one.
    #[error("this machine has no network address that others could use\nhint: name one: --address HOST:{port}")]
    NoInterface {
        /// Where the coordinator listens.
        port: u16,
    },
    /// The port is not fixed.
    #[error(
        "the coordinator listens on any free port, which a ticket can't name\nhint: set `listen` to a fixed port, or name the address: --address HOST:PORT"
    )]
    NoPort,
}

/// Where a coordinator that listens on `listen` can be reached from other machines.
pub fn guess(listen: SocketAddr) -> Result<Vec<String>, GuessError> {
    if listen.port() == 0 {
        return Err(GuessError::NoPort);
    }
    if !listen.ip().is_unspecified() {
        return Ok(vec![listen.to_string()]);
    }
    let found = choose(listen, interfaces());
    if found.is_empty() { Err(GuessError::NoInterface { port: listen.port() }) } else { Ok(found) }
}

/// The best of `interfaces` (name and address): those that `listen` covers, IPv4 first.
fn choose(listen: SocketAddr, interfaces: Vec<(String, IpAddr)>) -> Vec<String> {
    let is_internal = |name: &str| INTERNAL_INTERFACES.iter().any(|prefix| name.starts_with(prefix));
    let is_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        // A link-local IPv6 address means nothing without the name of an interface.
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
    };
    let mut usable: Vec<(String, IpAddr)> =
        interfaces.into_iter().filter(|(_, ip)| !is_local(ip) && (listen.is_ipv6() || ip.is_ipv4())).collect();
    usable.sort_by_key(|(name, ip)| (is_internal(name), ip.is_ipv6()));
    if usable.iter().any(|(name, _)| !is_internal(name)) {
        usable.retain(|(name, _)| !is_internal(name));
    }
    let addresses = usable.into_iter().map(|(_, ip)| SocketAddr::new(ip, listen.port()).to_string());
    addresses.take(MAX_GUESSED_ADDRESSES).collect()
}

fn interfaces() -> Vec<(String, IpAddr)> {
    // No list is the same as an empty one: the caller then says what to do.
    let Ok(found) = getifaddrs() else { return Vec::new() };
    let up = found.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP));
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => return None,
        };
        Some((interface.interface_name, ip))
    };
    up.filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces_of(list: &[(&str, &str)]) -> Vec<(String, IpAddr)> {
        list.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap())).collect()
    }

    #[test]
    fn addresses_that_others_can_use_are_chosen() {
        let all = interfaces_of(&[
            ("lo", "127.0.0.1"),
            ("docker0", "172.17.0.1"),
            ("eth0", "fe80::1"),
            ("eth0", "fd00::7"),
            ("eth0", "10.0.0.7"),
            ("wlan0", "169.254.1.1"),
        ]);
        assert_eq!(choose("0.0.0.0:7470".parse().unwrap(), all.clone()), ["10.0.0.7:7470"]);
        assert_eq!(choose("[::]:7470".parse().unwrap(), all), ["10.0.0.7:7470", "[fd00::7]:7470"]);
        let container = interfaces_of(&[("veth0", "10.200.1.2"), ("lo", "::1")]);
        assert_eq!(choose("0.0.0.0:1".parse().unwrap(), container), ["10.200.1.2:1"], "better than nothing");
        assert!(choose("0.0.0.0:1".parse().unwrap(), vec![]).is_empty());
    }

    #[test]
    fn a_certain_address_is_not_guessed() {
        assert_eq!(guess("192.168.1.5:7470".parse().unwrap()).unwrap(), ["192.168.1.5:7470"]);
        assert_eq!(guess("0.0.0.0:0".parse().unwrap()), Err(GuessError::NoPort));
    }
}
