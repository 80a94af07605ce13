//! Whom a request was meant for. A page of another site can have its own name lead to this machine and read answers as if they were its
//! own (DNS rebinding), but then the browser says that name: only addresses and this machine's own names are answered. Pure.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::HOST;

/// Names that are answered, besides `localhost` and every address.
#[derive(Clone, Debug, Default)]
pub struct OwnNames(Vec<String>);

impl OwnNames {
    /// The machine's `hostname` as it is, without its domain, and as multicast DNS has it; and `others`, as `host` or `host:port`.
    pub fn new<'a>(hostname: &str, others: impl IntoIterator<Item = &'a String>) -> Self {
        let first = hostname.split('.').next().unwrap_or_default();
        let mut names = vec![hostname.to_owned(), first.to_owned(), format!("{first}.local")];
        names.extend(others.into_iter().map(|other| host_of(other).to_owned()));
        names.retain(|name| !name.is_empty() && !name.starts_with('.'));
        Self(names)
    }

    /// Whether a request with these `headers` was meant for this machine.
    pub fn are_meant(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(HOST).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        value.to_str().is_ok_and(|value| self.has(host_of(value)))
    }

    fn has(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = host.strip_suffix('.').unwrap_or(host);
        bare.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// `value` without its port.
fn host_of(value: &str) -> &str {
    match value.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) => {
            // `::1` is an address without brackets and without a port.
            if host.contains(':') && !host.ends_with(']') { value } else { host }
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn names() -> OwnNames {
        OwnNames::new("farm.example.lan", &["bees.example.com:7470".to_owned(), "[fd00::7]:7470".to_owned()])
    }

    fn meant(hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        names().are_meant(&headers)
    }

    #[test]
    fn own_names_and_addresses_are_answered() {
        for host in [
            "127.0.0.1:7472",
            "192.0.2.7",
            "[::1]:7472",
            "[::1]",
            "localhost:7472",
            "LOCALHOST",
            "farm:7472",
            "farm.example.lan.",
            "farm.local:7472",
            "Farm.Example.LAN:80",
            "bees.example.com",
        ] {
            assert!(meant(&[host]), "{host}");
        }
    }

    #[test]
    fn other_names_are_not() {
        for host in [
            "",
            ":7472",
            "evil.example.com",
            "evil.example.com:7472",
            "127.0.0.1.evil.example.com",
            "localhost.evil.example.com",
            "farm.evil",
            "local",
            "a@127.0.0.1",
            "127.0.0.1:7472:7472",
            "[127.0.0.1",
        ] {
            assert!(!meant(&[host]), "{host}");
        }
        assert!(!meant(&[]), "no name");
        assert!(!meant(&["127.0.0.1", "evil.example.com"]), "two names");
        assert!(!OwnNames::new("", &[]).has(""));
    }

    proptest! {
        #[test]
        fn a_foreign_domain_is_never_answered(host in "[a-z0-9.:@\\[\\]-]{0,20}", port in 0_u16..) {
            let foreign = format!("{host}.evil.example:{port}");
            let refused = !meant(&[&foreign]);
            prop_assert!(refused);
        }
    }
}
