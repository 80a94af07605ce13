//! An agent with good papers that lies: it offers slots to everybody, answers nothing as it should, and asks clients for what is theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::{Inbound, Node, PeerStream};
use buildbee_proto::codec::Bytes;
use buildbee_proto::control::{AgentState, ControlCall, ControlReply, ControlRequest, Offer};
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::exchange::{BlobHave, BlobHeader, BlobRequest, CacheReply, FilterMark, FilterUpdate};
use buildbee_proto::execute::{ActionUpdate, Stage};
use buildbee_proto::lease::{SlotReport, SlotToken};
use buildbee_proto::papers::PapersReply;
use buildbee_proto::peer::{PeerId, Role};
use buildbee_proto::version::Protocol;
use buildbee_tests::farm::Farm;
use fastrand::Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::assault::huge;
use crate::door::Door;
use crate::member::join_as;

/// Streams that it serves, or opens, at once.
const N_STREAMS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts of what it did.
#[derive(Debug, Default)]
struct Deeds {
    n_asked: AtomicU64,
    n_read: AtomicU64,
}

/// The agent.
pub(crate) struct Rogue {
    node: Node,
    deeds: Arc<Deeds>,
    tasks: JoinSet<()>,
}

impl Rogue {
    /// Joins, and is at it until it is stopped. `private` is what no client lends it.
    pub(crate) async fn join(farm: &Farm, seed: u64, private: Vec<Digest>) -> Self {
        let (node, inbound) = join_as(farm, "agent", "rogue", vec!["127.0.0.1:0".to_owned()]).await;
        let coordinator = Door::coordinator(farm);
        node.keep_connected(coordinator.peer, coordinator.addresses);
        let (deeds, mut tasks) = (Arc::new(Deeds::default()), JoinSet::new());
        tasks.spawn(offer(node.clone(), coordinator.peer));
        tasks.spawn(serve(inbound, Arc::clone(&deeds), seed));
        tasks.spawn(pry(node.clone(), private, Arc::clone(&deeds), seed));
        Self { node, deeds, tasks }
    }

    /// How many things it did to clients, and how often it got what it should not.
    pub(crate) async fn stop(mut self) -> (u64, u64) {
        self.tasks.abort_all();
        self.node.shutdown().await;
        (self.deeds.n_asked.load(Ordering::Relaxed), self.deeds.n_read.load(Ordering::Relaxed))
    }
}

/// Says that it lends a thousand slots.
async fn offer(node: Node, coordinator: PeerId) {
    let slot = |counter| SlotReport {
        token: SlotToken { agent: node.peer(), boot_id: 1, counter },
        dealt_to: None,
        expires_in_ms: 0,
        busy: false,
    };
    let offer = Offer {
        name: "rogue".to_owned(),
        host: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        n_cores: 1_000,
        addresses: node.listening(),
        ..Offer::default()
    };
    loop {
        if let Ok(mut stream) = node.open(coordinator, Protocol::Control).await {
            for id in 1.. {
                let state = AgentState {
                    offer: offer.clone(),
                    slots: (0..1_000).map(slot).collect(),
                    roster_version: 0,
                    listing: 0,
                };
                let call = ControlRequest { id, body: ControlCall::Agent(state) };
                let answered = async {
                    write_message(&mut stream, &call).await.ok()?;
                    read_message::<ControlReply, _>(&mut stream).await.ok()?
                };
                if answered.await.is_none() {
                    break;
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Answers whoever asks, wrongly.
async fn serve(mut inbound: Inbound, deeds: Arc<Deeds>, seed: u64) {
    let mut serving = JoinSet::new();
    let mut rng = Rng::with_seed(seed);
    while let Some(arrived) = inbound.next().await {
        deeds.n_asked.fetch_add(1, Ordering::Relaxed);
        let mut own = rng.fork();
        serving.spawn(async move {
            let mut stream = arrived.stream;
            let lie = answer(&mut own, arrived.protocol, &mut stream);
            let _ = timeout(Duration::from_secs(30), lie).await;
        });
        while serving.len() > N_STREAMS {
            serving.join_next().await;
        }
    }
}

async fn answer(rng: &mut Rng, protocol: Protocol, stream: &mut PeerStream) {
    // Some of the request; who knows how much there is of it.
    let mut some = [0; 256];
    let _ = timeout(PATIENCE, stream.read(&mut some)).await;
    match (rng.u8(0..5), protocol) {
        (0, _) => sleep(Duration::from_secs(20)).await,
        (1, _) => drop(stream.write_all(&[0xff; 1_000]).await),
        (2, _) => {
            let mut part = (1_u32 << 20).to_le_bytes().to_vec();
            part.resize(1 << 19, 1);
            drop(stream.write_all(&part).await);
        }
        (_, Protocol::Action) => act(rng, stream).await,
        (_, Protocol::Cache) => {
            let reply = match rng.u8(0..5) {
                0 => CacheReply::Found(Some(Bytes(some.to_vec()))),
                1 => CacheReply::Coming,
                2 => CacheReply::Doubles(vec![Bytes(some.to_vec()); 64]),
                3 => CacheReply::Refused(WireError::new(ErrorCode::Internal, Retry::SameAgent, "\u{1b}[2J")),
                _ => CacheReply::Filter(FilterUpdate {
                    mark: FilterMark { epoch: rng.u64(..), n_added: u64::MAX },
                    whole: Some(Bytes(vec![0xff; 1 << 20])),
                    added: Vec::new(),
                }),
            };
            drop(write_message(stream, &reply).await);
        }
        (_, Protocol::Papers) => {
            let coordinator = vec!["127.0.0.1:1".to_owned(); 16];
            let reply =
                PapersReply { roster: Some(Bytes(some.to_vec())), coordinator, membership: Some(Bytes(some.to_vec())) };
            drop(write_message(stream, &reply).await);
        }
        _ => {}
    }
    drop(stream.flush().await);
    sleep(PATIENCE).await;
}

/// Says of an action what is not so.
async fn act(rng: &mut Rng, stream: &mut PeerStream) {
    let first = if rng.bool() { ActionUpdate::Accepted } else { ActionUpdate::Lacks(vec![true; 16_000]) };
    drop(write_message(stream, &first).await);
    let last = match rng.u8(0..4) {
        // At it for ever.
        0 => {
            while write_message(stream, &ActionUpdate::Running(Stage::Executing)).await.is_ok() {
                sleep(Duration::from_millis(300)).await;
            }
            return;
        }
        1 => ActionUpdate::Failed(WireError::new(ErrorCode::Internal, Retry::SameAgent, "no")),
        2 => ActionUpdate::Early { output: huge(rng), mode: 0o7777, stderr: Bytes(vec![7; 1 << 16]), observed: None },
        _ => ActionUpdate::Finished { result: Bytes(vec![1; 500]), blobs: (0..100).map(|_| huge(rng)).collect() },
    };
    drop(write_message(stream, &last).await);
    // The bytes of what was named go on and on.
    let endless = vec![0; 1 << 16];
    for _ in 0..64 {
        if stream.write_all(&endless).await.is_err() {
            return;
        }
    }
}

/// Asks the clients that come for what they have, over and over.
async fn pry(node: Node, private: Vec<Digest>, deeds: Arc<Deeds>, seed: u64) {
    let mut rng = Rng::with_seed(seed ^ 1);
    let mut held = Vec::new();
    loop {
        let table = node.peers().borrow().clone();
        for client in table.0.iter().filter(|peer| peer.role == Role::Client) {
            let Ok(Ok(mut stream)) = timeout(PATIENCE, node.open(client.peer, Protocol::Blob)).await else { continue };
            deeds.n_asked.fetch_add(1, Ordering::Relaxed);
            if rng.bool() {
                let has = timeout(PATIENCE, look(&mut stream, &private)).await.unwrap_or(false);
                deeds.n_read.fetch_add(u64::from(has), Ordering::Relaxed);
            } else {
                let request = match rng.u8(0..3) {
                    0 => BlobRequest::Get((0..256).map(|_| huge(&mut rng)).collect()),
                    1 => BlobRequest::Chunks { blob: huge(&mut rng), chunks: vec![u32::MAX; 64] },
                    _ => BlobRequest::Map { blob: huge(&mut rng), known: None },
                };
                let _ = timeout(PATIENCE, write_message(&mut stream, &request)).await;
            }
            if held.len() >= N_STREAMS {
                held.swap_remove(rng.usize(..held.len()));
            }
            held.push(stream);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the client has any of these for us.
async fn look(stream: &mut PeerStream, private: &[Digest]) -> bool {
    let asked = async {
        write_message(stream, &BlobRequest::Have(private.to_vec())).await.ok()?;
        let have = read_message::<BlobHave, _>(stream).await.ok()??;
        if have.present.iter().any(|present| *present) {
            return Some(true);
        }
        write_message(stream, &BlobRequest::Get(private.to_vec())).await.ok()?;
        let header = read_message::<BlobHeader, _>(stream).await.ok()??;
        Some(header == BlobHeader::Found)
    };
    asked.await.unwrap_or(false)
}
