//! What a compile that ran here used: by the recorder's log, without what says nothing. Blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use buildbee_proto::local::LocalOutcome;
use buildbee_proto::observed::{Observed, View, observe};
use buildbee_proto::path::RelPath;
use buildbee_proto::record::{Kind, records};

use super::keep::Unkept;
use super::plan::CratePlan;
use super::read_set::Seen;
use crate::rust::dep_info::DepInfo;
use crate::rust::env::is_harmless;
use crate::rust::request::RustOutputKind;
use crate::rust::roots::{RootKind, Roots};

/// How the wrapper calls the folder for temporary files that a compiler gets.
pub const SCRATCH: &str = "buildbee-";
/// Variable with the folder that a build script writes into.
pub const OUT_DIR: &str = "OUT_DIR";
/// Variable with the package's folder.
pub const PACKAGE: &str = "CARGO_MANIFEST_DIR";

impl CratePlan {
    /// From the log that came with `outcome`, made by the library `recorder`.
    pub fn seen(&self, outcome: &LocalOutcome, recorder: &Path) -> Result<Seen, Unkept> {
        let log = outcome.record.as_ref().ok_or(Unkept::Unseen)?;
        let passed = Passed::of(self, recorder);
        if let Some(path) = written_elsewhere(&log.0, &passed) {
            return Err(Unkept::Wrote(path));
        }
        let ignored = |path: &RelPath| passed.over(&path.to_absolute());
        let link = |path: &RelPath| {
            fs::read_link(path.to_absolute()).ok().and_then(|target| target.into_os_string().into_string().ok())
        };
        let observed = observe(&log.0, View { ignored: &ignored, link: &link }).map_err(Unkept::Unknown)?;
        self.counting(observed, self.spoken(), outcome.exit_code == Some(0))
    }

    /// What of it counts, of a compile that `succeeded` or failed; `spoken` are the variables that the crate's text names.
    pub(super) fn counting(
        &self,
        observed: Observed,
        spoken: BTreeSet<String>,
        succeeded: bool,
    ) -> Result<Seen, Unkept> {
        if observed.network {
            return Err(Unkept::Network);
        }
        if let Some(library) = observed.walkers.first() {
            return Err(Unkept::Walker(library.to_absolute()));
        }
        let mut seen = Seen { spoken, ..Seen::default() };
        let above = self.above();
        let mut looked_above = |path: &Path| {
            seen.above |= path.parent().is_some_and(|folder| above.contains(folder) && folder != Path::new("/"));
        };
        for path in observed.files.iter().chain(&observed.seen).map(RelPath::to_absolute) {
            match fs::metadata(&path) {
                Ok(meta) if meta.is_file() => {
                    looked_above(&path);
                    seen.files.insert(path);
                }
                Ok(meta) if meta.is_dir() && !above.contains(path.as_path()) => {
                    seen.there.insert(path);
                }
                Ok(_) => {}
                // It was there when it was asked for.
                Err(_) => return Err(Unkept::Gone(path)),
            }
        }
        for path in observed.links.iter().map(RelPath::to_absolute) {
            if let Ok(target) = fs::read_link(&path) {
                seen.links.insert((path, target));
            }
        }
        let absent: Vec<PathBuf> = observed.absent.iter().map(RelPath::to_absolute).collect();
        let way_up = self.way_up();
        let missed = missed_everywhere(&way_up, &absent);
        for path in absent {
            let is_on_way = path.parent().is_some_and(|folder| way_up.contains(folder));
            if is_on_way && path.file_name().is_some_and(|name| missed.contains(name)) {
                continue;
            }
            looked_above(&path);
            seen.absent.insert(path);
        }
        seen.absent_above = missed;
        let searched: BTreeSet<PathBuf> =
            self.request.search.iter().map(|search| self.absolute(&search.path)).collect();
        // What is found on the search path is opened, and counts by that. What is not found there ends the compile.
        let counts = |path: &PathBuf| !succeeded || !searched.contains(path);
        seen.listed = observed.listed.iter().map(RelPath::to_absolute).filter(counts).collect();
        seen.above |= seen.listed.iter().any(|path| above.contains(path.as_path()));
        // What the compiler asks for by itself says nothing, what the crate's text asks for does.
        seen.late_env = observed.late_env.into_iter().collect();
        seen.env = observed.env.into_iter().filter(|name| !is_harmless(name)).collect();
        seen.env.extend(seen.spoken.iter().cloned());
        Ok(seen)
    }

    pub(super) fn above(&self) -> BTreeSet<&Path> {
        above(&self.roots)
    }

    /// The folders that a search from the workspace to the top goes through, but for those that have a place.
    pub(super) fn way_up(&self) -> BTreeSet<&Path> {
        let workspace = self.roots.real(RootKind::Workspace).filter(|_| self.roots.are_placed());
        let above = self.above();
        workspace.into_iter().flat_map(|folder| folder.ancestors().skip(1)).filter(|it| above.contains(it)).collect()
    }

    /// Variables that the crate's text names.
    fn spoken(&self) -> BTreeSet<String> {
        let list = self.request.outputs.iter().find(|output| output.what == RustOutputKind::DepInfo);
        spoken(&list.and_then(|list| fs::read(self.absolute(&list.path)).ok()).unwrap_or_default())
    }
}

/// Folders that roots stand in: they are there for everybody who has the roots, but elsewhere. One that is in a root itself (the workspace, in
/// which the target folder mostly stands) has its place with that.
pub fn above(roots: &Roots) -> BTreeSet<&Path> {
    let moved = || roots.iter().filter(|(_, real, place)| real != place).map(|(_, real, _)| real);
    let has_place = |folder: &Path| moved().any(|real| folder.starts_with(real));
    moved().flat_map(|real| real.ancestors().skip(1)).filter(|folder| !has_place(folder)).collect()
}

/// Names that were looked for in each folder of `way_up`, and in vain: a search for settings that finds none. It finds none from any other
/// checkout that has none on its own way up.
fn missed_everywhere(way_up: &BTreeSet<&Path>, absent: &[PathBuf]) -> BTreeSet<OsString> {
    let mut n_missed: BTreeMap<&OsStr, usize> = BTreeMap::new();
    for path in absent {
        if let (Some(folder), Some(name)) = (path.parent(), path.file_name())
            && way_up.contains(folder)
        {
            *n_missed.entry(name).or_default() += 1;
        }
    }
    n_missed.into_iter().filter(|(_, n)| *n == way_up.len()).map(|(name, _)| name.to_owned()).collect()
}

/// Variables that the crate's text names, by its dependency file.
pub(super) fn spoken(dep_info: &[u8]) -> BTreeSet<String> {
    let variables = DepInfo::parse(dep_info).unwrap_or_default().variables;
    // It mostly stands in front of a file's name in `include!`; where its value shows, that is found in the output.
    variables.into_iter().map(|(name, _)| name).filter(|name| name != OUT_DIR).collect()
}

/// A file that is there now, was written, and is no output: macros can do that, and a result that is found would not.
fn written_elsewhere(log: &[u8], passed: &Passed<'_>) -> Option<PathBuf> {
    let made = records(log).filter_map(Result::ok).filter(|(kind, _)| *kind == Kind::Made);
    let mut paths = made.map(|(_, path)| PathBuf::from(OsStr::from_bytes(path)));
    let is_systems = |path: &Path| ["/dev", "/proc", "/sys"].iter().any(|folder| path.starts_with(folder));
    let is_file = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    paths.find(|path| !is_systems(path) && !passed.over(path) && is_file(path))
}

/// Whether a path is in the folder that the wrapper had made for this run, below that for `temporary` files.
pub fn is_scratch(path: &Path, temporary: &Path) -> bool {
    let first = path.strip_prefix(temporary).ok().and_then(|rest| rest.iter().next());
    // It is gone by now; what is there is somebody else's: a checkout may well be called so.
    first.is_some_and(|name| name.as_bytes().starts_with(SCRATCH.as_bytes()) && !temporary.join(name).exists())
}

/// Paths that say nothing of what a result depends on.
pub(super) struct Passed<'a> {
    plan: &'a CratePlan,
    outputs: BTreeSet<PathBuf>,
    session: Option<PathBuf>,
    temporary: PathBuf,
    recorder: &'a Path,
}

impl<'a> Passed<'a> {
    pub(super) fn of(plan: &'a CratePlan, recorder: &'a Path) -> Self {
        let temporary = plan.call.env.iter().find(|(name, _)| name == "TMPDIR").map(|(_, value)| PathBuf::from(value));
        Self {
            outputs: plan.request.outputs.iter().map(|output| plan.absolute(&output.path)).collect(),
            session: plan.request.incremental.as_deref().map(|folder| plan.absolute(folder)),
            temporary: temporary.filter(|folder| folder.is_absolute()).unwrap_or_else(|| PathBuf::from("/tmp")),
            recorder,
            plan,
        }
    }

    pub(super) fn over(&self, path: &Path) -> bool {
        let parts = &self.plan.parts().files;
        path == self.recorder
            || self.outputs.contains(path)
            || self.session.as_deref().is_some_and(|session| path.starts_with(session))
            || self.plan.roots.real(RootKind::Sysroot).is_some_and(|sysroot| path.starts_with(sysroot))
            || parts.binary_search_by(|(part, _)| part.as_path().cmp(path)).is_ok()
            || is_scratch(path, &self.temporary)
    }
}
