//! What the run of a build script comes to before the program starts: the question with every path in its place, and the result that holds, if
//! there is one. Blocks.
//!
//! A question holds what cargo says of the package, the program's content and its arguments. What else a run asked for stands in its result's
//! read set. Two marks under a question say more of the script than a read set can: that its results hold real paths, and that it could read the
//! whole environment, which is then part of the question. A third says that watching it is of no use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::outcome::ReadSet;

use super::super::cache::Hit;
use super::super::context::{Context, RunningEntry};
use super::super::crates::plan::stays;
use super::super::crates::read_set::{Candidate, Spelling};
use super::super::crates::seen::{OUT_DIR, PACKAGE};
use super::super::invocation::Checked;
use super::stand_in::are_wanted;
use super::tree;
use crate::journal::question::Question;
use crate::journal::{Record, Why};
use crate::rust::locate::{Surroundings, locate};
use crate::rust::roots::{PathSetting, RootKind, Roots};
use crate::rust::script::behind;

/// The entry of a manifest that says: it could read every variable.
const WALKS: &[u8] = b"the script may read any variable";
/// The entry of a manifest that says: no run of it can be kept.
const IN_VAIN: &[u8] = b"no run of the script can be kept";

/// What cargo says of a package to its script.
const DECLARED: [&str; 12] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "DEBUG",
    "HOST",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC",
    "RUSTC_LINKER",
    "RUSTDOC",
    "TARGET",
];
/// The same, by how they begin.
const DECLARED_PREFIXES: [&str; 4] = ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "DEP_"];

/// Variables that say nothing of what a script makes: the jobserver's, which name descriptors of one build, and what a shell notes for itself.
const PASSED: [&str; 6] = ["CARGO_MAKEFLAGS", "MAKEFLAGS", "MFLAGS", "OLDPWD", "SHLVL", "_"];
/// The same, by how they begin: this program's own.
const PASSED_PREFIX: &str = "BUILDBEE";

/// Whether it says nothing that a script asked for this variable.
pub fn is_passed(name: &str) -> bool {
    PASSED.contains(&name) || name.starts_with(PASSED_PREFIX)
}

/// What stands fixed once a script is to be run.
#[derive(Clone, Debug)]
pub struct ScriptPlan {
    /// What the wrapper sent.
    pub call: Arc<Checked>,
    /// Where paths stand in its results.
    pub roots: Roots,
    /// Absolute, and empty before the run.
    pub out_dir: PathBuf,
    /// Where its results are known.
    pub key: Digest,
    /// Its place among the actions under way.
    pub listed: Arc<RunningEntry>,
    /// Where marks stand.
    first: Digest,
    /// Content of the program.
    program: Digest,
    /// Whether the whole environment is part of the question.
    walks: bool,
}

/// What a call comes to.
#[derive(Debug)]
pub enum Found {
    /// A result that holds.
    Hit(Box<ScriptPlan>, Arc<Hit>),
    /// None is known.
    Miss(Box<ScriptPlan>),
    /// The program is to be started as if nobody stood in for it.
    Plain(Why),
}

/// What a script is for the journal.
pub fn record(call: &Checked) -> Record {
    let variable =
        |name: &str| call.env.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    let script = call.program.with_file_name(behind(&call.program).unwrap_or_default());
    let cwd = call.cwd.to_string_lossy().into_owned();
    let run = call.run.clone();
    Record { cwd, run, ..Record::of(&script.to_string_lossy(), variable(OUT_DIR), &call.program.to_string_lossy()) }
}

/// Looks for a result.
pub fn find(context: &Arc<Context>, call: Checked) -> Found {
    let plain = |code: &str, text: &str| Found::Plain((code.to_owned(), text.to_owned()));
    if !are_wanted(context.settings.build_scripts, &call.env) {
        return plain("scripts-off", "runs of build scripts are not kept (`build_scripts`)");
    }
    let folder = |name: &str| {
        let value = call.env.iter().find(|(known, _)| known == name);
        value.map(|(_, value)| PathBuf::from(value)).filter(|folder| folder.is_absolute())
    };
    let (Some(out_dir), Some(package)) = (folder(OUT_DIR), folder(PACKAGE)) else {
        return plain("not-cargo", "cargo has not started it: it is given no folders");
    };
    let Ok(program) = context.hashes.hash(&call.program) else {
        return plain("input-unreadable", "its program can't be read");
    };
    if !tree::is_empty(&out_dir) {
        return plain("script-leftovers", "there are files of an earlier run in OUT_DIR, which it may go on from");
    }
    let word = call.env.iter().find(|(name, _)| name == PATHS_VARIABLE);
    let paths = word.and_then(|(_, word)| PathSetting::from_word(word)).unwrap_or(context.settings.paths);
    let roots = roots(&call, &out_dir, &package, paths);
    let listed = Arc::new(context.runs(call.program.clone(), vec![out_dir.clone()]));
    let (program, key, first, walks) = (program.digest, Digest::of(b""), Digest::of(b""), false);
    let mut plan = ScriptPlan { call: Arc::new(call), roots, out_dir, key, listed, first, program, walks };
    let mut candidates = plan.ask(context);
    plan.first = plan.key;
    let is_marked = |candidates: &[Candidate], mark| candidates.iter().any(|candidate| candidate.action == mark);
    if is_marked(&candidates, in_vain()) {
        return plain("script-unsound", "an earlier run of it could not be kept");
    }
    let (stays, walks) = (is_marked(&candidates, stays()), is_marked(&candidates, walks_mark()));
    if stays || walks {
        plan = plan.asking_for_more(stays, walks);
        candidates = plan.ask(context);
    }
    let (spelling, known) = (plan.spelling(), context.cache.known());
    let candidate = candidates.iter().find(|candidate| candidate.holds(&spelling, known));
    let hit = candidate.and_then(|candidate| context.cache.crate_result(&candidate.action));
    match hit {
        Some(hit) => Found::Hit(Box::new(plan), hit),
        None => Found::Miss(Box::new(plan)),
    }
}

/// As for crates.
const PATHS_VARIABLE: &str = "BUILDBEE_PATHS";

fn in_vain() -> Digest {
    Digest::of(IN_VAIN)
}

fn walks_mark() -> Digest {
    Digest::of(WALKS)
}

/// The folders of the build. A script runs in its package's folder; the workspace is where cargo keeps the lock file, beside the target folder.
/// The cargo home is none: results stay with one user, who has one, and its sources are read where they are.
fn roots(call: &Checked, out_dir: &Path, package: &Path, setting: PathSetting) -> Roots {
    let variable = |name: &str| call.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let arguments = ["--out-dir".to_owned(), out_dir.to_string_lossy().into_owned()];
    let within = |cwd: &Path| {
        let exists = &|path: &Path| path.exists();
        locate(&Surroundings { arguments: &arguments, cwd, variable: &variable, sysroot: None, setting, exists })
    };
    let roots = within(package);
    let workspace = roots.real(RootKind::Target).and_then(Path::parent);
    let roots = workspace.filter(|folder| folder.join("Cargo.lock").is_file()).map(within).unwrap_or(roots);
    let folders = roots.iter().filter(|(kind, ..)| *kind != RootKind::CargoHome);
    Roots::new(setting, folders.map(|(kind, real, _)| (kind, real)))
}

impl ScriptPlan {
    /// Puts the question and returns the results that it had.
    fn ask(&mut self, context: &Context) -> Arc<Vec<Candidate>> {
        let question = self.question();
        self.key = question.digest();
        context.journal.asked(Path::new(&record(&self.call).source), self.key, question);
        context.cache.crate_candidates(&self.key)
    }

    /// The same script's question with real paths, or with the whole environment.
    #[must_use]
    pub fn asking_for_more(&self, stays: bool, walks: bool) -> Self {
        let mut plan = self.clone();
        if stays {
            plan.roots = plan.roots.at_real_places();
        }
        plan.walks |= walks;
        plan.key = plan.question().digest();
        plan
    }

    /// Has later questions be asked like that.
    pub fn mark(&self, context: &Context, stay: bool, walks: bool) {
        for mark in stay.then(stays).into_iter().chain(walks.then(walks_mark)) {
            context.cache.index(&self.first, mark, &ReadSet::default());
        }
    }

    /// Has later runs go unwatched.
    pub fn mark_in_vain(&self, context: &Context) {
        context.cache.index(&self.first, in_vain(), &ReadSet::default());
    }

    /// How the caller spells what a read set holds.
    pub fn spelling(&self) -> Spelling<'_> {
        Spelling::new(&self.roots, &self.call.env, &self.call.odd)
    }

    /// For the journal.
    pub fn record(&self) -> Record {
        Record { question: Some(self.key), ..record(&self.call) }
    }

    fn question(&self) -> Question {
        let places = self.roots.places();
        let text = |path: &Path| places.path(path).to_string_lossy().into_owned();
        let mut arguments: Vec<String> = self.call.argv.iter().map(|argument| places.text(argument)).collect();
        // What it makes has modes, which count as they are.
        arguments.push(format!("umask {:o}", self.call.umask));
        Question {
            toolchain: self.program.to_string(),
            compiler: text(&self.call.program),
            directory: text(&self.call.cwd),
            logical_directory: String::new(),
            source: String::new(),
            content: self.program,
            outputs: vec![text(&self.out_dir)],
            env: self.declared(),
            on_terminal: false,
            arguments,
        }
    }

    /// What cargo says, with paths in their places; of all else, where it counts, the digests of the values.
    fn declared(&self) -> Vec<(String, String)> {
        let places = self.roots.places();
        let is_declared =
            |name: &str| DECLARED.contains(&name) || DECLARED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let mut declared: Vec<(String, String)> = Vec::new();
        for (name, value) in &self.call.env {
            if is_declared(name) {
                declared.push((name.clone(), places.text(value)));
            } else if self.walks && !is_passed(name) {
                declared.push((name.clone(), Digest::of(places.text(value).as_bytes()).to_string()));
            }
        }
        declared.sort();
        declared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_over() {
        for (name, passed) in
            [("BUILDBEE_WRAPPED", true), ("CARGO_MAKEFLAGS", true), ("HOME", false), ("TARGET", false)]
        {
            assert_eq!(is_passed(name), passed, "{name}");
        }
    }
}
