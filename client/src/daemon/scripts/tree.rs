//! What a script has left in its folder: files, folders, symlinks that stay within. Blocks.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use buildbee_proto::limits::{MAX_OUTPUTS, MAX_PATH_BYTES};

use super::unsound::Unsound;
use crate::dispatch::attempt::MAX_RESULT_CONTENT_BYTES;

/// Entries of all kinds.
const MAX_ENTRIES: usize = MAX_OUTPUTS - 1;
/// Folders in folders.
const MAX_DEPTH: usize = 64;
/// What programs ask for when they make a folder.
const NEW_FOLDER_MODE: u32 = 0o777;
/// Permission bits, with those that let others act as the owner.
const MODE_BITS: u32 = 0o7777;
/// The longest layout that is read: as many paths and targets as there may be entries.
pub const MAX_LAYOUT_BYTES: u64 = (MAX_ENTRIES * 2 * (MAX_PATH_BYTES + 2)) as u64;

/// A file, by its path in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative.
    pub path: PathBuf,
    /// Permission bits, as they are.
    pub mode: u32,
}

/// Everything in a folder that is no file. Outer folders before inner ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Folders, relative.
    folders: Vec<PathBuf>,
    /// Symlinks, relative, and where they lead to, relative too.
    links: Vec<(PathBuf, PathBuf)>,
}

/// A folder's content.
#[derive(Debug, Default)]
pub struct Tree {
    /// Files.
    pub files: Vec<File>,
    /// All else.
    pub layout: Layout,
    n_bytes: u64,
}

impl Tree {
    /// Of `folder`, in which folders are made under `umask`.
    pub fn of(folder: &Path, umask: u32) -> Result<Self, Unsound> {
        let mut tree = Self::default();
        let real = fs::canonicalize(folder).map_err(|_| Unsound::Gone(folder.to_owned()))?;
        tree.enter(&real, Path::new(""), umask, 0)?;
        tree.files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(tree)
    }

    fn enter(&mut self, root: &Path, at: &Path, umask: u32, depth: usize) -> Result<(), Unsound> {
        let unusual = |path: &Path| Unsound::Output(root.join(path).display().to_string());
        let mut entries: Vec<_> = fs::read_dir(root.join(at)).and_then(Iterator::collect).map_err(|_| unusual(at))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = at.join(entry.file_name());
            let meta = entry.metadata().map_err(|_| unusual(&path))?;
            let n_entries = self.files.len() + self.layout.folders.len() + self.layout.links.len();
            if n_entries >= MAX_ENTRIES || depth >= MAX_DEPTH || path.to_str().is_none() {
                return Err(unusual(&path));
            }
            let mode = meta.permissions().mode() & MODE_BITS;
            if meta.is_dir() && mode == NEW_FOLDER_MODE & !umask {
                self.layout.folders.push(path.clone());
                self.enter(root, &path, umask, depth + 1)?;
            } else if meta.is_file() && meta.nlink() == 1 && mode & !0o777 == 0 {
                self.n_bytes += meta.len();
                if self.n_bytes > MAX_RESULT_CONTENT_BYTES {
                    return Err(unusual(&path));
                }
                self.files.push(File { path, mode });
            } else if meta.is_symlink() {
                let target = fs::read_link(root.join(&path)).map_err(|_| unusual(&path))?;
                let leads = fs::canonicalize(root.join(&path)).map_err(|_| unusual(&path))?;
                if target.is_absolute() || target.to_str().is_none() || !leads.starts_with(root) {
                    return Err(unusual(&path));
                }
                self.layout.links.push((path, target));
            } else {
                return Err(unusual(&path));
            }
        }
        Ok(())
    }
}

impl Layout {
    /// As bytes: of each entry its path and target (empty for a folder), each with a NUL behind it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let folders = self.folders.iter().map(|path| (path.as_path(), Path::new("")));
        let links = self.links.iter().map(|(path, target)| (path.as_path(), target.as_path()));
        let mut bytes = Vec::new();
        for text in folders.chain(links).flat_map(|(path, target)| [path, target]) {
            bytes.extend_from_slice(text.as_os_str().as_bytes());
            bytes.push(0);
        }
        bytes
    }

    /// Back; `None` for what is none, or leads out of a folder.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut layout = Self::default();
        let mut words = text.split_terminator('\0');
        while let Some(path) = words.next() {
            let (path, target) = (PathBuf::from(path), words.next()?);
            let is_within = path.components().all(|part| matches!(part, Component::Normal(_)));
            if !is_within || path.as_os_str().is_empty() || target.starts_with('/') {
                return None;
            }
            if target.is_empty() {
                layout.folders.push(path);
            } else {
                layout.links.push((path, PathBuf::from(target)));
            }
        }
        Some(layout)
    }

    /// Makes the folders below `root`, with the mode that they have under `umask`.
    pub fn make_folders(&self, root: &Path, umask: u32) -> std::io::Result<()> {
        let mode = NEW_FOLDER_MODE & !umask;
        self.folders.iter().map(|path| root.join(path)).try_for_each(|path| {
            fs::DirBuilder::new().mode(mode).create(&path)?;
            // This process has an umask of its own.
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        })
    }

    /// Makes the symlinks below `root`.
    pub fn make_links(&self, root: &Path) -> std::io::Result<()> {
        self.links.iter().try_for_each(|(path, target)| std::os::unix::fs::symlink(target, root.join(path)))
    }
}

/// Whether a folder is there and has nothing in it.
pub fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Removes everything in a folder.
pub fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // What stays is found by the script, as it is when a run of it was cut off.
        let _ = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn own_umask() -> u32 {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("x")).unwrap();
        NEW_FOLDER_MODE & !fs::metadata(folder.path().join("x")).unwrap().permissions().mode()
    }

    #[test]
    fn a_tree_is_told_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        fs::create_dir_all(one.join("a/b")).unwrap();
        fs::create_dir_all(&two).unwrap();
        fs::write(one.join("a/file"), "x").unwrap();
        symlink("b", one.join("a/link")).unwrap();
        symlink("../file", one.join("a/b/up")).unwrap();
        let umask = own_umask();
        let tree = Tree::of(&one, umask).unwrap();
        assert_eq!(tree.files.iter().map(|file| file.path.to_str().unwrap()).collect::<Vec<_>>(), ["a/file"]);
        let layout = Layout::from_bytes(&tree.layout.to_bytes()).unwrap();
        assert_eq!(layout, tree.layout);
        layout.make_folders(&two, umask).unwrap();
        fs::write(two.join("a/file"), "x").unwrap();
        layout.make_links(&two).unwrap();
        assert_eq!(Tree::of(&two, umask).unwrap().layout, tree.layout);
        assert!(!is_empty(&two));
        clear(&two);
        assert!(is_empty(&two) && !is_empty(&two.join("none")));
    }

    #[test]
    fn what_is_unusual_is_refused() {
        let umask = own_umask();
        let refused = |make: &dyn Fn(&Path)| {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            fs::create_dir(&out).unwrap();
            fs::write(folder.path().join("outside"), "").unwrap();
            fs::write(out.join("file"), "").unwrap();
            assert!(Tree::of(&out, umask).is_ok());
            make(&out);
            matches!(Tree::of(&out, umask), Err(Unsound::Output(_)))
        };
        assert!(refused(&|out| symlink("../outside", out.join("link")).unwrap()), "leads out");
        assert!(refused(&|out| symlink("nowhere", out.join("link")).unwrap()), "leads nowhere");
        assert!(refused(&|out| symlink(out.join("file"), out.join("link")).unwrap()), "names its place");
        assert!(refused(&|out| fs::hard_link(out.join("file"), out.join("more")).unwrap()), "one file twice");
        let mode = |out: &Path, mode| fs::set_permissions(out.join("file"), fs::Permissions::from_mode(mode)).unwrap();
        assert!(refused(&|out| mode(out, 0o4755)), "acts as its owner");
    }

    #[test]
    fn layouts_that_lead_out_are_none() {
        for bytes in [&b"../x\0\0"[..], b"/x\0\0", b"x\0/y\0", b"\0\0", b"x\0", b"\xff\0\0"] {
            assert_eq!(Layout::from_bytes(bytes), None, "{bytes:?}");
        }
        assert_eq!(Layout::from_bytes(b""), Some(Layout::default()));
    }
}
