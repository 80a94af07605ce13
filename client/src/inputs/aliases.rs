//! Other names for `__has_include`, which one file of a compile may give and another one use: `#define HAS __has_include` here,
//! `#if HAS(HEADER)` there. What such a call looks up, no scanner can tell.
//!
//! Pure. Words are kept as hashes: two that collide make a compile local that need not be.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};

use super::scan::Scan;

/// A word of a source text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(u64);

impl Word {
    /// The word that is spelled so.
    pub fn of(spelled: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(spelled);
        Self(hasher.finish())
    }
}

/// Which of `scans` calls another name for `__has_include` with something else than a literal name, if one of them gives it one.
pub fn computed_probe<'a>(scans: &(impl Iterator<Item = &'a Scan> + Clone)) -> Option<usize> {
    let mut aliases = HashSet::from([Word::of(b"__has_include"), Word::of(b"__has_include_next")]);
    let n_own = aliases.len();
    loop {
        let before = aliases.len();
        let renames = scans.clone().flat_map(|scan| &scan.renames);
        let more: Vec<Word> = renames.filter(|(_, word)| aliases.contains(word)).map(|(name, _)| *name).collect();
        aliases.extend(more);
        if aliases.len() == before {
            break;
        }
    }
    if aliases.len() == n_own {
        return None;
    }
    let calls_one = |scan: &Scan| aliases.iter().any(|alias| scan.calls.binary_search(alias).is_ok());
    scans.clone().position(calls_one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::scan::scan;

    fn found(texts: &[&str]) -> Option<usize> {
        let scans: Vec<Scan> = texts.iter().map(|text| scan(text.as_bytes())).collect();
        computed_probe(&scans.iter())
    }

    #[test]
    fn a_name_given_in_one_file_is_known_in_others() {
        assert_eq!(found(&["#if HAS(HEADER)\n", "# define HAS __has_include\n"]), Some(0));
        assert_eq!(found(&["# define HAS __has_include\n#if A && HAS(HEADER)\n"]), Some(0));
        let chain = ["#define ONE /* x */ __has_include_next // y\n", "#define TWO ONE\n", "#elif TWO ( X )\n"];
        assert_eq!(found(&chain), Some(2));
        assert_eq!(found(&["#define ANY(x) HAS(x)\n", "#define HAS __has_include\n"]), Some(0));
        assert_eq!(found(&["#define OWN HAS(\"a.h\")\n", "#define HAS __has_include\n"]), Some(0));
    }

    #[test]
    fn other_calls_do_not_matter() {
        for texts in [
            &["#if HAS(HEADER)\n", "#define HAS(x) 0\n"],
            &["#if HAS(<a.h>) || OTHER(x)\n", "#define HAS __has_include\n"],
            &["#define HAS(x) 0\n/* HAS(x) */\n", "#define HAS __has_include\n"],
            &["#if defined(HAS)\n", "#define HAS __has_include\n"],
        ] {
            assert_eq!(found(texts), None, "{texts:?}");
        }
    }
}
