//! What the daemon knows of compilers, for `buildbee toolchain …`: lists, shows and verifies them, forgets those that have changed, and has agents make
//! one present before a build needs it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::peer::PeerId;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::context::Context;
use crate::dispatch::board::Went;
use crate::dispatch::farm::{Farm, Found};
use crate::dispatch::job::{Job, Recipe};
use crate::dispatch::lender::Source;
use crate::doubles::prove::{NOTHING, nothing};
use crate::toolchain::Parts;

/// Files of one toolchain that are listed.
const MAX_LISTED: usize = 20_000;
/// Changed files that are named; more are only counted.
const MAX_CHANGED: usize = 1000;
/// How long one agent may take for a toolchain, and to have room.
const WARM_DEADLINE: Duration = Duration::from_secs(600);
const ROOM_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether an agent has room.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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

/// `toolchain warm`.
pub async fn warm(context: &Arc<Context>, program: &str, search: &str) -> Value {
    let failed = |why: String| json!({ "program": program, "error": why });
    let Some(farm) = &context.farm else { return failed("this user has joined no farm".to_owned()) };
    farm.settled().await;
    let identified = context.toolchains.identify(Path::new(program), OsStr::new(search)).await;
    let compiler = match identified {
        Ok(compiler) => compiler,
        Err(error) => return failed(error.to_string()),
    };
    let before = farm.holders(&compiler.parts.id);
    let mut agents = BTreeMap::new();
    let warming = farm.agents_for(&compiler.parts.toolchain.host).into_iter().map(|(peer, name)| {
        let (compiler, has_it) = (Arc::clone(&compiler), before.contains(&name));
        async move {
            let began = Instant::now();
            let outcome = if has_it { Ok(()) } else { warmed(farm, peer, &compiler.program, &compiler.parts).await };
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            (name, json!({ "had_it": has_it, "error": outcome.err(), "took_ms": took_ms }))
        }
    });
    agents.extend(futures::future::join_all(warming).await);
    json!({ "program": program, "id": compiler.parts.id.to_string(), "label": compiler.parts.toolchain.label, "agents": agents })
}

/// Has `agent` run the compiler once, for which it needs all of it.
async fn warmed(farm: &Farm, agent: PeerId, program: &Path, parts: &Arc<Parts>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let folder = tempfile::tempdir().map_err(|error| text(&error))?;
    let root = folder.path().canonicalize().map_err(|error| text(&error))?;
    std::fs::write(root.join(NOTHING), b"").map_err(|error| text(&error))?;
    let inputs = nothing(&root, &[])?;
    let search = program.parent().unwrap_or(Path::new("/usr/bin")).display().to_string();
    let recipe = Recipe {
        program,
        arguments: &["--version".to_owned()],
        env: BTreeMap::from([("LC_ALL".to_owned(), "C".to_owned()), ("PATH".to_owned(), search)]),
        // A folder that nobody had before: what another agent answered is no answer of this one's.
        working_directory: &root,
        platform: Vec::new(),
    };
    let job = Job::of(Arc::clone(parts), recipe, inputs).map_err(|error| text(&error))?;
    let files = job.inputs.files.iter().map(|(digest, path)| (*digest, Source::File(path.clone())));
    let directories = job.inputs.tree.directories.iter();
    let directories = directories.map(|(digest, bytes)| (*digest, Source::Bytes(Arc::clone(bytes))));
    let _loan = farm.lend(&job.parts, files.chain(directories));
    let others: Vec<PeerId> = farm.connected_agents().into_iter().filter(|peer| *peer != agent).collect();
    let since = Instant::now();
    loop {
        match farm.seat(&job.parts, &others, &HashMap::new()) {
            Found::Seat(mut seat) => {
                let running = timeout(WARM_DEADLINE, farm.attempts().run(&seat.pick, &job, None)).await;
                return match running {
                    Ok(Ok(_)) => {
                        seat.went(Went::Well);
                        Ok(())
                    }
                    Ok(Err(error)) => {
                        seat.went(error.went());
                        Err(error.to_string())
                    }
                    Err(_) => Err("it took too long".to_owned()),
                };
            }
            Found::Full if since.elapsed() < ROOM_PATIENCE => farm.changed(LOOK_AGAIN).await,
            Found::Full => return Err("it had no room for too long".to_owned()),
            Found::Nobody => return Err("it can't be reached, or lends nothing now".to_owned()),
        }
    }
}
