//! Asks all agents for a store path, at once, and takes the first that has it. Who does not answer in time costs that time and no more.
//!
//! One task an agent holds a stream to it and gathers the questions that come meanwhile: Nix asks for hundreds of paths together. A task ends
//! when nobody has asked for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::{Node, PeerStream};
use buildbee_p2p::tasks::Tasks;
use buildbee_proto::limits::MAX_STORE_PATH_HASHES;
use buildbee_proto::peer::PeerId;
use buildbee_proto::store_path::{StorePath, StorePathReply, StorePathRequest};
use buildbee_proto::version::Protocol;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::executor::sandboxed::Holders;

/// How long agents in all may take to say that they have a path.
const FIND_DEADLINE: Duration = Duration::from_millis(200);
/// How long one may take to answer before its stream is given up.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
const OPEN_DEADLINE: Duration = Duration::from_secs(2);
/// How long a stream is held without a question; shorter than the other end waits.
const HELD: Duration = Duration::from_secs(30);
/// Questions waiting for one agent; of further ones it is not asked.
const MAX_WAITING: usize = 1024;
/// Agents asked.
const MAX_ASKED: usize = 64;
/// Paths whose holder is remembered; beyond it the memory starts over.
const MAX_REMEMBERED: usize = 4_096;

struct Question {
    hash: String,
    answer: oneshot::Sender<Option<StorePath>>,
}

/// A path, and who has it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who.
    pub holder: PeerId,
    /// What it says of it, which is sound.
    pub path: StorePath,
}

/// Asks agents. Clones share streams and memory.
#[derive(Clone, Debug)]
pub struct Askers {
    node: Node,
    known: Holders,
    tasks: Tasks,
    lines: Arc<Mutex<HashMap<PeerId, mpsc::Sender<Question>>>>,
    found: Arc<Mutex<HashMap<String, Found>>>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hash)
    }
}

impl Askers {
    /// Asks the agents in `known` that `node` is connected to.
    pub fn new(node: Node, known: Holders, tasks: Tasks) -> Self {
        Self { node, known, tasks, lines: Arc::default(), found: Arc::default() }
    }

    // Every critical section is one map operation, so a panic elsewhere leaves the maps whole.
    fn found(&self) -> MutexGuard<'_, HashMap<String, Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who has the path with `hash`. `None` as soon as all have said no, and after 200 ms.
    pub async fn find(&self, hash: &str) -> Option<Found> {
        let mut answers: FuturesUnordered<_> = (self.agents().into_iter())
            .filter_map(|peer| {
                let (answer, heard) = oneshot::channel();
                let question = Question { hash: hash.to_owned(), answer };
                self.line(peer).try_send(question).ok()?;
                Some(async move { Some(Found { holder: peer, path: heard.await.ok()?? }) })
            })
            .collect();
        let first = async {
            while let Some(answer) = answers.next().await {
                if let Some(found) = answer.filter(|found| found.path.is_sound(hash) && found.path.is_vouched_for()) {
                    return Some(found);
                }
            }
            None
        };
        let first = timeout(FIND_DEADLINE, first).await.ok()??;
        let mut found = self.found();
        if found.len() >= MAX_REMEMBERED {
            found.clear();
        }
        found.insert(hash.to_owned(), first.clone());
        Some(first)
    }

    /// The same from memory where that is possible: who asks for an archive has asked for its description before.
    pub async fn remembered(&self, hash: &str) -> Option<Found> {
        let known = self.found().get(hash).cloned();
        match known {
            Some(found) => Some(found),
            None => self.find(hash).await,
        }
    }

    /// Its holder has it no longer.
    pub fn forget(&self, hash: &str) {
        self.found().remove(hash);
    }

    /// The archive of what was found: a stream from which exactly its length is to be read.
    pub async fn archive(&self, found: &Found, hash: &str) -> Option<PeerStream> {
        let mut stream = timeout(OPEN_DEADLINE, self.node.open(found.holder, Protocol::StorePath)).await.ok()?.ok()?;
        let request = StorePathRequest::Archive { hash: hash.to_owned() };
        timeout(ANSWER_DEADLINE, write_message(&mut stream, &request)).await.ok()?.ok()?;
        // It may have to wait for its turn there.
        let reply = timeout(3 * ANSWER_DEADLINE, read_message(&mut stream)).await.ok()?.ok()??;
        matches!(reply, StorePathReply::Follows { n_bytes } if n_bytes == found.path.archive_bytes).then_some(stream)
    }

    fn agents(&self) -> Vec<PeerId> {
        let connected = self.node.peers().borrow().clone();
        let known = self.known.borrow();
        let others = known.iter().map(|info| info.peer).filter(|peer| *peer != self.node.peer());
        others.filter(|peer| connected.contains(*peer)).take(MAX_ASKED).collect()
    }

    /// Where questions to `peer` are handed in.
    fn line(&self, peer: PeerId) -> mpsc::Sender<Question> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&peer).filter(|line| !line.is_closed()) {
            return line.clone();
        }
        let (line, questions) = mpsc::channel(MAX_WAITING);
        lines.insert(peer, line.clone());
        self.tasks.spawn("ask for store paths", ask_task(self.node.clone(), peer, questions));
        line
    }
}

async fn ask_task(node: Node, peer: PeerId, mut questions: mpsc::Receiver<Question>) {
    let mut stream = None;
    while let Ok(Some(first)) = timeout(HELD, questions.recv()).await {
        let mut together = vec![first];
        while together.len() < MAX_STORE_PATH_HASHES
            && let Ok(next) = questions.try_recv()
        {
            together.push(next);
        }
        let open = match stream.take() {
            Some(open) => Some(open),
            None => match timeout(OPEN_DEADLINE, node.open(peer, Protocol::StorePath)).await {
                Ok(Ok(open)) => Some(open),
                // Those who asked are told by their question's end.
                Ok(Err(_)) | Err(_) => None,
            },
        };
        stream = match open {
            Some(open) => ask(open, together).await,
            None => None,
        };
    }
}

/// Asks together, and returns the stream if it is good for more.
async fn ask(mut stream: PeerStream, questions: Vec<Question>) -> Option<PeerStream> {
    let hashes = questions.iter().map(|question| question.hash.clone()).collect();
    let request = StorePathRequest::Describe(hashes);
    timeout(ANSWER_DEADLINE, write_message(&mut stream, &request)).await.ok()?.ok()?;
    for question in questions {
        let reply = timeout(ANSWER_DEADLINE, read_message(&mut stream)).await.ok()?.ok()??;
        let StorePathReply::Described(path) = reply else { return None };
        // Who has found it elsewhere does not wait.
        let _ = question.answer.send(path);
    }
    Some(stream)
}
