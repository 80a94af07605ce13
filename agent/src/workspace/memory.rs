//! A private folder in memory for the folders of actions, where the system offers one.
//!
//! What an action reads and writes need not outlive it, and on a disk with a journal, making and removing the folders of a tiny compile
//! costs more than everything else that the agent does for it, and waits for whatever else writes there.
//!
//! Life cycle: made at the start, locked while the agent lives, removed when dropped. What a killed agent leaves, the next agent of the
//! same user removes. Not here: which action runs in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use buildbee_sandbox::cleanup::remove_scratch;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::O_NOFOLLOW;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{Statvfs, statvfs};
use nix::sys::utsname::uname;
use nix::unistd::geteuid;

/// Where every user may make folders in memory.
pub const SHARED_MEMORY: &str = "/dev/shm";
/// Left free for whatever else uses it. With less, actions run on the disk.
const MIN_ROOM_BYTES: u64 = 1 << 30;
const LOCK: &str = "lock";

/// The folder.
#[derive(Debug)]
pub struct MemoryFolder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl MemoryFolder {
    /// A new one in `base`; `None` if that is not in memory, or can't carry an overlay. Removes those of agents that are dead.
    pub fn make(base: &Path) -> io::Result<Option<Self>> {
        let release = uname()?.release().to_string_lossy().into_owned();
        if !keeps_marks(&release) || !base.is_dir() || statfs(base)?.filesystem_type() != TMPFS_MAGIC {
            return Ok(None);
        }
        let prefix = format!("buildbee-agent-{}-", geteuid());
        sweep(base, &prefix)?;
        let path = base.join(format!("{prefix}{:016x}", getrandom::u64().map_err(io::Error::other)?));
        // Anybody may make folders here: one that is there already is not ours.
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path.join(LOCK))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| io::Error::from(error))?;
        Ok(Some(Self { path, _lock: lock }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is room for one more action.
    pub fn has_room(&self) -> bool {
        let room = |found: Statvfs| found.blocks_available().saturating_mul(found.fragment_size());
        statvfs(&self.path).map(room).is_ok_and(|bytes| bytes >= MIN_ROOM_BYTES)
    }
}

impl Drop for MemoryFolder {
    fn drop(&mut self) {
        if let Err(error) = remove_scratch(&self.path) {
            tracing::warn!(%error, "the folder in memory is left behind");
        }
    }
}

/// Whether memory takes the attributes by which an overlay marks folders that were made anew: since Linux 6.6.
fn keeps_marks(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 6)
}

/// Removes what dead agents left: folders of this user whose lock nobody holds.
fn sweep(base: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let found = entry.metadata()?;
        if !found.is_dir() || found.uid() != geteuid().as_raw() {
            continue;
        }
        let path = entry.path();
        // Without a lock it is an agent's that is being started at this moment.
        let Ok(lock) = OpenOptions::new().write(true).custom_flags(O_NOFOLLOW).open(path.join(LOCK)) else { continue };
        if Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok()
            && let Err(error) = remove_scratch(&path)
        {
            tracing::warn!(%error, "what a dead agent left in memory can't be removed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Option<tempfile::TempDir> {
        let place = tempfile::tempdir_in(SHARED_MEMORY).ok()?;
        (statfs(place.path()).ok()?.filesystem_type() == TMPFS_MAGIC).then_some(place)
    }

    #[test]
    fn it_goes_with_its_agent_and_what_a_dead_one_left_goes_with_the_next() {
        let release = uname().unwrap().release().to_string_lossy().into_owned();
        let Some(base) = base().filter(|_| keeps_marks(&release)) else {
            return eprintln!("skipped: no memory that is shared and carries an overlay");
        };
        let living = MemoryFolder::make(base.path()).unwrap().unwrap();
        let dead = base.path().join(format!("buildbee-agent-{}-0", geteuid()));
        fs::create_dir_all(dead.join("7/scratch")).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::create_dir(base.path().join("another")).unwrap();
        let next = MemoryFolder::make(base.path()).unwrap().unwrap();
        assert!(!dead.exists(), "nobody holds its lock");
        assert!(living.path().exists() && next.path() != living.path(), "each has its own");
        drop((living, next));
        let left: Vec<_> = fs::read_dir(base.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["another"]);
    }

    #[test]
    fn old_kernels_are_told_apart() {
        for (release, keeps) in [
            ("5.15.0", false),
            ("6.1.0-13-amd64", false),
            ("6.6", true),
            ("6.18.44-fc", true),
            ("7.0", true),
            ("?", false),
        ] {
            assert_eq!(keeps_marks(release), keeps, "{release}");
        }
    }

    #[test]
    fn a_disk_is_no_memory() {
        assert!(MemoryFolder::make(Path::new("/proc")).unwrap().is_none());
        assert!(MemoryFolder::make(Path::new("/nowhere")).unwrap().is_none());
    }
}
