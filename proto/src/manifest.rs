//! Direct mode: from what a command line says to the results it had, each with what it read.

use crate::canonical::{Canonical, CanonicalError, Reader, Writer};
use crate::digest::Digest;
use crate::limits::MAX_MANIFEST_ENTRIES;
use crate::outcome::ReadSet;

/// One result a manifest knows. It is an index entry, never a statement of its own: a hit checks the whole read set and then
/// looks the action's signed result up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEntry {
    /// The action whose result holds where the read set does.
    pub action: Digest,
    /// Everything that must be as it was.
    pub read_set: ReadSet,
}

/// What is known for one key (toolchain, arguments, environment, working directory, source). Newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// At most [`MAX_MANIFEST_ENTRIES`].
    pub entries: Vec<ManifestEntry>,
}

impl Manifest {
    /// Puts `entry` first, drops an older entry for the same action, and keeps the bound.
    pub fn remember(&mut self, entry: ManifestEntry) {
        self.entries.retain(|old| old.action != entry.action);
        self.entries.insert(0, entry);
        self.entries.truncate(MAX_MANIFEST_ENTRIES);
    }
}

impl Canonical for Manifest {
    const TAG: [u8; 4] = *b"bbM2";

    fn encode(&self, out: &mut Writer) {
        out.list(&self.entries, |out, entry| {
            out.digest(&entry.action);
            entry.read_set.encode(out);
        });
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self {
            entries: input.list(MAX_MANIFEST_ENTRIES, |input| {
                Ok(ManifestEntry { action: input.digest()?, read_set: ReadSet::decode(input)? })
            })?,
        })
    }
}
