//! Changes bytes a little, as a fuzzer does: flips, lies about lengths, cuts, repeats, and pieces of other entries.

use fastrand::Rng;

/// No input is longer, in bytes.
const MAX_BYTES: usize = 64 << 10;
/// Numbers at which decoders go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];
/// What text is made of that means something to somebody.
const WORDS: [&[u8]; 16] = [
    b"\0",
    b"\n",
    b"\\",
    b"\"",
    b"'",
    b"../",
    b"/",
    b"@",
    b":",
    b" ",
    b"$",
    b"#",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"-",
    b"=",
];

/// One of `corpus`, changed.
pub(crate) fn changed(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[rng.usize(..corpus.len())].clone();
    for _ in 0..rng.usize(1..6) {
        change(rng, &mut bytes, corpus);
        bytes.truncate(MAX_BYTES);
    }
    bytes
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = rng.usize(..=bytes.len());
    match rng.u8(0..9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 if at < bytes.len() => bytes[at] = rng.u8(..),
        2 => bytes.truncate(at),
        3 => {
            let edge = EDGES[rng.usize(..EDGES.len())];
            let little = if rng.bool() { edge.to_le_bytes() } else { edge.to_be_bytes() };
            for (to, from) in bytes[at..].iter_mut().zip(&little[..1 << rng.u8(..4)]) {
                *to = *from;
            }
        }
        4 => drop(bytes.splice(at..at, WORDS[rng.usize(..WORDS.len())].iter().copied())),
        5 => {
            let end = rng.usize(at..=bytes.len());
            bytes.drain(at..end);
        }
        6 => {
            let end = rng.usize(at..=bytes.len().min(at + 512));
            let piece = bytes[at..end].repeat(rng.usize(1..40));
            bytes.splice(at..at, piece.into_iter().take(MAX_BYTES));
        }
        7 => {
            let other = &corpus[rng.usize(..corpus.len())];
            let from = rng.usize(..=other.len());
            bytes.splice(at.., other[from..].iter().copied());
        }
        _ => bytes.extend((0..rng.usize(..64)).map(|_| rng.u8(..))),
    }
}
