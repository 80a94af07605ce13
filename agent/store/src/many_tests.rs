//! A store of millions: how long it takes to open, what memory it needs, how fast it answers. A measurement, and part of no run:
//! `tests/bench/blobs` prints it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use buildbee_proto::digest::Digest;

use crate::inode::seal;
use crate::layout::{Family, Layout};
use crate::{Durability, Options, Store};

/// Tells the child what to do: `open|fill packed n`, and where.
const VARIABLE: &str = "BUILDBEE_STORE_TEST_MANY";
/// How many blobs there are.
const NUMBER: &str = "BUILDBEE_STORE_BLOBS";
const ROOMY: u64 = 1 << 40;
/// Names of one inode, where blobs are files: what is opened is not what is measured here.
const N_LINKS: u32 = 400;
const N_LOOKUPS: u32 = 1_000_000;
const N_READS: u32 = 2000;

#[expect(clippy::disallowed_methods, reason = "how whoever measures says what")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn name(n: u32) -> Digest {
    Digest { size_bytes: 64, ..Digest::of(&n.to_le_bytes()) }
}

fn content(n: u32) -> Vec<u8> {
    n.to_le_bytes().repeat(16)
}

fn open(dir: &Path, packed: bool) -> Store {
    let options = Options { max_bytes: ROOMY, durability: Durability::Asked };
    if packed { Store::open_packed(dir, &options) } else { Store::open(dir, &options) }.unwrap().0
}

fn fill(dir: &Path, packed: bool, n_blobs: u32) {
    let store = open(dir, packed);
    if packed {
        for n in 0..n_blobs {
            store.put_bytes(&content(n)).unwrap();
        }
        return;
    }
    drop(store);
    let layout = Layout { dir: dir.to_owned() };
    let mut first = PathBuf::new();
    for n in 0..n_blobs {
        let path = layout.file(Family::Blobs, &name(n));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if n % N_LINKS == 0 {
            fs::write(&path, content(n)).unwrap();
            seal(&fs::File::open(&path).unwrap(), 0o444).unwrap();
            first = path;
        } else {
            fs::hard_link(&first, path).unwrap();
        }
    }
}

/// Of this process, in MiB: now, and at most so far.
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    (kib("VmRSS:"), kib("VmHWM:"))
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = SystemTime::now();
    let done = work();
    (done, begin.elapsed().unwrap())
}

fn measure(dir: &Path, packed: bool, n_blobs: u32) {
    let (before, _) = memory();
    let (store, opening) = timed(|| open(dir, packed));
    let (now, most) = memory();
    let digests: Vec<Digest> =
        (0..n_blobs).step_by(97).map(|n| if packed { Digest::of(&content(n)) } else { name(n) }).collect();
    let lookups = digests.iter().cycle().take(N_LOOKUPS as usize);
    let (n_found, looking) = timed(|| lookups.filter(|digest| store.contains(digest)).count());
    let mut line = format!(
        "{n_blobs} blobs {}: open in {} ms, {} MiB resident (at most {}), a lookup {} ns",
        if packed { "in packs" } else { "in files" },
        opening.as_millis(),
        now - before,
        most - before,
        (looking / N_LOOKUPS).as_nanos()
    );
    if packed {
        let read = |digest| store.read(digest, 64).unwrap().unwrap();
        let ((), reading) = timed(|| digests.iter().take(N_READS as usize).for_each(|digest| drop(read(digest))));
        line = format!("{line}, a read {} µs", (reading / N_READS).as_micros());
    }
    let (batch, putting) = timed(|| {
        (0..1000u32).map(|n| store.put_bytes(&[n.to_le_bytes(), [7; 4]].concat()).unwrap()).collect::<Vec<_>>()
    });
    let ((), closing) = timed(|| drop(store));
    println!("{line}, a put {} µs, closed in {} ms", (putting / 1000).as_micros(), closing.as_millis());
    assert_eq!((n_found, batch.len()), (N_LOOKUPS as usize, 1000));
}

/// Not a test: what the child does.
#[test]
#[ignore = "runs as the child of the measurement here"]
fn child() {
    let Some(order) = variable(VARIABLE) else { return };
    let mut words = order.splitn(4, ' ');
    let mut word = || words.next().unwrap();
    let (what, packed, n_blobs) = (word().to_owned(), word() == "true", word().parse().unwrap());
    let dir = Path::new(word());
    if what == "fill" { fill(dir, packed, n_blobs) } else { measure(dir, packed, n_blobs) }
}

#[test]
#[ignore = "a measurement that takes minutes"]
fn two_million() {
    let n_blobs = variable(NUMBER).map_or(2_000_000, |number| number.parse().unwrap());
    for packed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let run = |what: &str| {
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "many_tests::child", "--ignored", "--nocapture", "--quiet"])
                .env(VARIABLE, format!("{what} {packed} {n_blobs} {}", store.display()))
                .status()
                .unwrap();
            assert!(status.success());
        };
        run("fill");
        println!("order of use unknown:");
        fs::remove_file(store.join("recency")).unwrap();
        run("open");
        println!("as it was left:");
        run("open");
        println!("after a loss of power:");
        fs::remove_file(store.join("opened")).unwrap();
        run("open");
        assert!(fs::metadata(&store).unwrap().permissions().mode() & 0o700 == 0o700);
    }
}
