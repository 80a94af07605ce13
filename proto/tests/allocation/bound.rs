//! The bound, and who is held to it.

use std::fmt::Debug;

use buildbee_proto::action::Command;
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::{Bytes, CodecError, FRAME_HEADER_BYTES, Message, body_length, from_body};
use buildbee_proto::control::Hello;
use buildbee_proto::execute::{ActionRequest, ActionUpdate};
use buildbee_proto::limits::{MAX_ACTION_FRAME, MAX_ARGUMENTS, MAX_ENVIRONMENT, MAX_INLINE_BLOBS};
use buildbee_proto::local::{LocalCall, LocalReply, LocalRequest};

use crate::peak_of;
use crate::samples::{self, Sample, content, messages};

/// An empty byte string takes one byte in a frame and a `Vec` of three words in memory; a list that grows holds twice what it needs,
/// and half of that again while it moves.
const FACTOR: usize = 3 * size_of::<Bytes>();
/// For texts of errors and the first steps of small lists.
const CONSTANT_BYTES: usize = 64 << 10;
/// A marker and eight bytes.
const LONGEST_LIE: usize = 9;

fn check(what: &str, factor: usize, n_bytes: usize, work: impl FnOnce()) {
    let peak = peak_of(work);
    let bound = CONSTANT_BYTES + factor * n_bytes;
    assert!(peak <= bound, "{what}: {n_bytes} bytes made the decoder take {peak}, {bound} are allowed");
}

fn decode(sample: &Sample, bytes: &[u8]) {
    check(&sample.name, FACTOR, bytes.len(), || drop((sample.reencode)(bytes)));
}

#[test]
fn the_counter_counts() {
    assert_eq!(peak_of(|| ()), 0);
    assert_eq!(peak_of(|| vec![1_u8; 1 << 20]), 1 << 20);
    assert_eq!(peak_of(|| drop((vec![1_u8; 1000], vec![1_u8; 500]))), 1500);
    let grown = peak_of(|| {
        let mut grown = vec![1_u8; 1000];
        grown.reserve_exact(1000);
        grown
    });
    assert_eq!(grown, 3000);
}

/// Lengths and counts that claim more than is there: as the serialiser writes them, just below, at and above each of its limits.
fn lies() -> Vec<Vec<u8>> {
    let lies = [300_u64, 60_000, 500_000, 1_000_000, 8_000_000, 100_000_000, 500_000_000, 1 << 32, 1 << 48, u64::MAX];
    (lies.iter())
        .map(|lie| match (u16::try_from(*lie), u32::try_from(*lie)) {
            (Ok(small), _) => [&[0xfb][..], &small.to_le_bytes()].concat(),
            (_, Ok(middle)) => [&[0xfc][..], &middle.to_le_bytes()].concat(),
            _ => [&[0xfd][..], &lie.to_le_bytes()].concat(),
        })
        .collect()
}

/// At every offset of every message a lie, with nothing, a little or much behind it: each tier of the serialiser's limit is met.
#[test]
fn lying_messages_take_little_memory() {
    for (_, group) in messages::groups() {
        for sample in group {
            // Bytes that are no item of any list, and bytes that are items of most.
            for (n_junk, junk) in [(0, 0), (70 << 10, 0xff), ((1 << 20) + 70_000, 0xff), (70 << 10, 0)] {
                lie_everywhere(&sample, n_junk, junk);
            }
        }
    }
}

fn lie_everywhere(sample: &Sample, n_junk: usize, junk: u8) {
    let mut bytes = sample.bytes.clone();
    bytes.resize(bytes.len() + LONGEST_LIE + n_junk, junk);
    if bytes.len() > sample.max_bytes {
        return;
    }
    let factor = if junk == 0 { FACTOR } else { 1 };
    // From the end, so that what stands before the lie is always true.
    for at in (0..sample.bytes.len()).rev() {
        for lie in lies() {
            bytes[at..at + lie.len()].copy_from_slice(&lie);
            bytes[at + lie.len()..at + LONGEST_LIE].fill(junk);
            let end = if n_junk == 0 { at + lie.len() } else { bytes.len() };
            let body = &bytes[..end];
            check(&sample.name, factor, body.len(), || drop((sample.reencode)(body)));
        }
    }
}

#[test]
fn lying_content_takes_little_memory() {
    for sample in content::samples() {
        for at in 4..sample.bytes.len() - 3 {
            for lie in [300_u32, 4_000, 60_000, 100_000, 500_000, 1 << 24, u32::MAX] {
                let mut bytes = sample.bytes.clone();
                bytes[at..at + 4].copy_from_slice(&lie.to_le_bytes());
                decode(&sample, &bytes);
                bytes.truncate(at + 4);
                decode(&sample, &bytes);
                // As many bytes as a list needs to be believed, and none of them an item.
                bytes.resize(at + 4 + 100_000, 0xff);
                decode(&sample, &bytes);
            }
        }
    }
}

fn read<M: Message>(what: &str, body: &[u8]) {
    check(what, FACTOR, body.len(), || drop(from_body::<M>(body)));
}

/// Nothing here lies: the most memory for the fewest bytes.
#[test]
fn true_messages_of_empty_items_take_little_memory() {
    let request = ActionRequest { inline: vec![Bytes::default(); MAX_INLINE_BLOBS], ..messages::action_request(None) };
    read::<ActionRequest>("empty inline blobs", &samples::body(&request));
    let mut invocation = messages::invocation();
    invocation.argv = vec![Bytes::default(); MAX_ARGUMENTS];
    let request = LocalRequest { version: 1, call: LocalCall::Compile(invocation) };
    read::<LocalRequest>("empty arguments", &samples::body(&request));
    let reply = LocalReply::RunLocally {
        reason: String::new(),
        report: false,
        extra_arguments: vec![String::new(); MAX_ARGUMENTS],
        extra_env: vec![Bytes::default(); MAX_ENVIRONMENT],
        recorder: None,
        strict_failure: false,
        own_temporary_dir: true,
    };
    read::<LocalReply>("empty extra arguments", &samples::body(&reply));
}

/// More empty items than any list may have, as many as the largest frame holds: refused when the count is read.
#[test]
fn a_frame_full_of_nothing_takes_no_memory() {
    let head = samples::body(&ActionRequest { inline: Vec::new(), ..messages::action_request(None) });
    let count = u32::try_from(MAX_ACTION_FRAME - 100).expect("small").to_le_bytes();
    let mut body = [&head[..head.len() - 1], &[0xfc], &count].concat();
    body.resize(MAX_ACTION_FRAME, 0);
    let peak = peak_of(|| from_body::<ActionRequest>(&body));
    assert!(peak <= CONSTANT_BYTES, "{peak} bytes");
}

#[test]
fn content_of_empty_items_takes_little_memory() {
    let mut command: Command = content::command();
    command.argv = vec![String::new(); MAX_ARGUMENTS];
    let bytes = command.to_canonical();
    check("empty arguments", FACTOR, bytes.len(), || drop(Command::from_canonical(&bytes)));
}

fn refuse<M: Message + Debug + PartialEq>(body: &[u8]) {
    let header = u32::try_from(body.len()).expect("small").to_le_bytes();
    let too_large = CodecError::TooLarge { found: body.len(), max: M::MAX_BYTES };
    let mut answers = None;
    let peak = peak_of(|| answers = Some((body_length::<M>(header), from_body::<M>(body))));
    assert_eq!(answers, Some((Err(too_large), Err(CodecError::TooLarge { found: body.len(), max: M::MAX_BYTES }))));
    assert_eq!(peak, 0, "a frame above its bound is refused before anything is allocated");
}

#[test]
fn frames_above_their_bound_take_no_memory() {
    assert_eq!(FRAME_HEADER_BYTES, 4);
    refuse::<Hello>(&vec![0; Hello::MAX_BYTES + 1]);
    refuse::<ActionUpdate>(&vec![0; ActionUpdate::MAX_BYTES + 1]);
    refuse::<LocalReply>(&vec![0; LocalReply::MAX_BYTES + 1]);
}

#[test]
fn every_kind_is_looked_at() {
    let mut kinds: Vec<&str> = samples::all().iter().map(|sample| sample.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), 18 + 21, "kinds of content and of messages: {kinds:?}");
}
