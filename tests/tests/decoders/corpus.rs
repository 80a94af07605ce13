//! Where bytes that are right come from.

use std::fs;
use std::path::{Path, PathBuf};

/// Targets whose corpus is the golden bytes alone.
pub(crate) const GOLDEN: [&str; 2] = ["canonical", "frames"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The folders in the corpus.
pub(crate) fn folders() -> Vec<String> {
    let entries = fs::read_dir(root().join("corpus")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The entries for one target, always in the same order.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = match fs::read_dir(root().join("corpus").join(target)) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    let mut entries: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    match target {
        "canonical" => entries.extend(golden("canonical.hex", 0)),
        "frames" => {
            let mut files: Vec<_> =
                fs::read_dir(root().join("../proto/golden")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            files.sort();
            let names = files.iter().filter_map(|name| name.to_str()).filter(|name| *name != "canonical.hex");
            // The body alone: the header is a length.
            entries.extend(names.flat_map(|name| golden(name, 4)));
        }
        _ => {}
    }
    entries
}

/// The sections of a golden file (`proto/tests/wire/golden.rs` says how they are written), without their first bytes.
fn golden(file: &str, n_left_out: usize) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(root().join("../proto/golden").join(file)).unwrap();
    let mut sections: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("= ") {
            sections.push(String::new());
        } else if !line.starts_with('#')
            && let Some(section) = sections.last_mut()
        {
            section.push_str(line.trim());
        }
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    sections.iter().map(|digits| digits.as_bytes().chunks(2).map(byte).skip(n_left_out).collect()).collect()
}
