//! The thread that answers over HTTP.
//!
//! Life: [`StatusServer::start`] binds its socket if it can and returns; the thread answers until [`StatusServer::stop`]. An address that
//! is taken is no reason for a farm to stand still: it is tried again. A thread of its own, so that nothing done here, however often, keeps
//! a heartbeat waiting. One request a connection, few connections, short deadlines: who is slow or silent is cut off.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use buildbee_p2p::node::Node;
use buildbee_p2p::tasks::Tasks;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::document::{Document, Facts, document};
use super::host::OwnNames;
use super::respond::{self, Answer, Wanted};
use super::{metrics, respond::refusal};
use crate::scheduler::handle::SchedulerHandle;

/// Connections at a time; further ones wait in the kernel.
const MAX_CONNECTIONS: usize = 32;
/// How long a request's head may take.
const HEAD_DEADLINE: Duration = Duration::from_secs(3);
/// How long a connection may take from beginning to end.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// Largest head of a request in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Lines in a request's head.
const MAX_HEADERS: usize = 64;
/// For how long one copy of the state is shown to everybody.
const FRESH_FOR: Duration = Duration::from_millis(500);
/// How long the scheduler may take.
const COPY_DEADLINE: Duration = Duration::from_secs(2);
/// How long to wait before an address that is taken is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be taken in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long connections may go on at the end.
const GRACE: Duration = Duration::from_millis(100);

/// Where the state comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Slots and who has them.
    pub scheduler: SchedulerHandle,
    /// Who is connected, and the roster.
    pub node: Node,
    /// This machine's name.
    pub name: String,
    /// When this coordinator was started.
    pub started: Instant,
}

impl Source {
    fn facts(&self) -> Facts {
        let peers = self.node.peers().borrow().clone();
        Facts {
            farm: self.node.membership().farm.to_string(),
            name: self.name.clone(),
            uptime: self.started.elapsed(),
            n_members: self.node.roster().map_or(0, |roster| roster.value.members.len()),
            names: peers.0.iter().map(|peer| (peer.peer, peer.name.clone())).collect(),
        }
    }

    async fn document(&self) -> Option<Document> {
        let overview = timeout(COPY_DEADLINE, self.scheduler.overview()).await.ok()?.ok()?;
        Some(document(overview, &self.facts()))
    }
}

/// The thread.
#[derive(Debug)]
pub struct StatusServer {
    thread: JoinHandle<()>,
    token: CancellationToken,
    address: Option<SocketAddr>,
}

impl StatusServer {
    /// Answers at `address` from now on, or as soon as that is free.
    pub fn start(address: SocketAddr, names: OwnNames, source: Source) -> io::Result<Self> {
        let listener = bind(address).inspect_err(|error| {
            tracing::warn!(%address, %error, "no status page yet: `status` in the settings names another address, or \"off\"");
        });
        let listener = listener.ok();
        let bound = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let token = CancellationToken::new();
        let shared = Arc::new(Shared { names, source, shown: Mutex::default() });
        let stop = token.clone();
        let thread = std::thread::Builder::new().name("status".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let tasks = Tasks::new();
                stop.run_until_cancelled(serve(address, listener, shared, &tasks)).await;
                tasks.stop(GRACE).await;
            });
        })?;
        Ok(Self { thread, token, address: bound })
    }

    /// Where it answers, if it could be bound at the start.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Ends it.
    pub async fn stop(self) {
        self.token.cancel();
        // Both errors mean a panic, which was told of already.
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(address: SocketAddr, mut bound: Option<StdListener>, shared: Arc<Shared>, tasks: &Tasks) {
    let listener = loop {
        if let Some(listener) = bound.take().and_then(|listener| TcpListener::from_std(listener).ok()) {
            break listener;
        }
        sleep(BIND_PAUSE).await;
        bound = bind(address).ok();
    };
    tracing::info!("status page at http://{}/", listener.local_addr().unwrap_or(address));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tasks.spawn("status connection", async move {
                    let _permit = permit;
                    if timeout(CONNECTION_DEADLINE, connection(stream, shared)).await.is_err() {
                        tracing::debug!("a reader of the status page took too long");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no connection can be taken in");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<Answer, std::convert::Infallible>(shared.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a request to the status page came to nothing");
    }
}

/// A copy of the state, and when it was made.
#[derive(Debug)]
struct Shown {
    made: Instant,
    document: Document,
    json: Bytes,
}

#[derive(Debug)]
struct Shared {
    names: OwnNames,
    source: Source,
    shown: Mutex<Option<Shown>>,
}

impl Shared {
    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        match respond::wanted(&self.names, request.method(), request.uri().path(), request.headers()) {
            Err(why) => respond::refused(why),
            Ok(Wanted::Page) => nonce().map_or_else(
                || refusal(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random numbers\n"),
                |nonce| respond::page(&nonce),
            ),
            Ok(Wanted::Json) => self.of_state("application/json", |shown| Some(shown.json.clone())).await,
            Ok(Wanted::Metrics) => {
                self.of_state(metrics::CONTENT_TYPE, |shown| Some(metrics::text(&shown.document).ok()?.into())).await
            }
        }
    }

    /// A document made of the state. Who comes while another's copy is made waits for that one.
    async fn of_state(&self, content_type: &'static str, make: impl FnOnce(&Shown) -> Option<Bytes>) -> Answer {
        let mut shown = self.shown.lock().await;
        if shown.as_ref().is_none_or(|shown| shown.made.elapsed() >= FRESH_FOR) {
            *shown = self.copy().await;
        }
        shown.as_ref().and_then(make).map_or_else(
            || refusal(StatusCode::SERVICE_UNAVAILABLE, "the coordinator is stopping, or very busy\n"),
            |body| respond::document(content_type, body),
        )
    }

    async fn copy(&self) -> Option<Shown> {
        let document = self.source.document().await?;
        let json = serde_json::to_vec(&document).ok()?.into();
        Some(Shown { made: Instant::now(), document, json })
    }
}

/// 16 random bytes as hexadecimal digits.
fn nonce() -> Option<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(format!("{:032x}", u128::from_le_bytes(bytes)))
}
