//! Whether what an agent made of a crate is what a run here would have left: by what its compiler was seen to ask for, compared with what is here.
//! And keeps it, if it is. Blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::env::split_paths;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use buildbee_proto::canonical::Canonical;
use buildbee_proto::limits::MAX_OBSERVED_BYTES;
use buildbee_proto::observed::Observed;
use buildbee_proto::outcome::names_digest;
use buildbee_proto::path::RelPath;
use memchr::memmem;

use super::super::cache::Hit;
use super::super::context::Context;
use super::action::CrateJob;
use super::beyond::Beyond;
use super::keep::{Unkept, remember_needs};
use super::place::is_dep_info;
use super::plan::CratePlan;
use super::read_set::{self, Seen, Uncertain, names_of};
use super::seen::{Passed, spoken};
use crate::journal::Why;
use crate::rust::env::may_go_along;
use crate::rust::roots::RootKind;

/// Where every root stands in a sandbox. No output may name it.
const PLACES: &[u8] = b"/buildbee.d/";
/// The folder of the roots.
const PLACE: &str = "/buildbee.d";
/// Where an agent's own parts stand there.
const AGENTS: &str = "/buildbee.d/recorder";
/// How the compiler spells sources of its own libraries, where it does not have them.
const OWN_SOURCES: &[u8] = b"/rustc/";

/// The reason's code where paths matter: with real ones it may be made elsewhere all the same.
pub const REAL_PATHS: &str = "real-paths";

/// Why a result does not count here, and what the agent would have to be given besides for another one that may.
#[derive(Debug)]
pub struct Objection {
    /// For people and statistics.
    pub why: Why,
    /// What it lacked.
    pub lacking: Box<Beyond>,
}

fn objection(code: &str, text: impl Into<String>) -> Objection {
    Objection { why: (code.to_owned(), text.into()), lacking: Box::default() }
}

impl CratePlan {
    /// What the compiler of `made` used, in this machine's spelling; or why its result does not count here.
    pub fn verdict(&self, given: &CrateJob, made: &Hit) -> Result<Seen, Objection> {
        let observed =
            observed(made).ok_or_else(|| objection("inputs-unseen", "the agent did not see what it read"))?;
        let missed = self.missed_on_way_up(&observed);
        if self.roots.are_placed() && looks_above(&observed, &missed) {
            return Err(objection(REAL_PATHS, "it looked into the folder that its folders stand in"));
        }
        let result = &made.signed.result;
        let texts = result.outputs.iter().filter(|file| is_dep_info(&file.path));
        let spoken = texts.flat_map(|file| spoken(made.content(&file.digest))).collect();
        let uncounted = |unkept: Unkept| objection(unkept.code(), unkept.to_string());
        let seen = self.counting(self.at_home(given, observed, &missed), spoken, true).map_err(uncounted)?;
        if self.roots.are_placed() && (seen.above || self.asks_for_places(&seen)) {
            return Err(objection(REAL_PATHS, "it asks where its folders are"));
        }
        if let Some(path) = self.found_above(&seen) {
            // In a sandbox a search finds it where both have their real places.
            return Err(objection(REAL_PATHS, format!("it would have found {}", path.display())));
        }
        self.nothing_lacking(given, &seen)?;
        for file in result.outputs.iter().filter(|file| !is_dep_info(&file.path)) {
            if memmem::find(made.content(&file.digest), PLACES).is_some() {
                return Err(objection(REAL_PATHS, format!("{} names the folder that it was made in", file.path)));
            }
        }
        let stderr = made.content(&result.stderr);
        if memmem::find(stderr, OWN_SOURCES).is_some() && self.has_own_sources() {
            return Err(objection("messages", "its messages would show sources of the standard library"));
        }
        Ok(seen)
    }

    /// Whether a run here would have had the same answers to everything that was asked there.
    fn nothing_lacking(&self, given: &CrateJob, seen: &Seen) -> Result<(), Objection> {
        let mut lacking = Box::<Beyond>::default();
        let mut first: Option<Why> = None;
        let mut lacks = |code: &str, text: String| {
            first.get_or_insert_with(|| (code.to_owned(), text));
        };
        for name in seen.env.iter().filter(|name| self.is_set(name) && !given.variables.contains(*name)) {
            lacks("undeclared-variable", format!("it asked for {name}, which the agent was not told"));
            if may_go_along(name) {
                lacking.env.insert(name.clone());
            }
        }
        for path in seen.absent.iter().filter(|path| self.would_find(path)) {
            lacks("undeclared-file", format!("it looked for {}, which the agent did not have", path.display()));
            match fs::metadata(path) {
                Ok(meta) if meta.is_file() => lacking.files.insert(path.clone()),
                Ok(meta) if meta.is_dir() => lacking.listed.insert(path.clone()),
                _ => false,
            };
        }
        for path in seen.listed.iter().filter(|path| !lists_the_same(given, path).unwrap_or(false)) {
            lacks("undeclared-file", format!("it listed {}, where there is more here", path.display()));
            lacking.listed.insert(path.clone());
        }
        first.map_or(Ok(()), |why| Err(Objection { why, lacking }))
    }

    /// Names that a search from the workspace's place to the top did not find there, and would have looked for here in each folder above the
    /// workspace: clippy's for its settings.
    fn missed_on_way_up(&self, observed: &Observed) -> BTreeSet<OsString> {
        if self.way_up().is_empty() {
            return BTreeSet::new();
        }
        let spelling = self.spelling();
        // A search from a folder that a symlink leads to goes up elsewhere. Sandboxes have folders in place of such symlinks.
        let is_no_symlink = |place: &Path| {
            let real = spelling.reals().path(place);
            fs::canonicalize(&real).is_ok_and(|found| found == real)
        };
        let mut missed = names_missed_on_way_up(observed);
        missed.retain(|_, folders| folders.iter().all(|place| is_no_symlink(place)));
        missed.into_keys().collect()
    }

    /// What a search to the top, in vain there, would have found here.
    fn found_above(&self, seen: &Seen) -> Option<PathBuf> {
        let spelling = self.spelling();
        let on_way_up = spelling.above().into_iter().flatten();
        let mut above = on_way_up.flat_map(|folder| seen.absent_above.iter().map(move |name| folder.join(name)));
        above.find(|path| self.would_find(path))
    }

    fn is_set(&self, name: &String) -> bool {
        self.call.env.iter().any(|(known, _)| known == name) || self.call.odd.contains(name)
    }

    /// Whether something is here that was looked for in vain there. A program counts wherever this caller's `PATH` would have found it.
    fn would_find(&self, path: &Path) -> bool {
        let is_program = || path.parent().is_some_and(|folder| split_paths(self.search()).any(|one| one == folder));
        let in_path = |name: &OsStr| split_paths(self.call.search()).any(|folder| folder.join(name).is_file());
        fs::symlink_metadata(path).is_ok() || (is_program() && path.file_name().is_some_and(in_path))
    }

    /// Whether the compiler shows sources of its own libraries in messages, as it does where they are installed. They are no part of its toolchain.
    fn has_own_sources(&self) -> bool {
        self.roots.real(RootKind::Sysroot).is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust").exists())
    }

    /// What was observed in a sandbox, in real spelling, without what is only there. A double's own files are there, which are not among this
    /// machine's: what it found and was not given is one of those. The names that were `missed` were looked for on this machine's way up.
    fn at_home(&self, given: &CrateJob, observed: Observed, missed: &BTreeSet<OsString>) -> Observed {
        let spelling = self.spelling();
        let passed = Passed::of(self, Path::new(""));
        let moved = |places: Vec<RelPath>| -> Vec<RelPath> {
            let reals = places.iter().map(|place| spelling.real(place));
            let kept = reals.filter(|path| !path.starts_with(PLACE) && !passed.over(path));
            kept.filter_map(|path| RelPath::from_absolute(&path).ok()).collect()
        };
        let is_own = |path: &Path| {
            self.roots.iter().any(|(_, real, _)| path.starts_with(real))
                || given.job.inputs.guards.iter().any(|(input, _)| input.starts_with(path))
        };
        let found = |places: Vec<RelPath>| -> Vec<RelPath> {
            let mut found = moved(places);
            if self.double.is_some() {
                found.retain(|path| is_own(&path.to_absolute()));
            }
            found
        };
        // Where the double's linker looks for its own is nothing of this machine's.
        let not_doubles = |places: Vec<RelPath>| -> Vec<RelPath> {
            let mut absent = moved(places);
            if self.is_for_doubles_host() {
                absent.retain(|path| self.roots.iter().any(|(_, real, _)| path.to_absolute().starts_with(real)));
            }
            absent
        };
        let way_up = self.way_up();
        let above = way_up.iter().flat_map(|folder| missed.iter().map(|name| folder.join(name)));
        let above = above.filter_map(|path| RelPath::from_absolute(&path).ok());
        // The top is on both ways up, and a name counts once a folder.
        let absent: BTreeSet<RelPath> = not_doubles(observed.absent).into_iter().chain(above).collect();
        Observed {
            files: found(observed.files),
            seen: found(observed.seen),
            links: found(observed.links),
            absent: absent.into_iter().collect(),
            listed: not_doubles(observed.listed),
            ..observed
        }
    }

    /// Keeps what an agent made, which is in place already, and that this question leads to it.
    pub fn keep_made(&self, context: &Context, given: &CrateJob, made: &Hit, seen: &Seen) -> Result<(), Unkept> {
        let contents = given.given();
        for path in &seen.files {
            let now = context.hashes.hash(path).ok().map(|hashed| hashed.digest);
            if now.is_none() || contents.get(path) != now.as_ref() {
                return Err(Uncertain::Changed(path.clone()).into());
            }
        }
        let read_set = read_set::of(seen, &self.roots, &self.spelling(), &context.hashes, given.start)?;
        context.cache.keep(made, &self.key, &read_set);
        remember_needs(context, made, &read_set, &self.request.native_libraries);
        self.remember_recipe(context, made);
        Ok(())
    }

    /// Has the next action be given what this one was not; whether there is anything new in that.
    pub fn learn(&self, context: &Context, given: &CrateJob, lacking: Beyond) -> bool {
        let Some(store) = context.cache.store() else { return false };
        let known = given.beyond.with(lacking, self.key);
        known.remember(store, self);
        known.stays.is_none()
    }

    /// What a run here was seen to use that an agent was not given.
    pub fn not_given(&self, given: &CrateJob, seen: &Seen) -> Beyond {
        let contents = given.given();
        let searched: BTreeSet<PathBuf> =
            self.request.search.iter().map(|search| self.absolute(&search.path)).collect();
        // Of a crate, either of two files may be opened.
        let is_crate = |path: &Path| {
            path.parent().is_some_and(|folder| searched.contains(folder))
                && path.extension().is_some_and(|suffix| suffix == "rmeta" || suffix == "rlib")
        };
        let files = seen.files.iter().filter(|path| !contents.contains_key(path) && !is_crate(path));
        let listed = seen.listed.iter().filter(|path| !lists_the_same(given, path).unwrap_or(false));
        let env = seen.env.iter().filter(|name| !given.variables.contains(*name) && may_go_along(name));
        Beyond {
            files: files.cloned().collect(),
            listed: listed.cloned().collect(),
            env: env.filter(|name| self.is_set(name)).cloned().collect(),
            stays: None,
        }
    }
}

fn observed(made: &Hit) -> Option<Observed> {
    let digest = made.signed.result.observed.filter(|digest| digest.size_bytes <= MAX_OBSERVED_BYTES as u64)?;
    Observed::from_canonical(made.content(&digest)).ok()
}

/// Names that were looked for, in vain, at the workspace's place and in each folder above it, so by a search that came by there; and the folders at
/// and below that place which it came by. None that were looked for below another place too: whoever does that may mean the way up from there.
fn names_missed_on_way_up(observed: &Observed) -> BTreeMap<OsString, BTreeSet<PathBuf>> {
    let workspace = Path::new(RootKind::Workspace.place());
    let mut missed: BTreeMap<OsString, BTreeSet<PathBuf>> = BTreeMap::new();
    for path in observed.absent.iter().map(RelPath::to_absolute) {
        if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
            missed.entry(name.to_owned()).or_default().insert(folder.to_owned());
        }
    }
    missed.retain(|_, folders| {
        workspace.ancestors().all(|folder| folders.contains(folder))
            && folders.iter().all(|folder| folder.starts_with(workspace) || workspace.starts_with(folder))
    });
    for folders in missed.values_mut() {
        folders.retain(|folder| folder.starts_with(workspace));
    }
    missed
}

/// Whether a question was about something beside the roots, but for names `missed` on the way up: where those stand here, there may be something.
fn looks_above(observed: &Observed, missed: &BTreeSet<OsString>) -> bool {
    let roots = [RootKind::Workspace, RootKind::CargoHome, RootKind::Target, RootKind::Sysroot];
    let is_beside = |path: &RelPath| {
        let path = path.to_absolute();
        path.starts_with(PLACE)
            && path != Path::new(PLACE)
            && !path.starts_with(AGENTS)
            && !roots.iter().any(|root| path.starts_with(root.place()))
    };
    let is_missed = |path: &RelPath| {
        let path = path.to_absolute();
        path.parent() == Some(Path::new(PLACE)) && path.file_name().is_some_and(|name| missed.contains(name))
    };
    observed.absent.iter().filter(|path| !is_missed(path)).chain(&observed.files).any(is_beside)
        || observed.listed.iter().any(|path| path.to_absolute() == Path::new(PLACE))
}

/// Whether a folder has the names here that the action's inputs have in it.
fn lists_the_same(given: &CrateJob, folder: &Path) -> io::Result<bool> {
    let below = given.job.inputs.guards.iter().filter_map(|(path, _)| path.strip_prefix(folder).ok()?.iter().next());
    let names: BTreeSet<&OsStr> = below.collect();
    let mut names: Vec<Vec<u8>> = names.into_iter().map(|name| name.as_encoded_bytes().to_vec()).collect();
    Ok(names_of(folder)? == names_digest(&mut names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_for(absent: &[&str]) -> Observed {
        let absent = absent.iter().map(|path| RelPath::from_absolute(Path::new(path)).unwrap()).collect();
        Observed { absent, ..Observed::default() }
    }

    #[test]
    fn a_search_from_the_workspace_to_the_top_is_told_from_other_looks_above() {
        let search = ["/buildbee.d/workspace/a/x", "/buildbee.d/workspace/x", "/buildbee.d/x", "/x"];
        let observed = looked_for(&search);
        let missed = names_missed_on_way_up(&observed);
        let folders = ["/buildbee.d/workspace", "/buildbee.d/workspace/a"].map(PathBuf::from);
        assert_eq!(missed, [("x".into(), folders.into())].into());
        assert!(!looks_above(&observed, &missed.into_keys().collect()));
        assert!(looks_above(&observed, &BTreeSet::new()));

        for left_out in &search[1..] {
            let some: Vec<&str> = search.into_iter().filter(|path| path != left_out).collect();
            assert!(names_missed_on_way_up(&looked_for(&some)).is_empty(), "no search without {left_out}");
        }
        for more in ["/buildbee.d/cargo/registry/x", "/buildbee.d/target/x", "/usr/x"] {
            let all = [&search[..], &[more]].concat();
            assert!(names_missed_on_way_up(&looked_for(&all)).is_empty(), "perhaps one from {more}");
        }
        let observed = looked_for(&[&search[..], &["/buildbee.d/y"]].concat());
        let missed = names_missed_on_way_up(&observed).into_keys().collect();
        assert!(looks_above(&observed, &missed), "another name");
    }
}
