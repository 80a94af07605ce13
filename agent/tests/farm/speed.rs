//! How fast blobs come, and what that costs, beside plain TCP. A measurement, and part of no run: `tests/bench/blobs` prints it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime};

use buildbee_agent::exchange::fetch::{Fetcher, Sources};
use buildbee_proto::digest::Digest;
use buildbee_store::{Durability, Options, Store};
use nix::sys::resource::{UsageWho, getrusage};

use crate::bed::Farm;

/// Bytes of one large blob. Zstd finds nothing in them.
const LARGE_BYTES: usize = 256 << 20;
const SMALL_BYTES: usize = 16 << 10;
const N_SMALL: u32 = 4096;
const N_ROUNDS: u32 = 5;
const CHUNK: usize = 1 << 20;

/// Noise of its own for each `n`.
fn noise(n: u32, length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut content);
    content
}

/// Processor time of this process, in which both ends are.
fn processor() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::new(u64::try_from(time.tv_sec()).unwrap(), u32::try_from(time.tv_usec()).unwrap() * 1000)
    };
    of(usage.user_time()) + of(usage.system_time())
}

struct Clock(SystemTime, Duration);

impl Clock {
    fn start() -> Self {
        Self(SystemTime::now(), processor())
    }

    /// MB a second, and seconds of processor time for a GiB.
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn stop(&self, n_bytes: usize) -> (f64, f64) {
        let (wall, used) = (self.0.elapsed().unwrap().as_secs_f64(), processor().saturating_sub(self.1).as_secs_f64());
        (n_bytes as f64 / 1e6 / wall, used * f64::from(1 << 30) / n_bytes as f64)
    }
}

fn median(mut figures: Vec<(f64, f64)>) -> (f64, f64) {
    let mut of = |part: fn(&(f64, f64)) -> f64| {
        figures.sort_by(|one, other| part(one).total_cmp(&part(other)));
        part(&figures[figures.len() / 2])
    };
    (of(|figure| figure.0), of(|figure| figure.1))
}

/// From a file through a socket into a file, as the simplest program would do it.
fn plain(from: &Path, to: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let copy = |mut from: Box<dyn Read>, mut to: Box<dyn Write>| {
        let mut chunk = vec![0; CHUNK];
        loop {
            match from.read(&mut chunk).unwrap() {
                0 => return,
                n => to.write_all(&chunk[..n]).unwrap(),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(Box::new(File::open(from).unwrap()), Box::new(TcpStream::connect(address).unwrap())));
        copy(Box::new(listener.accept().unwrap().0), Box::new(File::create(to).unwrap()));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn blobs_beside_plain_tcp() {
    let farm = Farm::new();
    let dir = tempfile::tempdir().unwrap();
    let options = Options { max_bytes: 2 << 30, durability: Durability::Asked };
    let (store, _) = Store::open_packed(&dir.path().join("store"), &options).unwrap();
    let large: Vec<Digest> = (0..N_ROUNDS).map(|n| store.put_bytes(&noise(n, LARGE_BYTES)).unwrap()).collect();
    let small: Vec<Digest> = (100..100 + N_SMALL).map(|n| store.put_bytes(&noise(n, SMALL_BYTES)).unwrap()).collect();
    drop(store);
    std::fs::write(dir.path().join("plain"), noise(7, LARGE_BYTES)).unwrap();
    let agent = farm.agent_in(dir.path(), 1).await;
    let client = farm.client_of(agent.peer(), agent.addresses()).await;
    let fetcher = Fetcher::new(client.node.clone(), client.store.clone());
    let sources = Sources { origin: agent.peer(), likely: Vec::new() };
    let (mut tcp, mut ours) = (Vec::new(), Vec::new());
    for (blob, n) in large.iter().zip(0..) {
        let clock = Clock::start();
        let path = dir.path().to_owned();
        tokio::task::spawn_blocking(move || plain(&path.join("plain"), &path.join(format!("copy-{n}")))).await.unwrap();
        tcp.push(clock.stop(LARGE_BYTES));
        let clock = Clock::start();
        fetcher.fetch(&[*blob], &sources).await.unwrap();
        ours.push(clock.stop(LARGE_BYTES));
    }
    let ((fast, cheap), (speed, cost)) = (median(tcp), median(ours));
    println!("plain TCP, file to file: {fast:.0} MB/s, {cheap:.2} s of processor time for a GiB, both ends");
    println!(
        "one large blob, encrypted, verified, stored: {speed:.0} MB/s, {cost:.2} s ({:.2} of plain)",
        cost / cheap
    );
    let clock = Clock::start();
    fetcher.fetch(&small, &sources).await.unwrap();
    let (speed, cost) = clock.stop(SMALL_BYTES * N_SMALL as usize);
    println!("{N_SMALL} blobs of 16 KiB: {speed:.0} MB/s, {cost:.2} s");
    let n_lookups = 2000u32;
    let begin = SystemTime::now();
    for n in 0..n_lookups {
        assert!(crate::farm::found(&client, agent.peer(), Digest::of(&n.to_le_bytes())).await.is_none());
    }
    println!("a result looked up in vain, stream included: {} µs", (begin.elapsed().unwrap() / n_lookups).as_micros());
    agent.stop().await;
}
