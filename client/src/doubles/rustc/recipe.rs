//! How a library was made: the call that made it, by the library's content, so that the same can be made again for another host. Kept in the same
//! store as results, and lost with what it stands beside. Blocks.
//!
//! It is a note and proves nothing: who makes a library again asks the question anew and must be led to that very library. Of the environment it
//! holds what agents are told in any case, and where this user's tools are.

use std::path::Path;

use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::local::Invocation;
use buildbee_proto::manifest::{Manifest, ManifestEntry};
use buildbee_proto::outcome::ReadSet;
use buildbee_store::Store;
use serde::{Deserialize, Serialize};

use crate::daemon::cache::Hit;
use crate::daemon::context::Context;
use crate::daemon::crates::closure::stem_of;
use crate::daemon::crates::plan::CratePlan;
use crate::rust::request::RustDriver;
use crate::wrapper::rust_paths::PATHS_VARIABLE;

/// No call of cargo's is longer.
const MAX_BYTES: usize = 1 << 20;
/// Variables that lead to compilers and folders.
const LEADING: [&str; 6] = ["CARGO_HOME", "HOME", "PATH", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", PATHS_VARIABLE];

/// One call, and the libraries that it left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    program: String,
    argv: Vec<String>,
    env: Vec<String>,
    cwd: String,
    umask: u32,
    /// Digests.
    libraries: Vec<String>,
}

impl Recipe {
    /// Of what `plan` was made to, which left `made`; `None` where no library can be made again from it.
    fn of(plan: &CratePlan, made: &Hit) -> Option<Self> {
        let (call, request) = (&plan.call, &plan.request);
        let is_told = |name: &String| {
            LEADING.contains(&name.as_str()) || request.env.iter().any(|(declared, _)| declared == name)
        };
        let env = call.env.iter().filter(|(name, _)| is_told(name)).map(|(name, value)| format!("{name}={value}"));
        let libraries = libraries(made);
        if request.driver != RustDriver::Rustc || libraries.is_empty() || made.signed.result.exit_code != 0 {
            return None;
        }
        Some(Self {
            program: call.program.to_str()?.to_owned(),
            argv: call.argv.clone(),
            env: env.collect(),
            cwd: call.cwd.to_str()?.to_owned(),
            umask: call.umask,
            libraries,
        })
    }

    /// The same call again.
    pub fn invocation(&self) -> Invocation {
        let bytes = |text: &String| Bytes(text.as_bytes().to_vec());
        let name = Path::new(&self.program).file_name().unwrap_or_default();
        Invocation {
            program: bytes(&self.program),
            argv: std::iter::once(Bytes(name.as_encoded_bytes().to_vec())).chain(self.argv.iter().map(bytes)).collect(),
            env: self.env.iter().map(bytes).collect(),
            cwd: bytes(&self.cwd),
            umask: self.umask,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            columns: None,
        }
    }

    /// Whether the call left this library.
    pub fn names(&self, library: &Digest) -> bool {
        self.libraries.contains(&library.to_string())
    }

    /// Whether `made` are the libraries that the call left.
    pub fn left(&self, made: &Hit) -> bool {
        self.libraries == libraries(made)
    }
}

fn libraries(made: &Hit) -> Vec<String> {
    let outputs = made.signed.result.outputs.iter().filter(|file| stem_of(&file.path).is_some());
    outputs.map(|file| file.digest.to_string()).collect()
}

/// Notes how the libraries among `made` came to be, for later.
pub fn remember(context: &Context, plan: &CratePlan, made: &Hit) {
    let (Some(store), Some(recipe)) = (context.cache.store(), Recipe::of(plan, made)) else { return };
    let Ok(text) = serde_json::to_vec(&recipe) else { return };
    if text.len() > MAX_BYTES {
        return;
    }
    let written = Digest::of(&text);
    let entry = ManifestEntry { action: written, read_set: ReadSet::default() };
    let manifest = Manifest { entries: vec![entry] };
    for library in recipe.libraries.iter().filter_map(|library| library.parse().ok()) {
        let key = key(&library);
        if store.contains(&written) && store.manifest(&key).ok().flatten().as_ref() == Some(&manifest) {
            continue;
        }
        let kept = store.put_bytes(&text).and_then(|_| store.put_manifest(&key, &manifest));
        if let Err(error) = kept {
            tracing::debug!(%error, "how a library was made is not kept");
        }
    }
}

/// How `library` was made, with the name of that note, if it is known.
pub fn recall(store: &Store, library: &Digest) -> Option<(Digest, Recipe)> {
    let manifest = store.manifest(&key(library)).ok()??;
    let written = manifest.entries.first()?.action;
    let text = store.read(&written, MAX_BYTES as u64).ok()??;
    Some((written, serde_json::from_slice(&text).ok()?))
}

/// Where it is kept: no question has this key.
fn key(library: &Digest) -> Digest {
    Digest::of(format!("how {library} was made").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use buildbee_store::{Durability, Options};

    use super::*;
    use crate::daemon::invocation::Checked;

    #[test]
    fn a_noted_call_is_the_same_call() {
        let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let recipe = Recipe {
            program: "/rust/bin/rustc".to_owned(),
            argv: texts(&["--crate-name", "a", "a.rs"]),
            env: texts(&["PATH=/bin", "CARGO_PKG_NAME=a=b"]),
            cwd: "/work".to_owned(),
            umask: 0o22,
            libraries: texts(&["0-1"]),
        };
        let written = serde_json::to_vec(&recipe).unwrap();
        assert_eq!(serde_json::from_slice::<Recipe>(&written).unwrap(), recipe);
        let call = Checked::new(&recipe.invocation()).unwrap();
        assert_eq!((call.program.as_path(), call.cwd.as_path()), (Path::new("/rust/bin/rustc"), Path::new("/work")));
        assert_eq!((&call.argv, call.search(), call.umask), (&recipe.argv, OsStr::new("/bin"), 0o22));
        assert!(call.env.contains(&("CARGO_PKG_NAME".to_owned(), "a=b".to_owned())));
    }

    #[test]
    fn an_unknown_library_has_no_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 1 << 20, durability: Durability::Lazy };
        let (store, _) = Store::open(folder.path(), &options).unwrap();
        assert!(recall(&store, &Digest::of(b"library")).is_none());
        let note = Digest::of(b"gone");
        let entry = ManifestEntry { action: note, read_set: ReadSet::default() };
        store.put_manifest(&key(&Digest::of(b"library")), &Manifest { entries: vec![entry] }).unwrap();
        assert!(recall(&store, &Digest::of(b"library")).is_none());
    }
}
