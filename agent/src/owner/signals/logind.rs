//! What desktop sessions tell logind: whether somebody uses one of them. A program that plays something in full screen says so there, too.
//!
//! Life cycle: one task keeps one connection to the system's bus and listens; where there is no bus or no logind it tries again, rarely,
//! and meanwhile says nothing. The watch looks at what it heard last. Not every session tells when it is idle: one that never does is in
//! use for as long as it lasts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{interval, sleep};
use zbus::fdo::PropertiesProxy;
use zbus::{Connection, Proxy, connection};

use super::{Seen, Signal};

const BUS: &str = "run/dbus/system_bus_socket";
const NAME: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const INTERFACE: &str = "org.freedesktop.login1.Manager";
/// True if nobody uses any session, and nothing inhibits idleness.
const IDLE: &str = "IdleHint";
/// How often it is asked for, in case a change was not told.
const PERIOD: Duration = Duration::from_secs(10);
/// From one try to reach logind to the next.
const RETRY: Duration = Duration::from_secs(60);

/// What was heard last.
#[derive(Clone, Debug, Default)]
pub struct Logind {
    is_used: Arc<AtomicBool>,
}

impl Signal for Logind {
    fn period(&self) -> Duration {
        Duration::ZERO
    }

    fn look(&mut self, _now: Duration, seen: &mut Seen) {
        seen.in_session = self.is_used.load(Ordering::Relaxed);
    }
}

/// Listens at the bus below `root`, for ever.
pub async fn logind_task(logind: Logind, root: PathBuf) {
    loop {
        let listened = async { listen(&connect(&root).await?, &logind.is_used).await };
        if let Err(error) = listened.await {
            tracing::debug!(%error, "logind can't be asked");
        }
        logind.is_used.store(false, Ordering::Relaxed);
        sleep(RETRY).await;
    }
}

async fn connect(root: &Path) -> zbus::Result<Connection> {
    let address = format!("unix:path={}", root.join(BUS).display());
    connection::Builder::address(address.as_str())?.build().await
}

async fn listen(connection: &Connection, is_used: &AtomicBool) -> zbus::Result<()> {
    let manager = Proxy::new(connection, NAME, PATH, INTERFACE).await?;
    let properties = PropertiesProxy::builder(connection).destination(NAME)?.path(PATH)?.build().await?;
    let mut changes = manager.receive_property_changed::<bool>(IDLE).await;
    let mut ticks = interval(PERIOD);
    loop {
        let is_idle = tokio::select! {
            changed = changes.next() => match changed {
                Some(changed) => changed.get().await?,
                None => return Ok(()),
            },
            // Fails where nobody answers any more, which a change that does not come would not tell.
            _ = ticks.tick() => bool::try_from(properties.get(INTERFACE.try_into()?, IDLE).await?)?,
        };
        is_used.store(!is_idle, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Manager {
        idle: bool,
    }

    #[zbus::interface(name = "org.freedesktop.login1.Manager")]
    impl Manager {
        #[zbus(property)]
        fn idle_hint(&self) -> bool {
            self.idle
        }
    }

    async fn eventually(logind: &mut Logind, used: bool) {
        let told = async {
            loop {
                let mut seen = Seen::default();
                logind.look(Duration::ZERO, &mut seen);
                if seen.in_session == used {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), told).await.expect("nothing is heard");
    }

    #[tokio::test]
    async fn a_session_in_use_is_heard_of_at_once() {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let server = connection::Builder::unix_stream(theirs).server(zbus::Guid::generate()).unwrap().p2p();
        let server = server.serve_at(PATH, Manager { idle: true }).unwrap();
        let (server, client) = tokio::join!(server.build(), connection::Builder::unix_stream(ours).p2p().build());
        let (server, client) = (server.unwrap(), client.unwrap());
        let mut logind = Logind::default();
        let is_used = Arc::clone(&logind.is_used);
        let listening = tokio::spawn(async move { listen(&client, &is_used).await });
        let manager = server.object_server().interface::<_, Manager>(PATH).await.unwrap();
        for used in [false, true, false] {
            manager.get_mut().await.idle = !used;
            manager.get().await.idle_hint_changed(manager.signal_emitter()).await.unwrap();
            eventually(&mut logind, used).await;
        }
        listening.abort();
    }

    #[tokio::test]
    async fn without_a_bus_nothing_is_said() {
        let root = tempfile::tempdir().unwrap();
        assert!(connect(root.path()).await.is_err());
    }
}
