//! Action streams: one attempt at one action, from a client to an agent. Dropping the stream cancels the attempt.
//!
//! ```text
//! client                         agent
//!   ActionRequest         ->
//!                         <-     Accepted | Lacks | Failed    (within a second)
//!   Supply                ->                                  (after Lacks only)
//!                         <-     Running                  (every PROGRESS_INTERVAL_MS while it works)
//!                         <-     Early, then that blob's raw bytes  (once, if asked for)
//!                         <-     Finished, then the raw bytes of each blob it names, in that order
//!                         <-     or Failed
//! ```

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::canonical;
use crate::codec::{Bytes, Message};
use crate::digest::Digest;
use crate::error::WireError;
use crate::lease::SlotToken;
use crate::limits::{MAX_ACTION_FRAME, MAX_BASES, MAX_INLINE_BLOBS, MAX_OFFERED, MAX_RESULT_BLOBS};

/// How often an agent that works on an action says so, in milliseconds.
pub const PROGRESS_INTERVAL_MS: u64 = 400;

/// Asks for one action to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRequest {
    /// Random; the same attempt sent twice runs once.
    pub attempt: [u8; 16],
    /// The lease it comes under; `None` asks for a slot that is not dealt out.
    pub token: Option<SlotToken>,
    /// Canonical bytes of the `Action`.
    pub action: Bytes,
    /// Canonical bytes of the `Command` that it names.
    pub command: Bytes,
    /// Canonical bytes of the `Toolchain` that it names.
    pub toolchain: Bytes,
    /// Blobs that the client could send along, should the agent lack them: what costs more to send in vain than to ask for.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_OFFERED>")]
    pub offered: Vec<Digest>,
    /// Blobs that the client believes the agent lacks, where they are few bytes (directories, the source). At most `MAX_INLINE_BLOBS`, and
    /// `MAX_INLINE_BYTES` in all (the agent checks the sum).
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_INLINE_BLOBS>")]
    pub inline: Vec<Bytes>,
    /// Which of the command's output files (by its place in their list) is wanted as soon as the program says on standard error that it
    /// is written: rustc's metadata, with which dependants start while it goes on. Changes nothing else.
    pub early: Option<u32>,
}

/// What the agent says of an attempt. Order is the wire format: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionUpdate {
    /// It has a slot.
    Accepted,
    /// Still at it.
    Running(Stage),
    /// Done. The raw bytes of `blobs` follow, each as long as its digest says.
    Finished {
        /// Canonical bytes of the `SignedResult`.
        result: Bytes,
        /// Distinct non-empty blobs of the result: stdout, stderr, outputs.
        #[serde(deserialize_with = "bounded::list::<_, _, MAX_RESULT_BLOBS>")]
        blobs: Vec<Digest>,
    },
    /// Nothing came of it, through no fault of the program.
    Failed(WireError),
    /// `Accepted`, and lacks some of what was offered: one flag a blob, in the order offered. The client sends one [`Supply`].
    Lacks(#[serde(deserialize_with = "bounded::list::<_, _, MAX_OFFERED>")] Vec<bool>),
    /// The output that was wanted early is written; its raw bytes follow. The result to come names the same content, and its standard
    /// error begins with these bytes.
    Early {
        /// Content of the output.
        output: Digest,
        /// Its permission bits, as in a result.
        mode: u32,
        /// Standard error up to and with the line that says so.
        stderr: Bytes,
        /// Canonical bytes of what the program was observed to ask for so far, where the action records that and it is known.
        observed: Option<Bytes>,
    },
}

/// What the agent lacked of the offered blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supply {
    /// In the order of the flags; an empty one stands for a blob that the client would rather be asked for, or for one of `alike`.
    /// `MAX_INLINE_BYTES` in all.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_OFFERED>")]
    pub blobs: Vec<Bytes>,
    /// The first of the lacking blobs, where there is a shorter way to say them.
    pub alike: Option<Alike>,
}

/// Blobs that are much like others which the agent has: directories with a few other headers than those of the action before, whose
/// digests no compressor makes shorter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alike {
    /// How many of the lacking blobs these are, counted from the first. `MAX_INLINE_BYTES` in all.
    pub n_blobs: u32,
    /// Blobs that the client sent or offered to this agent earlier. Should it lack one, it asks for what is described here like for
    /// everything that was not sent. `MAX_BASES_BYTES` in all.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_BASES>")]
    pub bases: Vec<Digest>,
    /// One zstd frame with the blobs' contents, one after the other; its prefix is [`Alike::prefix`].
    pub frame: Bytes,
}

impl Alike {
    /// What both sides know: the contents of `bases`, in their order, and the request's offer in canonical encoding, since a directory
    /// names the files that are offered with it.
    pub fn prefix<'a>(bases: impl IntoIterator<Item = &'a [u8]>, offered: &[Digest]) -> Vec<u8> {
        let mut prefix = bases.into_iter().fold(Vec::new(), |mut prefix, base| {
            prefix.extend_from_slice(base);
            prefix
        });
        prefix.extend(canonical::parts(|out| offered.iter().for_each(|digest| out.digest(digest))));
        prefix
    }
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Fetching what is missing.
    Fetching,
    /// The program runs.
    Executing,
    /// Storing what it left.
    Collecting,
}

impl Message for ActionRequest {
    const MAX_BYTES: usize = MAX_ACTION_FRAME;
}
impl Message for Supply {
    const MAX_BYTES: usize = MAX_ACTION_FRAME;
}
impl Message for ActionUpdate {
    const MAX_BYTES: usize = MAX_ACTION_FRAME;
}
