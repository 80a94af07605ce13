//! Streams that carry paths of Nix's store between agents, so that each machine can be a binary cache for every other.
//!
//! A stream may carry many requests, one after the other. After `Describe` there is one [`StorePathReply::Described`] for each hash, in the
//! order asked; after `Archive` and a `Follows`, exactly so many raw bytes. Who gets them has Nix check signature and hash: nobody here is
//! believed. What is checked is that a description can't say more than it seems to ([`StorePath::is_sound`]).

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::codec::Message;
use crate::limits::{
    MAX_STORE_PATH_HASHES, MAX_STORE_PATH_NAME_BYTES, MAX_STORE_PATH_REFERENCES, MAX_STORE_PATH_SIGNATURES,
    MAX_STORE_PATH_TEXT_BYTES,
};

/// Characters of the hash that a store path's name begins with.
pub const STORE_HASH_LENGTH: usize = 32;
/// What they are, in Nix's order.
const HASH_CHARACTERS: &str = "0123456789abcdfghijklmnpqrsvwxyz";

/// Asks for store paths by the hash in their names. Order is the wire format: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorePathRequest {
    /// What is known of these? At most `MAX_STORE_PATH_HASHES`.
    Describe(#[serde(deserialize_with = "bounded::texts::<_, MAX_STORE_PATH_HASHES, STORE_HASH_LENGTH>")] Vec<String>),
    /// Send the archive of this one.
    Archive {
        /// The hash in its name.
        #[serde(deserialize_with = "bounded::text::<_, STORE_HASH_LENGTH>")]
        hash: String,
    },
}

/// Answers to [`StorePathRequest`]. Order is the wire format: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorePathReply {
    /// What is known of one of them, if it may be handed on.
    Described(Option<StorePath>),
    /// So many bytes follow.
    Follows {
        /// How many.
        n_bytes: u64,
    },
    /// It can't be sent.
    Missing,
}

/// A valid path of a store, as its register has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorePath {
    /// Its name below the store's folder: hash, dash, text.
    #[serde(deserialize_with = "bounded::text::<_, MAX_STORE_PATH_NAME_BYTES>")]
    pub name: String,
    /// SHA-256 of its archive.
    pub archive_hash: [u8; 32],
    /// Bytes of its archive.
    pub archive_bytes: u64,
    /// Names of the paths that it needs.
    #[serde(deserialize_with = "bounded::texts::<_, MAX_STORE_PATH_REFERENCES, MAX_STORE_PATH_NAME_BYTES>")]
    pub references: Vec<String>,
    /// Name of what it was built from.
    #[serde(deserialize_with = "bounded::optional_text::<_, MAX_STORE_PATH_NAME_BYTES>")]
    pub deriver: Option<String>,
    /// `key name:base64` each, as whoever signed wrote them.
    #[serde(deserialize_with = "bounded::texts::<_, MAX_STORE_PATH_SIGNATURES, MAX_STORE_PATH_TEXT_BYTES>")]
    pub signatures: Vec<String>,
    /// How its name follows from its content, where it does.
    #[serde(deserialize_with = "bounded::optional_text::<_, MAX_STORE_PATH_TEXT_BYTES>")]
    pub content_address: Option<String>,
}

impl Message for StorePathRequest {
    const MAX_BYTES: usize = 16 << 10;
}
impl Message for StorePathReply {
    const MAX_BYTES: usize = 1 << 20;
}

/// Whether `text` is the hash that a store path's name begins with.
pub fn is_store_hash(text: &str) -> bool {
    text.len() == STORE_HASH_LENGTH && text.chars().all(|character| HASH_CHARACTERS.contains(character))
}

/// Whether `name` is that of a store path.
fn is_store_name(name: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "+-._?=".contains(character);
    let (Some(hash), Some(rest)) = (name.get(..STORE_HASH_LENGTH), name.get(STORE_HASH_LENGTH..)) else { return false };
    is_store_hash(hash) && rest.len() > 1 && rest.starts_with('-') && rest.chars().all(plain)
}

impl StorePath {
    /// Whether it may be handed to others than who built it: its content gives it its name, or somebody vouches for it.
    pub fn is_vouched_for(&self) -> bool {
        self.content_address.is_some() || !self.signatures.is_empty()
    }

    /// Whether it describes the path with this `hash`, in words that stay in their lines.
    pub fn is_sound(&self, hash: &str) -> bool {
        let plain = |text: &String| !text.is_empty() && text.chars().all(|character| character.is_ascii_graphic());
        self.name.starts_with(hash)
            && is_store_name(&self.name)
            && self.references.iter().chain(&self.deriver).all(|name| is_store_name(name))
            && self.signatures.iter().chain(&self.content_address).all(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0wwbmlzz12c1mn5a754ndya7mkbbfknm";

    fn path() -> StorePath {
        StorePath {
            name: format!("{HASH}-gcc-12"),
            archive_hash: [0; 32],
            archive_bytes: 1,
            references: vec![format!("{HASH}-x")],
            deriver: None,
            signatures: vec!["farm-1:abc=".to_owned()],
            content_address: None,
        }
    }

    #[test]
    fn only_what_stays_in_its_line_is_sound() {
        assert!(path().is_sound(HASH) && path().is_vouched_for());
        assert!(!path().is_sound("1wwbmlzz12c1mn5a754ndya7mkbbfknm"), "another path");
        let odd: [fn(&mut StorePath); 6] = [
            |path| path.name.push('/'),
            |path| path.name.truncate(STORE_HASH_LENGTH),
            |path| path.references.push("../x".to_owned()),
            |path| path.deriver = Some(String::new()),
            |path| path.signatures.push("a:b\nSig: c".to_owned()),
            |path| path.content_address = Some("x y".to_owned()),
        ];
        for spoil in odd {
            let mut path = path();
            spoil(&mut path);
            assert!(!path.is_sound(HASH), "{path:?}");
        }
        assert!(!StorePath { signatures: Vec::new(), ..path() }.is_vouched_for());
    }
}
