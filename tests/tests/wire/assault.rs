//! Members with good papers that do their worst: to coordinator and agent as clients, to a client's daemon as an agent. Everybody stays up
//! and bounded in memory, an honest client builds meanwhile, and nobody reads what is not theirs.
//!
//! What they do is drawn from a printed seed. [`crate::rogue`] is the agent among them.

use std::fs;
use std::time::{Duration, Instant};

use buildbee_p2p::frames::write_message;
use buildbee_p2p::node::{Node, PeerStream};
use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::{Bytes, to_frame};
use buildbee_proto::control::{AgentState, Class, ClientState, ControlCall, ControlRequest, JoinRequest, Offer};
use buildbee_proto::digest::{Digest, DigestFunction};
use buildbee_proto::exchange::{BlobRequest, CacheRequest};
use buildbee_proto::execute::ActionRequest;
use buildbee_proto::hint::Hint;
use buildbee_proto::lease::{SlotReport, SlotToken};
use buildbee_proto::limits::{MAX_BLOBS_PER_REQUEST, MAX_OFFERED};
use buildbee_proto::papers::PapersRequest;
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use buildbee_tests::farm::Farm;
use fastrand::Rng;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

use crate::door::Door;
use crate::member::{Member, digest_of, request};
use crate::rogue::Rogue;
use crate::strangers::{built, farm};

/// Hostile clients.
const N_CLIENTS: usize = 2;
/// Streams that each holds open at a door.
const N_HELD: usize = 600;
/// Nothing that a hostile client does is waited for longer.
const PATIENCE: Duration = Duration::from_millis(300);
/// The most that a process may grow meanwhile, in bytes: what is named in its bounds, and what a debug build and its allocator add.
const MAX_GROWTH_BYTES: u64 = 256 << 20;
/// An honest compile of one line takes no longer meanwhile, on a busy machine.
const MAX_COMPILE: Duration = Duration::from_secs(30);

fn nonsense(rng: &mut Rng, at_most: usize) -> Vec<u8> {
    (0..rng.usize(1..at_most)).map(|_| rng.u8(..)).collect()
}

pub(crate) fn huge(rng: &mut Rng) -> Digest {
    Digest { function: DigestFunction::Blake3, hash: std::array::from_fn(|_| rng.u8(..)), size_bytes: 1 << 40 }
}

/// The action of the probe, wrong in one way or another.
fn wrong_action(rng: &mut Rng, agent: PeerId) -> ActionRequest {
    let good = request(&["read:declared"]);
    let token = SlotToken { agent, boot_id: rng.u64(..), counter: rng.u64(..) };
    match rng.u8(0..7) {
        // A lease that nobody was dealt.
        0 => ActionRequest { token: Some(token), ..good },
        1 => ActionRequest { command: Bytes(nonsense(rng, 5_000)), ..good },
        2 => ActionRequest { inline: vec![Bytes(vec![0; 9 << 20])], ..good },
        // Blobs without end, which never come.
        3 => ActionRequest { offered: (0..MAX_OFFERED).map(|_| huge(rng)).collect(), inline: Vec::new(), ..good },
        4 => ActionRequest { inline: good.inline[..good.inline.len() / 2].to_vec(), ..good },
        5 => ActionRequest { toolchain: Bytes(Vec::new()), early: Some(u32::MAX), ..good },
        _ => climbing(good),
    }
}

/// An output above the working directory: no such path can be made, so the bytes are.
fn climbing(good: ActionRequest) -> ActionRequest {
    use buildbee_proto::action::{Action, Command};
    let mut command = Command::from_canonical(&good.command.0).unwrap();
    command.output_files = vec!["aa/aa/etc/passwd".try_into().unwrap()];
    let mut bytes = command.to_canonical();
    let at = bytes.windows(5).position(|window| window == b"aa/aa").unwrap();
    bytes[at..at + 5].copy_from_slice(b"../..");
    assert!(Command::from_canonical(&bytes).is_err(), "it decodes");
    let action = Action { command: Digest::of(&bytes), ..Action::from_canonical(&good.action.0).unwrap() };
    ActionRequest { action: Bytes(action.to_canonical()), command: Bytes(bytes), ..good }
}

fn wrong_call(rng: &mut Rng, agent: PeerId) -> ControlCall {
    let token = |rng: &mut Rng| SlotToken { agent, boot_id: rng.u64(..), counter: rng.u64(..) };
    if rng.bool() {
        let held = (0..4_096).map(|_| token(rng)).collect();
        let toolchains = Vec::new();
        return ControlCall::Client(ClientState {
            n_wanted: u32::MAX,
            toolchains,
            held,
            roster_version: 0,
            class: Class::Interactive,
            listing: rng.u64(..),
        });
    }
    let slots = (0..1_000)
        .map(|_| SlotReport { token: token(rng), dealt_to: None, expires_in_ms: u32::MAX, busy: false })
        .collect();
    let offer = Offer { name: "\u{1b}[2J".to_owned(), addresses: vec!["nowhere".to_owned()], ..Offer::default() };
    ControlCall::Agent(AgentState { offer, slots, roster_version: u64::MAX, listing: rng.u64(..) })
}

/// Does one wrong thing on a fresh stream. What is left of it is held open.
async fn wrong(rng: &mut Rng, node: &Node, door: &Door, known: Digest) -> Option<PeerStream> {
    let protocol = Protocol::ALL[rng.usize(..Protocol::ALL.len())];
    let mut stream = timeout(PATIENCE, node.open(door.peer, protocol)).await.ok()?.ok()?;
    let manner = rng.u8(0..6);
    let write = async {
        match (manner, protocol) {
            (0, _) => {}
            (1, _) => drop(stream.write_all(&nonsense(rng, 100_000)).await),
            // A frame larger than any, and one that is as large as it may be and never comes.
            (2, _) => drop(stream.write_all(&[0xff; 64]).await),
            (3, _) => {
                let mut part = (8_u32 << 20).to_le_bytes().to_vec();
                part.resize(rng.usize(4..7 << 20), 7);
                drop(stream.write_all(&part).await);
            }
            (_, Protocol::Blob) => {
                let request = match rng.u8(0..4) {
                    0 => BlobRequest::Get((0..MAX_BLOBS_PER_REQUEST).map(|_| huge(rng)).collect()),
                    1 => BlobRequest::Map { blob: huge(rng), known: Some(u32::MAX) },
                    2 => BlobRequest::Chunks { blob: huge(rng), chunks: vec![u32::MAX; 64] },
                    // Asked for again and again, and never read.
                    _ => BlobRequest::Get(vec![known; MAX_BLOBS_PER_REQUEST]),
                };
                drop(write_message(&mut stream, &request).await);
            }
            (_, Protocol::Cache) => {
                let request = match rng.u8(0..5) {
                    0 => CacheRequest::Find { action: huge(rng) },
                    1 => CacheRequest::Claim { action: huge(rng), nonce: 1 },
                    2 => CacheRequest::Announce {
                        result: Bytes(nonsense(rng, 1 << 20)),
                        blobs: vec![Bytes(vec![0; 1 << 20])],
                    },
                    3 => CacheRequest::Filter { known: None },
                    _ => CacheRequest::Hint { key: huge(rng), hint: Hint { roots: Vec::new(), action: huge(rng) } },
                };
                drop(write_message(&mut stream, &request).await);
            }
            (_, Protocol::Action) => drop(write_message(&mut stream, &wrong_action(rng, door.peer)).await),
            (_, Protocol::Control) => {
                for id in 0..rng.u64(1..20) {
                    let body = wrong_call(rng, door.peer);
                    drop(write_message(&mut stream, &ControlRequest { id, body }).await);
                }
            }
            (_, Protocol::Papers) => {
                let request = PapersRequest { roster_newer_than: u64::MAX, renew: true };
                drop(write_message(&mut stream, &request).await);
            }
            (_, Protocol::Join) => {
                let request = JoinRequest { ticket: Bytes(nonsense(rng, 1_000)), name: "x".to_owned() };
                drop(write_message(&mut stream, &request).await);
            }
            (_, Protocol::Hello | Protocol::StorePath) => drop(stream.write_all(&[0; 8]).await),
        }
        drop(stream.flush().await);
    };
    let _ = timeout(PATIENCE, write).await;
    Some(stream)
}

/// One byte of a request now and then, on many streams.
async fn trickle(node: Node, door: Door, until: Instant) {
    let mut streams = Vec::new();
    for protocol in [Protocol::Action, Protocol::Cache, Protocol::Blob, Protocol::Control].into_iter().cycle().take(96)
    {
        if let Ok(Ok(stream)) = timeout(PATIENCE, node.open(door.peer, protocol)).await {
            streams.push(stream);
        }
    }
    let frame = to_frame(&request(&["read:declared"])).unwrap();
    for byte in frame.iter().cycle() {
        for stream in &mut streams {
            let _ =
                timeout(PATIENCE, async { stream.write_all(&[*byte]).await.is_ok() && stream.flush().await.is_ok() })
                    .await;
        }
        if Instant::now() > until {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn besiege(node: Node, door: Door, known: Digest, seed: u64, until: Instant) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let (mut held, mut n_done) = (Vec::new(), 0);
    while Instant::now() < until {
        if let Some(stream) = wrong(&mut rng, &node, &door, known).await {
            n_done += 1;
            if held.len() >= N_HELD {
                held.swap_remove(rng.usize(..held.len()));
            }
            held.push(stream);
        } else {
            // Disconnected, or more than it may have.
            held.truncate(held.len() / 2);
            let _ = timeout(PATIENCE, node.connect(door.peer, &door.addresses, PATIENCE)).await;
            sleep(Duration::from_millis(10)).await;
        }
    }
    n_done
}

fn is_alive(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

fn resident(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// Compiles one more file with the farm as it is; the object must be a plain compiler's.
fn honest(farm: &Farm, n: usize) -> Duration {
    let folder = farm.path("project");
    fs::write(folder.join(format!("honest{n}.c")), format!("int honest{n}(int x) {{ return x + {n}; }}\n")).unwrap();
    let started = Instant::now();
    let words = |object: String| ["-O1".to_owned(), "-c".to_owned(), format!("honest{n}.c"), "-o".to_owned(), object];
    farm.must_run(farm.client("buildbee").arg("gcc").args(words(format!("honest{n}.o"))).current_dir(&folder));
    let took = started.elapsed();
    farm.must_run(std::process::Command::new("gcc").args(words(format!("plain{n}.o"))).current_dir(&folder));
    let [built, plain] = ["honest", "plain"].map(|name| fs::read(folder.join(format!("{name}{n}.o"))).unwrap());
    assert!(built == plain, "honest{n}.o differs from what gcc makes");
    took
}

/// All at once, for `duration`.
async fn assault(duration: Duration) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let farm = farm(1);
    let (object, _) = built(&farm, "before");
    fs::write(farm.path("project/private.h"), "private to the laptop\n").unwrap();
    let private = [digest_of(&farm.path("project/private.h")), digest_of(&farm.path("project/before.c"))];
    let pids = [farm.coordinator.as_ref().unwrap().pid(), farm.agents[0].as_ref().unwrap().pid(), farm.daemon_pid()];
    let before = pids.map(resident);
    let until = Instant::now() + duration;
    let rogue = Rogue::join(&farm, seed, private.to_vec()).await;
    let (mut sieges, mut trickles, mut members) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..N_CLIENTS {
        let member = Member::join(&farm, &format!("hostile{n}"), 1).await;
        for (k, door) in [Door::coordinator(&farm), Door::agent(&farm, 0)].into_iter().enumerate() {
            let seed = seed.wrapping_add((n * 2 + k) as u64);
            sieges.push(tokio::spawn(besiege(member.node.clone(), door.clone(), object, seed, until)));
            trickles.push(tokio::spawn(trickle(member.node.clone(), door, until)));
        }
        members.push(member);
    }
    let (mut most, mut slowest, mut n_built) = (before, Duration::ZERO, 0);
    while Instant::now() < until {
        slowest = slowest.max(tokio::task::block_in_place(|| honest(&farm, n_built)));
        n_built += 1;
        for (most, pid) in most.iter_mut().zip(pids) {
            *most = resident(pid).max(*most);
        }
        sleep(Duration::from_millis(200)).await;
    }
    let mut n_wrong = 0;
    for siege in sieges {
        n_wrong += siege.await.unwrap();
    }
    for trickle in trickles {
        trickle.await.unwrap();
    }
    let (n_asked, n_read) = rogue.stop().await;
    println!(
        "{n_wrong} wrong things, {n_asked} by the agent; {n_built} built meanwhile, the slowest in {slowest:?}; MiB before and at most: {:?}",
        before.iter().zip(most).map(|(before, most)| (before >> 20, most >> 20)).collect::<Vec<_>>()
    );
    assert!(pids.into_iter().all(is_alive), "{}", farm.logs());
    assert_eq!(n_read, 0, "the agent read what was private");
    assert!(n_wrong > 20 && n_asked > 0);
    assert!(slowest < MAX_COMPILE, "an honest compile took {slowest:?}");
    for (before, most) in before.into_iter().zip(most) {
        assert!(most < before + MAX_GROWTH_BYTES, "{} MiB became {} MiB", before >> 20, most >> 20);
    }
    drop(members);
    // Whatever they left behind does not keep the farm from its work.
    farm.wait("the farm's work", || {
        let counts = farm.counts();
        tokio::task::block_in_place(|| {
            honest(&farm, n_built + usize::try_from(counts.0 + counts.1 + counts.2).unwrap())
        });
        farm.counts().1 > counts.1
    });
    assert!(pids.into_iter().all(is_alive), "{}", farm.logs());
    for log in [farm.coordinator.as_ref().unwrap().log(), farm.log_of(0), farm.laptop.log()] {
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_do_their_worst_harm_nobody() {
    assault(Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn members_that_do_their_worst_for_a_minute_harm_nobody() {
    assault(Duration::from_secs(60)).await;
}
