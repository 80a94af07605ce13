//! Families of options that only change how code is made or what is warned about: `-f…`, `-m…`, `-g…`, `-W…`.
//!
//! Words are lists in files beside this one. `-W` has no list: every word without a comma is a setting of warnings in both compilers
//! (`-Wa,`, `-Wl,` and `-Wp,` are rows of [`arg_table`](super::arg_table)), and releases add dozens.

use std::collections::HashSet;
use std::sync::LazyLock;

/// After `-f` and `-fno-`.
static F: LazyLock<Words> = LazyLock::new(|| Words::new(include_str!("words_f.txt")));
/// After `-m` and `-mno-`.
static M: LazyLock<Words> = LazyLock::new(|| Words::new(include_str!("words_m.txt")));
/// After `-g` and `-gno-`.
static G: LazyLock<Words> = LazyLock::new(|| Words::new(include_str!("words_g.txt")));

/// Longest option that is looked at; longer ones are not known.
const MAX_OPTION_BYTES: usize = 4096;

struct Words {
    exact: HashSet<&'static str>,
    /// Words that end in `-`: what follows is a name or a number.
    open: Vec<&'static str>,
}

impl Words {
    fn new(text: &'static str) -> Self {
        let lines = || text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self { exact: lines().collect(), open: lines().filter(|line| line.ends_with('-')).collect() }
    }

    fn has(&self, word: &str) -> bool {
        let word = word.strip_prefix("no-").unwrap_or(word);
        match word.find('=') {
            Some(equals) => self.exact.contains(&word[..=equals]),
            None => {
                self.exact.contains(word)
                    || self.open.iter().any(|open| word.strip_prefix(open).is_some_and(|rest| !rest.is_empty()))
            }
        }
    }
}

/// The options of these families by name: `-fPIC`, `-falign-loops=`, `-fabi-version=`. What ends in `=` or `-` takes a value.
pub fn names() -> impl Iterator<Item = String> {
    let family =
        |dash: &'static str, words: &'static Words| words.exact.iter().map(move |word| format!("{dash}{word}"));
    family("-f", &F).chain(family("-m", &M)).chain(family("-g", &G))
}

/// Whether an option is one of these families and harmless.
pub fn is_harmless(argument: &str) -> bool {
    if argument.len() > MAX_OPTION_BYTES {
        return false;
    }
    if argument == "-g" || argument == "-W" {
        return true;
    }
    let Some(family) = argument.get(..2) else { return false };
    let Some(word) = argument.get(2..) else { return false };
    match family {
        "-f" => F.has(word),
        "-m" => M.has(word),
        "-g" => G.has(word),
        "-W" => word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-+=_.".contains(&byte)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_plain() {
        for text in [include_str!("words_f.txt"), include_str!("words_m.txt"), include_str!("words_g.txt")] {
            let words: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert!(words.windows(2).all(|pair| pair[0] < pair[1]), "sorted, none twice");
            assert!(words.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace)));
        }
    }

    #[test]
    fn every_word_is_found() {
        for (family, text) in [
            ("-f", include_str!("words_f.txt")),
            ("-m", include_str!("words_m.txt")),
            ("-g", include_str!("words_g.txt")),
        ] {
            for word in text.lines().filter(|line| !line.starts_with('#')) {
                let value = if word.ends_with(['=', '-']) { "1" } else { "" };
                assert!(is_harmless(&format!("{family}{word}{value}")), "{family}{word}");
                assert!(is_harmless(&format!("{family}no-{word}{value}")), "{family}no-{word}");
            }
        }
    }

    #[test]
    fn unknown_words_are_not_guessed() {
        for argument in
            ["-fbrand-new", "-fstack-protector=all", "-mbrand-new", "-gbrand", "-Wa,-x", "-f", "-m", "-z", "", "-ü"]
        {
            assert!(!is_harmless(argument), "{argument}");
        }
        for argument in
            ["-fPIC", "-fno-builtin-memcpy", "-ftemplate-depth-100", "-ggdb3", "-gdwarf-4", "-Wno-error=foo"]
        {
            assert!(is_harmless(argument), "{argument}");
        }
    }
}
