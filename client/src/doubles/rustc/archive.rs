//! For which machines the objects in a library are. Pure.

use crate::doubles::machine::Machine;

/// How an archive begins.
const ARCHIVE: &[u8] = b"!<arch>\n";
/// Of a member's header, with its size as decimal text from [`SIZE_AT`] on.
const HEADER_BYTES: usize = 60;
const SIZE_AT: std::ops::Range<usize> = 48..58;

/// Machines of `content`: its own, if it is an object, or those of its members, if it is an archive.
pub fn machines(content: &[u8]) -> impl Iterator<Item = Machine> {
    let members = content.strip_prefix(ARCHIVE).unwrap_or_default();
    Machine::of(content).into_iter().chain(Members(members).filter_map(Machine::of))
}

/// Objects among the members of an archive.
pub fn objects(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    Members(content.strip_prefix(ARCHIVE).unwrap_or_default()).filter(|member| Machine::of(member).is_some())
}

/// Whether two archives have the same objects, by whatever names and in whatever order. False where there are none.
pub fn have_same_objects(one: &[u8], other: &[u8]) -> bool {
    let sorted = |content| {
        let mut all: Vec<&[u8]> = objects(content).collect();
        all.sort_unstable();
        all
    };
    let one = sorted(one);
    !one.is_empty() && one == sorted(other)
}

/// An archive with one member.
pub fn with_one(name: &str, member: &[u8]) -> Vec<u8> {
    let header = format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", format!("{name}/"), 0, 0, 0, 644, member.len());
    let padding: &[u8] = if member.len() % 2 == 1 { b"\n" } else { b"" };
    [ARCHIVE, header.as_bytes(), member, padding].concat()
}

/// Contents of members. What does not look like one ends them.
struct Members<'a>(&'a [u8]);

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (header, rest) = self.0.split_at_checked(HEADER_BYTES)?;
        let size: usize = std::str::from_utf8(header.get(SIZE_AT)?).ok()?.trim_end().parse().ok()?;
        let (member, rest) = rest.split_at_checked(size)?;
        // Members begin at even places.
        self.0 = if size % 2 == 1 { rest.get(1..).unwrap_or_default() } else { rest };
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(code: u8) -> Vec<u8> {
        let mut bytes = vec![0; 65];
        bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
        bytes[18] = code;
        bytes
    }

    #[test]
    fn machines_of_members_are_told() {
        let arm = Machine::of(&object(183));
        let mut archive = with_one("a.o", &object(183));
        archive.extend_from_slice(&with_one("b.txt", b"text")[ARCHIVE.len()..]);
        archive.extend_from_slice(&with_one("c.o", &object(62))[ARCHIVE.len()..]);
        let found: Vec<_> = machines(&archive).collect();
        assert_eq!((found.len(), found.first().copied()), (2, arm));
        assert_ne!(found[0], found[1]);
        assert_eq!(objects(&archive).count(), 2);
        let mut turned = with_one("x.o", &object(62));
        turned.extend_from_slice(&with_one("y.o", &object(183))[ARCHIVE.len()..]);
        assert!(have_same_objects(&archive, &turned) && !have_same_objects(&archive, &with_one("a.o", &object(183))));
        assert!(!have_same_objects(b"", b""));
        assert_eq!(machines(&object(183)).collect::<Vec<_>>().first().copied(), arm);
        assert_eq!(machines(b"rust\0\0\0\x0a").count(), 0);
    }

    proptest! {
        #[test]
        fn nothing_is_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            machines(&bytes).for_each(drop);
            machines(&[ARCHIVE, &bytes].concat()).for_each(drop);
        }
    }
}
