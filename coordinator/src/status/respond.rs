//! One request, one answer: which document, with which headers. Pure but for the random word that lets the page's own script run.

use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{HeaderMap, Method, Response, StatusCode};

use http_body_util::Full;

use super::host::OwnNames;

/// The page, whole. Where it says `NONCE` belongs the random word of each answer.
const PAGE: &str = include_str!("page.html");
/// What stands for that word.
const NONCE: &str = "NONCE";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The page.
    Page,
    /// The document that it shows.
    Json,
    /// The same for Prometheus.
    Metrics,
}

/// An answer, ready to be sent.
pub type Answer = Response<Full<Bytes>>;

/// Why a request is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was meant for somebody else.
    Name,
    /// It wants to change something.
    Method,
    /// There is nothing of that name.
    Path,
}

/// What a request with this `method`, `path` and `headers` asks for.
pub fn wanted(names: &OwnNames, method: &Method, path: &str, headers: &HeaderMap) -> Result<Wanted, Refused> {
    if !names.are_meant(headers) {
        return Err(Refused::Name);
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refused::Method);
    }
    match path {
        "/" => Ok(Wanted::Page),
        "/status.json" => Ok(Wanted::Json),
        "/metrics" => Ok(Wanted::Metrics),
        _ => Err(Refused::Path),
    }
}

/// The answer to what is no good.
pub fn refused(why: Refused) -> Answer {
    match why {
        Refused::Name => {
            let text = "this is not the name of this machine; `status_hosts` in its settings adds names\n";
            refusal(StatusCode::MISDIRECTED_REQUEST, text)
        }
        Refused::Method => {
            let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            answer
        }
        Refused::Path => refusal(StatusCode::NOT_FOUND, "there is /, /status.json and /metrics\n"),
    }
}

/// The page. `nonce`: a new random word of letters and digits.
pub fn page(nonce: &str) -> Answer {
    let mut answer = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE.replace(NONCE, nonce).into());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // Without a policy nothing of the page would be worse off than its text, which holds nothing foreign.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    answer
}

/// A document.
pub fn document(content_type: &'static str, body: Bytes) -> Answer {
    answer(StatusCode::OK, content_type, body)
}

/// No.
pub fn refusal(status: StatusCode, text: &'static str) -> Answer {
    answer(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers: [(HeaderName, &'static str); 6] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        // Pages of other sites can't have it loaded as if it were an image or a script of theirs.
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use hyper::header::HOST;

    use super::*;

    fn ask(method: &Method, path: &str, host: &str) -> Result<Wanted, Refused> {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_str(host).unwrap())]);
        wanted(&OwnNames::new("farm", &[]), method, path, &headers)
    }

    #[test]
    fn there_are_three_documents_and_nothing_to_change() {
        assert_eq!(ask(&Method::GET, "/", "farm:7472"), Ok(Wanted::Page));
        assert_eq!(ask(&Method::HEAD, "/status.json", "farm:7472"), Ok(Wanted::Json));
        assert_eq!(ask(&Method::GET, "/metrics", "127.0.0.1:7472"), Ok(Wanted::Metrics));
        assert_eq!(ask(&Method::GET, "/../etc/passwd", "farm"), Err(Refused::Path));
        assert_eq!(ask(&Method::POST, "/", "farm"), Err(Refused::Method));
        assert_eq!(ask(&Method::GET, "/", "evil.example"), Err(Refused::Name));
    }

    #[test]
    fn the_page_loads_nothing_and_runs_nothing_but_its_own() {
        let answer = page("abc123");
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'nonce-abc123';"), "{policy}");
        assert_eq!(PAGE.matches(NONCE).count(), 2, "one style, one script");
        for (element, allowed) in [("<script", "<script nonce=\"NONCE\">"), ("<style", "<style nonce=\"NONCE\">")] {
            assert_eq!(PAGE.matches(element).count(), PAGE.matches(allowed).count(), "{element}");
        }
        // Foreign texts are put in as texts only; addresses are its own.
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:", " style="]
        {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }
}
