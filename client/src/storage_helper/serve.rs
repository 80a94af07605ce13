//! Listens for ccache and answers it, until nobody has asked for a while or somebody says stop.

use std::fmt::Write as _;
use std::io;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use buildbee_proto::limits::MAX_ENTRY_BYTES;
use nix::sys::stat::{Mode, umask};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::protocol::{self, Answer, Request};
use super::settings::{HelperSettings, SettingsError};
use super::upstream::{Upstream, UpstreamError};
use crate::wrapper::output;

/// ccaches at a time; further ones wait in the kernel.
const MAX_CONNECTIONS: usize = 512;
/// Values in memory at a time, each of `MAX_ENTRY_BYTES` at most; ccache's are a few hundred KiB.
const MAX_VALUES: usize = 16;
/// Bytes of a key in one word of a name: ccache's have 20 in all.
const MAX_WORD_KEY_BYTES: usize = 100;
/// How often it looks whether it is still wanted.
const LOOK_AROUND: Duration = Duration::from_millis(500);
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What it is, for ccache's log.
const NAME: &str = concat!("ccache-storage-buildbee ", env!("CARGO_PKG_VERSION"));

/// Why it ends.
#[derive(Debug, Error)]
enum HelperError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(
        "cannot listen at {path}: {error}\nhint: another helper may be there, or the folder is not there or not yours"
    )]
    Listen { path: String, error: io::Error },
    #[error("cannot start: {0}\nhint: the system may be out of processes, memory or file descriptors")]
    Runtime(io::Error),
}

/// The program.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), HelperError> {
    let settings = HelperSettings::from_environment()?;
    umask(Mode::from_bits_truncate(0o077));
    let at = |error| HelperError::Listen { path: settings.endpoint.display().to_string(), error };
    let listener = listen(&settings.endpoint).map_err(at)?;
    // It must not keep a folder from being unmounted. From here on the socket's own path may be another one's.
    let _ = nix::unistd::chdir("/");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HelperError::Runtime)?;
    let endpoint = settings.endpoint.clone();
    let served = runtime.block_on(async {
        let listener = UnixListener::from_std(listener)?;
        Helper::new(settings).serve(listener).await;
        Ok(())
    });
    if endpoint.is_absolute() {
        let _ = std::fs::remove_file(&endpoint);
    }
    // Nothing that is under way is waited for.
    runtime.shutdown_background();
    served.map_err(HelperError::Runtime)
}

/// Binds the socket, in place of one that nobody listens at any more.
fn listen(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net::UnixListener;
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match BlockingStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
                _ => return Err(error),
            }
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Shared by all connections.
#[derive(Debug)]
struct Helper {
    settings: HelperSettings,
    values: Arc<Semaphore>,
    /// Requests under way, and when the last one came or ended.
    activity: Mutex<(usize, Instant)>,
    stop: CancellationToken,
}

impl Helper {
    fn new(settings: HelperSettings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            values: Arc::new(Semaphore::new(MAX_VALUES)),
            activity: Mutex::new((0, Instant::now())),
            stop: CancellationToken::new(),
        })
    }

    async fn serve(self: Arc<Self>, listener: UnixListener) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accepting = async {
            loop {
                let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(converse_task(Arc::clone(&self), stream, permit))),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = self.unwanted() => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn unwanted(&self) {
        let Some(idle_time) = self.settings.idle_time else { return std::future::pending().await };
        loop {
            let (n_under_way, last) = *self.activity.lock().unwrap_or_else(PoisonError::into_inner);
            if n_under_way == 0 && last.elapsed() >= idle_time {
                return;
            }
            sleep(LOOK_AROUND.min(idle_time)).await;
        }
    }

    fn begins(&self) -> UnderWay<'_> {
        let mut activity = self.activity.lock().unwrap_or_else(PoisonError::into_inner);
        *activity = (activity.0 + 1, Instant::now());
        UnderWay(self)
    }

    async fn converse(&self, mut stream: UnixStream) -> io::Result<()> {
        drop(self.begins());
        protocol::greet(&mut stream).await?;
        let mut upstream = Upstream::default();
        loop {
            // A value may follow: nothing is read before there is room.
            stream.readable().await?;
            let turn = Arc::clone(&self.values).acquire_owned().await.map_err(io::Error::other)?;
            let Some(request) = protocol::receive(&mut stream).await? else { return Ok(()) };
            let under_way = self.begins();
            match request {
                Request::Info => protocol::inform(&mut stream, NAME, &self.settings.diagnostics).await?,
                Request::Stop => {
                    protocol::answer(&mut stream, &Answer::Done).await?;
                    self.stop.cancel();
                    return Ok(());
                }
                request => {
                    let answer = self.answer(&mut upstream, request).await;
                    protocol::answer(&mut stream, &answer).await?;
                }
            }
            drop((under_way, turn));
        }
    }

    async fn answer(&self, upstream: &mut Upstream, request: Request) -> Answer {
        let done = |done: bool| if done { Answer::Done } else { Answer::Noop };
        let answered = match request {
            Request::Get(key) => {
                upstream.get(&self.name(&key)).await.map(|value| value.map_or(Answer::Noop, Answer::Value))
            }
            Request::Put { key, overwrite, value } => upstream.put(&self.name(&key), value, overwrite).await.map(done),
            Request::Remove(key) => upstream.remove(&self.name(&key)).await.map(done),
            Request::Odd(why) => return Answer::Error(why.to_owned()),
            Request::Info | Request::Stop => return Answer::Done,
        };
        answered.unwrap_or_else(|error: UpstreamError| Answer::Error(error.to_string()))
    }

    /// In two levels, as ccache has it with other storage, behind the project.
    fn name(&self, key: &[u8]) -> String {
        let mut name = self.settings.prefix.clone();
        for (at, byte) in key.iter().enumerate() {
            let is_new_word = at < 2 || at % MAX_WORD_KEY_BYTES == 0;
            if is_new_word && !name.is_empty() {
                name.push('/');
            }
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

/// A request under way.
struct UnderWay<'a>(&'a Helper);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut activity = self.0.activity.lock().unwrap_or_else(PoisonError::into_inner);
        *activity = (activity.0.saturating_sub(1), Instant::now());
    }
}

async fn converse_task(helper: Arc<Helper>, stream: UnixStream, permit: OwnedSemaphorePermit) {
    // It has no log: ccache's own says what failed.
    let _ = helper.converse(stream).await;
    drop(permit);
}

const _: () = assert!(MAX_ENTRY_BYTES * MAX_VALUES as u64 <= 2 << 30);

#[cfg(test)]
mod tests {
    use buildbee_proto::entry::EntryName;

    use super::*;

    #[test]
    fn keys_become_names() {
        let helper = |prefix: &str| {
            Helper::new(HelperSettings {
                endpoint: "/x".into(),
                prefix: prefix.to_owned(),
                idle_time: None,
                diagnostics: Vec::new(),
            })
        };
        assert_eq!(helper("project/a").name(&[0xab, 0xcd, 0xef]), "project/a/ab/cdef");
        assert_eq!(helper("").name(&[0xab, 0xcd, 0xef]), "ab/cdef");
        let longest = helper(&"a".repeat(255)).name(&[0xab; 255]);
        assert!(EntryName::new(&longest).is_ok());
    }
}
