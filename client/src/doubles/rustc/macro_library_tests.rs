//! Wrong pairs, odd bytes, and this machine's own compiler.

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const VERSION: &str = "rustc 1.95.0 (59807616e 2026-04-14)";

fn written(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes(), &[SENTINEL]].concat()
}

/// A library as rustc lays it out.
fn library(version: &str, host: &str, name: &str, identity: CrateIdentity) -> Vec<u8> {
    let version = written(version);
    let root = 2 * WORD + version.len() + 3;
    let head = [&[SPELLED], &written(host)[..], &identity, &[SPELLED], &written(name), &[1]].concat();
    let metadata = [MAGIC, &(root as u64).to_le_bytes(), &version, b"abc", &head, b"and so on", END].concat();
    [b"\x7fELF", MAGIC, b"no metadata", MAGIC, &(metadata.len() as u64).to_le_bytes(), &metadata, b"the rest"].concat()
}

const OWN: CrateIdentity = [7; IDENTITY_BYTES];
const THERE: CrateIdentity = *b"0123456789abcdef";

fn own() -> Vec<u8> {
    library(VERSION, "aarch64-unknown-linux-gnu", "derive", OWN)
}

fn twin() -> Vec<u8> {
    library(VERSION, "x86_64-unknown-linux-gnu", "derive", THERE)
}

fn pair(own: &[u8], twin: &[u8]) -> Result<Vec<u8>, String> {
    under_identity_of(own, twin, "x86_64-unknown-linux-gnu")
}

#[test]
fn a_twin_takes_the_identity_and_nothing_else() {
    let made = pair(&own(), &twin()).unwrap();
    assert_eq!(made, library(VERSION, "x86_64-unknown-linux-gnu", "derive", OWN));
    assert_eq!(head(&made).unwrap().identity, OWN);
}

#[test]
fn wrong_pairs_are_refused_with_the_reason() {
    let x86 = "x86_64-unknown-linux-gnu";
    let twice = [&twin()[..], &THERE].concat();
    let other_layout = {
        let mut library = twin();
        for at in memmem::find_iter(&twin(), MAGIC) {
            library[at + MAGIC.len() - 1] = 11;
        }
        library
    };
    for (own, twin, word) in [
        (own(), library(VERSION, x86, "drive", THERE), "its name is \"derive\" here"),
        (own(), library("rustc 1.95.1 (0 2026-05-01)", x86, "derive", THERE), "its rustc is"),
        (own(), own(), "it was made for aarch64"),
        (twin(), twin(), "it was made for x86_64"),
        (own(), library(VERSION, "i686-unknown-linux-gnu", "derive", THERE), "its twin for i686"),
        (own(), twice, "in 2 places"),
        (own(), other_layout, "no known layout"),
        (own(), [twin(), twin()].concat(), "twice"),
        (own(), Vec::new(), "no known layout"),
    ] {
        let why = pair(&own, &twin).unwrap_err();
        assert!(why.contains(word), "{why}");
    }
}

#[test]
fn what_is_no_library_of_macros_is_none_by_its_metadata() {
    let mut library = twin();
    let at = memmem::find(&library, b"and so on").unwrap();
    library[at - 1] = 0;
    assert!(head(&library).unwrap_err().contains("no library of macros"));
}

proptest! {
    #[test]
    fn nothing_is_too_odd(at in 0usize..200, bytes in prop::collection::vec(any::<u8>(), 0..24), length in 0usize..300) {
        let mut library = own();
        for (place, byte) in library.iter_mut().skip(at).zip(bytes) {
            *place = byte;
        }
        library.truncate(length);
        let _ = head(&library);
        let _ = pair(&library, &twin());
        let _ = pair(&own(), &library);
    }
}

const MACROS: &str = "extern crate proc_macro;
#[proc_macro]
pub fn one(_: proc_macro::TokenStream) -> proc_macro::TokenStream { \"pub fn one() -> u8 { 1 }\".parse().unwrap() }";

fn rustc(folder: &Path, line: &str) -> std::process::Output {
    Command::new("rustc").args(line.split_whitespace()).current_dir(folder).output().unwrap()
}

/// With this machine's own compiler: its layout is the known one, and it loads a library under another identity, which its users then name.
#[test]
fn this_machines_compiler_takes_a_library_under_another_identity() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("mac.rs"), MACROS).unwrap();
    fs::write(folder.join("user.rs"), "mac::one!{}").unwrap();
    let made = rustc(
        folder,
        "--crate-name mac --edition 2021 --crate-type proc-macro mac.rs -C metadata=a -C extra-filename=-a",
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let library = fs::read(folder.join("libmac-a.so")).unwrap();
    let found = head(&library).unwrap();
    let told = rustc(folder, "-vV").stdout;
    assert!(told.starts_with(found.version.as_bytes()), "{}", found.version);
    assert_eq!(found.name, "mac");
    assert!(String::from_utf8(told.clone()).unwrap().contains(&format!("host: {}\n", found.host)), "{}", found.host);
    let (host, own) = (found.host.to_owned(), OWN);
    let ours = self::library(found.version, "aarch64-unknown-linux-gnu", "mac", own);
    fs::write(folder.join("libmac-a.so"), under_identity_of(&ours, &library, &host).unwrap()).unwrap();
    let used = rustc(folder, "--edition 2021 --crate-type lib --emit metadata user.rs --extern mac=libmac-a.so");
    assert!(used.status.success(), "{}", String::from_utf8_lossy(&used.stderr));
    let metadata = fs::read(folder.join("libuser.rmeta")).unwrap();
    assert_eq!(memmem::find_iter(&metadata, &own).count(), 1);
    assert_eq!(memmem::find_iter(&metadata, &found_identity(&library)).count(), 0);
}

fn found_identity(library: &[u8]) -> CrateIdentity {
    head(library).unwrap().identity
}
