//! Accepts connections on the user's socket, one bounded task each, and knows when the daemon should leave.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use buildbee_proto::local::{LocalCall, LocalReply};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::admin;
use super::compile::Session;
use super::context::Context;
use super::link::{LinkError, WrapperLink};

/// Connections served at once. More wait in the kernel's queue; a wrapper that waits too long runs its compiler itself.
const MAX_SESSIONS: usize = 1024;
/// The first request arrives within this time.
const FIRST_REQUEST: Duration = Duration::from_secs(5);
/// How often the daemon looks whether it is still wanted.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// Sessions under way when the daemon is told to leave get this long.
const GRACE: Duration = Duration::from_secs(30);

/// Serves until the daemon should leave.
pub async fn listen(context: &Arc<Context>, listener: UnixListener) {
    let sessions = Arc::new(Semaphore::new(MAX_SESSIONS));
    let own = fs::metadata(&context.settings.socket).map(|meta| (meta.dev(), meta.ino())).ok();
    let mut last_call = Instant::now();
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
            accepted = listener.accept() => {
                last_call = Instant::now();
                let Ok(permit) = Arc::clone(&sessions).acquire_owned().await else { return };
                match accepted {
                    Ok((stream, _)) => {
                        let context = Arc::clone(context);
                        tokio::spawn(async move {
                            session_task(context, stream).await;
                            drop(permit);
                        });
                    }
                    // Out of descriptors: let sessions end before the next one.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            _ = look.tick() => {
                if context.n_sessions.load(Ordering::Relaxed) > 0 {
                    last_call = Instant::now();
                }
                let now = fs::metadata(&context.settings.socket).map(|meta| (meta.dev(), meta.ino())).ok();
                if last_call.elapsed() > context.settings.idle_timeout || now != own {
                    break;
                }
            }
            () = context.stop.cancelled() => break,
            () = &mut terminated => break,
        }
    }
    tracing::info!("leaving");
    // No new callers from here on; those under way finish.
    drop(listener);
    let all = u32::try_from(MAX_SESSIONS).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(GRACE, sessions.acquire_many(all)).await;
}

async fn session_task(context: Arc<Context>, stream: UnixStream) {
    context.n_sessions.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = session(&context, stream).await {
        tracing::debug!(%error, "a session ended early");
    }
    context.n_sessions.fetch_sub(1, Ordering::Relaxed);
}

async fn session(context: &Arc<Context>, stream: UnixStream) -> Result<(), LinkError> {
    let peer = stream.peer_cred()?;
    if peer.uid() != nix::unistd::getuid().as_raw() {
        tracing::warn!(uid = peer.uid(), "refused a caller of another user");
        return Err(LinkError::Protocol);
    }
    let elsewhere = !peer.pid().is_some_and(sees_the_same_files);
    let accepted = tokio::time::timeout(FIRST_REQUEST, WrapperLink::accept(stream));
    let (link, call) = accepted.await.map_err(|_| LinkError::Gone)??;
    match call {
        // It did not wait: this daemon was frozen or swapped out.
        LocalCall::Compile(_) if peer.pid().is_some_and(has_ended) => Err(LinkError::Gone),
        LocalCall::Compile(_) if elsewhere => {
            context.journal.noted("other-namespace");
            let reply = LocalReply::RunLocally {
                reason: "other-namespace".to_owned(),
                report: false,
                extra_arguments: Vec::new(),
                strict_failure: false,
            };
            link.send(&reply).await
        }
        LocalCall::Compile(invocation) => Box::pin(Session::new(Arc::clone(context), link).run(invocation)).await,
        LocalCall::Admin(call) => admin::answer(context, &link, call).await,
        LocalCall::LocalDone(_) => Err(LinkError::Protocol),
    }
}

/// Whether a process of this namespace is no more; the number of one in another namespace is 0.
fn has_ended(pid: i32) -> bool {
    pid > 0 && fs::symlink_metadata(format!("/proc/{pid}")).is_err()
}

/// A wrapper in a container or a chroot may reach the socket, but what it calls `/usr` is another folder.
fn sees_the_same_files(pid: i32) -> bool {
    let same = |name: &str| {
        let of = |who: &str| fs::metadata(format!("/proc/{who}/{name}")).map(|meta| (meta.dev(), meta.ino()));
        matches!((of("self"), of(&pid.to_string())), (Ok(ours), Ok(theirs)) if ours == theirs)
    };
    same("root") && same("ns/mnt")
}
