//! Takes the power away from a child process at each named point, and opens what may be on the disk then.
//!
//! The child is killed, having noted what it synchronised ([`fault`]). From that and from what the kernel shows, disks are drawn by lot
//! ([`drawn`](crate::fault::drawn)).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use buildbee_proto::digest::Digest;
use buildbee_proto::manifest::Manifest;

use crate::fault::drawn::{Disk, taken_bytes};
use crate::store_tests::result;
use crate::{Durability, Options, Store, fault};

/// Tells the child what to do: `point skip max_bytes durability packed`, and where.
const VARIABLE: &str = "BUILDBEE_STORE_TEST_POWER";
/// All that the work makes fits in here. Packs have 64 KiB then.
const ROOMY: u64 = 1 << 20;
/// Of what the work makes, most has to go.
const TIGHT: u64 = 60 * 4096;
const N_ROUNDS: u32 = 40;
/// Results that are made to last together.
const N_TOGETHER: usize = 4;
/// Disks drawn after each crash.
const N_DRAWS: u64 = 3;

fn durability(word: &str) -> Durability {
    match word {
        "sync" => Durability::Sync,
        "asked" => Durability::Asked,
        _ => Durability::Lazy,
    }
}

fn open(dir: &Path, max_bytes: u64, durability: Durability, packed: bool) -> (Store, crate::Recovery) {
    let options = Options { max_bytes, durability };
    if packed { Store::open_packed(dir, &options) } else { Store::open(dir, &options) }.unwrap()
}

/// Not a test: what the child does.
#[test]
#[ignore = "runs as the child of the other tests here"]
fn child() {
    #[expect(clippy::disallowed_methods, reason = "how the parent test reaches its child")]
    let Ok(order) = std::env::var(VARIABLE) else { return };
    let mut words = order.splitn(6, ' ');
    let mut word = || words.next().unwrap();
    let (point, skip, max_bytes) = (word().to_owned(), word().parse().unwrap(), word().parse().unwrap());
    let (durability, packed) = (durability(word()), word() == "true");
    let dir = Path::new(word());
    fault::note_below(&dir.join("notes"));
    if point == "format-written" {
        fault::arm(&point, skip);
    }
    let store = open(&dir.join("store"), max_bytes, durability, packed).0;
    if point != "format-written" {
        fault::arm(&point, skip);
    }
    let mut acks = OpenOptions::new().create(true).append(true).open(dir.join("acks")).unwrap();
    work(&store, durability, dir, &mut |digest, is_result| {
        writeln!(acks, "{digest} {is_result}").unwrap();
    });
    drop(store);
}

/// Makes results, some of them again and again, has blobs linked, and tells `ack` of what must last from then on.
fn work(store: &Store, durability: Durability, dir: &Path, ack: &mut dyn FnMut(&Digest, bool)) {
    let mut waiting = Vec::new();
    for round in 0..N_ROUNDS {
        let content = round.to_le_bytes().repeat(if round % 2 == 0 { 2000 } else { 200 });
        let blob = store.put_bytes(&content).unwrap();
        let made = result(&content, blob, blob);
        store.put_result(&made).unwrap();
        store.put_manifest(&blob, &Manifest::default()).unwrap();
        let action = made.result.action;
        if durability == Durability::Sync {
            ack(&blob, false);
            ack(&action, true);
        }
        waiting.push((action, vec![blob]));
        if waiting.len() == N_TOGETHER {
            let lasting = store.make_last(&waiting).unwrap();
            for ((action, blobs), lasts) in waiting.drain(..).zip(lasting) {
                if lasts && durability == Durability::Asked {
                    for blob in &blobs {
                        ack(blob, false);
                    }
                    ack(&action, true);
                }
                // Whatever was promised of them holds after this, too: a file of its own, another result in its place.
                for blob in &blobs {
                    store.link(blob, round % 8 == 3, &dir.join(format!("x-{}", action.hex()))).unwrap();
                }
                if let Some(known) = store.result(&action).unwrap() {
                    store.put_result(&known).unwrap();
                }
            }
        }
        // What is replaced again and again leaves packs half dead.
        for _ in 0..20 {
            store.put_result(&result(b"again", blob, blob)).unwrap();
        }
    }
}

struct Case<'a> {
    point: &'a str,
    skip: u32,
    max_bytes: u64,
    durability: &'a str,
    packed: bool,
}

impl Case<'_> {
    /// True if the child came to that point.
    fn run(&self) -> bool {
        // In memory, where there is some: what is sure to be on the disk is a matter of the notes.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        fs::create_dir(dir.path().join("notes")).unwrap();
        let Self { point, skip, max_bytes, durability, packed } = self;
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "power_tests::child", "--ignored", "--nocapture"])
            .env(VARIABLE, format!("{point} {skip} {max_bytes} {durability} {packed} {}", dir.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success() || status.signal() == Some(9), "{point}: the child failed: {status}");
        let disk = Disk::new(&dir.path().join("store"), &dir.path().join("notes")).unwrap();
        for seed in 0..N_DRAWS {
            let drawn = dir.path().join(format!("drawn-{seed}"));
            disk.draw((seed << 32) ^ (u64::from(*skip) << 8) ^ point.len() as u64, &drawn).unwrap();
            let what = format!("{point} {skip} {max_bytes} {durability} {packed}, draw {seed}");
            self.check(&drawn, &fs::read_to_string(dir.path().join("acks")).unwrap_or_default(), &what);
            fs::remove_dir_all(&drawn).unwrap();
        }
        status.signal() == Some(9)
    }

    /// It opens, has what was promised, serves good bytes only, and nothing lies about that it does not know of.
    fn check(&self, dir: &Path, acks: &str, what: &str) {
        let (store, recovery) = open(dir, self.max_bytes, durability(self.durability), self.packed);
        if self.max_bytes == ROOMY {
            for ack in acks.lines() {
                let (digest, is_result) = ack.split_once(' ').unwrap();
                let digest: Digest = digest.parse().unwrap();
                if is_result == "true" {
                    assert!(store.result(&digest).unwrap().is_some(), "{what}: a result was lost");
                } else {
                    let content = store.read(&digest, ROOMY).unwrap();
                    assert_eq!(content.map(|content| Digest::of(&content)), Some(digest), "{what}: a blob was lost");
                }
            }
        }
        for round in 0..N_ROUNDS {
            let content = round.to_le_bytes().repeat(if round % 2 == 0 { 2000 } else { 200 });
            let found = store.read(&Digest::of(&content), ROOMY).unwrap();
            assert!(found.is_none_or(|found| found == content), "{what}: bad bytes");
        }
        store.verify();
        let report = store.verify();
        assert_eq!((report.n_bad, report.n_unread), (0, 0), "{what}: {report:?}");
        assert!(report.blobs <= recovery.blobs);
        store.put_bytes(b"after the crash").unwrap();
        drop(store);
        // What the scrub has dropped is gone for good, and all room is accounted for.
        let (store, recovery) = open(dir, self.max_bytes, durability(self.durability), self.packed);
        // A damaged head stays where it is until its pack is swept.
        assert_eq!(
            (recovery.n_dropped, recovery.n_temporary),
            (if self.packed { recovery.n_dropped } else { 0 }, 0),
            "{what}"
        );
        assert!(fs::read_dir(dir.join("tmp")).unwrap().next().is_none(), "{what}: leftovers");
        let folders = ["blobs", "executables", "results", "manifests", "hints", "packs"];
        let n_bytes: u64 = folders.iter().map(|folder| taken_bytes(&dir.join(folder)).unwrap()).sum();
        let allowed = store.usage().bytes + 2 * self.max_bytes / 16;
        assert!(n_bytes <= allowed, "{what}: {n_bytes} bytes on disk, {allowed} known");
    }
}

/// Each point, in these stores.
fn at(points: &[&str], skips: &[u32], max_bytes: u64, packed: &[bool]) {
    for point in points {
        for packed in packed.iter().copied() {
            for durability in ["sync", "asked", "lazy"] {
                for skip in skips {
                    let case = Case { point, skip: *skip, max_bytes, durability, packed };
                    assert!(case.run(), "{point} {skip} {durability} {packed}: never reached");
                }
            }
        }
    }
}

#[test]
fn while_writing() {
    at(&["created", "written", "before-rename", "after-rename"], &[3], ROOMY, &[false, true]);
    at(&["record-half-written"], &[5], ROOMY, &[false]);
    at(&["twin-copied"], &[1], ROOMY, &[false, true]);
}

#[test]
fn while_packing() {
    at(&["payload-written", "half-packed", "packed"], &[1, 90], ROOMY, &[true]);
    at(&["before-mark"], &[20], ROOMY, &[true]);
}

#[test]
fn while_sweeping() {
    at(&["swept-in", "swept", "half-removed"], &[0], ROOMY, &[true]);
}

#[test]
fn while_promising_and_closing() {
    at(&["lasting"], &[0, 3], ROOMY, &[true]);
    at(&["lasting"], &[2], ROOMY, &[false]);
    at(&["half-noted", "format-written"], &[0], ROOMY, &[true]);
}

#[test]
fn while_evicting() {
    at(&["before-delete"], &[1], TIGHT, &[false, true]);
    at(&["half-deleted"], &[3], TIGHT, &[false]);
    at(&["swept", "before-mark"], &[0], TIGHT, &[true]);
}
