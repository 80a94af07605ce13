//! Which crates a library needs, by its own metadata: that holds, as plain text, the ending (`-0123456789abcdef`) that cargo gave the name of each
//! crate that was loaded when it was made. So it is known of every library, whoever made it.
//!
//! What is found is a superset: any text of that form counts if a library in the build's folders has that ending. One too many is a file that
//! is sent and not opened. Libraries whose names have no such ending are not found here; [`closure`](super::closure) may know of them. Blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use memchr::memmem;

use super::closure::stem;

/// Libraries in one folder; of further ones none is found.
const MAX_NAMES: usize = 100_000;
/// Hexadecimal digits of an ending.
const N_DIGITS: usize = 16;
/// How metadata begins, in a file of its own.
const METADATA: &[u8] = b"rust\0\0\0";
/// How an archive begins, one of whose members is metadata.
const ARCHIVE: &[u8] = b"!<arch>\n";
/// What a library of macros exports. Whoever uses its macros loads it, and nothing of what it was made of.
const MACROS: &[u8] = b"rustc_proc_macro_decls_";

/// The digits of an ending.
pub type Ending = [u8; N_DIGITS];

/// What a library's content tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Endings of all crates that it needs, and others.
    These(Arc<[Ending]>),
    /// Nothing: it is a compressed or foreign file.
    Unknown,
}

/// What a library with this content needs.
pub fn needs(content: &[u8]) -> Needs {
    if content.starts_with(METADATA) || content.starts_with(ARCHIVE) {
        return Needs::These(endings(content).into_iter().collect());
    }
    if has_macros(content) { Needs::These(Arc::default()) } else { Needs::Unknown }
}

/// Whether it is a library of macros.
pub fn has_macros(content: &[u8]) -> bool {
    memmem::find(content, MACROS).is_some()
}

fn endings(content: &[u8]) -> BTreeSet<Ending> {
    let at = |dash: usize| {
        let digits = content.get(dash + 1..)?.first_chunk::<N_DIGITS>()?;
        digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(*digits)
    };
    memchr::memchr_iter(b'-', content).filter_map(at).collect()
}

/// The libraries of a folder by their endings.
#[derive(Debug)]
pub struct LibraryFolder {
    /// Where it is.
    pub path: PathBuf,
    stems: BTreeMap<Ending, BTreeSet<String>>,
}

impl LibraryFolder {
    /// Lists `path`. A folder that is not there has no libraries.
    pub fn list(path: PathBuf) -> Self {
        let mut stems: BTreeMap<Ending, BTreeSet<String>> = BTreeMap::new();
        for entry in fs::read_dir(&path).into_iter().flatten().take(MAX_NAMES).flatten() {
            let name = entry.file_name();
            let Some(stem) = name.to_str().and_then(stem) else { continue };
            let Some((_, digits)) = stem.rsplit_once('-') else { continue };
            if let Ok(ending) = Ending::try_from(digits.as_bytes()) {
                stems.entry(ending).or_default().insert(stem.to_owned());
            }
        }
        Self { path, stems }
    }

    /// Stems of the libraries with this ending.
    pub fn with(&self, ending: &Ending) -> impl Iterator<Item = &str> {
        self.stems.get(ending).into_iter().flatten().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_found_in_metadata_and_archives_alone() {
        let text = b"..-0123456789abcdef-0123456789abcdeF--fedcba9876543210fe-01";
        let expected = [*b"0123456789abcdef", *b"fedcba9876543210"];
        for start in [METADATA, ARCHIVE] {
            let Needs::These(found) = needs(&[start, text].concat()) else { panic!("{start:?}") };
            assert_eq!(*found, expected);
        }
        assert_eq!(needs(text), Needs::Unknown);
        assert_eq!(needs(&[text, MACROS].concat()), Needs::These(Arc::default()));
    }

    #[test]
    fn a_folder_knows_its_libraries_by_ending() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["liba-0123456789abcdef.rmeta", "liba-0123456789abcdef.rlib", "a-0123456789abcdef.d", "libb-x.so"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let listed = LibraryFolder::list(folder.path().to_owned());
        assert_eq!(listed.with(b"0123456789abcdef").collect::<Vec<_>>(), ["liba-0123456789abcdef"]);
        assert_eq!(listed.with(b"0000000000000000").count(), 0);
        assert_eq!(LibraryFolder::list(folder.path().join("none")).stems.len(), 0);
    }
}
