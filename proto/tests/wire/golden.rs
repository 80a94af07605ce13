//! Golden bytes: the encodings of fixed values, committed in `proto/golden/`.
//!
//! A file a protocol, and `canonical.hex` for content. A section is `= name`, then the bytes as hexadecimal digits, 32 bytes a line.
//! To write the files anew: `BUILDBEE_BLESS=1 cargo test -p buildbee-proto --test wire golden`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use buildbee_proto::codec::FRAME_HEADER_BYTES;
use buildbee_proto::responsible::ranked;

use crate::samples::{Sample, content, messages};

const BYTES_A_LINE: usize = 32;

const CANONICAL_ADVICE: &str = "\
These bytes are hashed and signed: every digest, cached result and membership out there would break.
If the change is meant, give the type a new tag (the digit in its TAG), say so in proto/src/version.rs,
then run: BUILDBEE_BLESS=1 cargo test -p buildbee-proto --test wire golden";

const MESSAGE_ADVICE: &str = "\
Peers of the released version can't read these bytes.
If the change is meant, give the protocol a new id (or raise LOCAL_VERSION) and its version log a row with the
reason, both in proto/src/version.rs, then run: BUILDBEE_BLESS=1 cargo test -p buildbee-proto --test wire golden";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn blessing() -> bool {
    #[expect(clippy::disallowed_methods, reason = "the one switch of this test; not a setting of any program")]
    let switch = std::env::var_os("BUILDBEE_BLESS");
    switch.is_some_and(|value| value == "1")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn render(title: &str, samples: &[(String, Vec<u8>)]) -> String {
    let mut text = format!("# {title}\n");
    for (name, bytes) in samples {
        let _ = write!(text, "\n= {name}\n");
        for line in bytes.chunks(BYTES_A_LINE) {
            let _ = writeln!(text, "{}", hex(line));
        }
    }
    text
}

fn sections(text: &str) -> BTreeMap<&str, String> {
    let mut sections: BTreeMap<&str, String> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("= ") {
            assert!(sections.insert(name, String::new()).is_none(), "section {name:?} stands twice");
            current = Some(name);
        } else if let (Some(name), false) = (current, line.starts_with('#')) {
            sections.entry(name).or_default().push_str(line.trim());
        }
    }
    sections
}

fn check(file: &str, title: &str, advice: &str, samples: &[(String, Vec<u8>)]) {
    let path = folder().join(file);
    let rendered = render(title, samples);
    if blessing() {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, rendered).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}\n{advice}", path.display()));
    let golden = sections(&committed);
    let mut complaints = String::new();
    for (name, bytes) in samples {
        match golden.get(name.as_str()) {
            Some(digits) if *digits == hex(bytes) => {}
            Some(digits) => {
                let _ = writeln!(complaints, "{name}: bytes changed\n  golden {digits}\n  now    {}", hex(bytes));
            }
            None => {
                let _ = writeln!(complaints, "{name}: not in the file");
            }
        }
    }
    let known: BTreeSet<&str> = samples.iter().map(|(name, _)| name.as_str()).collect();
    for gone in golden.keys().filter(|name| !known.contains(*name)) {
        let _ = writeln!(complaints, "{gone}: in the file, but no longer made");
    }
    assert!(complaints.is_empty(), "{} differs:\n{complaints}{advice}", path.display());
    assert_eq!(committed, rendered, "{}: title, order or layout differ\n{advice}", path.display());
}

fn plain(samples: Vec<Sample>) -> Vec<(String, Vec<u8>)> {
    samples.into_iter().map(|sample| (sample.name, sample.bytes)).collect()
}

fn framed(samples: Vec<Sample>) -> Vec<(String, Vec<u8>)> {
    (samples.into_iter())
        .map(|sample| {
            let header = u32::try_from(sample.bytes.len()).unwrap().to_le_bytes();
            assert_eq!(header.len(), FRAME_HEADER_BYTES);
            (sample.name, [&header[..], &sample.bytes].concat())
        })
        .collect()
}

/// `/buildbee/control/1` is kept in `control.hex`, `local 1` in `local.hex`.
fn file_of(id: &str) -> String {
    let words: Vec<&str> = id.split(['/', ' ']).filter(|word| !word.is_empty()).collect();
    format!("{}.hex", words[words.len() - 2])
}

#[test]
fn golden_canonical_bytes_are_still() {
    check("canonical.hex", "canonical encodings", CANONICAL_ADVICE, &plain(content::samples()));
}

#[test]
fn golden_frames_are_still() {
    for (id, samples) in messages::groups() {
        check(&file_of(&id), &format!("frames of {id}"), MESSAGE_ADVICE, &framed(samples));
    }
}

#[test]
fn every_golden_file_belongs_to_a_protocol() {
    let mut expected: BTreeSet<String> = messages::groups().iter().map(|(id, _)| file_of(id)).collect();
    expected.insert("canonical.hex".to_owned());
    if blessing() {
        return;
    }
    let found: BTreeSet<String> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected);
}

#[test]
fn samples_have_distinct_names_and_bytes() {
    let samples = crate::samples::all();
    let names: BTreeSet<&str> = samples.iter().map(|sample| sample.name.as_str()).collect();
    assert_eq!(names.len(), samples.len(), "two samples share a name");
    // Two variants of one type that share their bytes would make one of them unreadable.
    let encodings: BTreeSet<(&str, &[u8])> =
        samples.iter().map(|sample| (sample.kind, sample.bytes.as_slice())).collect();
    assert_eq!(encodings.len(), samples.len(), "two samples of one type share their bytes");
}

/// Members of different releases must name the same keepers, or results are looked for where they are not.
#[test]
fn golden_ranking_of_peers_is_still() {
    let ranks: Vec<Vec<u8>> = (0..4)
        .map(|seed| {
            ranked(&content::blake3(seed), (0..6).map(content::peer)).into_iter().map(|peer| peer.0[0]).collect()
        })
        .collect();
    let golden = [[3, 4, 0, 1, 2, 5], [3, 1, 0, 2, 4, 5], [3, 0, 2, 4, 5, 1], [0, 2, 5, 1, 3, 4]];
    assert_eq!(
        ranks, golden,
        "members of the released version look elsewhere for these keys: this needs a new cache protocol"
    );
}
