//! Which crates a crate needs besides itself: what its own compile opened among the build's libraries. Known for every library that was made or
//! placed through here, by its content, in the same store as results.
//!
//! A dependant opens no more than its dependencies did, and them. So the inputs of an action are told without asking a compiler. Where it links, the
//! linker opens the system's libraries, too, which were named when their crate was compiled (`-l`).

use std::collections::BTreeSet;

use buildbee_proto::digest::Digest;
use buildbee_proto::manifest::{Manifest, ManifestEntry};
use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::RelPath;
use buildbee_store::{PutError, Store};

/// Suffixes of libraries that hold a crate.
pub const SUFFIXES: [&str; 3] = [".rmeta", ".rlib", ".so"];

/// Stems of crates (`libserde-0123456789abcdef`).
pub type Stems = BTreeSet<String>;

/// The stem of a crate's library, by its file's name.
pub fn stem(name: &str) -> Option<&str> {
    SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|stem| stem.starts_with("lib"))
}

/// The stem in a path's last component.
pub fn stem_of(path: &RelPath) -> Option<&str> {
    stem(path.as_str().rsplit('/').next()?)
}

/// What the library with this content needs, if it is known.
pub fn recall(store: &Store, library: &Digest) -> Option<Stems> {
    let manifest = store.manifest(&key(library)).ok()??;
    let opened = manifest.entries.into_iter().next()?.read_set.files;
    Some(opened.iter().filter_map(|(path, _)| stem_of(path)).map(str::to_owned).collect())
}

/// Libraries of the system that whoever links this one needs, as a linker's `-l` spells them.
pub fn native(store: &Store, library: &Digest) -> Vec<String> {
    let known = store.manifest(&key(library)).ok().flatten().and_then(|manifest| manifest.entries.into_iter().next());
    known.map(|entry| entry.read_set.env.into_iter().map(|(name, _)| name).collect()).unwrap_or_default()
}

/// Remembers what a library needs: the libraries among what its compile read, and `native` ones.
pub fn remember(
    store: &Store,
    library: &Digest,
    read: &ReadSet,
    native: impl Iterator<Item = String>,
) -> Result<(), PutError> {
    let files = read.files.iter().filter(|(path, _)| stem_of(path).is_some()).cloned().collect();
    let env = native.map(|name| (name, None)).collect();
    let entry = ManifestEntry { action: *library, read_set: ReadSet { files, env, ..ReadSet::default() } };
    store.put_manifest(&key(library), &Manifest { entries: vec![entry] })
}

/// Where it is kept: no question has this key.
fn key(library: &Digest) -> Digest {
    Digest::of(format!("crates that {library} needs").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_have_stems() {
        assert_eq!(stem("libserde-0a.rmeta"), Some("libserde-0a"));
        assert_eq!(stem("libserde_derive-0a.so"), Some("libserde_derive-0a"));
        assert_eq!(stem("serde-0a.rmeta"), None);
        assert_eq!(stem("libserde-0a.d"), None);
    }
}
