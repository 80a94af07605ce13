//! What a program left in its overlay's upper folder goes into the store.
//!
//! The upper folder is the program's work, so it is hostile: folders are opened component by component without following symlinks,
//! and only regular files count (what the overlay marks as deleted is a device). Not here: running; deciding what to bring back.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use buildbee_proto::action::Command;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::limits::{MAX_OUTPUT_BYTES, MAX_OUTPUTS, MAX_PATH_DEPTH};
use buildbee_proto::outcome::OutputFile;
use buildbee_proto::path::{PathComponent, PathError, RelPath};
use buildbee_store::{Pin, PutError, Store};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use thiserror::Error;

use crate::exchange::small::Small;

/// Files up to this many bytes are read whole; larger ones are hashed first and then copied.
const SMALL_FILE_BYTES: u64 = 8 << 20;
/// Read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Symlinks followed on the way to one output, as the kernel does.
const MAX_LINKS: usize = 40;
/// Components walked on the way to one output, those of symlinks included.
const MAX_STEPS: usize = 4096;
/// Components walked on the way to all outputs: each costs a look at every layer.
const MAX_STEPS_IN_ALL: usize = 100_000;

/// Why outputs could not be taken.
#[derive(Debug, Error)]
pub enum CollectError {
    /// More files than a result can name.
    #[error("more than {MAX_OUTPUTS} output files")]
    TooMany,
    /// More bytes than a result may have.
    #[error("outputs have more than {MAX_OUTPUT_BYTES} bytes")]
    TooLarge,
    /// Folders nested too deep.
    #[error("output folders are nested too deep")]
    TooDeep,
    /// A name that is not UTF-8 or too long.
    #[error("output {name:?}: {source}")]
    Name {
        /// As the program wrote it.
        name: String,
        /// What is wrong.
        source: PathError,
    },
    /// The store did not take it.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The system failed, or the program took its own outputs' permissions away.
    #[error("output {path}: {source}")]
    Io {
        /// Below the action's root.
        path: RelPath,
        /// What the system said.
        source: io::Error,
    },
}

impl From<CollectError> for WireError {
    fn from(error: CollectError) -> Self {
        let (code, retry) = match error {
            CollectError::TooMany | CollectError::TooLarge | CollectError::TooDeep => (ErrorCode::Limit, Retry::Never),
            CollectError::Name { .. } => (ErrorCode::Invalid, Retry::Never),
            CollectError::Put(_) | CollectError::Io { .. } => (ErrorCode::Storage, Retry::OtherAgent),
        };
        Self::new(code, retry, error)
    }
}

/// What was left.
#[derive(Debug)]
pub struct Collected {
    /// Sorted by path.
    pub outputs: Vec<OutputFile>,
    /// Keeps them in the store.
    pub pins: Vec<Pin>,
}

/// Takes the declared outputs of `command` from `upper`, which lay over `layers`. Declared outputs that do not exist are left out.
/// Small ones are kept in `small` too. Touches the disk. Call it only when no process of the action is left.
pub fn collect(
    store: &Store,
    small: &Small,
    upper: &Path,
    layers: &[PathBuf],
    command: &Command,
) -> Result<Collected, CollectError> {
    let mut taking = Taking { store, small, found: BTreeMap::new(), pins: Vec::new(), n_bytes: 0 };
    let root = open(upper, folder_flags(), Mode::empty()).map_err(io_at(&RelPath::root()))?;
    let mut ways = Ways { layers, known: BTreeMap::new(), n_steps: 0 };
    for path in &command.output_files {
        if let Some((folder, name)) = open_parent(&root, &mut ways, path)? {
            taking.file(&folder, name.as_str(), path)?;
        }
    }
    for path in &command.output_directories {
        if let Some((parent, name)) = open_parent(&root, &mut ways, path)?
            && let Some(folder) = open_folder(&parent, name.as_str(), path)?
        {
            taking.folder(folder, path, 0)?;
        }
    }
    let outputs = taking.found.into_values().collect();
    Ok(Collected { outputs, pins: taking.pins })
}

fn folder_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn io_at(path: &RelPath) -> impl FnOnce(Errno) -> CollectError {
    |errno| CollectError::Io { path: path.clone(), source: errno.into() }
}

/// `None` where there is nothing of the kind that was asked for.
fn if_there<T>(opened: Result<T, Errno>, path: &RelPath) -> Result<Option<T>, CollectError> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        // Nothing there; a symlink; not a folder; a socket or the overlay's mark of something deleted.
        Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR | Errno::ENXIO | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(io_at(path)(errno)),
    }
}

fn open_folder(parent: &OwnedFd, name: &str, path: &RelPath) -> Result<Option<OwnedFd>, CollectError> {
    if_there(openat(parent, name, folder_flags(), Mode::empty()), path)
}

/// The folder of the upper layer that holds `path`, and the last name of `path`.
fn open_parent(
    root: &OwnedFd,
    ways: &mut Ways<'_>,
    path: &RelPath,
) -> Result<Option<(OwnedFd, PathComponent)>, CollectError> {
    let Some((parent, name)) = path.split_last() else { return Ok(None) };
    let Some(way) = ways.to(parent)? else { return Ok(None) };
    let mut folder =
        root.as_fd().try_clone_to_owned().map_err(|source| CollectError::Io { path: path.clone(), source })?;
    for component in way {
        match open_folder(&folder, &component, path)? {
            Some(below) => folder = below,
            None => return Ok(None),
        }
    }
    Ok(Some((folder, name)))
}

/// The ways to folders of outputs, each walked once: a command may name thousands of outputs in one folder.
struct Ways<'a> {
    layers: &'a [PathBuf],
    known: BTreeMap<RelPath, Option<Vec<String>>>,
    n_steps: usize,
}

impl Ways<'_> {
    fn to(&mut self, folder: RelPath) -> Result<Option<Vec<String>>, CollectError> {
        if let Some(way) = self.known.get(&folder) {
            return Ok(way.clone());
        }
        let mut n_steps = 0;
        let way = resolve(self.layers, &folder, &mut n_steps);
        self.n_steps += n_steps;
        if self.n_steps > MAX_STEPS_IN_ALL {
            return Err(CollectError::TooDeep);
        }
        self.known.insert(folder, way.clone());
        Ok(way)
    }
}

/// The folder that `path` stands for in the merged layers, symlinks of the layers followed as the program follows them: by text within
/// the layers, never by the kernel. `None` where the links lead nowhere. Counts its steps.
fn resolve(layers: &[PathBuf], path: &RelPath, n_steps: &mut usize) -> Option<Vec<String>> {
    let mut queue: VecDeque<String> = path.components().map(str::to_owned).collect();
    // Each name with the folders that it stands for.
    let mut way: Vec<(String, Vec<PathBuf>)> = Vec::new();
    let mut n_links = 0;
    while let Some(name) = queue.pop_front() {
        *n_steps += 1;
        if *n_steps > MAX_STEPS {
            return None;
        }
        if name == ".." {
            way.pop();
            continue;
        }
        let target = match find(way.last().map_or(layers, |(_, folders)| folders), &name) {
            Found::Folders(folders) => {
                way.push((name, folders));
                continue;
            }
            Found::Link(target) => target,
        };
        n_links += 1;
        if n_links > MAX_LINKS {
            return None;
        }
        if target.is_absolute() {
            way.clear();
        }
        let parts: Vec<String> =
            target.to_str()?.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
        for part in parts.into_iter().rev() {
            queue.push_front(part);
        }
    }
    Some(way.into_iter().map(|(name, _)| name).collect())
}

/// What a name stands for in the merged layers.
enum Found {
    /// These are merged, if there are any.
    Folders(Vec<PathBuf>),
    /// The topmost layer that has it has a symlink there.
    Link(PathBuf),
}

/// What `name` is in the merged `folders`, topmost first.
fn find(folders: &[PathBuf], name: &str) -> Found {
    let mut below = Vec::new();
    for folder in folders {
        let path = folder.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => below.push(path),
            Ok(found) if below.is_empty() && found.is_symlink() => match fs::read_link(&path) {
                Ok(target) => return Found::Link(target),
                Err(_) => break,
            },
            // Something that is no folder hides what lies below it.
            Ok(_) => break,
            Err(_) => {}
        }
    }
    Found::Folders(below)
}

struct Taking<'a> {
    store: &'a Store,
    small: &'a Small,
    found: BTreeMap<RelPath, OutputFile>,
    pins: Vec<Pin>,
    n_bytes: u64,
}

impl Taking<'_> {
    fn file(&mut self, folder: &OwnedFd, name: &str, path: &RelPath) -> Result<(), CollectError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let Some(file) = if_there(openat(folder, name, flags, Mode::empty()), path)? else { return Ok(()) };
        let status = fstat(&file).map_err(io_at(path))?;
        if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Ok(());
        }
        if self.found.contains_key(path) {
            return Ok(());
        }
        if self.found.len() >= MAX_OUTPUTS {
            return Err(CollectError::TooMany);
        }
        let size_bytes = u64::try_from(status.st_size).unwrap_or(u64::MAX);
        self.n_bytes = self.n_bytes.saturating_add(size_bytes);
        if self.n_bytes > MAX_OUTPUT_BYTES {
            return Err(CollectError::TooLarge);
        }
        let digest = self.put(File::from(file), size_bytes, path)?;
        let output = OutputFile { path: path.clone(), digest, mode: status.st_mode & 0o777 };
        self.found.insert(path.clone(), output);
        Ok(())
    }

    fn put(&mut self, mut file: File, size_bytes: u64, path: &RelPath) -> Result<Digest, CollectError> {
        let failed = |source| CollectError::Io { path: path.clone(), source };
        if size_bytes <= SMALL_FILE_BYTES {
            let mut content = Vec::new();
            file.take(SMALL_FILE_BYTES).read_to_end(&mut content).map_err(failed)?;
            let digest = Digest::of(&content);
            self.pins.push(self.store.pin([digest]));
            self.store.put_expected(&digest, &content)?;
            self.small.keep(digest, &content);
            return Ok(digest);
        }
        let mut hasher = blake3::Hasher::new();
        let mut n_bytes = 0;
        each_piece(&mut file, size_bytes, |piece| {
            hasher.update(piece);
            n_bytes += piece.len() as u64;
            Ok(())
        })
        .map_err(failed)?;
        let digest = Digest::from_blake3(hasher.finalize(), n_bytes);
        self.pins.push(self.store.pin([digest]));
        file.rewind().map_err(failed)?;
        let mut writer = self.store.writer(digest)?;
        let mut refused = None;
        let copied = each_piece(&mut file, n_bytes, |piece| {
            writer.write(piece).map_err(|error| {
                refused = Some(error);
                io::Error::other("refused")
            })
        });
        match (refused, copied) {
            (Some(error), _) => return Err(error.into()),
            (None, copied) => copied.map_err(failed)?,
        }
        writer.commit()?;
        Ok(digest)
    }

    fn folder(&mut self, folder: OwnedFd, path: &RelPath, depth: usize) -> Result<(), CollectError> {
        if depth > MAX_PATH_DEPTH {
            return Err(CollectError::TooDeep);
        }
        let at = folder.try_clone().map_err(|source| CollectError::Io { path: path.clone(), source })?;
        let mut listing = Dir::from_fd(folder).map_err(io_at(path))?;
        for entry in listing.iter() {
            let entry = entry.map_err(io_at(path))?;
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let named = |source| CollectError::Name { name: String::from_utf8_lossy(bytes).into_owned(), source };
            let text = std::str::from_utf8(bytes)
                .map_err(|_| named(PathError::NotUtf8(String::from_utf8_lossy(bytes).into_owned().into())))?;
            let name = PathComponent::try_from(text).map_err(named)?;
            let below = path.join(&name).map_err(named)?;
            match open_folder(&at, text, &below)? {
                Some(inner) => self.folder(inner, &below, depth + 1)?,
                None => self.file(&at, text, &below)?,
            }
        }
        Ok(())
    }
}

/// At most `size_bytes` of `file`, in pieces.
fn each_piece(file: &mut File, size_bytes: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut limited = file.take(size_bytes);
    loop {
        match limited.read(&mut piece)? {
            0 => return Ok(()),
            n => each(&piece[..n])?,
        }
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
