//! What cut, flipped, extended, random and lying bytes do: they are refused, or they decode to a value; nothing else.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use buildbee_proto::codec::{Bytes, CodecError, FRAME_HEADER_BYTES, Message, body_length, from_body, to_frame};
use buildbee_proto::control::{ControlReply, ControlRequest, Hello, HelloReply, JoinReply, JoinRequest};
use buildbee_proto::exchange::{BlobHave, BlobHeader, BlobMap, BlobRequest, CacheReply, CacheRequest};
use buildbee_proto::execute::{ActionRequest, ActionUpdate, Supply};
use buildbee_proto::limits::{MAX_ARGUMENTS, MAX_HELLO_FRAME};
use buildbee_proto::local::{Invocation, LocalCall, LocalReply, LocalRequest};
use buildbee_proto::papers::{PapersReply, PapersRequest};
use buildbee_proto::store_path::{StorePathReply, StorePathRequest};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::samples::{self, Sample, content, messages};

/// What a decoder may take for a few bytes. Walking a list of nothings that claims 2^64 of them takes centuries.
const DECODE_DEADLINE: Duration = Duration::from_millis(50);
/// A busy machine may miss the deadline; a hanging decoder misses it every time.
const ATTEMPTS: usize = 5;

/// Counts that lie, as the serialiser writes them: a marker, then the number.
fn lying_counts() -> Vec<Vec<u8>> {
    let u32s = [1_u32 << 16, 1 << 24, u32::MAX].map(|n| [&[0xfc][..], &n.to_le_bytes()].concat());
    let u64s = [1_u64 << 32, 1 << 60, u64::MAX].map(|n| [&[0xfd][..], &n.to_le_bytes()].concat());
    u32s.into_iter().chain(u64s).collect()
}

#[test]
fn cut_anywhere_is_refused() {
    for sample in samples::all() {
        for end in 0..sample.bytes.len() {
            assert!((sample.reencode)(&sample.bytes[..end]).is_err(), "{} cut at {end} was read", sample.name);
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for sample in samples::all() {
        for extra in [&[0][..], &[0xff], &[0; 9]] {
            let longer = [&sample.bytes, extra].concat();
            assert!((sample.reencode)(&longer).is_err(), "{} with {extra:?} behind it was read", sample.name);
        }
        let twice = sample.bytes.repeat(2);
        assert!((sample.reencode)(&twice).is_err(), "{} twice was read", sample.name);
    }
    let body = messages::action_request(None);
    let mut body = samples::body(&body);
    body.push(0);
    assert_eq!(from_body::<ActionRequest>(&body), Err(CodecError::Trailing(1)));
}

/// Content has one encoding: whatever decodes was written so.
fn check_unique(sample: &Sample, bytes: &[u8]) {
    if let Ok(again) = (sample.reencode)(bytes) {
        assert_eq!(again, bytes, "{}: other bytes for the same value", sample.name);
    }
}

#[test]
fn content_with_a_flipped_bit_is_refused_or_another_value() {
    for sample in content::samples() {
        let mut bytes = sample.bytes.clone();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                check_unique(&sample, &bytes);
                bytes[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn content_is_read_as_its_own_kind_only() {
    let samples = content::samples();
    for decoder in &samples {
        for other in samples.iter().filter(|other| other.kind != decoder.kind) {
            let error = (decoder.reencode)(&other.bytes).expect_err("another kind was read");
            assert!(error.starts_with("tag "), "{} as {}: {error}", other.name, decoder.kind);
        }
    }
}

#[test]
fn messages_with_flipped_bits_do_not_panic() {
    for (_, group) in messages::groups() {
        for sample in group {
            let mut bytes = sample.bytes.clone();
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    bytes[at] ^= 1 << bit;
                    // What decodes must also encode again: a reader never makes a value that it can't pass on.
                    let _ = (sample.reencode)(&bytes);
                    bytes[at] ^= 1 << bit;
                }
            }
        }
    }
}

#[test]
fn content_with_a_lying_count_anywhere_is_refused_or_another_value() {
    for sample in content::samples() {
        for at in 4..sample.bytes.len().saturating_sub(4) {
            for claim in [0x1_0000_u32, 0x0100_0000, u32::MAX] {
                let mut bytes = sample.bytes.clone();
                bytes[at..at + 4].copy_from_slice(&claim.to_le_bytes());
                check_unique(&sample, &bytes);
            }
        }
    }
}

#[test]
fn messages_with_a_lying_count_anywhere_do_not_panic() {
    for (_, group) in messages::groups() {
        for sample in group {
            for at in 0..sample.bytes.len() {
                for lie in lying_counts() {
                    let _ = (sample.reencode)(&[&sample.bytes[..at], &lie, &sample.bytes[at..]].concat());
                }
            }
        }
    }
}

#[test]
fn few_hostile_bytes_are_decoded_at_once() {
    for (_, group) in messages::groups() {
        for sample in group {
            // Every prefix of a true message, and then a count of 2^64 - 1, 2^60, ...: nine bytes at most.
            let mut inputs = vec![vec![0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], vec![0; 9], vec![1; 9]];
            for at in 0..sample.bytes.len() {
                inputs.extend(lying_counts().into_iter().map(|lie| [&sample.bytes[..at], &lie].concat()));
            }
            check_deadline(&sample, inputs);
        }
    }
}

/// Decodes all `inputs` in a thread of its own, which says after each that it is through.
fn check_deadline(sample: &Sample, inputs: Vec<Vec<u8>>) {
    let n_inputs = inputs.len();
    let reencode = sample.reencode;
    let (tell, told) = sync_channel(1);
    thread::spawn(move || {
        for input in inputs {
            let _ = reencode(&input);
            if tell.send(()).is_err() {
                return;
            }
        }
    });
    for n in 0..n_inputs {
        let in_time = (0..ATTEMPTS).any(|_| match told.recv_timeout(DECODE_DEADLINE) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => panic!("{}: input {n} made the decoder panic", sample.name),
        });
        assert!(in_time, "{}: the decoder is still at input {n} after {ATTEMPTS} x {DECODE_DEADLINE:?}", sample.name);
    }
}

fn check_frame_bounds<M: Message + std::fmt::Debug + PartialEq>() {
    let kind = std::any::type_name::<M>();
    let header = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    assert_eq!(body_length::<M>(header(M::MAX_BYTES)), Ok(M::MAX_BYTES), "{kind}");
    for found in [M::MAX_BYTES + 1, u32::MAX as usize] {
        assert_eq!(body_length::<M>(header(found)), Err(CodecError::TooLarge { found, max: M::MAX_BYTES }), "{kind}");
    }
    let body = vec![0; M::MAX_BYTES + 1];
    assert_eq!(
        from_body::<M>(&body),
        Err(CodecError::TooLarge { found: M::MAX_BYTES + 1, max: M::MAX_BYTES }),
        "{kind}"
    );
}

#[test]
fn frames_above_their_bound_are_refused() {
    check_frame_bounds::<ControlRequest>();
    check_frame_bounds::<ControlReply>();
    check_frame_bounds::<Hello>();
    check_frame_bounds::<HelloReply>();
    check_frame_bounds::<JoinRequest>();
    check_frame_bounds::<JoinReply>();
    check_frame_bounds::<PapersRequest>();
    check_frame_bounds::<PapersReply>();
    check_frame_bounds::<ActionRequest>();
    check_frame_bounds::<ActionUpdate>();
    check_frame_bounds::<Supply>();
    check_frame_bounds::<BlobRequest>();
    check_frame_bounds::<BlobHave>();
    check_frame_bounds::<BlobHeader>();
    check_frame_bounds::<BlobMap>();
    check_frame_bounds::<CacheRequest>();
    check_frame_bounds::<CacheReply>();
    check_frame_bounds::<StorePathRequest>();
    check_frame_bounds::<StorePathReply>();
    check_frame_bounds::<LocalRequest>();
    check_frame_bounds::<LocalReply>();
}

#[test]
fn frames_above_their_bound_are_not_written() {
    // A length of three bytes and the features take four bytes beside the membership.
    let fits = Hello { membership: Bytes(vec![0; MAX_HELLO_FRAME - 4]), features: 0 };
    let frame = to_frame(&fits).unwrap();
    assert_eq!(frame.len() - FRAME_HEADER_BYTES, MAX_HELLO_FRAME, "the largest frame there is");
    assert_eq!(from_body(&frame[FRAME_HEADER_BYTES..]), Ok(fits));
    let above = Hello { membership: Bytes(vec![0; MAX_HELLO_FRAME - 3]), features: 0 };
    assert_eq!(to_frame(&above), Err(CodecError::TooLarge { found: MAX_HELLO_FRAME + 1, max: MAX_HELLO_FRAME }));
}

/// The serialiser counts eight bytes for a length that takes one: its limit must leave room for that, or true messages are refused.
#[test]
fn true_messages_of_many_short_items_are_read() {
    for n in [1, 1_000, 30_000, 32_700, 40_000, MAX_ARGUMENTS] {
        for argument in ["", "a"] {
            let invocation = Invocation { argv: vec![messages::bytes(argument); n], ..messages::invocation() };
            let request = LocalRequest { version: 1, call: LocalCall::Compile(invocation) };
            let body = samples::body(&request);
            let read = from_body::<LocalRequest>(&body);
            assert!(
                read.as_ref() == Ok(&request),
                "{n} arguments {argument:?} in {} bytes: {:?}",
                body.len(),
                read.err()
            );
        }
    }
}

#[test]
fn true_messages_are_read_around_every_step_of_the_limit() {
    for step in [64 << 10, 1 << 20, 16 << 20, 63 << 20] {
        for n in [step - 100, step - 1, step, step + 1, step + 100] {
            let reply = LocalReply::Done { exit_code: 0, stdout: Bytes(vec![7; n]), stderr: messages::bytes("") };
            assert!(from_body::<LocalReply>(&samples::body(&reply)).as_ref() == Ok(&reply), "{n} bytes of output");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_behind_a_true_tag_do_no_harm(which in any::<prop::sample::Index>(), noise in vec(any::<u8>(), 0..300)) {
        let samples = content::samples();
        let sample = which.get(&samples);
        check_unique(sample, &[&sample.bytes[..4], &noise].concat());
        check_unique(sample, &noise);
    }

    #[test]
    fn random_bytes_in_a_frame_do_no_harm(which in any::<prop::sample::Index>(), noise in vec(any::<u8>(), 0..300)) {
        let samples: Vec<Sample> = messages::groups().into_iter().flat_map(|(_, group)| group).collect();
        let sample = which.get(&samples);
        let _ = (sample.reencode)(&noise);
    }

    #[test]
    fn noise_inside_true_bytes_does_no_harm(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        noise in vec(any::<u8>(), 1..12),
    ) {
        let samples = samples::all();
        let sample = which.get(&samples);
        let at = at.index(sample.bytes.len());
        let mut bytes = sample.bytes.clone();
        for (byte, new) in bytes[at..].iter_mut().zip(&noise) {
            *byte = *new;
        }
        if content::samples().iter().any(|content| content.name == sample.name) {
            check_unique(sample, &bytes);
        } else {
            let _ = (sample.reencode)(&bytes);
        }
    }
}
