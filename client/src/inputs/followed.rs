//! Remembers where the includes of one search path lead, so that headers that hundreds of compiles include are looked up once.
//!
//! What a name in a folder leads to can't change without changing the folder's times, on a file system whose times can be believed. What
//! was found counts as long as the folders that were looked into are the same ones with the same times, and these were clearly older than
//! the look. In a folder that changes all the time, such as one that objects are written to, each name is looked at each time. Only what
//! needs no further thought is remembered: a regular file, or nothing; no symlink, no folder, no precompiled header.
//!
//! Looks at nothing itself: [`super::lookup`] does, and says what it saw.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildbee_proto::path::RelPath;

use super::devices::Devices;
use super::resolve::Folder;
use super::scan::{Form, Include, Scan};

/// Places that one memory remembers; a look that begins after that begins another memory.
const MAX_PLACES: usize = 50_000;
/// Places that all memories together remember; beyond it they start over.
const MAX_ALL_PLACES: usize = 100_000;

/// An include, as a memory counts them.
pub(super) type IncludeNumber = usize;
/// A folder, as a memory counts them.
pub(super) type FolderNumber = usize;
/// How often a folder had become another, or had got other times, when it was looked at.
pub(super) type Version = u64;

/// An include, as one file or many ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    /// The includer's folder, where it counts. As bytes, which are hashed faster than components; so below.
    pub folder: Option<OsString>,
    /// The name.
    pub include: Include,
    /// Whether it is asked for by `__has_include`.
    pub probe: bool,
}

/// One place that was looked at for an include.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The folder.
    pub folder: FolderNumber,
    /// The name in it.
    pub name: OsString,
    /// Where that is, or the first place on the way where nothing is.
    pub place: RelPath,
    /// Whether a regular file is there.
    pub is_there: bool,
}

/// Where an include leads.
#[derive(Clone, Debug)]
pub(super) struct Led {
    /// All places, in order.
    pub steps: Arc<[Step]>,
    /// Of each step's folder, if it can be told whether it changes.
    pub versions: Vec<Option<Version>>,
}

/// An include that is to be followed.
#[derive(Debug)]
pub(super) struct Todo {
    pub number: IncludeNumber,
    pub asked: Arc<Asked>,
    pub known: Known,
}

/// What is known of where an include leads.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// Nothing.
    Nothing,
    /// Nothing, but another look is at it.
    Soon,
    /// Where it led.
    Led(Arc<Led>),
}

/// Places that all memories remember.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<AtomicUsize>);

impl Places {
    /// Whether it is time to start over.
    pub fn are_too_many(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MAX_ALL_PLACES
    }
}

/// A file's text, and what it includes.
type Includer = (Arc<Scan>, Arc<[IncludeNumber]>);

#[derive(Debug, Default)]
struct Memory {
    includers: HashMap<OsString, Includer>,
    numbers: HashMap<Arc<Asked>, IncludeNumber>,
    includes: Vec<(Arc<Asked>, Known)>,
    folder_numbers: HashMap<OsString, FolderNumber>,
    folders: Vec<(PathBuf, Option<Folder>, Version)>,
    n_places: usize,
}

/// The memory of one search path and one working directory.
#[derive(Debug, Default)]
pub struct Followed {
    memory: Mutex<Memory>,
    all_places: Places,
    /// Whose times count.
    pub(super) devices: Devices,
}

impl Followed {
    /// An empty one, which counts what it remembers in `all_places` too.
    pub fn new(all_places: Places) -> Self {
        Self { memory: Mutex::default(), all_places, devices: Devices::default() }
    }

    /// Whether it remembers so much that the next look should begin another.
    pub fn is_full(&self) -> bool {
        self.memory().n_places > MAX_PLACES
    }

    /// What `file` (as spelled) asks for, but for what is in `done`, where it is added.
    pub(super) fn asked_by(&self, file: &Path, scan: &Arc<Scan>, done: &mut Vec<bool>) -> Vec<Todo> {
        let mut memory = self.memory();
        let includes = match memory.includers.get(file.as_os_str()) {
            Some((known, includes)) if Arc::ptr_eq(known, scan) => Arc::clone(includes),
            _ => memory.includer(file, scan),
        };
        if done.len() < memory.includes.len() {
            done.resize(memory.includes.len(), false);
        }
        let todo = |&number: &IncludeNumber| {
            let is_news = done.get_mut(number).is_some_and(|done| !std::mem::replace(done, true));
            is_news.then(|| memory.todo(number)).flatten()
        };
        includes.iter().filter_map(todo).collect()
    }

    /// What is known by now of an include that another look was at. Whoever gets nothing follows it.
    pub(super) fn asked_again(&self, number: IncludeNumber) -> Option<Todo> {
        self.memory().todo(number)
    }

    /// Where an include leads is not to be remembered.
    pub(super) fn give_up(&self, number: IncludeNumber) {
        if let Some((_, known)) = self.memory().includes.get_mut(number) {
            *known = Known::Nothing;
        }
    }

    /// Where an include was seen to lead.
    pub(super) fn remember(&self, number: IncludeNumber, led: Led) {
        let mut memory = self.memory();
        let n_places = led.steps.len();
        let Some((_, known)) = memory.includes.get_mut(number) else { return };
        let n_before = match std::mem::replace(known, Known::Led(Arc::new(led))) {
            Known::Led(before) => before.steps.len(),
            Known::Nothing | Known::Soon => 0,
        };
        memory.n_places = (memory.n_places + n_places).saturating_sub(n_before);
        self.all_places.0.fetch_add(n_places, Ordering::Relaxed);
        self.all_places.0.fetch_sub(n_before, Ordering::Relaxed);
    }

    /// The number of the folder that is spelled so.
    pub(super) fn folder(&self, spelled: &Path) -> FolderNumber {
        let mut memory = self.memory();
        if let Some(&number) = memory.folder_numbers.get(spelled.as_os_str()) {
            return number;
        }
        let number = memory.folders.len();
        memory.folders.push((spelled.to_owned(), None, 0));
        memory.folder_numbers.insert(spelled.as_os_str().to_owned(), number);
        number
    }

    /// How a folder is spelled.
    pub(super) fn spelled(&self, number: FolderNumber) -> PathBuf {
        self.memory().folders.get(number).map(|(spelled, ..)| spelled.clone()).unwrap_or_default()
    }

    /// Which version of a folder `now` is: the newest known, or a new one.
    pub(super) fn version(&self, number: FolderNumber, now: Folder) -> Option<Version> {
        let mut memory = self.memory();
        let (_, known, version) = memory.folders.get_mut(number)?;
        if known.as_ref() != Some(&now) {
            *known = Some(now);
            *version += 1;
        }
        Some(*version)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Whole at every point where a panic could strike.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.all_places.0.fetch_sub(self.memory().n_places, Ordering::Relaxed);
    }
}

impl Memory {
    /// Whoever gets nothing is taken to be at it from then on.
    fn todo(&mut self, number: IncludeNumber) -> Option<Todo> {
        let (asked, known) = self.includes.get_mut(number)?;
        let todo = Todo { number, asked: Arc::clone(asked), known: known.clone() };
        if matches!(known, Known::Nothing) {
            *known = Known::Soon;
        }
        Some(todo)
    }

    fn includer(&mut self, file: &Path, scan: &Arc<Scan>) -> Arc<[IncludeNumber]> {
        let folder = file.parent().unwrap_or(Path::new(""));
        let number = |include: &Include| {
            let quoted = include.form == Form::Quoted;
            let probe = scan.probes.contains(include);
            let asked =
                Asked { folder: quoted.then(|| folder.as_os_str().to_owned()), include: include.clone(), probe };
            if let Some(&number) = self.numbers.get(&asked) {
                return number;
            }
            let (number, asked) = (self.includes.len(), Arc::new(asked));
            self.numbers.insert(Arc::clone(&asked), number);
            self.includes.push((asked, Known::Nothing));
            number
        };
        let includes: Arc<[IncludeNumber]> = scan.includes.iter().map(number).collect();
        self.includers.insert(file.as_os_str().to_owned(), (Arc::clone(scan), Arc::clone(&includes)));
        includes
    }
}

#[cfg(test)]
#[path = "followed_tests.rs"]
mod tests;
