//! Uses its crates a little, and checks what they say.

use std::collections::HashMap;

use smallvec::SmallVec;

fn main() {
    let mut words: HashMap<&str, usize, fnv::FnvBuildHasher> = HashMap::default();
    for word in "a bee and a bee".split(' ') {
        *words.entry(word).or_default() += 1;
    }
    let mut counts: SmallVec<[usize; 4]> = words.values().copied().collect();
    counts.sort_unstable();
    assert_eq!(counts.as_slice(), [1, 2, 2]);
    let side: either::Either<u32, f64> = if counts.len() == 3 { either::Right(0.5) } else { either::Left(1) };
    let text = side.either(|n| itoa::Buffer::new().format(n).to_owned(), |x| ryu::Buffer::new().format(x).to_owned());
    assert_eq!(hex::encode(&text), "302e35");
    assert_eq!(memchr::memmem::find(b"a bee", b"bee"), Some(2));
    println!("{text}");
}
