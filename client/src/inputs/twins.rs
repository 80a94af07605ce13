//! Files of equal content in one compile: which of them are one inode, and which were last changed in the same second.
//!
//! That decides what a compiler takes for the same file when it meets `#pragma once` or `#import`: clang 14 goes by inode, gcc 12 by
//! second, size and content (`libcpp/files.cc`). So it is part of what an action sees, and of what a result depends on. All of them
//! count, whether or not the text says `once`: a macro may say it. Not here: hashing.

use std::collections::HashMap;
use std::hash::Hash;

use buildbee_proto::digest::Digest;
use buildbee_proto::tree::Twin;

/// What tells a file from others of the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode.
    pub file: (u64, u64),
    /// When it was last changed, in seconds since 1970.
    pub second: i128,
}

/// The files whose content stands more than once, by their place in `files`. Numbers are given in the order of `files`, from 0 for each
/// content, so that they say nothing but what is shared.
pub fn among(files: &[(Digest, Stamp)]) -> Vec<(u32, Twin)> {
    let mut n_of = HashMap::<Digest, usize>::with_capacity(files.len());
    for (digest, _) in files {
        *n_of.entry(*digest).or_default() += 1;
    }
    let (mut inodes, mut seconds) = (Numbers::default(), Numbers::default());
    let repeated = (0..).zip(files).filter(|(_, (digest, _))| n_of[digest] > 1);
    let numbered = repeated.map(|(at, (digest, stamp))| {
        (at, Twin { inode: inodes.number(*digest, stamp.file), second: seconds.number(*digest, stamp.second) })
    });
    numbered.collect()
}

/// Numbers values as they come, anew for each content.
#[derive(Default)]
struct Numbers<T> {
    known: HashMap<(Digest, T), u32>,
    next: HashMap<Digest, u32>,
}

impl<T: Eq + Hash> Numbers<T> {
    fn number(&mut self, content: Digest, value: T) -> u32 {
        *self.known.entry((content, value)).or_insert_with(|| {
            let next = self.next.entry(content).or_default();
            *next += 1;
            *next - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repeated_content_is_numbered() {
        let file = |content: &[u8], inode, second| (Digest::of(content), Stamp { file: (1, inode), second });
        let files = [
            file(b"a", 1, 50),
            file(b"once", 2, 50),
            file(b"b", 3, 50),
            file(b"a", 4, 50),
            file(b"b", 5, 40),
            file(b"b", 3, 50),
            file(b"a", 6, 60),
        ];
        let twin = |at, inode, second| (at, Twin { inode, second });
        let expected = [twin(0, 0, 0), twin(2, 0, 0), twin(3, 1, 0), twin(4, 1, 1), twin(5, 0, 0), twin(6, 2, 1)];
        assert_eq!(among(&files), expected);
        assert_eq!(among(&files[..3]), []);
    }
}
