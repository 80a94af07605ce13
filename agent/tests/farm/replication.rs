//! An agent that is killed at each named point of replication, at either end: it opens again with nothing but good bytes, has what it said that it
//! keeps, and in the end both agents have everything. What of a promise outlives a loss of power is tested at the store.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use buildbee_agent::exchange::cache::complete_result;
use buildbee_agent::fault;
use buildbee_agent::serve::Agent;
use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::identity::Identity;
use buildbee_p2p::node::Node;
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::limits::MAX_ANNOUNCED_BYTES;
use buildbee_proto::outcome::{ActionResult, OutputFile, Provenance};
use buildbee_proto::path::RelPath;
use buildbee_proto::peer::Role;
use buildbee_proto::version::Protocol;
use buildbee_store::{Durability, Options, Store};
use futures::future::join_all;

use crate::bed::{Farm, settings, until};
use crate::farm::Coordinator;

/// Tells the child what to do: `point`, and where.
const VARIABLE: &str = "BUILDBEE_AGENT_TEST_CRASH";
const SIGKILL: i32 = 9;
/// Longer than anything takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);
/// Results whose blobs come along; one more has to be fetched.
const N_SMALL: u8 = 3;

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
    let (point, dir) = order.split_once(' ').unwrap();
    fault::arm(point);
    let _agent = Agent::start(&settings(Path::new(dir), 1)).await.unwrap();
    // It is killed, by itself or by who started it.
    tokio::time::sleep(2 * PATIENCE).await;
}

fn start_child(dir: &Path, point: &str) -> Victim {
    let child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "replication::child", "--ignored", "--nocapture"])
        .env(VARIABLE, format!("{point} {}", dir.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Victim(child.unwrap())
}

fn identity(dir: &Path) -> Identity {
    Identity::load_or_create(&dir.join("identity.key")).unwrap()
}

fn open(dir: &Path) -> Store {
    let options = Options { max_bytes: 2 << 30, durability: Durability::Asked };
    let (store, recovery) = Store::open_packed(&dir.join("store"), &options).unwrap();
    assert_eq!(recovery.n_dropped, 0, "{recovery:?}");
    store
}

/// Results as this agent has made them before.
fn fill(dir: &Path) -> Vec<Digest> {
    let (store, identity) = (open(dir), identity(dir));
    let made = (0..=N_SMALL).map(|n| {
        let output = vec![n; if n < N_SMALL { 3000 } else { 3 * MAX_ANNOUNCED_BYTES }];
        let path = RelPath::from_absolute(Path::new("/w/made")).unwrap();
        let said = store.put_bytes(&[n; 20]).unwrap();
        let result = ActionResult {
            action: Digest::of(&[n]),
            exit_code: 0,
            outputs: vec![OutputFile { path, digest: store.put_bytes(&output).unwrap(), mode: 0o666 }],
            stdout: said,
            stderr: said,
            observed: None,
            provenance: Provenance {
                peer: identity.peer(),
                sandboxed: true,
                wall_ms: 1,
                cpu_ms: 1,
                peak_memory_bytes: 1,
            },
        };
        let action = result.action;
        store.put_result(&identity.sign_result(result)).unwrap();
        action
    });
    made.collect()
}

/// All that is there is good, and each result whole. How many of `actions` have one.
fn held(dir: &Path, actions: &[Digest], what: &str) -> usize {
    let store = open(dir);
    let report = store.verify();
    assert_eq!((report.n_bad, report.n_unread), (0, 0), "{what}: {report:?}");
    let there: Vec<&Digest> = actions.iter().filter(|action| store.has_result(action)).collect();
    assert!(there.iter().all(|action| complete_result(&store, action).is_some()), "{what}: a result without its blobs");
    assert_eq!(std::fs::read_dir(dir.join("store/tmp")).unwrap().count(), 0, "{what}: leftovers");
    there.len()
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
    let [maker, keeper] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let dirs = [maker.path(), keeper.path()];
    for dir in dirs {
        farm.enrol(dir);
    }
    let actions = fill(maker.path());
    let members = dirs.iter().map(|dir| (identity(dir).peer(), Role::Agent)).collect();
    coordinator.publish(farm.roster(3, members)).await;
    let [dir, other] = if end == End::Maker { dirs } else { [dirs[1], dirs[0]] };

    let other_agent = farm.agent_in(other, 1).await;
    let mut victim = start_child(dir, point);
    let mut status = None;
    until(point, PATIENCE, || {
        status = victim.0.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert_eq!(status.and_then(|status| status.signal()), Some(SIGKILL), "{point}: it ended by itself: {status:?}");
    let n_held = held(dir, &actions, point);
    match end {
        End::Maker => assert_eq!(n_held, actions.len(), "{point}"),
        End::Keeper => {}
        End::Promised => assert!(n_held > 0, "{point}: what it had promised is lost"),
    }

    let again = farm.agent_in(dir, 1).await;
    let (node, _inbound) = farm.node(Identity::generate(), Role::Client, &[]).await;
    has_all(&node, &again, &actions, point).await;
    has_all(&node, &other_agent, &actions, point).await;
    again.stop().await;
    other_agent.stop().await;
    for dir in dirs {
        assert_eq!(held(dir, &actions, point), actions.len(), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_keeps_is_killed() {
    let points = [
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
    join_all(["lack-found", "telling", "kept-heard"].map(|point| killed_at(point, End::Maker))).await;
}
