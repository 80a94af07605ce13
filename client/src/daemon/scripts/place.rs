//! Fills `OUT_DIR` with what an earlier run of the script has left: files with fresh times, the modes that they had, folders, symlinks. Blocks.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use buildbee_proto::codec::Bytes;
use buildbee_proto::local::LocalReply;
use buildbee_proto::outcome::OutputFile;
use buildbee_proto::path::RelPath;
use buildbee_store::Store;
use thiserror::Error;

use super::super::cache::{Hit, LocalCache};
use super::super::placement::{Content, PlaceError, Placed, place};
use super::plan::ScriptPlan;
use super::tree::{Layout, MAX_LAYOUT_BYTES, clear, is_empty};
use crate::compiler::outputs::Existing;

/// Where the layout stands among a result's files: no root has this place.
const LAYOUT: &str = "buildbee.d/layout";

/// Why a result can't be used.
#[derive(Debug, Error)]
pub enum ScriptPlaceError {
    /// A file could not be written.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A folder or symlink could not be made.
    #[error("cannot fill {folder}: {error}", folder = folder.display())]
    Layout {
        /// `OUT_DIR`.
        folder: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Something is there by now.
    #[error("{folder} is no longer empty", folder = .0.display())]
    Taken(PathBuf),
    /// Its content is no longer in the cache, or not what it should be.
    #[error("the cache has lost {0}")]
    Lost(String),
}

/// The layout's place.
pub fn layout_place() -> RelPath {
    RelPath::try_from(LAYOUT).unwrap_or_else(|_| RelPath::root())
}

impl ScriptPlan {
    /// Puts everything in place, or leaves the folder empty.
    pub fn put_in_place(&self, hit: &Hit, cache: &LocalCache) -> Result<(), ScriptPlaceError> {
        if !is_empty(&self.out_dir) {
            // The wrapper has not waited, and the script is at work.
            return Err(ScriptPlaceError::Taken(self.out_dir.clone()));
        }
        self.fill(hit, cache).inspect_err(|_| clear(&self.out_dir))
    }

    fn fill(&self, hit: &Hit, cache: &LocalCache) -> Result<(), ScriptPlaceError> {
        let lost = |file: &OutputFile| ScriptPlaceError::Lost(file.path.to_string());
        let store = cache.store().ok_or_else(|| ScriptPlaceError::Lost("itself".to_owned()))?;
        let place_of_layout = layout_place();
        let (layouts, files): (Vec<_>, Vec<_>) =
            hit.signed.result.outputs.iter().partition(|file| file.path == place_of_layout);
        let layout = match layouts.first() {
            None => Layout::default(),
            Some(file) => {
                let bytes = store.read(&file.digest, MAX_LAYOUT_BYTES).ok().flatten().ok_or_else(|| lost(file))?;
                Layout::from_bytes(&bytes).ok_or_else(|| lost(file))?
            }
        };
        let failed = |error| ScriptPlaceError::Layout { folder: self.out_dir.clone(), error };
        layout.make_folders(&self.out_dir, self.call.umask).map_err(failed)?;
        let spelling = self.spelling();
        let open: Vec<_> =
            files.iter().map(|file| open(store, file).ok_or_else(|| lost(file))).collect::<Result<_, _>>()?;
        let placed: Vec<_> = (files.iter().zip(&open))
            .map(|(file, open)| {
                let content =
                    open.as_ref().map_or(Content::Bytes(&[]), |open| Content::File(open, file.digest.size_bytes));
                Placed { path: spelling.real(&file.path), content, mode: file.mode, existing: Existing::Replaced }
            })
            .collect();
        if let Some(outside) = placed.iter().find(|file| !file.path.starts_with(&self.out_dir)) {
            return Err(ScriptPlaceError::Lost(outside.path.display().to_string()));
        }
        place(&placed)?;
        layout.make_links(&self.out_dir).map_err(failed)
    }

    /// What the wrapper is told of `hit`; `None` where it holds no text.
    pub fn reply(&self, hit: &Hit) -> Option<LocalReply> {
        let reals = self.roots.reals();
        let stream = |digest| {
            let text = std::str::from_utf8(hit.content(digest)).ok()?;
            Some(Bytes(reals.text(text).into_bytes()))
        };
        let result = &hit.signed.result;
        let (stdout, stderr) = (stream(&result.stdout)?, stream(&result.stderr)?);
        Some(LocalReply::Done { exit_code: result.exit_code, stdout, stderr })
    }
}

/// The content of a file; nothing of an empty one is stored.
#[expect(clippy::option_option, reason = "lost, empty, or there")]
fn open(store: &Store, file: &OutputFile) -> Option<Option<File>> {
    if file.digest.size_bytes == 0 {
        return Some(None);
    }
    store.open_blob(&file.digest).ok().flatten().map(Some)
}
