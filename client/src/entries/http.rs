//! Entries over HTTP: on loopback, and over the daemon's own socket for ccache's storage helper.
//!
//! Life cycle: [`Endpoint::open`] binds the address that the user has set, if it can, and starts a task that accepts until the daemon leaves; an address
//! that is taken is tried again. Connections, values in memory, a request's time and a body's silence are bounded; values are whole in memory.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_p2p::tasks::Tasks;
use buildbee_proto::entry::EntryName;
use buildbee_proto::limits::MAX_ENTRY_BYTES;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LAST_MODIFIED, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::request::{METHODS, Refusal, Wanted, Way, wanted};
use super::shelf::{Meta, Put, Shelf, ShelfError};
use super::{caller, dav};

/// Connections at a time; further ones wait in the kernel.
const MAX_CONNECTIONS: usize = 128;
/// How long a request's head may take, and a connection stay without a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// Largest head of a request in bytes, and lines in it.
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// How long a body may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a request may take from its head to the last byte of its answer.
const REQUEST_DEADLINE: Duration = Duration::from_secs(120);
/// How long to wait before an address that is taken is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be taken in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Memory for a body that has not come yet, in bytes.
const FIRST_ROOM: u64 = 1 << 20;
/// What the greeting says.
const GREETING: &str =
    "buildbee's cache for ccache and sccache. Names are paths; GET, HEAD, PUT and DELETE do what they say.\n";

type Answer = Response<Full<Bytes>>;

/// Whether the address answers.
#[derive(Clone, Debug)]
enum Listening {
    /// None is set.
    Off,
    At(SocketAddr),
    /// Not now, for this reason.
    Waits(SocketAddr, String),
}

/// Serves one shelf. Cheap to clone; clones share the bounds.
#[derive(Clone, Debug)]
pub struct Endpoint {
    shelf: Shelf,
    connections: Arc<Semaphore>,
    listening: Arc<Mutex<Listening>>,
    leaving: CancellationToken,
}

impl Endpoint {
    /// Of `shelf`. Serves connections that it is handed, but none of its own yet.
    pub fn new(shelf: Shelf) -> Self {
        Self {
            shelf,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            listening: Arc::new(Mutex::new(Listening::Off)),
            leaving: CancellationToken::new(),
        }
    }

    /// Connections end once what is asked on them is answered.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    // One value is put in place of another: nothing can be left half done under the lock.
    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For `status`.
    pub fn status(&self) -> serde_json::Value {
        let (address, waits) = match &*self.listening() {
            Listening::Off => (None, None),
            Listening::At(address) => (Some(address.to_string()), None),
            Listening::Waits(address, why) => (Some(address.to_string()), Some(why.clone())),
        };
        let mut document = self.shelf.status();
        if let Some(document) = document.as_object_mut() {
            document.insert("http".to_owned(), json!(address));
            document.insert("waits".to_owned(), json!(waits));
        }
        document
    }

    /// What the user should hear of.
    pub fn trouble(&self) -> Option<String> {
        match &*self.listening() {
            Listening::Waits(address, why) => {
                Some(format!("http_cache: cannot listen at {address}: {why} (tried again every {BIND_PAUSE:?})"))
            }
            Listening::Off | Listening::At(_) => None,
        }
    }

    /// Answers at `address` from now on, or as soon as it is free, until `tasks` are stopped.
    pub async fn open(&self, address: SocketAddr, tasks: &Tasks) {
        let listener = self.bind(address).await;
        tasks.spawn("entries over HTTP", self.clone().serve(address, listener, tasks.clone()));
    }

    async fn bind(&self, address: SocketAddr) -> Option<TcpListener> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok::<_, io::Error>((listener, address))
        };
        match bound.await {
            Ok((listener, address)) => {
                tracing::info!(%address, "cache for ccache and sccache");
                *self.listening() = Listening::At(address);
                Some(listener)
            }
            Err(error) => {
                tracing::warn!(%address, %error, "no cache for ccache and sccache yet");
                *self.listening() = Listening::Waits(address, error.to_string());
                None
            }
        }
    }

    async fn serve(self, address: SocketAddr, mut bound: Option<TcpListener>, tasks: Tasks) {
        let stop = tasks.token();
        let accepting = async {
            let listener = loop {
                match bound.take() {
                    Some(listener) => break listener,
                    None => sleep(BIND_PAUSE).await,
                }
                bound = self.bind(address).await;
            };
            loop {
                let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, from)) => {
                        let endpoint = self.clone();
                        tasks.spawn("entries", async move {
                            endpoint.on_loopback(stream, from).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no connection can be taken in");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(accepting).await;
    }

    async fn on_loopback(&self, stream: TcpStream, from: SocketAddr) {
        let Ok(at) = stream.local_addr() else { return };
        let owner = tokio::task::spawn_blocking(move || caller::owner(from, at)).await;
        let uid = owner.unwrap_or_else(|error| Err(io::Error::other(error)));
        let is_ours = matches!(uid, Ok(Some(uid)) if uid == 0 || uid == nix::unistd::geteuid().as_raw());
        if !is_ours {
            tracing::warn!(?uid, "refused another user's request for entries");
        }
        self.converse(stream, is_ours.then_some(Way::Loopback)).await;
    }

    /// Serves one connection over the daemon's own socket, whose other end is this user.
    pub async fn on_socket(&self, stream: UnixStream) {
        let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
        self.converse(stream, Some(Way::Socket)).await;
        drop(permit);
    }

    /// `way` is `None` for strangers.
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, way: Option<Way>) {
        let (began, last_began) = watch::channel(Instant::now());
        let began = &began;
        let service = service_fn(move |request: Request<Incoming>| async move {
            began.send_replace(Instant::now());
            Ok::<Answer, Infallible>(self.answer(way, request).await)
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
        server.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        let mut too_long = std::pin::pin!(takes_too_long(last_began));
        let mut is_leaving = false;
        let served = loop {
            tokio::select! {
                served = &mut connection => break served,
                () = &mut too_long => {
                    tracing::debug!("a request for an entry took too long");
                    return;
                }
                () = self.leaving.cancelled(), if !is_leaving => {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a request for an entry came to nothing");
        }
    }

    async fn answer(&self, way: Option<Way>, request: Request<Incoming>) -> Answer {
        let Some(way) = way else {
            return failure(StatusCode::FORBIDDEN, "this is another user's cache");
        };
        let (head, body) = request.into_parts();
        match wanted(way, &head) {
            Err(refusal) => refused(&refusal),
            Ok(Wanted::Greeting) => text(StatusCode::OK, "text/plain", GREETING.to_owned()),
            Ok(Wanted::Get(name)) => self.get(&name).await,
            Ok(Wanted::Head(name)) => {
                self.shelf.meta(&name).await.map_or_else(missing, |meta| of_value(meta, Bytes::new()))
            }
            Ok(Wanted::Put { name, only_if_missing, length }) => self.put(&name, only_if_missing, length, body).await,
            Ok(Wanted::Delete(name)) => match self.shelf.remove(&name).await {
                Ok(true) => nothing(StatusCode::NO_CONTENT),
                Ok(false) => missing(),
                Err(error) => failed(&error),
            },
            Ok(Wanted::Properties(name)) => {
                let meta = self.shelf.meta(&name).await;
                meta.map_or_else(missing, |meta| properties(head.uri.path(), Some(meta)))
            }
            Ok(Wanted::FolderProperties) => properties(head.uri.path(), None),
            Ok(Wanted::MakeFolder) => nothing(StatusCode::CREATED),
        }
    }

    async fn get(&self, name: &EntryName) -> Answer {
        match self.shelf.get(name).await {
            Ok(Some((meta, value))) => of_value(meta, Bytes::from_owner(value)),
            Ok(None) => missing(),
            Err(error) => failed(&error),
        }
    }

    async fn put(&self, name: &EntryName, only_if_missing: bool, length: Option<u64>, body: Incoming) -> Answer {
        if only_if_missing && self.shelf.meta(name).await.is_some() {
            return failure(StatusCode::PRECONDITION_FAILED, "there is a value already");
        }
        let _turn = match self.shelf.turn(length.unwrap_or(MAX_ENTRY_BYTES)).await {
            Ok(turn) => turn,
            Err(error) => return failed(&error),
        };
        let content = match receive(body, length).await {
            Ok(content) => content,
            Err((status, why)) => return failure(status, why),
        };
        match self.shelf.put(name, content).await {
            Ok(Put::Created) => nothing(StatusCode::CREATED),
            Ok(Put::Replaced | Put::Unchanged) => nothing(StatusCode::NO_CONTENT),
            Err(error) => failed(&error),
        }
    }
}

/// Returns when the last request has begun too long ago.
async fn takes_too_long(began: watch::Receiver<Instant>) {
    loop {
        let due = *began.borrow() + REQUEST_DEADLINE;
        if due <= Instant::now() {
            return;
        }
        sleep_until(due).await;
    }
}

async fn receive(mut body: Incoming, length: Option<u64>) -> Result<Vec<u8>, (StatusCode, &'static str)> {
    let mut content = Vec::with_capacity(usize::try_from(length.unwrap_or(0).min(FIRST_ROOM)).unwrap_or(0));
    loop {
        match timeout(SILENCE, body.frame()).await {
            Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the value did not come")),
            Ok(Some(Err(_))) => return Err((StatusCode::BAD_REQUEST, "the value did not come whole")),
            Ok(None) => return Ok(content),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                if (content.len() + data.len()) as u64 > MAX_ENTRY_BYTES {
                    return Err((StatusCode::PAYLOAD_TOO_LARGE, "the value is too large"));
                }
                content.extend_from_slice(&data);
            }
        }
    }
}

fn text(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn nothing(status: StatusCode) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = status;
    answer
}

fn failure(status: StatusCode, why: &str) -> Answer {
    text(status, "text/plain", format!("buildbee: {why}\n"))
}

fn missing() -> Answer {
    failure(StatusCode::NOT_FOUND, "nothing is kept under this name")
}

fn refused(refusal: &Refusal) -> Answer {
    let mut answer = failure(refusal.status(), &refusal.to_string());
    if *refusal == Refusal::Method {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
    }
    answer
}

fn failed(error: &ShelfError) -> Answer {
    tracing::debug!(%error, "an entry is not served");
    let status = match error {
        ShelfError::Busy | ShelfError::Task(_) | ShelfError::NoStore => StatusCode::SERVICE_UNAVAILABLE,
        ShelfError::Put(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    let mut answer = failure(status, &error.to_string());
    if matches!(error, ShelfError::Busy) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

fn of_value(meta: Meta, content: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(content));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(meta.n_bytes));
    if let Ok(date) = HeaderValue::from_str(&dav::date(meta.put_at_ms)) {
        headers.insert(LAST_MODIFIED, date);
    }
    answer
}

fn properties(path: &str, meta: Option<Meta>) -> Answer {
    text(StatusCode::MULTI_STATUS, dav::CONTENT_TYPE, dav::properties(path, meta))
}
