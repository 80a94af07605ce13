//! A member that speaks the protocol by hand: joined with a real ticket, and served like any other client.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use buildbee_p2p::enrolment::join;
use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::identity::{Identity, verify_result};
use buildbee_p2p::node::{self, Inbound, Node, NodeConfig};
use buildbee_proto::action::{Action, Command};
use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{Retry, WireError};
use buildbee_proto::exchange::{BlobHeader, BlobRequest, CacheReply, CacheRequest};
use buildbee_proto::execute::{ActionRequest, ActionUpdate, Stage};
use buildbee_proto::membership::{Signed, Ticket};
use buildbee_proto::outcome::SignedResult;
use buildbee_proto::toolchain::Toolchain;
use buildbee_proto::tree::{Directory, DirectoryNode, FileNode, Twin};
use buildbee_proto::version::Protocol;
use buildbee_tests::farm::Farm;
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;

use crate::door::{Door, SOON};

/// What looks around inside the sandbox.
const PROBE: &str = include_str!("probe.c");

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) struct Member {
    pub(crate) node: Node,
}

impl Member {
    /// Joins `farm` as a client and connects to its coordinator and to the `n_agents` agents.
    pub(crate) async fn join(farm: &Farm, name: &str, n_agents: usize) -> Self {
        // Nobody asks this client for anything: all that an action needs goes along with it.
        let (node, mut inbound) = join_as(farm, "client", name, Vec::new()).await;
        tokio::spawn(async move { while inbound.next().await.is_some() {} });
        let member = Self { node };
        member.connect(&Door::coordinator(farm)).await.unwrap();
        for n in 0..n_agents {
            member.connect(&Door::agent(farm, n)).await.unwrap();
        }
        member
    }

    pub(crate) async fn connect(&self, door: &Door) -> Result<(), node::ConnectError> {
        self.node.connect(door.peer, &door.addresses, SOON).await
    }

    /// A blob by its digest; `None` where the agent has none or the stream fails.
    pub(crate) async fn blob(&self, door: &Door, digest: Digest) -> Option<Vec<u8>> {
        let mut stream = self.node.open(door.peer, Protocol::Blob).await.ok()?;
        write_message(&mut stream, &BlobRequest::Get(vec![digest])).await.ok()?;
        let header = read_message::<BlobHeader, _>(&mut stream).await.ok()??;
        if header != BlobHeader::Found {
            return None;
        }
        let mut content = vec![0; usize::try_from(digest.size_bytes).unwrap()];
        stream.read_exact(&mut content).await.ok()?;
        Some(content)
    }

    /// The result of an action that the agent has.
    pub(crate) async fn result(&self, door: &Door, action: Digest) -> Option<SignedResult> {
        let mut stream = self.node.open(door.peer, Protocol::Cache).await.ok()?;
        write_message(&mut stream, &CacheRequest::Find { action }).await.ok()?;
        match read_message::<CacheReply, _>(&mut stream).await.ok()?? {
            CacheReply::Found(found) => SignedResult::from_canonical(&found?.0).ok(),
            _ => None,
        }
    }

    /// Runs the probe and returns what it printed.
    pub(crate) async fn probe(&self, door: &Door, words: &[&str]) -> String {
        self.probe_when(door, words, None).await
    }

    /// The same; `executing` hears when the program is started.
    pub(crate) async fn probe_when(
        &self,
        door: &Door,
        words: &[&str],
        mut executing: Option<oneshot::Sender<()>>,
    ) -> String {
        for _ in 0..100 {
            match self.submit(door, &request(words), &mut executing).await {
                Ok(text) => return text,
                // Every slot is in use or promised to somebody for the moment.
                Err(error) if error.retry != Retry::Never => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no slot became free");
    }

    async fn submit(
        &self,
        door: &Door,
        request: &ActionRequest,
        executing: &mut Option<oneshot::Sender<()>>,
    ) -> Result<String, WireError> {
        let mut stream = self.node.open(door.peer, Protocol::Action).await.unwrap();
        write_message(&mut stream, request).await.unwrap();
        loop {
            match read_message::<ActionUpdate, _>(&mut stream).await.unwrap().expect("an update") {
                ActionUpdate::Accepted | ActionUpdate::Lacks(_) => {}
                ActionUpdate::Running(stage) => {
                    if stage == Stage::Executing
                        && let Some(tell) = executing.take()
                    {
                        let _ = tell.send(());
                    }
                }
                ActionUpdate::Early { .. } => panic!("nothing was wanted early"),
                ActionUpdate::Failed(error) => return Err(error),
                ActionUpdate::Finished { result, blobs } => {
                    let signed = SignedResult::from_canonical(&result.0).unwrap();
                    assert!(verify_result(&signed) && signed.result.provenance.sandboxed);
                    let mut content = BTreeMap::new();
                    for digest in blobs {
                        let mut bytes = vec![0; usize::try_from(digest.size_bytes).unwrap()];
                        stream.read_exact(&mut bytes).await.unwrap();
                        content.insert(digest, String::from_utf8_lossy(&bytes).into_owned());
                    }
                    let text = |digest: &Digest| content.get(digest).cloned().unwrap_or_default();
                    let result = &signed.result;
                    assert_eq!((result.exit_code, text(&result.stderr).as_str()), (0, ""), "{}", text(&result.stdout));
                    return Ok(text(&result.stdout));
                }
            }
        }
    }
}

/// A node that has joined `farm` with a real ticket.
pub(crate) async fn join_as(farm: &Farm, role: &str, name: &str, listen: Vec<String>) -> (Node, Inbound) {
    let identity = Identity::generate();
    let ticket = Signed::<Ticket>::from_text(&farm.invite(role)).unwrap();
    let enrolment = join(&identity, &ticket, name, SOON, now()).await.unwrap();
    let membership = enrolment.membership;
    let config = NodeConfig { identity, membership, roster: None, listen, mdns: false, accept_joins: false };
    node::start(config).await.unwrap()
}

/// A static program: nothing else is needed beside it.
fn probe_program() -> Vec<u8> {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let build = || {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("probe.c"), PROBE).unwrap();
        let words = ["-O1", "-s", "-static", "-D_GNU_SOURCE", "-Wall", "-Werror", "probe.c", "-o", "probe"];
        let built = Process::new("gcc").args(words).current_dir(folder.path()).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fs::read(folder.path().join("probe")).unwrap()
    };
    BUILT.get_or_init(build).clone()
}

/// The folder of an action's inputs, as the client sees it and as the action does.
pub(crate) const WORK: &str = "/w/project";

/// Runs the probe with one word an argument, in [`WORK`], where there is one file, `declared`.
pub(crate) fn request(words: &[&str]) -> ActionRequest {
    let mut inline = Vec::new();
    let mut keep = |bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        inline.push(Bytes(bytes));
        digest
    };
    let program = keep(probe_program());
    let declared = keep(b"what was declared\n".to_vec());
    let mut folder = |path: &Path, file: &str, digest: Digest, executable: bool| {
        let name = file.try_into().unwrap();
        let directory = Directory {
            files: vec![FileNode { name, digest, executable, twin: Twin::default() }],
            ..Directory::default()
        };
        let mut digest = keep(directory.to_canonical());
        for name in path.iter().rev() {
            let name = name.to_str().unwrap().try_into().unwrap();
            let directory = Directory { directories: vec![DirectoryNode { name, digest }], ..Directory::default() };
            digest = keep(directory.to_canonical());
        }
        digest
    };
    let tools = folder(Path::new("probe/bin"), "probe", program, true);
    let inputs = folder(Path::new(WORK.trim_start_matches('/')), "declared", declared, false);
    let host = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let toolchain = Toolchain { root: tools, host, label: "probe of the tests".to_owned() };
    let command = Command {
        argv: ["/probe/bin/probe"].iter().chain(words).map(|&word| word.to_owned()).collect(),
        env: vec![("DECLARED".to_owned(), "yes".to_owned())],
        working_directory: WORK.trim_start_matches('/').try_into().unwrap(),
        output_files: Vec::new(),
        output_directories: Vec::new(),
    };
    let action = Action {
        command: command.digest(),
        input_root: inputs,
        toolchain: toolchain.id(),
        platform: Vec::new(),
        timeout_ms: 60_000,
        do_not_cache: true,
    };
    ActionRequest {
        attempt: *Identity::generate().peer().0.first_chunk().unwrap(),
        token: None,
        action: Bytes(action.to_canonical()),
        command: Bytes(command.to_canonical()),
        toolchain: Bytes(toolchain.to_canonical()),
        offered: Vec::new(),
        inline,
        early: None,
    }
}

/// The digest of a file that the farm made.
pub(crate) fn digest_of(file: &PathBuf) -> Digest {
    Digest::of(&fs::read(file).unwrap())
}
