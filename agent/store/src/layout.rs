//! Where things are below the store's folder, and how that folder is made and recognised. No content is read or written here.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use buildbee_proto::digest::Digest;
use nix::libc::O_NOFOLLOW;

use crate::entry::{Key, Kind};
use crate::error::OpenError;
use crate::lasting::{sync_all, sync_folder};

/// Version of everything that this crate writes. Newest first:
/// - 2: packs of small entries beside them.
/// - 1: blobs, executables, results, manifests, hints, recency.
pub(crate) const FORMAT_VERSION: u64 = 2;
/// What precedes the version in the format file.
const FORMAT_NAME: &str = "buildbee-store ";
/// A format file is never longer.
const MAX_FORMAT_BYTES: u64 = 64;
/// Room that any file takes at least, and the unit of it: one block and its inode.
pub(crate) const BLOCK_BYTES: u64 = 4096;

const FORMAT: &str = "format";
const FORMAT_NEW: &str = "format.new";
const LOCK: &str = "lock";
const TMP: &str = "tmp";
const PACKS: &str = "packs";
const RECENCY: &str = "recency";
const OPENED: &str = "opened";

/// A family of sharded folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Blobs,
    Executables,
    Results,
    Manifests,
    Hints,
}

impl Family {
    pub(crate) const ALL: [Self; 5] = [Self::Blobs, Self::Executables, Self::Results, Self::Manifests, Self::Hints];

    /// Folder name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Executables => "executables",
            Self::Results => "results",
            Self::Manifests => "manifests",
            Self::Hints => "hints",
        }
    }

    /// Where entries of `kind` are.
    pub(crate) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Blob => Self::Blobs,
            Kind::Result => Self::Results,
            Kind::Manifest => Self::Manifests,
            Kind::Hints => Self::Hints,
        }
    }

    /// What the files are entries of; an executable belongs to its blob.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Blobs | Self::Executables => Kind::Blob,
            Self::Results => Kind::Result,
            Self::Manifests => Kind::Manifest,
            Self::Hints => Kind::Hints,
        }
    }

    /// Permission bits of its files.
    pub(crate) fn mode(self) -> u32 {
        match self {
            Self::Executables => 0o555,
            Self::Blobs | Self::Results | Self::Manifests | Self::Hints => 0o444,
        }
    }
}

/// Room that a file of `size_bytes` takes.
pub(crate) fn charge_bytes(size_bytes: u64) -> u64 {
    size_bytes.max(1).checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX)
}

/// Folder of `digest` within its family.
pub(crate) fn shard_name(digest: &Digest) -> String {
    format!("{:02x}", digest.hash[0])
}

/// Paths below one store's folder.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

impl Layout {
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join(LOCK)
    }

    pub(crate) fn recency(&self) -> PathBuf {
        self.dir.join(RECENCY)
    }

    pub(crate) fn opened(&self) -> PathBuf {
        self.dir.join(OPENED)
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.dir.join(TMP)
    }

    pub(crate) fn packs(&self) -> PathBuf {
        self.dir.join(PACKS)
    }

    pub(crate) fn family(&self, family: Family) -> PathBuf {
        self.dir.join(family.name())
    }

    /// Folders by the first byte of a digest, so that none of them grows long. Made when first needed.
    fn shard(&self, family: Family, digest: &Digest) -> PathBuf {
        self.family(family).join(shard_name(digest))
    }

    /// Where `digest` is in `family`.
    pub(crate) fn file(&self, family: Family, digest: &Digest) -> PathBuf {
        self.shard(family, digest).join(digest.to_string())
    }

    /// Where an entry's own file is.
    pub(crate) fn entry(&self, key: &Key) -> PathBuf {
        self.file(Family::of(key.kind), &key.digest)
    }

    /// Refuses a folder that is not a store, or is one of a newer version. Changes nothing. An absent or empty folder will do.
    pub(crate) fn recognise(&self) -> Result<(), OpenError> {
        let path = self.dir.join(FORMAT);
        match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(&path) {
            Ok(file) => self.check_format(&path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.check_empty(),
            Err(error) => Err(OpenError::io(&self.dir, &path, error)),
        }
    }

    fn check_format(&self, path: &Path, file: File) -> Result<(), OpenError> {
        let mut text = Vec::new();
        file.take(MAX_FORMAT_BYTES).read_to_end(&mut text).map_err(|e| OpenError::io(&self.dir, path, e))?;
        let text = String::from_utf8_lossy(&text);
        let version = text.strip_prefix(FORMAT_NAME).and_then(|rest| rest.trim_end().parse::<u64>().ok());
        match version {
            Some(1..=FORMAT_VERSION) => Ok(()),
            Some(found) if found > FORMAT_VERSION => {
                Err(OpenError::Newer { dir: self.dir.clone(), found, known: FORMAT_VERSION })
            }
            _ => {
                Err(OpenError::NotAStore { dir: self.dir.clone(), found: format!("a format file that says {text:?}") })
            }
        }
    }

    /// A folder without a format file must be new, or what a crash left of making one: deleting in somebody's home is not an option.
    fn check_empty(&self) -> Result<(), OpenError> {
        let names = match fs::read_dir(&self.dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(OpenError::io(&self.dir, &self.dir, error)),
        };
        for name in names {
            let name = name.map_err(|error| OpenError::io(&self.dir, &self.dir, error))?.file_name();
            if name != LOCK && name != FORMAT_NEW {
                let found = name.to_string_lossy().into_owned();
                return Err(OpenError::NotAStore { dir: self.dir.clone(), found });
            }
        }
        Ok(())
    }

    /// Makes the folder itself, with parents.
    pub(crate) fn create_dir(&self) -> Result<(), OpenError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|error| OpenError::io(&self.dir, &self.dir, error))
    }

    /// Makes whatever is missing below the folder. The format file comes first, so that what is made later is known to be ours.
    /// Returns how many things stood where a folder belongs.
    pub(crate) fn prepare(&self) -> Result<usize, OpenError> {
        let is_new = self.write_format()?;
        let folders = Family::ALL.map(|family| self.family(family)).into_iter().chain([self.packs(), self.tmp()]);
        let mut n_replaced = 0;
        for folder in folders {
            n_replaced +=
                usize::from(ensure_folder(&folder).map_err(|error| OpenError::io(&self.dir, &folder, error))?);
        }
        if is_new {
            sync_folder(&self.dir).map_err(|error| OpenError::io(&self.dir, &self.dir, error))?;
        }
        Ok(n_replaced)
    }

    /// True if it was not there.
    fn write_format(&self) -> Result<bool, OpenError> {
        let path = self.dir.join(FORMAT);
        let current = format!("{FORMAT_NAME}{FORMAT_VERSION}\n");
        // An older one is a store that needs nothing but the new version's name.
        if fs::read(&path).is_ok_and(|text| text == current.as_bytes()) {
            return Ok(false);
        }
        let new = self.dir.join(FORMAT_NEW);
        let write = || {
            remove_any(&new)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
            file.write_all(current.as_bytes())?;
            sync_all(&file)?;
            #[cfg(any(test, debug_assertions))]
            crate::fault::point("format-written");
            fs::rename(&new, &path)?;
            // What is made from here on is known to be ours only as long as this is there.
            sync_folder(&self.dir)
        };
        write().map(|()| true).map_err(|error| OpenError::io(&self.dir, &path, error))
    }
}

/// Makes one private folder; whatever else has its name (a symlink too, which is not followed) goes. True if something went.
pub(crate) fn ensure_folder(path: &Path) -> io::Result<bool> {
    let make = || DirBuilder::new().mode(0o700).create(path);
    match make() {
        Ok(()) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        fs::remove_file(path)?;
        return make().map(|()| true);
    }
    if found.permissions().mode() & 0o700 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(false)
}

/// Removes a file, a symlink (not what it points to) or a whole folder. Absent is fine.
pub(crate) fn remove_any(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_counted_in_blocks() {
        assert_eq!(charge_bytes(0), 4096);
        assert_eq!(charge_bytes(4096), 4096);
        assert_eq!(charge_bytes(4097), 8192);
        assert_eq!(charge_bytes(u64::MAX), u64::MAX);
    }
}
