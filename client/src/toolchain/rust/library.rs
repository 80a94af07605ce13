//! Where a linker finds libraries: names to files, with what those files name in turn, and the places that were passed over.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest text that is taken for a linker script.
const MAX_SCRIPT_BYTES: u64 = 64 << 10;
/// Files that scripts may name, and names that they may name in turn.
const MAX_FILES: usize = 1000;

/// Folders in the order in which they are searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders(pub Vec<PathBuf>);

/// What a link reads of some libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Libraries {
    /// Files, as the linker spells them.
    pub files: BTreeSet<PathBuf>,
    /// Where a file would be taken instead, or besides.
    pub absent: BTreeSet<PathBuf>,
    /// Names that are nowhere.
    pub missing: BTreeSet<String>,
}

impl Folders {
    /// Everything that could be read for `-lNAME` of each of `names`: shared and static ones wherever they stand, since which one is taken
    /// depends on options before it. A superset, as a link that reads less is the same.
    pub fn find<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Libraries {
        let mut found = Libraries::default();
        let mut asked = BTreeSet::new();
        let mut todo: Vec<Wanted> = names.into_iter().map(|name| Wanted::Library(name.to_owned())).collect();
        while let Some(wanted) = todo.pop() {
            if asked.len() >= MAX_FILES || !asked.insert(wanted.clone()) {
                continue;
            }
            let places = self.places(&wanted);
            let mut here = false;
            for place in places {
                if place.is_file() {
                    here = true;
                    todo.extend(script(&place));
                    found.files.insert(place);
                } else {
                    found.absent.insert(place);
                }
            }
            if let (false, Wanted::Library(name)) = (here, wanted) {
                found.missing.insert(name);
            }
        }
        found
    }

    fn places(&self, wanted: &Wanted) -> Vec<PathBuf> {
        match wanted {
            Wanted::File(name) if name.starts_with('/') => vec![PathBuf::from(name)],
            Wanted::File(name) => self.0.iter().map(|folder| folder.join(name)).collect(),
            Wanted::Library(name) => {
                // `-l:NAME` is a file's whole name.
                let names = match name.strip_prefix(':') {
                    Some(whole) => vec![whole.to_owned()],
                    None => vec![format!("lib{name}.so"), format!("lib{name}.a")],
                };
                self.0.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).collect()
            }
        }
    }
}

/// What a script, or who calls, wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Library(String),
    File(String),
}

/// What a linker script names; nothing for files that are none.
fn script(path: &Path) -> Vec<Wanted> {
    let Some(text) = text(path) else { return Vec::new() };
    commands(&text)
}

fn text(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    if meta.len() > MAX_SCRIPT_BYTES {
        return None;
    }
    let mut text = String::new();
    // ELF files and archives are not UTF-8, or hold NUL.
    File::open(path).ok()?.take(MAX_SCRIPT_BYTES).read_to_string(&mut text).ok()?;
    (!text.contains('\0') && !text.starts_with("!<")).then_some(text)
}

/// Names in `INPUT`, `GROUP` and `AS_NEEDED`. Words that are names of nothing do no harm.
fn commands(text: &str) -> Vec<Wanted> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut plain = String::with_capacity(text.len());
    while let Some((before, comment)) = rest.split_once("/*") {
        plain.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    for command in ["INPUT", "GROUP"] {
        let mut at = plain.as_str();
        while let Some((_, after)) = at.split_once(command) {
            at = after;
            let Some(inner) = after.trim_start().strip_prefix('(') else { continue };
            found.extend(words(inner));
        }
    }
    found
}

/// Words up to the bracket that closes what is open.
fn words(text: &str) -> Vec<Wanted> {
    let mut depth = 1;
    let end = text.find(|letter| {
        depth += match letter {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    let inner = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    let words = inner.split(|letter: char| letter.is_whitespace() || "(),\"".contains(letter));
    words
        .filter(|word| !word.is_empty() && *word != "AS_NEEDED")
        .map(|word| match word.strip_prefix("-l") {
            Some(name) => Wanted::Library(name.to_owned()),
            None => Wanted::File(word.to_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read() {
        let text = "/* GNU ld script\n GROUP ( no ) */\nOUTPUT_FORMAT(elf64-x86-64)\n\
                    GROUP ( /lib/libc.so.6 libc_nonshared.a  AS_NEEDED ( -lgcc ) ) INPUT(libx.so, liby.a)";
        let file = |name: &str| Wanted::File(name.to_owned());
        let gcc = Wanted::Library("gcc".to_owned());
        assert_eq!(
            commands(text),
            [file("libx.so"), file("liby.a"), file("/lib/libc.so.6"), file("libc_nonshared.a"), gcc]
        );
    }

    #[test]
    fn names_lead_to_files_and_to_places_without() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("1"), folder.path().join("2"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        fs::write(two.join("libs.so"), "INPUT(libt.so.6 -ls)").unwrap();
        fs::write(one.join("libt.so.6"), b"\x7fELF\0").unwrap();
        let found = Folders(vec![one.clone(), two.clone()]).find(["s", "gone"]);
        assert_eq!(found.files, [two.join("libs.so"), one.join("libt.so.6")].into());
        for absent in [one.join("libs.so"), one.join("libs.a"), two.join("libt.so.6"), two.join("libgone.a")] {
            assert!(found.absent.contains(&absent), "{absent:?}");
        }
        assert_eq!(found.missing, ["gone".to_owned()].into());
    }
}
