//! A store of millions: how long it takes to open, what memory it needs, how fast it answers. A measurement, and part of no run:
//! `tests/bench/blobs` prints it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use buildbee_proto::digest::Digest;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::inode::seal;
use crate::layout::{Family, Layout, remove_any};
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

/// Of this process, in bytes: now, and at most so far.
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bytes = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    };
    (bytes("VmRSS:"), bytes("VmHWM:"))
}

/// Processor time of this process so far.
fn processor() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [used.user_time(), used.system_time()]
        .map(|time| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap()))
        .iter()
        .sum()
}

/// Room that a folder takes on its disk.
fn disk_bytes(dir: &Path) -> u64 {
    let size = |entry: fs::DirEntry| {
        let found = entry.metadata().unwrap();
        let own = if found.nlink() > 1 && found.is_file() { 0 } else { found.blocks() * 512 };
        own + if found.is_dir() { disk_bytes(&entry.path()) } else { 0 }
    };
    fs::read_dir(dir).unwrap().map(|entry| size(entry.unwrap())).sum()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = SystemTime::now();
    let done = work();
    (done, begin.elapsed().unwrap())
}

fn measure(dir: &Path, packed: bool, n_blobs: u32) {
    let ((before, _), used) = (memory(), processor());
    let (store, opening) = timed(|| open(dir, packed));
    let ((now, most), used) = (memory(), processor().saturating_sub(used));
    let digests: Vec<Digest> =
        (0..n_blobs).step_by(97).map(|n| if packed { Digest::of(&content(n)) } else { name(n) }).collect();
    let lookups = digests.iter().cycle().take(N_LOOKUPS as usize);
    let (n_found, looking) = timed(|| lookups.filter(|digest| store.contains(digest)).count());
    let mut line = format!(
        "{n_blobs} blobs {}: {} MiB on disk, open in {} ms ({} of processor time), {} bytes resident a blob (at most {}), a lookup {} ns",
        if packed { "in packs" } else { "in files" },
        disk_bytes(dir) >> 20,
        opening.as_millis(),
        used.as_millis(),
        (now - before) / u64::from(n_blobs),
        (most - before) / u64::from(n_blobs),
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
    if what == "open" {
        return measure(dir, packed, n_blobs);
    }
    let ((), filling) = timed(|| fill(dir, packed, n_blobs));
    println!("filled in: {} s, {} s of processor time", filling.as_secs(), processor().as_secs());
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
        // What was filled in by name has none.
        remove_any(&store.join("recency")).unwrap();
        run("open");
        println!("as it was left:");
        run("open");
        println!("after a loss of power:");
        fs::remove_file(store.join("opened")).unwrap();
        run("open");
        assert!(fs::metadata(&store).unwrap().permissions().mode() & 0o700 == 0o700);
    }
}
