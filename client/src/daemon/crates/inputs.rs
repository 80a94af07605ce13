//! Everything that a crate's action is given, put together without asking a compiler, so that two desktops with the same files have the same
//! action: the package's folder, what its build script made, the crates that it needs, and what the command names. Blocks.
//!
//! What a compile reads beyond that it does not find in the sandbox: it fails there, runs here, and is known from then on ([`Beyond`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::digest::Digest;
use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::{PathError, RelPath};
use buildbee_store::Store;
use memchr::memmem;
use thiserror::Error;

use super::beyond::Beyond;
use super::by_content::CrateFiles;
use super::clippy;
use super::closure::{self, stem};
use super::needs::{LibraryFolder, Needs, needs};
use super::package::{Extent, PackageError, Walk};
use super::plan::CratePlan;
use super::read_set::Spelling;
use crate::inputs::discover::{Inputs, OutputPlace};
use crate::inputs::filehash::{FileHashes, FileIdentity, Hashed};
use crate::inputs::recorded::SettledFolders;
use crate::inputs::tree::{Conflict, TreeBuilder};
use crate::rust::dep_info::DepInfo;
use crate::rust::request::{CrateType, NativeLibrary, RustDriver, RustRequest, SearchPathKind};
use crate::rust::roots::RootKind;
use crate::rust::scan;
use crate::toolchain::rust::library::Folders;

/// Variable with the folder that a build script writes into.
const OUT_DIR: &str = "OUT_DIR";

/// Why a crate's inputs can't be told. Each ends in a local run.
#[derive(Debug, Error)]
pub enum CrateInputError {
    /// The package's folder, or the build script's.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A file can't be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is not known what a library needs: it was made by another tool, or before the cache was emptied.
    #[error("it is not known yet which crates {library} needs", library = .0.display())]
    UnknownLibrary(PathBuf),
    /// A crate that is looked for on the search path.
    #[error("the crate {0} has no path")]
    Searched(String),
    /// A path that no tree can hold.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Two things stand at one place.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

impl CrateInputError {
    /// The reason's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Package(PackageError::TooMuch(_)) => "package-too-large",
            Self::Package(PackageError::Io { .. }) | Self::Io { .. } => "input-unreadable",
            Self::UnknownLibrary(_) => "unknown-library",
            Self::Searched(_) => "searched-crate",
            Self::Path(_) | Self::Conflict(_) => "unusual-path",
        }
    }
}

/// Crates that come with the compiler, and need no path.
const OF_SYSROOT: [&str; 5] = ["proc_macro", "std", "core", "alloc", "test"];

/// Names in a folder that is listed; of a folder with more, none are given.
const MAX_NAMES: usize = 20_000;

/// What stands in sources whose macros others use.
const EXPORTS_MACROS: &[u8] = b"macro_export";

/// What is known of files.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// Their digests.
    pub hashes: &'a FileHashes,
    /// What they tell.
    pub files: &'a CrateFiles,
    /// What else compiles have told.
    pub store: &'a Store,
}

/// What an action of `plan` is given, with what is known of it `beyond` its package.
pub fn gather(plan: &CratePlan, memory: Memory<'_>, beyond: &Beyond) -> Result<Inputs, CrateInputError> {
    let mut gathering = Gathering {
        plan,
        memory,
        spelling: plan.spelling(),
        tree: TreeBuilder::default(),
        read: BTreeMap::new(),
        linked: BTreeSet::new(),
    };
    gathering.package()?;
    gathering.crates()?;
    gathering.named()?;
    gathering.beyond(beyond)?;
    gathering.finish()
}

struct Gathering<'a> {
    plan: &'a CratePlan,
    memory: Memory<'a>,
    spelling: Spelling<'a>,
    tree: TreeBuilder,
    read: BTreeMap<PathBuf, Hashed>,
    /// Libraries that sources link by attribute.
    linked: BTreeSet<String>,
}

impl Gathering<'_> {
    fn package(&mut self) -> Result<(), CrateInputError> {
        let (request, roots) = (&self.plan.request, &self.plan.roots);
        let source = self.plan.absolute(&request.source);
        let mut walk = Walk::default();
        if let Some(package) = &request.package {
            let fetched = roots.real(RootKind::CargoHome).is_some_and(|home| package.starts_with(home));
            let member = Extent::Member { target: roots.real(RootKind::Target) };
            walk.add(package, if fetched { Extent::Whole } else { member })?;
        } else if let Some(folder) = source.parent() {
            walk.add(folder, Extent::Member { target: roots.real(RootKind::Target) })?;
        }
        if let Some((_, folder)) = request.env.iter().find(|(name, _)| name == OUT_DIR) {
            walk.add(Path::new(folder), Extent::Whole)?;
        }
        for folder in &walk.folders {
            let place = self.place(folder)?;
            self.tree.directory(&place)?;
        }
        walk.files.push(source);
        walk.files.iter().try_for_each(|file| self.file(file))?;
        if self.plan.linker.is_some() || has_native(request) {
            let sources = self.read.iter().filter(|(path, _)| is_source(path));
            let linked: Vec<_> = sources.map(|(path, hashed)| self.linked_by(path, hashed)).collect();
            self.linked.extend(linked.into_iter().flatten());
        }
        Ok(())
    }

    /// What a source links by attribute. One that can't be read any more fails elsewhere.
    fn linked_by(&self, path: &Path, hashed: &Hashed) -> BTreeSet<String> {
        let linked = self.memory.files.linked.of(path, &hashed.digest, |text| Arc::new(scan::linked(text)));
        linked.map(Arc::unwrap_or_clone).unwrap_or_default()
    }

    fn crates(&mut self) -> Result<(), CrateInputError> {
        let request = &self.plan.request;
        let holds_crates =
            |kind| matches!(kind, SearchPathKind::Dependency | SearchPathKind::All | SearchPathKind::Crate);
        let mut folders: Vec<PathBuf> = (request.search.iter())
            .filter(|search| holds_crates(search.kind))
            .map(|search| self.plan.absolute(&search.path))
            .collect();
        folders.dedup();
        let folders: Vec<LibraryFolder> = folders.into_iter().map(LibraryFolder::list).collect();
        for folder in &folders {
            let place = self.place(&folder.path)?;
            self.tree.directory(&place)?;
        }
        let mut todo: Vec<PathBuf> = Vec::new();
        let mut known: BTreeSet<String> = BTreeSet::new();
        for it in &request.externs {
            let Some(path) = &it.path else {
                if OF_SYSROOT.contains(&it.name.as_str()) {
                    continue;
                }
                return Err(CrateInputError::Searched(it.name.clone()));
            };
            let path = self.plan.absolute(path);
            self.file(&path)?;
            known.extend(path.file_name().and_then(|name| stem(name.to_str()?)).map(str::to_owned));
            todo.push(path);
        }
        while let Some(library) = todo.pop() {
            for stem in self.needed(&library, &folders)? {
                if known.contains(&stem) {
                    continue;
                }
                // One that is in no folder is the compiler's own, or only looks like a crate.
                if let Some(path) = folders.iter().find_map(|folder| self.library(&folder.path, &stem)) {
                    self.file(&path)?;
                    todo.push(path);
                }
                known.insert(stem);
            }
        }
        for folder in &folders {
            for stem in &known {
                self.sources_of(&folder.path, stem)?;
            }
        }
        self.systems_libraries()
    }

    /// What a linker opens of the system for the crates that are linked, and that is no part of every link.
    fn systems_libraries(&mut self) -> Result<(), CrateInputError> {
        let (plan, request) = (self.plan, &self.plan.request);
        let Some(linker) = &plan.linker else { return Ok(()) };
        let libraries = self.read.iter().filter(|(path, _)| path.extension().is_some_and(|suffix| suffix == "rlib"));
        let mut names: BTreeSet<String> =
            libraries.flat_map(|(_, hashed)| closure::native(self.memory.store, &hashed.digest)).collect();
        names.extend(request.native_libraries.iter().map(NativeLibrary::linker_name));
        names.append(&mut self.linked.clone());
        let own = request.search.iter().filter(|search| is_native(search.kind));
        let mut folders: Vec<PathBuf> = own.map(|search| plan.absolute(&search.path)).collect();
        folders.extend(linker.folders.0.iter().cloned());
        let is_part = |path: &Path| plan.parts().files.binary_search_by(|(part, _)| part.as_path().cmp(path)).is_ok();
        for path in Folders(folders).find(names.iter().map(String::as_str)).files {
            if !path.canonicalize().is_ok_and(|real| is_part(&real)) {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    /// Sources of a crate that matter for those above it, where its dependency file tells. To judge a warning, rustc looks at the text of the macro
    /// that its place comes from: those that define macros for others are given. And a linker looks for what they link by attribute. Any of them may
    /// be missing here.
    fn sources_of(&mut self, folder: &Path, stem: &str) -> Result<(), CrateInputError> {
        let Some(name) = stem.strip_prefix("lib") else { return Ok(()) };
        let list = folder.join(format!("{name}.d"));
        let Ok(hashed) = self.memory.hashes.hash(&list) else { return Ok(()) };
        let named = |text: &[u8]| {
            let files = DepInfo::parse(text).unwrap_or_default().files;
            files.into_iter().filter(|path| is_source(path)).collect()
        };
        let Ok(sources) = self.memory.files.sources.of(&list, &hashed.digest, named) else { return Ok(()) };
        let links = self.plan.linker.is_some();
        for path in sources.iter().filter(|path| links || path.is_absolute()) {
            // Cargo compiles all members in one folder.
            let whole = self.plan.absolute(path);
            let Ok(hashed) = self.memory.hashes.hash(&whole) else { continue };
            if links {
                let linked = self.linked_by(&whole, &hashed);
                self.linked.extend(linked);
            }
            let exports = |text: &[u8]| memmem::find(text, EXPORTS_MACROS).is_some();
            let is_looked_for = path.is_absolute() && self.is_known_by_path(path);
            if is_looked_for && self.memory.files.macros.of(path, &hashed.digest, exports).unwrap_or_default() {
                self.file(path)?;
            }
        }
        Ok(())
    }

    /// Whether rustc may look for a dependency's source where it is here. Metadata that was made with names holds the name; if this crate has no
    /// place for that folder (a member of the workspace has none for the cargo home), the real one would tell agents whose home it is, for
    /// nothing, and no colleague would have the same action. Should rustc look there all the same, the verdict sees it.
    fn is_known_by_path(&self, path: &Path) -> bool {
        let roots = &self.plan.roots;
        !roots.are_placed() || roots.iter().any(|(_, real, _)| path.starts_with(real))
    }

    /// Stems of the crates that a library needs, by the metadata beside it where there is some: a library can be large.
    fn needed(&self, library: &Path, folders: &[LibraryFolder]) -> Result<Vec<String>, CrateInputError> {
        let failed = |error| CrateInputError::Io { path: library.to_owned(), error };
        let metadata = library.with_extension("rmeta");
        let told_by = if metadata.is_file() { &metadata } else { library };
        let hashed = self.hash(told_by)?;
        match self.memory.files.needs.of(told_by, &hashed.digest, needs).map_err(failed)? {
            Needs::These(endings) => {
                let stems = endings.iter().flat_map(|ending| folders.iter().flat_map(|folder| folder.with(ending)));
                Ok(stems.map(str::to_owned).collect())
            }
            Needs::Unknown => {
                let digest = self.hash(library)?.digest;
                let stems = closure::recall(self.memory.store, &digest);
                stems.map(Vec::from_iter).ok_or_else(|| CrateInputError::UnknownLibrary(library.to_owned()))
            }
        }
    }

    /// The file that a compile opens of a crate it needs: its metadata, or where it is linked, all of it.
    fn library(&self, folder: &Path, stem: &str) -> Option<PathBuf> {
        let request = &self.plan.request;
        let takes_all = request.links || request.crate_types.contains(&CrateType::Staticlib);
        let order = if takes_all { [".rlib", ".so", ".rmeta"] } else { [".rmeta", ".so", ".rlib"] };
        let places = order.map(|suffix| folder.join(format!("{stem}{suffix}")));
        places.into_iter().find(|path| path.is_file())
    }

    /// What earlier compiles were seen to use. What is not there any more is no input.
    fn beyond(&mut self, beyond: &Beyond) -> Result<(), CrateInputError> {
        for path in beyond.files.iter().filter(|path| path.is_file()) {
            self.file(path)?;
        }
        for folder in &beyond.listed {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            let place = self.place(folder)?;
            self.tree.directory(&place)?;
            for path in entries.take(MAX_NAMES).flatten().map(|entry| entry.path()) {
                if path.is_file() {
                    self.file(&path)?;
                } else if path.is_dir() {
                    let place = self.place(&path)?;
                    self.tree.directory(&place)?;
                }
            }
        }
        Ok(())
    }

    fn named(&mut self) -> Result<(), CrateInputError> {
        let request = &self.plan.request;
        for path in &request.named_inputs {
            self.file(&self.plan.absolute(path))?;
        }
        if request.driver == RustDriver::Clippy {
            let mut read = clippy::files(&self.plan.call.cwd, &self.plan.call.env);
            // Settings beside the places are found by the verdict, and asked for with real paths then.
            read.retain(|path| self.is_known_by_path(path));
            read.iter().try_for_each(|path| self.file(path))?;
        }
        for search in &request.search {
            let folder = self.plan.absolute(&search.path);
            if folder.is_dir() {
                let place = self.place(&folder)?;
                self.tree.directory(&place)?;
            }
            if is_native(search.kind) {
                let named = request.native_libraries.iter().flat_map(names_of);
                let linked = self.linked.iter().flat_map(|name| files_of(name));
                let paths: Vec<PathBuf> = named.chain(linked).map(|name| folder.join(name)).collect();
                paths.iter().filter(|path| path.is_file()).try_for_each(|path| self.file(path))?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), CrateInputError> {
        let hashed = self.hash(path)?;
        let (path, folders) = without_ups(path).unwrap_or_else(|| (path.to_owned(), Vec::new()));
        for folder in folders {
            let place = self.place(&folder)?;
            self.tree.directory(&place)?;
        }
        let place = self.place(&path)?;
        let given = self.plan.twins.get(&hashed.digest).map_or(hashed.digest, |twin| twin.digest);
        self.tree.file(&place, given, hashed.executable)?;
        self.read.insert(path, hashed);
        Ok(())
    }

    fn hash(&self, path: &Path) -> Result<Hashed, CrateInputError> {
        self.memory.hashes.hash(path).map_err(|error| CrateInputError::Io { path: path.to_owned(), error })
    }

    fn place(&self, path: &Path) -> Result<RelPath, CrateInputError> {
        let is_in_root = self.plan.roots.iter().any(|(_, real, _)| path.starts_with(real));
        if !is_in_root
            && let (Some(folder), Some(name)) = (path.parent(), path.file_name())
            && let Ok(folder) = folder.canonicalize()
        {
            // A folder in the place of one of the toolchain's symlinks would hide what that leads to.
            return Ok(RelPath::from_absolute(&folder.join(name))?);
        }
        Ok(RelPath::from_absolute(&self.spelling.places().path(path))?)
    }

    fn finish(mut self) -> Result<Inputs, CrateInputError> {
        let request = &self.plan.request;
        let cwd = self.place(&self.plan.call.cwd)?;
        self.tree.directory(&cwd)?;
        let mut outputs = Vec::with_capacity(request.outputs.len());
        for output in &request.outputs {
            let path = self.plan.absolute(&output.path);
            let place = self.place(&path)?;
            if let Some((folder, _)) = place.split_last() {
                self.tree.directory(&folder)?;
            }
            let before = fs::symlink_metadata(&path).ok().map(|meta| FileIdentity::of(&meta));
            outputs.push(OutputPlace { place, always: output.always, before });
        }
        let given = |(path, hashed): (&PathBuf, &Hashed)| match self.plan.twins.get(&hashed.digest) {
            Some(twin) => (twin.digest, twin.path.clone()),
            None => (hashed.digest, path.clone()),
        };
        let files: BTreeMap<Digest, PathBuf> = self.read.iter().map(given).collect();
        Ok(Inputs {
            read_set: ReadSet::default(),
            folders: SettledFolders::default(),
            listed: false,
            tree: Arc::new(self.tree.finish()),
            files,
            guards: self.read.into_iter().collect(),
            outputs,
            logical_directory: cwd.to_absolute(),
        })
    }
}

/// The path without `..`, and the folders that stand before one: they have to be there for it to lead anywhere. `None` where there is none, or it
/// would lead elsewhere, since a link stands before it.
fn without_ups(path: &Path) -> Option<(PathBuf, Vec<PathBuf>)> {
    let (mut plain, mut folders) = (PathBuf::new(), Vec::new());
    for component in path.components() {
        if component != Component::ParentDir {
            plain.push(component);
            continue;
        }
        if !fs::symlink_metadata(&plain).is_ok_and(|meta| meta.is_dir()) {
            return None;
        }
        folders.push(plain.clone());
        if !plain.pop() {
            return None;
        }
    }
    (!folders.is_empty()).then_some((plain, folders))
}

/// What a native library's file may be called.
fn names_of(library: &NativeLibrary) -> Vec<String> {
    let name = &library.name;
    if library.modifiers.iter().any(|modifier| modifier == "+verbatim") {
        return vec![name.clone()];
    }
    files_of(name).into()
}

fn files_of(name: &str) -> [String; 3] {
    [format!("lib{name}.a"), format!("lib{name}.so"), format!("{name}.lib")]
}

fn is_native(kind: SearchPathKind) -> bool {
    matches!(kind, SearchPathKind::Native | SearchPathKind::All)
}

/// Whether a folder is named in which native libraries are looked for.
fn has_native(request: &RustRequest) -> bool {
    request.search.iter().any(|search| is_native(search.kind))
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ups_are_gone_where_no_link_stands_before_them() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("a/src")).unwrap();
        fs::create_dir_all(top.join("b/c")).unwrap();
        std::os::unix::fs::symlink("../b/c", top.join("a/link")).unwrap();
        let of = |name: &str| without_ups(&top.join(name));
        assert_eq!(of("a/src/../data/x.rs"), Some((top.join("a/data/x.rs"), vec![top.join("a/src")])));
        assert_eq!(of("a/link/../data/x.rs"), None);
        assert_eq!(of("a/none/../data/x.rs"), None);
        assert_eq!(of("a/data/x.rs"), None);
        assert_eq!(without_ups(Path::new("/../x")), None);
    }
}
