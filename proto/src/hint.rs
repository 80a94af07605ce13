//! Where a compile was done before, in another folder: what lets two checkouts share a result.
//!
//! A hint is a pointer and never a statement: whoever follows one puts the folders that it names into its own command and its own
//! inputs, and takes the hint for true only if the digest of that action is the one that the hint names.

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::canonical::{Canonical, CanonicalError, Reader, Writer};
use crate::digest::Digest;
use crate::limits::{MAX_HINT_ROOTS, MAX_HINTS};
use crate::path::RelPath;

/// One place where it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The project's folder there, or its folders, at most [`MAX_HINT_ROOTS`]: each stands for the same one of whoever follows.
    #[serde(deserialize_with = "bounded::paths::<_, MAX_HINT_ROOTS>")]
    pub roots: Vec<RelPath>,
    /// The action that it was there.
    pub action: Digest,
}

/// What is known for one portable key. Newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// At most [`MAX_HINTS`].
    pub entries: Vec<Hint>,
}

impl Hints {
    /// Puts `hint` first, drops an older one for the same folders, and keeps the bound.
    pub fn remember(&mut self, hint: Hint) {
        self.entries.retain(|old| old.roots != hint.roots);
        self.entries.insert(0, hint);
        self.entries.truncate(MAX_HINTS);
    }
}

impl Canonical for Hints {
    const TAG: [u8; 4] = *b"bbH2";

    fn encode(&self, out: &mut Writer) {
        out.list(&self.entries, |out, hint| {
            out.list(&hint.roots, Writer::path);
            out.digest(&hint.action);
        });
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let entries = input.list(MAX_HINTS, |input| {
            Ok(Hint { roots: input.list(MAX_HINT_ROOTS, Reader::path)?, action: input.digest()? })
        })?;
        Ok(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_hints_are_kept_one_a_folder() {
        let hint = |folder: usize, content: &[u8]| Hint {
            roots: vec![RelPath::try_from(format!("home/{folder}")).unwrap()],
            action: Digest::of(content),
        };
        let mut hints = Hints::default();
        for folder in 0..MAX_HINTS + 2 {
            hints.remember(hint(folder, b"old"));
        }
        assert_eq!(hints.entries.len(), MAX_HINTS);
        hints.remember(hint(5, b"new"));
        assert_eq!(hints.entries[0], hint(5, b"new"));
        assert_eq!(hints.entries.iter().filter(|known| known.roots == hint(5, b"").roots).count(), 1);
        assert_eq!(Hints::from_canonical(&hints.to_canonical()), Ok(hints));
    }
}
