//! A small disk, in memory, that can be filled. Needs root.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Takes all that is left.
const FILLER: &str = "filler";

/// The disk, taken away when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// An empty one of a size as `256m`, over whatever is at `place`; `None` where this user may not.
    pub fn mount_at(place: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted = mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()));
        mounted.is_ok().then(|| Self(place.to_owned()))
    }

    /// Leaves no byte free.
    ///
    /// # Panics
    ///
    /// When that can't even be begun.
    pub fn fill(&self) {
        let mut file = File::create(self.0.join(FILLER)).unwrap_or_else(|error| panic!("the filler: {error}"));
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// Undoes [`fill`](Self::fill).
    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(self.0.join(FILLER))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
