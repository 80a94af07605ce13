//! The daemon's door: threads that accept connections, hear what is wanted, and answer at once where nothing has to be waited for.
//!
//! A hit costs less than handing it from thread to thread, so the thread that accepts a call also looks it up, puts the outputs in
//! place and replies. Whatever may take longer (a miss, a compiler seen for the first time, a wrapper that is slow to speak, a long
//! answer, the command line's questions) goes to a task of the runtime: see [`listener`](super::listener).
//!
//! Life: started by the listener; ends when the socket is shut down.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use buildbee_proto::codec::{self, Bytes, FRAME_HEADER_BYTES};
use buildbee_proto::local::{Invocation, LocalCall, LocalReply, LocalRequest};
use buildbee_proto::version::LOCAL_VERSION;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, getsockopt, recv, sockopt};
use tokio::time::Instant;

use super::cache::Hit;
use super::compile::Opening;
use super::context::Context;
use super::crates::plan::{Prepared, caller};
use super::invocation::Checked;
use super::link::{LinkError, run_alone};
use super::plan::{Plan, Planned, plan};
use crate::journal::stages::{Stage, StageClock};
use crate::journal::{Record, Where, Why};

/// Bytes of a request that are read at once. Most requests fit.
const REQUEST_BYTES: usize = 32 << 10;
/// A wrapper speaks within so many milliseconds, or a task waits for it.
const HEARING_MS: u8 = 20;
/// A hit that took longer to find is left to a task, which gives signs of life and knows whether the wrapper still waits.
const QUICK: Duration = Duration::from_millis(300);
/// Outputs of a quick answer: more of them take time to write.
const QUICK_OUTPUT_BYTES: u64 = 8 << 20;
/// Messages of a quick answer: they fit in the socket, so that no thread waits for a wrapper to read them.
const QUICK_MESSAGE_BYTES: u64 = 64 << 10;
/// Pause after the system had no descriptor left for a connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// Why a wrapper that sees other files than the daemon runs its compiler itself.
pub const OTHER_VIEW: &str = "other-namespace";

/// What is left to do for a connection.
#[derive(Debug)]
pub enum Errand {
    /// To hear it: this much of its first request has come.
    Hear(Vec<u8>),
    /// To go on with a compile, on whose time this clock runs.
    Compile(Box<Opening>, StageClock),
}

/// One thread's view of the door.
#[derive(Debug)]
pub struct Door {
    context: Arc<Context>,
    uid: u32,
}

impl Door {
    /// Of this daemon.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, uid: nix::unistd::getuid().as_raw() }
    }

    /// Accepts connections until `listener` is shut down. What can't be answered here goes to `hand_over`, which may block while there
    /// is too much of it.
    pub fn attend(&self, listener: &UnixListener, hand_over: impl Fn(UnixStream, Errand)) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    self.context.n_calls.fetch_add(1, Ordering::Relaxed);
                    // A bug that one call brings to light must not cost the daemon a thread: that wrapper runs its compiler itself.
                    let answered = catch_unwind(AssertUnwindSafe(|| self.answer(&stream)));
                    match answered {
                        Ok(Ok(Some(errand))) => hand_over(stream, errand),
                        Ok(Ok(None)) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "a call ended early"),
                        Err(_) => tracing::error!("a call ended in a panic"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                Err(_) => std::thread::sleep(OUT_OF_DESCRIPTORS),
            }
        }
    }

    /// Answers, or says what is left to do.
    fn answer(&self, stream: &UnixStream) -> Result<Option<Errand>, LinkError> {
        let peer = getsockopt(stream, sockopt::PeerCredentials).map_err(io::Error::from)?;
        if peer.uid() != self.uid {
            tracing::warn!(uid = peer.uid(), "refused a caller of another user");
            return Err(LinkError::Protocol);
        }
        let received = hear(stream)?;
        let clock = StageClock::since(Instant::now());
        let Some(LocalRequest { version: LOCAL_VERSION, call: LocalCall::Compile(invocation) }) = whole(&received)?
        else {
            return Ok(Some(Errand::Hear(received)));
        };
        if !self.context.sees_what(peer.pid()) {
            self.context.journal.noted(OTHER_VIEW);
            return reply(stream, &run_alone(OTHER_VIEW)).map(|()| None);
        }
        self.compile(stream, &invocation, clock)
    }

    fn compile(
        &self,
        stream: &UnixStream,
        invocation: &Invocation,
        clock: StageClock,
    ) -> Result<Option<Errand>, LinkError> {
        let call = match Checked::new(invocation) {
            Ok(call) => call,
            Err((record, why)) => return self.pass(stream, *record, why, &clock).map(|()| None),
        };
        if call.runs_script() {
            return Ok(Some(Errand::Compile(Box::new(Opening::Call(call)), clock)));
        }
        if call.compiles_crates() {
            return self.compile_crate(stream, call, clock);
        }
        let Some(compiler) = self.context.toolchains.recall(&call.program, call.search()) else {
            return Ok(Some(Errand::Compile(Box::new(Opening::Call(call)), clock)));
        };
        clock.ended(Stage::Toolchain);
        let planned = plan(&self.context, call, compiler);
        clock.ended(Stage::Manifest);
        if has_hung_up(stream) {
            // It did not wait: this daemon was frozen or swapped out. The compiler writes the outputs now.
            return Err(LinkError::Gone);
        }
        match planned {
            Planned::Hit(plan, hit) if is_quick(&hit) && clock.elapsed() < QUICK => {
                self.finish(stream, &plan, &hit, &clock).map(|()| None)
            }
            Planned::Local(record, why) => self.pass(stream, *record, why, &clock).map(|()| None),
            planned => Ok(Some(Errand::Compile(Box::new(Opening::Planned(planned)), clock))),
        }
    }

    fn compile_crate(
        &self,
        stream: &UnixStream,
        call: Checked,
        clock: StageClock,
    ) -> Result<Option<Errand>, LinkError> {
        let rustcs = &self.context.rustcs;
        let Some(compiler) = rustcs.recall(&caller(&call)) else {
            return Ok(Some(Errand::Compile(Box::new(Opening::Call(call)), clock)));
        };
        if let Some(text) = compiler.says(&call.argv, &call.env) {
            let stdout = Bytes(text.as_bytes().to_vec());
            return reply(stream, &LocalReply::Done { exit_code: 0, stdout, stderr: Bytes::default() }).map(|()| None);
        }
        let prepared = match Prepared::new(call, compiler, self.context.settings.paths) {
            Ok(prepared) => prepared,
            Err(planned) => return Ok(Some(Errand::Compile(Box::new(Opening::Planned(planned)), clock))),
        };
        let linker = match prepared.link_question() {
            Some(question) => match rustcs.recall_linker(prepared.compiler(), &question) {
                Some(linker) => Some(linker),
                None => return Ok(Some(Errand::Compile(Box::new(Opening::Call(prepared.into_call())), clock))),
            },
            None => None,
        };
        clock.ended(Stage::Toolchain);
        let planned = prepared.plan(&self.context, linker);
        clock.ended(Stage::Manifest);
        if has_hung_up(stream) {
            return Err(LinkError::Gone);
        }
        match planned {
            Planned::CrateHit(plan, hit) if is_quick(&hit) && clock.elapsed() < QUICK => {
                if let Err(error) = plan.put_in_place(&hit, &self.context.cache, None) {
                    tracing::info!(%error, "a result could not be put in place");
                    return Ok(Some(Errand::Compile(Box::new(Opening::Planned(Planned::CrateMiss(plan))), clock)));
                }
                let Some(answer) = plan.reply(&hit) else {
                    return Ok(Some(Errand::Compile(Box::new(Opening::Planned(Planned::CrateMiss(plan))), clock)));
                };
                plan.stand_in(&self.context);
                clock.ended(Stage::Place);
                let action = Some(hit.signed.result.action.to_string());
                let record = Record { action, saved_ms: hit.took_ms(), ..plan.record() };
                self.context.ended(record, &clock, Where::Cached, None);
                reply(stream, &answer).map(|()| None)
            }
            Planned::Local(record, why) => self.pass(stream, *record, why, &clock).map(|()| None),
            planned => Ok(Some(Errand::Compile(Box::new(Opening::Planned(planned)), clock))),
        }
    }

    fn finish(&self, stream: &UnixStream, plan: &Plan, hit: &Hit, clock: &StageClock) -> Result<(), LinkError> {
        if let Err(error) = plan.put_in_place(hit) {
            return self.pass(stream, plan.record(), ("output-unwritable".into(), error.to_string()), clock);
        }
        clock.ended(Stage::Place);
        let action = Some(hit.signed.result.action.to_string());
        let record = Record { action, saved_ms: hit.took_ms(), ..plan.record() };
        self.context.ended(record, clock, Where::Cached, None);
        reply(stream, &hit.reply())
    }

    fn pass(&self, stream: &UnixStream, record: Record, why: Why, clock: &StageClock) -> Result<(), LinkError> {
        let answer = run_alone(&why.0);
        self.context.ended(record, clock, Where::Local, Some(why));
        reply(stream, &answer)
    }
}

/// What a wrapper says within [`HEARING_MS`], at most [`REQUEST_BYTES`] of it; nothing where it says nothing.
fn hear(stream: &UnixStream) -> Result<Vec<u8>, LinkError> {
    let mut received = vec![0; REQUEST_BYTES];
    // Mostly it has spoken by the time that this thread wakes up.
    let mut heard = recv(stream.as_raw_fd(), &mut received, MsgFlags::MSG_DONTWAIT);
    if heard == Err(Errno::EAGAIN) {
        let mut speaker = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        poll(&mut speaker, PollTimeout::from(HEARING_MS)).map_err(io::Error::from)?;
        heard = recv(stream.as_raw_fd(), &mut received, MsgFlags::MSG_DONTWAIT);
    }
    match heard {
        Ok(0) => Err(LinkError::Gone),
        Ok(n) => {
            received.truncate(n);
            Ok(received)
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Vec::new()),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

/// The request, if all of it is there.
fn whole(received: &[u8]) -> Result<Option<LocalRequest>, LinkError> {
    let Some((header, rest)) = received.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    let length = codec::body_length::<LocalRequest>(*header)?;
    if rest.len() == length { Ok(Some(codec::from_body(rest)?)) } else { Ok(None) }
}

fn is_quick(hit: &Hit) -> bool {
    let result = &hit.signed.result;
    let outputs: u64 = result.outputs.iter().map(|file| file.digest.size_bytes).fold(0, u64::saturating_add);
    outputs <= QUICK_OUTPUT_BYTES
        && result.stdout.size_bytes.saturating_add(result.stderr.size_bytes) <= QUICK_MESSAGE_BYTES
}

fn reply(mut stream: &UnixStream, reply: &LocalReply) -> Result<(), LinkError> {
    Ok(stream.write_all(&codec::to_frame(reply)?)?)
}

fn has_hung_up(stream: &UnixStream) -> bool {
    let mut wrapper = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    poll(&mut wrapper, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}
