//! Reads a source file's text for what it asks the preprocessor to look up, and for what makes its result depend on more than files.
//!
//! Pure, and deliberately blind to `#if`: every branch counts, so the answer is a superset. Results depend on the text alone and are
//! remembered by its digest.

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
    /// An `#include` whose operand is not literal.
    pub computed_include: bool,
    /// A `__has_include` whose operand is not literal.
    pub computed_probe: bool,
    /// `__TIME__`, `__DATE__` or `__TIMESTAMP__` stand in the text.
    pub time_macros: bool,
    /// `.incbin`, or `#embed`: a file is read that no list of dependencies names.
    pub embeds: bool,
}

/// Scans a whole file.
pub fn scan(text: &[u8]) -> Scan {
    let mut found = Scan {
        time_macros: [&b"__TIME__"[..], b"__DATE__", b"__TIMESTAMP__"].iter().any(|word| contains(text, word)),
        embeds: contains(text, b".incbin"),
        ..Scan::default()
    };
    let mut at = 0;
    while at < text.len() {
        let (line, next) = logical_line(text, at);
        scan_line(&line, &mut found);
        at = next;
    }
    if contains(text, b"__has_include") {
        scan_probes(text, &mut found);
    }
    found
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    // The first byte is rare enough in sources that this beats a window walk by far.
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == word[0]) {
        rest = &rest[at..];
        if rest.starts_with(word) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// The line that starts at `at` with continuations joined if it may be a directive (else empty), and where the next one starts.
fn logical_line(text: &[u8], at: usize) -> (Vec<u8>, usize) {
    let end_of = |from: usize| text[from..].iter().position(|&byte| byte == b'\n').map_or(text.len(), |n| from + n);
    let mut end = end_of(at);
    let first = &text[at..end];
    let start = first.iter().position(|byte| !byte.is_ascii_whitespace());
    // A directive may follow a comment on its line; `%:` and `??=` spell `#` too.
    let directive =
        start.is_some_and(|n| matches!(first[n], b'#' | b'%' | b'?' | b'/' | b'*')) || contains(first, b"*/");
    if !directive {
        return (Vec::new(), end + 1);
    }
    let mut line = first.to_vec();
    while line.ends_with(b"\\") || line.ends_with(b"\\\r") {
        line.truncate(line.iter().rposition(|&byte| byte == b'\\').unwrap_or(0));
        if end >= text.len() {
            break;
        }
        let next = end + 1;
        end = end_of(next);
        line.extend_from_slice(&text[next..end]);
    }
    (line, end + 1)
}

fn scan_line(line: &[u8], found: &mut Scan) {
    let mut rest = line;
    // Comments before the directive: take what follows the last `*/` that stands before the first `#`.
    let hash = rest.iter().position(|&byte| byte == b'#' || byte == b'%' || byte == b'?').unwrap_or(rest.len());
    rest = &rest[hash..];
    rest = [&b"#"[..], b"%:", b"??="].iter().find_map(|mark| rest.strip_prefix(*mark)).unwrap_or(b"");
    rest = skip_blank(rest);
    let word_end = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_')).unwrap_or(rest.len());
    let (word, rest) = rest.split_at(word_end);
    let next = match word {
        b"include" | b"import" => false,
        b"include_next" => true,
        b"embed" => {
            found.embeds = true;
            return;
        }
        _ => return,
    };
    match operand(skip_blank(rest), next) {
        Some(include) => add(&mut found.includes, include),
        // The compiler's own list of files tells what it came to.
        None => found.computed_include |= is_macro(skip_blank(rest)),
    }
}

/// Whether an operand is a macro's name, perhaps with arguments. What is neither that nor literal is prose in a comment
/// (`#include's protect themselves`), or an error that the compiler will report.
fn is_macro(operand: &[u8]) -> bool {
    let name =
        operand.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_')).unwrap_or(operand.len());
    let starts = operand.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    let after = skip_blank(&operand[name..]);
    starts && (after.is_empty() || after.starts_with(b"(") || after.starts_with(b"//"))
}

fn scan_probes(text: &[u8], found: &mut Scan) {
    const WORD: &[u8] = b"__has_include";
    let mut rest = text;
    while let Some(at) = rest.windows(WORD.len()).position(|window| window == WORD) {
        rest = &rest[at + WORD.len()..];
        let (next, after) = match rest.strip_prefix(b"_next") {
            Some(after) => (true, after),
            None => (false, rest),
        };
        if after.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            continue; // Another word, such as `__has_include__`.
        }
        let Some(inner) = skip_blank(after).strip_prefix(b"(") else {
            continue; // `defined __has_include` and the like.
        };
        match operand(skip_blank(inner), next) {
            Some(include) => {
                add(&mut found.probes, include.clone());
                add(&mut found.includes, include);
            }
            None => found.computed_probe = true,
        }
    }
}

fn skip_blank(mut text: &[u8]) -> &[u8] {
    loop {
        let start =
            text.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)).unwrap_or(text.len());
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
    let end = body.iter().position(|&byte| byte == close || byte == b'\n')?;
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
    fn probes_are_found_wherever_they_stand() {
        let found = scan(
            b"#if defined(__has_include) && __has_include(<a.h>) || \\\n __has_include_next ( \"b.h\" )\n#endif\n",
        );
        let names: Vec<_> = found.probes.iter().map(|probe| (probe.name.as_str(), probe.next)).collect();
        assert_eq!(names, [("a.h", false), ("b.h", true)]);
        assert!(!found.computed_probe);
        assert!(scan(b"#if __has_include(HEADER)\n").computed_probe);
        assert!(scan(b"#include HEADER // x\n").computed_include && scan(b"#include H(x) y\n").computed_include);
        assert!(!scan(b"#include's are\n#include plat-specific\n#include any file\n").computed_include);
        assert!(!scan(b"#include \"a.h\"\n").computed_include);
    }

    #[test]
    fn what_depends_on_more_than_files_is_told() {
        assert!(scan(b"const char *t = __TIME__;").time_macros);
        assert!(!scan(b"int a_TIME_b;").time_macros);
        assert!(scan(b"asm(\".incbin \\\"x\\\"\");").embeds);
        assert!(scan(b"#embed \"x\"\n").embeds);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = scan(&text);
        }
    }
}
