//! Answers the command line. Documents only; how they look is `ui.rs`'s job on the other side.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use buildbee_proto::digest::Digest;
use buildbee_proto::local::{AdminCall, LocalReply};
use buildbee_store::{Collected, Store, VerifyReport};
use serde_json::{Value, json};

use super::context::{Context, unix_now};
use super::link::{LinkError, WrapperLink};
use super::{toolchains, warm};
use crate::journal::explain::{Explanation, explanations};
use crate::toolchain::rust::Caller;

/// Actions that one answer holds at most.
const MAX_EXPLAINED: usize = 10_000;

/// Answers one call.
pub async fn answer(context: &Arc<Context>, link: &WrapperLink, call: AdminCall) -> Result<(), LinkError> {
    let stop = call == AdminCall::Stop;
    let document = document(context, call).await;
    link.send(&LocalReply::Admin { json: document.to_string() }).await?;
    if stop {
        context.stop.cancel();
    }
    Ok(())
}

async fn document(context: &Arc<Context>, call: AdminCall) -> Value {
    match call {
        AdminCall::Ping | AdminCall::Stop => json!({ "pid": std::process::id() }),
        AdminCall::Status => context.status(),
        AdminCall::Stats { zero } => {
            serde_json::to_value(context.journal.stats(zero, unix_now())).unwrap_or(Value::Null)
        }
        AdminCall::Explain { filter, limit } => {
            let limit = usize::try_from(limit).unwrap_or(MAX_EXPLAINED).min(MAX_EXPLAINED);
            explain(context, filter, limit).await
        }
        AdminCall::Peers => {
            context.farm.as_ref().map_or_else(|| json!({ "peers": [] }), crate::dispatch::farm::Farm::peers)
        }
        AdminCall::Activity { after, limit } => {
            let limit = usize::try_from(limit).unwrap_or(MAX_EXPLAINED).min(MAX_EXPLAINED);
            serde_json::to_value(context.activity(after, limit)).unwrap_or(Value::Null)
        }
        AdminCall::RunStats { run } => serde_json::to_value(context.journal.run_stats(&run)).unwrap_or(Value::Null),
        AdminCall::CacheUsage => context.cache_usage(),
        AdminCall::CacheGc { max_bytes } => cache_work(context, move |store| Ok(collect(store, max_bytes))).await,
        AdminCall::Toolchains => toolchains::list(context).await,
        AdminCall::Toolchain { which } => toolchains::show(context, &which).await,
        AdminCall::ToolchainVerify { which } => toolchains::verify(context, which.as_deref()).await,
        AdminCall::ToolchainGc => toolchains::gc(context).await,
        AdminCall::ToolchainWarm { program, search } => Box::pin(warm::warm(context, &program, &search)).await,
        AdminCall::ToolchainWarmRust { program, search, folder, home, rustup_home, rustup_toolchain, target } => {
            let caller = Caller {
                program: Path::new(&program),
                cwd: Path::new(&folder),
                home: home.as_deref().map(OsStr::new),
                rustup_home: rustup_home.as_deref().map(OsStr::new),
                rustup_toolchain: rustup_toolchain.as_deref().map(OsStr::new),
                target: target.as_deref(),
            };
            Box::pin(warm::warm_rust(context, caller, &search)).await
        }
        AdminCall::CacheVerify => {
            cache_work(context, |store| serde_json::to_value(Verified::from(store.verify()))).await
        }
        AdminCall::CacheClear => {
            cache_work(context, |store| {
                let cleared = store.clear();
                Ok(json!({ "cleared": cleared.n_entries, "in_use": cleared.n_pinned }))
            })
            .await
        }
    }
}

/// Reads manifests, so off the event loop.
async fn explain(context: &Arc<Context>, filter: Option<String>, limit: usize) -> Value {
    let context = Arc::clone(context);
    let explaining = tokio::task::spawn_blocking(move || {
        let manifest = |key: &Digest| context.cache.store()?.manifest(key).ok()?;
        let actions = explanations(&context.journal, filter.as_deref(), limit, manifest);
        json!({ "actions": actions.iter().map(Explanation::document).collect::<Vec<_>>() })
    });
    explaining.await.unwrap_or_default()
}

async fn cache_work<F>(context: &Arc<Context>, work: F) -> Value
where
    F: FnOnce(&buildbee_store::Store) -> serde_json::Result<Value> + Send + 'static,
{
    let context = Arc::clone(context);
    let done = tokio::task::spawn_blocking(move || context.cache.store().map(work)).await;
    match done {
        Ok(Some(Ok(document))) => document,
        _ => Value::Null,
    }
}

/// The document of `cache gc --json`.
fn collect(store: &Store, max_bytes: Option<u64>) -> Value {
    let Collected { n_results, n_manifests, n_evicted, bytes } =
        store.collect(max_bytes.unwrap_or(store.usage().max_bytes));
    json!({ "results": n_results, "manifests": n_manifests, "evicted": n_evicted, "bytes": bytes })
}

/// The document of `cache verify --json`.
#[derive(Debug, serde::Serialize)]
struct Verified {
    blobs: usize,
    bytes: u64,
    n_bad: usize,
    bad: Vec<String>,
    results: usize,
    manifests: usize,
}

impl From<VerifyReport> for Verified {
    fn from(report: VerifyReport) -> Self {
        let bad = report.bad.into_iter().map(|file| format!("{}: {}", file.name, file.reason)).collect();
        let VerifyReport { blobs, bytes, n_bad, results, manifests, .. } = report;
        Self { blobs, bytes, n_bad, bad, results, manifests }
    }
}
