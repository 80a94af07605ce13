//! A small farm in one process: real agents over TCP on the loopback, clients that speak the protocol by hand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use buildbee_agent::cli::{PlaceArguments, ServeArguments};
use buildbee_agent::config::Settings;
use buildbee_agent::exchange::arriving::Arriving;
use buildbee_agent::exchange::serve::BlobServer;
use buildbee_agent::exchange::small::Small;
use buildbee_agent::serve::Agent;
use buildbee_p2p::enrolment::Enrolment;
use buildbee_p2p::frames::{FrameError, read_message, write_message};
use buildbee_p2p::identity::{Identity, verify_result};
use buildbee_p2p::node::{self, Inbound, Node, NodeConfig, PeerStream};
use buildbee_proto::action::{Action, Command};
use buildbee_proto::canonical::Canonical;
use buildbee_proto::chunk::{ChunkSet, Chunks};
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::WireError;
use buildbee_proto::exchange::{BlobHave, BlobHeader, BlobMap, BlobRequest};
use buildbee_proto::execute::{ActionRequest, ActionUpdate};
use buildbee_proto::membership::{Membership, Roster, Signed};
use buildbee_proto::outcome::{ActionResult, SignedResult};
use buildbee_proto::peer::{PeerId, Role};
use buildbee_proto::toolchain::Toolchain;
use buildbee_proto::version::Protocol;
use buildbee_store::{Durability, Options, Store};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::content::{Content, GCC, toolchain};

/// The program buildbee-sandbox: beside this one, where somebody copied both to run them as another user; else built once, since cargo does
/// not build programs of other packages for a test.
pub(crate) fn sandbox_program() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let copied = std::env::current_exe().unwrap().with_file_name("buildbee-sandbox");
        if copied.exists() {
            return copied;
        }
        let status = Process::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--package", "buildbee-sandbox", "--bin", "buildbee-sandbox"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(status.success(), "buildbee-sandbox can't be built");
        // target/debug/deps/farm-… is this program.
        let target = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
        target.join("buildbee-sandbox")
    };
    BUILT.get_or_init(build).clone()
}

/// The recorder's library, made as it is for users, beside [`sandbox_program`], where agents look for it.
pub(crate) fn recorder_library() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let library = sandbox_program().with_file_name(buildbee_proto::record::LIBRARY);
        if std::env::current_exe().unwrap().with_file_name("buildbee-sandbox").exists() {
            assert!(library.exists(), "{} was not brought along", library.display());
            return;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox/recorder/src/lib.rs");
        // There at once or not at all: other tests may be making or loading it.
        let folder = tempfile::tempdir_in(library.parent().unwrap()).unwrap();
        let made = folder.path().join("made.so");
        let status = Process::new("rustc")
            .args(["--edition=2024", "--crate-name=buildbee_recorder", "--crate-type=cdylib", "-Copt-level=3"])
            .args(["-Cpanic=abort", "-Cstrip=symbols", "-Clink-arg=-nostdlib", "-o"])
            .args([&made, &source])
            .status()
            .unwrap();
        assert!(status.success(), "the recorder can't be built");
        std::fs::rename(&made, library).unwrap();
    });
}

/// The farm's key.
pub(crate) struct Farm {
    pub(crate) key: Identity,
    pub(crate) coordinator: Identity,
    pub(crate) coordinator_addresses: Vec<String>,
}

impl Farm {
    pub(crate) fn new() -> Self {
        Self { key: Identity::generate(), coordinator: Identity::generate(), coordinator_addresses: Vec::new() }
    }

    pub(crate) fn membership(&self, peer: PeerId, role: Role) -> Signed<Membership> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let name = format!("{role} of the tests");
        self.key.signed(Membership {
            farm: self.key.peer(),
            peer,
            role,
            name,
            issued_at: now - 10,
            expires_at: now + 3600,
        })
    }

    pub(crate) fn roster(&self, version: u64, mut members: Vec<(PeerId, Role)>) -> Signed<Roster> {
        members.sort_unstable();
        self.key.signed(Roster { farm: self.key.peer(), version, members, revoked: Vec::new() })
    }

    /// A joined agent with a state folder of its own.
    pub(crate) async fn agent(&self, n_slots: usize) -> RunningAgent {
        let dir = tempfile::tempdir().unwrap();
        let agent = self.agent_in(dir.path(), n_slots).await;
        RunningAgent { agent: Some(agent), dir }
    }

    /// One with two slots whose owner has said something.
    pub(crate) async fn agent_with(&self, change: impl FnOnce(&mut Settings)) -> RunningAgent {
        let dir = tempfile::tempdir().unwrap();
        self.enrol(dir.path());
        let mut settings = settings(dir.path(), 2);
        change(&mut settings);
        RunningAgent { agent: Some(Agent::start(&settings).await.unwrap()), dir }
    }

    pub(crate) async fn agent_in(&self, dir: &Path, n_slots: usize) -> Agent {
        self.enrol(dir);
        Agent::start(&settings(dir, n_slots)).await.unwrap()
    }

    /// What joining leaves in an agent's state folder.
    pub(crate) fn enrol(&self, dir: &Path) {
        let identity = Identity::load_or_create(&dir.join("identity.key")).unwrap();
        let membership = self.membership(identity.peer(), Role::Agent);
        let coordinator = self.coordinator.peer();
        let addresses = self.coordinator_addresses.clone();
        Enrolment { membership, coordinator, addresses }.save(&dir.join("enrolment")).unwrap();
    }

    pub(crate) async fn node(&self, identity: Identity, role: Role, listen: &[&str]) -> (Node, Inbound) {
        let membership = self.membership(identity.peer(), role);
        let listen = listen.iter().map(|&address| address.to_owned()).collect();
        node::start(NodeConfig { identity, membership, roster: None, listen, mdns: false, accept_joins: false })
            .await
            .unwrap()
    }

    pub(crate) async fn client(&self, agent: &RunningAgent) -> Client {
        self.client_who(agent, Manner::Honest).await
    }

    pub(crate) async fn client_who(&self, agent: &RunningAgent, manner: Manner) -> Client {
        self.connect(agent.get().peer(), agent.get().addresses(), manner).await
    }

    pub(crate) async fn client_of(&self, agent: PeerId, addresses: &[String]) -> Client {
        self.connect(agent, addresses, Manner::Honest).await
    }

    async fn connect(&self, agent: PeerId, addresses: &[String], manner: Manner) -> Client {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 2 << 30, durability: Durability::Lazy };
        let (store, _) = Store::open(&dir.path().join("store"), &options).unwrap();
        let (node, inbound) = self.node(Identity::generate(), Role::Client, &[]).await;
        node.connect(agent, addresses, Duration::from_secs(10)).await.unwrap();
        let ledger = Ledger::default();
        tokio::spawn(serve(inbound, store.clone(), manner, ledger.clone()));
        let toolchain = toolchain(&store);
        Client { node, store, toolchain, agent, ledger, _dir: dir }
    }
}

pub(crate) fn settings(dir: &Path, n_slots: usize) -> Settings {
    let place = PlaceArguments { config: Some("/dev/null".into()), state_dir: Some(dir.to_owned()) };
    let arguments = ServeArguments {
        place,
        slots: Some(n_slots),
        listen: vec!["127.0.0.1:0".to_owned()],
        cache_size: Some("2GiB".to_owned()),
        no_mdns: true,
        sandbox: Some(sandbox_program()),
        ready_file: Some(dir.join("ready.json")),
        ..ServeArguments::default()
    };
    // Whoever is away for a moment is gone for good here.
    Settings { repair_after: Duration::from_secs(1), ..Settings::load(&arguments).unwrap() }
}

pub(crate) struct RunningAgent {
    agent: Option<Agent>,
    pub(crate) dir: TempDir,
}

impl RunningAgent {
    pub(crate) fn get(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    pub(crate) async fn stop(&mut self) {
        self.agent.take().unwrap().stop().await;
    }

    pub(crate) async fn restart(&mut self, farm: &Farm, n_slots: usize) {
        self.agent = Some(farm.agent_in(self.dir.path(), n_slots).await);
    }

    pub(crate) async fn idle(&self) {
        let idle = async {
            while self.get().n_busy() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(3), idle).await.unwrap();
    }
}

/// How a client answers requests for blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Right length, wrong bytes.
    Lies,
    /// Has lost everything over 1 MiB.
    Forgets,
    /// Takes its time for each chunk of a large blob and each other blob that is not tiny, and counts them.
    Slow,
    /// Ends every stream after three of these.
    Cuts,
    /// One chunk of large blobs is another one.
    LiesOnce,
    /// Chunks are shorter than they should be.
    Short,
    /// Chunks are followed by more bytes.
    Endless,
    /// Says that it has more chunks than there can be.
    Boasts,
    /// Does not say anything about large blobs but that it is at work.
    Dawdles,
}

/// Blobs from this size on count, and take time.
const NOT_TINY_BYTES: u64 = 64 << 10;

/// How often each chunk, or smaller blob, was sent.
pub(crate) type Ledger = std::sync::Arc<std::sync::Mutex<HashMap<(Digest, u32), usize>>>;

async fn serve(mut inbound: Inbound, store: Store, manner: Manner, ledger: Ledger) {
    let server = BlobServer::new(store.clone(), Small::default(), Arriving::default());
    while let Some(arrived) = inbound.next().await {
        if arrived.protocol == Protocol::Papers {
            // Nothing of the farm's members is known here.
            continue;
        }
        assert_eq!(arrived.protocol, Protocol::Blob);
        let (server, server_store, ledger) = (server.clone(), store.clone(), ledger.clone());
        tokio::spawn(async move {
            match manner {
                Manner::Honest => server.serve(arrived.from.peer(), arrived.stream).await,
                // A stream that fails is what some of them are about.
                _ => drop(misbehave(manner, &server_store, arrived.stream, &ledger).await),
            }
        });
    }
}

async fn misbehave(manner: Manner, store: &Store, mut stream: PeerStream, ledger: &Ledger) -> Result<(), FrameError> {
    let mut n_sent = 0;
    while let Some(request) = read_message::<BlobRequest, _>(&mut stream).await? {
        match request {
            BlobRequest::Have(digests) => {
                let present = digests.iter().map(|digest| store.contains(digest)).collect();
                write_message(&mut stream, &BlobHave { present }).await?;
            }
            BlobRequest::Get(digests) => {
                for digest in digests {
                    match manner {
                        _ if digest.size_bytes < NOT_TINY_BYTES => {}
                        Manner::Cuts if n_sent == 3 => return Ok(stream.shutdown().await?),
                        Manner::Slow => tokio::time::sleep(Duration::from_millis(20)).await,
                        _ => {}
                    }
                    let content = match manner {
                        Manner::Lies => Some(vec![0x55; usize::try_from(digest.size_bytes).unwrap()]),
                        Manner::Forgets if digest.size_bytes > 1 << 20 => None,
                        _ => store.read(&digest, u64::MAX).unwrap(),
                    };
                    let header = if content.is_some() { BlobHeader::Found } else { BlobHeader::Missing };
                    write_message(&mut stream, &header).await?;
                    stream.write_all(&content.unwrap_or_default()).await?;
                    stream.flush().await?;
                    if digest.size_bytes >= NOT_TINY_BYTES {
                        n_sent += 1;
                        *ledger.lock().unwrap().entry((digest, 0)).or_default() += 1;
                    }
                }
            }
            BlobRequest::Map { blob, .. } => {
                let chunks = store.chunks(&blob).unwrap().unwrap();
                write_message(&mut stream, &map(manner, &chunks)).await?;
            }
            BlobRequest::Chunks { blob, chunks } => {
                for index in chunks {
                    let mut content = Vec::new();
                    assert!(store.read_chunk(&blob, index, &mut content).unwrap());
                    match manner {
                        Manner::Cuts if n_sent == 3 => return Ok(()),
                        Manner::Slow => tokio::time::sleep(Duration::from_millis(60)).await,
                        Manner::LiesOnce if index == 2 => content[77] ^= 1,
                        Manner::Short => content.truncate(1000),
                        Manner::Endless => content.extend(vec![0x55; 1 << 20]),
                        _ => {}
                    }
                    write_message(&mut stream, &BlobHeader::Found).await?;
                    stream.write_all(&content).await?;
                    stream.flush().await?;
                    n_sent += 1;
                    *ledger.lock().unwrap().entry((blob, index)).or_default() += 1;
                    if manner == Manner::Short {
                        return Ok(stream.shutdown().await?);
                    }
                }
            }
        }
    }
    Ok(())
}

/// What it says of a large blob.
fn map(manner: Manner, chunks: &Chunks) -> BlobMap {
    let n = chunks.n() as usize;
    match manner {
        Manner::Forgets => BlobMap::Missing,
        Manner::Dawdles => BlobMap::Working,
        Manner::Lies => {
            BlobMap::Found { values: vec![[0x55; 32]; n], present: Bytes(vec![0; n.div_ceil(8)]), coming: true }
        }
        Manner::Boasts => {
            let values = chunks.values().to_vec();
            BlobMap::Found { values, present: Bytes(vec![0xff; 1 << 10]), coming: true }
        }
        _ => {
            let present = Bytes(ChunkSet::all(chunks.n()).bits().to_vec());
            BlobMap::Found { values: chunks.values().to_vec(), present, coming: false }
        }
    }
}

pub(crate) struct Client {
    pub(crate) node: Node,
    pub(crate) store: Store,
    pub(crate) toolchain: Toolchain,
    pub(crate) agent: PeerId,
    /// What it sent of blobs that are not tiny, unless it is honest.
    pub(crate) ledger: Ledger,
    _dir: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) signed: SignedResult,
    pub(crate) blobs: HashMap<Digest, Vec<u8>>,
}

impl Finished {
    pub(crate) fn result(&self) -> &ActionResult {
        &self.signed.result
    }

    pub(crate) fn stdout(&self) -> &[u8] {
        self.blobs.get(&self.result().stdout).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn stderr(&self) -> String {
        self.blobs
            .get(&self.result().stderr)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .unwrap_or_default()
    }

    pub(crate) fn output(&self, path: &str) -> Option<&[u8]> {
        let file = self.result().outputs.iter().find(|file| file.path.as_str() == path)?;
        Some(self.blobs.get(&file.digest).map_or(&[], Vec::as_slice))
    }
}

impl Client {
    /// A request to run `argv` in `/w`, which has nothing in it but `files`.
    pub(crate) fn request(&self, argv: &[&str], files: &[(&str, &[u8])], outputs: &[&str]) -> ActionRequest {
        let mut content = Content::default();
        for (name, bytes) in files {
            content = content.file(&Path::new("/w").join(name), self.store.put_bytes(bytes).unwrap(), false);
        }
        self.request_in("/w", argv, &content, outputs)
    }

    pub(crate) fn request_in(&self, folder: &str, argv: &[&str], content: &Content, outputs: &[&str]) -> ActionRequest {
        let path = |text: &str| text.trim_start_matches('/').try_into().unwrap();
        let mut output_files: Vec<_> = outputs.iter().map(|output| path(&format!("{folder}/{output}"))).collect();
        output_files.sort();
        let command = Command {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: vec![("LANG".into(), "C".into()), ("PATH".into(), "/usr/bin:/bin".into())],
            working_directory: path(folder),
            output_files,
            output_directories: Vec::new(),
        };
        let action = Action {
            command: command.digest(),
            input_root: content.root(&self.store),
            toolchain: self.toolchain.id(),
            platform: Vec::new(),
            timeout_ms: 60_000,
            do_not_cache: false,
        };
        request(&action, &command, &self.toolchain)
    }

    /// A shell script in `/w`.
    pub(crate) fn script(&self, script: &str, outputs: &[&str]) -> ActionRequest {
        self.request(&["/usr/bin/dash", "-c", script], &[("here", b"")], outputs)
    }

    /// A compile of `t.c` in `/w`.
    pub(crate) fn compile(&self, source: &str) -> ActionRequest {
        self.request(&[GCC, "-c", "-O1", "t.c", "-o", "t.o"], &[("t.c", source.as_bytes())], &["t.o"])
    }

    pub(crate) async fn submit(&self, request: &ActionRequest) -> Result<Finished, WireError> {
        self.submit_to(self.agent, request).await
    }

    pub(crate) async fn submit_to(&self, agent: PeerId, request: &ActionRequest) -> Result<Finished, WireError> {
        let mut stream = self.begin(agent, request).await;
        let answer = tokio::time::timeout(Duration::from_secs(60), self.answer(&mut stream)).await;
        answer.expect("an answer in time")
    }

    pub(crate) async fn begin(&self, agent: PeerId, request: &ActionRequest) -> PeerStream {
        let mut stream = self.node.open(agent, Protocol::Action).await.unwrap();
        write_message(&mut stream, request).await.unwrap();
        stream
    }

    pub(crate) async fn answer(&self, stream: &mut PeerStream) -> Result<Finished, WireError> {
        self.answer_after(false, stream).await
    }

    /// The rest of an answer, of which `Accepted` may have been read.
    pub(crate) async fn answer_after(
        &self,
        mut accepted: bool,
        stream: &mut PeerStream,
    ) -> Result<Finished, WireError> {
        loop {
            match read_message::<ActionUpdate, _>(stream).await.unwrap().expect("an update") {
                ActionUpdate::Accepted | ActionUpdate::Lacks(_) => accepted = true,
                ActionUpdate::Running(_) => assert!(accepted),
                ActionUpdate::Early { .. } => panic!("nothing was wanted early"),
                ActionUpdate::Failed(error) => return Err(error),
                ActionUpdate::Finished { result, blobs: digests } => {
                    assert!(accepted);
                    let signed = SignedResult::from_canonical(&result.0).unwrap();
                    assert!(verify_result(&signed));
                    let mut blobs = HashMap::new();
                    for digest in digests {
                        let mut content = vec![0; usize::try_from(digest.size_bytes).unwrap()];
                        stream.read_exact(&mut content).await.unwrap();
                        assert_eq!(Digest::of(&content), digest);
                        blobs.insert(digest, content);
                    }
                    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "nothing follows");
                    return Ok(Finished { signed, blobs });
                }
            }
        }
    }
}

pub(crate) fn request(action: &Action, command: &Command, toolchain: &Toolchain) -> ActionRequest {
    let mut attempt = [0; 16];
    let random = Identity::generate().peer();
    attempt.copy_from_slice(&random.0[..16]);
    ActionRequest {
        attempt,
        token: None,
        action: Bytes(action.to_canonical()),
        command: Bytes(command.to_canonical()),
        toolchain: Bytes(toolchain.to_canonical()),
        offered: Vec::new(),
        inline: Vec::new(),
        early: None,
    }
}

/// The same action under another attempt, changed by `change`.
pub(crate) fn again(request: &ActionRequest, change: impl FnOnce(&mut Action)) -> ActionRequest {
    let mut action = Action::from_canonical(&request.action.0).unwrap();
    change(&mut action);
    let attempt = *Identity::generate().peer().0.first_chunk().unwrap();
    ActionRequest { attempt, action: Bytes(action.to_canonical()), ..request.clone() }
}

/// Processes on this machine, also in sandboxes, that have `word` as an argument of their own.
pub(crate) fn processes_with(word: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())).count()
}

/// Waits until `good`; fails after `within`.
pub(crate) async fn until(what: &str, within: Duration, mut good: impl FnMut() -> bool) {
    let started = Instant::now();
    while !good() {
        assert!(started.elapsed() < within, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
