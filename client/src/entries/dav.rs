//! How `WebDAV` tells what is known of a resource (RFC 4918, 9.1): as much of it as `OpenDAL`, through which sccache comes, looks at. Pure.

use std::time::{Duration, UNIX_EPOCH};

use super::shelf::Meta;

/// The type of these answers.
pub const CONTENT_TYPE: &str = "application/xml; charset=utf-8";

/// Of what is there at `path`; `None`: a folder.
pub fn properties(path: &str, meta: Option<Meta>) -> String {
    let (at_ms, kind) = match meta {
        None => (0, "<D:resourcetype><D:collection/></D:resourcetype>".to_owned()),
        Some(Meta { n_bytes, put_at_ms }) => {
            (put_at_ms, format!("<D:resourcetype/><D:getcontentlength>{n_bytes}</D:getcontentlength>"))
        }
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
         <D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>{}</D:href><D:propstat><D:prop>{kind}\
         <D:getlastmodified>{}</D:getlastmodified></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>\
         </D:response></D:multistatus>",
        escaped(path),
        date(at_ms)
    )
}

/// As HTTP writes dates. What is no date of this calendar's is its beginning: it is the word of another machine.
pub fn date(at_ms: u64) -> String {
    const LAST_MS: u64 = 253_402_300_799_000;
    let at = UNIX_EPOCH + Duration::from_millis(if at_ms > LAST_MS { 0 } else { at_ms });
    httpdate::fmt_http_date(at)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_as_opendal_reads_them() {
        let meta = Meta { n_bytes: 12, put_at_ms: 1_700_000_000_123 };
        assert_eq!(
            properties("/a&b/c", Some(meta)),
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>/a&amp;b/c</D:href>\
             <D:propstat><D:prop><D:resourcetype/><D:getcontentlength>12</D:getcontentlength>\
             <D:getlastmodified>Tue, 14 Nov 2023 22:13:20 GMT</D:getlastmodified></D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>"
        );
        assert!(properties("/a/", None).contains("<D:collection/>"));
        assert_eq!(date(u64::MAX), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
