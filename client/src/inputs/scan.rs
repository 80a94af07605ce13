//! Reads a source file's text for what it asks the preprocessor to look up, and for what makes its result depend on more than files.
//!
//! Pure, and deliberately blind to `#if`: every branch counts, so the answer is a superset. Results depend on the text alone and are
//! remembered by its digest.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memchr2, memchr3_iter};

use super::aliases::Word;
use crate::compiler::time_words::TimeWords;

/// How an include names its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `"name"`: the includer's folder first.
    Quoted,
    /// `<name>`.
    Angled,
}

/// One name that is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Include {
    /// As written between the quotes.
    pub name: String,
    /// With which quotes.
    pub form: Form,
    /// `#include_next` and `__has_include_next`: the search starts after the includer's own place.
    pub next: bool,
}

/// What a text asks for.
#[expect(clippy::struct_excessive_bools, reason = "each is an observation of its own; none excludes another")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Names of `#include`, `#import`, `#include_next`, and of `__has_include` in all forms, without repetitions.
    pub includes: Vec<Include>,
    /// Names asked for by `__has_include` or `__has_include_next`: what counts is whether they exist.
    pub probes: Vec<Include>,
    /// Names of `#line` and of line markers: gcc shows lines of these files in its messages, and its assembler in listings.
    pub line_names: Vec<String>,
    /// An `#include` whose operand is not literal.
    pub computed_include: bool,
    /// A `__has_include` whose operand is not literal.
    pub computed_probe: bool,
    /// Macros that stand for a word, or for something that begins with one: the macro's name and the word.
    pub renames: Vec<(Word, Word)>,
    /// What directives call with something else than a literal name, sorted.
    pub calls: Vec<Word>,
    /// Words for the time that stand in the text.
    pub time_words: TimeWords,
    /// `__FILE__` or one of its kin stands in the text.
    pub own_name: bool,
    /// A name in `includes` or `probes` is absolute or has `..` in it.
    pub far_names: bool,
    /// `.incbin`, `.include`, `#embed`, `#pragma GCC dependency`: a file is read or looked at that no list of dependencies names.
    pub embeds: bool,
}

/// Finders of words, made once: a header is looked through for each of them.
struct Words {
    time: [(Finder<'static>, TimeWords); 3],
    /// What a compiler replaces by the name under which it opened a file.
    own_name: [Finder<'static>; 4],
    has_embed: Finder<'static>,
    has_include: Finder<'static>,
    dependency: Finder<'static>,
    trigraph: Finder<'static>,
}

const HAS_INCLUDE: &[u8] = b"__has_include";

static WORDS: LazyLock<Words> = LazyLock::new(|| Words {
    time: TimeWords::ALL.map(|(word, one)| (Finder::new(word), one)),
    own_name: ["__FILE__", "__BASE_FILE__", "__builtin_FILE", "__builtin_source_location"].map(Finder::new),
    has_embed: Finder::new("__has_embed"),
    has_include: Finder::new(HAS_INCLUDE),
    dependency: Finder::new("dependency"),
    trigraph: Finder::new("??/"),
});

/// Scans a whole file.
pub fn scan(text: &[u8]) -> Scan {
    let mut found = Scan::default();
    look(&joined(text, false), &mut found);
    if is_in(&WORDS.trigraph, text) {
        // `??/` is a backslash in some dialects only: both readings count.
        look(&joined(text, true), &mut found);
    }
    found.far_names = found
        .includes
        .iter()
        .chain(&found.probes)
        .any(|include| include.name.starts_with('/') || include.name.split('/').any(|part| part == ".."));
    found.calls.sort_unstable();
    found.calls.dedup();
    found
}

fn look(text: &[u8], found: &mut Scan) {
    let words = &*WORDS;
    for (_, one) in words.time.iter().filter(|(word, _)| is_in(word, text)) {
        found.time_words |= *one;
    }
    found.own_name |= words.own_name.iter().any(|word| is_in(word, text));
    found.embeds |= is_in(&words.has_embed, text) || reads_unseen(text);
    for at in memchr3_iter(b'#', b'%', b'?', text) {
        let mark = [&b"#"[..], b"%:", b"??="].into_iter().find(|mark| text[at..].starts_with(mark));
        if let Some(mark) = mark
            && may_start_directive(&text[..at])
        {
            directive(&text[at + mark.len()..], found);
        }
    }
    scan_probes(text, found);
}

fn is_in(word: &Finder<'_>, text: &[u8]) -> bool {
    word.find(text).is_some()
}

/// The text with continued lines joined, as compilers do before anything else. They let blanks stand between backslash and line end.
fn joined(text: &[u8], trigraphs: bool) -> Cow<'_, [u8]> {
    let continuation = |rest: &[u8]| -> Option<usize> {
        let mark = if rest.starts_with(b"\\") {
            1
        } else if trigraphs && rest.starts_with(b"??/") {
            3
        } else {
            return None;
        };
        let n_blanks = rest[mark..].iter().position(|&byte| !is_blank(byte))?;
        let end = mark + n_blanks;
        match &rest[end..] {
            [b'\r', b'\n', ..] => Some(end + 2),
            [b'\r' | b'\n', ..] => Some(end + 1),
            _ => None,
        }
    };
    let mut out = Vec::new();
    let (mut kept, mut at) = (0, 0);
    let next = |rest: &[u8]| if trigraphs { memchr2(b'\\', b'?', rest) } else { memchr(b'\\', rest) };
    while let Some(n) = next(&text[at..]) {
        at += n;
        match continuation(&text[at..]) {
            Some(n_bytes) => {
                out.extend_from_slice(&text[kept..at]);
                at += n_bytes;
                kept = at;
            }
            None => at += 1,
        }
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text[kept..]);
    Cow::Owned(out)
}

/// NUL too: compilers pass over it with a warning.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | 0)
}

/// Whether a `#` that stands behind `before` can be a directive's: nothing on its line but blanks and comments, or a comment's end. A lone
/// carriage return ends a line, and a file may begin with a byte order mark.
fn may_start_directive(before: &[u8]) -> bool {
    let end = before.iter().rposition(|&byte| !is_blank(byte)).map_or(0, |at| at + 1);
    let before = &before[..end];
    before.is_empty()
        || before.ends_with(b"\n")
        || before.ends_with(b"\r")
        || before.ends_with(b"*/")
        || before == b"\xef\xbb\xbf"
}

/// What follows a `#`.
fn directive(text: &[u8], found: &mut Scan) {
    let rest = skip_blank(text);
    let (word, rest) = rest.split_at(word_bytes(rest));
    let next = match word {
        b"include" | b"import" | b"__include_macros" => false,
        b"include_next" => true,
        b"embed" => {
            found.embeds = true;
            return;
        }
        b"line" => return line_name(rest, found),
        b"" => return,
        _ if word.iter().all(u8::is_ascii_digit) => return line_name(rest, found),
        b"if" | b"elif" | b"define" => {
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
            if word == b"define" {
                scan_definition(&rest[..end], found);
            }
            scan_calls(&rest[..end], word != b"define", found);
            return;
        }
        _ => return,
    };
    let rest = skip_blank(rest);
    if let Some(include) = operand(rest, next) {
        add(&mut found.includes, include);
        return;
    }
    // A macro, perhaps one that comes to nothing before a name, a name that is no UTF-8, or prose in a comment: the compiler's own list of
    // files tells what it came to. What can't begin a macro is an error or prose (`#include's protect themselves`).
    let begins = |&byte: &u8| is_word(byte) || !byte.is_ascii() || matches!(byte, b'$' | b'\\' | b'"' | b'<');
    found.computed_include |= rest.first().is_some_and(begins);
}

/// What follows `#line`, or the number of a line marker. A macro can't be followed, but what it could come to is a name for messages.
fn line_name(rest: &[u8], found: &mut Scan) {
    let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
    let mut parts = rest[..end].split(|&byte| byte == b'"').skip(1);
    if let Some(name) = parts.next().and_then(|name| std::str::from_utf8(name).ok())
        && !name.is_empty()
        && !name.starts_with('<')
        && !found.line_names.iter().any(|known| known == name)
    {
        found.line_names.push(name.to_owned());
    }
}

fn word_bytes(text: &[u8]) -> usize {
    text.iter().position(|&byte| !is_word(byte)).unwrap_or(text.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// `#pragma GCC dependency` (which compares file times) and the assembler's `.include`.
fn reads_unseen(text: &[u8]) -> bool {
    let dependency = WORDS.dependency.find_iter(text).any(|at| text[..at].trim_ascii_end().ends_with(b"GCC"));
    let include = |at: usize| {
        let before = &text[..at];
        let own = before.last().is_none_or(|&byte| !is_word(byte) && !matches!(byte, b')' | b']' | b'.'));
        let after = text.get(at + b".include".len());
        (own || before.ends_with(b"\\n") || before.ends_with(b"\\t"))
            && after.is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\\' | b'"' | b'\''))
    };
    // Assemblers take their directives in either case.
    let is =
        |at: usize, word: &[u8]| text[at..].get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
    let embeds = |at: usize| is(at, b".incbin") || (is(at, b".include") && include(at));
    dependency || memchr_iter(b'.', text).any(embeds)
}

/// Where `word` stands.
fn places<'a>(text: &'a [u8], word: &'static [u8]) -> impl Iterator<Item = usize> + 'a {
    memchr_iter(word[0], text).filter(move |&at| text[at..].starts_with(word))
}

fn scan_probes(text: &[u8], found: &mut Scan) {
    for at in WORDS.has_include.find_iter(text) {
        let rest = &text[at + HAS_INCLUDE.len()..];
        let (next, after) = match rest.strip_prefix(b"_next") {
            Some(after) => (true, after),
            None => (false, rest),
        };
        if after.first().is_some_and(|&byte| is_word(byte)) {
            continue; // Another word, such as `__has_include__`.
        }
        match skip_blank(after).strip_prefix(b"(") {
            Some(inner) => match operand(skip_blank(inner), next) {
                Some(include) => {
                    add(&mut found.probes, include.clone());
                    add(&mut found.includes, include);
                }
                // `#define __has_include(x) 0`, for compilers that have none.
                None if last_word(&text[..at]) == b"define" => {}
                None => found.computed_probe = true,
            },
            // `#define HAS __has_include` is a rename, else `defined __has_include` or prose. Literal uses of such a name are probes
            // wherever they stand ([`scan_calls`]); of other uses all files of a compile decide together (`aliases`).
            None => {
                if is_in_definition(&text[..at]) {
                    let alias = last_word(&text[..at]);
                    let before = &text[..at - (text[..at].len() - text[..at].trim_ascii_end().len()) - alias.len()];
                    found.computed_probe |= alias.is_empty() || last_word(before) != b"define";
                }
            }
        }
    }
}

/// Probes through other names for `__has_include`: what is called with a name in brackets in a condition (or with one in angle brackets
/// in a definition) can be nothing else.
fn scan_calls(line: &[u8], conditional: bool, found: &mut Scan) {
    for at in memchr_iter(b'(', line) {
        let called = last_word(&line[..at]);
        if called.is_empty() || called.starts_with(HAS_INCLUDE) || called == b"defined" {
            continue;
        }
        // `HAS(x)` in its own definition.
        if !conditional && line.trim_ascii_start().starts_with(called) && line[..at].trim_ascii() == called {
            continue;
        }
        match operand(skip_blank(&line[at + 1..]), false) {
            Some(include) if conditional || include.form == Form::Angled => {
                add(&mut found.probes, include.clone());
                add(&mut found.includes, include);
            }
            _ => found.calls.push(Word::of(called)),
        }
    }
}

/// `NAME WORD …`, without parameters.
fn scan_definition(line: &[u8], found: &mut Scan) {
    let line = skip_blank(line);
    let (name, body) = line.split_at(word_bytes(line));
    let body = skip_blank(body);
    let word = &body[..word_bytes(body)];
    if word.first().is_some_and(|byte| !byte.is_ascii_digit()) {
        found.renames.push((Word::of(name), Word::of(word)));
    }
}

/// The word before the end of `text`, blanks between.
fn last_word(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| !is_blank(byte)).map_or(0, |at| at + 1);
    let start = text[..end].iter().rposition(|&byte| !is_word(byte)).map_or(0, |at| at + 1);
    &text[start..end]
}

/// Whether the line that `text` ends in defines a macro other than the word that follows.
fn is_in_definition(text: &[u8]) -> bool {
    let start = text.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
    let line = &text[start..];
    let defines = |at: usize| !line.get(at + b"define".len()).is_some_and(|&byte| is_word(byte));
    last_word(line) != b"define" && places(line, b"define").any(defines)
}

fn skip_blank(mut text: &[u8]) -> &[u8] {
    loop {
        let start = text.iter().position(|&byte| !is_blank(byte)).unwrap_or(text.len());
        text = &text[start..];
        let Some(comment) = text.strip_prefix(b"/*") else {
            return text;
        };
        let end = comment.windows(2).position(|window| window == b"*/").map_or(comment.len(), |n| n + 2);
        text = &comment[end..];
    }
}

fn operand(text: &[u8], next: bool) -> Option<Include> {
    let (form, close) = match text.first()? {
        b'"' => (Form::Quoted, b'"'),
        b'<' => (Form::Angled, b'>'),
        _ => return None,
    };
    let body = &text[1..];
    let end = body.iter().position(|&byte| byte == close || byte == b'\n' || byte == b'\r')?;
    if body[end] != close || end == 0 {
        return None;
    }
    let name = std::str::from_utf8(&body[..end]).ok()?.to_owned();
    Some(Include { name, form, next })
}

fn add(list: &mut Vec<Include>, include: Include) {
    if !list.contains(&include) {
        list.push(include);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        scan(text.as_bytes()).includes.into_iter().map(|include| include.name).collect()
    }

    #[test]
    fn every_spelling_of_include_is_found() {
        let text = "#include \"a.h\"\n  #  include <b.h>\n/* x */ #include \"c.h\"\n#inc\\\nlude \"d.h\"\n%:include <e.h>\n\
                    #include_next <f.h>\n#import \"g.h\"\n#include /* why */ <h.h>\n/* long\n*/ #include \"i.h\"\n#include MACRO\n";
        assert_eq!(names(text), ["a.h", "b.h", "c.h", "d.h", "e.h", "f.h", "g.h", "h.h", "i.h"]);
    }

    #[test]
    fn files_that_messages_may_quote_are_named() {
        let text = "#line 3 \"a.y\"\n# 7 \"b.y\" 2\n#line 9\n# 1 \"<built-in>\"\n#line 1 \"a.y\"\n# error \"c\"\n";
        assert_eq!(scan(text.as_bytes()).line_names, ["a.y", "b.y"]);
    }

    /// Each of these was seen to include `a.h` with gcc 12 and clang 14.
    #[test]
    fn odd_spellings_of_include_are_found() {
        for text in [
            "\u{feff}#include \"a.h\"\n",
            "/* 5% */ #include \"a.h\"\n",
            "/* what? # */ /* y */ ??=include \"a.h\"\n",
            "#include \\ \t\n\"a.h\"\n",
            "#include \\\r\n\"a.h\"\r\n",
            "#include ??/\n\"a.h\"\n",
            "// what??/\n#include \"a.h\"\n",
            "#/*\n*/include/*\n*/\"a.h\"",
            "int a;\r#include \"a.h\"\rint b;\r",
            "\u{b}\u{0}#\u{0}include \"a.h\"\n",
            "#__include_macros \"a.h\"\n",
        ] {
            assert_eq!(names(text), ["a.h"], "{text:?}");
        }
        for text in ["int a = b # include <c.h>\n", "// #include <a.h>\n", "x #include \"a.h\"\n"] {
            assert!(names(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn probes_are_found_wherever_they_stand() {
        let found = scan(
            b"#if defined(__has_include) && __has_include(<a.h>) || \\\n __has_include_next ( \"b.h\" )\n#endif\n",
        );
        let names: Vec<_> = found.probes.iter().map(|probe| (probe.name.as_str(), probe.next)).collect();
        assert_eq!(names, [("a.h", false), ("b.h", true)]);
        assert!(!found.computed_probe);
        assert_eq!(scan(b"#if __has_include /*\n*/ (/*\n*/<a.h>)\n").probes.len(), 1);
        assert_eq!(scan(b"#if __has_\\\ninclude(<a.h>)\n").probes.len(), 1);
    }

    #[test]
    fn computed_names_are_told() {
        for text in ["HEADER // x", "H(x) y", "LT a.h GT", "EMPTY <a.h>", "EMPTY \"a.h\""] {
            assert!(scan(format!("#include {text}\n").as_bytes()).computed_include, "{text}");
        }
        assert!(scan(b"#include \"\xe4.h\"\n").computed_include);
        for text in ["#include \"a.h\"\n", "#include's are\n", "/* We lack #include_next.\n", "#include\n"] {
            assert!(!scan(text.as_bytes()).computed_include, "{text}");
        }
        let alias = scan(
            b" * As HAS(x) for\n#define HAS __has_include\n#define HAS(x) 0\n#if defined(A) && HAS(<a.h>)\n#endif\n",
        );
        assert!(!alias.computed_probe && alias.probes.len() == 1 && alias.probes[0].name == "a.h", "{alias:?}");
        for text in
            ["#if __has_include(HEADER)\n", "#define HAS(x) __has_include(x)\n", "#define HAS x __has_include\n"]
        {
            assert!(scan(text.as_bytes()).computed_probe, "{text}");
        }
        for text in [
            "#ifndef __has_include\n#define __has_include(x) 0\n# undef __has_include\n#endif // __has_include\n",
            "#ifdef __has_include\n#if defined __has_include\n",
            "#define __has_include 1\n",
        ] {
            assert!(!scan(text.as_bytes()).computed_probe, "{text}");
        }
    }

    #[test]
    fn what_depends_on_more_than_files_is_told() {
        assert_eq!(scan(b"const char *t = __TIME__;").time_words, TimeWords::TIME);
        assert_eq!(scan(b"const char *t = __TI\\\nME__ __DATE__;").time_words, TimeWords::TIME | TimeWords::DATE);
        assert!(scan(b"int a_TIME_b;").time_words.is_empty());
        assert_eq!(scan(b"const char *t = __TIMESTAMP__;").time_words, TimeWords::TIMESTAMP);
        assert!(scan(b"const char *f = __FILE__;").own_name);
        assert!(!scan(b"const char *f = __FILE_NAME__;").own_name);
        for text in [
            "asm(\".incbin \\\"x\\\"\");",
            "asm(\"nop\\n.include \\\"x\\\"\");",
            "asm(\".include \" NAME);",
            "#embed \"x\"\n",
            "#pragma GCC dependency \"x\"\n",
            "_Pragma(\"GCC  dependency \\\"x\\\"\")",
        ] {
            assert!(scan(text.as_bytes()).embeds, "{text}");
        }
        for text in ["x.include (y); a.include = b", "// a dependency", "#include \"x.include\"\n"] {
            assert!(!scan(text.as_bytes()).embeds, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = scan(&text);
        }

        #[test]
        fn never_panics_on_what_looks_like_source(text in "[#%:?/\\\\\r\n\" <>(*_a]{0,40}(__has_include|#include|define)?[\"<( /*\\\\\n]{0,8}") {
            let _ = scan(text.as_bytes());
        }
    }
}
