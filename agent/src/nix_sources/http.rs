//! A small HTTP client: GET over HTTP/1.1, plainly or through TLS, a few redirects, everything with a deadline.

use std::time::Duration;

use buildbee_p2p::tasks::Tasks;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tls::{Tls, TlsError};

/// How long a connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long the head of an answer may take.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Redirects followed.
const MAX_REDIRECTS: usize = 3;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum GetError {
    /// Neither name nor address, or another protocol.
    #[error("{0:?} is neither an http:// nor an https:// URL")]
    Url(String),
    /// Nobody is there.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// Or not securely.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It leads from https to http.
    #[error("it leads to {0}, which is not secure")]
    Insecure(Uri),
    /// It does not speak HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// It takes too long.
    #[error("it does not answer in time")]
    Late,
    /// It leads on and on.
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    /// Another answer than what was asked for.
    #[error("it answers {0}")]
    Status(StatusCode),
}

/// What answers are asked with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Web {
    tasks: Tasks,
    tls: Tls,
}

impl Web {
    /// Connections are followed by `tasks`, and made secure by `tls`.
    pub fn new(tasks: Tasks, tls: Tls) -> Self {
        Self { tasks, tls }
    }
}

/// The port that a URL of this scheme means.
fn port_of(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(HTTP_PORT),
        "https" => Some(HTTPS_PORT),
        _ => None,
    }
}

/// The URL that `location` is, seen from `base`: absolute, of the same host, or beside it. What is secure stays so.
pub fn joined(base: &Uri, location: &str) -> Result<Uri, GetError> {
    let bad = || GetError::Url(location.to_owned());
    let absolute = if location.contains("://") {
        location.to_owned()
    } else {
        let (scheme, authority) = base.scheme_str().zip(base.authority()).ok_or_else(bad)?;
        let beside = if location.starts_with('/') { "" } else { base.path().trim_end_matches('/') };
        format!("{scheme}://{authority}{beside}/{}", location.trim_start_matches('/'))
    };
    let url: Uri = absolute.parse().map_err(|_| bad())?;
    if base.scheme_str() == Some("https") && url.scheme_str() == Some("http") {
        return Err(GetError::Insecure(url));
    }
    let is_known = url.scheme_str().and_then(port_of).is_some() && url.host().is_some();
    if is_known { Ok(url) } else { Err(bad()) }
}

/// The URL of a cache, as its owner writes it.
pub fn cache(text: &str) -> Result<Uri, String> {
    let example = "a cache is like \"https://cache.example\" or \"http://cache:8080\"";
    if !text.contains("://") {
        return Err(example.to_owned());
    }
    joined(&Uri::default(), text).map_err(|_| example.to_owned())
}

/// The answer to `GET url`, redirects followed; `None` where there is no such thing.
pub async fn get(url: &Uri, web: &Web) -> Result<Option<Response<Incoming>>, GetError> {
    let mut url = url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = get_once(&url, web).await?;
        match response.status() {
            StatusCode::OK => return Ok(Some(response)),
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => return Ok(None),
            status if status.is_redirection() => {
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                url = joined(&url, location.ok_or(GetError::Status(status))?)?;
            }
            status => return Err(GetError::Status(status)),
        }
    }
    Err(GetError::Redirects)
}

async fn get_once(url: &Uri, web: &Web) -> Result<Response<Incoming>, GetError> {
    let (Some(host), Some(scheme)) = (url.host(), url.scheme_str()) else {
        return Err(GetError::Url(url.to_string()));
    };
    let host = host.trim_matches(['[', ']']);
    let place = (host, url.port_u16().or_else(|| port_of(scheme)).unwrap_or(HTTP_PORT));
    let connecting = timeout(CONNECT_DEADLINE, TcpStream::connect(place)).await;
    let stream = connecting.map_err(|_| GetError::Late)?.map_err(GetError::Connect)?;
    let answering = async {
        if scheme == "https" {
            let stream = web.tls.connect(host, stream).await?;
            ask(url, stream, &web.tasks).await
        } else {
            ask(url, stream, &web.tasks).await
        }
    };
    timeout(HEAD_DEADLINE, answering).await.map_err(|_| GetError::Late)?
}

async fn ask<S>(url: &Uri, stream: S, tasks: &Tasks) -> Result<Response<Incoming>, GetError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer's body, or when that is dropped.
    tasks.spawn("binary cache's answer", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a binary cache's answer ended early");
        }
    });
    let host = url.host().unwrap_or_default().to_owned();
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, host + &url.port().map_or_else(String::new, |port| format!(":{port}")))
        .header(USER_AGENT, "buildbee")
        .body(Empty::<Bytes>::new())
        .map_err(|_| GetError::Url(url.to_string()))?;
    Ok(sender.send_request(request).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_joined_within_http() {
        let base: Uri = "http://cache:8080/nix/".parse().unwrap();
        let of = |location| joined(&base, location).map(|url| url.to_string()).ok();
        assert_eq!(of("nar/x.nar").as_deref(), Some("http://cache:8080/nix/nar/x.nar"));
        assert_eq!(of("/nar/x.nar").as_deref(), Some("http://cache:8080/nar/x.nar"));
        assert_eq!(of("http://other/x").as_deref(), Some("http://other/x"));
        assert_eq!(of("https://other/x").as_deref(), Some("https://other/x"));
        assert!(cache("cache:8080").is_err() && cache("ftp://cache").is_err());
        assert!(cache("http://[::1]:8080/nix").is_ok());
        for odd in ["file:///etc/passwd", "http://", "a b"] {
            assert_eq!(of(odd), None, "{odd}");
        }
        let secure = cache("https://cache/nix").unwrap();
        assert_eq!(joined(&secure, "nar/x").unwrap().to_string(), "https://cache/nix/nar/x");
        assert!(matches!(joined(&secure, "http://cache/x"), Err(GetError::Insecure(_))));
    }
}
