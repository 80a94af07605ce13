//! An agent that is killed at each named point of replication, at either end, and whose machine loses its power there: it opens again with
//! nothing but good bytes, has what it said that it keeps, and in the end both agents have everything, and no room is lost.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use buildbee_agent::exchange::cache::complete_result;
use buildbee_agent::serve::Agent;
use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::identity::Identity;
use buildbee_p2p::node::Node;
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::limits::MAX_ANNOUNCED_BYTES;
use buildbee_proto::outcome::{ActionResult, OutputFile, Provenance, SignedResult};
use buildbee_proto::path::RelPath;
use buildbee_proto::peer::Role;
use buildbee_proto::version::Protocol;
use buildbee_store::fault::drawn::{Disk, taken_bytes};
use buildbee_store::{Durability, Options, Store, fault};
use futures::future::join_all;
use tempfile::TempDir;

use crate::bed::{Farm, settings, until};
use crate::farm::Coordinator;

/// Tells the child what to do: `point skip`, and where.
const VARIABLE: &str = "BUILDBEE_AGENT_TEST_CRASH";
const SIGKILL: i32 = 9;
/// Longer than anything takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);
/// Results whose blobs come along.
const N_SMALL: u8 = 3;
/// Outputs of those that come after them, whose blobs have to be fetched: as a whole, and by chunks.
const FETCHED_BYTES: [usize; 2] = [3 * MAX_ANNOUNCED_BYTES, (5 << 20) + 77];
/// Disks drawn after each loss of power; with the last of them the agent goes on.
const N_DRAWS: u64 = 3;
/// What a store may have on disk besides what it counts: heads and dead parts of packs, its notes on the order of use.
const SLACK_BYTES: u64 = 256 << 10;

/// Which end is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The one that has the results.
    Maker,
    /// The one that is told of them.
    Keeper,
    /// The same, after it has promised something to the disk or to the maker.
    Promised,
}

struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Not a test: what the child does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as the child of the other tests here"]
async fn child() {
    #[expect(clippy::disallowed_methods, reason = "how the parent test reaches its child")]
    let Ok(order) = std::env::var(VARIABLE) else { return };
    let mut words = order.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let (point, skip, dir) = (word(), word().parse().unwrap(), Path::new(word()));
    fault::note_below(&dir.join("notes"));
    if dir.join("store").exists() {
        fault::note_all(&dir.join("store")).unwrap();
    }
    fault::arm(point, skip);
    let _agent = Agent::start(&settings(dir, 1)).await.unwrap();
    // It is killed, by itself or by who started it.
    tokio::time::sleep(2 * PATIENCE).await;
}

fn start_child(dir: &Path, point: &str, skip: u32) -> Victim {
    fs::create_dir(dir.join("notes")).unwrap();
    let child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "replication::child", "--ignored", "--nocapture"])
        .env(VARIABLE, format!("{point} {skip} {}", dir.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Victim(child.unwrap())
}

/// Until it has killed itself.
async fn dead(victim: &mut Victim, point: &str) {
    let mut status = None;
    until(point, PATIENCE, || {
        status = victim.0.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert_eq!(status.and_then(|status| status.signal()), Some(SIGKILL), "{point}: it ended by itself: {status:?}");
}

/// In memory, where there is some: what is sure to be on the disk is a matter of the notes.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn identity(dir: &Path) -> Identity {
    Identity::load_or_create(&dir.join("identity.key")).unwrap()
}

fn open(store: &Path) -> Store {
    let options = Options { max_bytes: 2 << 30, durability: Durability::Asked };
    Store::open_packed(store, &options).unwrap().0
}

/// A result as the agent `identity` has made it before, with its blobs.
fn made(n: u8, n_bytes: usize, identity: &Identity) -> (SignedResult, Vec<Vec<u8>>) {
    let (output, said) = (vec![n; n_bytes], vec![n; 20]);
    let path = RelPath::from_absolute(Path::new("/w/made")).unwrap();
    let result = ActionResult {
        action: Digest::of(&[n]),
        exit_code: 0,
        outputs: vec![OutputFile { path, digest: Digest::of(&output), mode: 0o666 }],
        stdout: Digest::of(&said),
        stderr: Digest::of(&said),
        observed: None,
        provenance: Provenance { peer: identity.peer(), sandboxed: true, wall_ms: 1, cpu_ms: 1, peak_memory_bytes: 1 },
    };
    (identity.sign_result(result), vec![output, said])
}

fn fill(dir: &Path) -> Vec<Digest> {
    let (store, identity) = (open(&dir.join("store")), identity(dir));
    let sizes = [3000; N_SMALL as usize].into_iter().chain(FETCHED_BYTES);
    let filling = (0..).zip(sizes).map(|(n, n_bytes)| {
        let (result, blobs) = made(n, n_bytes, &identity);
        for blob in &blobs {
            store.put_bytes(blob).unwrap();
        }
        store.put_result(&result).unwrap();
        result.result.action
    });
    filling.collect()
}

/// After a look at all that is there, what is left is good, each result whole, and all room accounted for. Which of `actions` have a result.
fn held(store: &Path, actions: &[Digest], what: &str) -> Vec<Digest> {
    let opened = open(store);
    let there: Vec<Digest> = actions.iter().copied().filter(|action| opened.has_result(action)).collect();
    // What a loss of power tore is found, and dropped.
    opened.verify();
    drop(opened);
    let opened = open(store);
    let report = opened.verify();
    assert_eq!((report.n_bad, report.n_unread), (0, 0), "{what}: {report:?}");
    assert_eq!(fs::read_dir(store.join("tmp")).unwrap().count(), 0, "{what}: leftovers");
    let folders = ["blobs", "executables", "results", "manifests", "hints", "packs"];
    let n_bytes: u64 = folders.iter().map(|folder| taken_bytes(&store.join(folder)).unwrap()).sum();
    let n_known = opened.usage().bytes;
    assert!(n_bytes <= n_known + SLACK_BYTES, "{what}: {n_bytes} bytes on disk, {n_known} known");
    there.into_iter().filter(|action| complete_result(&opened, action).is_some()).collect()
}

/// Looks at what a killed agent has left, and at what its disk may have if the power was lost then. The last of these is there afterwards.
fn lose(dir: &Path, point: &str, check: impl Fn(&Path, &str)) {
    let store = dir.join("store");
    let disk = Disk::new(&store, &dir.join("notes")).unwrap();
    let drawn = |n: u64| dir.join(format!("drawn-{n}"));
    for n in 0..N_DRAWS {
        disk.draw((n << 32) ^ point.len() as u64, &drawn(n)).unwrap();
        check(&drawn(n), &format!("{point}, power lost, draw {n}"));
    }
    check(&store, &format!("{point}, killed"));
    fs::remove_dir_all(&store).unwrap();
    fs::rename(drawn(N_DRAWS - 1), &store).unwrap();
}

/// Waits until `agent` says that it has all of them.
async fn has_all(node: &Node, agent: &Agent, actions: &[Digest], what: &str) {
    node.connect(agent.peer(), agent.addresses(), Duration::from_secs(30)).await.unwrap();
    let all = async {
        loop {
            let mut stream = node.open(agent.peer(), Protocol::Cache).await.unwrap();
            write_message(&mut stream, &CacheRequest::Holds { actions: actions.to_vec() }).await.unwrap();
            match read_message(&mut stream).await.unwrap() {
                Some(CacheReply::Held(held)) if held.iter().all(|held| *held) => return,
                Some(CacheReply::Held(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{what}: not everything came"));
}

async fn killed_at(point: &'static str, end: End) {
    let mut farm = Farm::new();
    let coordinator = Coordinator::start(&mut farm).await;
    let [maker, keeper] = [(); 2].map(|()| folder());
    let dirs = [maker.path(), keeper.path()];
    for dir in dirs {
        farm.enrol(dir);
    }
    let actions = fill(maker.path());
    let members = dirs.iter().map(|dir| (identity(dir).peer(), Role::Agent)).collect();
    coordinator.publish(farm.roster(3, members)).await;
    let [dir, other] = if end == End::Maker { dirs } else { [dirs[1], dirs[0]] };

    let other_agent = farm.agent_in(other, 1).await;
    dead(&mut start_child(dir, point, 0), point).await;
    lose(dir, point, |store, what| {
        let held = held(store, &actions, what);
        match end {
            End::Maker => assert_eq!(held, actions, "{what}"),
            End::Keeper => {}
            End::Promised => assert!(!held.is_empty(), "{what}: what it had promised is lost"),
        }
    });

    let again = farm.agent_in(dir, 1).await;
    let (node, _inbound) = farm.node(Identity::generate(), Role::Client, &[]).await;
    has_all(&node, &again, &actions, point).await;
    has_all(&node, &other_agent, &actions, point).await;
    again.stop().await;
    other_agent.stop().await;
    for dir in dirs {
        assert_eq!(held(&dir.join("store"), &actions, point), actions, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_keeps_is_killed() {
    let points = [
        ("announced", End::Keeper),
        ("put-off", End::Keeper),
        ("chunk-written", End::Keeper),
        ("fetched", End::Keeper),
        ("blobs-adopted", End::Keeper),
        ("result-adopted", End::Keeper),
        ("adopted-lasts", End::Promised),
        ("kept-said", End::Promised),
    ];
    join_all(points.map(|(point, end)| killed_at(point, end))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_tells_is_killed() {
    let points = ["lack-found", "queued", "telling", "told", "kept-heard", "forgotten"];
    join_all(points.map(|point| killed_at(point, End::Maker))).await;
}

/// Announces by hand until the agent has killed itself, and looks for exactly what it said to keep.
async fn promised_at(point: &'static str, skip: u32) {
    let mut farm = Farm::new();
    let coordinator = Coordinator::start(&mut farm).await;
    let dir = folder();
    let (dir, maker) = (dir.path(), Identity::generate());
    farm.enrol(dir);
    let keeper = identity(dir).peer();
    coordinator.publish(farm.roster(3, vec![(maker.peer(), Role::Agent), (keeper, Role::Agent)])).await;
    let mut victim = start_child(dir, point, skip);
    let ready = dir.join("ready.json");
    until("it is ready", PATIENCE, || ready.exists()).await;
    let ready: serde_json::Value = serde_json::from_slice(&fs::read(&ready).unwrap()).unwrap();
    let addresses = ready["addresses"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned());
    let (node, _inbound) = farm.node(maker.clone(), Role::Agent, &[]).await;
    node.connect(keeper, &addresses.collect::<Vec<_>>(), Duration::from_secs(30)).await.unwrap();
    let mut promised = Vec::new();
    let mut stream = node.open(keeper, Protocol::Cache).await.unwrap();
    for n in 0..=u8::MAX {
        let (result, blobs) = made(n, 3000, &maker);
        let action = result.result.action;
        let blobs = blobs.into_iter().map(Bytes).collect();
        let request = CacheRequest::Announce { result: Bytes(result.to_canonical()), blobs };
        if write_message(&mut stream, &request).await.is_err() {
            break;
        }
        match read_message(&mut stream).await {
            Ok(Some(CacheReply::Kept)) => promised.push(action),
            // Its disk was slow.
            Ok(Some(CacheReply::Noted)) => {}
            Ok(None) | Err(_) => break,
            other => panic!("{point}: {other:?}"),
        }
    }
    dead(&mut victim, point).await;
    lose(dir, point, |store, what| assert_eq!(held(store, &promised, what), promised, "{what}: a promise is broken"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_promised_is_there() {
    let points = [
        "payload-written",
        "half-packed",
        "packed",
        "lasting",
        "blobs-adopted",
        "result-adopted",
        "adopted-lasts",
        "kept-said",
    ];
    join_all(points.map(|point| promised_at(point, 4))).await;
}
