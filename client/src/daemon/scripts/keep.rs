//! Keeps what a script's run has left, if it is certain what it made that from. Blocks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use buildbee_proto::digest::Digest;
use buildbee_proto::limits::MAX_RESULT_BLOBS;
use buildbee_proto::local::LocalOutcome;
use buildbee_proto::outcome::{ActionResult, OutputFile, Provenance};
use buildbee_proto::record::LIBRARY;
use memchr::memmem::Finder;

use super::super::cache::Hit;
use super::super::context::Context;
use super::super::crates::keep::made_here;
use super::super::crates::read_set::{self, Seen, Uncertain};
use super::super::crates::seen::SCRATCH;
use super::place::layout_place;
use super::plan::ScriptPlan;
use super::tree::Tree;
use super::unsound::Unsound;
use crate::rust::script::TRACE;

/// How a script says what its next run depends on.
const TRIGGERS: [&str; 2] = ["cargo:rerun-if-changed=", "cargo::rerun-if-changed="];

/// What a run has left, read.
struct Left {
    /// By path in the folder.
    files: Vec<(PathBuf, u32, Vec<u8>)>,
    layout: Vec<u8>,
    stdout: String,
    stderr: String,
}

impl ScriptPlan {
    /// Keeps what the run has left that began at `start` and that the library `recorder` watched.
    pub fn keep(
        &self,
        context: &Context,
        outcome: &LocalOutcome,
        start: SystemTime,
        recorder: &Path,
    ) -> Result<(), Unsound> {
        let kept = self.try_keep(context, outcome, start, recorder);
        if kept.as_ref().is_err_and(Unsound::is_lasting) {
            self.mark_in_vain(context);
        }
        kept
    }

    fn try_keep(
        &self,
        context: &Context,
        outcome: &LocalOutcome,
        start: SystemTime,
        recorder: &Path,
    ) -> Result<(), Unsound> {
        if outcome.exit_code != Some(0) {
            return Err(Unsound::Failed);
        }
        if !outcome.complete || context.cache.store().is_none() {
            return Err(Unsound::Incomplete);
        }
        if self.listed.contested() {
            return Err(Unsound::Contested);
        }
        let log = outcome.record.as_ref().ok_or(Unsound::Unseen)?;
        let seen = self.seen(&log.0, recorder)?;
        let left = self.left(outcome)?;
        if let Some(path) = missing_trigger(&left.stdout, &self.call.cwd) {
            return Err(Unsound::Always(path));
        }
        if let Some(traces) = self.traces(&left) {
            return Err(Unsound::Traces(traces));
        }
        let walks = self.could_walk(&log.0, &seen);
        if walks && let Some(odd) = self.call.odd.first() {
            return Err(Uncertain::Variable(odd.clone()).into());
        }
        let stays = self.roots.are_placed() && (seen.above || self.shows_places(&left));
        self.mark(context, stays, walks);
        self.asking_for_more(stays, walks).keep_as(context, outcome.wall_ms, start, &seen, left)
    }

    fn left(&self, outcome: &LocalOutcome) -> Result<Left, Unsound> {
        let tree = Tree::of(&self.out_dir, self.call.umask)?;
        let read = |file: super::tree::File| {
            let path = self.out_dir.join(&file.path);
            let content = fs::read(&path).map_err(|_| Unsound::Output(path.display().to_string()))?;
            Ok((file.path, file.mode, content))
        };
        let files = tree.files.into_iter().map(read).collect::<Result<Vec<_>, Unsound>>()?;
        let text = |bytes: &[u8], name| String::from_utf8(bytes.to_vec()).map_err(|_| Unsound::Spelling(name));
        let stdout = text(&outcome.stdout.0, "standard output")?;
        let stderr = text(&outcome.stderr.0, "standard error")?;
        Ok(Left { files, layout: tree.layout.to_bytes(), stdout, stderr })
    }

    /// What shows how it was run: the folder for temporary files, the recorder, the name behind the stand-in. A script that writes its whole
    /// environment down has all of them.
    fn traces(&self, left: &Left) -> Option<String> {
        let scratch = self.temporary().join(SCRATCH);
        let traces = [scratch.as_os_str().as_encoded_bytes(), LIBRARY.as_bytes(), TRACE.as_bytes()];
        let finders = traces.map(Finder::new);
        let is_told = |content: &[u8]| finders.iter().any(|finder| finder.find(content).is_some());
        let file =
            left.files.iter().find(|(_, _, content)| is_told(content)).map(|(path, ..)| path.display().to_string());
        file.or_else(|| is_told(left.stdout.as_bytes()).then(|| "standard output".to_owned()))
            .or_else(|| is_told(left.stderr.as_bytes()).then(|| "standard error".to_owned()))
    }

    /// Whether a folder's real name is in a file, or in what it says where it could not be spelled anew.
    fn shows_places(&self, left: &Left) -> bool {
        let places = self.roots.places();
        let reals = self.roots.iter().flat_map(|(_, real, _)| [Some(real.to_owned()), fs::canonicalize(real).ok()]);
        let finders: Vec<_> =
            reals.flatten().map(|real| Finder::new(real.as_os_str().as_encoded_bytes()).into_owned()).collect();
        let shows = |content: &[u8]| finders.iter().any(|finder| finder.find(content).is_some());
        left.files.iter().any(|(_, _, content)| shows(content))
            || [&left.stdout, &left.stderr].into_iter().any(|text| shows(places.text(text).as_bytes()))
    }

    fn keep_as(
        &self,
        context: &Context,
        wall_ms: u64,
        start: SystemTime,
        seen: &Seen,
        left: Left,
    ) -> Result<(), Unsound> {
        let spelling = self.spelling();
        let read_set = read_set::of(seen, &self.roots, &spelling, &context.hashes, start)?;
        let mut blobs = BTreeMap::new();
        let mut store = |content: Vec<u8>| {
            let digest = Digest::of(&content);
            blobs.insert(digest, content);
            digest
        };
        let mut outputs = Vec::with_capacity(left.files.len() + 1);
        if !left.layout.is_empty() {
            outputs.push(OutputFile { path: layout_place(), digest: store(left.layout), mode: 0 });
        }
        for (path, mode, content) in left.files {
            let place = spelling.place(&self.out_dir.join(&path));
            let path = place.ok_or_else(|| Unsound::Output(path.display().to_string()))?;
            outputs.push(OutputFile { path, digest: store(content), mode });
        }
        outputs.sort_by(|one, other| one.path.cmp(&other.path));
        if outputs.len() + 2 > MAX_RESULT_BLOBS {
            return Err(Unsound::Output("so many files".to_owned()));
        }
        let (places, reals) = (spelling.places(), spelling.reals());
        let mut placed = |text: &str, name| {
            let placed = places.text(text);
            if reals.text(&placed) == text { Ok(store(placed.into_bytes())) } else { Err(Unsound::Spelling(name)) }
        };
        let stdout = placed(&left.stdout, "standard output")?;
        let stderr = placed(&left.stderr, "standard error")?;
        blobs.retain(|digest, _| digest.size_bytes > 0);
        let peer = context.identity.peer();
        let provenance = Provenance { peer, sandboxed: false, wall_ms, cpu_ms: 0, peak_memory_bytes: 0 };
        let action = made_here(&self.key, &read_set);
        let result = ActionResult { action, exit_code: 0, outputs, stdout, stderr, observed: None, provenance };
        let hit = Hit { signed: context.identity.sign_result(result), blobs };
        context.cache.keep(&hit, &self.key, &read_set);
        Ok(())
    }
}

/// A file whose change the script waits for, and which is not there: cargo takes that for a change, each time.
fn missing_trigger(stdout: &str, cwd: &Path) -> Option<PathBuf> {
    let named = |line: &str| TRIGGERS.iter().find_map(|trigger| line.strip_prefix(trigger)).map(|path| cwd.join(path));
    stdout.lines().filter_map(named).find(|path| !path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_cargo_runs_each_time() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("there"), "").unwrap();
        let missing = |stdout: &str| missing_trigger(stdout, folder.path());
        assert_eq!(missing("cargo:rerun-if-changed=there\ncargo:rustc-cfg=x\n"), None);
        for stdout in
            ["cargo:rerun-if-changed=none", "cargo::rerun-if-changed=none\n", "x\ncargo:rerun-if-changed=none"]
        {
            assert_eq!(missing(stdout), Some(folder.path().join("none")), "{stdout}");
        }
    }
}
