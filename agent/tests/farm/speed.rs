//! How fast blobs come, and what that costs, beside plain TCP and plain libp2p. A measurement, and part of no run: `tests/bench/blobs`
//! prints it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use buildbee_agent::exchange::fetch::{Fetcher, Sources};
use buildbee_proto::digest::Digest;
use buildbee_store::{Durability, Options, Store};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::Transport as _;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, noise, tcp, yamux};
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

const PLAIN: StreamProtocol = StreamProtocol::new("/plain/1");

fn plain_swarm() -> (Swarm<libp2p_stream::Behaviour>, libp2p_stream::Control) {
    let key = Keypair::generate_ed25519();
    let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let behaviour = libp2p_stream::Behaviour::new();
    let control = behaviour.new_control();
    let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
    (Swarm::new(transport, behaviour, key.public().to_peer_id(), config), control)
}

fn drive(mut swarm: Swarm<libp2p_stream::Behaviour>) {
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
}

/// Two nodes of libp2p as it comes, TCP, Noise and Yamux, of which one sends a file to whoever opens a stream.
struct PlainLibp2p {
    control: libp2p_stream::Control,
    sender: PeerId,
}

impl PlainLibp2p {
    async fn start(from: PathBuf) -> Self {
        let (mut sending, mut serving) = plain_swarm();
        let sender = *sending.local_peer_id();
        let mut requests = serving.accept(PLAIN).unwrap();
        sending.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address: Multiaddr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = sending.select_next_some().await {
                break address;
            }
        };
        drive(sending);
        tokio::spawn(async move {
            let mut chunk = vec![0; CHUNK];
            while let Some((_, mut stream)) = requests.next().await {
                let mut file = File::open(&from).unwrap();
                loop {
                    match file.read(&mut chunk).unwrap() {
                        0 => break,
                        n => stream.write_all(&chunk[..n]).await.unwrap(),
                    }
                }
                stream.close().await.unwrap();
            }
        });
        let (mut receiving, control) = plain_swarm();
        receiving.dial(address.with_p2p(sender).unwrap()).unwrap();
        while !receiving.is_connected(&sender) {
            receiving.select_next_some().await;
        }
        drive(receiving);
        Self { control, sender }
    }

    /// One file, into a file.
    async fn fetch(&mut self, to: &Path) {
        let mut stream = self.control.open_stream(self.sender, PLAIN).await.unwrap();
        let mut file = File::create(to).unwrap();
        let mut chunk = vec![0; CHUNK];
        loop {
            match stream.read(&mut chunk).await.unwrap() {
                0 => break,
                n => file.write_all(&chunk[..n]).unwrap(),
            }
        }
        assert_eq!(file.metadata().unwrap().len(), LARGE_BYTES as u64);
    }
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
    let mut libp2p = PlainLibp2p::start(dir.path().join("plain")).await;
    let (mut tcp, mut theirs, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let copy = dir.path().join("copy");
    for blob in &large {
        let clock = Clock::start();
        let (from, to) = (dir.path().join("plain"), copy.clone());
        tokio::task::spawn_blocking(move || plain(&from, &to)).await.unwrap();
        tcp.push(clock.stop(LARGE_BYTES));
        // At once, so that all of them are given the same memory again: fresh memory of a virtual machine costs more than all the rest.
        std::fs::remove_file(&copy).unwrap();
        let clock = Clock::start();
        libp2p.fetch(&copy).await;
        theirs.push(clock.stop(LARGE_BYTES));
        std::fs::remove_file(&copy).unwrap();
        let clock = Clock::start();
        fetcher.fetch(&[*blob], &sources).await.unwrap();
        ours.push(clock.stop(LARGE_BYTES));
        client.store.clear();
    }
    let ((fast, cheap), (quick, fair), (speed, cost)) = (median(tcp), median(theirs), median(ours));
    println!("plain TCP, file to file: {fast:.0} MB/s, {cheap:.2} s of processor time for a GiB, both ends");
    println!("plain libp2p, TCP, Noise and Yamux, file to file: {quick:.0} MB/s, {fair:.2} s");
    println!(
        "one large blob, encrypted, verified, stored: {speed:.0} MB/s, {cost:.2} s ({:.2} of plain libp2p, wanted: 1.3)",
        cost / fair
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
