//! Ends a child process at each named point, as `kill -9` would, and looks at what it leaves.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::manifest::Manifest;

use crate::store_tests::{open, result};
use crate::{Durability, Options, Recovery, Store, fault};

/// Tells the child what to do: `point skip max_bytes packed`, and where.
const VARIABLE: &str = "BUILDBEE_STORE_TEST_CRASH";
const SIGKILL: i32 = 9;
/// Blobs that are safely in before the child is armed.
const N_SETTLED: u8 = 10;
const ROOMY: u64 = 64 << 20;
const TIGHT: u64 = 60 * 4096;

fn start_child(dir: &Path, point: &str, skip: u32, max_bytes: u64, packed: bool) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash_tests::child", "--ignored", "--nocapture"])
        .env(VARIABLE, format!("{point} {skip} {max_bytes} {packed} {}", dir.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test: what the child does.
#[test]
#[ignore = "runs as the child of the other tests here"]
fn child() {
    #[expect(clippy::disallowed_methods, reason = "how the parent test reaches its child")]
    let Ok(order) = std::env::var(VARIABLE) else { return };
    let mut words = order.splitn(5, ' ');
    let mut word = || words.next().unwrap();
    let (point, skip, max_bytes) = (word().to_owned(), word().parse().unwrap(), word().parse().unwrap());
    let packed = word() == "true";
    let dir = Path::new(word());
    if point == "format-written" {
        fault::arm(&point, skip);
    }
    let store = open_as(&dir.join("store"), max_bytes, packed).0;
    for n in 0..N_SETTLED {
        store.put_bytes(&settled(n)).unwrap();
    }
    if point == "any" {
        work(&store, dir, u32::MAX);
    }
    if point != "format-written" {
        fault::arm(&point, skip);
    }
    work(&store, dir, 40);
    drop(store);
}

fn open_as(dir: &Path, max_bytes: u64, packed: bool) -> (Store, Recovery) {
    let options = Options { max_bytes, durability: Durability::Sync };
    if packed { Store::open_packed(dir, &options) } else { Store::open(dir, &options) }.unwrap()
}

fn settled(n: u8) -> Vec<u8> {
    vec![n; 3000]
}

fn work(store: &Store, dir: &Path, n_rounds: u32) {
    for round in 0..n_rounds {
        let content = round.to_le_bytes().repeat(if round % 2 == 0 { 2000 } else { 200 });
        let digest = store.put_bytes(&content).unwrap();
        if round % 8 == 0 {
            store.link(&digest, true, &dir.join(format!("x{}-{round}", std::process::id()))).unwrap();
        }
        store.put_result(&result(&content, digest, digest)).unwrap();
        store.put_manifest(&digest, &Manifest::default()).unwrap();
        // What is replaced again and again leaves packs half dead.
        for _ in 0..3 {
            store.put_result(&result(b"again", digest, digest)).unwrap();
        }
    }
}

/// Whatever happened: it opens, nothing in it is bad, and it takes new work.
fn check(dir: &Path, max_bytes: u64, packed: bool) -> Store {
    let dir = dir.join("store");
    let (store, recovery) = open_as(&dir, max_bytes, packed);
    assert_eq!(recovery.n_dropped, usize::from(recovery.n_dropped == 1), "at most one twin has lost its blob");
    let report = store.verify();
    assert_eq!((report.n_bad, report.n_unread), (0, 0), "{report:?}");
    assert_eq!((report.blobs, report.results), (recovery.blobs, recovery.results));
    assert!(store.usage().bytes <= max_bytes);
    // A child that was copying an executable may outlive its parent and finish now.
    assert!(fs::read_dir(dir.join("tmp")).unwrap().count() <= 1);
    let digest = store.put_bytes(b"after the crash").unwrap();
    assert_eq!(store.read(&digest, 100).unwrap().unwrap(), b"after the crash");
    store
}

fn crash_at(point: &str, skip: u32, max_bytes: u64) {
    crash_as(point, skip, max_bytes, false);
}

fn crash_as(point: &str, skip: u32, max_bytes: u64, packed: bool) {
    let dir = tempfile::tempdir().unwrap();
    let status = start_child(dir.path(), point, skip, max_bytes, packed).wait().unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "{point} was never reached: {status}");
    let store = check(dir.path(), max_bytes, packed);
    if max_bytes == ROOMY && point != "format-written" {
        for n in 0..N_SETTLED {
            assert!(store.contains(&Digest::of(&settled(n))), "{point}: what was put before is there");
        }
    }
}

#[test]
fn while_writing() {
    for point in ["created", "written", "before-rename", "after-rename", "record-half-written", "twin-copied"] {
        for skip in [0, 2] {
            crash_at(point, skip, ROOMY);
        }
    }
}

#[test]
fn while_evicting() {
    for point in ["before-delete", "half-deleted"] {
        for skip in [0, 1, 3] {
            crash_at(point, skip, TIGHT);
        }
    }
}

#[test]
fn while_closing_and_while_being_made() {
    crash_at("half-noted", 0, ROOMY);
    crash_at("format-written", 0, ROOMY);
}

#[test]
fn while_packing() {
    for point in ["payload-written", "half-packed", "packed"] {
        for skip in [0, 5] {
            crash_as(point, skip, ROOMY, true);
        }
    }
    // Packs of 15 KiB, of which the work fills some.
    for point in ["before-mark", "swept", "half-removed", "before-delete"] {
        for skip in [0, 1] {
            crash_as(point, skip, TIGHT, true);
        }
    }
}

#[test]
fn at_any_moment_again_and_again() {
    for packed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..12u64 {
            let mut child = start_child(dir.path(), "any", 0, TIGHT, packed);
            // Some of these are killed before they have the store open, most in full swing.
            thread::sleep(Duration::from_millis(10 + 23 * round));
            child.kill().unwrap();
            let status = child.wait().unwrap();
            assert_eq!(status.signal(), Some(SIGKILL), "it ended by itself: {status}");
            drop(check(dir.path(), TIGHT, packed));
        }
    }
}

#[test]
fn nothing_is_armed_here() {
    for packed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open_as(&dir.path().join("store"), TIGHT, packed).0;
        work(&store, dir.path(), 40);
        drop(store);
        drop(open(&dir.path().join("store")));
    }
}
