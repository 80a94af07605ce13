//! What other tools' caches (ccache, sccache) keep on the farm: values under names that those tools choose.
//!
//! An entry is stored, announced, repaired and evicted as a result is, since it has the same form: a kept result whose only output is the value.
//! The output's path is the entry's name, and what stands in place of an action's digest is the name's own ([`EntryName::key`]), under a tag
//! that no action has. So an entry says by itself that it is one, nobody can put one in an action's place, and no action leads to one.
//!
//! No sandbox made it: it is worth as much as the member that signed it, and is read by tools that were pointed here on purpose, alone. Where several
//! members write the same name the [newest](Entry::is_newer_than) counts; a name that was taken out is an entry, too, so that older values
//! elsewhere don't come back.

use crate::canonical::{Canonical, CanonicalError, Reader, Writer};
use crate::digest::Digest;
use crate::limits::{MAX_ENTRY_BYTES, MAX_ENTRY_NAME_BYTES};
use crate::outcome::{ActionResult, OutputFile, Provenance};
use crate::path::{PathError, RelPath};
use crate::peer::PeerId;

/// Mode of the output that holds a value.
const HELD: u32 = 0o644;
/// Mode of the output that says that there is none any more.
const REMOVED: u32 = 0;

/// The name of an entry: words with slashes between them, the first of which keep one project or tool from another if their users like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryName(RelPath);

impl EntryName {
    /// From its text.
    pub fn new(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_ENTRY_NAME_BYTES {
            return Err(PathError::TooLong(text.len()));
        }
        if text.is_empty() {
            return Err(PathError::Component(String::new()));
        }
        RelPath::try_from(text.to_owned()).map(Self)
    }

    /// What the entry is kept under.
    pub fn key(&self) -> Digest {
        Digest::of(&self.to_canonical())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Canonical for EntryName {
    const TAG: [u8; 4] = *b"bbE1";

    fn encode(&self, out: &mut Writer) {
        out.path(&self.0);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Self::new(input.path()?.as_str()).map_err(|_| CanonicalError::Range("name of an entry"))
    }
}

/// What a result that is an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: EntryName,
    /// Content; `None`: it was taken out.
    pub value: Option<Digest>,
    /// When it was put, in milliseconds since the Unix epoch by the clock of who did.
    pub put_at_ms: u64,
    /// Who did, and whose key signs.
    pub by: PeerId,
}

impl Entry {
    /// The entry in `result`; `None`: it is something else.
    pub fn of(result: &ActionResult) -> Option<Self> {
        let [output] = &result.outputs[..] else { return None };
        let value = match output.mode {
            HELD => Some(output.digest),
            REMOVED => None,
            _ => return None,
        };
        let name = EntryName::new(output.path.as_str()).ok()?;
        let entry = Self { name, value, put_at_ms: result.provenance.wall_ms, by: result.provenance.peer };
        let fits = value.is_none_or(|value| value.size_bytes <= MAX_ENTRY_BYTES);
        // All else is as it is in every entry, the key of its name included.
        (fits && entry.result() == *result).then_some(entry)
    }

    /// The result that says this.
    pub fn result(&self) -> ActionResult {
        let nothing = Digest::of(b"");
        let (digest, mode) = self.value.map_or((nothing, REMOVED), |value| (value, HELD));
        ActionResult {
            action: self.name.key(),
            exit_code: 0,
            outputs: vec![OutputFile { path: self.name.0.clone(), digest, mode }],
            stdout: nothing,
            stderr: nothing,
            observed: None,
            provenance: Provenance {
                peer: self.by,
                sandboxed: false,
                wall_ms: self.put_at_ms,
                cpu_ms: 0,
                peak_memory_bytes: 0,
            },
        }
    }

    /// Whether it counts where both are there. Everybody comes to the same verdict, also on two of one millisecond.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let rank = |entry: &Self| (entry.put_at_ms, entry.value.map(|value| value.hash), entry.by);
        rank(self) > rank(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::action::Action;

    fn entry(name: &str, value: Option<&[u8]>, put_at_ms: u64) -> Entry {
        let value = value.map(Digest::of);
        Entry { name: EntryName::new(name).unwrap(), value, put_at_ms, by: PeerId([3; 32]) }
    }

    #[test]
    fn an_entry_is_what_its_result_says() {
        for known in [entry("ns/ab/cdef", Some(b"value"), 7), entry("x", Some(b""), 0), entry("x", None, u64::MAX)] {
            assert_eq!(Entry::of(&known.result()), Some(known));
        }
    }

    #[test]
    fn what_differs_in_anything_is_none() {
        let good = entry("ns/ab", Some(b"value"), 7).result();
        let spoiled: [fn(&mut ActionResult); 9] = [
            |result| result.action = Digest::of(b"an action"),
            |result| result.action = EntryName::new("other").unwrap().key(),
            |result| result.exit_code = 1,
            |result| result.outputs[0].mode = 0o755,
            |result| result.outputs.push(result.outputs[0].clone()),
            |result| result.outputs.clear(),
            |result| result.stdout = Digest::of(b"said"),
            |result| result.provenance.sandboxed = true,
            |result| result.observed = Some(Digest::of(b"seen")),
        ];
        for spoil in spoiled {
            let mut result = good.clone();
            spoil(&mut result);
            assert_eq!(Entry::of(&result), None, "{result:?}");
        }
        let mut large = entry("ns/ab", Some(b"value"), 7);
        large.value = Some(Digest { size_bytes: MAX_ENTRY_BYTES + 1, ..Digest::of(b"value") });
        assert_eq!(Entry::of(&large.result()), None);
        let mut empty = entry("ns/ab", None, 7).result();
        empty.outputs[0].digest = Digest::of(b"value");
        assert_eq!(Entry::of(&empty), None, "nothing is there, and it has a value");
    }

    #[test]
    fn names_are_bounded_and_lead_nowhere() {
        for bad in ["", "/", "a/", "/a", "a//b", "../a", "a/./b", "a\0b"] {
            assert!(EntryName::new(bad).is_err(), "{bad:?}");
        }
        assert!(EntryName::new(&"a/".repeat(60)).is_err());
        let long = vec!["a".repeat(200); 6].join("/");
        assert!(EntryName::new(&long).is_err() && EntryName::new(&long[..1000]).is_ok());
    }

    #[test]
    fn keys_are_no_actions() {
        assert_ne!(EntryName::TAG, Action::TAG);
        assert_ne!(EntryName::new("a/b").unwrap().key(), EntryName::new("a/c").unwrap().key());
    }

    proptest! {
        #[test]
        fn of_two_one_is_newer(at in 0..3u64, other_at in 0..3u64, value in 0..3u8, other in 0..3u8) {
            let some = |n: u8| (n > 0).then_some([n]);
            let left = entry("n", some(value).as_ref().map(|value| &value[..]), at);
            let right = entry("n", some(other).as_ref().map(|value| &value[..]), other_at);
            prop_assert_eq!(left.is_newer_than(&right), left != right && !right.is_newer_than(&left));
            if at > other_at {
                prop_assert!(left.is_newer_than(&right));
            }
        }
    }
}
