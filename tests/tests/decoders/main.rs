//! Every decoder of foreign bytes is given bytes that are nearly right: none panics, overflows, takes memory without bound or hangs.
//!
//! Entries of the corpus (`tests/corpus`, a folder a target, and the golden bytes of `proto/golden`) are changed by a generator with a fixed
//! seed, so a run is the same each time. `BUILDBEE_FUZZ_ROUNDS=N` makes it N times as long, with other bytes from the second round on; `make
//! fuzz` does. What is found that way goes into the corpus.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod corpus;
mod mutate;
mod targets;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fastrand::Rng;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};

/// Changed inputs for each target in one round.
const N_INPUTS: usize = 1_500;
/// Processor time that one input may take: all of them are small.
const MAX_TIME: Duration = Duration::from_secs(1);
/// Address space for everything, in bytes. A decoder that believes a length it is told asks for more, and ends the test.
const MAX_MEMORY: u64 = 2 << 30;

fn rounds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the one switch of this test; not a setting of any program")]
    let rounds = std::env::var("BUILDBEE_FUZZ_ROUNDS");
    rounds.ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn feed(target: &targets::Target, seed: u64, index: usize, input: &[u8]) {
    let before = processor_time();
    let ended = catch_unwind(AssertUnwindSafe(|| (target.decode)(input)));
    let took = processor_time().saturating_sub(before);
    assert!(ended.is_ok(), "{}: seed {seed}, input {index} makes it panic: {}", target.name, hex(input));
    assert!(took < MAX_TIME, "{}: seed {seed}, input {index} takes {took:?}: {}", target.name, hex(input));
}

#[test]
fn bytes_that_are_nearly_right_harm_no_decoder() {
    let (_, most) = getrlimit(Resource::RLIMIT_AS).unwrap();
    setrlimit(Resource::RLIMIT_AS, MAX_MEMORY.min(most), most).unwrap();
    let all = targets::all();
    let mut n_inputs = 0;
    for target in &all {
        let corpus = corpus::of(target.name);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        for (index, entry) in corpus.iter().enumerate() {
            feed(target, 0, index, entry);
        }
        for seed in 1..=rounds() {
            let mut rng = Rng::with_seed(seed);
            for index in 0..N_INPUTS {
                let input = mutate::changed(&mut rng, &corpus);
                feed(target, seed, index, &input);
                n_inputs += 1;
            }
        }
    }
    println!("{n_inputs} inputs for {} decoders", all.len());
}

#[test]
fn every_folder_of_the_corpus_has_a_decoder() {
    let mut known: Vec<&str> = targets::all().iter().map(|target| target.name).collect();
    known.extend(corpus::GOLDEN);
    for folder in corpus::folders() {
        assert!(known.contains(&folder.as_str()), "tests/corpus/{folder} is of no use");
    }
}
