//! Packs as they are on the disk: what was put is found again, and whatever else stands there is not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use buildbee_proto::digest::Digest;
use buildbee_proto::manifest::Manifest;

use crate::store_tests::{ROOMY, blob_path, open, open_packed_with, result};
use crate::{Durability, Options, Recovery, Store};

fn reopen(dir: &Path) -> (Store, Recovery) {
    Store::open_packed(dir, &Options { max_bytes: ROOMY, durability: Durability::Lazy }).unwrap()
}

fn files(dir: &Path, family: &str) -> usize {
    let shards = fs::read_dir(dir.join(family)).unwrap();
    shards.map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

fn pack(dir: &Path, name: &str) -> PathBuf {
    dir.join("packs").join(name)
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_will_be_linked_has_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_packed_with(dir.path(), ROOMY);
    let (packed, linkable) = (store.put_bytes(b"packed").unwrap(), Digest::of(b"linkable"));
    assert!(store.put_linkable(&linkable, b"other").is_err());
    store.put_linkable(&linkable, b"linkable").unwrap();
    assert_eq!(files(dir.path(), "blobs"), 1);
    store.put_linkable(&packed, b"packed").unwrap();
    assert_eq!(files(dir.path(), "blobs"), 1, "it gets its file when it is linked");
    for (digest, content) in [(packed, &b"packed"[..]), (linkable, b"linkable")] {
        assert!(store.link(&digest, false, &dir.path().join(digest.hex())).unwrap());
        assert_eq!(fs::read(dir.path().join(digest.hex())).unwrap(), content);
    }
}

#[test]
fn small_entries_make_no_files_and_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_packed_with(dir.path(), ROOMY);
    let blobs: Vec<Digest> = (0..50u8).map(|n| store.put_bytes(&[n; 1000]).unwrap()).collect();
    let empty = store.put_bytes(b"").unwrap();
    let large = store.put_bytes(&vec![7; 300_000]).unwrap();
    let results: Vec<_> = (0..50u8).map(|n| result(&[n], blobs[usize::from(n)], large)).collect();
    for result in &results {
        store.put_result(result).unwrap();
        store.put_manifest(&result.result.action, &Manifest::default()).unwrap();
    }
    assert_eq!((files(dir.path(), "blobs"), files(dir.path(), "results"), files(dir.path(), "manifests")), (1, 0, 0));
    let all = |store: &Store| {
        for (n, blob) in (0..).zip(&blobs) {
            assert_eq!(store.read(blob, 1000).unwrap().unwrap(), [n; 1000]);
        }
        assert_eq!(store.read(&empty, 0).unwrap().unwrap(), b"");
        assert_eq!(store.read(&large, ROOMY).unwrap().unwrap().len(), 300_000);
        for result in &results {
            assert_eq!(store.result(&result.result.action).unwrap().as_ref(), Some(result));
            assert_eq!(store.manifest(&result.result.action).unwrap(), Some(Manifest::default()));
        }
        let report = store.verify();
        assert_eq!((report.blobs, report.results, report.manifests, report.n_bad), (52, 50, 50, 0));
    };
    all(&store);
    let usage = store.usage();
    drop(store);
    let (store, recovery) = reopen(dir.path());
    assert_eq!((recovery.blobs, recovery.results, recovery.n_dropped, recovery.n_temporary), (52, 50, 0, 0));
    assert_eq!(recovery.bytes, usage.bytes);
    all(&store);
    drop(store);
    // A store that makes no packs reads them all the same.
    all(&open(dir.path()));
}

#[test]
fn what_was_removed_or_replaced_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_packed_with(dir.path(), ROOMY);
    let blob = store.put_bytes(b"object").unwrap();
    let first = result(b"action", blob, blob);
    let mut second = first.clone();
    second.result.exit_code = 3;
    store.put_result(&first).unwrap();
    store.put_result(&second).unwrap();
    drop(store);
    let (store, _) = reopen(dir.path());
    assert_eq!(store.result(&first.result.action).unwrap(), Some(second));
    assert!(store.remove_result(&first.result.action));
    drop(store);
    let (store, recovery) = reopen(dir.path());
    assert_eq!((recovery.blobs, recovery.results), (1, 0));
    let pin = store.pin([blob]);
    store.put_bytes(b"other").unwrap();
    assert_eq!(store.clear(), crate::Cleared { n_entries: 1, n_pinned: 1 });
    drop((pin, store));
    let (store, recovery) = reopen(dir.path());
    assert_eq!(recovery.blobs, 1);
    store.clear();
    assert_eq!(fs::read_dir(dir.path().join("packs")).unwrap().count(), 0);
    drop(store);
    assert_eq!(reopen(dir.path()).1, Recovery { order_rebuilt: false, ..Recovery::default() });
}

#[test]
fn a_packed_blob_becomes_a_file_where_one_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_packed_with(&dir.path().join("store"), ROOMY);
    let tool = store.put_bytes(b"#!/bin/sh\nexit 7\n").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut store.open_blob(&tool).unwrap().unwrap(), &mut text).unwrap();
    assert_eq!(text, "#!/bin/sh\nexit 7\n");
    assert_eq!(fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
    for (name, executable) in [("a", false), ("x", true)] {
        assert!(store.link(&tool, executable, &dir.path().join(name)).unwrap());
    }
    assert_eq!(std::process::Command::new(dir.path().join("x")).status().unwrap().code(), Some(7));
    assert!(blob_path(&dir.path().join("store"), &tool).exists());
    drop(store);
    let (store, recovery) = reopen(&dir.path().join("store"));
    assert_eq!((recovery.blobs, recovery.n_dropped, store.usage().bytes), (1, 0, 8192));
    assert_eq!(store.verify().executables, 1);
}

#[test]
fn damage_costs_what_was_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_packed_with(dir.path(), ROOMY);
    let blobs: Vec<Digest> = (0..6u8).map(|n| store.put_bytes(&[n; 100]).unwrap()).collect();
    let kept = result(b"action", blobs[0], blobs[1]);
    store.put_result(&kept).unwrap();
    drop(store);
    let (heads, bytes) = (pack(dir.path(), "0.heads"), pack(dir.path(), "0.bytes"));
    // One payload, two heads, and half a head at the end.
    change(&bytes, |bytes| bytes[50] ^= 1);
    change(&heads, |heads| {
        heads[64 + 20] ^= 1;
        heads[2 * 64 + 5] ^= 0x40;
        heads.extend([b'+'; 30]);
    });
    let (store, recovery) = reopen(dir.path());
    assert_eq!((recovery.blobs, recovery.n_dropped, recovery.n_temporary), (4, 2, 1));
    assert_eq!(store.missing(&blobs), blobs[1..3]);
    assert_eq!(store.read(&blobs[0], 100).unwrap(), None);
    assert_eq!(store.usage().n_bad, 1);
    for (n, blob) in (3..).zip(&blobs[3..]) {
        assert_eq!(store.read(blob, 100).unwrap().unwrap(), [n; 100]);
    }
    for n in 0..3 {
        store.put_bytes(&[n; 100]).unwrap();
    }
    assert_eq!(store.result(&kept.result.action).unwrap(), Some(kept.clone()));
    change(&bytes, |bytes| bytes[600 + 40] ^= 1);
    assert_eq!(store.result(&kept.result.action).unwrap(), None);
    change(&bytes, |bytes| bytes.truncate(650));
    let report = store.verify();
    assert_eq!((report.blobs, report.n_bad, report.n_unread), (3, 3, 0));
}

#[test]
fn whatever_stands_among_packs_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), b"x").unwrap();
    let store = open_packed_with(dir.path(), ROOMY);
    let blob = store.put_bytes(b"content").unwrap();
    drop(store);
    for name in ["01.heads", "notes", "4294967295.bytes", "-1.bytes"] {
        fs::write(pack(dir.path(), name), b"x").unwrap();
    }
    symlink(outside.path().join("precious"), pack(dir.path(), "7.heads")).unwrap();
    fs::create_dir_all(pack(dir.path(), "8.bytes/sub")).unwrap();
    // Half of a pack that was being made, and one of noise.
    fs::write(pack(dir.path(), "9.bytes"), b"x").unwrap();
    fs::write(pack(dir.path(), "10.bytes"), vec![0x2b; 1000]).unwrap();
    fs::write(pack(dir.path(), "10.heads"), vec![0x2b; 640]).unwrap();
    let (store, recovery) = reopen(dir.path());
    assert_eq!((recovery.blobs, recovery.n_dropped, recovery.n_temporary), (1, 6 + 10, 1));
    assert_eq!(store.read(&blob, 10).unwrap().unwrap(), b"content");
    assert!(outside.path().join("precious").exists());
    let mut names: Vec<_> = fs::read_dir(dir.path().join("packs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["0.bytes", "0.heads"]);
    // Somebody empties the cache's folder under a running process.
    fs::remove_dir_all(dir.path().join("packs")).unwrap();
    assert_eq!(store.read(&blob, 10).unwrap(), None);
    for n in 0..3u8 {
        let blob = store.put_bytes(&[n; 100]).unwrap();
        assert_eq!(store.read(&blob, 100).unwrap().unwrap(), [n; 100]);
    }
    drop(store);
    assert_eq!(reopen(dir.path()).1.blobs, 3);
}
