//! Keeps the door on the user's socket open, gives every errand that it hands over a bounded task, and knows when the daemon should
//! leave.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream as BlockingStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use buildbee_proto::codec::to_frame;
use buildbee_proto::local::{LocalCall, LocalReply};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::admin;
use super::compile::{Opening, Session};
use super::context::Context;
use super::door::{Door, Errand, OTHER_VIEW};
use super::link::{self, LinkError, WrapperLink, run_alone};
use crate::journal::stages::StageClock;

/// Threads at the door. A hit keeps one busy for less than a millisecond, and longer only where it waits for the disk.
const N_DOORS: usize = 8;
/// Connections served at once. More wait in the kernel's queue; a wrapper that waits too long runs its compiler itself.
const MAX_SESSIONS: usize = 1024;
/// The first request arrives within this time.
const FIRST_REQUEST: Duration = Duration::from_secs(5);
/// How often the daemon looks whether it is still wanted.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// Sessions under way when the daemon is told to leave get this long.
const GRACE: Duration = Duration::from_secs(30);

/// Serves until the daemon should leave. Fails if no thread can be started.
pub async fn listen(context: &Arc<Context>, listener: UnixListener) -> io::Result<()> {
    let sessions = Arc::new(Semaphore::new(MAX_SESSIONS));
    let listener = Arc::new(listener);
    let doors: Vec<JoinHandle<()>> =
        (0..N_DOORS).map(|_| open_door(context, &listener, &sessions)).collect::<io::Result<_>>()?;
    until_unwanted(context).await;
    tracing::info!("leaving");
    context.entries.leave();
    // No new callers from here on; those under way finish.
    let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
    let all = u32::try_from(MAX_SESSIONS).unwrap_or(u32::MAX);
    let closing = tokio::task::spawn_blocking(|| doors.into_iter().for_each(|door| drop(door.join())));
    let _ = tokio::time::timeout(GRACE, async {
        let _ = closing.await;
        sessions.acquire_many(all).await.map(drop)
    })
    .await;
    Ok(())
}

/// Returns when the daemon was told to leave, nobody has called for long enough, or its socket was taken away.
async fn until_unwanted(context: &Context) {
    let inode = || fs::metadata(&context.settings.socket).map(|meta| (meta.dev(), meta.ino())).ok();
    let own = inode();
    let mut last_call = (Instant::now(), 0);
    let mut look = tokio::time::interval(LOOK_AROUND);
    let mut terminate = signal(SignalKind::terminate()).ok();
    let terminated = async {
        match &mut terminate {
            Some(terminate) => drop(terminate.recv().await),
            None => std::future::pending().await,
        }
    };
    let mut terminated = std::pin::pin!(terminated);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let n_calls = context.n_calls.load(Ordering::Relaxed);
                if n_calls != last_call.1 || context.n_sessions.load(Ordering::Relaxed) > 0 {
                    last_call = (Instant::now(), n_calls);
                }
                // Nobody who comes over HTTP could start it again.
                let is_idle = context.settings.http_cache.is_none() && last_call.0.elapsed() > context.settings.idle_timeout;
                if is_idle || inode() != own {
                    return;
                }
            }
            () = context.stop.cancelled() => return,
            () = &mut terminated => return,
        }
    }
}

fn open_door(
    context: &Arc<Context>,
    listener: &Arc<UnixListener>,
    sessions: &Arc<Semaphore>,
) -> io::Result<JoinHandle<()>> {
    let (runtime, context) = (Handle::current(), Arc::clone(context));
    let (listener, sessions) = (Arc::clone(listener), Arc::clone(sessions));
    std::thread::Builder::new().name("door".to_owned()).spawn(move || {
        let door = Door::new(Arc::clone(&context));
        door.attend(&listener, |stream, errand| {
            // Closed never; a runtime that is being shut down takes no more.
            let Ok(permit) = runtime.block_on(Arc::clone(&sessions).acquire_owned()) else { return };
            runtime.spawn(session_task(Arc::clone(&context), stream, errand, permit));
        });
    })
}

async fn session_task(context: Arc<Context>, stream: BlockingStream, errand: Errand, permit: OwnedSemaphorePermit) {
    context.n_sessions.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = session(&context, stream, errand).await {
        tracing::debug!(%error, "a session ended early");
    }
    context.n_sessions.fetch_sub(1, Ordering::Relaxed);
    drop(permit);
}

async fn session(context: &Arc<Context>, stream: BlockingStream, errand: Errand) -> Result<(), LinkError> {
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    match errand {
        Errand::Compile(opening, clock) => {
            let link = WrapperLink::answering(stream);
            Box::pin(Session::new(Arc::clone(context), link, clock).run(*opening)).await
        }
        Errand::Hear(received) => hear(context, stream, received).await,
    }
}

async fn hear(context: &Arc<Context>, stream: UnixStream, received: Vec<u8>) -> Result<(), LinkError> {
    let caller = stream.peer_cred()?.pid();
    let heard = tokio::time::timeout(FIRST_REQUEST, link::first_call(stream, received));
    let (mut stream, call) = heard.await.map_err(|_| LinkError::Gone)??;
    if call == LocalCall::Entries {
        stream.write_all(&to_frame(&LocalReply::Entries)?).await?;
        context.entries.on_socket(stream).await;
        return Ok(());
    }
    let link = WrapperLink::answering(stream);
    match call {
        LocalCall::Compile(_) if !caller.is_some_and(|pid| context.sees_what(pid)) => {
            context.journal.noted(OTHER_VIEW);
            link.send(&run_alone(OTHER_VIEW)).await
        }
        LocalCall::Compile(invocation) => {
            let session = Session::new(Arc::clone(context), link, StageClock::since(Instant::now()));
            Box::pin(session.run(Opening::Invocation(invocation))).await
        }
        LocalCall::Admin(call) => admin::answer(context, &link, call).await,
        LocalCall::LocalDone(_) | LocalCall::Entries => Err(LinkError::Protocol),
    }
}
