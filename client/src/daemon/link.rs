//! One wrapper's connection: frames in both directions, signs of life while work goes on, and runs of the compiler at the other end.
//!
//! Life: made by the listener for each accepted connection; ends when the answer is sent or the wrapper goes away, which cancels the
//! token that all work for it watches.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use buildbee_proto::codec::{CodecError, FRAME_HEADER_BYTES, Message, body_length, from_body, to_frame};
use buildbee_proto::local::{KEEPALIVE_INTERVAL_MS, LocalCall, LocalOutcome, LocalReply, LocalRequest};
use buildbee_proto::version::LOCAL_VERSION;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Requests that a wrapper may have sent ahead.
const INBOX: usize = 4;
/// A wrapper takes an answer within this time, or is gone.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// The connection is of no use any more.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The wrapper went away.
    #[error("the wrapper went away")]
    Gone,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not speak our language.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It said something else than was due.
    #[error("the wrapper broke the protocol")]
    Protocol,
}

/// The daemon's end.
#[derive(Debug)]
pub struct WrapperLink {
    writer: Arc<Mutex<OwnedWriteHalf>>,
    inbox: Mutex<mpsc::Receiver<LocalRequest>>,
    gone: CancellationToken,
    reason: Arc<OnceLock<Reason>>,
    _keepalive: DropGuard,
}

/// Says what a wrapper waits for now, if that is worth saying.
pub struct Reason(pub Box<dyn Fn() -> Option<String> + Send + Sync>);

impl std::fmt::Debug for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reason")
    }
}

impl WrapperLink {
    /// Over a connection whose first request has been read; starts the signs of life.
    pub fn answering(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self::over(reader, writer)
    }

    fn over(reader: OwnedReadHalf, writer: OwnedWriteHalf) -> Self {
        let writer = Arc::new(Mutex::new(writer));
        let (requests, inbox) = mpsc::channel(INBOX);
        let gone = CancellationToken::new();
        let stop = CancellationToken::new();
        tokio::spawn(read_task(reader, requests, gone.clone(), stop.clone()));
        let reason = Arc::default();
        tokio::spawn(keepalive_task(Arc::clone(&writer), Arc::clone(&reason), gone.clone(), stop.clone()));
        Self { writer, inbox: Mutex::new(inbox), gone, reason, _keepalive: stop.drop_guard() }
    }

    /// From now on the wrapper, whose standard error is a terminal, is told why it waits.
    pub fn tell(&self, reason: Reason) {
        // Told already: that reason is as good.
        let _ = self.reason.set(reason);
    }

    /// Cancelled when the wrapper goes away.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Sends one reply.
    pub async fn send(&self, reply: &LocalReply) -> Result<(), LinkError> {
        send(&self.writer, reply).await
    }

    /// Waits for how the compiler that the wrapper runs ended. Cancel-safe; to stop it early, send [`LocalReply::Cancel`].
    pub async fn outcome(&self) -> Result<LocalOutcome, LinkError> {
        let mut inbox = self.inbox.lock().await;
        match inbox.recv().await {
            Some(LocalRequest { call: LocalCall::LocalDone(outcome), .. }) => Ok(outcome),
            Some(_) => Err(LinkError::Protocol),
            None => Err(LinkError::Gone),
        }
    }
}

/// Reads the first request on `stream`, of which `received` has come already.
pub async fn first_call(mut stream: UnixStream, received: Vec<u8>) -> Result<(UnixStream, LocalCall), LinkError> {
    let mut reader = received.as_slice().chain(&mut stream);
    let first: LocalRequest = read_frame(&mut reader).await?.ok_or(LinkError::Gone)?;
    if first.version != LOCAL_VERSION {
        let (_reader, writer) = stream.into_split();
        send(&Mutex::new(writer), &LocalReply::WrongVersion { version: LOCAL_VERSION }).await?;
        return Err(LinkError::Protocol);
    }
    // Before it is answered nobody has more to say: what came is used up.
    Ok((stream, first.call))
}

/// Has the wrapper become the compiler, without telling how that ended.
pub fn run_alone(reason: &str) -> LocalReply {
    LocalReply::RunLocally {
        reason: reason.to_owned(),
        report: false,
        extra_arguments: Vec::new(),
        extra_env: Vec::new(),
        recorder: None,
        strict_failure: reason.starts_with("strict:"),
        own_temporary_dir: false,
    }
}

async fn send(writer: &Mutex<OwnedWriteHalf>, reply: &LocalReply) -> Result<(), LinkError> {
    let frame = to_frame(reply)?;
    let write = async { writer.lock().await.write_all(&frame).await };
    match tokio::time::timeout(WRITE_DEADLINE, write).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(LinkError::Gone),
    }
}

async fn read_frame<M: Message>(reader: &mut (impl AsyncRead + Unpin)) -> Result<Option<M>, LinkError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    match reader.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut body = vec![0; body_length::<M>(header)?];
    reader.read_exact(&mut body).await?;
    Ok(Some(from_body(&body)?))
}

async fn read_task(
    mut reader: OwnedReadHalf,
    requests: mpsc::Sender<LocalRequest>,
    gone: CancellationToken,
    stop: CancellationToken,
) {
    let read = async {
        while let Ok(Some(request)) = read_frame::<LocalRequest>(&mut reader).await {
            if requests.send(request).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => gone.cancel(),
        () = stop.cancelled() => {}
    }
}

async fn keepalive_task(
    writer: Arc<Mutex<OwnedWriteHalf>>,
    reason: Arc<OnceLock<Reason>>,
    gone: CancellationToken,
    stop: CancellationToken,
) {
    let mut has_told = false;
    let beat = async {
        loop {
            tokio::time::sleep(Duration::from_millis(KEEPALIVE_INTERVAL_MS)).await;
            let reply = match reason.get().and_then(|Reason(reason)| reason()) {
                Some(text) => {
                    has_told = true;
                    LocalReply::Waiting { text }
                }
                None if std::mem::take(&mut has_told) => LocalReply::Waiting { text: String::new() },
                None => LocalReply::Working,
            };
            if send(&writer, &reply).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = beat => gone.cancel(),
        () = stop.cancelled() => {}
    }
}
