//! Stores that a crash, a failing disk or somebody's hands have been at: they open, and serve only good bytes.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use buildbee_proto::digest::Digest;
use buildbee_proto::manifest::Manifest;

use crate::inode::FIXED_MTIME_SECONDS;
use crate::layout::{Family, Layout};
use crate::store_tests::{ROOMY, blob_path, open, result};
use crate::{Durability, Options, Recovery, Store};

fn reopen(dir: &Path) -> (Store, Recovery) {
    Store::open(dir, &Options { max_bytes: ROOMY, durability: Durability::Lazy }).unwrap()
}

/// Changes a file behind the store's back. `covertly`: mode and time afterwards are what they were.
fn tamper(path: &Path, covertly: bool, change: impl FnOnce(&File)) {
    let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    change(&file);
    file.set_permissions(Permissions::from_mode(mode)).unwrap();
    if covertly {
        let seconds = u64::try_from(FIXED_MTIME_SECONDS).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
}

fn flip(path: &Path, covertly: bool) {
    tamper(path, covertly, |file| {
        file.write_all_at(b"#", 1).unwrap();
    });
}

#[test]
fn flipped_bytes_are_found_at_the_first_use_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digest = store.put_bytes(b"content").unwrap();
    drop(store);
    flip(&blob_path(dir.path(), &digest), true);
    let (store, recovery) = reopen(dir.path());
    assert_eq!(recovery.n_dropped, 0, "it does not show from outside");
    assert!(store.contains(&digest));
    assert_eq!(store.read(&digest, 100).unwrap(), None);
    assert!(!store.contains(&digest));
    assert_eq!(store.usage().n_bad, 1);
    assert!(!blob_path(dir.path(), &digest).exists());
    assert_eq!(store.put_bytes(b"content").unwrap(), digest);
    assert_eq!(store.read(&digest, 100).unwrap().unwrap(), b"content");
}

#[test]
fn a_put_over_bad_content_replaces_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digest = store.put_bytes(b"content").unwrap();
    drop(store);
    flip(&blob_path(dir.path(), &digest), true);
    let (store, _) = reopen(dir.path());
    store.put_expected(&digest, b"content").unwrap();
    assert_eq!(store.read(&digest, 100).unwrap().unwrap(), b"content");
    drop(store);
    flip(&blob_path(dir.path(), &digest), true);
    let (store, _) = reopen(dir.path());
    let mut writer = store.writer(digest).unwrap();
    writer.write(b"content").unwrap();
    writer.commit().unwrap();
    assert_eq!(store.read(&digest, 100).unwrap().unwrap(), b"content");
}

#[test]
fn an_inode_written_to_while_in_use_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let digest = store.put_bytes(b"content").unwrap();
    let link = dir.path().join("link");
    for executable in [false, true] {
        assert!(store.link(&digest, executable, &link).unwrap());
        flip(&link, false);
        fs::remove_file(&link).unwrap();
        if executable {
            assert!(!store.link(&digest, true, &link).unwrap());
            assert!(store.contains(&digest), "only the twin was bad");
            assert!(store.link(&digest, true, &link).unwrap(), "and is made anew");
        } else {
            assert_eq!(store.read(&digest, 100).unwrap(), None);
            store.put_bytes(b"content").unwrap();
        }
    }
    assert_eq!(store.usage().n_bad, 2);
}

#[test]
fn what_shows_from_outside_is_dropped_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digests: Vec<Digest> = (0..8u8).map(|n| store.put_bytes(&[n; 100]).unwrap()).collect();
    drop(store);
    let path = |n: usize| blob_path(dir.path(), &digests[n]);
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    fs::write(&precious, [3; 100]).unwrap();
    tamper(&path(0), true, |file| file.set_len(50).unwrap());
    flip(&path(1), false);
    fs::remove_file(path(2)).unwrap();
    fs::create_dir_all(path(2).join("sub")).unwrap();
    fs::remove_file(path(3)).unwrap();
    symlink(&precious, path(3)).unwrap();
    fs::set_permissions(path(4), Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(path(5), Permissions::from_mode(0o000)).unwrap();
    fs::rename(path(6), path(6).with_file_name(digests[6].to_string().to_uppercase())).unwrap();
    fs::write(path(7).with_file_name("notes.txt"), "x").unwrap();

    let (store, recovery) = reopen(dir.path());
    assert_eq!((recovery.blobs, recovery.n_dropped), (1, 8));
    assert_eq!(store.missing(&digests), digests[..7]);
    assert_eq!(store.read(&digests[7], 100).unwrap().unwrap(), [7; 100]);
    assert_eq!(fs::read(&precious).unwrap(), [3; 100]);
    for n in 0..8u8 {
        store.put_bytes(&[n; 100]).unwrap();
    }
    assert_eq!(store.verify().blobs, 8);
}

#[test]
fn the_same_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    fs::write(&precious, b"secret").unwrap();
    let digest = store.put_bytes(b"secret").unwrap();
    let path = blob_path(dir.path(), &digest);
    let put = || store.put_bytes(b"secret").unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&precious, &path).unwrap();
    assert!(store.open_blob(&digest).unwrap().is_none());
    assert!(precious.exists());
    put();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(!store.link(&digest, false, &outside.path().join("link")).unwrap());
    put();
    fs::remove_file(&path).unwrap();
    assert_eq!(store.read(&digest, 100).unwrap(), None);
    // Something appears where the store does not expect anything: the next put takes its place.
    fs::create_dir_all(path.join("sub")).unwrap();
    put();
    assert_eq!(store.read(&digest, 100).unwrap().unwrap(), b"secret");
    assert_eq!(store.usage().n_bad, 3);
}

#[test]
fn leftovers_and_replaced_folders() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), b"x").unwrap();
    drop(open(dir.path()));
    fs::write(dir.path().join("tmp/0"), b"half").unwrap();
    fs::create_dir(dir.path().join("tmp/1")).unwrap();
    symlink(outside.path(), dir.path().join("tmp/2")).unwrap();
    symlink(outside.path(), dir.path().join("blobs/00")).unwrap();
    fs::write(dir.path().join("blobs/01"), b"").unwrap();
    fs::create_dir(dir.path().join("blobs/02")).unwrap();
    fs::set_permissions(dir.path().join("blobs/02"), Permissions::from_mode(0o000)).unwrap();
    let (_store, recovery) = reopen(dir.path());
    assert_eq!((recovery.n_temporary, recovery.n_dropped), (3, 2));
    assert!(outside.path().join("precious").exists());
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert!(fs::symlink_metadata(dir.path().join("blobs/00")).unwrap().is_dir());
}

#[test]
fn an_executable_without_its_blob_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let digest = store.put_bytes(b"tool").unwrap();
    store.link(&digest, true, &dir.path().join("x")).unwrap();
    drop(store);
    fs::remove_file(blob_path(&dir.path().join("store"), &digest)).unwrap();
    let (store, recovery) = reopen(&dir.path().join("store"));
    assert_eq!((recovery.n_dropped, recovery.bytes), (1, 0));
    assert!(!store.link(&digest, true, &dir.path().join("y")).unwrap());
}

#[test]
fn bad_records_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layout = Layout { dir: dir.path().to_owned() };
    let blob = store.put_bytes(b"object").unwrap();
    let results: Vec<_> = (0..4u8).map(|n| result(&[n], blob, blob)).collect();
    for result in &results {
        store.put_result(result).unwrap();
    }
    let key = Digest::of(b"key");
    store.put_manifest(&key, &Manifest::default()).unwrap();
    drop(store);
    let path = |n: usize| layout.file(Family::Results, &results[n].result.action);
    flip(&path(0), true);
    tamper(&path(1), true, |file| file.set_len(20).unwrap());
    // A good record of one action under the name of another.
    fs::rename(path(3), path(2)).unwrap();
    let manifest = layout.file(Family::Manifests, &key);
    tamper(&manifest, true, |mut file| {
        file.write_all(&vec![0; 9 << 20]).unwrap();
    });

    let (store, recovery) = reopen(dir.path());
    assert_eq!((recovery.results, recovery.manifests, recovery.n_dropped), (3, 1, 0));
    for result in &results {
        assert_eq!(store.result(&result.result.action).unwrap(), None);
    }
    assert_eq!(store.manifest(&key).unwrap(), None);
    assert_eq!((store.usage().results, store.usage().manifests, store.usage().n_bad), (0, 0, 4));
    store.put_result(&results[0]).unwrap();
    assert!(store.result(&results[0].result.action).unwrap().is_some());
}

#[test]
fn verify_finds_and_drops_everything_bad() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let layout = Layout { dir: dir.path().join("store") };
    let digests: Vec<Digest> = (0..5u8).map(|n| store.put_bytes(&[n; 10]).unwrap()).collect();
    for (n, name) in ["0", "1"].into_iter().enumerate() {
        store.link(&digests[n], true, &dir.path().join(name)).unwrap();
    }
    let one = result(b"one", digests[0], digests[1]);
    let two = result(b"two", digests[0], digests[1]);
    store.put_result(&one).unwrap();
    store.put_result(&two).unwrap();
    let good = store.verify();
    assert_eq!((good.blobs, good.executables, good.results, good.bytes, good.n_bad), (5, 2, 2, 70, 0));
    flip(&layout.file(Family::Blobs, &digests[4]), true);
    flip(&layout.file(Family::Executables, &digests[1]), true);
    flip(&layout.file(Family::Results, &two.result.action), true);
    let report = store.verify();
    assert_eq!((report.blobs, report.executables, report.results, report.n_bad), (4, 1, 1, 3));
    assert_eq!(report.bad.len(), 3);
    assert_eq!(store.verify(), crate::VerifyReport { n_bad: 0, bad: vec![], ..report });
}

#[test]
fn the_journal_may_be_anything() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digest = store.put_bytes(b"content").unwrap();
    drop(store);
    let journal = dir.path().join("recency");
    let mut good = Vec::new();
    File::open(&journal).unwrap().read_to_end(&mut good).unwrap();
    let mut wrong_rows = good.clone();
    // Past the magic number, everything is noise.
    for (at, byte) in wrong_rows.iter_mut().enumerate().skip(9) {
        *byte = at.to_le_bytes()[0].wrapping_mul(31) ^ at.to_le_bytes()[1];
    }
    let short = good[..good.len() / 2].to_vec();
    for (name, bytes) in [
        ("garbage", vec![0x5a; 100_000]),
        ("noise", wrong_rows),
        ("short", short),
        ("tiny", vec![1]),
        ("empty", vec![]),
    ] {
        fs::write(&journal, &bytes).unwrap();
        let (store, recovery) = reopen(dir.path());
        assert!(recovery.order_rebuilt, "{name}");
        assert_eq!(store.read(&digest, 100).unwrap().unwrap(), b"content", "{name}");
        drop(store);
        assert!(!reopen(dir.path()).1.order_rebuilt, "{name}");
    }
    fs::remove_file(&journal).unwrap();
    fs::create_dir(&journal).unwrap();
    assert!(reopen(dir.path()).1.order_rebuilt);
    fs::remove_file(&journal).unwrap();
    symlink("/etc/passwd", &journal).unwrap();
    assert!(reopen(dir.path()).1.order_rebuilt);
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn a_journal_with_flipped_bytes_never_stops_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digests: Vec<Digest> = (0..50u8).map(|n| store.put_bytes(&[n]).unwrap()).collect();
    drop(store);
    let journal = dir.path().join("recency");
    let good = fs::read(&journal).unwrap();
    for round in 0..40usize {
        let mut bytes = good.clone();
        for at in (round * 97..bytes.len()).step_by(4099) {
            bytes[at] ^= 0x41;
        }
        fs::write(&journal, &bytes).unwrap();
        let (store, recovery) = reopen(dir.path());
        assert_eq!(recovery.blobs, 50);
        assert_eq!(store.missing(&digests), []);
    }
}
