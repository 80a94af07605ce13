//! The dependency reader against made-up texts and against what real compilers write for odd names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use super::depfile::{DepfileError, MAX_DEPFILE_BYTES, parse, prerequisites};

fn files(content: &str) -> Vec<String> {
    prerequisites(parse(content.as_bytes()).unwrap()).into_iter().map(|path| path.display().to_string()).collect()
}

#[test]
fn rules_lines_and_escapes() {
    assert_eq!(files("x.o: x.c a.h \\\n  b.h\n\na.h:\nb.h:\n"), ["x.c", "a.h", "b.h"]);
    assert_eq!(files("x.o y.o : a\\ b.h x\\#y.h d$$e.h b\\s.h"), ["a b.h", "x#y.h", "d$e.h", "b\\s.h"]);
    assert_eq!(files("x: a\\\\\\ b c\\\r\n d\r\n"), ["a\\ b", "c", "d"]);
    assert_eq!(files("c:x.o: a:b c:"), ["a:b", "c:"]);
    assert_eq!(files("x:\n"), Vec::<String>::new());
    assert_eq!(files(""), Vec::<String>::new());
    let rules = parse(b"x.o y.o: z\n").unwrap();
    assert_eq!(rules[0].targets, [Path::new("x.o"), Path::new("y.o")]);
}

#[test]
fn what_is_no_rule_is_refused() {
    assert_eq!(parse(b"x: y\n\nno rule\n"), Err(DepfileError::NoRule { line: 3 }));
    assert_eq!(parse(b": y\n"), Err(DepfileError::NoRule { line: 1 }));
    assert!(matches!(parse(&vec![b' '; MAX_DEPFILE_BYTES + 1]), Err(DepfileError::TooLarge { .. })));
}

/// Lets a real compiler write a dependency file for a source that includes headers of these names, and compares.
fn check_real(compiler: &str, names: &BTreeSet<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut source = String::new();
    for name in names {
        fs::write(folder.path().join(name), "").unwrap();
        writeln!(source, "#include \"{name}\"").unwrap();
    }
    fs::write(folder.path().join("x.c"), source).unwrap();
    let status = Command::new(compiler)
        .args(["-c", "-MMD", "-MP", "-MF", "x.d", "x.c", "-w"])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "{compiler} {names:?}");
    let content = fs::read(folder.path().join("x.d")).unwrap();
    let rules = parse(&content).unwrap();
    assert_eq!(rules.len(), names.len() + 1, "{}", String::from_utf8_lossy(&content));
    let mut expected = names.clone();
    expected.insert("x.c".to_owned());
    let found: BTreeSet<String> =
        prerequisites(rules).iter().map(|path: &PathBuf| path.to_str().unwrap().to_owned()).collect();
    assert_eq!(found, expected, "{compiler}: {}", String::from_utf8_lossy(&content));
}

#[test]
fn odd_names_by_real_compilers() {
    let names =
        ["a b.h", "x#y.h", "d$e.h", "back\\slash.h", "two  blanks.h", "ü.h", "a\\ b.h", "tab\tb.h", "c%d.h", "$$.h"];
    let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    check_real("gcc", &names);
    // clang leaves tabs as they are, which no reader of make rules can tell from white space, and writes `/` for `\`.
    check_real("clang", &names.into_iter().filter(|name| !name.contains(['\t', '\\'])).collect());
}

proptest! {
    #[test]
    fn never_panics(content in any::<Vec<u8>>()) {
        drop(parse(&content));
    }

    #[test]
    fn never_panics_on_near_misses(content in "[a:#$ \\\\\n\r\t]{0,40}") {
        drop(parse(content.as_bytes()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn random_names_by_real_compilers(names in proptest::collection::btree_set("[a-c#$ \\\\+~]{1,6}[a-c]\\.h", 1..6)) {
        check_real("gcc", &names);
        check_real("clang", &names.into_iter().map(|name| name.replace('\\', "")).collect());
    }
}
