//! `buildbee toolchain warm`: has agents make compilers present before a build needs them.
//!
//! An agent fetches what it is to run, so each is asked to run the compiler once, for nothing. Not here: what a toolchain is made of.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
use crate::toolchain::rust::{Caller, LinkQuestion};

/// How long one agent may take for a toolchain, and to have room.
const WARM_DEADLINE: Duration = Duration::from_secs(600);
const ROOM_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether an agent has room.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A toolchain that agents are to have, and the program of it that they run for that.
struct Wanted {
    parts: Arc<Parts>,
    program: PathBuf,
    arguments: Vec<String>,
}

fn failed(program: &str, why: &dyn std::fmt::Display) -> Value {
    json!({ "program": program, "error": why.to_string() })
}

const NO_FARM: &str = "this user has joined no farm";

/// A compiler of C or C++.
pub async fn warm(context: &Arc<Context>, program: &str, search: &str) -> Value {
    let Some(farm) = &context.farm else { return failed(program, &NO_FARM) };
    farm.settled().await;
    let compiler = match context.toolchains.identify(Path::new(program), OsStr::new(search)).await {
        Ok(compiler) => compiler,
        Err(error) => return failed(program, &error),
    };
    let version = vec!["--version".to_owned()];
    let parts = Arc::clone(&compiler.parts);
    let wanted = [Wanted { parts, program: compiler.program.clone(), arguments: version }];
    json!({
        "program": program, "id": compiler.parts.id.to_string(), "label": compiler.parts.toolchain.label,
        "agents": everywhere(farm, &wanted).await,
    })
}

/// The rustc that `caller` would start, and what it links with, if there is anything.
pub async fn warm_rust(context: &Arc<Context>, caller: Caller<'_>, search: &str) -> Value {
    let target = caller.target.map_or_else(String::new, |target| format!(" --target {target}"));
    let name = format!("{}{target}", caller.program.display());
    let Some(farm) = &context.farm else { return failed(&name, &NO_FARM) };
    farm.settled().await;
    let compiler = match context.rustcs.identify(caller).await {
        Ok(compiler) => compiler,
        Err(error) => return failed(&name, &error),
    };
    let question = LinkQuestion { linker: None, cwd: caller.cwd, arguments: &[], search: OsStr::new(search) };
    let linker = context.rustcs.linker(&compiler, question).await;
    let arguments: Vec<String> = compiler.arguments.iter().cloned().chain(["--version".to_owned()]).collect();
    let of = |parts| Wanted { parts, program: compiler.place.clone(), arguments: arguments.clone() };
    // What is linked with first: the compiler alone is a part of it.
    let parts = linker.iter().map(|linker| &linker.parts).chain([&compiler.parts]);
    let wanted: Vec<Wanted> = parts.map(|parts| of(Arc::clone(parts))).collect();
    json!({
        "program": name, "id": compiler.parts.id.to_string(), "label": compiler.parts.toolchain.label,
        "without_linker": linker.err().map(|error| error.to_string()), "agents": everywhere(farm, &wanted).await,
    })
}

/// What became of it at each agent that can run them, by name.
async fn everywhere(farm: &Farm, wanted: &[Wanted]) -> BTreeMap<String, Value> {
    let Some(first) = wanted.first() else { return BTreeMap::new() };
    let holders: Vec<Vec<String>> = wanted.iter().map(|wanted| farm.holders(&wanted.parts.id)).collect();
    let warming = farm.agents_for(&first.parts.toolchain.host).into_iter().map(|(peer, name)| {
        let lacking = wanted.iter().zip(&holders).filter(|(_, holders)| !holders.contains(&name));
        let lacking: Vec<&Wanted> = lacking.map(|(wanted, _)| wanted).collect();
        async move {
            let began = Instant::now();
            let mut outcome = Ok(());
            for wanted in &lacking {
                if outcome.is_ok() {
                    outcome = warmed(farm, peer, wanted).await;
                }
            }
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            (name, json!({ "had_it": lacking.is_empty(), "error": outcome.err(), "took_ms": took_ms }))
        }
    });
    futures::future::join_all(warming).await.into_iter().collect()
}

/// Has `agent` run the compiler once, for which it needs all of it.
async fn warmed(farm: &Farm, agent: PeerId, wanted: &Wanted) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let folder = tempfile::tempdir().map_err(|error| text(&error))?;
    let root = folder.path().canonicalize().map_err(|error| text(&error))?;
    std::fs::write(root.join(NOTHING), b"").map_err(|error| text(&error))?;
    let inputs = nothing(&root, &[])?;
    let search = wanted.program.parent().unwrap_or(Path::new("/usr/bin")).display().to_string();
    let recipe = Recipe {
        program: &wanted.program,
        arguments: &wanted.arguments,
        env: BTreeMap::from([("LC_ALL".to_owned(), "C".to_owned()), ("PATH".to_owned(), search)]),
        // A folder that nobody had before: what another agent answered is no answer of this one's.
        working_directory: &root,
        platform: Vec::new(),
    };
    let job = Job::of(Arc::clone(&wanted.parts), recipe, inputs).map_err(|error| text(&error))?;
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
