//! Several agents, and the coordinator's side of the conversation.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use buildbee_agent::config::Settings;
use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::{Inbound, Node};
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::control::{
    AgentDesired, AgentInfo, AgentState, ControlAnswer, ControlCall, ControlReply, ControlRequest, Offer,
};
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry};
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::lease::SlotToken;
use buildbee_proto::listing::Listing;
use buildbee_proto::membership::{Roster, Signed};
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::peer::{PeerId, Role};
use buildbee_proto::roster_news::RosterNews;
use buildbee_proto::version::Protocol;
use tokio::sync::Mutex;

use crate::bed::{Client, Farm, Manner, RunningAgent, again};

/// A coordinator that does as the test says.
pub(crate) struct Coordinator {
    node: Node,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    heard: Vec<(PeerId, AgentState)>,
    dealt: Vec<(SlotToken, PeerId)>,
    roster: Option<Signed<Roster>>,
}

impl Coordinator {
    pub(crate) async fn start(farm: &mut Farm) -> Self {
        let (node, inbound) = farm.node(farm.coordinator.clone(), Role::Coordinator, &["127.0.0.1:0"]).await;
        farm.coordinator_addresses = node.listening();
        let state = Arc::default();
        tokio::spawn(answer(inbound, Arc::clone(&state)));
        Self { node, state }
    }

    #[cfg(debug_assertions)]
    /// Tells everybody of this roster from now on.
    pub(crate) async fn publish(&self, roster: Signed<Roster>) {
        self.state.lock().await.roster = Some(roster);
    }

    async fn last(&self, agent: PeerId) -> Option<AgentState> {
        let state = self.state.lock().await;
        state.heard.iter().rev().find(|(peer, _)| *peer == agent).map(|(_, heard)| heard.clone())
    }

    pub(crate) async fn until(&self, agent: PeerId, what: &str, good: impl Fn(&AgentState) -> bool) -> AgentState {
        for _ in 0..500 {
            match self.last(agent).await {
                Some(state) if good(&state) => return state,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        panic!("never heard: {what}; last {:?}", self.last(agent).await);
    }
}

async fn answer(mut inbound: Inbound, state: Arc<Mutex<State>>) {
    while let Some(mut arrived) = inbound.next().await {
        if arrived.protocol == Protocol::Papers {
            // Nothing of the farm's members is known here.
            continue;
        }
        assert_eq!(arrived.protocol, Protocol::Control);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let from = arrived.from.peer();
            while let Ok(Some(ControlRequest { id, body })) = read_message(&mut arrived.stream).await {
                let ControlCall::Agent(heard) = body else { panic!("not an agent") };
                let desired = state.lock().await.desired(from, heard);
                let reply = ControlReply { id, body: ControlAnswer::Agent(desired) };
                if write_message(&mut arrived.stream, &reply).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl State {
    fn desired(&mut self, from: PeerId, heard: AgentState) -> AgentDesired {
        let version = heard.roster_version;
        self.heard.push((from, heard));
        let mut peers: Vec<AgentInfo> = Vec::new();
        for (peer, state) in self.heard.iter().rev() {
            if *peer != from && peers.iter().all(|info| info.peer != *peer) {
                peers.push(AgentInfo { peer: *peer, offer: state.offer.clone(), n_slots: 1 });
            }
        }
        let newer = self.roster.as_ref().filter(|roster| roster.value.version > version);
        AgentDesired {
            dealt: self.dealt.clone(),
            deal_for_ms: 60_000,
            peers: Some(Listing { after: 0, number: 1, dropped: vec![], added: peers }),
            roster: newer.map(|roster| RosterNews::Whole(Bytes(roster.to_canonical()))),
            next_call_ms: 250,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_hears_of_slots_and_toolchains_and_deals_leases() {
    let mut farm = Farm::new();
    let coordinator = Coordinator::start(&mut farm).await;
    let agent = farm.agent(1).await;
    let me = agent.get().peer();
    let first = coordinator.until(me, "a slot", |state| state.slots.len() == 1).await;
    let Offer { host, n_cores, memory_bytes, addresses, .. } = &first.offer;
    assert!(host.ends_with("-linux") && *n_cores > 0 && *memory_bytes > 0 && addresses == agent.get().addresses());

    let (holder, stranger) = (farm.client(&agent).await, farm.client(&agent).await);
    let token = first.slots[0].token;
    coordinator.state.lock().await.dealt = vec![(token, holder.node.peer())];
    coordinator.until(me, "the deal", |state| state.slots[0].dealt_to == Some(holder.node.peer())).await;
    let refused = stranger.submit(&stranger.script("true", &[])).await.unwrap_err();
    assert_eq!((refused.code, refused.retry), (ErrorCode::Busy, Retry::OtherAgent));
    let mut request = holder.script("true", &[]);
    request.token = Some(token);
    holder.submit(&request).await.unwrap();
    coordinator.until(me, "a toolchain", |state| state.offer.toolchains == [holder.toolchain.id()]).await;

    coordinator.state.lock().await.dealt.clear();
    coordinator.until(me, "an open slot", |state| state.slots[0].dealt_to.is_none()).await;
    stranger.submit(&again(&stranger.script("true", &[]), |action| action.do_not_cache = true)).await.unwrap();
    coordinator.node.shutdown().await;
    stranger.submit(&again(&stranger.script("exit 0", &[]), |_| {})).await.unwrap();
}

/// Two agents that know each other.
pub(crate) async fn neighbours(farm: &mut Farm) -> (Coordinator, RunningAgent, RunningAgent) {
    let (coordinator, agents) = neighbourhood(farm, 2).await;
    let [one, other] = <[RunningAgent; 2]>::try_from(agents).ok().unwrap();
    (coordinator, one, other)
}

/// So many agents that know each other.
pub(crate) async fn neighbourhood(farm: &mut Farm, n: usize) -> (Coordinator, Vec<RunningAgent>) {
    neighbourhood_with(farm, n, |_| {}).await
}

/// The same, of owners who have said something.
async fn neighbourhood_with(
    farm: &mut Farm,
    n: usize,
    change: impl Fn(&mut Settings),
) -> (Coordinator, Vec<RunningAgent>) {
    let coordinator = Coordinator::start(farm).await;
    let mut agents = Vec::new();
    for _ in 0..n {
        agents.push(farm.agent_with(&change).await);
    }
    let members = agents.iter().map(|agent| (agent.get().peer(), Role::Agent)).collect();
    coordinator.state.lock().await.roster = Some(farm.roster(3, members));
    for agent in &agents {
        coordinator.until(agent.get().peer(), "the roster", |state| state.roster_version == 3).await;
    }
    (coordinator, agents)
}

pub(crate) async fn found(client: &Client, agent: PeerId, action: Digest) -> Option<SignedResult> {
    let mut stream = client.node.open(agent, Protocol::Cache).await.unwrap();
    write_message(&mut stream, &CacheRequest::Find { action }).await.unwrap();
    match read_message(&mut stream).await.unwrap() {
        Some(CacheReply::Found(found)) => found.map(|bytes| SignedResult::from_canonical(&bytes.0).unwrap()),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn found_soon(client: &Client, agent: PeerId, action: Digest) -> Option<SignedResult> {
    for _ in 0..250 {
        let copy = found(client, agent, action).await;
        if copy.is_some() {
            return copy;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_finds_its_way_to_the_peers_responsible() {
    let mut farm = Farm::new();
    let (coordinator, mut one, other) = neighbours(&mut farm).await;
    let client = farm.client(&one).await;
    let request = client.compile("int shared;\n");
    let action = Digest::of(&request.action.0);
    // With two agents, both are responsible for everything.
    let second = farm.client(&other).await;
    assert_eq!(found(&second, other.get().peer(), action).await, None);
    let done = client.submit(&request).await.unwrap();
    assert_eq!(found_soon(&second, other.get().peer(), action).await.as_ref(), Some(&done.signed));
    // One more on the same stream, and one whose blobs have to be fetched.
    for source in ["int more;\n", "char large[100000] = {1};\n"] {
        let done = client.submit(&client.compile(source)).await.unwrap();
        let copy = found_soon(&second, other.get().peer(), done.result().action).await;
        assert_eq!(copy.as_ref(), Some(&done.signed), "{source}");
    }
    let maker = one.get().peer();
    one.stop().await;
    // The one who ran it is gone, and so is the need for it.
    let kept = second.submit(&again(&request, |_| {})).await.unwrap();
    assert_eq!(kept.signed, done.signed);
    assert_eq!(kept.output("w/t.o"), done.output("w/t.o"));
    // Who was sent away is not believed any more, whoever keeps what they made.
    let mut roster = farm.roster(4, vec![(other.get().peer(), Role::Agent)]).value;
    roster.revoked = vec![maker];
    coordinator.state.lock().await.roster = Some(farm.key.signed(roster));
    coordinator.until(other.get().peer(), "the roster", |state| state.roster_version == 4).await;
    let anew = second.submit(&second.compile("int shared;\n")).await.unwrap();
    assert_eq!(anew.result().action, action);
    assert_eq!(anew.result().provenance.peer, other.get().peer());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toolchain_comes_from_the_neighbour() {
    let mut farm = Farm::new();
    let (coordinator, one, other) = neighbours(&mut farm).await;
    let client = farm.client(&one).await;
    client.submit(&client.script("true", &[])).await.unwrap();
    coordinator.until(one.get().peer(), "a toolchain", |state| !state.offer.toolchains.is_empty()).await;
    // Whatever is large must come from somebody else.
    let second = farm.client_who(&other, Manner::Forgets).await;
    let done = second.submit(&second.script("exit 0", &[])).await.unwrap();
    assert_eq!(done.result().provenance.peer, other.get().peer());
}

/// The smallest of the files of several kilobytes below a store's blobs: a scrub comes to it soon.
fn some_blob(store: &Path) -> PathBuf {
    let shards = fs::read_dir(store.join("blobs")).unwrap();
    let files = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap()).map(|entry| entry.unwrap());
    let sized = files.map(|entry| (entry.metadata().unwrap().len(), entry.path())).filter(|(size, _)| *size > 10_000);
    sized.min().unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_bad_on_the_disk_comes_from_the_neighbour() {
    let mut farm = Farm::new();
    let impatient = |settings: &mut Settings| settings.scrub_every = Duration::from_secs(2);
    let (_coordinator, agents) = neighbourhood_with(&mut farm, 2, impatient).await;
    let one = &agents[0];
    // Two actions: the second agent would have the result of the first, and not run it.
    for (agent, script) in agents.iter().zip(["true", "exit 0"]) {
        let client = farm.client(agent).await;
        client.submit(&client.script(script, &[])).await.unwrap();
    }
    let path = some_blob(&one.dir.path().join("store"));
    let good = fs::read(&path).unwrap();
    // As the disk does it: neither size nor time shows it.
    let metadata = fs::metadata(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[good[77] ^ 4], 77).unwrap();
    file.set_times(FileTimes::new().set_modified(metadata.modified().unwrap())).unwrap();
    fs::set_permissions(&path, metadata.permissions()).unwrap();
    let healed = async {
        // Gone for a moment, then another inode.
        while fs::read(&path).ok().as_ref() != Some(&good) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), healed).await.expect("it was found and replaced");
    assert_ne!(fs::metadata(&path).unwrap().ino(), metadata.ino());
    let client = farm.client(one).await;
    client.submit(&client.script("echo anew", &[])).await.unwrap();
}
