//! Reads Nix archives from strangers: every length is bounded before anything of it is read. (`nix-nar`, which packs ours, believes lengths.)

use std::io::{self, Read};

use buildbee_proto::limits::{MAX_PATH_DEPTH, MAX_TREE_ENTRIES};
use sha2::{Digest as _, Sha256};

/// Bytes of a word of the format.
const MAX_WORD_BYTES: u64 = 16;
/// Bytes of a file's name.
const MAX_NAME_BYTES: u64 = 255;
/// Bytes of a symlink's target.
const MAX_TARGET_BYTES: u64 = 4095;
/// To what lengths are filled up.
const ALIGNMENT: u64 = 8;

/// Told of each file its path in the archive, its size, and where to read it from; what it leaves is skipped.
pub type Visit<'a> = dyn FnMut(&str, u64, &mut dyn Read) -> io::Result<()> + 'a;

/// Reads the one archive that `reader` has, and shows its files to `visit`.
pub fn unpack(reader: &mut dyn Read, visit: &mut Visit<'_>) -> io::Result<()> {
    let mut unpacking = Unpacking { reader, visit, n_entries: 0 };
    unpacking.expect("nix-archive-1")?;
    unpacking.node("", 0)
}

struct Unpacking<'a, 'b> {
    reader: &'a mut dyn Read,
    visit: &'a mut Visit<'b>,
    n_entries: usize,
}

fn malformed<T>(why: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("not an archive: {why}")))
}

impl Unpacking<'_, '_> {
    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.reader.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn padding(&mut self, length: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        let n = length.wrapping_neg() % ALIGNMENT;
        let n_read = (&mut *self.reader).take(n).read_to_end(&mut bytes)?;
        if n_read as u64 == n && bytes.iter().all(|byte| *byte == 0) { Ok(()) } else { malformed("padding") }
    }

    fn text(&mut self, max_bytes: u64) -> io::Result<String> {
        let length = self.number()?;
        if length > max_bytes {
            return malformed("a text is too long");
        }
        let mut bytes = Vec::new();
        if (&mut *self.reader).take(length).read_to_end(&mut bytes)? as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.padding(length)?;
        String::from_utf8(bytes).or_else(|_| malformed("a text is not UTF-8"))
    }

    fn expect(&mut self, word: &str) -> io::Result<()> {
        if self.text(MAX_WORD_BYTES)? == word { Ok(()) } else { malformed(word) }
    }

    /// Recursion ends at [`MAX_PATH_DEPTH`].
    fn node(&mut self, path: &str, depth: usize) -> io::Result<()> {
        self.n_entries += 1;
        if depth > MAX_PATH_DEPTH || self.n_entries > MAX_TREE_ENTRIES {
            return malformed("too deep or too many entries");
        }
        self.expect("(")?;
        self.expect("type")?;
        match self.text(MAX_WORD_BYTES)?.as_str() {
            "regular" => self.file(path)?,
            "symlink" => {
                self.expect("target")?;
                self.text(MAX_TARGET_BYTES)?;
            }
            "directory" => return self.entries(path, depth),
            _ => return malformed("type"),
        }
        self.expect(")")
    }

    fn file(&mut self, path: &str) -> io::Result<()> {
        match self.text(MAX_WORD_BYTES)?.as_str() {
            "contents" => {}
            "executable" => {
                self.expect("")?;
                self.expect("contents")?;
            }
            _ => return malformed("contents"),
        }
        let size = self.number()?;
        let mut content = (&mut *self.reader).take(size);
        (self.visit)(path, size, &mut content)?;
        io::copy(&mut content, &mut io::sink())?;
        if content.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.padding(size)
    }

    fn entries(&mut self, path: &str, depth: usize) -> io::Result<()> {
        loop {
            match self.text(MAX_WORD_BYTES)?.as_str() {
                ")" => return Ok(()),
                "entry" => {}
                _ => return malformed("entry"),
            }
            self.expect("(")?;
            self.expect("name")?;
            let name = self.text(MAX_NAME_BYTES)?;
            if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
                return malformed("name");
            }
            self.expect("node")?;
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            self.node(&below, depth + 1)?;
            self.expect(")")?;
        }
    }
}

/// Reads so many bytes and no more, and hashes them.
#[derive(Debug)]
pub struct Hashed<R> {
    inner: io::Take<R>,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    /// Of `inner`, at most `max_bytes`.
    pub fn new(inner: R, max_bytes: u64) -> Self {
        Self { inner: inner.take(max_bytes), hash: Sha256::new() }
    }

    /// Whether all of them were read, and have this hash.
    pub fn is_whole(self, hash: &[u8; 32]) -> bool {
        self.inner.limit() == 0 && self.hash.finalize().as_slice() == hash
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.hash.update(into.get(..n).unwrap_or_default());
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn packed() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::write(folder.path().join("bin/cc"), b"compiler").unwrap();
        fs::write(folder.path().join("empty"), b"").unwrap();
        std::os::unix::fs::symlink("/nowhere", folder.path().join("link")).unwrap();
        let mut bytes = Vec::new();
        nix_nar::Encoder::new(folder.path()).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        let mut reader = bytes;
        unpack(&mut reader, &mut |path, _, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            files.push((path.to_owned(), bytes));
            Ok(())
        })?;
        Ok(files)
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let all = packed();
        let files = vec![("bin/cc".to_owned(), b"compiler".to_vec()), ("empty".to_owned(), Vec::new())];
        assert_eq!(unpacked(&all).unwrap(), files);
        for length in 0..all.len() {
            assert!(unpacked(&all[..length]).is_err(), "{length}");
        }
        let skipped = unpack(&mut all.as_slice(), &mut |_, _, _| Ok(()));
        assert!(skipped.is_ok(), "what is not read is skipped");
        let hash: [u8; 32] = Sha256::digest(&all).into();
        let of = |max: u64| {
            let mut hashed = Hashed::new(all.as_slice(), max);
            io::copy(&mut hashed, &mut io::sink()).unwrap();
            hashed
        };
        let length = all.len() as u64;
        assert!(of(length).is_whole(&hash) && !of(length).is_whole(&[0; 32]));
        assert!(!of(length - 1).is_whole(&hash) && !of(length + 1).is_whole(&hash));
    }

    #[test]
    fn no_name_leads_out_and_no_length_is_believed() {
        let all = packed();
        let at = all.windows(3).position(|bytes| bytes == b"bin").unwrap();
        for name in [&b"../"[..], b"a/b", b"a\0b", b"\xff\xff\xff"] {
            let mut odd = all.clone();
            odd[at..at + 3].copy_from_slice(name);
            assert!(unpacked(&odd).is_err(), "{name:?}");
        }
        let mut long = all.clone();
        long[at - 8..at].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(unpacked(&long).is_err());
    }

    proptest! {
        #[test]
        fn changed_archives_are_read_or_refused(at in 0usize..600, byte: u8) {
            let mut all = packed();
            let at = at % all.len();
            all[at] = byte;
            let _ = unpacked(&all);
        }
    }
}
