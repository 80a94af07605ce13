//! Tells in which of the locales that every toolchain has, `C` and `C.UTF-8`, messages come out as in the user's own.
//!
//! To a compiler a locale is an encoding, which decides its quotation marks, and a language, for which there must be a catalogue of
//! messages. `en_US.UTF-8` has none, so that it prints what `C.UTF-8` prints; a locale that is not installed prints what `C` prints. The C
//! library is asked for the encoding; answers are remembered. Objects do not depend on any of it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::compiler::environment::{CommonLocale, LOCALE_NAMES};

/// Variables that choose a locale, besides those that name it.
const PLACES: [&str; 3] = ["LOCPATH", "NLSPATH", "TEXTDOMAINDIR"];
/// Where installed locales are: what changes there makes remembered answers void.
const INSTALLED: [&str; 2] = ["/usr/lib/locale", "/usr/lib/locale/locale-archive"];
/// Where catalogues are; the second is Ubuntu's.
const CATALOGUES: [&str; 2] = ["/usr/share/locale", "/usr/share/locale-langpack"];
/// Whose messages a compile prints.
const DOMAINS: [&str; 3] = ["gcc", "cpplib", "gas"];
/// Answers remembered; beyond it the memory starts over.
const MAX_REMEMBERED: usize = 64;

/// What named a locale, and what was installed then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    named: Vec<(String, String)>,
    installed: Vec<Option<(u64, i64, i64)>>,
}

/// Knows locales.
#[derive(Debug, Default)]
pub struct Locales {
    known: Mutex<HashMap<Question, Option<CommonLocale>>>,
}

impl Locales {
    /// The locale whose messages are the same as those under `env`; `None` where no toolchain is sure to have one. May start a program:
    /// keep it off the event loop.
    pub fn spoken(&self, env: &[(String, String)]) -> Option<CommonLocale> {
        let named = named(env)?;
        if let Some(spoken) = common(&named) {
            return Some(spoken);
        }
        let question = Question { named, installed: INSTALLED.map(identity).to_vec() };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&question).copied();
        if let Some(known) = known {
            return known;
        }
        let answer = ask(&question.named);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(question, answer);
        answer
    }
}

/// The variables that name a locale, none empty. `None` where others say where to look for it.
fn named(env: &[(String, String)]) -> Option<Vec<(String, String)>> {
    let first = |name: &str| env.iter().find(|(known, value)| known == name && !value.is_empty()).cloned();
    if PLACES.iter().any(|place| first(place).is_some()) {
        return None;
    }
    Some(LOCALE_NAMES.iter().filter_map(|name| first(name)).collect())
}

/// The locale's name for `category`, as `setlocale` finds it.
fn name_for<'a>(named: &'a [(String, String)], category: &str) -> &'a str {
    let value = |name: &str| named.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    value("LC_ALL").or_else(|| value(category)).or_else(|| value("LANG")).unwrap_or("C")
}

/// Without asking anybody, for what build services and containers have.
fn common(named: &[(String, String)]) -> Option<CommonLocale> {
    let plain = |name: &str| matches!(name, "C" | "POSIX");
    let utf8 = |name: &str| matches!(name, "C.UTF-8" | "C.utf8");
    let (letters, messages) = (name_for(named, "LC_CTYPE"), name_for(named, "LC_MESSAGES"));
    match (letters, messages) {
        (letters, messages) if plain(letters) && plain(messages) => Some(CommonLocale::Plain),
        (letters, messages) if utf8(letters) && (plain(messages) || utf8(messages)) => Some(CommonLocale::Utf8),
        _ => None,
    }
}

fn identity(path: &str) -> Option<(u64, i64, i64)> {
    fs::metadata(path).ok().map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

fn ask(named: &[(String, String)]) -> Option<CommonLocale> {
    let mut command = Command::new("locale");
    command.arg("charmap").env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.envs(named.iter().map(|(name, value)| (name, value))).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    let spoken = match output.stdout.trim_ascii() {
        b"UTF-8" => CommonLocale::Utf8,
        b"ANSI_X3.4-1968" => CommonLocale::Plain,
        _ => return None,
    };
    let (letters, messages) = (name_for(named, "LC_CTYPE"), name_for(named, "LC_MESSAGES"));
    // What has no encoding of its own is not installed, and has no language either.
    let missing = spoken == CommonLocale::Plain && letters == messages;
    let languages = languages(named, messages);
    let translated =
        CATALOGUES.iter().any(|folder| languages.iter().any(|name| has_catalogue(&Path::new(folder).join(name))));
    (missing || !translated).then_some(spoken)
}

/// The folders in which messages are looked for: `de_DE.UTF-8@euro` is also `de_DE` and `de`.
fn languages(named: &[(String, String)], messages: &str) -> Vec<PathBuf> {
    let list = named.iter().find(|(name, _)| name == "LANGUAGE").map_or("", |(_, value)| value.as_str());
    let mut folders = Vec::new();
    for language in list.split(':').chain([messages]).filter(|name| !name.is_empty() && !name.contains('/')) {
        let without_modifier = language.split('@').next().unwrap_or(language);
        let territory = without_modifier.split('.').next().unwrap_or(without_modifier);
        let bare = territory.split('_').next().unwrap_or(territory);
        folders.extend([language, without_modifier, territory, bare].map(PathBuf::from));
        if let Some((_, modifier)) = language.split_once('@') {
            folders.extend([territory, bare].map(|name| PathBuf::from(format!("{name}@{modifier}"))));
        }
    }
    folders
}

fn has_catalogue(language: &Path) -> bool {
    let Ok(names) = fs::read_dir(language.join("LC_MESSAGES")) else { return false };
    names.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.strip_suffix(".mo").is_some_and(|stem| {
            DOMAINS
                .iter()
                .any(|domain| stem.strip_prefix(domain).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn spoken(list: &[(&str, &str)]) -> Option<CommonLocale> {
        Locales::default().spoken(&env(list))
    }

    #[test]
    fn names_are_weighed_as_setlocale_does() {
        assert_eq!(spoken(&[]), Some(CommonLocale::Plain));
        assert_eq!(spoken(&[("LANG", "C.UTF-8")]), Some(CommonLocale::Utf8));
        assert_eq!(spoken(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]), Some(CommonLocale::Plain));
        assert_eq!(spoken(&[("LANG", "C"), ("LC_CTYPE", "C.utf8")]), Some(CommonLocale::Utf8));
        assert_eq!(spoken(&[("LANG", "C.UTF-8"), ("LOCPATH", "/x")]), None);
    }

    #[test]
    fn a_locale_that_is_not_installed_is_plain() {
        assert_eq!(spoken(&[("LANG", "xx_YY.UTF-8")]), Some(CommonLocale::Plain));
        assert_eq!(spoken(&[("LC_ALL", "xx_YY")]), Some(CommonLocale::Plain));
    }

    #[test]
    fn catalogues_are_looked_for_under_every_name_of_a_language() {
        let found = languages(&env(&[("LANGUAGE", "fr:../x")]), "de_DE.UTF-8@euro");
        for name in ["fr", "de_DE.UTF-8@euro", "de_DE.UTF-8", "de_DE", "de", "de_DE@euro", "de@euro"] {
            assert!(found.contains(&PathBuf::from(name)), "{name}");
        }
        assert!(!found.contains(&PathBuf::from("../x")));
    }

    #[test]
    fn a_language_counts_if_a_compiler_speaks_it() {
        let folder = tempfile::tempdir().unwrap();
        let messages = folder.path().join("LC_MESSAGES");
        fs::create_dir(&messages).unwrap();
        fs::write(messages.join("bash.mo"), "").unwrap();
        fs::write(messages.join("gccgo.mo"), "").unwrap();
        assert!(!has_catalogue(folder.path()));
        fs::write(messages.join("gcc-12.mo"), "").unwrap();
        assert!(has_catalogue(folder.path()));
    }
}
