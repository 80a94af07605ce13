//! All sources in their order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use buildbee_p2p::tasks::Tasks;
use buildbee_proto::digest::Digest;
use buildbee_store::Store;
use futures::future::BoxFuture;
use hyper::Uri;
use tokio::time::{Instant, timeout};

use super::description::TrustedKey;
use super::http::Web;
use super::lacking::{Lacking, lacking};
use super::tls::Tls;
use super::{caches, folder, hook};
use crate::workspace::tree::{Directories, Elsewhere};

/// How long this machine's own store may take; what is not copied by then comes from elsewhere.
const FOLDER_DEADLINE: Duration = Duration::from_secs(60);
/// How long all caches together may take.
const CACHES_DEADLINE: Duration = Duration::from_secs(300);
/// How long the owner's command may take: it may fetch, or build.
const HOOK_DEADLINE: Duration = Duration::from_secs(600);
/// Caches that may be named.
pub const MAX_CACHES: usize = 16;
/// Keys that may be named.
pub const MAX_KEYS: usize = 64;

/// What the owner says of them.
#[derive(Clone, Debug)]
pub struct NixSettings {
    /// Root folder of the system whose store is looked into.
    pub root: PathBuf,
    /// Binary caches, in order.
    pub caches: Vec<Uri>,
    /// Whose signatures are good.
    pub keys: Vec<TrustedKey>,
    /// The command; empty: none.
    pub hook: Vec<String>,
}

/// Where files of store paths may be had besides from peers.
#[derive(Clone, Debug)]
pub struct NixSources {
    settings: NixSettings,
    store: Store,
    web: Web,
}

impl NixSources {
    /// Into `store`.
    pub fn new(settings: NixSettings, store: Store, tasks: Tasks) -> Self {
        Self { settings, store, web: Web::new(tasks, Tls::default()) }
    }

    fn own(&self) -> PathBuf {
        self.settings.root.join("nix/store")
    }

    /// What of `paths` is still lacking.
    fn left(&self, paths: Vec<Lacking>) -> Vec<Lacking> {
        let still = |mut path: Lacking| {
            path.files.retain(|_, digest| !self.store.contains(digest));
            Some(path).filter(|path| !path.files.is_empty())
        };
        paths.into_iter().filter_map(still).collect()
    }

    /// Copies out of folders of this machine.
    async fn copy(&self, places: Vec<(PathBuf, Lacking)>) {
        let (store, until) = (self.store.clone(), Instant::now() + FOLDER_DEADLINE);
        let copying = tokio::task::spawn_blocking(move || {
            for (place, path) in places {
                let is_late = || Instant::now() >= until;
                match folder::copy(&store, &place, &path, &is_late) {
                    Ok(n_files) => tracing::debug!(path = path.name, n_files, "copied from this machine"),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => tracing::debug!(path = path.name, %error, "can't be copied from this machine"),
                }
                if is_late() {
                    return;
                }
            }
        });
        if let Err(error) = copying.await {
            tracing::warn!(%error, "copying store paths ended early");
        }
    }

    fn places(own: &Path, paths: Vec<Lacking>) -> Vec<(PathBuf, Lacking)> {
        paths.into_iter().map(|path| (own.join(&path.name), path)).collect()
    }

    async fn copy_own(&self, paths: Vec<Lacking>) {
        let own = self.own();
        if !paths.is_empty() && own.is_dir() {
            self.copy(Self::places(&own, paths)).await;
        }
    }

    async fn ask_caches(&self, paths: &[Lacking]) {
        let mut left = paths.to_vec();
        for cache in &self.settings.caches {
            for path in &left {
                match caches::bring(cache, &self.settings.keys, path, (&self.store, &self.web)).await {
                    Ok(n_files) => tracing::debug!(%cache, path = path.name, n_files, "asked a binary cache"),
                    Err(error) => {
                        tracing::warn!(%cache, path = path.name, %error, "a binary cache is of no use");
                        if error.is_down() {
                            break;
                        }
                    }
                }
            }
            left = self.left(left);
            if left.is_empty() {
                return;
            }
        }
    }

    async fn run_hook(&self, paths: Vec<Lacking>) {
        let places = match timeout(HOOK_DEADLINE, hook::run(&self.settings.hook, &paths)).await {
            Ok(Ok(places)) => places,
            Ok(Err(error)) => return tracing::warn!(%error, "nix_hook failed"),
            Err(_) => return tracing::warn!("nix_hook took longer than {HOOK_DEADLINE:?} and was ended"),
        };
        let said = places.into_iter().zip(&paths).filter_map(|(place, path)| Some((place?, path.clone())));
        self.copy(said.collect()).await;
        self.copy_own(self.left(paths)).await;
    }
}

impl Elsewhere for NixSources {
    fn near<'a>(&'a self, root: Digest, known: &'a Directories, missing: &'a [Digest]) -> BoxFuture<'a, ()> {
        Box::pin(self.copy_own(lacking(known, &root, missing)))
    }

    fn far<'a>(&'a self, root: Digest, known: &'a Directories, missing: &'a [Digest]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let paths = lacking(known, &root, missing);
            if timeout(CACHES_DEADLINE, self.ask_caches(&paths)).await.is_err() {
                tracing::warn!("binary caches took longer than {CACHES_DEADLINE:?}");
            }
            let left = self.left(paths);
            if !left.is_empty() && !self.settings.hook.is_empty() {
                self.run_hook(left).await;
            }
        })
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
