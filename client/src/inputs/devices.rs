//! Whose times can be believed: a file system that another machine or a user program keeps may change a file without a trace in what
//! `stat` says here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use nix::sys::statfs::{FsType, Statfs};

/// File systems met so far, by device. There are never many.
#[derive(Debug, Default)]
pub struct Devices {
    believed: Mutex<HashMap<u64, bool>>,
}

impl Devices {
    /// Whether times on `device` can be believed; `ask` is called for a device that is met for the first time.
    pub fn believes(&self, device: u64, ask: impl FnOnce() -> nix::Result<Statfs>) -> bool {
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        *believed.entry(device).or_insert_with(|| ask().is_ok_and(|found| !is_remote(found.filesystem_type())))
    }
}

/// File systems whose times another machine or a user program makes (magic numbers: `linux/magic.h`, `statfs(2)`).
fn is_remote(kind: FsType) -> bool {
    const NFS: i64 = 0x6969;
    const SMB: i64 = 0x517b;
    const SMB2: i64 = 0xfe53_4d42;
    const CIFS: i64 = 0xff53_4d42;
    const FUSE: i64 = 0x6573_5546;
    const NINE_P: i64 = 0x0102_1997;
    const AFS: i64 = 0x5346_414f;
    const CEPH: i64 = 0x00c3_6400;
    let magic = kind.0 & 0xffff_ffff;
    [NFS, SMB, SMB2, CIFS, FUSE, NINE_P, AFS, CEPH].contains(&magic)
}
