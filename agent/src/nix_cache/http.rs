//! The binary cache as Nix sees it: HTTP on loopback.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use buildbee_p2p::node::PeerStream;
use buildbee_p2p::tasks::Tasks;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::ask::{Askers, Found};
use super::narinfo::{self, CACHE_INFO, Wanted};

/// Connections at once; further ones wait. Nix makes 25 by itself.
const MAX_CONNECTIONS: usize = 128;
/// How long a client may take for the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long the holder of an archive may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Read at once.
const BLOCK_BYTES: usize = 256 << 10;
/// Blocks between the peer's stream and Nix.
const BLOCKS_AHEAD: usize = 4;
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = BoxBody<Bytes, io::Error>;

/// Serves `listener` until `stop`.
pub async fn serve_task(listener: TcpListener, askers: Askers, tasks: Tasks, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some(Ok(permit)) = stop.run_until_cancelled(Arc::clone(&permits).acquire_owned()).await {
        let stream = match stop.run_until_cancelled(listener.accept()).await {
            Some(Ok((stream, _))) => stream,
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection of Nix's was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
            None => return,
        };
        let (askers, spawn, stop) = (askers.clone(), tasks.clone(), stop.clone());
        tasks.spawn("binary cache", async move {
            let served = stop.run_until_cancelled(connection(stream, askers, spawn)).await;
            if let Some(Err(error)) = served {
                tracing::debug!(%error, "a connection of Nix's ended early");
            }
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, askers: Askers, tasks: Tasks) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let (askers, tasks) = (askers.clone(), tasks.clone());
        async move { Ok::<_, Infallible>(answer(&request, &askers, &tasks).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    server.serve_connection(TokioIo::new(stream), service).await
}

async fn answer<B>(request: &Request<B>, askers: &Askers, tasks: &Tasks) -> Response<Body> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return failure(StatusCode::METHOD_NOT_ALLOWED);
    }
    match narinfo::wanted(request.uri().path()) {
        None => failure(StatusCode::NOT_FOUND),
        Some(Wanted::CacheInfo) => text("text/x-nix-cache-info", CACHE_INFO.to_owned()),
        Some(Wanted::Description(hash)) => match askers.find(&hash).await {
            Some(found) => text("text/x-nix-narinfo", narinfo::describe(&hash, &found.path)),
            None => failure(StatusCode::NOT_FOUND),
        },
        Some(Wanted::Archive { hash, archive }) => {
            let headers_only = request.method() == Method::HEAD;
            let answer = send(&hash, &archive, headers_only, askers, tasks).await;
            answer.unwrap_or_else(|| failure(StatusCode::NOT_FOUND))
        }
    }
}

async fn send(hash: &str, archive: &str, headers_only: bool, askers: &Askers, tasks: &Tasks) -> Option<Response<Body>> {
    let found = askers.remembered(hash).await.filter(|found| narinfo::archive_hash(&found.path) == archive)?;
    let n_bytes = found.path.archive_bytes;
    let sent = |body| response(n_bytes, "application/x-nix-nar", body);
    if headers_only {
        return Some(sent(empty()));
    }
    let Some(stream) = askers.archive(&found, hash).await else {
        askers.forget(hash);
        return None;
    };
    let (blocks, relayed) = mpsc::channel(BLOCKS_AHEAD);
    tasks.spawn("relay an archive", relay_task(stream, found, blocks));
    Some(sent(body(relayed)))
}

/// Hands blocks on, each once the next is there: the last one only if the whole has its hash. Ends when Nix goes away.
async fn relay_task(mut stream: PeerStream, found: Found, blocks: mpsc::Sender<io::Result<Bytes>>) {
    let (mut left, mut hash, mut held) = (found.path.archive_bytes, Sha256::new(), Bytes::new());
    while left > 0 {
        let mut block = vec![0; usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES)];
        if !matches!(timeout(SILENCE, stream.read_exact(&mut block)).await, Ok(Ok(_))) {
            let _ = blocks.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
            return;
        }
        left -= block.len() as u64;
        hash.update(&block);
        let before = std::mem::replace(&mut held, block.into());
        if !before.is_empty() && blocks.send(Ok(before)).await.is_err() {
            return;
        }
    }
    let last = if hash.finalize()[..] == found.path.archive_hash[..] {
        Ok(held)
    } else {
        tracing::warn!(peer = %found.holder.short(), path = found.path.name, "an agent sent another archive than it said");
        Err(io::ErrorKind::InvalidData.into())
    };
    // Nix may be gone: nobody is left to tell.
    let _ = blocks.send(last).await;
}

fn body(relayed: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    let frames = futures::stream::unfold(relayed, |mut relayed| async move {
        let block = relayed.recv().await?;
        Some((block.map(Frame::data), relayed))
    });
    BodyExt::boxed(StreamBody::new(frames))
}

fn empty() -> Body {
    Full::default().map_err(|never: Infallible| match never {}).boxed()
}

fn response(n_bytes: u64, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(n_bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn text(kind: &'static str, text: String) -> Response<Body> {
    let n_bytes = text.len() as u64;
    response(n_bytes, kind, Full::from(text).map_err(|never: Infallible| match never {}).boxed())
}

fn failure(status: StatusCode) -> Response<Body> {
    let mut response = response(0, "text/plain", empty());
    *response.status_mut() = status;
    response
}
