//! Brings one large blob, chunk by chunk, from whoever has some of it: agents that hold it, agents to which it is coming, and the origin.
//!
//! Each chunk is checked when it comes, so nobody is believed and a source that sends a bad one is named. Deadlines count silence: a slow
//! transfer goes on as long as its chunks come. What came stays when the rest does not, for who goes on. Not here: which chunk is asked of
//! whom ([`chunk_plan`](super::chunk_plan)).
//!
//! Life cycle: [`Large::bring`] runs one future a source, all in the caller's own task; dropping it drops their streams.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::{Node, PeerStream};
use buildbee_proto::chunk::{ChunkSet, Chunks, n_chunks};
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{BlobHeader, BlobMap, BlobRequest};
use buildbee_proto::peer::PeerId;
use buildbee_proto::version::Protocol;
use buildbee_store::Store;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::time::{Instant, sleep, timeout};

use super::chunk_plan::{ORIGIN, Plan};
use super::partials::{Coming, Partials};
use super::receive::{Faults, SILENCE, SourceFault, put_fault};

/// How long agents may think before the origin is asked.
const GREETING_DEADLINE: Duration = Duration::from_millis(200);
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// How long the origin may read its file; it says meanwhile that it does.
const MAP_DEADLINE: Duration = Duration::from_secs(600);
/// How long one chunk may take: a source slower than that is of no use.
const CHUNK_DEADLINE: Duration = Duration::from_secs(90);
/// Streams to the origin for one blob: one carries while the other asks.
const ORIGIN_STREAMS: usize = 2;
/// How often who has nothing to do looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often an agent that has nothing is asked again: it may be about to begin.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const READ_BUFFER_BYTES: usize = 64 << 10;

type Stream = BufReader<PeerStream>;
/// An agent that answers, and what it says.
type Greeted = (PeerId, Stream, Heard);
type Greetings<'a> = FuturesUnordered<BoxFuture<'a, Option<Greeted>>>;

/// What a source said it has. The values are there if they were asked for.
struct Heard {
    chunks: Option<Chunks>,
    present: ChunkSet,
    coming: bool,
}

/// What transfers need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Large<'a> {
    pub(super) node: &'a Node,
    pub(super) store: &'a Store,
    pub(super) partials: &'a Partials,
}

/// One transfer.
struct Transfer<'a> {
    node: &'a Node,
    coming: Arc<Coming>,
    plan: Mutex<Plan>,
    origin: PeerId,
    since: Instant,
}

/// Nobody is promised anything any more once the transfer has ended.
struct Promise<'a>(&'a Coming);

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.0.make_certain(false);
    }
}

impl Large<'_> {
    /// Returns when `blob` is in the store. `note` hears of agents that failed; an error is the origin's or the store's.
    pub(super) async fn bring(
        self,
        blob: Digest,
        origin: PeerId,
        agents: &[PeerId],
        note: &(dyn Fn(PeerId, &SourceFault) + Sync),
    ) -> Result<(), SourceFault> {
        let mut greetings = Greetings::new();
        for agent in agents {
            greetings.push(Box::pin(self.greet(*agent, blob)));
        }
        let mut greeted: Vec<Greeted> = Vec::new();
        let early = async {
            while let Some(heard) = greetings.next().await {
                greeted.extend(heard);
            }
        };
        // Who is late joins later.
        drop(timeout(GREETING_DEADLINE, early).await);
        let coming = self.coming(blob, origin, &mut greeted).await?;
        // At once, so that who begins too leaves us our share of it.
        coming.make_certain(true);
        let _promise = Promise(&coming);
        let transfer = Transfer {
            node: self.node,
            plan: Mutex::new(Plan::new(self.node.peer(), &blob, origin, coming.partial.present())),
            coming: Arc::clone(&coming),
            origin,
            since: Instant::now(),
        };
        transfer.run(greeted, greetings, note).await?;
        let whole = Arc::clone(&coming);
        tokio::task::spawn_blocking(move || whole.partial.commit()).await?.map_err(|error| put_fault(blob, error))?;
        self.partials.done(&coming);
        Ok(())
    }

    /// What is here of it already, or nothing with room for it, by what some source says that its chunks are.
    async fn coming(&self, blob: Digest, origin: PeerId, greeted: &mut [Greeted]) -> Result<Arc<Coming>, SourceFault> {
        if let Some(coming) = self.partials.find(&blob) {
            tracing::debug!(blob = %blob.short(), n = coming.partial.present().n_present(), "going on with a transfer");
            return Ok(coming);
        }
        let said = greeted.iter_mut().find_map(|(_, _, heard)| heard.chunks.take());
        let chunks = match said {
            Some(chunks) => chunks,
            None => self.ask_origin(blob, origin).await?,
        };
        let store = self.store.clone();
        let partial = tokio::task::spawn_blocking(move || store.partial(chunks)).await?;
        Ok(self.partials.start(partial.map_err(|error| put_fault(blob, error))?))
    }

    async fn ask_origin(&self, blob: Digest, origin: PeerId) -> Result<Chunks, SourceFault> {
        let mut faults = Faults::default();
        loop {
            let asked = async {
                let mut stream = open(self.node, origin).await?;
                ask(&mut stream, blob, None).await?.and_then(|heard| heard.chunks).ok_or(SourceFault::Lost(blob))
            };
            match asked.await {
                Ok(chunks) => return Ok(chunks),
                Err(fault) if fault.is_final() => return Err(fault),
                Err(fault) => match faults.one_more(false) {
                    Some(pause) => sleep(pause).await,
                    None => return Err(fault),
                },
            }
        }
    }

    /// Asks an agent what it has. One that does not answer, or with nonsense, is none.
    async fn greet(self, agent: PeerId, blob: Digest) -> Option<Greeted> {
        let mut stream = open(self.node, agent).await.ok()?;
        let heard = ask(&mut stream, blob, None).await.ok()?;
        let nothing = || Heard { chunks: None, present: ChunkSet::none(n_chunks(&blob)), coming: false };
        Some((agent, stream, heard.unwrap_or_else(nothing)))
    }
}

async fn open(node: &Node, peer: PeerId) -> Result<Stream, SourceFault> {
    let opened = timeout(OPEN_DEADLINE, node.open(peer, Protocol::Blob)).await.map_err(|_| SourceFault::Late)?;
    let stream = opened.map_err(|error| SourceFault::Open(error.to_string()))?;
    Ok(BufReader::with_capacity(READ_BUFFER_BYTES, stream))
}

/// What the other side has of `blob`; `None`: nothing. `known` as in [`BlobRequest::Map`].
async fn ask(stream: &mut Stream, blob: Digest, known: Option<u32>) -> Result<Option<Heard>, SourceFault> {
    let request = BlobRequest::Map { blob, known };
    timeout(SILENCE, write_message(stream.get_mut(), &request)).await.map_err(|_| SourceFault::Late)??;
    let answered = async {
        loop {
            let map = timeout(SILENCE, read_message::<BlobMap, _>(stream)).await.map_err(|_| SourceFault::Late)??;
            match map.ok_or(SourceFault::Ended)? {
                BlobMap::Working => {}
                BlobMap::Missing => return Ok(None),
                BlobMap::Found { values, present, coming } => {
                    let lied = || SourceFault::Lied(blob);
                    let present = ChunkSet::from_bits(n_chunks(&blob), present.0).ok_or_else(lied)?;
                    // Where they were not asked for there are none.
                    let chunks = match known {
                        None => Some(Chunks::new(blob, values).ok_or_else(lied)?),
                        Some(_) => None,
                    };
                    return Ok(Some(Heard { chunks, present, coming }));
                }
            }
        }
    };
    timeout(MAP_DEADLINE, answered).await.map_err(|_| SourceFault::Slow)?
}

impl Transfer<'_> {
    // Each call is one step of the plan: nothing can be left half done under the lock.
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    fn blob(&self) -> Digest {
        *self.coming.blob()
    }

    fn next(&self, source: usize) -> Vec<u32> {
        // Without chance all begin at the same chunk, and all goes well but for the swapping.
        self.plan().next(source, self.now(), getrandom::u64().unwrap_or(0))
    }

    /// Returns when all chunks are here.
    async fn run(
        &self,
        greeted: Vec<Greeted>,
        mut greetings: Greetings<'_>,
        note: &(dyn Fn(PeerId, &SourceFault) + Sync),
    ) -> Result<(), SourceFault> {
        let mut sources: FuturesUnordered<BoxFuture<'_, (PeerId, SourceFault)>> = FuturesUnordered::new();
        for agent in greeted {
            sources.push(Box::pin(self.agent(agent)));
        }
        for _ in 0..ORIGIN_STREAMS {
            sources.push(Box::pin(self.origin()));
        }
        let mut lost_origin = None;
        while !self.coming.partial.present().is_all() {
            // The other stream to the origin may still bring something; its own fault ends the transfer then.
            if let Some(fault) = lost_origin.take_if(|_| self.plan().needs_origin(self.now())) {
                return Err(fault);
            }
            tokio::select! {
                Some((peer, fault)) = sources.next() => match fault {
                    SourceFault::Store(_) | SourceFault::Task(_) => return Err(fault),
                    fault if peer == self.origin => lost_origin = Some(fault),
                    fault => note(peer, &fault),
                },
                Some(agent) = greetings.next(), if !greetings.is_empty() => {
                    if let Some(agent) = agent {
                        sources.push(Box::pin(self.agent(agent)));
                    }
                }
                () = sleep(LOOK_AGAIN) => {}
            }
        }
        Ok(())
    }

    /// Takes from one agent what it has, as long as it has or gets something. Ends with its fault.
    async fn agent(&self, (peer, mut stream, heard): Greeted) -> (PeerId, SourceFault) {
        let source = {
            let now = self.now();
            let mut plan = self.plan();
            let source = plan.add(peer, now);
            plan.heard(source, heard.present, heard.coming, now);
            source
        };
        let mut chunk = Vec::new();
        let fault = loop {
            let batch = self.next(source);
            let step = if batch.is_empty() {
                self.listen(source, &mut stream).await
            } else {
                self.get(source, &mut stream, &batch, &mut chunk).await
            };
            if let Err(fault) = step {
                break fault;
            }
        };
        self.plan().lost(source);
        (peer, fault)
    }

    /// Hears what it has now.
    async fn listen(&self, source: usize, stream: &mut Stream) -> Result<(), SourceFault> {
        let known = self.plan().n_known(source);
        let heard = ask(stream, self.blob(), Some(known)).await?;
        let Some(Heard { present, coming, .. }) = heard else {
            let n = self.coming.partial.chunks().n();
            self.plan().heard(source, ChunkSet::none(n), false, self.now());
            sleep(ASK_AGAIN).await;
            return Ok(());
        };
        let has_more = present.n_present() > known;
        self.plan().heard(source, present, coming, self.now());
        if !has_more {
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Takes from the origin what no agent has. Ends with the fault that makes it of no more use.
    async fn origin(&self) -> (PeerId, SourceFault) {
        let mut faults = Faults::default();
        loop {
            let n_before = self.coming.partial.present().n_present();
            let (fault, batch) = self.ask_until_fault().await;
            // What the other stream was asked for may still come.
            self.plan().cut(ORIGIN, &batch);
            let something_came = self.coming.partial.present().n_present() > n_before;
            match faults.one_more(something_came) {
                Some(pause) if !fault.is_final() => sleep(pause).await,
                _ => return (self.origin, fault),
            }
        }
    }

    /// Ends with a fault, and what was asked for then.
    async fn ask_until_fault(&self) -> (SourceFault, Vec<u32>) {
        let mut open_stream = None;
        let mut chunk = Vec::new();
        loop {
            let batch = self.next(ORIGIN);
            if batch.is_empty() {
                sleep(LOOK_AGAIN).await;
                continue;
            }
            let got = async {
                let stream = match &mut open_stream {
                    Some(stream) => stream,
                    None => open_stream.insert(open(self.node, self.origin).await?),
                };
                self.get(ORIGIN, stream, &batch, &mut chunk).await
            };
            if let Err(fault) = got.await {
                return (fault, batch);
            }
        }
    }

    /// Asks for `batch` and takes in what comes, one after the other in `chunk`: a fresh megabyte costs the kernel more than writing to it.
    async fn get(
        &self,
        source: usize,
        stream: &mut Stream,
        batch: &[u32],
        chunk: &mut Vec<u8>,
    ) -> Result<(), SourceFault> {
        let blob = self.blob();
        let request = BlobRequest::Chunks { blob, chunks: batch.to_vec() };
        timeout(SILENCE, write_message(stream.get_mut(), &request)).await.map_err(|_| SourceFault::Late)??;
        for &index in batch {
            let header = timeout(SILENCE, read_message::<BlobHeader, _>(stream)).await;
            match header.map_err(|_| SourceFault::Late)??.ok_or(SourceFault::Ended)? {
                BlobHeader::Found => {
                    let reading = timeout(CHUNK_DEADLINE, self.read(stream, index, chunk)).await;
                    reading.map_err(|_| SourceFault::Slow)??;
                    *chunk = self.put(index, std::mem::take(chunk)).await?;
                }
                BlobHeader::Missing if source == ORIGIN => return Err(SourceFault::Lost(blob)),
                BlobHeader::Missing => self.plan().lacks(source, index),
                BlobHeader::Refused(error) => return Err(SourceFault::Refused(error)),
            }
        }
        Ok(())
    }

    async fn read(&self, stream: &mut Stream, index: u32, chunk: &mut Vec<u8>) -> Result<(), SourceFault> {
        chunk.resize(self.coming.partial.chunks().length(index), 0);
        let mut n_read = 0;
        while n_read < chunk.len() {
            match timeout(SILENCE, stream.read(&mut chunk[n_read..])).await.map_err(|_| SourceFault::Late)?? {
                0 => return Err(SourceFault::Ended),
                n => n_read += n,
            }
        }
        Ok(())
    }

    /// Takes one in, and gives the room back.
    async fn put(&self, index: u32, chunk: Vec<u8>) -> Result<Vec<u8>, SourceFault> {
        let coming = Arc::clone(&self.coming);
        let blob = self.blob();
        let put = move || (coming.partial.write(index, &chunk), chunk);
        let (put, chunk) = tokio::task::spawn_blocking(put).await?;
        if put.map_err(|error| put_fault(blob, error))? {
            self.coming.grew();
        }
        self.plan().arrived(index, self.now());
        Ok(chunk)
    }
}
