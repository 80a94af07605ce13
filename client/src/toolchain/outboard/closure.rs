//! Which store paths a store path needs, itself included: asked of the store's tool and remembered by the path's name, which never stands
//! for anything else while the path is there.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::OutboardError;
use crate::inputs::filehash::FileIdentity;
use crate::wrapper::settings::NESTED_VARIABLE;

/// Closures remembered; beyond it the memory starts over.
const MAX_CLOSURES: usize = 256;
/// Store paths in one closure.
const MAX_STORE_PATHS: usize = 4_096;
/// Of the tool's last words, bytes that are told.
const MAX_SAID_BYTES: usize = 300;
/// Where Nix's tools are where `PATH` does not lead to them.
const TOOL_FOLDERS: &str = "/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin";

/// A store, as the settings name it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The folder whose entries are the store paths.
    pub prefix: PathBuf,
    /// Prints the closure of the store path that is put behind it, a path a line. Empty: each path needs nothing but itself.
    pub closure: Vec<String>,
    /// How the names of variables begin that its wrappers read.
    pub variables: Vec<String>,
}

impl Store {
    /// Nix's own.
    pub fn nix() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let closure = words(&["nix-store", "--query", "--requisites"]);
        Self { prefix: "/nix/store".into(), closure, variables: words(&["NIX_"]) }
    }

    /// The store path that `path` lies in. `path` is absolute and physical.
    pub fn path_of(&self, path: &Path) -> Option<PathBuf> {
        let mut inside = path.strip_prefix(&self.prefix).ok()?.components();
        match inside.next()? {
            Component::Normal(name) => Some(self.prefix.join(name)),
            _ => None,
        }
    }
}

type Known = HashMap<PathBuf, (FileIdentity, Arc<[PathBuf]>)>;

/// All stores. Clones share what is remembered.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    stores: Arc<[Store]>,
    known: Arc<Mutex<Known>>,
}

impl Stores {
    /// Of these.
    pub fn new(stores: Vec<Store>) -> Self {
        Self { stores: stores.into(), known: Arc::default() }
    }

    /// The store that `path` (absolute, physical) lies in, and the store path.
    pub fn of(&self, path: &Path) -> Option<(&Store, PathBuf)> {
        self.stores.iter().find_map(|store| Some((store, store.path_of(path)?)))
    }

    /// Whether `path` lies in a store.
    pub fn hold(&self, path: &Path) -> bool {
        self.of(path).is_some()
    }

    /// What `path` of `store` needs, itself included, sorted. `search` is the `PATH` in which the tool is looked for first. Blocks.
    pub fn closure(&self, store: &Store, path: &Path, search: &OsStr) -> Result<Arc<[PathBuf]>, OutboardError> {
        let tool = store.closure.first().cloned().unwrap_or_default();
        let unlisted = |said: String| OutboardError::Unlisted { tool: tool.clone(), path: path.to_owned(), said };
        let identity = fs::symlink_metadata(path).map(|meta| FileIdentity::of(&meta));
        let identity = identity.map_err(|error| unlisted(error.to_string()))?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some((_, closure)) = known.filter(|(then, _)| *then == identity) {
            return Ok(closure);
        }
        let closure: Arc<[PathBuf]> = match store.closure.split_first() {
            None => Arc::from([path.to_owned()]),
            Some((program, arguments)) => {
                let output = command(program, search).args(arguments).arg(path).output();
                let failed = |error| OutboardError::Tool { tool: program.clone(), path: path.to_owned(), error };
                let output = output.map_err(failed)?;
                if !output.status.success() {
                    return Err(unlisted(last_words(&output.stderr)));
                }
                parse(store, path, &output.stdout).map_err(unlisted)?.into()
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_CLOSURES {
            known.clear();
        }
        known.insert(path.to_owned(), (identity, Arc::clone(&closure)));
        Ok(closure)
    }
}

/// The tool in the daemon's environment: how the store is reached (`NIX_REMOTE` and its kin) is the user's affair.
fn command(program: &str, search: &OsStr) -> Command {
    let mut path = OsString::from(search);
    path.push(":");
    path.push(TOOL_FOLDERS);
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|place| place.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| program.into()));
    command.env("PATH", path).env("LC_ALL", "C").env(NESTED_VARIABLE, "1");
    command.stdin(Stdio::null()).current_dir("/");
    command
}

fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").trim();
    line.chars().take(MAX_SAID_BYTES).collect()
}

fn parse(store: &Store, path: &Path, text: &[u8]) -> Result<Vec<PathBuf>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "its answer is no text".to_owned())?;
    let mut closure = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let named = Path::new(line);
        if store.path_of(named).as_deref() != Some(named) {
            return Err(format!("{line:?} is no path of the store"));
        }
        closure.push(named.to_owned());
        if closure.len() > MAX_STORE_PATHS {
            return Err(format!("it names more than {MAX_STORE_PATHS} paths"));
        }
    }
    closure.sort_unstable();
    closure.dedup();
    if closure.binary_search_by(|known| known.as_path().cmp(path)).is_err() {
        return Err("it does not name the path itself".to_owned());
    }
    Ok(closure)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn store_paths_are_the_first_name_below_the_prefix() {
        let store = Store::nix();
        let of = |path: &str| store.path_of(Path::new(path)).map(|path| path.display().to_string());
        assert_eq!(of("/nix/store/a-gcc/bin/cc").as_deref(), Some("/nix/store/a-gcc"));
        assert_eq!(of("/nix/store/a-file").as_deref(), Some("/nix/store/a-file"));
        for other in ["/nix/store", "/nix/storefront/x", "/usr/bin/cc", "/nix/store/../x"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        let (store, path) = (Store::nix(), Path::new("/nix/store/b"));
        let good = parse(&store, path, b"/nix/store/b\n/nix/store/a\n\n/nix/store/b\n").unwrap();
        assert_eq!(good, [Path::new("/nix/store/a"), path]);
        for bad in ["", "/nix/store/a\n", "/nix/store/b/bin\n/nix/store/b\n", "/etc\n/nix/store/b\n", "b\n"] {
            assert!(parse(&store, path, bad.as_bytes()).is_err(), "{bad}");
        }
        let many: Vec<String> = (0..=MAX_STORE_PATHS).map(|n| format!("/nix/store/{n}")).collect();
        assert!(parse(&store, path, many.join("\n").as_bytes()).is_err());
    }

    #[test]
    fn the_tool_is_asked_once_for_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (one, two, tool, count) = (root.join("s/one"), root.join("s/two"), root.join("ask"), root.join("count"));
        fs::create_dir_all(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let text = format!("#!/bin/sh\necho x >> {}\necho {}\necho \"$2\"\n", count.display(), two.display());
        fs::write(&tool, text).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        let closure = vec!["ask".to_owned(), "-R".to_owned()];
        let stores = Stores::new(vec![Store { prefix: root.join("s"), closure, variables: Vec::new() }]);
        let (store, path) = stores.of(&one.join("bin/cc")).unwrap();
        for _ in 0..2 {
            assert_eq!(stores.closure(store, &path, root.as_os_str()).unwrap()[..], [one.clone(), two.clone()]);
        }
        assert_eq!(fs::read_to_string(&count).unwrap(), "x\n");
        fs::remove_dir(&one).unwrap();
        assert!(stores.closure(store, &path, root.as_os_str()).is_err(), "gone");
        fs::remove_file(&tool).unwrap();
        fs::create_dir(&one).unwrap();
        let error = stores.closure(store, &path, root.as_os_str()).unwrap_err();
        assert!(matches!(error, OutboardError::Tool { .. }) && error.to_string().contains("hint:"), "{error}");
    }
}
