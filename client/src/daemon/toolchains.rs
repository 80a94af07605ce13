//! What the daemon knows of compilers, for `buildbee toolchain …`: lists, shows and verifies them, and forgets those that have
//! changed. Not here: having agents fetch one ([`warm`](super::warm)).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::digest::Digest;
use serde_json::{Value, json};

use super::context::Context;
use crate::toolchain::Parts;

/// Files of one toolchain that are listed.
const MAX_LISTED: usize = 20_000;
/// Changed files that are named; more are only counted.
const MAX_CHANGED: usize = 1000;

/// A compiler that is known.
struct Known {
    program: PathBuf,
    kind: &'static str,
    parts: Arc<Parts>,
    is_current: bool,
}

impl Known {
    fn document(&self, agents: &[String]) -> Value {
        let n_bytes: u64 = self.parts.files.iter().map(|(_, digest)| digest.size_bytes).sum();
        json!({
            "id": self.parts.id.to_string(), "program": self.program.display().to_string(), "kind": self.kind,
            "label": self.parts.toolchain.label, "host": self.parts.toolchain.host, "files": self.parts.files.len(),
            "bytes": n_bytes, "current": self.is_current, "agents": agents,
        })
    }

    fn is(&self, which: &str) -> bool {
        self.program.as_os_str() == which || (which.len() >= 4 && self.parts.id.to_string().starts_with(which))
    }
}

/// All compilers that are known. Blocks: looks at all their files.
fn known(context: &Context) -> Vec<Known> {
    let c = context.toolchains.list().into_iter().map(|compiler| Known {
        program: compiler.program.clone(),
        kind: "c",
        parts: Arc::clone(&compiler.parts),
        is_current: compiler.still_holds(),
    });
    let rust = context.rustcs.list().into_iter().map(|compiler| Known {
        program: compiler.program.clone(),
        kind: "rust",
        parts: Arc::clone(&compiler.parts),
        is_current: compiler.still_holds(),
    });
    let mut all: Vec<Known> = c.chain(rust).collect();
    all.sort_by(|one, other| one.program.cmp(&other.program).then(one.parts.id.cmp(&other.parts.id)));
    all.dedup_by(|one, other| one.program == other.program && one.parts.id == other.parts.id);
    all
}

async fn all_known(context: &Arc<Context>) -> Vec<Known> {
    let context = Arc::clone(context);
    tokio::task::spawn_blocking(move || known(&context)).await.unwrap_or_default()
}

fn holders(context: &Context, parts: &Parts) -> Vec<String> {
    context.farm.as_ref().map_or_else(Vec::new, |farm| farm.holders(&parts.id))
}

/// `toolchain list`.
pub async fn list(context: &Arc<Context>) -> Value {
    let known = all_known(context).await;
    let rows: Vec<Value> = known.iter().map(|one| one.document(&holders(context, &one.parts))).collect();
    json!({ "toolchains": rows })
}

/// `toolchain show`; `null` where it is not known.
pub async fn show(context: &Arc<Context>, which: &str) -> Value {
    let known = all_known(context).await;
    let Some(one) = known.iter().find(|one| one.is(which)) else { return Value::Null };
    let mut document = one.document(&holders(context, &one.parts));
    let files: Vec<Value> = (one.parts.files.iter().take(MAX_LISTED))
        .map(|(path, digest)| json!({ "path": path.display().to_string(), "bytes": digest.size_bytes, "digest": digest.to_string() }))
        .collect();
    if let Some(document) = document.as_object_mut() {
        document.insert("contents".to_owned(), files.into());
    }
    document
}

/// `toolchain verify`; `null` where none is known by that name.
pub async fn verify(context: &Arc<Context>, which: Option<&str>) -> Value {
    let known = all_known(context).await;
    let chosen: Vec<Known> = known.into_iter().filter(|one| which.is_none_or(|which| one.is(which))).collect();
    if which.is_some() && chosen.is_empty() {
        return Value::Null;
    }
    let reading = tokio::task::spawn_blocking(move || chosen.iter().map(verified).collect::<Vec<Value>>());
    json!({ "toolchains": reading.await.unwrap_or_default() })
}

/// Reads all files, whatever their times say.
fn verified(one: &Known) -> Value {
    let (mut changed, mut n_changed, mut n_bytes) = (Vec::new(), 0_usize, 0_u64);
    for (path, digest) in &one.parts.files {
        match digest_of(path) {
            Ok(found) if found == *digest => n_bytes += digest.size_bytes,
            Ok(_) => changed.push(format!("{}: its content is another one", path.display())),
            Err(error) => changed.push(format!("{}: {error}", path.display())),
        }
        if changed.len() > MAX_CHANGED {
            changed.truncate(MAX_CHANGED);
            n_changed += 1;
        }
    }
    n_changed += changed.len();
    json!({
        "id": one.parts.id.to_string(), "program": one.program.display().to_string(), "label": one.parts.toolchain.label,
        "files": one.parts.files.len(), "bytes": n_bytes, "n_changed": n_changed, "changed": changed,
    })
}

fn digest_of(path: &Path) -> std::io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let n_bytes = std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(Digest { hash: *hasher.finalize().as_bytes(), size_bytes: n_bytes, ..Digest::of(b"") })
}

/// `toolchain gc`.
pub async fn gc(context: &Arc<Context>) -> Value {
    let forgetting = {
        let context = Arc::clone(context);
        tokio::task::spawn_blocking(move || {
            let mut forgotten = context.toolchains.forget_changed();
            forgotten.extend(context.rustcs.forget_changed());
            (forgotten, known(&context).into_iter().map(|one| one.parts.id).collect::<Vec<_>>())
        })
    };
    let (forgotten, left) = forgetting.await.unwrap_or_default();
    let n_lent = context.farm.as_ref().map_or(0, |farm| farm.lend_only(&left));
    let forgotten: Vec<String> = forgotten.iter().map(|program| program.display().to_string()).collect();
    json!({ "forgotten": forgotten, "not_lent_any_more": n_lent })
}
