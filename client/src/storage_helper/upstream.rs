//! A connection to the user's daemon, over which entries are got and put. Opened when it is first needed, and again when it has ended: the daemon
//! closes it when nothing is asked for a while, and may be another one by then.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::time::Duration;

use buildbee_proto::codec::{CodecError, FRAME_HEADER_BYTES, body_length, from_body, to_frame};
use buildbee_proto::limits::MAX_ENTRY_BYTES;
use buildbee_proto::local::{LocalCall, LocalReply, LocalRequest};
use buildbee_proto::version::LOCAL_VERSION;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use crate::wrapper::settings::WrapperSettings;
use crate::wrapper::socket::{self, SocketError};
use crate::wrapper::start::connect_or_start;

/// The daemon says within this time that it has understood.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// It answers a request within this time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Most of what it says of a failure, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// Why something was not done.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// There is no daemon, and none could be started.
    #[error("no buildbee daemon: {0}")]
    Nobody(#[from] SocketError),
    /// It is of another version.
    #[error("the buildbee daemon is of another version: `buildbee stop` ends it")]
    Version,
    /// It said something else than was due.
    #[error("the buildbee daemon does not make sense")]
    Nonsense,
    /// The connection failed.
    #[error("the buildbee daemon is gone: {0}")]
    Io(#[from] io::Error),
    /// A frame is none.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// What HTTP came to.
    #[error("the buildbee daemon is gone: {0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("the buildbee daemon does not answer")]
    Silent,
    /// The helper is leaving.
    #[error("interrupted: {0}")]
    Task(#[from] JoinError),
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

/// One connection at a time.
#[derive(Debug, Default)]
pub struct Upstream {
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Upstream {
    /// The value called `name`.
    pub async fn get(&mut self, name: &str) -> Result<Option<Vec<u8>>, UpstreamError> {
        let answer = self.ask(Method::GET, name, Bytes::new(), false).await?;
        match answer.status() {
            StatusCode::OK => Ok(Some(body(answer, usize::try_from(MAX_ENTRY_BYTES).unwrap_or(usize::MAX)).await?)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refusal(answer).await),
        }
    }

    /// Puts `value` there. False: there is one, and it was not to be replaced.
    pub async fn put(&mut self, name: &str, value: Vec<u8>, overwrite: bool) -> Result<bool, UpstreamError> {
        let answer = self.ask(Method::PUT, name, value.into(), !overwrite).await?;
        match answer.status() {
            StatusCode::PRECONDITION_FAILED => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(refusal(answer).await),
        }
    }

    /// Takes it out. False: there was nothing.
    pub async fn remove(&mut self, name: &str) -> Result<bool, UpstreamError> {
        let answer = self.ask(Method::DELETE, name, Bytes::new(), false).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(refusal(answer).await),
        }
    }

    /// Asks, once more where a connection that was kept turns out to have ended: all requests may be heard twice.
    async fn ask(
        &mut self,
        method: Method,
        name: &str,
        body: Bytes,
        only_if_missing: bool,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let request = || {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = format!("/{name}").parse().map_err(|_| UpstreamError::Nonsense)?;
            request.headers_mut().insert(HOST, hyper::header::HeaderValue::from_static("localhost"));
            if only_if_missing {
                request.headers_mut().insert(IF_NONE_MATCH, hyper::header::HeaderValue::from_static("*"));
            }
            Ok::<_, UpstreamError>(request)
        };
        if let Some(mut kept) = self.sender.take().filter(|sender| !sender.is_closed())
            && let Ok(answer) = send(&mut kept, request()?).await
        {
            self.sender = Some(kept);
            return Ok(answer);
        }
        let mut sender = connect().await?;
        let answer = send(&mut sender, request()?).await?;
        self.sender = Some(sender);
        Ok(answer)
    }
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, UpstreamError> {
    let answering = async {
        sender.ready().await?;
        sender.send_request(request).await
    };
    Ok(timeout(ANSWER_DEADLINE, answering).await.map_err(|_| UpstreamError::Silent)??)
}

async fn connect() -> Result<SendRequest<Full<Bytes>>, UpstreamError> {
    let stream = spawn_blocking(introduced).await??;
    stream.set_nonblocking(true)?;
    let (sender, connection) = handshake(TokioIo::new(UnixStream::from_std(stream)?)).await?;
    // Ends with the sender, or the daemon.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// A connection to the daemon, which is started where there is none, from here on one of HTTP.
fn introduced() -> Result<BlockingStream, UpstreamError> {
    let path = socket::path(&WrapperSettings::from_environment())?;
    let mut stream = connect_or_start(&path, true)?;
    stream.set_read_timeout(Some(GREETING_DEADLINE))?;
    stream.set_write_timeout(Some(GREETING_DEADLINE))?;
    stream.write_all(&to_frame(&LocalRequest { version: LOCAL_VERSION, call: LocalCall::Entries })?)?;
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; body_length::<LocalReply>(header)?];
    stream.read_exact(&mut body)?;
    match from_body(&body)? {
        LocalReply::Entries => Ok(stream),
        LocalReply::WrongVersion { .. } => Err(UpstreamError::Version),
        _ => Err(UpstreamError::Nonsense),
    }
}

async fn body(answer: Response<Incoming>, at_most: usize) -> Result<Vec<u8>, UpstreamError> {
    let collecting = timeout(ANSWER_DEADLINE, Limited::new(answer.into_body(), at_most).collect());
    let collected = collecting.await.map_err(|_| UpstreamError::Silent)?;
    Ok(collected.map_err(|error| UpstreamError::Io(io::Error::other(error)))?.to_bytes().into())
}

/// What the daemon says of a failure, in one line.
async fn refusal(answer: Response<Incoming>) -> UpstreamError {
    let status = answer.status();
    let text = body(answer, MAX_TEXT_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
    UpstreamError::Refused(if text.is_empty() { status.to_string() } else { text })
}
