//! What clang's driver would have its compiler do: two of one version that plan the same, for one target, make the same. Pure.

use std::collections::BTreeSet;

use super::gcc::{Kind, Question};
use super::pair::Group;
use crate::compiler::response_file::split;

/// Words of a plan whose value is a place, not a choice.
const PLACES: [&str; 4] = ["-internal-isystem", "-internal-externc-isystem", "-resource-dir", "-o"];
/// Words that come of leaving the search path to arguments.
const NO_FOLDERS: [&str; 2] = ["-nostdsysteminc", "-nobuiltininc"];
/// Lines of arguments that are compared.
const LINES: [&str; 5] =
    ["", "-O2 -g ", "-O3 -fPIC -flto ", "-Os -fno-pie -fno-pic ", "-O1 -g3 -fstack-protector-strong "];

/// What is asked about `group`.
pub fn questions(group: Group) -> Vec<Question> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let language = group.option_name();
    let mut asked = vec![Question { kind: Kind::FirstLine, arguments: words("--version"), is_compile: false }];
    asked.extend(LINES.iter().map(|line| Question {
        kind: Kind::Plan,
        arguments: words(&format!("-### {line}-c -x {language} nothing -o nothing.o")),
        is_compile: true,
    }));
    if group != Group::Assembler {
        let arguments = words(&format!("-dM -E -x {language} nothing"));
        asked.push(Question { kind: Kind::Text, arguments, is_compile: true });
    }
    asked
}

/// The words of a plan (`-###`) that are choices.
pub fn plan(text: &str) -> Option<String> {
    let mut kept = Vec::new();
    for words in commands(text)? {
        let mut rest = words.into_iter().skip(1);
        while let Some(word) = rest.next() {
            if PLACES.contains(&word.as_str()) {
                rest.next();
            } else if !NO_FOLDERS.contains(&word.as_str()) {
                kept.push(word);
            }
        }
    }
    Some(kept.join(" ")).filter(|text| !text.is_empty())
}

fn commands(text: &str) -> Option<Vec<Vec<String>>> {
    text.lines().filter(|line| line.starts_with(" \"")).map(|line| split(line.trim())).collect()
}

/// What clang says that it was asked for, by its own words: arguments for its double before and behind the user's.
pub fn dress(text: &str, target: &str) -> Option<(Vec<String>, Vec<String>)> {
    let words: Vec<String> = commands(text)?.into_iter().flatten().collect();
    let mut front = vec![format!("--target={target}")];
    // The driver looks for a libgcc that has them; the double sees none.
    let features: BTreeSet<&String> =
        words.windows(2).filter(|pair| pair[0] == "-target-feature").map(|pair| &pair[1]).collect();
    if features.iter().any(|feature| feature.as_str() == "+outline-atomics") {
        front.push("-moutline-atomics".to_owned());
    }
    let mut folders = vec!["-nostdinc".to_owned()];
    for pair in words.windows(2).filter(|pair| pair[0] == PLACES[0] || pair[0] == PLACES[1]) {
        folders.extend(["-Xclang", &pair[0], "-Xclang", &pair[1]].map(str::to_owned));
    }
    words.iter().any(|word| word.starts_with("-cc1")).then_some((front, folders))
}

/// What clang compiles for, from what it says of itself (`--version`), and its version.
pub fn target_and_version(text: &str) -> Option<(String, String)> {
    let target = text.lines().find_map(|line| line.strip_prefix("Target: "))?.trim();
    let version = text.lines().next()?.split("clang version ").nth(1)?.split_whitespace().next()?;
    Some((target.to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: &str = "Debian clang version 19.1.7 (3+b1)\nTarget: aarch64-unknown-linux-gnu\n (in-process)\n \"/usr/bin/clang\" \"-cc1\" \
        \"-triple\" \"aarch64\" \"-target-feature\" \"+outline-atomics\" \"-resource-dir\" \"/r\" \"-internal-isystem\" \"/r/include\" \
        \"-internal-externc-isystem\" \"/usr/include\" \"-o\" \"nothing.o\" \"-x\" \"c\" \"nothing\"\n";

    #[test]
    fn plans_are_compared_without_places() {
        let double = BOARD.replace("\"-internal-isystem\" \"/r/include\"", "\"-nostdsysteminc\" \"-nobuiltininc\"");
        assert_eq!(plan(BOARD).unwrap(), plan(&double).unwrap());
        assert_ne!(plan(BOARD), plan(&BOARD.replace("+outline-atomics", "+v8a")));
        assert_eq!(plan("clang: error\n"), None);
    }

    #[test]
    fn a_double_is_told_what_clang_knows() {
        let (front, folders) = dress(BOARD, "aarch64-unknown-linux-gnu").unwrap();
        assert_eq!(front, ["--target=aarch64-unknown-linux-gnu", "-moutline-atomics"]);
        let expected = "-nostdinc -Xclang -internal-isystem -Xclang /r/include -Xclang -internal-externc-isystem -Xclang /usr/include";
        assert_eq!(folders.join(" "), expected);
        assert_eq!(target_and_version(BOARD).unwrap(), ("aarch64-unknown-linux-gnu".to_owned(), "19.1.7".to_owned()));
        assert_eq!(dress("", "x"), None);
    }
}
