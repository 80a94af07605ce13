//! Copies files of a store path out of a folder of this machine. Blocks.
//!
//! No symlink is followed on the way, and nothing outside the path is opened: a client says which files are wanted.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use buildbee_proto::digest::Digest;
use buildbee_store::Store;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::lacking::Lacking;

/// Read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// Copies what `path` lacks out of `place`, which stands for it, until `is_late`. How many files came.
pub fn copy(store: &Store, place: &Path, path: &Lacking, is_late: &dyn Fn() -> bool) -> io::Result<usize> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let top = File::from(nix::fcntl::open(place, flags, nix::sys::stat::Mode::empty())?);
    let mut n_copied = 0;
    for (name, digest) in path.files.iter().filter(|(_, digest)| !store.contains(digest)) {
        if is_late() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let file = if name.is_empty() {
            top.try_clone()
        } else {
            let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
            openat2(&top, name.as_str(), OpenHow::new().flags(flags).resolve(resolve))
                .map(File::from)
                .map_err(Into::into)
        };
        let Ok(mut file) = file else { continue };
        let fits = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == digest.size_bytes);
        n_copied += usize::from(fits && keep(store, digest, &mut file)?);
    }
    Ok(n_copied)
}

/// Stores what `reader` has as `digest`, if that is what it is.
pub fn keep(store: &Store, digest: &Digest, reader: &mut dyn Read) -> io::Result<bool> {
    let mut writer = store.writer(*digest).map_err(io::Error::other)?;
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let n = reader.read(&mut block)?;
        let Some(bytes) = block.get(..n).filter(|bytes| !bytes.is_empty()) else { break };
        writer.write(bytes).map_err(io::Error::other)?;
    }
    match writer.commit() {
        Ok(()) => Ok(true),
        Err(buildbee_store::PutError::Mismatch { .. }) => Ok(false),
        Err(error) => Err(io::Error::other(error)),
    }
}
