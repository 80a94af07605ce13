//! What a binary cache says of a store path. Pure.

use std::fmt::Write as _;

use buildbee_proto::store_path::{StorePath, is_store_hash};
use nix_base32::to_nix_base32;

/// What a binary cache says of itself: no preference over others but nearness (40 is the public cache's), and that asking is cheap.
pub const CACHE_INFO: &str = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n";
/// Characters of an archive's hash.
const ARCHIVE_HASH_LENGTH: usize = 52;

/// What Nix asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The cache's own description.
    CacheInfo,
    /// The description of the path with this hash.
    Description(String),
    /// The archive of the path with this hash, if it is the one with that content.
    Archive {
        /// The hash in the path's name.
        hash: String,
        /// The hash of its archive, as Nix writes it.
        archive: String,
    },
}

/// From the path of a URL.
pub fn wanted(path: &str) -> Option<Wanted> {
    if path == "/nix-cache-info" {
        return Some(Wanted::CacheInfo);
    }
    if let Some(archive) = path.strip_prefix("/nar/") {
        let (hash, archive) = archive.strip_suffix(".nar")?.split_once('-')?;
        let good = is_store_hash(hash) && archive.len() == ARCHIVE_HASH_LENGTH;
        return good.then(|| Wanted::Archive { hash: hash.to_owned(), archive: archive.to_owned() });
    }
    let hash = path.strip_prefix('/')?.strip_suffix(".narinfo")?;
    is_store_hash(hash).then(|| Wanted::Description(hash.to_owned()))
}

/// The archive's hash, as Nix writes it.
pub fn archive_hash(path: &StorePath) -> String {
    to_nix_base32(&path.archive_hash)
}

/// The description of `path` (sound, with this `hash`).
pub fn describe(hash: &str, path: &StorePath) -> String {
    let (archive, n_bytes) = (archive_hash(path), path.archive_bytes);
    let mut text = format!(
        "StorePath: /nix/store/{}\nURL: nar/{hash}-{archive}.nar\nCompression: none\nFileHash: sha256:{archive}\nFileSize: {n_bytes}\n\
         NarHash: sha256:{archive}\nNarSize: {n_bytes}\nReferences: {}\n",
        path.name,
        path.references.join(" "),
    );
    let deriver = path.deriver.iter().map(|value| ("Deriver", value));
    let signatures = path.signatures.iter().map(|value| ("Sig", value));
    let content_address = path.content_address.iter().map(|value| ("CA", value));
    for (key, value) in deriver.chain(signatures).chain(content_address) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}: {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0wwbmlzz12c1mn5a754ndya7mkbbfknm";

    #[test]
    fn a_description_leads_to_its_archive() {
        let path = StorePath {
            name: format!("{HASH}-x"),
            archive_hash: [1; 32],
            archive_bytes: 112,
            references: vec![format!("{HASH}-x"), format!("{HASH}-y")],
            deriver: Some(format!("{HASH}-x.drv")),
            signatures: vec!["a:b".to_owned(), "c:d".to_owned()],
            content_address: None,
        };
        let text = describe(HASH, &path);
        let url = text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap();
        assert_eq!(
            wanted(&format!("/{url}")),
            Some(Wanted::Archive { hash: HASH.into(), archive: archive_hash(&path) })
        );
        for line in ["NarSize: 112", "Sig: a:b", "Sig: c:d", &format!("References: {HASH}-x {HASH}-y")] {
            assert!(text.lines().any(|known| known == line), "{line}: {text}");
        }
        assert!(!text.contains("CA:"));
    }

    #[test]
    fn other_urls_mean_nothing() {
        assert_eq!(wanted(&format!("/{HASH}.narinfo")), Some(Wanted::Description(HASH.to_owned())));
        assert_eq!(wanted("/nix-cache-info"), Some(Wanted::CacheInfo));
        for odd in [
            "",
            "/",
            "/x.narinfo",
            "/nar/x.nar",
            "/log/x",
            "/../etc/passwd",
            "/0wwbmlzz12c1mn5a754ndya7mkbbfkn\n.narinfo",
        ] {
            assert_eq!(wanted(odd), None, "{odd}");
        }
    }
}
