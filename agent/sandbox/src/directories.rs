//! Makes the folders of one command in its scratch folder, as the command will see them through its layers.
//!
//! The layers come from peers. Symbolic links in them are followed as the command would follow them, by text within the layers,
//! never by the kernel on the host: each path that is opened here has had all its components seen to be real folders.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, FileType, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::plan::RESERVED;
use crate::spec::{MERGED_NAME, SandboxSpec, WORK_NAME};

/// Symbolic links followed for one path, as the kernel's own limit.
const MAX_LINKS: usize = 40;
/// Components walked for one path, with those that links add.
const MAX_STEPS: usize = 4096;
const FOLDER_MODE: u32 = 0o755;
const TEMPORARY_MODE: u32 = 0o1777;

/// Why the folders of a command could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// A file of the inputs stands where a folder is needed.
    #[error("{0:?} is needed as a folder and is something else in the inputs")]
    NotAFolder(PathBuf),
    /// The links on the way lead in a circle, or through too many folders.
    #[error("too many symbolic links on the way to {0:?}")]
    Links(PathBuf),
    /// A layer has something where the sandbox mounts its own folder.
    #[error("{0:?} holds what the sandbox provides itself")]
    Reserved(PathBuf),
    /// The file system refused.
    #[error("cannot prepare {path:?}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    |source| DirectoryError::Io { path: path.to_owned(), source }
}

/// Makes `upper`, `work`, `merged`, a private `/tmp`, and the folders that `spec` asks for.
pub(crate) fn prepare(spec: &SandboxSpec) -> Result<(), DirectoryError> {
    let upper = spec.upper();
    for folder in [&upper, &spec.scratch.join(WORK_NAME), &spec.scratch.join(MERGED_NAME)] {
        make(folder, FOLDER_MODE)?;
    }
    check_reserved(&spec.layers)?;
    let view = View { layers: &spec.layers, upper: &upper };
    let temporary = view.make_all("tmp", true)?;
    fs::set_permissions(&temporary, Permissions::from_mode(TEMPORARY_MODE)).map_err(at(&temporary))?;
    for path in spec.make_directories.iter().chain([&spec.working_directory]) {
        view.make_all(path.as_str(), false)?;
    }
    Ok(())
}

/// Makes one folder with exactly `mode`, whatever the umask is.
fn make(path: &Path, mode: u32) -> Result<(), DirectoryError> {
    DirBuilder::new().mode(0o700).create(path).map_err(at(path))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at(path))
}

/// Bubblewrap mounts on these names inside the merged tree: nothing but an empty folder may stand there.
fn check_reserved(layers: &[PathBuf]) -> Result<(), DirectoryError> {
    for path in layers.iter().flat_map(|layer| RESERVED.map(|name| layer.join(name))) {
        match kind(&path)? {
            None => {}
            Some(kind) if kind.is_dir() && fs::read_dir(&path).map_err(at(&path))?.next().is_none() => {}
            Some(_) => return Err(DirectoryError::Reserved(path)),
        }
    }
    Ok(())
}

/// What stands at `path` itself, links not followed.
fn kind(path: &Path) -> Result<Option<FileType>, DirectoryError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// The layers and the upper folder above them, which holds only folders so far.
struct View<'a> {
    layers: &'a [PathBuf],
    upper: &'a Path,
}

/// What one name stands for in the merged view.
enum Found {
    /// A folder, held by these layers (none: it is new).
    Folder(Vec<PathBuf>),
    Link(PathBuf),
    Other,
}

impl View<'_> {
    /// Makes `path` and what leads to it in the upper folder, unless the layers have it (or always, when `always`). Returns where it
    /// is, or would be, in the upper folder.
    fn make_all(&self, path: &str, always: bool) -> Result<PathBuf, DirectoryError> {
        let mut queue: VecDeque<String> = components(Path::new(path));
        // The way walked so far: each name with the layers that hold the folder it stands for.
        let mut way: Vec<(String, Vec<PathBuf>)> = Vec::new();
        let mut links = 0;
        let mut steps = 0;
        while let Some(name) = queue.pop_front() {
            steps += 1;
            if steps > MAX_STEPS {
                return Err(DirectoryError::Links(path.into()));
            }
            if name == ".." {
                way.pop();
                continue;
            }
            let active = way.last().map_or(self.layers, |(_, active)| active);
            match find(active, &name)? {
                Found::Folder(folders) => way.push((name, folders)),
                Found::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(DirectoryError::Links(path.into()));
                    }
                    if target.is_absolute() {
                        way.clear();
                    }
                    for part in components(&target).into_iter().rev() {
                        queue.push_front(part);
                    }
                }
                Found::Other => return Err(DirectoryError::NotAFolder(Path::new("/").join(path))),
            }
        }
        self.make_way(&way, always)
    }

    fn make_way(&self, way: &[(String, Vec<PathBuf>)], always: bool) -> Result<PathBuf, DirectoryError> {
        let wanted = always || way.last().is_some_and(|(_, folders)| folders.is_empty());
        if way.first().is_some_and(|(name, _)| RESERVED.contains(&name.as_str())) {
            return Err(DirectoryError::Reserved(way.iter().map(|(name, _)| name).collect()));
        }
        let mut place = self.upper.to_owned();
        for (name, folders) in way {
            place.push(name);
            if wanted && kind(&place)?.is_none() {
                make(&place, mode_of(folders)?)?;
            }
        }
        Ok(place)
    }
}

/// The mode that the topmost of `folders` has, writable for us, since the merged view shows the mode of the upper one.
fn mode_of(folders: &[PathBuf]) -> Result<u32, DirectoryError> {
    match folders.first() {
        None => Ok(FOLDER_MODE),
        Some(folder) => {
            let mode = fs::symlink_metadata(folder).map_err(at(folder))?.permissions().mode();
            Ok((mode & 0o1777) | 0o700)
        }
    }
}

fn components(path: &Path) -> VecDeque<String> {
    let parts = path.as_os_str().to_string_lossy();
    parts.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

/// What `name` is in the merged folder of `active`, topmost first: the first layer that has it decides; folders are merged until
/// something else hides what is below.
fn find(active: &[PathBuf], name: &str) -> Result<Found, DirectoryError> {
    let mut folders = Vec::new();
    for layer in active {
        let path = layer.join(name);
        match kind(&path)? {
            None => {}
            Some(kind) if kind.is_dir() => folders.push(path),
            Some(_) if !folders.is_empty() => break,
            Some(kind) if kind.is_symlink() => return fs::read_link(&path).map(Found::Link).map_err(at(&path)),
            Some(_) => return Ok(Found::Other),
        }
    }
    Ok(Found::Folder(folders))
}

#[cfg(test)]
#[path = "directories_tests.rs"]
mod tests;
