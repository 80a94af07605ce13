//! What a request for an entry wants, or why it is refused. Pure.
//!
//! The path is the entry's name, as it is: what stands before a tool's own key keeps projects apart. Refused is also what a page in the user's
//! browser could send: browsers name the page's origin, and the host that they believe they talk to.

use std::net::IpAddr;

use buildbee_proto::entry::EntryName;
use buildbee_proto::limits::{MAX_ENTRY_BYTES, MAX_ENTRY_NAME_BYTES};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HOST, IF_NONE_MATCH, ORIGIN};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};
use thiserror::Error;

/// What is answered, for people.
pub const METHODS: &str = "GET, HEAD, PUT, DELETE, PROPFIND, MKCOL";

/// How somebody has come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over loopback, as a browser may, too.
    Loopback,
    /// Over the daemon's own socket.
    Socket,
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To know who answers.
    Greeting,
    /// The value.
    Get(EntryName),
    /// Whether there is one, and how large.
    Head(EntryName),
    /// To put one.
    Put {
        /// Where.
        name: EntryName,
        /// Not if there is one.
        only_if_missing: bool,
        /// In bytes, where it is told beforehand.
        length: Option<u64>,
    },
    /// To take it out.
    Delete(EntryName),
    /// `WebDAV`: what is known of it.
    Properties(EntryName),
    /// `WebDAV`: the same of what is taken for a folder. There are none, and all are there.
    FolderProperties,
    /// `WebDAV`: to make one.
    MakeFolder,
}

/// Why a request is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// A page's.
    #[error("requests of web pages are not answered")]
    Page,
    /// Somebody was led here by another name.
    #[error("this host is not called so: use its loopback address")]
    Host,
    /// Not one of [`METHODS`].
    #[error("this method is none of {METHODS}")]
    Method,
    /// The path is none.
    #[error(
        "the path is no name: words with slashes between them, none of them empty, \".\" or \"..\", {MAX_ENTRY_NAME_BYTES} bytes in all"
    )]
    Name,
    /// With a question mark.
    #[error("a name has no question mark")]
    Query,
    /// A part of a value, or a length that is none.
    #[error("a value is put whole, with its length in bytes")]
    Length,
    /// Beyond the bound.
    #[error("a value has {MAX_ENTRY_BYTES} bytes at most")]
    TooLarge,
}

impl Refusal {
    /// As HTTP has it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Page | Self::Host => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Name | Self::Query | Self::Length => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

/// What the request with this head wants.
pub fn wanted(way: Way, head: &Parts) -> Result<Wanted, Refusal> {
    if way == Way::Loopback {
        if head.headers.contains_key(ORIGIN) {
            return Err(Refusal::Page);
        }
        if !is_meant(&head.headers) {
            return Err(Refusal::Host);
        }
    }
    if head.uri.query().is_some() {
        return Err(Refusal::Query);
    }
    let path = head.uri.path();
    let name = || EntryName::new(path.strip_prefix('/').unwrap_or(path)).map_err(|_| Refusal::Name);
    let is_folder = path.ends_with('/');
    match head.method {
        Method::GET | Method::HEAD if path == "/" => Ok(Wanted::Greeting),
        Method::GET => name().map(Wanted::Get),
        Method::HEAD => name().map(Wanted::Head),
        Method::DELETE => name().map(Wanted::Delete),
        Method::PUT => put(name()?, &head.headers),
        _ => match head.method.as_str() {
            "PROPFIND" if is_folder => Ok(Wanted::FolderProperties),
            "PROPFIND" => name().map(Wanted::Properties),
            "MKCOL" => Ok(Wanted::MakeFolder),
            _ => Err(Refusal::Method),
        },
    }
}

fn put(name: EntryName, headers: &HeaderMap) -> Result<Wanted, Refusal> {
    let length = headers.get(CONTENT_LENGTH).map(|length| length.to_str().ok()?.parse::<u64>().ok());
    let length = match length {
        Some(None) => return Err(Refusal::Length),
        Some(length) => length,
        None => None,
    };
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Refusal::Length);
    }
    if length.is_some_and(|length| length > MAX_ENTRY_BYTES) {
        return Err(Refusal::TooLarge);
    }
    let only_if_missing = headers.get(IF_NONE_MATCH).is_some_and(|value| value == "*");
    Ok(Wanted::Put { name, only_if_missing, length })
}

/// Whether one `Host` is named, and that by an address or as `localhost`.
fn is_meant(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    let host = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use proptest::prelude::*;

    use super::*;

    fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "127.0.0.1:7473");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Wanted, Refusal> {
        wanted(Way::Loopback, &head(method, path, headers))
    }

    fn name(text: &str) -> EntryName {
        EntryName::new(text).unwrap()
    }

    #[test]
    fn what_ccache_and_sccache_send_is_understood() {
        let key = "/project/ab/cdef0123";
        let named = name("project/ab/cdef0123");
        assert_eq!(ask("GET", key, &[]), Ok(Wanted::Get(named.clone())));
        assert_eq!(ask("HEAD", key, &[]), Ok(Wanted::Head(named.clone())));
        assert_eq!(ask("DELETE", key, &[]), Ok(Wanted::Delete(named.clone())));
        let put = |only_if_missing| Wanted::Put { name: named.clone(), only_if_missing, length: Some(7) };
        assert_eq!(ask("PUT", key, &[("content-length", "7")]), Ok(put(false)));
        assert_eq!(ask("PUT", key, &[("content-length", "7"), ("if-none-match", "*")]), Ok(put(true)));
        assert_eq!(ask("PROPFIND", key, &[("depth", "0")]), Ok(Wanted::Properties(named)));
        assert_eq!(ask("PROPFIND", "/project/ab/", &[]), Ok(Wanted::FolderProperties));
        assert_eq!(ask("MKCOL", "/project/ab/", &[]), Ok(Wanted::MakeFolder));
        assert_eq!(ask("GET", "/", &[]), Ok(Wanted::Greeting));
        assert_eq!(ask("GET", "/.sccache_check", &[]), Ok(Wanted::Get(name(".sccache_check"))));
    }

    #[test]
    fn what_makes_no_sense_is_told_so() {
        for (method, path, headers, expected) in [
            ("POST", "/a", &[][..], Refusal::Method),
            ("OPTIONS", "/a", &[], Refusal::Method),
            ("COPY", "/a", &[], Refusal::Method),
            ("GET", "/a//b", &[], Refusal::Name),
            ("GET", "/a/../b", &[], Refusal::Name),
            ("PUT", "/a/", &[], Refusal::Name),
            ("DELETE", "/", &[], Refusal::Name),
            ("GET", "/a?b=c", &[], Refusal::Query),
            ("PUT", "/a", &[("content-range", "bytes 0-1/2")], Refusal::Length),
            ("PUT", "/a", &[("content-length", "many")], Refusal::Length),
            ("PUT", "/a", &[("content-length", "134217729")], Refusal::TooLarge),
            ("GET", "/a", &[("origin", "https://example.com")], Refusal::Page),
        ] {
            assert_eq!(ask(method, path, headers), Err(expected), "{method} {path}");
        }
        assert_eq!(ask("GET", &format!("/{}", "a/".repeat(600)), &[]), Err(Refusal::Name));
    }

    #[test]
    fn hosts_are_addresses() {
        for (host, is_good) in [
            ("127.0.0.1:7473", true),
            ("127.0.0.1", true),
            ("[::1]:7473", true),
            ("localhost:7473", true),
            ("LOCALHOST", true),
            ("evil.example.com", false),
            ("evil.example.com:7473", false),
            ("127.0.0.1.evil.example.com", false),
            ("127.0.0.1:7473:7473", false),
            ("", false),
        ] {
            let mut head = head("GET", "/a", &[]);
            head.headers.insert(HOST, host.parse().unwrap());
            assert_eq!(wanted(Way::Loopback, &head).is_ok(), is_good, "{host}");
            assert!(wanted(Way::Socket, &head).is_ok());
            head.headers.append(HOST, "127.0.0.1".parse().unwrap());
            assert_eq!(wanted(Way::Loopback, &head), Err(Refusal::Host));
        }
    }

    proptest! {
        #[test]
        fn a_name_is_the_path(words in prop::collection::vec("[a-zA-Z0-9_.%~-]{1,20}", 1..6)) {
            let path = words.join("/");
            let asked = ask("GET", &format!("/{path}"), &[]);
            let expected = EntryName::new(&path).map(Wanted::Get).map_err(|_| Refusal::Name);
            prop_assert_eq!(asked, expected);
        }
    }
}
