//! Reads what the store holds bit by bit, so that what has gone bad on the disk is found before it is wanted. Not here: how fast, and where
//! what was bad is had from again.

use buildbee_proto::digest::Digest;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::entry::{Key, Kind};
use crate::inode;
use crate::layout::{BLOCK_BYTES, Family};
use crate::store::Store;
use crate::verify::VerifyReport;

/// How far a scrub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub(Option<u32>);

impl Scrub {
    /// Before the first entry.
    pub const START: Self = Self(Some(0));

    /// Whether it has come round.
    pub fn is_over(self) -> bool {
        self.0.is_none()
    }
}

/// What a part of a scrub showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes that were read, about.
    pub bytes: u64,
    /// Blobs that were bad, and are gone. Each was reported when it was dropped.
    pub bad_blobs: Vec<Digest>,
    /// All that was bad, records too.
    pub n_bad: usize,
}

impl Store {
    /// Reads entries from `from` on until `max_bytes` are read, a whole one at least; drops what is bad. Where to go on. Entries that come
    /// or go meanwhile may be left out. What nobody has used since the start does not stay in the system's memory.
    pub fn scrub(&self, from: Scrub, max_bytes: u64) -> (Scrubbed, Scrub) {
        let (mut scrubbed, mut report, mut next) = (Scrubbed::default(), VerifyReport::default(), from.0);
        while let Some(at) = next
            && scrubbed.bytes < max_bytes
        {
            let (keys, following) = self.inner.index().keys_from(at, 1);
            next = following;
            for key in keys {
                let is_cold =
                    self.inner.index().get(&key).is_some_and(|entry| entry.place.is_none() && !entry.verified);
                let (n_bad, n_bytes) = (report.n_bad, report.bytes);
                self.verify_entry(&key, &mut report);
                scrubbed.bytes += (report.bytes - n_bytes).max(BLOCK_BYTES);
                if report.n_bad > n_bad && key.kind == Kind::Blob {
                    scrubbed.bad_blobs.push(key.digest);
                }
                if is_cold {
                    self.cool(&key);
                }
            }
        }
        scrubbed.n_bad = report.n_bad;
        if next.is_none() {
            self.inner.sweep();
        }
        (scrubbed, Scrub(next))
    }

    /// Leaves the system's memory to what is used.
    fn cool(&self, key: &Key) {
        let family = Family::of(key.kind);
        if let Ok(file) = inode::open(&self.inner.layout.entry(key), family.mode(), None)
            && let Err(errno) = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        {
            tracing::trace!(%errno, "the system keeps it in memory");
        }
    }
}
