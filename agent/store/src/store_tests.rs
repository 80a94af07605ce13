//! The store as its callers see it, on a real disk.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use buildbee_proto::digest::{Digest, DigestFunction};
use buildbee_proto::hint::Hint;
use buildbee_proto::limits::MAX_MANIFEST_ENTRIES;
use buildbee_proto::manifest::{Manifest, ManifestEntry};
use buildbee_proto::outcome::{ActionResult, OutputFile, Provenance, ReadSet, SignedResult};
use buildbee_proto::path::RelPath;
use buildbee_proto::peer::{PeerId, Signature};

use crate::inode::FIXED_MTIME_SECONDS;
use crate::layout::{Family, Layout};
use crate::{Durability, LinkError, OpenError, Options, PutError, ReadError, Store};

pub(crate) const ROOMY: u64 = 64 << 20;

pub(crate) fn open_with(dir: &Path, max_bytes: u64) -> Store {
    Store::open(dir, &Options { max_bytes, durability: Durability::Lazy }).unwrap().0
}

/// Open, so that small entries share files.
pub(crate) fn open_packed_with(dir: &Path, max_bytes: u64) -> Store {
    Store::open_packed(dir, &Options { max_bytes, durability: Durability::Lazy }).unwrap().0
}

pub(crate) fn open(dir: &Path) -> Store {
    open_with(dir, ROOMY)
}

/// Where a blob's file is in the store in `dir`.
pub(crate) fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    Layout { dir: dir.to_owned() }.file(Family::Blobs, digest)
}

/// A whole result for the action named after `name`, with these blobs.
pub(crate) fn result(name: &[u8], output: Digest, stdout: Digest) -> SignedResult {
    let path = RelPath::from_absolute(Path::new("/build/a.o")).unwrap();
    SignedResult {
        result: ActionResult {
            action: Digest::of(name),
            exit_code: 0,
            outputs: vec![OutputFile { path, digest: output, mode: 0o666 }],
            stdout,
            stderr: stdout,
            observed: None,
            provenance: Provenance {
                peer: PeerId([7; 32]),
                sandboxed: true,
                wall_ms: 12,
                cpu_ms: 10,
                peak_memory_bytes: 1 << 20,
            },
        },
        signature: Signature([9; 64]),
    }
}

#[test]
fn what_goes_in_comes_out() {
    for durability in [Durability::Sync, Durability::Lazy] {
        let dir = tempfile::tempdir().unwrap();
        let (store, recovery) = Store::open(dir.path(), &Options { max_bytes: ROOMY, durability }).unwrap();
        assert_eq!(recovery, crate::Recovery::default());
        let empty = store.put_bytes(b"").unwrap();
        let bee = store.put_bytes(b"bee").unwrap();
        assert_eq!(bee, Digest::of(b"bee"));
        assert_eq!(store.read(&bee, 3).unwrap().unwrap(), b"bee");
        assert_eq!(store.read(&empty, 0).unwrap().unwrap(), b"");
        assert!(matches!(store.read(&bee, 2), Err(ReadError::TooLarge { .. })));
        let absent = Digest::of(b"absent");
        assert_eq!(store.read(&absent, 100).unwrap(), None);
        assert_eq!(store.missing(&[absent, bee, absent]), [absent, absent]);
        drop(store);

        let (store, recovery) = Store::open(dir.path(), &Options { max_bytes: ROOMY, durability }).unwrap();
        assert_eq!((recovery.blobs, recovery.n_dropped, recovery.order_rebuilt), (2, 0, false));
        let mut text = String::new();
        store.open_blob(&bee).unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "bee");
        assert_eq!(store.usage().bytes, 2 * 4096);
    }
}

#[test]
fn lies_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let bee = Digest::of(b"bee");
    assert!(matches!(store.put_expected(&bee, b"wasp"), Err(PutError::Mismatch { .. })));
    let mut writer = store.writer(bee).unwrap();
    writer.write(b"be").unwrap();
    assert_eq!(writer.remaining_bytes(), 1);
    assert!(matches!(writer.write(b"es"), Err(PutError::TooLong { .. })));
    drop(writer);
    let mut writer = store.writer(bee).unwrap();
    writer.write(b"be").unwrap();
    assert!(matches!(writer.commit(), Err(PutError::Mismatch { .. })), "too short");
    let mut writer = store.writer(bee).unwrap();
    writer.write(b"fly").unwrap();
    assert!(matches!(writer.commit(), Err(PutError::Mismatch { .. })));
    let foreign = Digest { function: DigestFunction::Sha256, ..bee };
    assert!(matches!(store.put_expected(&foreign, b"bee"), Err(PutError::Unsupported { .. })));
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(store.usage().bytes, 0);

    let mut writer = store.writer(bee).unwrap();
    writer.write(b"b").unwrap();
    writer.write(b"ee").unwrap();
    writer.commit().unwrap();
    assert_eq!(store.read(&bee, 3).unwrap().unwrap(), b"bee");
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn files_small_and_large_go_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    for n in [0, 1000, 1_000_000] {
        let content: Vec<u8> = (0..n).map(|at: u32| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
        let path = dir.path().join("file");
        fs::write(&path, &content).unwrap();
        let digest = store.put_file(&path).unwrap();
        assert_eq!(digest, Digest::of(&content));
        assert_eq!(store.put_file(&path).unwrap(), digest, "again");
        assert_eq!(store.read(&digest, ROOMY).unwrap().unwrap(), content);
    }
    assert!(matches!(store.put_file(dir.path()), Err(PutError::NotAFile { .. })));
    assert!(matches!(store.put_file(&dir.path().join("absent")), Err(PutError::Io { .. })));
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(store.put_file(&dir.path().join("pipe")), Err(PutError::NotAFile { .. })));
    assert_eq!(store.usage().blobs, 3);
}

#[test]
fn a_file_is_stored_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_packed_with(&dir.path().join("store"), ROOMY);
    let content: Vec<u8> = (0..700_001u32).map(|n| n.to_le_bytes()[usize::from(n % 3 == 0)]).collect();
    let mut shown = Vec::new();
    let mut all = |piece: &[u8]| {
        shown.extend_from_slice(piece);
        true
    };
    let digest = store.put_pieces(&mut &content[..], dir.path(), 700_001, &mut all).unwrap().unwrap();
    assert_eq!(digest, Digest::of(&content));
    assert!(shown == content && store.read(&digest, ROOMY).unwrap().unwrap() == content);
    assert_eq!(store.put_pieces(&mut &content[..], dir.path(), 700_001, &mut |_| true).unwrap(), Some(digest), "again");
    let before = store.usage();
    let refused = store.put_pieces(&mut &content[..], dir.path(), 400_000, &mut |piece| piece.len() > 200_000);
    assert_eq!(refused.unwrap(), None);
    let short = store.put_pieces(&mut &content[..], dir.path(), 700_002, &mut |_| true);
    assert!(matches!(short, Err(PutError::Io { .. })));
    let huge = store.put_pieces(&mut &content[..], dir.path(), 2 * ROOMY, &mut |_| true);
    assert!(matches!(huge, Err(PutError::Full { .. })));
    assert_eq!(store.usage().bytes, before.bytes, "what is not stored takes no room");
    assert_eq!(fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
}

#[test]
fn links_share_sealed_inodes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let digest = store.put_bytes(b"#!/bin/sh\nexit 7\n").unwrap();
    let (a, b, x, y) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("x"), dir.path().join("y"));
    for (path, executable) in [(&a, false), (&b, false), (&x, true), (&y, true)] {
        assert!(store.link(&digest, executable, path).unwrap());
    }
    let stat = |path| fs::metadata(path).unwrap();
    assert_eq!(stat(&a).ino(), stat(&b).ino());
    assert_eq!(stat(&x).ino(), stat(&y).ino());
    assert_ne!(stat(&a).ino(), stat(&x).ino());
    assert_eq!(stat(&a).permissions().mode() & 0o7777, 0o444);
    assert_eq!(stat(&x).permissions().mode() & 0o7777, 0o555);
    assert_eq!((stat(&a).mtime(), stat(&a).mtime_nsec()), (FIXED_MTIME_SECONDS, 0));
    assert_eq!((stat(&x).mtime(), stat(&x).mtime_nsec()), (FIXED_MTIME_SECONDS, 0));
    assert_eq!(std::process::Command::new(&x).status().unwrap().code(), Some(7));
    assert_eq!(store.usage().bytes, 2 * 4096, "the executable counts");
    assert!(matches!(store.link(&digest, false, &a), Err(LinkError::Exists { .. })));
    assert!(matches!(store.link(&digest, true, &dir.path().join("no/x")), Err(LinkError::Io { .. })));
    assert!(!store.link(&Digest::of(b"absent"), true, &dir.path().join("z")).unwrap());

    drop(store);
    let store = open(&dir.path().join("store"));
    assert_eq!(store.usage().bytes, 2 * 4096);
    assert_eq!(store.verify().executables, 1);
}

#[test]
fn links_to_another_file_system_are_copies() {
    let dir = tempfile::tempdir().unwrap();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: no /dev/shm");
        return;
    };
    if fs::metadata(dir.path()).unwrap().dev() == fs::metadata(elsewhere.path()).unwrap().dev() {
        println!("skipped: /dev/shm is the same file system");
        return;
    }
    let store = open(dir.path());
    let digest = store.put_bytes(b"#!/bin/sh\nexit 7\n").unwrap();
    for (name, executable, mode) in [("a", false, 0o444), ("x", true, 0o555)] {
        let path = elsewhere.path().join(name);
        assert!(store.link(&digest, executable, &path).unwrap());
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime(), found.nlink()), (mode, FIXED_MTIME_SECONDS, 1));
        assert_eq!(Digest::of(&fs::read(&path).unwrap()), digest);
        assert!(matches!(store.link(&digest, executable, &path), Err(LinkError::Exists { .. })));
    }
}

#[test]
fn too_many_links_become_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let digest = store.put_bytes(b"popular").unwrap();
    let blob = blob_path(&dir.path().join("store"), &digest);
    let links = dir.path().join("links");
    fs::create_dir(&links).unwrap();
    let refused = (0..70_000).find(|n| fs::hard_link(&blob, links.join(n.to_string())).is_err());
    if refused.is_none() {
        println!("skipped: this file system has no such limit");
        return;
    }
    assert!(store.link(&digest, false, &dir.path().join("one more")).unwrap());
    assert_eq!(fs::metadata(dir.path().join("one more")).unwrap().nlink(), 1);
}

#[test]
fn size_is_kept_by_evicting_the_least_recently_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path(), 10 * 4096);
    let digests: Vec<Digest> = (0..10u8).map(|n| store.put_bytes(&[n]).unwrap()).collect();
    assert!(store.read(&digests[0], 10).unwrap().is_some());
    let pin = store.pin([digests[1]]);
    store.put_bytes(b"new").unwrap();
    assert!(store.contains(&digests[0]), "just used");
    assert!(store.contains(&digests[1]), "pinned");
    assert!(!store.contains(&digests[2]));
    assert!(!blob_path(dir.path(), &digests[2]).exists());
    let all = store.pin(digests.iter().copied().chain([Digest::of(b"new")]));
    let error = store.put_bytes(&[1; 3 * 4096]).unwrap_err();
    assert!(matches!(error, PutError::Full { needed_bytes: 12_288, cap_bytes: 40_960 }), "{error:?}");
    assert!(error.to_string().contains("\nhint: "));
    drop((pin, all));
    assert!(matches!(store.put_bytes(&vec![1; 11 * 4096]), Err(PutError::Full { .. })));
    store.put_bytes(&[1; 3 * 4096]).unwrap();
    assert!(store.usage().bytes <= 10 * 4096);
    assert!(store.usage().n_evicted >= 3);
}

#[test]
fn order_of_use_outlives_the_process_and_a_smaller_size_holds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digests: Vec<Digest> = (0..10u8).map(|n| store.put_bytes(&[n]).unwrap()).collect();
    assert!(store.open_blob(&digests[0]).unwrap().is_some());
    drop(store);
    let store = open_with(dir.path(), 2 * 4096);
    assert!(store.contains(&digests[0]), "used last");
    assert!(store.usage().bytes <= 2 * 4096);
    assert!(!store.contains(&digests[1]));
}

#[test]
fn a_pin_protects_what_arrives_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path(), 4 * 4096);
    let pin = store.pin([Digest::of(b"late")]);
    store.put_bytes(b"late").unwrap();
    for n in 0..20u8 {
        store.put_bytes(&[n]).unwrap();
    }
    assert!(store.contains(&Digest::of(b"late")));
    drop(pin);
    for n in 0..20u8 {
        store.put_bytes(&[n]).unwrap();
    }
    assert!(!store.contains(&Digest::of(b"late")));
}

#[test]
fn making_the_executable_twin_does_not_evict_its_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&dir.path().join("store"), 2 * 4096);
    let tool = store.put_bytes(b"tool").unwrap();
    store.put_bytes(b"newer").unwrap();
    assert!(store.link(&tool, true, &dir.path().join("x")).unwrap());
    assert!(store.contains(&tool));
    assert_eq!(store.usage(), crate::Usage { bytes: 8192, blobs: 1, n_evicted: 1, ..store.usage() });
}

#[test]
fn records_are_kept_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (output, stdout) = (store.put_bytes(b"object").unwrap(), store.put_bytes(b"").unwrap());
    let first = result(b"action", output, stdout);
    store.put_result(&first).unwrap();
    let mut second = first.clone();
    second.result.exit_code = 1;
    store.put_result(&second).unwrap();
    let mut manifest = Manifest::default();
    for n in 0..MAX_MANIFEST_ENTRIES {
        manifest.remember(ManifestEntry { action: Digest::of(&[n.to_le_bytes()[0]]), read_set: ReadSet::default() });
    }
    let key = Digest { function: DigestFunction::Sha256, ..Digest::of(b"key") };
    store.put_manifest(&key, &manifest).unwrap();
    let hint =
        |folder: &str| Hint { roots: vec![RelPath::try_from(folder).unwrap()], action: Digest::of(folder.as_bytes()) };
    for folder in ["home/a", "home/b", "home/a"] {
        store.add_hint(&key, hint(folder)).unwrap();
    }
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.result(&first.result.action).unwrap(), Some(second));
    assert_eq!(store.manifest(&key).unwrap(), Some(manifest));
    assert_eq!(store.manifest(&Digest::of(b"other")).unwrap(), None);
    let hints = store.hints(&key).unwrap().unwrap();
    assert_eq!(hints.entries, [hint("home/a"), hint("home/b")]);
    assert_eq!(store.hints(&Digest::of(b"other")).unwrap(), None);
    let usage = store.usage();
    assert_eq!((usage.blobs, usage.results, usage.manifests), (2, 1, 1));
    assert!(store.remove_result(&first.result.action));
    assert!(!store.remove_result(&first.result.action));
    assert_eq!(store.result(&first.result.action).unwrap(), None);
}

#[test]
fn looking_a_result_up_is_use_of_its_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path(), 10 * 4096);
    let (output, stdout) = (store.put_bytes(b"object").unwrap(), store.put_bytes(b"").unwrap());
    let kept = result(b"action", output, stdout);
    store.put_result(&kept).unwrap();
    for n in 0..50u8 {
        store.put_bytes(&[n]).unwrap();
        assert!(store.result(&kept.result.action).unwrap().is_some());
    }
    assert!(store.contains(&output) && store.contains(&stdout));
    for n in 0..50u8 {
        store.put_bytes(&[n]).unwrap();
    }
    assert_eq!(store.result(&kept.result.action).unwrap(), None, "records are evicted too");
}

#[test]
fn clearing_leaves_what_is_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let kept = store.put_bytes(b"kept").unwrap();
    let gone = store.put_bytes(b"gone").unwrap();
    store.put_result(&result(b"action", kept, gone)).unwrap();
    let _pin = store.pin([kept]);
    assert_eq!(store.clear(), crate::Cleared { n_entries: 2, n_pinned: 1 });
    assert_eq!(store.missing(&[kept, gone]), [gone]);
    assert_eq!(store.put_bytes(b"gone").unwrap(), gone);
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let clone = store.clone();
    drop(store);
    let options = Options { max_bytes: ROOMY, durability: Durability::Lazy };
    let error = Store::open(dir.path(), &options).unwrap_err();
    assert!(matches!(error, OpenError::Busy { holder: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(error.to_string().contains("\nhint: "));
    drop(clone);
    open(dir.path());
}

#[test]
fn folders_that_are_not_ours_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { max_bytes: ROOMY, durability: Durability::Lazy };
    fs::write(dir.path().join("format"), "buildbee-store 3\n").unwrap();
    let error = Store::open(dir.path(), &options).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 3, known: 2, .. }), "{error}");
    assert!(error.to_string().contains("\nhint: "));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was touched");

    for text in ["", "buildbee-store", "buildbee-store 0\n", "buildbee-store -1\n", "\u{0}\u{ff}"] {
        fs::write(dir.path().join("format"), text).unwrap();
        assert!(matches!(Store::open(dir.path(), &options), Err(OpenError::NotAStore { .. })), "{text:?}");
    }
    fs::rename(dir.path().join("format"), dir.path().join("thesis.tex")).unwrap();
    assert!(matches!(Store::open(dir.path(), &options), Err(OpenError::NotAStore { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // Nobody may make folders here, not even root.
    let error = Store::open(Path::new("/sys/buildbee-test"), &options).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
    assert!(error.to_string().contains("\nhint: "));
}

#[test]
fn a_store_of_the_first_version_is_one_of_this() {
    let dir = tempfile::tempdir().unwrap();
    let blob = open(dir.path()).put_bytes(b"old").unwrap();
    fs::write(dir.path().join("format"), "buildbee-store 1\n").unwrap();
    fs::remove_dir(dir.path().join("packs")).unwrap();
    let store = open_packed_with(dir.path(), ROOMY);
    assert_eq!(store.read(&blob, 10).unwrap().unwrap(), b"old");
    assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), "buildbee-store 2\n");
}

#[test]
fn folders_that_vanish_under_a_running_process_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let before = store.put_bytes(b"before").unwrap();
    for family in ["blobs", "tmp", "results"] {
        fs::remove_dir_all(dir.path().join(family)).unwrap();
    }
    assert_eq!(store.read(&before, 100).unwrap(), None);
    let after = store.put_bytes(b"after").unwrap();
    assert_eq!(store.put_bytes(b"before").unwrap(), before);
    assert_eq!(store.missing(&[before, after]), []);
    assert_eq!(store.verify().blobs, 2);
}

#[test]
fn many_threads_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&dir.path().join("store"), 24 * 4096);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (store, dir) = (store.clone(), dir.path());
            scope.spawn(move || {
                for round in 0..300u32 {
                    let content = vec![round.to_le_bytes()[0] % 16; 5000];
                    let digest = store.put_bytes(&content).unwrap();
                    if let Some(found) = store.read(&digest, ROOMY).unwrap() {
                        assert_eq!(found, content);
                    }
                    let link = dir.join(format!("{thread}-{round}"));
                    let executable = round % 50 == 0;
                    match store.link(&digest, executable, &link) {
                        Ok(true) => assert_eq!(fs::read(&link).unwrap(), content),
                        Ok(false) | Err(LinkError::Put(PutError::Full { .. })) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let (usage, report) = (store.usage(), store.verify());
    assert!(usage.bytes <= 24 * 4096);
    assert_eq!((usage.n_bad, report.n_bad, report.n_unread), (0, 0, 0), "{report:?}");
    assert_eq!(report.blobs, usage.blobs);
    let shards = fs::read_dir(dir.path().join("store/blobs")).unwrap();
    let on_disk: usize = shards.map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count()).sum();
    assert_eq!(on_disk, usage.blobs, "nothing is left that the index does not know");
}

/// Not a correctness test: says how long opening takes. `cargo test -p buildbee-store -- --ignored --nocapture many_blobs`.
#[test]
#[ignore = "measures, does not test"]
fn opening_many_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path(), 1 << 30);
    let started = std::time::Instant::now();
    for n in 0..20_000u32 {
        store.put_bytes(&n.to_le_bytes()).unwrap();
    }
    println!("put 20000: {:?}", started.elapsed());
    drop(store);
    let started = std::time::Instant::now();
    let store = open_with(dir.path(), 1 << 30);
    println!("opened {}: {:?}", store.usage().blobs, started.elapsed());
}
