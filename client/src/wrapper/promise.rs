//! A crate's metadata that others have begun with before the compile's end: what was printed of it, and whether a compile that takes the
//! place of the first makes the same.
//!
//! cargo starts a crate's dependants at the line that says that its metadata is written. If the agent that wrote it is lost, the compile runs
//! again: it must not say that line a second time, and if its metadata is another, what the dependants made of the first must not stay.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use buildbee_proto::digest::Digest;

/// What cargo was told.
#[derive(Debug)]
pub struct Promise {
    /// On standard error.
    pub printed: Vec<u8>,
    metadata: PathBuf,
    /// `None`: it could not be read, so nothing is known of it.
    content: Option<Digest>,
}

impl Promise {
    /// `printed` was, and the metadata is at `path`, in place.
    pub fn given(printed: Vec<u8>, path: Vec<u8>) -> Self {
        let metadata = PathBuf::from(OsString::from_vec(path));
        let content = digest(&metadata);
        Self { printed, metadata, content }
    }

    /// Whether what is in its place now is the same.
    pub fn is_kept(&self) -> bool {
        self.content.is_some() && digest(&self.metadata) == self.content
    }

    /// What the user is told where it is not.
    pub fn complaint(&self) -> String {
        format!(
            "{}: the compiler made other metadata than before, with which other crates have begun\n\
             hint: start the build again; `BUILDBEE=off` keeps this wrapper out of it",
            self.metadata.display()
        )
    }
}

fn digest(path: &std::path::Path) -> Option<Digest> {
    std::fs::read(path).ok().map(|content| Digest::of(&content))
}

/// What of `whole` was not printed yet. Two runs of one compiler say the same, so the part printed is its beginning; where it is
/// not, all is printed: twice is better than not at all.
pub fn unprinted<'a>(whole: &'a [u8], printed: &[u8]) -> &'a [u8] {
    whole.strip_prefix(printed).unwrap_or(whole)
}

/// Holds a stream's beginning back as long as it is what was printed.
#[derive(Debug, Default)]
pub struct Held {
    expected: Vec<u8>,
    n_same: usize,
}

impl Held {
    /// `expected` was printed.
    pub fn back(expected: Vec<u8>) -> Self {
        Self { expected, n_same: 0 }
    }

    /// What to print of `bytes`, which come next: what was held back before, if it turns out to be something else, and of `bytes`.
    pub fn pass<'a>(&mut self, bytes: &'a [u8]) -> (Vec<u8>, &'a [u8]) {
        let left = self.expected.get(self.n_same..).unwrap_or_default();
        let n = left.len().min(bytes.len());
        if left.get(..n) == bytes.get(..n) {
            self.n_same += n;
            return (Vec::new(), bytes.get(n..).unwrap_or_default());
        }
        let mut before = std::mem::take(&mut self.expected);
        before.truncate(std::mem::take(&mut self.n_same));
        (before, bytes)
    }

    /// All that was printed, where the stream has not come so far.
    pub fn more(&self) -> Option<&[u8]> {
        (self.n_same < self.expected.len()).then_some(&self.expected)
    }

    /// What was held back and is not the whole of what was printed, at the stream's end.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut expected = std::mem::take(&mut self.expected);
        let n_same = std::mem::take(&mut self.n_same);
        if n_same == expected.len() {
            return Vec::new();
        }
        expected.truncate(n_same);
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_printed() {
        assert_eq!(unprinted(b"one two", b"one "), b"two");
        assert_eq!(unprinted(b"one", b"one"), b"");
        assert_eq!(unprinted(b"one", b""), b"one");
        assert_eq!(unprinted(b"one", b"other"), b"one");
    }

    fn printed_of(expected: &[u8], stream: &[u8], piece: usize) -> Vec<u8> {
        let mut held = Held::back(expected.to_vec());
        let mut printed = Vec::new();
        for piece in stream.chunks(piece) {
            let (before, now) = held.pass(piece);
            printed.extend(before);
            printed.extend_from_slice(now);
        }
        printed.extend(held.rest());
        printed
    }

    #[test]
    fn a_beginning_is_held_back_only_if_it_is_the_one() {
        for piece in [1, 2, 100] {
            assert_eq!(printed_of(b"one\ntwo\n", b"one\ntwo\nthree\n", piece), b"three\n");
            assert_eq!(printed_of(b"one\ntwo\n", b"one\ntwo\n", piece), b"");
            assert_eq!(printed_of(b"one\ntwo\n", b"one\nother\ntwo\n", piece), b"one\nother\ntwo\n");
            assert_eq!(printed_of(b"one\ntwo\n", b"one\n", piece), b"one\n");
            assert_eq!(printed_of(b"", b"one\n", piece), b"one\n");
        }
    }

    #[test]
    fn what_was_printed_counts_until_the_stream_has_come_so_far() {
        let mut held = Held::back(b"one two".to_vec());
        held.pass(b"one ");
        assert_eq!(held.more(), Some(&b"one two"[..]));
        held.pass(b"two");
        assert_eq!(held.more(), None);
        let mut held = Held::back(b"one two".to_vec());
        held.pass(b"one three");
        assert_eq!(held.more(), None);
        assert_eq!(Held::default().more(), None);
    }

    #[test]
    fn metadata_that_changes_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.rmeta");
        let promise = |path: &std::path::Path| Promise::given(Vec::new(), path.as_os_str().as_encoded_bytes().to_vec());
        assert!(!promise(&path).is_kept(), "it is not there");
        std::fs::write(&path, "one").unwrap();
        let given = promise(&path);
        assert!(given.is_kept());
        std::fs::write(&path, "two").unwrap();
        assert!(!given.is_kept() && given.complaint().contains("hint:"));
    }
}
