//! What a compiler and all that it started asked the system for, from the recorder's log.
//!
//! Neither digests nor values: files and folders are those of the run's inputs or of the machine, variables those that were handed over,
//! and whoever uses this knows both. Not here: whether an answer is still the same ([`crate::manifest`]'s users know), and policy on which
//! questions are harmless.

use std::collections::{BTreeSet, HashMap};

use thiserror::Error;

use crate::canonical::{Canonical, CanonicalError, Reader, Writer, check_ascending};
use crate::limits::{MAX_ENVIRONMENT, MAX_PATH_BYTES, MAX_READ_SET, MAX_RECORD_BYTES};
use crate::path::RelPath;
use crate::record::{Kind, records};

/// Symlinks followed in one path, as the kernel does.
const MAX_LINKS: usize = 40;
/// Folders that the system fills by itself. Not `/dev/shm`, which is a file system like others.
const SYSTEM: [&str; 3] = ["proc", "sys", "dev"];

/// What was asked for, without the program's own files. All lists are sorted, and free of repetitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Opened so that they could be read, loaded as a library, or run as a program. A folder among them was opened, not listed.
    pub files: Vec<RelPath>,
    /// Seen to be there, no more. Not those of any other list.
    pub seen: Vec<RelPath>,
    /// Symlinks whose target was read, and paths whose real name was asked for (which need not be symlinks).
    pub links: Vec<RelPath>,
    /// Looked for before the program made them, if it did, and not there.
    pub absent: Vec<RelPath>,
    /// Folders whose names could be read.
    pub listed: Vec<RelPath>,
    /// Environment variables asked for, set or not.
    pub env: Vec<String>,
    /// Those of [`env`](Self::env) asked for after a library (`.so`) had been read that the program was not started with: perhaps not
    /// by the program, but by what it loaded.
    pub late_env: Vec<String>,
    /// Libraries loaded by the program itself that refer to `environ`, so that they could have read every variable.
    pub walkers: Vec<RelPath>,
    /// Whether a socket was made: what came through it is not known.
    pub network: bool,
}

impl Canonical for Observed {
    const TAG: [u8; 4] = *b"bbV2";

    fn encode(&self, out: &mut Writer) {
        for paths in [&self.files, &self.seen, &self.links, &self.absent, &self.listed] {
            out.list(paths, Writer::path);
        }
        for names in [&self.env, &self.late_env] {
            out.list(names, |out, name| out.text(name));
        }
        out.list(&self.walkers, Writer::path);
        out.bool(self.network);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let mut paths = || {
            let paths = input.list(MAX_READ_SET, Reader::path)?;
            check_ascending(&paths, "paths observed", |path| path)?;
            Ok::<_, CanonicalError>(paths)
        };
        let (files, seen, links, absent, listed) = (paths()?, paths()?, paths()?, paths()?, paths()?);
        let mut names = || {
            let names = input.list(MAX_ENVIRONMENT, Reader::text)?;
            check_ascending(&names, "variables observed", |name| name)?;
            if names.iter().any(|name| !is_name(name)) {
                return Err(CanonicalError::Range("variable"));
            }
            Ok::<_, CanonicalError>(names)
        };
        let (env, late_env) = (names()?, names()?);
        let walkers = input.list(MAX_READ_SET, Reader::path)?;
        check_ascending(&walkers, "walkers", |path| path)?;
        Ok(Self { files, seen, links, absent, listed, env, late_env, walkers, network: input.bool()? })
    }
}

/// Whether a variable can have this name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// Why a log does not tell what was asked for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotKnown {
    /// No log, or none that the recorder wrote.
    #[error("there is no log")]
    Malformed,
    /// More was noted than the log holds.
    #[error("more than {MAX_RECORD_BYTES} bytes were noted")]
    Overflow,
    /// A process ended while it was noting something.
    #[error("a note was not finished")]
    Torn,
    /// A program does not load the recorder: it is static, of another C library, or was started without the environment.
    #[error("{expected} programs were started and {started} of them noted what they do")]
    Silent {
        /// Programs that were started.
        expected: u64,
        /// Programs that loaded the recorder.
        started: u64,
    },
    /// Something was asked in a way that is not followed.
    #[error("something was asked by {0}")]
    Unrecorded(String),
    /// A path or name that is not UTF-8, too long or too deep, or that goes through too many symlinks.
    #[error("{0:?} can't be written down")]
    Name(String),
    /// More than the limit of something.
    #[error("too many {0}")]
    TooMany(&'static str),
}

impl NotKnown {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "no-log",
            Self::Overflow => "log-full",
            Self::Torn => "log-torn",
            Self::Silent { .. } => "program-unrecorded",
            Self::Unrecorded(_) => "call-unrecorded",
            Self::Name(_) => "name-unrecorded",
            Self::TooMany(_) => "too-many-questions",
        }
    }
}

/// How a run's paths are to be understood. Neither may depend on anything that the run has changed since.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Paths that say nothing: declared outputs, temporary folders, what the toolchain's digest says already.
    pub ignored: &'a dyn Fn(&RelPath) -> bool,
    /// The target of a symlink; `None` for everything else. Asked only where a path goes through a folder and back (`a/..`).
    pub link: &'a dyn Fn(&RelPath) -> Option<String>,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

/// What a log tells. `log` is what [`crate::record::used_bytes`] says, or more.
pub fn observe(log: &[u8], view: View<'_>) -> Result<Observed, NotKnown> {
    let mut gathering = Gathering {
        view,
        answers: HashMap::new(),
        env: BTreeSet::new(),
        late_env: BTreeSet::new(),
        libraries: Libraries::Own,
        network: false,
    };
    // The first program was started by somebody who notes nothing.
    let (mut expected, mut started) = (1u64, 0u64);
    for record in records(log) {
        let (kind, content) = record?;
        gathering.library(kind, content);
        match kind {
            Kind::Started => {
                started += 1;
                if !content.is_empty() {
                    gathering.path(Kind::Read, content)?;
                }
            }
            Kind::Starting => expected += 1,
            Kind::NotStarted => expected = expected.saturating_sub(1),
            Kind::Variable => gathering.variable(content)?,
            Kind::Network => gathering.network = true,
            // Compilers ask for the time, and what they make of it is looked for in their sources. What is being made is told again when it was.
            Kind::Clock | Kind::Making | Kind::NotMade => {}
            Kind::Unrecorded => return Err(NotKnown::Unrecorded(shown(content))),
            _ => gathering.path(kind, content)?,
        }
    }
    if started < expected {
        return Err(NotKnown::Silent { expected, started });
    }
    Ok(gathering.finish())
}

fn shown(content: &[u8]) -> String {
    String::from_utf8_lossy(content.get(..content.len().min(MAX_PATH_BYTES)).unwrap_or(content)).into_owned()
}

/// Whose a path is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owner {
    /// It was there, or not, before the program began.
    #[default]
    Others,
    /// The program has removed it or given it another name: whatever is asked from then on is about its own work.
    Removed,
    /// The program has made it, so that what is below is its own too.
    Made,
}

/// What is known of one path.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    owner: Owner,
    /// What was asked while it was not the program's own: a bit for each kind.
    asked: u32,
}

impl Answers {
    fn add(&mut self, kind: Kind) {
        self.asked |= 1 << kind as u32;
    }

    fn has(self, kind: Kind) -> bool {
        self.asked & 1 << kind as u32 != 0
    }
}

struct Gathering<'a> {
    view: View<'a>,
    answers: HashMap<RelPath, Answers>,
    env: BTreeSet<String>,
    late_env: BTreeSet<String>,
    libraries: Libraries,
    network: bool,
}

/// What libraries have been read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Libraries {
    /// The first program's own, which are noted at once when it has started.
    Own,
    /// The same, and something else was noted since.
    Others,
    /// One more.
    More,
}

impl Gathering<'_> {
    fn library(&mut self, kind: Kind, content: &[u8]) {
        let is_library = matches!(kind, Kind::Read | Kind::Walker) && content.windows(3).any(|part| part == b".so");
        self.libraries = match (self.libraries, kind) {
            (Libraries::More, _) => Libraries::More,
            (Libraries::Own, Kind::Started) => Libraries::Own,
            (Libraries::Own, _) if is_library => Libraries::Own,
            (Libraries::Others, Kind::Read) if content.ends_with(b".so") => Libraries::More,
            _ => Libraries::Others,
        };
    }

    fn variable(&mut self, name: &[u8]) -> Result<(), NotKnown> {
        let name = std::str::from_utf8(name).map_err(|_| NotKnown::Name(shown(name)))?;
        // Others are never set.
        let is_late = self.libraries == Libraries::More;
        let lists = [Some(&mut self.env), Some(&mut self.late_env).filter(|_| is_late)];
        for list in lists.into_iter().flatten().filter(|list| is_name(name) && !list.contains(name)) {
            list.insert(name.to_owned());
        }
        if self.env.len() > MAX_ENVIRONMENT { Err(NotKnown::TooMany("variables")) } else { Ok(()) }
    }

    fn path(&mut self, kind: Kind, content: &[u8]) -> Result<(), NotKnown> {
        let path = resolve(content, self.view.link)?;
        if is_system(&path) || (self.view.ignored)(&path) {
            return Ok(());
        }
        if !self.answers.contains_key(&path) && self.is_below_own(&path) {
            return Ok(());
        }
        let answers = self.answers.entry(path).or_default();
        match (kind, answers.owner) {
            (Kind::Made, _) => answers.owner = Owner::Made,
            (_, Owner::Removed | Owner::Made) => {}
            (Kind::Removed, Owner::Others) => answers.owner = Owner::Removed,
            // Its content lives on under another name.
            (Kind::Taken, Owner::Others) => {
                answers.owner = Owner::Removed;
                answers.add(Kind::Read);
            }
            (kind, Owner::Others) => answers.add(kind),
        }
        if self.answers.len() > MAX_READ_SET { Err(NotKnown::TooMany("paths")) } else { Ok(()) }
    }

    fn is_below_own(&self, path: &RelPath) -> bool {
        let mut above = path.split_last().map(|(folder, _)| folder);
        while let Some(folder) = above {
            if self.answers.get(&folder).is_some_and(|answers| answers.owner == Owner::Made) {
                return true;
            }
            above = folder.split_last().map(|(folder, _)| folder);
        }
        false
    }

    fn finish(self) -> Observed {
        let mut all: Vec<(RelPath, Answers)> = self.answers.into_iter().collect();
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let those = |which: &dyn Fn(&Answers) -> bool| {
            all.iter().filter(|(_, answers)| which(answers)).map(|(path, _)| path.clone()).collect::<Vec<_>>()
        };
        let more = [Kind::Read, Kind::Link, Kind::Listed];
        Observed {
            files: those(&|answers| answers.has(Kind::Read)),
            seen: those(&|answers| answers.has(Kind::Seen) && !more.iter().any(|kind| answers.has(*kind))),
            links: those(&|answers| answers.has(Kind::Link)),
            absent: those(&|answers| answers.has(Kind::Absent)),
            listed: those(&|answers| answers.has(Kind::Listed)),
            env: self.env.into_iter().collect(),
            late_env: self.late_env.into_iter().collect(),
            walkers: those(&|answers| answers.has(Kind::Walker)),
            network: self.network,
        }
    }
}

fn is_system(path: &RelPath) -> bool {
    let mut components = path.components();
    let first = components.next();
    first.is_some_and(|first| SYSTEM.contains(&first)) && (first, components.next()) != (Some("dev"), Some("shm"))
}

/// `path` without `.` and `..`. Where a component is left again by `..`, it counts where it leads to if it is a symlink.
fn resolve(path: &[u8], link: &dyn Fn(&RelPath) -> Option<String>) -> Result<RelPath, NotKnown> {
    let bad = || NotKnown::Name(shown(path));
    let text = std::str::from_utf8(path).map_err(|_| bad())?;
    let text = text.strip_prefix('/').ok_or_else(bad)?;
    // Nearly all paths are as they should be.
    if let Ok(path) = RelPath::try_from(text) {
        return Ok(path);
    }
    let (mut n_links, mut n_steps) = (0, 0);
    let mut to_go: Vec<String> = text.rsplit('/').map(str::to_owned).collect();
    let mut at: Vec<String> = Vec::new();
    while let Some(component) = to_go.pop() {
        n_steps += 1;
        if n_steps > MAX_PATH_BYTES || to_go.len() > MAX_PATH_BYTES {
            return Err(bad());
        }
        match component.as_str() {
            "" | "." => {}
            ".." if at.is_empty() => {}
            ".." => {
                let here = RelPath::try_from(at.join("/")).map_err(|_| bad())?;
                at.pop();
                if let Some(target) = link(&here) {
                    n_links += 1;
                    if n_links > MAX_LINKS {
                        return Err(bad());
                    }
                    if target.starts_with('/') {
                        at.clear();
                    }
                    to_go.push(component);
                    to_go.extend(target.rsplit('/').map(str::to_owned));
                }
            }
            _ => at.push(component),
        }
    }
    RelPath::try_from(at.join("/")).map_err(|_| bad())
}

#[cfg(test)]
#[path = "observed_tests.rs"]
mod tests;
