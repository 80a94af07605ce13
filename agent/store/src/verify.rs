//! Reads everything that the store holds and drops what is bad. For `buildbee cache verify` and for quiet times.

use buildbee_proto::hint::Hints;
use buildbee_proto::manifest::Manifest;
use buildbee_proto::outcome::SignedResult;

use crate::blobs::Check;
use crate::entry::{Key, Kind, Twin};
use crate::inode::Defect;
use crate::layout::{Family, shard_name};
use crate::store::{PAGE, Store};

/// Bad files named in a report; more are only counted.
pub const MAX_BAD_LISTED: usize = 1000;

/// A file that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile {
    /// Its name below the store's folder.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What reading everything showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Good blobs.
    pub blobs: usize,
    /// Good executable inodes, each beside its blob.
    pub executables: usize,
    /// Good action results.
    pub results: usize,
    /// Good manifests.
    pub manifests: usize,
    /// Good lists of hints.
    pub hints: usize,
    /// Bytes of content of the good blobs and executables.
    pub bytes: u64,
    /// Bad files, all dropped.
    pub n_bad: usize,
    /// The first [`MAX_BAD_LISTED`] of them.
    pub bad: Vec<BadFile>,
    /// Files that the system failed to read, and that are kept.
    pub n_unread: usize,
}

impl Store {
    /// Reads everything, drops what is bad. The order of use stays as it is. Puts and reads may go on beside it; what they change
    /// meanwhile may or may not be in the report.
    pub fn verify(&self) -> VerifyReport {
        let mut report = VerifyReport::default();
        let mut next = Some(0);
        while let Some(at) = next {
            let (keys, following) = self.inner.index().keys_from(at, PAGE);
            for key in keys {
                self.verify_entry(&key, &mut report);
            }
            next = following;
        }
        // What was torn at the last start may fill packs, too.
        self.inner.sweep();
        report
    }

    pub(crate) fn verify_entry(&self, key: &Key, report: &mut VerifyReport) {
        let family = Family::of(key.kind);
        match key.kind {
            Kind::Blob => {
                match self.inner.checked(key) {
                    Ok(None) => self.verify_blob(family, key, report),
                    Ok(Some(_)) => {
                        report.blobs += 1;
                        report.bytes += key.digest.size_bytes;
                    }
                    Err(defect) => self.note_bad(family, key, &defect, report),
                }
                let has_twin = self.inner.index().get(key).is_some_and(|entry| entry.twin != Twin::Absent);
                if has_twin {
                    self.verify_blob(Family::Executables, key, report);
                }
            }
            Kind::Result => match self.inspect_record::<SignedResult>(key) {
                Ok(result) if result.result.action == key.digest => report.results += 1,
                Ok(_) => {
                    let defect = Defect::Bad { reason: "a result of another action", inode: None };
                    self.note_bad(family, key, &defect, report);
                }
                Err(defect) => self.note_bad(family, key, &defect, report),
            },
            Kind::Manifest => match self.inspect_record::<Manifest>(key) {
                Ok(_) => report.manifests += 1,
                Err(defect) => self.note_bad(family, key, &defect, report),
            },
            Kind::Hints => match self.inspect_record::<Hints>(key) {
                Ok(_) => report.hints += 1,
                Err(defect) => self.note_bad(family, key, &defect, report),
            },
        }
    }

    fn verify_blob(&self, family: Family, key: &Key, report: &mut VerifyReport) {
        match self.inspect(family, &key.digest, Check::Always) {
            Ok(None) => {}
            Ok(Some(_)) => {
                report.bytes += key.digest.size_bytes;
                match family {
                    Family::Executables => report.executables += 1,
                    _ => report.blobs += 1,
                }
            }
            Err(defect) => self.note_bad(family, key, &defect, report),
        }
    }

    fn note_bad(&self, family: Family, key: &Key, defect: &Defect, report: &mut VerifyReport) {
        if let Defect::Io(error) = defect {
            tracing::warn!(family = family.name(), digest = %key.digest, %error, "could not be read");
            report.n_unread += 1;
        } else if self.inner.drop_bad(family, key, defect) {
            report.n_bad += 1;
            if report.bad.len() < MAX_BAD_LISTED {
                let name = format!("{}/{}/{}", family.name(), shard_name(&key.digest), key.digest);
                report.bad.push(BadFile { name, reason: defect.to_string() });
            }
        }
    }
}
