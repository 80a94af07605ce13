//! What a crate's compile uses beyond what its package's folder tells: files and folders outside of it, variables that its macros ask for. Learned
//! from compiles that ran here though an agent was to run them, and an input of the crate's actions from then on. Blocks.
//!
//! It is a guess at what the next compile will use, and decides nothing: what a compile was seen to use is judged after it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use buildbee_proto::digest::Digest;
use buildbee_proto::manifest::{Manifest, ManifestEntry};
use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::RelPath;
use buildbee_store::Store;

use super::plan::CratePlan;

/// Files, folders and variables of one crate; beyond it the crate is compiled here.
const MAX_BEYOND: usize = 4096;

/// What is known of one crate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beyond {
    /// Files, absolute.
    pub files: BTreeSet<PathBuf>,
    /// Folders whose names it lists.
    pub listed: BTreeSet<PathBuf>,
    /// Variables.
    pub env: BTreeSet<String>,
    /// A question that no agent can answer, although it gets all of this.
    pub stays: Option<Digest>,
}

impl Beyond {
    /// Of the crate that `plan` compiles.
    pub fn recall(store: &Store, plan: &CratePlan) -> Self {
        let known = store.manifest(&key(plan)).ok().flatten().and_then(|manifest| manifest.entries.into_iter().next());
        let Some(ManifestEntry { action, read_set }) = known else { return Self::default() };
        let absolute = |paths: Vec<(RelPath, Digest)>| paths.iter().map(|(path, _)| path.to_absolute()).collect();
        Self {
            files: absolute(read_set.files),
            listed: absolute(read_set.listed),
            env: read_set.env.into_iter().map(|(name, _)| name).collect(),
            stays: (action != goes()).then_some(action),
        }
    }

    /// Has it known from now on. What can't be kept is learned again.
    pub fn remember(&self, store: &Store, plan: &CratePlan) {
        let nothing = Digest::of(b"");
        let places = |paths: &BTreeSet<PathBuf>| {
            let known = paths.iter().filter_map(|path| RelPath::from_absolute(path).ok());
            let mut places: Vec<_> = known.map(|path| (path, nothing)).collect();
            places.sort();
            places
        };
        let read_set = ReadSet {
            files: places(&self.files),
            listed: places(&self.listed),
            env: self.env.iter().map(|name| (name.clone(), None)).collect(),
            ..ReadSet::default()
        };
        let entry = ManifestEntry { action: self.stays.unwrap_or_else(goes), read_set };
        if let Err(error) = store.put_manifest(&key(plan), &Manifest { entries: vec![entry] }) {
            tracing::debug!(%error, "what a crate uses beyond its package is not kept");
        }
    }

    /// With what a compile for the question `key` was seen to use and was not given; where that is nothing, the crate stays.
    #[must_use]
    pub fn with(&self, more: Self, key: Digest) -> Self {
        let mut all = self.clone();
        all.files.extend(more.files);
        all.listed.extend(more.listed);
        all.env.extend(more.env);
        let n = all.files.len() + all.listed.len() + all.env.len();
        if n > MAX_BEYOND {
            return Self { stays: Some(key), ..self.clone() };
        }
        all.stays = None;
        let is_same = all == Self { stays: None, ..self.clone() };
        Self { stays: is_same.then_some(key), ..all }
    }
}

/// In place of a question: there is none that has to stay.
fn goes() -> Digest {
    Digest::of(b"agents can answer it")
}

/// Where it is kept: no question has this key.
fn key(plan: &CratePlan) -> Digest {
    let source = plan.absolute(&plan.request.source);
    key_of(&source, &plan.request.crate_name, plan.request.is_test)
}

fn key_of(source: &Path, crate_name: &str, is_test: bool) -> Digest {
    let mut text = format!("beyond the package of {crate_name}, test: {is_test}: ").into_bytes();
    text.extend_from_slice(source.as_os_str().as_encoded_bytes());
    Digest::of(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Beyond {
        Beyond { files: [PathBuf::from(name)].into(), ..Beyond::default() }
    }

    #[test]
    fn what_is_new_is_tried_and_what_is_not_stays() {
        let key = Digest::of(b"question");
        let first = Beyond::default().with(file("/a"), key);
        assert_eq!(first, file("/a"));
        let again = first.with(file("/a"), key);
        assert_eq!(again.stays, Some(key));
        let more = again.with(file("/b"), key);
        assert_eq!((more.stays, more.files.len()), (None, 2));
        let names = (0..=MAX_BEYOND).map(|n| format!("V{n}")).collect();
        let endless = more.with(Beyond { env: names, ..Beyond::default() }, key);
        assert_eq!((endless.stays, endless.env.len()), (Some(key), 0));
    }
}
