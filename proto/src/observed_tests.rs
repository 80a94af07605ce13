//! What logs tell, from those that the recorder would write to those that nobody would.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::record::{HEADER_BYTES, header, log_of, used_bytes};

const PLAIN: View<'static> = View { ignored: &|_| false, link: &|_| None };

fn paths(texts: &[&str]) -> Vec<RelPath> {
    texts.iter().map(|text| RelPath::try_from(*text).unwrap()).collect()
}

fn tell(records: &[(Kind, &str)]) -> Result<Observed, NotKnown> {
    tell_in(records, PLAIN)
}

fn tell_in(records: &[(Kind, &str)], view: View<'_>) -> Result<Observed, NotKnown> {
    let mut all: Vec<(Kind, &[u8])> = vec![(Kind::Started, b"/usr/bin/rustc")];
    all.extend(records.iter().map(|(kind, content)| (*kind, content.as_bytes())));
    observe(&log_of(&all), view)
}

#[test]
fn questions_are_sorted_into_lists() {
    let told = tell(&[
        (Kind::Variable, "B"),
        (Kind::Variable, "A"),
        (Kind::Variable, "A"),
        (Kind::Variable, ""),
        (Kind::Variable, "X=Y"),
        (Kind::Read, "/w/src/lib.rs"),
        (Kind::Seen, "/w/src/lib.rs"),
        (Kind::Seen, "/w/Cargo.toml"),
        (Kind::Absent, "/w/src/b/mod.rs"),
        (Kind::Listed, "/w/./assets//"),
        (Kind::Link, "/w/latest"),
        (Kind::Walker, "/w/target/libm.so"),
        (Kind::Read, "/proc/self/maps"),
        (Kind::Read, "/dev/urandom"),
        (Kind::Read, "/dev/shm/w/x.rs"),
        (Kind::Network, ""),
    ]);
    let expected = Observed {
        files: paths(&["dev/shm/w/x.rs", "usr/bin/rustc", "w/src/lib.rs"]),
        seen: paths(&["w/Cargo.toml"]),
        links: paths(&["w/latest"]),
        absent: paths(&["w/src/b/mod.rs"]),
        listed: paths(&["w/assets"]),
        env: vec!["A".to_owned(), "B".to_owned()],
        late_env: vec![],
        walkers: paths(&["w/target/libm.so"]),
        network: true,
    };
    assert_eq!(told, Ok(expected));
}

#[test]
fn a_program_s_own_files_are_no_inputs() {
    let told = tell(&[
        (Kind::Making, "/t/dir"),
        (Kind::Made, "/t/dir"),
        (Kind::Absent, "/t/dir/a"),
        (Kind::Made, "/t/dir/a"),
        (Kind::Read, "/t/dir/a"),
        (Kind::Listed, "/t/dir"),
        (Kind::Taken, "/t/dir/a"),
        (Kind::Made, "/t/b"),
        (Kind::Read, "/t/b"),
        // Asked before it was made: that answer counts.
        (Kind::Absent, "/t/c"),
        (Kind::Making, "/t/c"),
        (Kind::Made, "/t/c"),
        (Kind::Read, "/t/c"),
        // Read before it was overwritten: so does that.
        (Kind::Read, "/t/d"),
        (Kind::Made, "/t/d"),
        // Removed, whatever it was.
        (Kind::Removed, "/t/e"),
        (Kind::Absent, "/t/e"),
        (Kind::Made, "/t/e"),
        (Kind::Read, "/t/e/below"),
        // Not made: what was there is not its own.
        (Kind::Making, "/t/g"),
        (Kind::NotMade, "/t/g"),
        (Kind::Read, "/t/g"),
        // Renamed: its content came from before.
        (Kind::Taken, "/t/f"),
    ])
    .unwrap();
    assert_eq!(told.files, paths(&["t/d", "t/f", "t/g", "usr/bin/rustc"]));
    assert_eq!(told.absent, paths(&["t/c"]));
    assert_eq!((told.listed, told.seen), (vec![], vec![]));
}

#[test]
fn ignored_paths_are_left_out() {
    let view = View { ignored: &|path| path.as_str().starts_with("usr/"), link: &|_| None };
    let told = tell_in(&[(Kind::Read, "/usr/lib/x"), (Kind::Absent, "/usr/y"), (Kind::Read, "/w/z")], view).unwrap();
    assert_eq!((told.files, told.absent), (paths(&["w/z"]), vec![]));
}

#[test]
fn ways_back_lead_through_symlinks() {
    let link = |path: &RelPath| match path.as_str() {
        "w/link" => Some("../else/where".to_owned()),
        "w/absolute" => Some("/opt/x".to_owned()),
        "w/loop" => Some("loop".to_owned()),
        _ => None,
    };
    let view = View { ignored: &|_| false, link: &link };
    let told = |path: &str| {
        let mut files = tell_in(&[(Kind::Absent, path)], view)?.absent;
        Ok::<_, NotKnown>(files.pop().map(String::from).unwrap_or_default())
    };
    assert_eq!(told("/usr/lib/gcc/12/../../crt1.o"), Ok("usr/lib/crt1.o".to_owned()));
    assert_eq!(told("/w/link/../a"), Ok("else/a".to_owned()));
    assert_eq!(told("/w/absolute/../a"), Ok("opt/a".to_owned()));
    assert_eq!(told("/../../a"), Ok("a".to_owned()));
    assert_eq!(told("/w/link/a"), Ok("w/link/a".to_owned()), "only ways back ask");
    assert!(matches!(told("/w/loop/../a"), Err(NotKnown::Name(_))));
}

#[test]
fn every_program_must_have_a_voice() {
    let start = (Kind::Starting, "/usr/bin/cc");
    let started = (Kind::Started, "/usr/bin/cc");
    assert_eq!(tell(&[start]), Err(NotKnown::Silent { expected: 2, started: 1 }));
    assert!(tell(&[start, started]).is_ok());
    assert!(tell(&[start, (Kind::NotStarted, "")]).is_ok());
    // A shell that the C library started by itself.
    assert!(tell(&[started]).is_ok());
    assert_eq!(observe(&header(), PLAIN), Err(NotKnown::Silent { expected: 1, started: 0 }));
    assert_eq!(observe(&log_of(&[(Kind::NotStarted, b"")]), PLAIN), Ok(Observed::default()), "as many as began");
}

#[test]
fn what_is_not_known_is_said() {
    assert_eq!(tell(&[(Kind::Unrecorded, "glob")]), Err(NotKnown::Unrecorded("glob".to_owned())));
    assert!(matches!(tell(&[(Kind::Read, "relative")]), Err(NotKnown::Name(_))));
    assert!(matches!(tell(&[(Kind::Read, &format!("/{}", "a/".repeat(200)))]), Err(NotKnown::Name(_))));
    let odd = log_of(&[(Kind::Started, b""), (Kind::Read, b"/\xff")]);
    assert!(matches!(observe(&odd, PLAIN), Err(NotKnown::Name(_))));
    let odd = log_of(&[(Kind::Started, b""), (Kind::Variable, b"\xff")]);
    assert!(matches!(observe(&odd, PLAIN), Err(NotKnown::Name(_))));
    assert_eq!(observe(b"", PLAIN), Err(NotKnown::Malformed));
    assert_eq!(observe(&[0; 64], PLAIN), Err(NotKnown::Malformed));
}

#[test]
fn unfinished_and_overflowing_logs_are_refused() {
    let mut torn = log_of(&[(Kind::Started, b""), (Kind::Read, b"/a")]);
    torn.truncate(HEADER_BYTES + 4);
    torn.resize(HEADER_BYTES + 12, 0);
    assert_eq!(observe(&torn, PLAIN), Err(NotKnown::Torn));
    let mut short = log_of(&[(Kind::Started, b"")]);
    short[8..16].copy_from_slice(&40u64.to_le_bytes());
    assert_eq!(observe(&short, PLAIN), Err(NotKnown::Malformed));
    for next in [MAX_RECORD_BYTES as u64 + 1, u64::MAX] {
        short[8..16].copy_from_slice(&next.to_le_bytes());
        assert_eq!(observe(&short, PLAIN), Err(NotKnown::Overflow));
        assert_eq!(used_bytes(&short), Some(MAX_RECORD_BYTES));
    }
    assert_eq!(used_bytes(&header()), Some(HEADER_BYTES));
    assert_eq!((used_bytes(&[]), used_bytes(&[0; 16])), (None, None));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(log in vec(any::<u8>(), 0..400)) {
        drop(observe(&log, PLAIN));
        let behind_a_header = [&header()[..], &log].concat();
        drop(observe(&behind_a_header, PLAIN));
    }

    #[test]
    fn any_records_are_read_or_refused(records in vec((0..15usize, "(/(\\.\\.|\\.|a|b|c)){0,6}"), 0..30), links in vec("(\\.\\./|/|a/|b/){0,4}", 3)) {
        let kinds = b"SXxVOPKALMUTEN?".map(|letter| {
            let log = log_of(&[(Kind::Read, b"")]);
            let mut log = log;
            log[HEADER_BYTES + 3] = letter;
            crate::record::records(&log).next().unwrap().unwrap().0
        });
        let records: Vec<(Kind, &[u8])> = records.iter().map(|(kind, path)| (kinds[*kind], path.as_bytes())).collect();
        let link = |path: &RelPath| match path.as_str().as_bytes().last() {
            Some(last @ b'a'..=b'c') => Some(links[usize::from(last - b'a')].clone()).filter(|link| !link.is_empty()),
            _ => None,
        };
        if let Ok(told) = observe(&log_of(&records), View { ignored: &|_| false, link: &link }) {
            let again = Observed::from_canonical(&told.to_canonical());
            prop_assert_eq!(again, Ok(told));
        }
    }
}

#[test]
fn variables_asked_for_after_a_library_was_read_are_told() {
    let told = tell(&[
        (Kind::Read, "/usr/lib/librustc_driver.so"),
        (Kind::Walker, "/usr/lib/libc.so.6"),
        (Kind::Variable, "A"),
        (Kind::Variable, "B"),
        (Kind::Absent, "/w/target/libm.so"),
        (Kind::Variable, "C"),
        (Kind::Read, "/w/target/libn.so"),
        (Kind::Variable, "B"),
        (Kind::Variable, "D"),
    ]);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let told = told.unwrap();
    assert_eq!((told.env, told.late_env), (names(&["A", "B", "C", "D"]), names(&["B", "D"])));
}
