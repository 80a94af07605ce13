//! What an agent says of itself, made fit to be passed on.
//!
//! Everything here came from a peer and goes to others: texts are bounded and free of control characters, addresses are well-formed, and
//! an agent that only knows that it listens on every interface is given the address that its connection comes from. Pure. Not here:
//! whether anything of it is true.

use std::net::{IpAddr, SocketAddr};

use buildbee_proto::control::Offer;
use buildbee_proto::limits::{MAX_ADDRESSES_PER_PEER, MAX_NAME_BYTES, MAX_TOOLCHAINS_PER_AGENT};
use buildbee_proto::peer::PeerId;

use crate::membership::register::clean_name;

/// Longest `host:port` in bytes: a host name of 253 and a port.
const MAX_ADDRESS_BYTES: usize = 253 + 6;
/// Longest description of a platform in bytes.
const MAX_HOST_BYTES: usize = 64;
/// Largest load that is believed, in percent.
const MAX_LOAD_PERCENT: u32 = 10_000;

/// The offer of `peer`, whose connection comes from `observed`.
pub fn sanitise(offer: Offer, peer: PeerId, observed: Option<IpAddr>) -> Offer {
    let mut addresses: Vec<String> = Vec::new();
    for address in offer.addresses.iter().filter_map(|text| address(text, observed)) {
        if addresses.len() < MAX_ADDRESSES_PER_PEER && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let mut toolchains = offer.toolchains;
    toolchains.truncate(MAX_TOOLCHAINS_PER_AGENT);
    let is_plain = |character: &char| character.is_ascii_graphic();
    Offer {
        name: clean_name(&offer.name, peer),
        host: offer.host.chars().filter(is_plain).take(MAX_HOST_BYTES.min(MAX_NAME_BYTES)).collect(),
        load_percent: offer.load_percent.min(MAX_LOAD_PERCENT),
        toolchains,
        addresses,
        ..offer
    }
}

/// A `host:port` that others can dial; `None` if it isn't one.
fn address(text: &str, observed: Option<IpAddr>) -> Option<String> {
    if text.len() > MAX_ADDRESS_BYTES {
        return None;
    }
    if let Ok(mut address) = text.parse::<SocketAddr>() {
        if address.ip().is_unspecified() {
            address.set_ip(observed.filter(|ip| !ip.is_unspecified())?);
        }
        return (address.port() != 0).then(|| address.to_string());
    }
    let (host, port) = text.rsplit_once(':')?;
    let is_name =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    // Digits and dots that are no IP address are no name either.
    let is_number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (is_name && is_port && !is_number).then(|| text.to_owned())
}

/// Whether `text` is a `host:port` that others can dial.
pub fn is_address(text: &str) -> bool {
    address(text, None).is_some()
}

/// The address part of a peer's `ip:port`.
pub fn ip_of(address: &str) -> Option<IpAddr> {
    address.parse::<SocketAddr>().ok().map(|address| address.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use buildbee_proto::digest::Digest;
    use buildbee_proto::toolchain::ToolchainId;
    use proptest::prelude::*;

    use super::*;

    const PEER: PeerId = PeerId([1; 32]);

    fn addresses(texts: &[&str], observed: Option<&str>) -> Vec<String> {
        let offer = Offer { addresses: texts.iter().map(|text| (*text).to_owned()).collect(), ..Offer::default() };
        sanitise(offer, PEER, observed.map(|ip| ip.parse().unwrap())).addresses
    }

    #[test]
    fn a_wildcard_becomes_where_the_connection_comes_from() {
        assert_eq!(addresses(&["0.0.0.0:7471", "[::]:7471"], Some("10.1.2.3")), ["10.1.2.3:7471"]);
        assert_eq!(addresses(&["[::]:7471"], Some("fd00::7")), ["[fd00::7]:7471"]);
        assert!(addresses(&["0.0.0.0:7471"], None).is_empty());
    }

    #[test]
    fn only_what_can_be_dialled_is_passed_on() {
        let long = format!("{}:1", "a".repeat(300));
        let texts =
            ["desk-7.office:7471", "10.0.0.1:0", "desk", "desk:", "desk:x", ":1", "a b:1", "1.2.3:4", "a\n:1", &long];
        assert_eq!(addresses(&texts, None), ["desk-7.office:7471"]);
    }

    #[test]
    fn lists_and_numbers_are_bounded() {
        let offer = Offer {
            addresses: (1..1000).map(|port| format!("10.0.0.1:{port}")).collect(),
            toolchains: vec![ToolchainId(Digest::of(b"x")); 10_000],
            load_percent: u32::MAX,
            host: "x86_64-linux\u{7}".to_owned(),
            ..Offer::default()
        };
        let clean = sanitise(offer, PEER, None);
        assert_eq!(clean.addresses.len(), MAX_ADDRESSES_PER_PEER);
        assert_eq!(clean.toolchains.len(), MAX_TOOLCHAINS_PER_AGENT);
        assert_eq!((clean.load_percent, clean.host.as_str()), (MAX_LOAD_PERCENT, "x86_64-linux"));
        assert_eq!(clean.name, PEER.short());
    }

    #[test]
    fn mapped_addresses_are_shown_as_what_they_are() {
        assert_eq!(ip_of("[::ffff:10.0.0.7]:50123"), Some("10.0.0.7".parse().unwrap()));
        assert_eq!(ip_of("memory:17"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_left_out_or_kept_as_an_address(text in ".{0,80}", ip: IpAddr) {
            for address in addresses(&[&text], Some(&ip.to_string())) {
                prop_assert!(address.contains(':') && !address.chars().any(|c| c.is_control() || c.is_whitespace()));
            }
        }
    }
}
