//! What a binary cache says of a store path (`.narinfo`), and whether it may be acted upon. Pure.

use std::fmt::Write as _;
use std::str::FromStr;

use buildbee_p2p::identity::verify_bytes;
use buildbee_proto::limits::{MAX_STORE_PATH_REFERENCES, MAX_STORE_PATH_SIGNATURES};
use buildbee_proto::peer::PeerId;
use buildbee_proto::store_path::{STORE_HASH_LENGTH, StorePath};
use nix_base32::{from_nix_base32, to_nix_base32};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Bytes of an archive: no path of a compiler has more.
pub const MAX_ARCHIVE_BYTES: u64 = 8 << 30;
/// Bytes of the hash in a path's name.
const NAME_HASH_BYTES: usize = 20;
/// Characters of a hash as Nix writes it: 32 bytes, five bits each.
const HASH_TEXT_BYTES: usize = 52;
const STORE: &str = "/nix/store/";

/// How an archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// By zstd.
    Zstd,
    /// By xz.
    Xz,
}

/// What a cache says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The path.
    pub path: StorePath,
    /// Where its archive is, as written.
    pub url: String,
    /// How that is packed.
    pub packing: Packing,
}

/// Why a description is of no use.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DescriptionError {
    /// Not what it should be.
    #[error("{0} is missing, malformed or out of bounds")]
    Malformed(&'static str),
    /// Of something else.
    #[error("it describes another path")]
    OtherPath,
    /// Packed by something that is not unpacked here.
    #[error("archives packed by {0:?} are not unpacked here")]
    Packing(String),
    /// Nobody vouches for it.
    #[error("no key of nix_keys has signed it, and its name does not follow from its content")]
    Untrusted,
}

/// A key that the owner trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    name: String,
    key: PeerId,
}

impl FromStr for TrustedKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').filter(|(name, _)| !name.is_empty());
        let key = parsed.and_then(|(name, key)| Some((name, <[u8; 32]>::try_from(base64(key)?).ok()?)));
        let (name, key) = key.ok_or("a key is like \"cache.nixos.org-1:\" and 44 characters")?;
        Ok(Self { name: name.to_owned(), key: PeerId(key) })
    }
}

/// What `text` says of the path with this `name`, if a key of `keys` or the name itself vouches for it.
pub fn trusted(text: &str, name: &str, keys: &[TrustedKey]) -> Result<Description, DescriptionError> {
    let description = parse(text, name)?;
    if is_signed(&description.path, keys) || is_named_by_content(&description.path) {
        Ok(description)
    } else {
        Err(DescriptionError::Untrusted)
    }
}

fn parse(text: &str, name: &str) -> Result<Description, DescriptionError> {
    let malformed = DescriptionError::Malformed;
    let values = |key: &'static str| {
        text.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim))
    };
    let value = |key| values(key).next().ok_or(malformed(key));
    if value("StorePath")?.strip_prefix(STORE) != Some(name) {
        return Err(DescriptionError::OtherPath);
    }
    let packing = match values("Compression").next() {
        Some("none") => Packing::Plain,
        Some("zstd") => Packing::Zstd,
        Some("xz") => Packing::Xz,
        other => return Err(DescriptionError::Packing(other.unwrap_or("bzip2").to_owned())),
    };
    let archive_hash = value("NarHash")?.strip_prefix("sha256:").and_then(hash).ok_or(malformed("NarHash"))?;
    let archive_bytes: u64 = value("NarSize")?.parse().map_err(|_| malformed("NarSize"))?;
    if archive_bytes > MAX_ARCHIVE_BYTES {
        return Err(malformed("NarSize"));
    }
    let references: Vec<String> = values("References").flat_map(str::split_whitespace).map(str::to_owned).collect();
    let signatures: Vec<String> = values("Sig").map(str::to_owned).collect();
    if references.len() > MAX_STORE_PATH_REFERENCES || signatures.len() > MAX_STORE_PATH_SIGNATURES {
        return Err(malformed("References or Sig"));
    }
    let content_address = values("CA").next().map(str::to_owned);
    let name = name.to_owned();
    let path = StorePath { name, archive_hash, archive_bytes, references, deriver: None, signatures, content_address };
    if !path.is_sound(path.name.get(..STORE_HASH_LENGTH).unwrap_or_default()) {
        return Err(malformed("StorePath, References, Sig or CA"));
    }
    Ok(Description { path, url: value("URL")?.to_owned(), packing })
}

fn hash(text: &str) -> Option<[u8; 32]> {
    // Of most other lengths it panics.
    if text.len() != HASH_TEXT_BYTES {
        return None;
    }
    from_nix_base32(text)?.try_into().ok()
}

/// Whether one of `keys` signed it.
fn is_signed(path: &StorePath, keys: &[TrustedKey]) -> bool {
    let mut references: Vec<String> = path.references.iter().map(|name| format!("{STORE}{name}")).collect();
    references.sort_unstable();
    let (hash, references) = (to_nix_base32(&path.archive_hash), references.join(","));
    let said = format!("1;{STORE}{};sha256:{hash};{};{references}", path.name, path.archive_bytes);
    path.signatures.iter().filter_map(|text| text.split_once(':')).any(|(name, signature)| {
        let Some(signature) = base64(signature) else { return false };
        keys.iter().filter(|key| key.name == name).any(|key| verify_bytes(key.key, said.as_bytes(), &signature))
    })
}

/// Whether its name follows from its archive's hash, which is so for what was added to a store and does not name itself.
fn is_named_by_content(path: &StorePath) -> bool {
    let content = path.content_address.as_deref().and_then(|text| text.strip_prefix("fixed:r:sha256:")).and_then(hash);
    if content != Some(path.archive_hash) {
        return false;
    }
    let named = path.name.split_once('-').map(|(name_hash, rest)| name_hash == hash_by_content(path, rest));
    named.unwrap_or(false)
}

/// The hash in the name of a path that was added with `path`'s archive and references.
pub fn hash_by_content(path: &StorePath, rest: &str) -> String {
    let mut references: Vec<&str> = path.references.iter().map(String::as_str).collect();
    references.sort_unstable();
    let mut said = "source".to_owned();
    // Writing to a String cannot fail, here as below.
    let _ = references.iter().try_for_each(|name| write!(said, ":{STORE}{name}"));
    said.push_str(":sha256:");
    let _ = path.archive_hash.iter().try_for_each(|byte| write!(said, "{byte:02x}"));
    let named = Sha256::digest(said + ":/nix/store:" + rest);
    let mut folded = [0; NAME_HASH_BYTES];
    for (n, byte) in named.iter().enumerate() {
        if let Some(at) = folded.get_mut(n % NAME_HASH_BYTES) {
            *at ^= byte;
        }
    }
    to_nix_base32(&folded)
}

/// What `text` stands for in the usual alphabet, with its padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let (mut bytes, mut held, mut n_bits) = (Vec::new(), 0u32, 0u32);
    for byte in digits.bytes() {
        held = (held << 6) | u32::from(digit(byte)?);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push(u8::try_from(held >> n_bits).ok()?);
            held &= (1 << n_bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Nix 2.8 writes it.
    const REAL: &str = "StorePath: /nix/store/i9pmrzmpshapij2kin22pff6fc2adavx-hello.txt
URL: nar/0qa62dhmhx2947b66ndaalppnzplds7c3ybf8n3a82xicrwvs8cs.nar.zst
Compression: zstd
FileHash: sha256:0qa62dhmhx2947b66ndaalppnzplds7c3ybf8n3a82xicrwvs8cs
FileSize: 91
NarHash: sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw
NarSize: 120
References: 
Sig: office-1:dv5sdMItww1QKTV0aMrP653ABD4qbGkNC3CHdDLl+yQL3lTVDpeDJlweLSaLtdmcbFU58pnYbKlTV8M6OZjGDA==
CA: fixed:r:sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw
";
    const NAME: &str = "i9pmrzmpshapij2kin22pff6fc2adavx-hello.txt";
    const KEY: &str = "office-1:GL3RfZ3oFYIk+Ys03tWJmSt+EvACzRwVGe9OxkN0md0=";

    fn without(start: &str) -> String {
        REAL.split_inclusive('\n').filter(|line| !line.starts_with(start)).collect()
    }

    #[test]
    fn a_signature_or_the_name_vouches() {
        let key: TrustedKey = KEY.parse().unwrap();
        let keys = std::slice::from_ref(&key);
        let description = trusted(REAL, NAME, keys).unwrap();
        assert_eq!((description.packing, description.path.archive_bytes), (Packing::Zstd, 120));
        assert!(trusted(&without("CA"), NAME, keys).is_ok(), "by its signature");
        assert!(trusted(&without("Sig"), NAME, &[]).is_ok(), "by its name");
        let untrusted = Err(DescriptionError::Untrusted);
        assert_eq!(trusted(&without("CA"), NAME, &[]), untrusted);
        let other = TrustedKey { name: "other-1".to_owned(), ..key.clone() };
        assert_eq!(trusted(&without("CA"), NAME, &[other]), untrusted, "a key of another name");
        for (from, to) in [("NarSize: 120", "NarSize: 121"), ("References: ", &format!("References: {NAME}"))] {
            assert_eq!(trusted(&without("CA").replace(from, to), NAME, keys), untrusted, "{to}");
        }
        let renamed = REAL.replace("hello.txt", "other.txt");
        let name = NAME.replace("hello", "other");
        assert_eq!(trusted(&renamed, &name, keys), untrusted, "neither its signature nor its name");
    }

    #[test]
    fn other_descriptions_are_refused() {
        let of = |text: &str| trusted(text, NAME, &[]).unwrap_err();
        assert_eq!(trusted(REAL, "0wwbmlzz12c1mn5a754ndya7mkbbfknm-x", &[]), Err(DescriptionError::OtherPath));
        assert_eq!(of(&REAL.replace("zstd", "br")), DescriptionError::Packing("br".to_owned()));
        for key in ["StorePath", "URL", "NarHash", "NarSize"] {
            assert_eq!(of(&without(key)), DescriptionError::Malformed(key));
        }
        for size in ["-1", "9000000000000", "99999999999999999999999", "x"] {
            assert_eq!(of(&REAL.replace("120", size)), DescriptionError::Malformed("NarSize"));
        }
        for hash in ["md5:x", "sha256:", "sha256:é", &format!("sha256:{}", "e".repeat(52))] {
            let text = without("NarHash") + &format!("NarHash: {hash}\n");
            assert_eq!(of(&text), DescriptionError::Malformed("NarHash"), "{hash}");
        }
        let many = "References: a\n".repeat(MAX_STORE_PATH_REFERENCES + 1);
        assert!(matches!(of(&(REAL.to_owned() + &many)), DescriptionError::Malformed(_)));
    }

    #[test]
    fn keys_are_names_and_keys() {
        for odd in ["", "office-1", ":GL3RfZ3oFYIk+Ys03tWJmSt+EvACzRwVGe9OxkN0md0=", "office-1:AAAA", "a:!", "a:===="] {
            assert!(odd.parse::<TrustedKey>().is_err(), "{odd}");
        }
        assert_eq!(base64("aGVsbG8=").as_deref(), Some(&b"hello"[..]));
        assert_eq!(base64("aGVsbA==").as_deref(), Some(&b"hell"[..]));
        assert_eq!(base64(""), Some(Vec::new()));
    }

    #[test]
    fn a_hash_of_another_length_is_refused() {
        for n in 0..2 * HASH_TEXT_BYTES {
            assert_eq!(hash(&"z".repeat(n)), None, "{n}");
            assert_eq!(hash(&"0".repeat(n)).is_some(), n == HASH_TEXT_BYTES, "{n}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(at in 0usize..600, with: char) {
            let mut text: Vec<char> = REAL.chars().collect();
            let at = at % text.len();
            text[at] = with;
            let _ = trusted(&text.into_iter().collect::<String>(), NAME, &[KEY.parse().unwrap()]);
        }
    }
}
