//! Where a compiler looks for included files, as it says itself (`-v`), remembered by what decides it.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use thiserror::Error;

use super::followed::{Followed, Places};
use crate::compiler::request::SearchDirectory;
use crate::toolchain::Compiler;

/// Search paths remembered; beyond it the memory starts over.
const MAX_REMEMBERED: usize = 4_096;
/// The compiler answers within this time, or not at all.
const DEADLINE: Duration = Duration::from_secs(20);

/// The folders, in order, as the compiler spells them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchPath {
    /// Searched for `"name"` after the includer's folder and before `angled`.
    pub quoted: Vec<PathBuf>,
    /// Searched for `<name>`, and for `"name"` last.
    pub angled: Vec<PathBuf>,
    /// Named but not there: were they to appear, the list would be another.
    pub missing: Vec<PathBuf>,
}

/// Device and inode of what a name leads to, where it leads anywhere.
type Place = Option<(u64, u64)>;

/// A search path, and where it was seen to lead.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The folders.
    pub path: Arc<SearchPath>,
    /// Includes that were followed through them before.
    pub followed: Arc<Followed>,
}

/// A search path, and where names led when the compiler was asked.
#[derive(Clone, Debug)]
struct Remembered {
    search: Search,
    places: Vec<Place>,
}

/// The compiler did not say where it looks.
#[derive(Debug, Error)]
pub enum SearchPathError {
    /// It could not be run.
    #[error("cannot run {program}: {error}", program = .program.display())]
    Run {
        /// The compiler.
        program: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It took too long.
    #[error("the compiler did not tell its search path in time")]
    Timeout,
    /// It printed something else.
    #[error("the compiler did not tell its search path")]
    Unreadable,
}

/// What decides a search path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    compiler: String,
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    cwd: PathBuf,
}

/// Remembers search paths. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SearchPaths {
    known: Arc<Mutex<HashMap<Key, Remembered>>>,
    /// Who asks a compiler just now; as many as there are compiles under way, at most.
    turns: Arc<Mutex<HashMap<Key, Weak<Turn>>>>,
    places: Places,
}

/// Held by who asks.
type Turn = tokio::sync::Mutex<()>;

impl SearchPaths {
    /// The search path for a compile in `language` (the word after `-x`) with `arguments` (those that can change it) in `cwd`.
    /// `named` are the folders that the arguments and `env` name.
    pub async fn of(
        &self,
        compiler: &Compiler,
        language: &str,
        arguments: &[String],
        env: &[(String, String)],
        cwd: &Path,
        named: &[SearchDirectory],
    ) -> Result<Search, SearchPathError> {
        let mut arguments = deciding(arguments);
        arguments.extend(["-x".into(), language.to_owned()]);
        let key = Key { compiler: compiler.parts.id.to_string(), arguments, env: env.to_vec(), cwd: cwd.to_owned() };
        let holding = || self.known(&key).filter(|known| still_holds(known, cwd, named));
        if let Some(known) = holding() {
            return Ok(known.search);
        }
        let turn = self.turn(&key);
        let _turn = turn.lock().await;
        // Compiles that began together wait for the first.
        if let Some(known) = holding() {
            return Ok(known.search);
        }
        let path = Arc::new(ask(compiler, &key).await?);
        let places = places(&path, cwd, named);
        let search = Search { path, followed: Arc::new(Followed::new(self.places.clone())) };
        let mut remembered = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, Remembered { search: search.clone(), places });
        Ok(search)
    }

    fn turn(&self, key: &Key) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        turns.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(key.clone(), Arc::downgrade(&turn));
            turn
        })
    }

    fn known(&self, key: &Key) -> Option<Remembered> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if self.places.are_too_many() {
            known.values_mut().for_each(|known| known.search.followed = Arc::new(Followed::new(self.places.clone())));
        }
        let known = known.get_mut(key)?;
        if known.search.followed.is_full() {
            known.search.followed = Arc::new(Followed::new(self.places.clone()));
        }
        Some(known.clone())
    }
}

/// The arguments that can change where a compiler looks. Macro definitions can't, and differ from project to project; so do warnings,
/// optimisation and debug options.
fn deciding(arguments: &[String]) -> Vec<String> {
    let mut kept = Vec::with_capacity(arguments.len());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "-D" || argument == "-U" {
            // Its value is the next argument.
            rest.next();
        } else if argument.starts_with("-Wp,")
            || !["-D", "-U", "-W", "-O", "-g"].iter().any(|with| argument.starts_with(with))
        {
            kept.push(argument.clone());
        }
    }
    kept
}

fn still_holds(known: &Remembered, cwd: &Path, named: &[SearchDirectory]) -> bool {
    known.search.path.missing.iter().all(|folder| !cwd.join(folder).exists())
        && places(&known.search.path, cwd, named) == known.places
}

/// Where the list and the named folders lead. A folder that is named twice counts once: a symlink that leads elsewhere now can make it two,
/// or the reverse. (clang says which it ignores, but not by the name that it was given.)
fn places(path: &SearchPath, cwd: &Path, named: &[SearchDirectory]) -> Vec<Place> {
    let listed = path.quoted.iter().chain(&path.angled);
    let names = listed.chain(named.iter().map(|folder| &folder.path));
    let place = |folder: &PathBuf| {
        let meta = std::fs::metadata(cwd.join(folder)).ok().filter(std::fs::Metadata::is_dir)?;
        Some((meta.dev(), meta.ino()))
    };
    names.map(place).collect()
}

async fn ask(compiler: &Compiler, key: &Key) -> Result<SearchPath, SearchPathError> {
    let mut command = tokio::process::Command::new(&compiler.program);
    command.args(&key.arguments).args(["-E", "-v", "/dev/null"]);
    command.env_clear().envs(key.env.iter().map(|(name, value)| (name, value)));
    // The words that are looked for below are English.
    command.env("LC_ALL", "C").env("PATH", &compiler.asked_with);
    command.current_dir(&key.cwd).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let run = command.output();
    let output = tokio::time::timeout(DEADLINE, run)
        .await
        .map_err(|_| SearchPathError::Timeout)?
        .map_err(|error| SearchPathError::Run { program: compiler.program.clone(), error })?;
    parse(&String::from_utf8_lossy(&output.stderr)).ok_or(SearchPathError::Unreadable)
}

/// What a compiler says (`-v`) of where it looks; `None`: it does not say.
pub(crate) fn parse(text: &str) -> Option<SearchPath> {
    #[derive(PartialEq)]
    enum Part {
        Before,
        Quoted,
        Angled,
        After,
    }
    let mut path = SearchPath::default();
    let mut part = Part::Before;
    for line in text.lines() {
        if let Some(folder) = line.strip_prefix("ignoring nonexistent directory \"") {
            path.missing.push(folder.trim_end_matches('"').into());
        } else if line.starts_with("#include \"...\" search starts here:") {
            part = Part::Quoted;
        } else if line.starts_with("#include <...> search starts here:") {
            part = Part::Angled;
        } else if line.starts_with("End of search list.") {
            part = Part::After;
        } else if line.ends_with(" (headermap)") || line.ends_with(" (framework directory)") {
            // Leads to files by other rules.
            return None;
        } else if let Some(folder) = line.strip_prefix(' ') {
            match part {
                Part::Quoted => path.quoted.push(folder.into()),
                Part::Angled => path.angled.push(folder.into()),
                Part::Before | Part::After => {}
            }
        }
    }
    (part == Part::After).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compiler::request::SearchKind;

    #[test]
    fn what_cannot_matter_is_left_out() {
        let words = "-D A=1 -DB -U C -Iinc -Wall -O2 -g3 -Wp,-Iother -std=c11 -isystem sys";
        let arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
        assert_eq!(deciding(&arguments).join(" "), "-Iinc -Wp,-Iother -std=c11 -isystem sys");
    }

    #[test]
    fn gcc_and_clang_listings_are_read() {
        let text = "Using built-in specs.\n x\nignoring nonexistent directory \"/usr/local/include/x86_64-linux-gnu\"\n\
                    #include \"...\" search starts here:\n q\n#include <...> search starts here:\n inc\n /usr/include\nEnd of search list.\n y\n";
        let path = parse(text).unwrap();
        assert_eq!(path.quoted, [Path::new("q")]);
        assert_eq!(path.angled, [Path::new("inc"), Path::new("/usr/include")]);
        assert_eq!(path.missing, [Path::new("/usr/local/include/x86_64-linux-gnu")]);
        assert!(parse("gcc: fatal error: no\n").is_none());
        assert!(parse("#include <...> search starts here:\n x.hmap (headermap)\nEnd of search list.\n").is_none());
    }

    #[test]
    fn a_folder_that_is_another_one_now_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let link = |target: &str| {
            let _ = std::fs::remove_file(folder.path().join("l"));
            std::os::unix::fs::symlink(target, folder.path().join("l")).unwrap();
        };
        link("a");
        let named = ["a", "l"].map(|name| SearchDirectory { kind: SearchKind::Include, path: name.into() });
        let path = Arc::new(SearchPath { angled: vec!["a".into()], ..SearchPath::default() });
        let places = places(&path, folder.path(), &named);
        let known = Remembered { places, search: Search { path, ..Search::default() } };
        assert!(still_holds(&known, folder.path(), &named));
        link("b");
        assert!(!still_holds(&known, folder.path(), &named));
        link("gone");
        assert!(!still_holds(&known, folder.path(), &named));
    }
}
