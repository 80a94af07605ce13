//! Names and paths from hostile bytes: whatever could leave a folder is refused wherever a name can stand.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use buildbee_proto::canonical::{Canonical, CanonicalError};
use buildbee_proto::codec::{Message, from_body};
use buildbee_proto::limits::{MAX_COMPONENT_BYTES, MAX_PATH_BYTES, MAX_PATH_DEPTH};
use buildbee_proto::observed::Observed;
use buildbee_proto::path::{PathComponent, PathError, RelPath};
use buildbee_proto::tree::{Directory, DirectoryNode, FileNode, SymlinkNode, Twin};
use serde::{Deserialize, Serialize};

use crate::samples::content::{
    action_result, blake3, command, manifest, name, observed, path, read_set, signed, signed_result, ticket,
};
use crate::samples::{body, content};

/// Stands for the name under test. Long enough to be found in an encoding for sure.
const PLACEHOLDER: &str = "placeholder-for-a-hostile-name";

fn text(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat()
}

/// `encoding` with another text, well formed or not, where the placeholder stands.
fn with_text(encoding: &[u8], hostile: &[u8]) -> Vec<u8> {
    let placeholder = text(PLACEHOLDER.as_bytes());
    let at = encoding.windows(placeholder.len()).position(|window| window == placeholder).expect("the placeholder");
    [&encoding[..at], &text(hostile), &encoding[at + placeholder.len()..]].concat()
}

fn hostile_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> =
        ["", ".", "..", "/", "a/b", "../a", "a/..", "a\0", "\0"].map(|name| name.as_bytes().to_vec()).to_vec();
    names.extend([vec![0xff], vec![b'a', 0xc3], vec![0xc0, 0xae], vec![0xed, 0xa0, 0x80]]);
    names.push(vec![b'a'; MAX_COMPONENT_BYTES + 1]);
    names.push(vec![b'a'; 1 << 20]);
    names
}

fn hostile_paths() -> Vec<Vec<u8>> {
    let texts = ["/", "/a", "a/", "a//b", "..", "../a", "a/..", "a/../b", "./a", "a/.", "a\0b", "a/\0"];
    let mut paths: Vec<Vec<u8>> = texts.map(|path| path.as_bytes().to_vec()).to_vec();
    paths.extend([vec![0xff], b"a/\xff/b".to_vec()]);
    paths.push(vec!["a"; MAX_PATH_DEPTH + 1].join("/").into_bytes());
    paths.push(vec![b'a'; MAX_COMPONENT_BYTES + 1]);
    paths.push(vec!["a".repeat(MAX_COMPONENT_BYTES); 17].join("/").into_bytes());
    paths.push(b"a/".repeat(1 << 20));
    paths
}

fn directories() -> [(&'static str, Directory); 3] {
    let file = FileNode { name: name(PLACEHOLDER), digest: blake3(1), executable: false, twin: Twin::default() };
    let directory = DirectoryNode { name: name(PLACEHOLDER), digest: blake3(2) };
    let symlink = SymlinkNode { name: name(PLACEHOLDER), target: "x".to_owned() };
    [
        ("file", Directory { files: vec![file], ..Directory::default() }),
        ("directory", Directory { directories: vec![directory], ..Directory::default() }),
        ("symlink", Directory { symlinks: vec![symlink], ..Directory::default() }),
    ]
}

#[test]
fn hostile_names_are_refused_in_a_directory() {
    for (what, directory) in directories() {
        let encoding = directory.to_canonical();
        assert!(Directory::from_canonical(&with_text(&encoding, b"harmless")).is_ok(), "{what}");
        assert!(Directory::from_canonical(&with_text(&encoding, &[b'a'; MAX_COMPONENT_BYTES])).is_ok(), "{what}");
        for hostile in hostile_names() {
            let refused = Directory::from_canonical(&with_text(&encoding, &hostile));
            assert!(
                matches!(refused, Err(CanonicalError::Path(_) | CanonicalError::Utf8)),
                "{what} {:?}: {refused:?}",
                String::from_utf8_lossy(&hostile)
            );
        }
    }
}

#[test]
fn hostile_symlink_targets_are_refused() {
    let symlinks = vec![SymlinkNode { name: name("a"), target: PLACEHOLDER.to_owned() }];
    let encoding = Directory { symlinks, ..Directory::default() }.to_canonical();
    // Resolved inside the action's root, so these are harmless.
    for target in ["..", "../../etc/passwd", "/etc/passwd", "a//b/"] {
        assert!(Directory::from_canonical(&with_text(&encoding, target.as_bytes())).is_ok(), "{target}");
    }
    for target in [&b""[..], b"a\0b", b"\xff"] {
        assert!(Directory::from_canonical(&with_text(&encoding, target)).is_err(), "{target:?}");
    }
}

#[test]
fn hostile_paths_are_refused_wherever_a_path_stands() {
    let placeholder = || path(PLACEHOLDER);
    let mut cases = Vec::new();

    let mut value = command();
    value.working_directory = placeholder();
    cases.push(content("working directory", &value));
    let mut value = command();
    value.output_files = vec![placeholder()];
    cases.push(content("output file", &value));
    let mut value = command();
    value.output_directories = vec![placeholder()];
    cases.push(content("output directory", &value));

    let mut value = action_result();
    value.outputs.truncate(1);
    value.outputs[0].path = placeholder();
    cases.push(content("output", &value));
    let mut outer = signed_result();
    outer.result = value;
    cases.push(content("signed output", &outer));

    let mut value = read_set();
    value.files = vec![(placeholder(), blake3(1))];
    value.twins.clear();
    cases.push(content("file read", &value));
    let mut value = read_set();
    value.absent = vec![placeholder()];
    cases.push(content("absent name", &value));
    let mut value = read_set();
    value.symlinks = vec![(placeholder(), "x".to_owned())];
    cases.push(content("symlink read", &value));
    let lists: [fn(&mut Observed) -> &mut Vec<RelPath>; 6] = [
        |value| &mut value.files,
        |value| &mut value.seen,
        |value| &mut value.links,
        |value| &mut value.absent,
        |value| &mut value.listed,
        |value| &mut value.walkers,
    ];
    for (at, list) in lists.into_iter().enumerate() {
        let mut value = observed();
        *list(&mut value) = vec![placeholder()];
        cases.push(content(&format!("observed {at}"), &value));
    }
    let mut outer = manifest();
    outer.entries[0].read_set = value;
    cases.push(content("symlink in a manifest", &outer));

    for case in cases {
        let deepest = vec!["a"; MAX_PATH_DEPTH].join("/");
        for harmless in ["", "a", "a/b.c", "...", "a/..b", " ", deepest.as_str()] {
            let read = (case.reencode)(&with_text(&case.bytes, harmless.as_bytes()));
            assert!(read.is_ok(), "{} {harmless:?}: {read:?}", case.name);
        }
        for hostile in hostile_paths() {
            let read = (case.reencode)(&with_text(&case.bytes, &hostile));
            assert!(read.is_err(), "{} {:?} was read", case.name, String::from_utf8_lossy(&hostile));
        }
    }
}

#[test]
fn texts_that_are_not_utf8_are_refused() {
    let mut value = ticket();
    value.addresses = vec![PLACEHOLDER.to_owned()];
    let encoding = signed(value).to_canonical();
    let read = buildbee_proto::membership::Signed::<buildbee_proto::membership::Ticket>::from_canonical(&with_text(
        &encoding, b"\xff:1",
    ));
    assert_eq!(read, Err(CanonicalError::Utf8));
}

/// Paths can stand in messages too: their types check there as well.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Claims {
    name: String,
    path: String,
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Checked {
    name: PathComponent,
    path: RelPath,
}
impl Message for Claims {
    const MAX_BYTES: usize = 4 << 20;
}
impl Message for Checked {
    const MAX_BYTES: usize = Claims::MAX_BYTES;
}

#[test]
fn hostile_names_and_paths_are_refused_in_messages() {
    let read =
        |name: &str, path: &str| from_body::<Checked>(&body(&Claims { name: name.to_owned(), path: path.to_owned() }));
    let checked = Checked { name: name("x.c"), path: path("home/bee") };
    assert_eq!(read("x.c", "home/bee"), Ok(checked));
    for hostile in hostile_names() {
        let Ok(hostile) = String::from_utf8(hostile) else { continue };
        assert!(read(&hostile, "a").is_err(), "{hostile:?}");
    }
    for hostile in hostile_paths() {
        let Ok(hostile) = String::from_utf8(hostile) else { continue };
        assert!(read("a", &hostile).is_err(), "{hostile:?}");
    }
}

#[test]
fn a_path_that_is_not_utf8_is_said_to_be() {
    let raw = Path::new(OsStr::from_bytes(b"/home/\xff"));
    assert_eq!(RelPath::from_absolute(raw), Err(PathError::NotUtf8(raw.to_owned())));
    assert_eq!(RelPath::from_absolute(Path::new("a")), Err(PathError::NotAbsolute("a".into())));
}

#[test]
fn joining_keeps_the_bounds() {
    let long = name(&"a".repeat(MAX_COMPONENT_BYTES));
    let mut grown = RelPath::root();
    let error = loop {
        match grown.join(&long) {
            Ok(path) => grown = path,
            Err(error) => break error,
        }
    };
    assert!(grown.as_str().len() <= MAX_PATH_BYTES);
    assert!(matches!(error, PathError::TooLong(n) if n > MAX_PATH_BYTES), "{error:?}");
    let (parent, last) = grown.split_last().unwrap();
    assert_eq!(parent.join(&last).unwrap(), grown);
}
