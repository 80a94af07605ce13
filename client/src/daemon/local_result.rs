//! Keeps what a compiler made here, if it is certain what it was made from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::digest::Digest;
use buildbee_proto::local::LocalOutcome;
use buildbee_proto::outcome::{ActionResult, OutputFile, Provenance};

use super::cache::Hit;
use super::context::Context;
use crate::dispatch::attempt::MAX_RESULT_CONTENT_BYTES;
use crate::dispatch::job::Job;
use crate::inputs::discover::OutputPlace;
use crate::inputs::filehash::FileIdentity;

/// What compilers ask for when they make objects and dependency files. The mode on disk does not count: it may be that of a file that was
/// there before, and it lacks what the caller's umask took off.
const NEW_FILE_MODE: u32 = 0o666;

/// A compile that the wrapper ran.
#[derive(Debug)]
pub struct LocalRun<'a> {
    /// Where direct mode will look for it.
    pub plan_key: Digest,
    /// The action that it was.
    pub job: &'a Arc<Job>,
    /// How it ended.
    pub outcome: &'a LocalOutcome,
}

impl LocalRun<'_> {
    /// Keeps the result if the compile succeeded and every input is, after it, what it was before. Returns what is kept.
    pub async fn keep(&self, context: &Arc<Context>) -> Option<Hit> {
        if self.outcome.exit_code != Some(0) || !self.outcome.complete || context.cache.store().is_none() {
            return None;
        }
        let (context, job, key) = (Arc::clone(context), Arc::clone(self.job), self.plan_key);
        let (stdout, stderr) = (self.outcome.stdout.0.clone(), self.outcome.stderr.0.clone());
        let wall_ms = self.outcome.wall_ms;
        let keep = move || {
            let unchanged = |(path, before): &(PathBuf, crate::inputs::filehash::Hashed)| {
                context
                    .hashes
                    .hash(path)
                    .is_ok_and(|now| now.digest == before.digest && now.identity == before.identity)
            };
            if !job.inputs.guards.iter().all(unchanged) || !context.cache.holds(&job.inputs.read_set) {
                context.journal.noted("input-changed-meanwhile");
                return None;
            }
            let mut blobs = BTreeMap::new();
            let mut files = Vec::new();
            for OutputPlace { place, always, before } in &job.outputs {
                let path = place.to_absolute();
                // One that need not be written may be an earlier compile's.
                if !always && identity(&path) == *before {
                    continue;
                }
                // A compiler that succeeds writes the others; who removed one may have replaced another.
                let content = read(&path)?;
                let digest = Digest::of(&content);
                files.push(OutputFile { path: place.clone(), digest, mode: NEW_FILE_MODE });
                blobs.insert(digest, content);
            }
            let streams = [stdout, stderr].map(|content| {
                let digest = Digest::of(&content);
                blobs.insert(digest, content);
                digest
            });
            blobs.retain(|digest, _| digest.size_bytes > 0);
            let provenance = Provenance {
                peer: context.identity.peer(),
                sandboxed: false,
                wall_ms,
                cpu_ms: 0,
                peak_memory_bytes: 0,
            };
            let [stdout, stderr] = streams;
            let result = ActionResult {
                action: job.action,
                exit_code: 0,
                outputs: files,
                stdout,
                stderr,
                observed: None,
                provenance,
            };
            let hit = Hit { signed: context.identity.sign_result(result), blobs };
            context.cache.keep(&hit, &key, &job.inputs.read_set);
            Some(hit)
        };
        // A panic in there loses a cache entry, not the compile.
        tokio::task::spawn_blocking(keep).await.ok().flatten()
    }
}

fn identity(path: &Path) -> Option<FileIdentity> {
    fs::symlink_metadata(path).ok().map(|meta| FileIdentity::of(&meta))
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let meta = fs::symlink_metadata(path).ok()?;
    if !meta.is_file() || meta.len() > MAX_RESULT_CONTENT_BYTES {
        return None;
    }
    fs::read(path).ok()
}
