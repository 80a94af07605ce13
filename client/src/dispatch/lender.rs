//! What this client lends to the agents that run its actions: files in place and bytes in memory, by digest and only while needed.
//!
//! A path is never served: a peer names a digest, and what it gets is checked against it. Serving is [`serve_task`]'s job.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_p2p::frames::{FrameError, read_message, write_message};
use buildbee_p2p::node::PeerStream;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::exchange::{BlobHave, BlobHeader, BlobRequest};
use buildbee_proto::limits::MAX_BLOBS_PER_REQUEST;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::journal::Journal;

/// How long a stream may stay without a request.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// How long an agent may take for one piece.
const PIECE_DEADLINE: Duration = Duration::from_secs(30);
/// One write, in bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Content above this is held in memory for few streams at a time.
const LARGE_BYTES: u64 = 4 << 20;
/// That many.
const MAX_LARGE: usize = 4;

/// Where lent content is.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file in place, read and checked when asked for.
    File(PathBuf),
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
}

#[derive(Debug)]
struct Lent {
    source: Source,
    n_loans: usize,
}

/// Everything that is lent now. Cheap to clone. Bounded by the actions that run: each lends its own inputs.
#[derive(Clone, Debug)]
pub struct Lender {
    lent: Arc<Mutex<HashMap<Digest, Lent>>>,
    large: Arc<Semaphore>,
}

impl Default for Lender {
    fn default() -> Self {
        Self { lent: Arc::default(), large: Arc::new(Semaphore::new(MAX_LARGE)) }
    }
}

/// Keeps its blobs lent until dropped.
#[derive(Debug)]
pub struct Loan {
    lender: Lender,
    digests: Vec<Digest>,
}

impl Lender {
    fn lent(&self) -> MutexGuard<'_, HashMap<Digest, Lent>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends `blobs` for as long as the loan lives.
    pub fn lend(&self, blobs: impl IntoIterator<Item = (Digest, Source)>) -> Loan {
        let mut lent = self.lent();
        let mut digests = Vec::new();
        for (digest, source) in blobs {
            let entry = lent.entry(digest).or_insert_with(|| Lent { source: source.clone(), n_loans: 0 });
            // The newest place is the likeliest to hold the content still.
            entry.source = source;
            entry.n_loans += 1;
            digests.push(digest);
        }
        Loan { lender: self.clone(), digests }
    }

    fn source(&self, digest: &Digest) -> Option<Source> {
        self.lent().get(digest).map(|lent| lent.source.clone())
    }

    /// The content of `digest`, if it is lent and its file still holds it. Reads files: call off the event loop.
    pub(crate) fn content(&self, digest: &Digest) -> Option<Arc<[u8]>> {
        match self.source(digest)? {
            Source::Bytes(bytes) => Some(bytes),
            Source::File(path) => {
                let file = File::open(path).ok()?;
                // One that grew meanwhile must not be taken into memory.
                if file.metadata().ok()?.len() != digest.size_bytes {
                    return None;
                }
                let mut bytes = Vec::new();
                file.take(digest.size_bytes).read_to_end(&mut bytes).ok()?;
                (Digest::of(&bytes) == *digest).then(|| bytes.into())
            }
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut lent = self.lender.lent();
        for digest in &self.digests {
            if let Some(entry) = lent.get_mut(digest) {
                entry.n_loans -= 1;
                if entry.n_loans == 0 {
                    lent.remove(digest);
                }
            }
        }
    }
}

/// Answers one agent's blob stream until it ends.
pub async fn serve_task(lender: Lender, journal: Journal, mut stream: PeerStream) {
    // A broken stream is the agent's to notice and to ask again.
    if let Err(error) = serve(&lender, &journal, &mut stream).await {
        tracing::debug!(%error, "a blob stream ended early");
    }
}

async fn serve(lender: &Lender, journal: &Journal, stream: &mut PeerStream) -> Result<(), FrameError> {
    while let Ok(request) = timeout(IDLE_DEADLINE, read_message::<BlobRequest, _>(stream)).await {
        let Some(request) = request? else { break };
        let (BlobRequest::Have(digests) | BlobRequest::Get(digests)) = &request;
        if digests.len() > MAX_BLOBS_PER_REQUEST {
            let refusal = WireError::new(ErrorCode::Invalid, Retry::Never, "too many digests in one request");
            return write_message(stream, &BlobHeader::Refused(refusal)).await;
        }
        match request {
            BlobRequest::Have(digests) => {
                let present = digests.iter().map(|digest| lender.source(digest).is_some()).collect();
                write_message(stream, &BlobHave { present }).await?;
            }
            BlobRequest::Get(digests) => {
                for digest in digests {
                    // Held until the content has left. Never closed.
                    let _turn = if digest.size_bytes > LARGE_BYTES { lender.large.acquire().await.ok() } else { None };
                    let reader = lender.clone();
                    let content = tokio::task::spawn_blocking(move || reader.content(&digest)).await.ok().flatten();
                    let Some(content) = content else {
                        write_message(stream, &BlobHeader::Missing).await?;
                        continue;
                    };
                    write_message(stream, &BlobHeader::Found).await?;
                    for piece in content.chunks(PIECE_BYTES) {
                        in_time(stream.write_all(piece)).await?;
                    }
                    in_time(stream.flush()).await?;
                    journal.moved(content.len() as u64, 0);
                }
            }
        }
    }
    Ok(())
}

/// An agent that takes nothing must not keep what others wait for.
async fn in_time(writing: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(PIECE_DEADLINE, writing).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn content_is_lent_while_a_loan_lives_and_only_if_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h");
        fs::write(&path, "one").unwrap();
        let digest = Digest::of(b"one");
        let lender = Lender::default();
        let first = lender.lend([(digest, Source::File(path.clone()))]);
        let second = lender.lend([(digest, Source::File(path.clone()))]);
        drop(first);
        assert_eq!(lender.content(&digest).as_deref(), Some(&b"one"[..]));
        for other in ["two", "", "one and more"] {
            fs::write(&path, other).unwrap();
            assert_eq!(lender.content(&digest), None);
        }
        drop(second);
        assert!(lender.source(&digest).is_none());
    }
}
