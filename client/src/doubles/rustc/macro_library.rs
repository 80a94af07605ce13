//! What tells a library of macros from any other: the identity in its metadata, which crates that use it name. It is read of this machine's library,
//! and put into the twin that the double can load. Pure.
//!
//! The layout is rustc's own and promised to nobody. So everything on the way is checked, whatever is another than expected refuses, and that the compiler
//! takes it is proved for each pair ([`macros`](super::macros)).

use memchr::memmem;

/// How metadata begins, and the part of a shared library that holds it; the last byte is the layout's number.
const MAGIC: &[u8] = b"rust\0\0\0\x0a";
/// How metadata ends.
const END: &[u8] = b"rust-end-file";
/// What stands behind every text.
const SENTINEL: u8 = 0xc1;
/// What stands before a text that is spelled out.
const SPELLED: u8 = 0;
/// Bytes of a number of fixed size.
const WORD: usize = size_of::<u64>();
/// Bytes of an identity.
const IDENTITY_BYTES: usize = 16;

/// What uses of a crate name. rustc calls it the crate's hash.
pub type CrateIdentity = [u8; IDENTITY_BYTES];

/// What the head of a library's metadata says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Whose metadata it is: `rustc 1.95.0 (59807616e 2026-04-14)`.
    pub version: &'a str,
    /// For which host it was made.
    pub host: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its identity.
    pub identity: CrateIdentity,
    /// Where that stands in the library.
    at: usize,
}

/// The head of a library of macros, or in which point it is none that is known.
pub fn head(library: &[u8]) -> Result<Head<'_>, &'static str> {
    let begins = |at: &usize| library.get(at + 2 * WORD..).is_some_and(|rest| rest.starts_with(MAGIC));
    let mut starts = memmem::find_iter(library, MAGIC).filter(begins);
    let start = starts.next().ok_or("its metadata is of no known layout")?;
    if starts.next().is_some() {
        return Err("it holds metadata twice");
    }
    let begin = start + 2 * WORD;
    let metadata = word(library, start + WORD)
        .and_then(|length| library.get(begin..begin.checked_add(length)?))
        .filter(|metadata| metadata.ends_with(END))
        .ok_or("its metadata has no end")?;
    let odd = "the head of its metadata is of no known layout";
    let (version, _) = text(metadata, 2 * WORD).ok_or(odd)?;
    let root = word(metadata, WORD).ok_or(odd)?;
    let (host, at) = spelled(metadata, root).ok_or(odd)?;
    let identity = *metadata.get(at..).and_then(|rest| rest.first_chunk::<IDENTITY_BYTES>()).ok_or(odd)?;
    let (name, behind) = spelled(metadata, at + IDENTITY_BYTES).ok_or(odd)?;
    if metadata.get(behind) != Some(&1) {
        return Err("it is no library of macros by its metadata");
    }
    Ok(Head { version, host, name, identity, at: begin + at })
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk::<WORD>()?;
    usize::try_from(u64::from_le_bytes(*word)).ok()
}

/// A text that is spelled out, and where what follows begins.
fn spelled(bytes: &[u8], at: usize) -> Option<(&str, usize)> {
    if *bytes.get(at)? == SPELLED { text(bytes, at + 1) } else { None }
}

/// One whose length fits in seven bits: no version, host or name is longer.
fn text(bytes: &[u8], at: usize) -> Option<(&str, usize)> {
    let length = usize::from(*bytes.get(at)?);
    let text = bytes.get(at + 1..)?.get(..length)?;
    let end = at + 1 + length;
    if length >= 0x80 || *bytes.get(end)? != SENTINEL {
        return None;
    }
    Some((std::str::from_utf8(text).ok()?, end + 1))
}

/// `twin`, a build of the same crate for the host `host`, under the identity of `own`; or why the one can't stand for the other.
pub fn under_identity_of(own: &[u8], twin: &[u8], host: &str) -> Result<Vec<u8>, String> {
    let (ours, theirs) = (head(own)?, head(twin)?);
    for (what, one, other) in [("name", ours.name, theirs.name), ("rustc", ours.version, theirs.version)] {
        if one != other {
            return Err(format!("its {what} is {one:?} here, and {other:?} there"));
        }
    }
    if theirs.host != host || ours.host == host {
        return Err(format!("it was made for {}, and its twin for {}", ours.host, theirs.host));
    }
    match memmem::find_iter(twin, &theirs.identity).count() {
        1 => {}
        n => return Err(format!("its identity stands in {n} places of its twin")),
    }
    let mut made = twin.to_vec();
    made[theirs.at..theirs.at + IDENTITY_BYTES].copy_from_slice(&ours.identity);
    Ok(made)
}

#[cfg(test)]
#[path = "macro_library_tests.rs"]
mod tests;
